// The way back of cell steps that learn. A pack of cells does its step again, in the cache, and hands on gradients.

#include "embedding.h"
#include "forwards.h"

namespace {

// The way back. `state` holds the gradient of the final state, and in the end that of the first.
template <typename Number>
class Returner : Learner<Number> {
    using Base = Learner<Number>;
    using typename Base::At;
    using Base::active, Base::embedded, Base::cells, Base::change, Base::factors, Base::heard, Base::hidden, Base::near;
    using Base::perceived, Base::pitch, Base::place, Base::places, Base::runs, Base::signals, Base::steps, Base::told;
    using Base::written;
    static constexpr int64_t LINE = LINE_BYTES / sizeof(Number);

  public:
    explicit Returner(const Steps& given)
        : Base(given),
          changed((written + LINE - 1) / LINE * LINE),
          beside((steps.near + LINE - 1) / LINE * LINE),
          gated((steps.signals > 0 ? steps.modulated + LINE - 1 : 0) / LINE * LINE),
          change_rows(memory<Number>(PACK * changed)),
          hidden_rows(memory<Number>(PACK * steps.activated)),
          near_rows(memory<Number>(PACK * beside)),
          gate_rows(memory<Number>(PACK * gated)),
          inner_rows(memory<Number>(PACK * steps.signals)),
          of_active(memory<float>(PACK * steps.hidden)),
          of_perceived(memory<float>(PACK * steps.perceived)),
          of_heard(memory<float>(PACK * steps.signals)),
          of_told(memory<float>(PACK * steps.told)),
          later(memory<float>(places * steps.seen)),
          earlier(memory<float>(places * steps.seen)),
          packed_active(steps.hidden),
          packed_perceived(steps.perceived),
          packed_seen(steps.seen),
          packed_heard(steps.signals),
          packed_told(steps.told),
          turned_change(memory<Number>(changed * PITCH)),
          turned_hidden(memory<Number>(steps.activated * PITCH)),
          turned_near(memory<Number>(beside * PITCH)),
          turned_gates(memory<Number>(std::max(gated, steps.signals) * PITCH)) {}

    void backward(int64_t image) {
        this->for_image([&](int64_t place, int64_t cell) {
            this->copy(steps.state + (image * cells + cell) * steps.state_width, later.get() + place * steps.seen,
                       steps.state_width);
        });
        for (int64_t k = steps.num_steps - 1; k >= 0; --k) {
            const Number* now = Base::shown(k, image);
            std::memcpy(earlier.get(), later.get(), places * steps.seen * sizeof(float));
            this->for_packs([&](int64_t pack, int64_t count) {
                const At at{k, image, pack, count};
                give_back(at, now);
                gather(at);
                const int64_t filled = pack / RUNS % BLOCK_PACKS + 1;
                if (filled == BLOCK_PACKS || pack + count == int64_t(runs.size()))
                    sum_weights({k, image, pack - (filled - 1) * RUNS, (filled - 1) * RUNS + count}, now);
            });
            this->surround(k, [&](int64_t to, int64_t from) {
                float *beyond = earlier.get() + to * steps.seen, *inside = earlier.get() + from * steps.seen;
                for (int64_t c = 0; c < steps.seen; c += LANES) store(inside + c, load(inside + c) + load(beyond + c));
            });
            clear_beyond();
            this->for_image([&](int64_t place, int64_t cell) {
                float* own = earlier.get() + place * steps.seen + steps.state_width;
                for (int64_t c = 0; c < embedded; c += LANES)
                    add_to(steps.embedding_gradient + this->row_of(k, image, cell) * steps.told + c, load(own + c));
                std::memset(own, 0, embedded * sizeof(float));
            });
            std::swap(later, earlier);
        }
        this->for_image([&](int64_t place, int64_t cell) {
            this->copy(later.get() + place * steps.seen, steps.state + (image * cells + cell) * steps.state_width,
                       steps.state_width);
        });
    }

