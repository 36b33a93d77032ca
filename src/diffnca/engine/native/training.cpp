// The way back of cell steps that learn. A pack of cells does its step again, in the cache, and hands on gradients.
//
// Gradients of weights are products too: numbers of cells with gradients of cells, summed over many cells. So cells
// take the place of inputs there, in both operands (`Packed`, `turned`).

#include "forwards.h"

namespace {

constexpr int64_t BLOCK_PACKS = 8;  // so many packs add to gradients of weights together
constexpr int64_t BLOCK = BLOCK_PACKS * PACK;
constexpr int64_t PITCH = BLOCK + 32;  // of turned rows; a power of two would crowd a part of the cache

inline void interleave(const float* cell, const float*, float* to) { store(to, load(cell)); }

#ifdef HAS_BFLOAT16
inline void interleave(const Bf16* cell, const Bf16* other, Bf16* to) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(cell)));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(other)));
    _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
#endif

// Numbers of many cells as panels of weights: cells stand where inputs do, `STEP` of them together.
template <typename Number>
struct Packed {
    static constexpr int64_t LINE = LINE_BYTES / sizeof(Number), STEP = LINE / LANES, PANEL = BLOCK / STEP * LINE;

    explicit Packed(int64_t width) : panels(width / LANES), numbers(memory<Number>(panels * PANEL)) {}

    // Take a run of cells; `at` counts cells.
    void take(int64_t at, const Number* cells, int64_t stride) {
        for (int64_t panel = 0; panel < panels; ++panel, cells += LANES) {
            Number* to = numbers.get() + panel * PANEL + at * LANES;
            for (int64_t cell = 0; cell < RUN; cell += STEP, to += LINE)
                interleave(cells + cell * stride, cells + (cell + STEP - 1) * stride, to);
        }
    }

    int64_t panels;
    Memory<Number> numbers;
};

// Turn a square of 16 by 16 words: rows become columns.
#ifdef __AVX512F__
inline void turn(const uint32_t* from, uint32_t* to, int64_t stride) {
    __m512i rows[16], pairs[16];
    for (int i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(from + i * LANES);
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; ++j) {
            rows[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    for (int j = 0; j < 4; ++j) {  // rows[4 * i + j] has columns j, 4 + j, 8 + j, 12 + j of rows 4 * i to 4 * i + 3
        const __m512i even[] = {_mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88),
                                _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88)};
        const __m512i odd[] = {_mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd),
                               _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd)};
        _mm512_storeu_si512(to + j * stride, _mm512_shuffle_i32x4(even[0], even[1], 0x88));
        _mm512_storeu_si512(to + (4 + j) * stride, _mm512_shuffle_i32x4(odd[0], odd[1], 0x88));
        _mm512_storeu_si512(to + (8 + j) * stride, _mm512_shuffle_i32x4(even[0], even[1], 0xdd));
        _mm512_storeu_si512(to + (12 + j) * stride, _mm512_shuffle_i32x4(odd[0], odd[1], 0xdd));
    }
}
#else
inline void turn(const uint32_t* from, uint32_t* to, int64_t stride) {
    for (int64_t i = 0; i < LANES; ++i)
        for (int64_t j = 0; j < LANES; ++j) to[i * stride + j] = from[j * LANES + i];
}
#endif

// The way back. `state` holds the gradient of the final state, and in the end that of the first.
template <typename Number>
class Returner : Learner<Number> {
    using Base = Learner<Number>;
    using typename Base::At;
    using Base::active, Base::embedded, Base::cells, Base::change, Base::factors, Base::hidden, Base::near, Base::perceived;
    using Base::pitch, Base::place, Base::places, Base::runs, Base::steps, Base::written;
    static constexpr int64_t LINE = LINE_BYTES / sizeof(Number);

