// The way forwards of cell steps that learn. It keeps what cells see before each cell step; the way back does its
// parts again.

#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "products.h"

// All cell steps of some images. The fields are those of `Steps` in engine/learning.py, in one order.
struct Steps {
    int64_t lines, length, halo, stride_y, stride_x;                                              // `Grid`
    int64_t state_width, seen, stride, near, perceived, hidden, activated, first, plain_hidden;  // `Widths`
    int64_t num_steps, images, first_image, last_image;
    int64_t boundary_y, boundary_x;        // 0: zeros, 1: mirrored, 2: around
    int64_t modulation, modulated;         // 0: none, 1: gate, 2: scale and shift; how many numbers
    int64_t rows, told;                    // embeddings of an image: one, or one for each cell; numbers of an embedding
    int64_t signals, gate;                 // what both gates of each cell take, if these make its modulations; what one takes
    const int64_t* dilations;
    const void* perceive;
    const float* perceive_bias;
    const void* expand;
    const float* expand_bias;
    const void* project;
    const float* project_bias;
    const void* inner;  // from an embedding to the signals; nothing if it stands for them itself
    const float* inner_bias;
    const void* gates;
    const float* gates_bias;
    const void *perceive_back, *expand_back, *project_back, *inner_back, *near_gate_back, *hidden_gate_back;
    const float *modulations, *embedding, *zeros;
    const uint8_t* taken;
    float* state;
    void* shown;
    float *modulation_gradient, *embedding_gradient;
    float *perceive_gradient, *perceive_bias_gradient, *expand_gradient, *expand_bias_gradient;
    float *project_gradient, *project_bias_gradient, *inner_gradient, *inner_bias_gradient;
    float *gates_gradient, *gates_bias_gradient;
    float share;
};

namespace {

constexpr int64_t ZEROS = 0, AROUND = 2, GATE = 1, SCALE_SHIFT = 2;

template <typename Number>
class Learner {
  public:
    explicit Learner(const Steps& steps)
        : steps(steps),
          written(steps.state_width - steps.first),
          embedded(steps.seen - steps.state_width),
          pitch(steps.length + 2 * steps.halo),
          places((steps.lines + 2 * steps.halo) * pitch + RUN),
          cells(steps.lines * steps.length),
          perceived(memory<Number>(PACK * steps.perceived)),
          active(memory<Number>(PACK * steps.activated)),
          near(memory<float>(PACK * steps.near)),
          hidden(memory<float>(PACK * steps.hidden)),
          change(memory<float>(PACK * written)),
          told(memory<Number>(PACK * steps.told)),
          heard(memory<Number>(PACK * steps.signals)),
          signals(memory<float>(PACK * steps.signals)),
          made(memory<float>(steps.signals > 0 ? PACK * steps.modulated : 0)) {
        for (int64_t line = 0; line < steps.lines; ++line)
            for (int64_t start = 0; start < steps.length; start += RUN)
                runs.push_back({line, start, std::min(RUN, steps.length - start)});
    }

    void forward(int64_t image) {
        for_image([&](int64_t place, int64_t cell) {
            copy(steps.state + (image * cells + cell) * steps.state_width, shown(0, image) + place * steps.stride,
                 steps.state_width);
        });
        for (int64_t k = 0; k < steps.num_steps; ++k) {
            Number *now = shown(k, image), *next = k + 1 < steps.num_steps ? shown(k + 1, image) : nullptr;
            for_image([&](int64_t place, int64_t cell) {
                copy(steps.embedding + row_of(k, image, cell) * steps.told, now + place * steps.stride + steps.state_width,
                     embedded);
            });
            surround(k, [&](int64_t to, int64_t from) {
                std::memcpy(now + to * steps.stride, now + from * steps.stride, steps.stride * sizeof(Number));
            });
            for_packs([&](int64_t pack, int64_t count) {
                const At at{k, image, pack, count};
                modulate(at);
                perceive(at, now);
                activate(at);
                product_of(active.get(), steps.activated, count, steps.project, steps.project_bias, change.get(), written);
                for_cells(at, [&](int64_t row, int64_t place, int64_t cell) {
                    Number* to = next == nullptr ? nullptr : next + place * steps.stride;
                    if (to != nullptr) std::memcpy(to, now + place * steps.stride, steps.first * sizeof(Number));
                    add(change.get() + row * written, taken(at, cell), image * cells + cell, to);
                });
            });
        }
    }

  protected:
    struct Run {
        int64_t line, start, cells;
    };
    struct At {
        int64_t k, image, pack, count;
    };

