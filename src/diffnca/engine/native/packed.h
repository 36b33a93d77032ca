// Operands of gradients of weights. These are products too: numbers of cells with gradients of cells, summed over many
// cells. So cells take the place of inputs there, in both operands (`Packed`, `turn`).

#pragma once

#include "products.h"

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

    // Return `width` numbers of the cells from the number `first` on.
    Layer<Number> layer(int64_t first, int64_t width) const {
        return {numbers.get() + first / LANES * PANEL, nullptr, width / LANES, PANEL};
    }

    Layer<Number> layer() const { return layer(0, panels * LANES); }

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

template <typename Number>
void pack_rows(const Number* rows, int64_t width, Packed<Number>& to, int64_t first = 0) {
    for (int64_t run = 0; run < RUNS; ++run) to.take(first + run * RUN, rows + run * RUN * width, width);
}

template <typename Number>
void turn_rows(const Number* rows, int64_t width, Number* to, int64_t first) {
    constexpr int64_t STEP = Packed<Number>::STEP, SIDE = LANES * STEP;  // cells of a square of words
    alignas(LINE_BYTES) Number square[SIDE * LANES];
    for (int64_t c = 0; c < width; c += LANES)
        for (int64_t cell = 0; cell < PACK; cell += SIDE) {
            const Number* from = rows + cell * width + c;
            for (int64_t i = 0; i < SIDE; i += STEP)
                interleave(from + i * width, from + (i + STEP - 1) * width, square + i * LANES);
            turn(reinterpret_cast<const uint32_t*>(square), reinterpret_cast<uint32_t*>(to + c * PITCH + first + cell),
                 PITCH * sizeof(Number) / sizeof(uint32_t));
        }
}

// Add the products of gradients (`outputs` turned rows) and numbers of all cells of a block.
template <typename Number>
void add_products(const Number* turned, int64_t outputs, int64_t used, const Layer<Number>& numbers, float* to,
                  int64_t stride) {
    static constexpr int64_t NO_OFFSET = 0;
    for (int64_t first = 0; first < outputs; first += PACK) {
        const int64_t count = std::min(RUNS, (outputs - first) / LANES);
        Inputs<Number> inputs{{}, count, PITCH, &NO_OFFSET, 1, used * int64_t(sizeof(Number)) / LINE_BYTES, used};
        Outputs out{{}, stride, true};
        for (int64_t run = 0; run < count; ++run) {
            inputs.runs[run] = turned + (first + run * RUN) * PITCH;
            out.runs[run] = to + (first + run * RUN) * stride;
        }
        product(inputs, numbers, out);
    }
}

}  // namespace
