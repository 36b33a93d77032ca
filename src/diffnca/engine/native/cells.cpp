// One cell step, for packs of cells that stay in the cache: perceive, expand, normalise, activate, project, add.
//
// Equal bits wherever a cell lies: a number of a cell comes from the numbers that it sees by one sequence of
// operations. Its place in a run, in a pack, in an image or among threads changes none of them.
//
// Numbers of a cell stand side by side. Widths are padded with zeros to whole vectors (LANES), inputs of products
// also to whole lines of 64 bytes. Weights are packed in panels of LANES outputs; a panel holds a line of 64 bytes
// for each input (float) or each pair of inputs (bfloat16).

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

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
constexpr int64_t TOGETHER = 4;  // cells that are normalised together
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

inline float sum(Lanes lanes) {
    Quarters parts;
    std::memcpy(&parts, &lanes, sizeof lanes);
    const Quarter four = (parts[0] + parts[2]) + (parts[1] + parts[3]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

// A layer: `inputs` for each tap, `panels` of outputs.
template <typename Number>
struct Layer {
    const Number* weight;
    const float* bias;
    int64_t panels;
};

// Where the inputs of a product stand: for each run the first cell, `stride` numbers from cell to cell, and for
// each tap an offset, from which on `lines` lines of 64 bytes are read. After `used` numbers these are zeros.
template <typename Number>
struct Inputs {
    const Number* runs[RUNS];
    int64_t stride;
    const int64_t* offsets;
    int64_t taps;
    int64_t lines;
    int64_t used;
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
void multiply(const Inputs<Number>& inputs, const Number* first, const Number* weight, int64_t panel_numbers,
              const float* bias, float* out, int64_t out_stride) {
    constexpr int64_t LINE = LINE_BYTES / sizeof(Number), STEP = LINE / LANES, FLOATS = LANES / VECTORS;
    Vector sums[ROWS][WIDE * VECTORS];
    for (int64_t row = 0; row < ROWS; ++row)
        for (int64_t part = 0; part < WIDE * VECTORS; ++part)
            std::memcpy(&sums[row][part], bias + part * FLOATS, sizeof(Vector));
    const int64_t steps = inputs.used / STEP, unused = (inputs.lines * LANES - steps) * LINE;
    for (int64_t tap = 0; tap < inputs.taps; ++tap, weight += unused) {
        const Number* left = first + inputs.offsets[tap];
        for (int64_t k = 0; k < steps; ++k, left += STEP, weight += LINE)
            for (int64_t part = 0; part < WIDE * VECTORS; ++part) {
                const Number* right = weight + part / VECTORS * panel_numbers + part % VECTORS * (LINE / VECTORS);
                for (int64_t row = 0; row < ROWS; ++row)
                    sums[row][part] = multiplied(sums[row][part], left + row * inputs.stride, right);
            }
    }
    for (int64_t row = 0; row < ROWS; ++row)
        std::memcpy(out + row * out_stride, sums[row], sizeof sums[row]);
}

template <typename Number>
void product(const Inputs<Number>& inputs, const Layer<Number>& layer, float* out) {
    constexpr int64_t LINE = LINE_BYTES / sizeof(Number);
    const int64_t panel_numbers = inputs.taps * inputs.lines * LANES * LINE, stride = layer.panels * LANES;
    int64_t panel = 0;
    const auto all_rows = [&]<int64_t WIDE>() {
        for (int64_t run = 0; run < RUNS; ++run)
            for (int64_t row = 0; row < RUN; row += ROWS)
                multiply<Number, WIDE>(inputs, inputs.runs[run] + row * inputs.stride,
                                       layer.weight + panel * panel_numbers, panel_numbers,
                                       layer.bias + panel * LANES,
                                       out + (run * RUN + row) * stride + panel * LANES, stride);
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

// All runs of a pack by one panel: tiles 0 to 3 hold sums, 4 and 5 inputs, 6 weights.
static_assert(RUNS == 4);

template <>
void product(const Inputs<Bf16>& inputs, const Layer<Bf16>& layer, float* out) {
    const int64_t stride = layer.panels * LANES, from = sizeof(Bf16) * inputs.stride, to = sizeof(float) * stride;
    const Bf16* weight = layer.weight;
    for (int64_t first = 0; first < stride; first += LANES) {
        const float* bias = layer.bias + first;
        _tile_loadd(0, bias, 0);
        _tile_loadd(1, bias, 0);
        _tile_loadd(2, bias, 0);
        _tile_loadd(3, bias, 0);
        for (int64_t tap = 0; tap < inputs.taps; ++tap) {
            int64_t at = inputs.offsets[tap];
            for (int64_t line = 0; line < inputs.lines; ++line, at += 32, weight += 512) {
                _tile_loadd(6, weight, LINE_BYTES);
                _tile_loadd(4, inputs.runs[0] + at, from);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(5, inputs.runs[1] + at, from);
                _tile_dpbf16ps(1, 5, 6);
                _tile_loadd(4, inputs.runs[2] + at, from);
                _tile_dpbf16ps(2, 4, 6);
                _tile_loadd(5, inputs.runs[3] + at, from);
                _tile_dpbf16ps(3, 5, 6);
            }
        }
        float* to_run = out + first;
        _tile_stored(0, to_run, to);
        _tile_stored(1, to_run += RUN * stride, to);
        _tile_stored(2, to_run += RUN * stride, to);
        _tile_stored(3, to_run += RUN * stride, to);
    }
}
#endif

}  // namespace

// A cell step for some lines of some images. The fields are those of `Step` in __init__.py, in one order.
struct Step {
    int64_t lines, length, halo, stride_y, stride_x;                     // `Grid` in engine/cells.py
    int64_t state_width, seen, stride, near, perceived, hidden, activated, first, plain_hidden;  // `Widths`
    int64_t dilation, is_gated, first_image, last_image, first_line, last_line, first_cell, last_cell;
    const void* perceive;
    const float* perceive_bias;
    const void* expand;
    const float* expand_bias;
    const void* project;
    const float *project_bias, *scale, *shift;
    const void *cell_scale, *cell_shift, *cell_hidden_scale, *cell_hidden_shift;  // of each cell of the lines
    const uint8_t* taken;
    float* state;
    const void* now;
    void* next;
    float share;
};

namespace {

inline Lanes rectified(Lanes x) {
    const Lanes less = x * SLOPE;
    return x > less ? x : less;
}

template <typename Number>
class Worker {
  public:
    explicit Worker(const Step& step)
        : step(step),
          written(step.state_width - step.first),
          numbers(new(std::align_val_t(64)) Number[PACK * (step.perceived + step.activated)]()),
          sums(new(std::align_val_t(64)) float[PACK * (step.near + step.hidden + written)]) {
        for (int64_t y = -1, tap = 0; y <= 1; ++y)
            for (int64_t x = -1; x <= 1; ++x, ++tap)
                taps[tap] = (y * step.stride_y + x * step.stride_x) * step.dilation * step.stride;
    }

    void run() {
        int64_t count = 0;
        for (int64_t image = step.first_image; image < step.last_image; ++image)
            for (int64_t line = step.first_line; line < step.last_line; ++line)
                for (int64_t cell = step.first_cell; cell < step.last_cell; cell += RUN) {
                    places[count++] = {image, line, cell};
                    if (count == RUNS) update(count), count = 0;
                }
        if (count > 0) update(count);
    }

  private:
    struct Place {
        int64_t image, line, start;
    };

    void update(int64_t count) {
        Number *perceived = numbers.get(), *active = perceived + PACK * step.perceived;
        float *near = sums.get(), *hidden = near + PACK * step.near, *change = hidden + PACK * step.hidden;
        Inputs<Number> around{{}, step.stride, taps, 9, step.stride * int64_t(sizeof(Number)) / LINE_BYTES, step.seen};
        for (int64_t run = 0; run < RUNS; ++run) around.runs[run] = seen(step.now, run < count ? run : 0);
        product(around, {static_cast<const Number*>(step.perceive), step.perceive_bias, step.near / LANES}, near);
        for_cells(count, [&](int64_t row, int64_t run, int64_t cell) {
            gather(around.runs[run] + cell * step.stride, near + row * step.near, perceived + row * step.perceived,
                   run, cell);
        });
        multiply_rows(perceived, step.perceived, step.expand, step.expand_bias, step.hidden, hidden);
        for (int64_t row = 0; row < count * RUN; row += TOGETHER) normalise(hidden, active, row);
        multiply_rows(active, step.activated, step.project, step.project_bias, written, change);
        for_cells(count, [&](int64_t row, int64_t run, int64_t cell) {
            add(change + row * written, run, cell);
        });
    }

    template <typename Do>
    void for_cells(int64_t count, Do act) {
        for (int64_t run = 0; run < count; ++run) {
            const int64_t left = step.last_cell - places[run].start, cells = left < RUN ? left : RUN;
            for (int64_t cell = 0; cell < cells; ++cell) act(run * RUN + cell, run, cell);
        }
    }

    void multiply_rows(const Number* rows, int64_t width, const void* weight, const float* bias,
                       int64_t outputs, float* out) {
        static constexpr int64_t NO_OFFSET = 0;
        Inputs<Number> from{{}, width, &NO_OFFSET, 1, width * int64_t(sizeof(Number)) / LINE_BYTES, width};
        for (int64_t run = 0; run < RUNS; ++run) from.runs[run] = rows + run * RUN * width;
        product(from, {static_cast<const Number*>(weight), bias, outputs / LANES}, out);
    }

    // Of a cell: its own numbers, then what it perceives, scaled and shifted.
    void gather(const Number* own, const float* near, Number* to, int64_t run, int64_t cell) {
        if (step.cell_scale == nullptr) {
            std::memcpy(to, own, step.seen * sizeof(Number));
            for (int64_t c = 0; c < step.near; c += LANES) store(to + step.seen + c, load(near + c));
            return;
        }
        const int64_t width = step.seen + step.near, at = index(run, cell, step.first_line) * step.perceived;
        const Number *scale = moved(step.cell_scale, at), *shift = moved(step.cell_shift, at);
        for (int64_t c = 0; c < width; c += LANES) {
            Lanes x = (c < step.seen ? load(own + c) : load(near + c - step.seen)) * load(scale + c);
            store(to + c, shift == nullptr ? x : x + load(shift + c));
        }
    }

    // Some rows together, since sums of one row wait for each other.
    void normalise(const float* hidden, Number* active, int64_t row) {
        const int64_t width = step.hidden, last = width - LANES, valid = LANES - (width - step.plain_hidden);
        const float numbers = float(step.plain_hidden);
        const float* x = hidden + row * width;
        Number* to = active + row * step.activated;
        Lanes totals[TOGETHER]{}, squares[TOGETHER]{};
        for (int64_t c = 0; c < width; c += LANES)
            for (int64_t i = 0; i < TOGETHER; ++i) totals[i] += load(x + i * width + c);
        float means[TOGETHER], factors[TOGETHER];
        for (int64_t i = 0; i < TOGETHER; ++i) means[i] = sum(totals[i]) / numbers;
        for (int64_t c = 0; c < width; c += LANES)
            for (int64_t i = 0; i < TOGETHER; ++i) {
                Lanes part = load(x + i * width + c) - means[i];
                if (c == last)
                    for (int64_t lane = valid; lane < LANES; ++lane) part[lane] = 0.0f;
                squares[i] += part * part;
            }
        for (int64_t i = 0; i < TOGETHER; ++i)
            factors[i] = 1.0f / std::sqrt(sum(squares[i]) / numbers + EPSILON);
        if (step.cell_hidden_scale == nullptr) {
            const float *scales[TOGETHER], *shifts[TOGETHER];
            for (int64_t i = 0; i < TOGETHER; ++i) scales[i] = step.scale, shifts[i] = step.shift;
            activate(x, means, factors, scales, shifts, to);
        } else {
            const Number *scales[TOGETHER], *shifts[TOGETHER];
            for (int64_t i = 0; i < TOGETHER; ++i) {
                const int64_t run = (row + i) / RUN, left = step.length - places[run].start - 1,
                              cell = (row + i) % RUN,
                              at = index(run, cell < left ? cell : left, step.first_line) * width;
                scales[i] = moved(step.cell_hidden_scale, at), shifts[i] = moved(step.cell_hidden_shift, at);
            }
            activate(x, means, factors, scales, shifts, to);
        }
    }

    template <typename Factor>
    void activate(const float* x, const float* means, const float* factors, const Factor* const* scales,
                  const Factor* const* shifts, Number* to) {
        const int64_t width = step.hidden, stride = step.activated;
        const bool is_gated = step.is_gated;
        for (int64_t c = 0; c < width; c += LANES)
            for (int64_t i = 0; i < TOGETHER; ++i) {
                Lanes y = (load(x + i * width + c) - means[i]) * factors[i];
                if (is_gated) y = rectified(y);
                if (scales[i] != nullptr) y *= load(scales[i] + c);
                if (shifts[i] != nullptr) y += load(shifts[i] + c);
                store(to + i * stride + c, is_gated ? y : rectified(y));
            }
    }

    static const Number* moved(const void* numbers, int64_t by) {
        return numbers == nullptr ? nullptr : static_cast<const Number*>(numbers) + by;
    }

    void add(const float* change, int64_t run, int64_t cell) {
        const int64_t at = places[run].image * step.lines * step.length + index(run, cell, 0);
        float* state = step.state + at * step.state_width + step.first;
        Number* next = const_cast<Number*>(seen(step.next, run)) + cell * step.stride + step.first;
        const float taken = step.taken == nullptr ? step.share : float(step.taken[at]);
        for (int64_t c = 0; c < written; c += LANES) {
            const Lanes x = load(state + c) + load(change + c) * taken;
            store(state + c, x);
            store(next + c, x);
        }
    }

    int64_t index(int64_t run, int64_t cell, int64_t first_line) const {
        return (places[run].line - first_line) * step.length + places[run].start + cell;
    }

    const Number* seen(const void* of, int64_t run) const {
        const int64_t pitch = step.length + 2 * step.halo, rows = step.lines + 2 * step.halo;
        const auto& [image, line, start] = places[run];
        const int64_t cell = (image * rows + line + step.halo) * pitch + start + step.halo;
        return static_cast<const Number*>(of) + cell * step.stride;
    }

    struct Aligned {
        void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
    };

    const Step& step;
    const int64_t written;
    std::unique_ptr<Number[], Aligned> numbers;
    std::unique_ptr<float[], Aligned> sums;
    int64_t taps[9];
    Place places[RUNS];
};

}  // namespace

extern "C" {

void diffnca_step_float32(const Step* step) { Worker<float>(*step).run(); }

#ifdef HAS_BFLOAT16
void diffnca_step_bfloat16(const Step* step) {
#ifdef HAS_TILES
    const TileShapes shapes;
    _tile_loadconfig(&shapes);
#endif
    Worker<Bf16>(*step).run();
#ifdef HAS_TILES
    _tile_release();
#endif
}
#endif

// Copy cells to where they are seen beyond the edges; `rows` and `columns` say of each place which cell stands there.
void diffnca_surround(char* seen, const int32_t* rows, const int32_t* columns, int64_t images, int64_t lines, int64_t length,
                  int64_t halo, int64_t width, int64_t bytes) {
    const int64_t pitch = length + 2 * halo, high = lines + 2 * halo;
    for (int64_t image = 0; image < images; ++image) {
        char* first = seen + image * high * pitch * bytes;
        for (int64_t y = halo - width; y < halo + lines + width; ++y) {
            const bool is_inside = y >= halo && y < halo + lines;
            for (int64_t x = halo - width; x < halo + length + width; ++x) {
                if (is_inside && x == halo) x = halo + length;
                const int64_t from = (rows[y - halo + width] + halo) * pitch + columns[x - halo + width] + halo;
                std::memcpy(first + (y * pitch + x) * bytes, first + from * bytes, bytes);
            }
        }
    }
}

int diffnca_may_use_tiles() {
#ifdef HAS_TILES
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return 1;
#endif
}
}
