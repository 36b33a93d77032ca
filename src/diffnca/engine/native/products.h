// Matrix products over packs of cells, in vector registers or in tiles; weights are packed in panels.
//
// A panel has LANES outputs; it holds a line of 64 bytes for each input (float) or each pair of inputs (bfloat16).

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifdef __AVX512BF16__
#define HAS_BFLOAT16
#if defined(__AMX_BF16__) && defined(__linux__)
#define HAS_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace {

constexpr int64_t LANES = 16;
constexpr int64_t LINE_BYTES = 64;
constexpr int64_t RUN = 16;   // cells of a line of the grid, one beside the other
constexpr int64_t RUNS = 4;   // runs of a pack
constexpr int64_t PACK = RUN * RUNS;
constexpr float EPSILON = 1e-5f;
constexpr float SLOPE = 0.01f;

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef float Half __attribute__((vector_size(2 * LANES)));
typedef float Quarter __attribute__((vector_size(LANES)));
using Halves = Half[2];
using Quarters = Quarter[4];

struct Bf16 {
    uint16_t bits;
};

inline Lanes load(const float* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }

inline void add_to(float* sum, Lanes x) { store(sum, load(sum) + x); }

inline float sum(Lanes lanes) {
    Quarters parts;
    std::memcpy(&parts, &lanes, sizeof lanes);
    const Quarter four = (parts[0] + parts[2]) + (parts[1] + parts[3]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

// A layer: `panels` of outputs, each of `pitch` numbers.
template <typename Number>
struct Layer {
    const Number* weight;
    const float* bias;
    int64_t panels, pitch;
};

// Where the inputs of a product stand: for each of `count` runs the first cell, `stride` numbers from cell to cell,
// and for each tap an offset, from which on `lines` lines of 64 bytes are read. After `used` numbers these are zeros.
template <typename Number>
struct Inputs {
    const Number* runs[RUNS];
    int64_t count;
    int64_t stride;
    const int64_t* offsets;
    int64_t taps;
    int64_t lines;
    int64_t used;
};

// Where its outputs go: to the first cell of each run, `stride` numbers from cell to cell. They are added to what
// stands there, or else to the bias of the layer. Runs that overlap stand in ascending order, with zeros for the
// cells that the next run holds too.
struct Outputs {
    float* runs[RUNS];
    int64_t stride;
    bool are_added;
};

// Products without tiles: a few rows and panels at a time have their sums in vector registers.
#if defined(__AVX512F__)
constexpr int64_t VECTOR_BYTES = 64, ROWS = 8, PANELS = 2;
#elif defined(__AVX__)
constexpr int64_t VECTOR_BYTES = 32, ROWS = 4, PANELS = 1;
#else
constexpr int64_t VECTOR_BYTES = 16, ROWS = 4, PANELS = 1;
#endif
constexpr int64_t VECTORS = LINE_BYTES / VECTOR_BYTES;  // of a line
typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));

// `sum + left * right`, in one operation where the processor has one.
inline Vector multiplied(Vector sum, const float* left, const float* right) {
    Vector line;
    std::memcpy(&line, right, sizeof line);
#if defined(__AVX512F__)
    return (Vector)_mm512_fmadd_ps(_mm512_set1_ps(*left), (__m512)line, (__m512)sum);
#elif defined(__FMA__)
    return (Vector)_mm256_fmadd_ps(_mm256_set1_ps(*left), (__m256)line, (__m256)sum);
#elif defined(__aarch64__)
    return (Vector)vfmaq_n_f32((float32x4_t)sum, (float32x4_t)line, *left);
#else
    return sum + *left * line;
#endif
}

#ifdef HAS_BFLOAT16
inline Lanes load(const Bf16* from) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return (Lanes)_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline void store(Bf16* to, Lanes lanes) {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)lanes);
    std::memcpy(to, &half, sizeof half);
}

inline Vector multiplied(Vector sum, const Bf16* left, const Bf16* right) {
    int32_t pair;
    std::memcpy(&pair, left, sizeof pair);
    const __m512i line = _mm512_loadu_si512(right);
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)line);
}
#endif