    template <typename From, typename To>
    static void copy(const From* from, To* to, int64_t numbers) {
        for (int64_t c = 0; c < numbers; c += LANES) store(to + c, load(from + c));
    }

    // For each cell of an image: its place in what is seen, and its number.
    template <typename Do>
    void for_image(Do act) {
        for (int64_t line = 0; line < steps.lines; ++line)
            for (int64_t cell = 0; cell < steps.length; ++cell)
                act((line + steps.halo) * pitch + cell + steps.halo, line * steps.length + cell);
    }

    // Gates make the modulations of cells that know their places.
    void modulate(const At& at) {
        if (steps.signals == 0) return;
        listen(at);
        for (const Gate& gate : gates()) {
            const Inputs<Number> inputs = part_of(heard.get() + gate.input, steps.signals, steps.gate, at.count);
            const int64_t pitch = inputs.lines * LANES * LINE_BYTES / int64_t(sizeof(Number));
            const Number* weight = static_cast<const Number*>(steps.gates) + gate.first / LANES * pitch;
            product(inputs, layer_of(weight, steps.gates_bias + gate.first, gate.outputs, inputs), rows_to(made.get() + gate.first, steps.modulated));
        }
    }

    // What gates take: the embedding of a cell, perhaps through an inner layer, and activated.
    void listen(const At& at) {
        for_cells(at, [&](int64_t row, int64_t, int64_t cell) {
            const float* from = steps.embedding + row_of(at.k, at.image, cell) * steps.told;
            copy(from, told.get() + row * steps.told, steps.told);
            if (steps.inner == nullptr) copy(from, signals.get() + row * steps.told, steps.told);
        });
        if (steps.inner != nullptr)
            product_of(told.get(), steps.told, at.count, steps.inner, steps.inner_bias, signals.get(), steps.signals);
        for (int64_t c = 0; c < at.count * RUN * steps.signals; c += LANES) {
            store(heard.get() + c, silu(load(signals.get() + c)));
        }
    }

    // Perceive, and scale and shift what is perceived.
    void perceive(const At& at, const Number* now) {
        int64_t taps[9];
        find_taps(at.k, steps.stride, taps);
        Inputs<Number> around{{}, at.count, steps.stride, taps, 9,
                              steps.stride * int64_t(sizeof(Number)) / LINE_BYTES, steps.seen};
        for (int64_t run = 0; run < at.count; ++run) around.runs[run] = now + place(at, run) * steps.stride;
        product(around, layer_of(steps.perceive, steps.perceive_bias, steps.near, around), rows_to(near.get(), steps.near));
        for_cells(at, [&](int64_t row, int64_t place, int64_t) {
            const Number* own = now + place * steps.stride;
            const float* beside = near.get() + row * steps.near;
            Number* to = perceived.get() + row * steps.perceived;
            const float* scale = modulation(at, row);
            for (int64_t c = 0; c < steps.seen + steps.near; c += LANES) {
                Lanes x = c < steps.seen ? load(own + c) : load(beside + c - steps.seen);
                if (steps.modulation > 0) x *= load(scale + c);
                if (steps.modulation == SCALE_SHIFT) x += load(scale + steps.perceived + c);
                store(to + c, x);
            }
        });
    }

    // The hidden layer, normalised (`hidden`) and activated (`active`).
    void activate(const At& at) {
        product_of(perceived.get(), steps.perceived, at.count, steps.expand, steps.expand_bias, hidden.get(), steps.hidden);
        const int64_t last = steps.hidden - LANES, valid = LANES - (steps.hidden - steps.plain_hidden);
        for_cells(at, [&](int64_t row, int64_t, int64_t) {
            float* x = hidden.get() + row * steps.hidden;
            Number* to = active.get() + row * steps.activated;
            const float *scale = hidden_scale(at, row), *shift = scale + steps.hidden;
            Lanes total{}, squares{};
            for (int64_t c = 0; c < steps.hidden; c += LANES) total += load(x + c);
            const float mean = sum(total) / float(steps.plain_hidden);
            for (int64_t c = 0; c < steps.hidden; c += LANES) {
                Lanes part = load(x + c) - mean;
                if (c == last)
                    for (int64_t lane = valid; lane < LANES; ++lane) part[lane] = 0.0f;
                store(x + c, part);
                squares += part * part;
            }
            const float factor = 1.0f / std::sqrt(sum(squares) / float(steps.plain_hidden) + EPSILON);
            factors[row] = factor;
            for (int64_t c = 0; c < steps.hidden; c += LANES) {
                const Lanes normal = load(x + c) * factor;
                store(x + c, normal);
                Lanes y = normal;
                if (steps.modulation == SCALE_SHIFT) y = y * load(scale + c) + load(shift + c);
                y = rectified(y);
                if (steps.modulation == GATE) y *= load(scale + c);
                store(to + c, y);
            }
        });
    }