  public:
    explicit Returner(const Steps& given)
        : Base(given),
          changed((written + LINE - 1) / LINE * LINE),
          beside((steps.near + LINE - 1) / LINE * LINE),
          change_rows(memory<Number>(PACK * changed)),
          hidden_rows(memory<Number>(PACK * steps.activated)),
          near_rows(memory<Number>(PACK * beside)),
          of_active(memory<float>(PACK * steps.hidden)),
          of_perceived(memory<float>(PACK * steps.perceived)),
          later(memory<float>(places * steps.seen)),
          earlier(memory<float>(places * steps.seen)),
          packed_active(steps.hidden),
          packed_perceived(steps.perceived),
          packed_seen(steps.seen),
          packed(std::max({changed, steps.activated, beside})),
          turned_change(memory<Number>(changed * PITCH)),
          turned_hidden(memory<Number>(steps.activated * PITCH)),
          turned_near(memory<Number>(beside * PITCH)) {}

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
                    add_to(steps.embedding_gradient + this->row_of(k, image, cell) * embedded + c, load(own + c));
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
        this->for_cells(at, [&](int64_t row, int64_t, int64_t cell) { back_to_hidden(at, row, cell); });
        product_back(hidden_rows.get(), steps.activated, at.count, steps.expand_back, of_perceived.get(), steps.perceived);
        std::memset(near_rows.get(), 0, PACK * beside * sizeof(Number));
        this->for_cells(at, [&](int64_t row, int64_t place, int64_t cell) { back_to_seen(at, now, row, place, cell); });
        scatter(at);
    }

    void back_to_hidden(const At& at, int64_t row, int64_t cell) {
        const float *normal = hidden.get() + row * steps.hidden, *scale = this->hidden_scale(at, cell);
        float* gradient = of_active.get() + row * steps.hidden;
        float* of_scale = steps.modulation_gradient + (scale - steps.modulations);
        Number* to = hidden_rows.get() + row * steps.activated;
        Lanes total{}, along{};
        for (int64_t c = 0; c < steps.hidden; c += LANES) {
            const Lanes x = load(normal + c);
            Lanes g = load(gradient + c);
            if (steps.modulation == SCALE_SHIFT) {
                const Lanes factor = load(scale + c);
                g = slope(x * factor + load(scale + steps.hidden + c)) * g;
                add_to(of_scale + c, g * x);
                add_to(of_scale + steps.hidden + c, g);
                g *= factor;
            } else {
                if (steps.modulation == GATE) {
                    add_to(of_scale + c, g * rectified(x));
                    g *= load(scale + c);
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

    void back_to_seen(const At& at, const Number* now, int64_t row, int64_t place, int64_t cell) {
        const float *scale = this->modulation(at, cell), *from = of_perceived.get() + row * steps.perceived;
        float *of_scale = steps.modulation_gradient + (scale - steps.modulations), *own = earlier.get() + place * steps.seen;
        const Number* seen = now + place * steps.stride;
        const float* perceived_near = near.get() + row * steps.near;
        Number* to = near_rows.get() + row * beside;
        for (int64_t c = 0; c < steps.seen + steps.near; c += LANES) {
            const bool is_own = c < steps.seen;
            Lanes g = load(from + c);
            if (steps.modulation == SCALE_SHIFT) add_to(of_scale + steps.perceived + c, g);
            if (steps.modulation > 0) {
                add_to(of_scale + c, g * (is_own ? load(seen + c) : load(perceived_near + c - steps.seen)));
                g *= load(scale + c);
            }
            if (is_own) {
                add_to(own + c, g);
            } else {
                store(to + c - steps.seen, g);
                add_to(steps.perceive_bias_gradient + c - steps.seen, g);
            }
        }
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
        for (int64_t run = 0; run < RUNS; ++run) {
            packed_active.take(first + run * RUN, active.get() + run * RUN * steps.activated, steps.activated);
            packed_perceived.take(first + run * RUN, perceived.get() + run * RUN * steps.perceived, steps.perceived);
        }
        turn_rows(change_rows.get(), changed, turned_change.get(), first);
        turn_rows(hidden_rows.get(), steps.activated, turned_hidden.get(), first);
        turn_rows(near_rows.get(), beside, turned_near.get(), first);
    }

    void turn_rows(const Number* rows, int64_t width, Number* to, int64_t first) {
        constexpr int64_t SIDE = LANES * Packed<Number>::STEP;  // cells of a square of words
        for (int64_t run = 0; run < RUNS; ++run) packed.take(run * RUN, rows + run * RUN * width, width);
        for (int64_t panel = 0; panel < width / LANES; ++panel)
            for (int64_t cell = 0; cell < PACK; cell += SIDE)
                turn(reinterpret_cast<const uint32_t*>(packed.numbers.get() + panel * Packed<Number>::PANEL + cell * LANES),
                     reinterpret_cast<uint32_t*>(to + panel * LANES * PITCH + first + cell),
                     PITCH * sizeof(Number) / sizeof(uint32_t));
    }

    void sum_weights(const At& block, const Number* now) {
        const int64_t used = (block.count + RUNS - 1) / RUNS * PACK;
        add_products(turned_change.get(), written, used, packed_active, steps.project_gradient, steps.activated);
        add_products(turned_hidden.get(), steps.hidden, used, packed_perceived, steps.expand_gradient, steps.perceived);
        int64_t taps[9];
        this->find_taps(block.k, steps.stride, taps);
        for (int64_t tap = 0; tap < 9; ++tap) {
            for (int64_t run = 0; run < block.count; ++run)
                packed_seen.take(run * RUN, now + place(block, run) * steps.stride + taps[tap], steps.stride);
            add_products(turned_near.get(), steps.near, used, packed_seen, steps.perceive_gradient + tap * steps.stride,
                         9 * steps.stride);
        }
    }

    // Add the products of gradients (`outputs` turned rows) and numbers of all cells of a block.
    void add_products(const Number* turned, int64_t outputs, int64_t used, const Packed<Number>& numbers, float* to,
                      int64_t stride) {
        static constexpr int64_t NO_OFFSET = 0;
        const Layer<Number> layer{numbers.numbers.get(), nullptr, numbers.panels, Packed<Number>::PANEL};
        for (int64_t first = 0; first < outputs; first += PACK) {
            const int64_t count = std::min(RUNS, (outputs - first) / LANES);
            Inputs<Number> inputs{{}, count, PITCH, &NO_OFFSET, 1, used / LINE, used};
            Outputs out{{}, stride, true};
            for (int64_t run = 0; run < count; ++run) {
                inputs.runs[run] = turned + (first + run * RUN) * PITCH;
                out.runs[run] = to + (first + run * RUN) * stride;
            }
            product(inputs, layer, out);
        }
    }

    void product_back(const Number* rows, int64_t width, int64_t count, const void* weight, float* out, int64_t outputs) {
        this->product_of(rows, width, count, weight, steps.zeros, out, outputs);
    }

    static Lanes slope(Lanes x) {
        const Lanes one = Lanes{} + 1.0f;
        return x > 0.0f ? one : one * SLOPE;
    }

    static void add_to(float* sum, Lanes x) { store(sum, load(sum) + x); }

    const int64_t changed, beside;
    Memory<Number> change_rows, hidden_rows, near_rows;
    Memory<float> of_active, of_perceived, later, earlier;
    Packed<Number> packed_active, packed_perceived, packed_seen, packed;
    Memory<Number> turned_change, turned_hidden, turned_near;
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

#ifdef HAS_BFLOAT16
void diffnca_forward_bfloat16(const Steps* steps) { with_tiles([&] { forward<Bf16>(*steps); }); }
void diffnca_backward_bfloat16(const Steps* steps) { with_tiles([&] { backward<Bf16>(*steps); }); }
#endif
}