template <typename Number, int64_t WIDE>
void multiply(const Inputs<Number>& inputs, const Number* first, const Number* weight, int64_t pitch,
              const float* bias, float* out, int64_t out_stride, bool is_added) {
    constexpr int64_t LINE = LINE_BYTES / sizeof(Number), STEP = LINE / LANES, FLOATS = LANES / VECTORS;
    Vector sums[ROWS][WIDE * VECTORS];
    for (int64_t row = 0; row < ROWS; ++row)
        for (int64_t part = 0; part < WIDE * VECTORS; ++part)
            std::memcpy(&sums[row][part], (is_added ? out + row * out_stride : bias) + part * FLOATS, sizeof(Vector));
    const int64_t steps = inputs.used / STEP, unused = (inputs.lines * LANES - steps) * LINE;
    for (int64_t tap = 0; tap < inputs.taps; ++tap, weight += unused) {
        const Number* left = first + inputs.offsets[tap];
        for (int64_t k = 0; k < steps; ++k, left += STEP, weight += LINE)
            for (int64_t part = 0; part < WIDE * VECTORS; ++part) {
                const Number* right = weight + part / VECTORS * pitch + part % VECTORS * (LINE / VECTORS);
                for (int64_t row = 0; row < ROWS; ++row)
                    sums[row][part] = multiplied(sums[row][part], left + row * inputs.stride, right);
            }
    }
    for (int64_t row = 0; row < ROWS; ++row)
        std::memcpy(out + row * out_stride, sums[row], sizeof sums[row]);
}

template <typename Number>
void product(const Inputs<Number>& inputs, const Layer<Number>& layer, const Outputs& out) {
    int64_t panel = 0;
    const auto all_rows = [&]<int64_t WIDE>() {
        for (int64_t run = 0; run < inputs.count; ++run)
            for (int64_t row = 0; row < RUN; row += ROWS)
                multiply<Number, WIDE>(inputs, inputs.runs[run] + row * inputs.stride,
                                       layer.weight + panel * layer.pitch, layer.pitch, layer.bias + panel * LANES,
                                       out.runs[run] + row * out.stride + panel * LANES, out.stride, out.are_added);
    };
    for (; panel + PANELS <= layer.panels; panel += PANELS) all_rows.template operator()<PANELS>();
    for (; panel < layer.panels; ++panel) all_rows.template operator()<1>();
}

#ifdef HAS_TILES
struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// `COUNT` runs by one panel: tiles 0 to 3 hold sums, 4 and 5 inputs, 6 weights.
static_assert(RUNS == 4);

template <int COUNT>
void multiply_runs(const Inputs<Bf16>& inputs, const Bf16* weight, const float* sums[RUNS], int64_t sums_stride,
                   float* const out[RUNS], int64_t out_stride) {
    const int64_t from = sizeof(Bf16) * inputs.stride;
    _tile_loadd(0, sums[0], sums_stride);
    if constexpr (COUNT > 1) _tile_loadd(1, sums[1], sums_stride);
    if constexpr (COUNT > 2) _tile_loadd(2, sums[2], sums_stride);
    if constexpr (COUNT > 3) _tile_loadd(3, sums[3], sums_stride);
    for (int64_t tap = 0; tap < inputs.taps; ++tap) {
        int64_t at = inputs.offsets[tap];
        for (int64_t line = 0; line < inputs.lines; ++line, at += 32, weight += 512) {
            _tile_loadd(6, weight, LINE_BYTES);
            _tile_loadd(4, inputs.runs[0] + at, from);
            _tile_dpbf16ps(0, 4, 6);
            if constexpr (COUNT > 1) {
                _tile_loadd(5, inputs.runs[1] + at, from);
                _tile_dpbf16ps(1, 5, 6);
            }
            if constexpr (COUNT > 2) {
                _tile_loadd(4, inputs.runs[2] + at, from);
                _tile_dpbf16ps(2, 4, 6);
            }
            if constexpr (COUNT > 3) {
                _tile_loadd(5, inputs.runs[3] + at, from);
                _tile_dpbf16ps(3, 5, 6);
            }
        }
    }
    _tile_stored(0, out[0], out_stride);
    if constexpr (COUNT > 1) _tile_stored(1, out[1], out_stride);
    if constexpr (COUNT > 2) _tile_stored(2, out[2], out_stride);
    if constexpr (COUNT > 3) _tile_stored(3, out[3], out_stride);
}