  private:
    void clear_beyond() {
        for (int64_t y = 0; y < steps.lines + 2 * steps.halo; ++y) {
            float* line = earlier.get() + y * pitch * steps.seen;
            const int64_t side = steps.halo * steps.seen;
            const bool is_inside = y >= steps.halo && y < steps.halo + steps.lines;
            std::memset(line, 0, (is_inside ? side : pitch * steps.seen) * sizeof(float));
            if (is_inside) std::memset(line + side + steps.length * steps.seen, 0, side * sizeof(float));
        }
    }

    // Gradients of a pack of cells, from the change back to what they have seen.
    void give_back(const At& at, const Number* now) {
        this->modulate(at);
        this->perceive(at, now);
        this->activate(at);
        std::memset(change_rows.get(), 0, PACK * changed * sizeof(Number));
        this->for_cells(at, [&](int64_t row, int64_t place, int64_t cell) {
            const float *from = later.get() + place * steps.seen + steps.first, share = this->taken(at, cell);
            Number* to = change_rows.get() + row * changed;
            for (int64_t c = 0; c < written; c += LANES) {
                const Lanes x = load(from + c) * share;
                store(to + c, x);
                add_to(steps.project_bias_gradient + c, x);
            }
        });
        product_back(change_rows.get(), changed, at.count, steps.project_back, of_active.get(), steps.hidden);
        std::memset(hidden_rows.get(), 0, PACK * steps.activated * sizeof(Number));
        this->for_cells(at, [&](int64_t row, int64_t, int64_t) { back_to_hidden(at, row); });
        product_back(hidden_rows.get(), steps.activated, at.count, steps.expand_back, of_perceived.get(), steps.perceived);
        std::memset(near_rows.get(), 0, PACK * beside * sizeof(Number));
        this->for_cells(at, [&](int64_t row, int64_t place, int64_t) { back_to_seen(at, now, row, place); });
        back_to_heard(at);
        scatter(at);
    }

    void back_to_hidden(const At& at, int64_t row) {
        const float *normal = hidden.get() + row * steps.hidden, *scale = this->hidden_scale(at, row);
        float *gradient = of_active.get() + row * steps.hidden, *of_scale = gradient_of(scale);
        Number* to = hidden_rows.get() + row * steps.activated;
        Lanes total{}, along{};
        for (int64_t c = 0; c < steps.hidden; c += LANES) {
            const Lanes x = load(normal + c);
            Lanes g = load(gradient + c);
            if (steps.modulation == SCALE_SHIFT) {
                const Lanes factor = load(scale + c);
                g = slope(x * factor + load(scale + steps.hidden + c)) * g;
                give(of_scale + c, g * x);
                give(of_scale + steps.hidden + c, g);
                g *= factor;
            } else {
                if (steps.modulation == GATE) {
                    const Lanes factor = load(scale + c);
                    give(of_scale + c, g * rectified(x));
                    g *= factor;
                }
                g *= slope(x);
            }
            store(gradient + c, g);
            total += g;
            along += g * x;
        }
        const float count = float(steps.plain_hidden), mean = sum(total) / count, lean = sum(along) / count;
        for (int64_t c = 0; c < steps.hidden; c += LANES) {
            const Lanes g = (load(gradient + c) - mean - load(normal + c) * lean) * factors[row];
            store(to + c, g);
            add_to(steps.expand_bias_gradient + c, g);
        }
    }

    void back_to_seen(const At& at, const Number* now, int64_t row, int64_t place) {
        const float *scale = this->modulation(at, row), *from = of_perceived.get() + row * steps.perceived;
        float *of_scale = gradient_of(scale), *own = earlier.get() + place * steps.seen;
        const Number* seen = now + place * steps.stride;
        const float* perceived_near = near.get() + row * steps.near;
        Number* to = near_rows.get() + row * beside;
        for (int64_t c = 0; c < steps.seen + steps.near; c += LANES) {
            const bool is_own = c < steps.seen;
            Lanes g = load(from + c);
            if (steps.modulation == SCALE_SHIFT) give(of_scale + steps.perceived + c, g);
            if (steps.modulation > 0) {
                const Lanes factor = load(scale + c);
                give(of_scale + c, g * (is_own ? load(seen + c) : load(perceived_near + c - steps.seen)));
                g *= factor;
            }
            if (is_own) {
                add_to(own + c, g);
            } else {
                store(to + c - steps.seen, g);
                add_to(steps.perceive_bias_gradient + c - steps.seen, g);
            }
        }
    }

