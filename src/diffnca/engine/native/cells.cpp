// One cell step, for packs of cells that stay in the cache: perceive, expand, normalise, activate, project, add.
//
// Equal bits wherever a cell lies: a number of a cell comes from the numbers that it sees by one sequence of
// operations. Its place in a run, in a pack, in an image or among threads changes none of them.
//
// Numbers of a cell stand side by side. Widths are padded with zeros to whole vectors (LANES), inputs of products
// also to whole lines of 64 bytes. Weights are packed in panels of LANES outputs; a panel holds a line of 64 bytes
// for each input (float) or each pair of inputs (bfloat16).

#include "products.h"

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

constexpr int64_t TOGETHER = 4;  // cells that are normalised together

template <typename Number>
class Worker {
  public:
    explicit Worker(const Step& step)
        : step(step),
          written(step.state_width - step.first),
          numbers(memory<Number>(PACK * (step.perceived + step.activated))),
          sums(memory<float>(PACK * (step.near + step.hidden + written))) {
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
        Inputs<Number> around{{}, count, step.stride, taps, 9, step.stride * int64_t(sizeof(Number)) / LINE_BYTES,
                              step.seen};
        for (int64_t run = 0; run < count; ++run) around.runs[run] = seen(step.now, run);
        product(around, layer_of(step.perceive, step.perceive_bias, step.near, around), rows_to(near, step.near));
        for_cells(count, [&](int64_t row, int64_t run, int64_t cell) {
            gather(around.runs[run] + cell * step.stride, near + row * step.near, perceived + row * step.perceived,
                   run, cell);
        });
        multiply_rows(perceived, step.perceived, count, step.expand, step.expand_bias, step.hidden, hidden);
        for (int64_t row = 0; row < count * RUN; row += TOGETHER) normalise(hidden, active, row);
        multiply_rows(active, step.activated, count, step.project, step.project_bias, written, change);
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

    void multiply_rows(const Number* rows, int64_t width, int64_t count, const void* weight, const float* bias,
                       int64_t outputs, float* out) {
        const Inputs<Number> inputs = rows_of(rows, width, count);
        product(inputs, layer_of(weight, bias, outputs, inputs), rows_to(out, outputs));
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

    const Step& step;
    const int64_t written;
    Memory<Number> numbers;
    Memory<float> sums;
    int64_t taps[9];
    Place places[RUNS];
};

}  // namespace

extern "C" {

void diffnca_step_float32(const Step* step) { Worker<float>(*step).run(); }

#ifdef HAS_BFLOAT16
void diffnca_step_bfloat16(const Step* step) {
    with_tiles([&] { Worker<Bf16>(*step).run(); });
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
}