template <>
void product(const Inputs<Bf16>& inputs, const Layer<Bf16>& layer, const Outputs& out) {
    const int64_t to = sizeof(float) * out.stride;
    const auto multiply = inputs.count == 4   ? multiply_runs<4>
                          : inputs.count == 3 ? multiply_runs<3>
                          : inputs.count == 2 ? multiply_runs<2>
                                              : multiply_runs<1>;
    for (int64_t panel = 0; panel < layer.panels; ++panel) {
        const float* sums[RUNS];
        float* runs[RUNS];
        for (int64_t run = 0; run < inputs.count; ++run) {
            runs[run] = out.runs[run] + panel * LANES;
            sums[run] = out.are_added ? runs[run] : layer.bias + panel * LANES;
        }
        multiply(inputs, layer.weight + panel * layer.pitch, sums, out.are_added ? to : 0, runs, to);
    }
}
#endif

struct Aligned {
    void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t(LINE_BYTES)); }
};

template <typename Number>
using Memory = std::unique_ptr<Number[], Aligned>;

// Zeros.
template <typename Number>
Memory<Number> memory(int64_t numbers) {
    return Memory<Number>(new(std::align_val_t(LINE_BYTES)) Number[numbers]());
}

inline Lanes rectified(Lanes x) {
    const Lanes less = x * SLOPE;
    return x > less ? x : less;
}

// e^x, within two units of the last place.
inline Lanes exponential(Lanes x) {
    typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
    constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693359375f, LN_2_REST = -2.12194440e-4f, LARGEST = 87.0f;
    x = x > LARGEST ? Lanes{} + LARGEST : x < -LARGEST ? Lanes{} - LARGEST : x;
    const Lanes turned = x * LOG2_E + (x > 0.0f ? Lanes{} + 0.5f : Lanes{} - 0.5f);
    const Integers power = __builtin_convertvector(turned, Integers);
    const Lanes whole = __builtin_convertvector(power, Lanes);
    x = x - whole * LN_2 - whole * LN_2_REST;
    Lanes sum = Lanes{} + 1.0f / 5040.0f;
    for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) sum = sum * x + factor;
    const Integers bits = (power + 127) << 23;
    Lanes scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

inline Lanes silu(Lanes x) { return x / (1.0f + exponential(-x)); }

inline Lanes silu_slope(Lanes x) {
    const Lanes share = 1.0f / (1.0f + exponential(-x));
    return share * (1.0f + x * (1.0f - share));
}

// A part of rows, one for each cell of a pack, that one product reads: `width` numbers of `stride`.
template <typename Number>
Inputs<Number> part_of(const Number* rows, int64_t stride, int64_t width, int64_t count) {
    static constexpr int64_t NO_OFFSET = 0;
    Inputs<Number> inputs{{}, count, stride, &NO_OFFSET, 1, width * int64_t(sizeof(Number)) / LINE_BYTES, width};
    for (int64_t run = 0; run < count; ++run) inputs.runs[run] = rows + run * RUN * stride;
    return inputs;
}

template <typename Number>
Inputs<Number> rows_of(const Number* rows, int64_t width, int64_t count) {
    return part_of(rows, width, width, count);
}

inline Outputs rows_to(float* rows, int64_t width) {
    Outputs outputs{{}, width, false};
    for (int64_t run = 0; run < RUNS; ++run) outputs.runs[run] = rows + run * RUN * width;
    return outputs;
}

template <typename Number>
Layer<Number> layer_of(const void* weight, const float* bias, int64_t outputs, const Inputs<Number>& inputs) {
    constexpr int64_t LINE = LINE_BYTES / sizeof(Number);
    return {static_cast<const Number*>(weight), bias, outputs / LANES, inputs.taps * inputs.lines * LANES * LINE};
}

// Let tiles hold 16 rows of 64 bytes while a function runs.
template <typename Do>
void with_tiles(Do act) {
#ifdef HAS_TILES
    const TileShapes shapes;
    _tile_loadconfig(&shapes);
#endif
    act();
#ifdef HAS_TILES
    _tile_release();
#endif
}

}  // namespace

extern "C" {

int diffnca_may_use_tiles() {
#ifdef HAS_TILES
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return 1;
#endif
}
}