    // Where the gradient of a modulation goes: to the sum of an image, or over what gates have made.
    float* gradient_of(const float* scale) {
        return steps.signals > 0 ? const_cast<float*>(scale) : steps.modulation_gradient + (scale - steps.modulations);
    }

    void give(float* to, Lanes x) { store(to, steps.signals > 0 ? x : load(to) + x); }

    // From modulations to their gates, and to what these take.
    void back_to_heard(const At& at) {
        if (steps.signals == 0) return;
        std::memset(gate_rows.get(), 0, PACK * gated * sizeof(Number));
        std::memset(of_heard.get(), 0, PACK * steps.signals * sizeof(float));
        this->for_cells(at, [&](int64_t row, int64_t, int64_t) {
            const float* from = this->modulation(at, row);
            for (int64_t c = 0; c < steps.modulated; c += LANES) {
                store(gate_rows.get() + row * gated + c, load(from + c));
                add_to(steps.gates_bias_gradient + c, load(from + c));
            }
        });
        pack_rows(heard.get(), steps.signals, packed_heard);
        turn_rows(gate_rows.get(), gated, turned_gates.get(), 0);
        const void* weights = steps.near_gate_back;
        for (const auto& [first, outputs, input] : this->gates()) {
            const int64_t width = (outputs + LINE - 1) / LINE * LINE;
            const Inputs<Number> inputs = part_of(gate_rows.get() + first, gated, width, at.count);
            Outputs out = rows_to(of_heard.get() + input, steps.signals);
            out.are_added = true;
            product(inputs, layer_of(weights, nullptr, steps.gate, inputs), out);
            add_products(turned_gates.get() + first * PITCH, outputs, PACK, packed_heard.layer(input, steps.gate),
                         steps.gates_gradient + first * steps.gate, steps.gate);
            weights = steps.hidden_gate_back;
        }
        back_to_told(at);
    }

    // From what gates take to the embedding of each cell.
    void back_to_told(const At& at) {
        std::memset(inner_rows.get(), 0, PACK * steps.signals * sizeof(Number));
        this->for_cells(at, [&](int64_t row, int64_t, int64_t) {
            for (int64_t c = row * steps.signals; c < (row + 1) * steps.signals; c += LANES) {
                const Lanes g = load(of_heard.get() + c) * silu_slope(load(signals.get() + c));
                store(of_heard.get() + c, g);
                store(inner_rows.get() + c, g);
                if (steps.inner != nullptr) add_to(steps.inner_bias_gradient + c - row * steps.signals, g);
            }
        });
        if (steps.inner != nullptr) {
            product_back(inner_rows.get(), steps.signals, at.count, steps.inner_back, of_told.get(), steps.told);
            pack_rows(told.get(), steps.told, packed_told);
            turn_rows(inner_rows.get(), steps.signals, turned_gates.get(), 0);
            add_products(turned_gates.get(), steps.signals, PACK, packed_told.layer(), steps.inner_gradient, steps.told);
        }
        const float* from = steps.inner == nullptr ? of_heard.get() : of_told.get();
        this->for_cells(at, [&](int64_t row, int64_t, int64_t cell) {
            float* to = steps.embedding_gradient + this->row_of(at.k, at.image, cell) * steps.told;
            for (int64_t c = 0; c < steps.told; c += LANES) add_to(to + c, load(from + row * steps.told + c));
        });
    }