    void add(const float* by, float share, int64_t cell, Number* next) {
        float* state = steps.state + cell * steps.state_width + steps.first;
        for (int64_t c = 0; c < written; c += LANES) {
            const Lanes x = load(state + c) + load(by + c) * share;
            store(state + c, x);
            if (next != nullptr) store(next + steps.first + c, x);
        }
    }

    template <typename Do>
    void for_packs(Do act) {
        for (int64_t pack = 0; pack < int64_t(runs.size()); pack += RUNS)
            act(pack, std::min(RUNS, int64_t(runs.size()) - pack));
    }

    // For each cell of a pack: its row there, its place in what is seen, its number in the image.
    template <typename Do>
    void for_cells(const At& at, Do act) {
        for (int64_t run = 0; run < at.count; ++run) {
            const auto& [line, start, count] = runs[at.pack + run];
            for (int64_t cell = 0; cell < count; ++cell)
                act(run * RUN + cell, place(at, run) + cell, line * steps.length + start + cell);
        }
    }

    // For each place that is seen beyond an edge: the place whose cell stands there.
    template <typename Do>
    void surround(int64_t k, Do act) {
        const int64_t width = steps.dilations[k], halo = steps.halo;
        if (steps.boundary_y == ZEROS) return;
        for (int64_t y = -width; y < steps.lines + width; ++y)
            for (int64_t x = -width; x < steps.length + width; ++x) {
                if (y >= 0 && y < steps.lines && x == 0) x = steps.length;
                act((y + halo) * pitch + x + halo, (folded(y, steps.lines, steps.boundary_y) + halo) * pitch +
                                                       folded(x, steps.length, steps.boundary_x) + halo);
            }
    }

    static int64_t folded(int64_t at, int64_t size, int64_t boundary) {
        const int64_t period = boundary == AROUND ? size : std::max(2 * (size - 1), int64_t(1));
        at = (at % period + period) % period;
        return at < size ? at : period - at;
    }

    void find_taps(int64_t k, int64_t width, int64_t taps[9]) const {
        for (int64_t y = -1, tap = 0; y <= 1; ++y)
            for (int64_t x = -1; x <= 1; ++x, ++tap)
                taps[tap] = (y * steps.stride_y + x * steps.stride_x) * steps.dilations[k] * width;
    }

    void product_of(const Number* rows, int64_t width, int64_t count, const void* weight, const float* bias, float* out,
                    int64_t outputs) {
        const Inputs<Number> inputs = rows_of(rows, width, count);
        product(inputs, layer_of(weight, bias, outputs, inputs), rows_to(out, outputs));
    }

    int64_t place(const At& at, int64_t run) const {
        const auto& [line, start, count] = runs[at.pack + run];
        return (line + steps.halo) * pitch + start + steps.halo;
    }

    int64_t row_of(int64_t k, int64_t image, int64_t cell) const {
        return (k * steps.images + image) * steps.rows + (steps.rows > 1 ? cell : 0);
    }

    // The gates of what is perceived and of the hidden layer: first output, number of outputs, first input.
    struct Gate {
        int64_t first, outputs, input;
    };

    std::array<Gate, 2> gates() const {
        const int64_t near = steps.modulation * steps.perceived;
        return {{{0, near, 0}, {near, steps.modulated - near, steps.signals - steps.gate}}};
    }

    const float* modulation(const At& at, int64_t row) const {
        return steps.signals > 0 ? made.get() + row * steps.modulated
                                 : steps.modulations + (at.k * steps.images + at.image) * steps.modulated;
    }

    const float* hidden_scale(const At& at, int64_t row) const {
        return modulation(at, row) + steps.modulation * steps.perceived;
    }

    float taken(const At& at, int64_t cell) const {
        return steps.taken == nullptr ? steps.share : float(steps.taken[(at.k * steps.images + at.image) * cells + cell]);
    }

    Number* shown(int64_t k, int64_t image) const {
        return static_cast<Number*>(steps.shown) + (k * steps.images + image) * places * steps.stride;
    }

    const Steps& steps;
    const int64_t written, embedded, pitch, places, cells;
    std::vector<Run> runs;
    Memory<Number> perceived, active;
    Memory<float> near, hidden, change;
    Memory<Number> told, heard;
    Memory<float> signals, made;  // modulations
    float factors[PACK];
};

}  // namespace
