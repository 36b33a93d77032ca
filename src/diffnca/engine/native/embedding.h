// The small network that embeds numbers of cells, for packs of rows that stay in the cache: a layer, SiLU, a layer.

#pragma once

#include <algorithm>

#include "packed.h"

// Some rows of numbers and their embeddings. The fields are those of `Embed` in engine/embeddings.py, in one order.
struct Embed {
    int64_t first, last, inputs, width, outputs;
    const float* numbers;
    float* embedding;  // on the way back its gradient
    const void* inner;
    const float* inner_bias;
    const void* outer;
    const float* outer_bias;
    const void* outer_back;
    const float* zeros;
    float *inner_gradient, *inner_bias_gradient, *outer_gradient, *outer_bias_gradient;
};

namespace {

template <typename Number>
class Embedder {
  public:
    explicit Embedder(const Embed& embed)
        : embed(embed),
          numbers(memory<Number>(PACK * embed.inputs)),
          active(memory<Number>(PACK * embed.width)),
          hidden(memory<float>(PACK * embed.width)),
          made(memory<float>(PACK * embed.outputs)) {}

    void forward() {
        for_packs([&](int64_t first, int64_t rows) {
            activate(first, rows);
            layer(active.get(), embed.width, embed.outer, embed.outer_bias, made.get(), embed.outputs);
            std::memcpy(embed.embedding + first * embed.outputs, made.get(), rows * embed.outputs * sizeof(float));
        });
    }

  protected:
    template <typename Do>
    void for_packs(Do act) {
        for (int64_t first = embed.first; first < embed.last; first += PACK) act(first, std::min(PACK, embed.last - first));
    }

    void activate(int64_t first, int64_t rows) {
        for (int64_t c = 0; c < rows * embed.inputs; c += LANES)
            store(numbers.get() + c, load(embed.numbers + first * embed.inputs + c));
        layer(numbers.get(), embed.inputs, embed.inner, embed.inner_bias, hidden.get(), embed.width);
        for (int64_t c = 0; c < PACK * embed.width; c += LANES) store(active.get() + c, silu(load(hidden.get() + c)));
    }

    void layer(const Number* rows, int64_t width, const void* weight, const float* bias, float* out, int64_t outputs) {
        const Inputs<Number> inputs = rows_of(rows, width, RUNS);
        product(inputs, layer_of(weight, bias, outputs, inputs), rows_to(out, outputs));
    }

    const Embed& embed;
    Memory<Number> numbers, active;
    Memory<float> hidden, made;
};

template <typename Number>
class EmbedReturner : Embedder<Number> {
    using Base = Embedder<Number>;
    using Base::active, Base::embed, Base::hidden, Base::made, Base::numbers;

  public:
    explicit EmbedReturner(const Embed& given)
        : Base(given),
          of_outputs(memory<Number>(PACK * embed.outputs)),
          of_hidden(memory<Number>(PACK * embed.width)),
          of_active(memory<float>(PACK * embed.width)),
          packed_numbers(embed.inputs),
          packed_active(embed.width),
          turned(memory<Number>(std::max(embed.width, embed.outputs) * PITCH)) {}

    void backward() {
        this->for_packs([&](int64_t first, int64_t rows) {
            this->activate(first, rows);
            std::memset(made.get(), 0, PACK * embed.outputs * sizeof(float));
            std::memcpy(made.get(), embed.embedding + first * embed.outputs, rows * embed.outputs * sizeof(float));
            add_layer(made.get(), embed.outputs, of_outputs.get(), active.get(), embed.width, packed_active,
                      embed.outer_gradient, embed.outer_bias_gradient);
            this->layer(of_outputs.get(), embed.outputs, embed.outer_back, embed.zeros, of_active.get(), embed.width);
            for (int64_t c = 0; c < PACK * embed.width; c += LANES)
                store(of_active.get() + c, load(of_active.get() + c) * silu_slope(load(hidden.get() + c)));
            add_layer(of_active.get(), embed.width, of_hidden.get(), numbers.get(), embed.inputs, packed_numbers,
                      embed.inner_gradient, embed.inner_bias_gradient);
        });
    }

  private:
    // Add to the gradients of a layer: from those of its outputs, which become `rows`, and from its inputs.
    void add_layer(const float* gradient, int64_t outputs, Number* rows, const Number* taken, int64_t inputs,
                   Packed<Number>& packed, float* to, float* bias) {
        for (int64_t row = 0; row < PACK; ++row)
            for (int64_t c = 0; c < outputs; c += LANES) {
                const Lanes x = load(gradient + row * outputs + c);
                store(rows + row * outputs + c, x);
                add_to(bias + c, x);
            }
        pack_rows(taken, inputs, packed);
        turn_rows(rows, outputs, turned.get(), 0);
        add_products(turned.get(), outputs, PACK, packed.layer(), to, inputs);
    }

    Memory<Number> of_outputs, of_hidden;
    Memory<float> of_active;
    Packed<Number> packed_numbers, packed_active;
    Memory<Number> turned;
};

}  // namespace