    // Hand on to all neighbours, tap by tap.
    void scatter(const At& at) {
        int64_t taps[9];
        this->find_taps(at.k, steps.seen, taps);
        const Inputs<Number> inputs = rows_of(near_rows.get(), beside, at.count);
        auto layer = layer_of(steps.perceive_back, nullptr, steps.seen, inputs);
        for (int64_t tap = 0; tap < 9; ++tap, layer.weight += layer.panels * layer.pitch) {
            Outputs out{{}, steps.seen, true};
            for (int64_t run = 0; run < at.count; ++run) out.runs[run] = earlier.get() + place(at, run) * steps.seen + taps[tap];
            product(inputs, layer, out);
        }
    }

    // Keep the operands of gradients of weights.
    void gather(const At& at) {
        const int64_t first = at.pack / RUNS % BLOCK_PACKS * PACK;
        pack_rows(active.get(), steps.activated, packed_active, first);
        pack_rows(perceived.get(), steps.perceived, packed_perceived, first);
        turn_rows(change_rows.get(), changed, turned_change.get(), first);
        turn_rows(hidden_rows.get(), steps.activated, turned_hidden.get(), first);
        turn_rows(near_rows.get(), beside, turned_near.get(), first);
    }

    void sum_weights(const At& block, const Number* now) {
        const int64_t used = (block.count + RUNS - 1) / RUNS * PACK;
        add_products(turned_change.get(), written, used, packed_active.layer(), steps.project_gradient, steps.activated);
        add_products(turned_hidden.get(), steps.hidden, used, packed_perceived.layer(), steps.expand_gradient, steps.perceived);
        int64_t taps[9];
        this->find_taps(block.k, steps.stride, taps);
        for (int64_t tap = 0; tap < 9; ++tap) {
            for (int64_t run = 0; run < block.count; ++run)
                packed_seen.take(run * RUN, now + place(block, run) * steps.stride + taps[tap], steps.stride);
            add_products(turned_near.get(), steps.near, used, packed_seen.layer(),
                         steps.perceive_gradient + tap * steps.stride, 9 * steps.stride);
        }
    }

    void product_back(const Number* rows, int64_t width, int64_t count, const void* weight, float* out, int64_t outputs) {
        this->product_of(rows, width, count, weight, steps.zeros, out, outputs);
    }

    static Lanes slope(Lanes x) {
        const Lanes one = Lanes{} + 1.0f;
        return x > 0.0f ? one : one * SLOPE;
    }

    const int64_t changed, beside, gated;
    Memory<Number> change_rows, hidden_rows, near_rows, gate_rows, inner_rows;
    Memory<float> of_active, of_perceived, of_heard, of_told, later, earlier;
    Packed<Number> packed_active, packed_perceived, packed_seen, packed_heard, packed_told;
    Memory<Number> turned_change, turned_hidden, turned_near, turned_gates;
};

template <typename Number>
void forward(const Steps& steps) {
    Learner<Number> learner(steps);
    for (int64_t image = steps.first_image; image < steps.last_image; ++image) learner.forward(image);
}

template <typename Number>
void backward(const Steps& steps) {
    Returner<Number> returner(steps);
    for (int64_t image = steps.first_image; image < steps.last_image; ++image) returner.backward(image);
}

}  // namespace

extern "C" {

void diffnca_forward_float32(const Steps* steps) { forward<float>(*steps); }
void diffnca_backward_float32(const Steps* steps) { backward<float>(*steps); }

void diffnca_embed_float32(const Embed* embed) { Embedder<float>(*embed).forward(); }
void diffnca_embed_back_float32(const Embed* embed) { EmbedReturner<float>(*embed).backward(); }

#ifdef HAS_BFLOAT16
void diffnca_forward_bfloat16(const Steps* steps) { with_tiles([&] { forward<Bf16>(*steps); }); }
void diffnca_backward_bfloat16(const Steps* steps) { with_tiles([&] { backward<Bf16>(*steps); }); }
void diffnca_embed_bfloat16(const Embed* embed) { with_tiles([&] { Embedder<Bf16>(*embed).forward(); }); }
void diffnca_embed_back_bfloat16(const Embed* embed) { with_tiles([&] { EmbedReturner<Bf16>(*embed).backward(); }); }
#endif
}
