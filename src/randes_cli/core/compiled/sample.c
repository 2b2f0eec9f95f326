/* Samples of deltas: the same runs of elements of several tensors, less those of the base, and what
 * is asked of them. Sums are NumPy's: of integers, or in its order. */

#ifdef _WIN32
#include "fused.h"

EXPORT int64_t randes_deltas(void) { return -1; }
#else
#include "chunk.h"

/* A tensor of `dtype` whose first byte is byte `at` of file `from`; of file -1 all is zero. */
typedef struct {
    int64_t from, at, dtype;
} Lies;

/* Runs of counts[n] elements from element starts[n] on, `elements` together; `raw` has room for
 * the longest as it is stored, `base` for all of the base's. */
typedef struct {
    int64_t runs, elements;
    const int64_t *starts, *counts;
    uint8_t *raw;
    float *base;
} Runs;

static int read_runs(const Runs *runs, const Lies *tensor, float *out) {
    const int64_t size = tensor->dtype == F32 ? 4 : 2;
    for (int64_t run = 0; run < runs->runs; run++) {
        int64_t count = runs->counts[run];
        uint8_t *raw = tensor->dtype == F32 ? (uint8_t *)out : runs->raw;
        int failed = read_all((int)tensor->from, raw, count * size,
                              tensor->at + runs->starts[run] * size);
        if (failed) return failed;
        if (tensor->dtype != F32) randes_widen(raw, (int)tensor->dtype, out, count);
        out += count;
    }
    return DONE;
}

/* Take the base away; whether all is finite. */
TEMPLATE int subtract_as(int version, const float *restrict base, ptrdiff_t count, float *restrict out) {
    (void)version;
    uint32_t beyond = 0;
    for (ptrdiff_t at = 0; at < count; at++) {
        out[at] -= base[at];
        beyond |= !(fabsf(out[at]) <= LARGEST);
    }
    return !beyond;
}

FOR_EACH_PROCESSOR(static, int, subtract, (const float *base, ptrdiff_t count, float *out), base,
                   count, out)

/* The deltas of `count` tensors, one after the other. Returns 0, or what kept it from the end: then
 * it is done again by who can say why. */
EXPORT int64_t randes_deltas(const Runs *runs, const Lies *base, const Lies *tensors, int64_t count,
                             float *out) {
    int failed = DONE;
    if (base->from < 0)
        memset(runs->base, 0, (size_t)runs->elements * sizeof *runs->base);
    else
        failed = read_runs(runs, base, runs->base);
    for (int64_t at = 0; !failed && at < count; at++, out += runs->elements) {
        failed = read_runs(runs, tensors + at, out);
        if (!failed && !subtract(runs->base, runs->elements, out)) failed = UNFIT;
    }
    return failed;
}

/* The sum of squares in the order in which NumPy adds numbers of 64 bits: halves, down to eights. */
TEMPLATE double eights_as(int version, const float *values, ptrdiff_t count) {
    (void)version;
    double sums[8] = {0}, whole;
    ptrdiff_t at = 0;
    for (; at + 8 <= count; at += 8)
        for (int lane = 0; lane < 8; lane++)
            sums[lane] += (double)values[at + lane] * (double)values[at + lane];
    whole = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; at < count; at++) whole += (double)values[at] * (double)values[at];
    return whole;
}

FOR_EACH_PROCESSOR(static, double, eights, (const float *values, ptrdiff_t count), values, count)

static double sum_of_squares(const float *values, ptrdiff_t count) {
    if (count <= 128) return eights(values, count);
    ptrdiff_t half = count / 2 / 8 * 8;
    return sum_of_squares(values, half) + sum_of_squares(values + half, count - half);
}

TEMPLATE float largest_as(int version, const float *values, ptrdiff_t count) {
    (void)version;
    uint32_t most = 0;
    for (ptrdiff_t at = 0; at < count; at++) {
        uint32_t size = as_bits(values[at]) & 0x7FFFFFFFu;
        most = size > most ? size : most;
    }
    return as_float(most);
}

FOR_EACH_PROCESSOR(static, float, largest, (const float *values, ptrdiff_t count), values, count)

/* As `randes_deltas`, of each tensor the sum of squares and the largest magnitude alone: `delta` has
 * room for one. */
EXPORT int64_t randes_spreads(const Runs *runs, const Lies *base, const Lies *tensors,
                              int64_t count, float *delta, double *squares, double *peaks) {
    Lies zero = {-1, 0, F32};
    int64_t failed = randes_deltas(runs, base, &zero, 0, delta);
    for (int64_t at = 0; !failed && at < count; at++) {
        failed = read_runs(runs, tensors + at, delta);
        if (!failed && !subtract(runs->base, runs->elements, delta)) failed = UNFIT;
        squares[at] = sum_of_squares(delta, runs->elements);
        peaks[at] = largest(delta, runs->elements);
    }
    return failed;
}
#endif

/* 1.5 * 2^52, as ROUNDER is for float32: the low bits of what is added to it are its integer's. */
#define WIDE_ROUNDER 6755399441055744.0

TEMPLATE int32_t as_integer(double value) {
    double moved = value + WIDE_ROUNDER;
    int64_t bits;
    memcpy(&bits, &moved, sizeof bits);
    return (int32_t)bits;
}

/* out = round(delta / unit), where the largest of them is below 2^bits. Returns the unit. */
TEMPLATE double randes_on_grid_as(int version, const float *restrict delta, ptrdiff_t count,
                                  int bits, double *restrict out) {
    (void)version;
    int exponent;
    uint32_t most = 0;
    for (ptrdiff_t at = 0; at < count; at++) {
        uint32_t size = as_bits(delta[at]) & 0x7FFFFFFFu;
        most = size > most ? size : most;
    }
    frexp(as_float(most), &exponent);
    const double scale = ldexp(1.0, bits - exponent);
    for (ptrdiff_t at = 0; at < count; at++)
        out[at] = (delta[at] * scale + WIDE_ROUNDER) - WIDE_ROUNDER;
    return ldexp(1.0, exponent - bits);
}

FOR_EACH_PROCESSOR(EXPORT, double, randes_on_grid,
                   (const float *delta, ptrdiff_t count, int bits, double *out), delta, count, bits,
                   out)

/* Sums over integers x of |x|, x^2 and round(x / 2^coarse)^4. */
TEMPLATE int randes_moments_as(int version, const double *restrict units, ptrdiff_t count,
                               int coarse, int64_t *restrict sums) {
    (void)version;
    const double scale = ldexp(1.0, -coarse);
    int64_t first = 0, second = 0, fourth = 0;
    for (ptrdiff_t at = 0; at < count; at++) {
        int64_t unit = as_integer(units[at]), few = as_integer(units[at] * scale);
        few *= few;
        first += unit < 0 ? -unit : unit;
        second += unit * unit;
        fourth += few * few;
    }
    sums[0] = first, sums[1] = second, sums[2] = fourth;
    return 0;
}

FOR_EACH_PROCESSOR(EXPORT, int, randes_moments,
                   (const double *units, ptrdiff_t count, int coarse, int64_t *sums), units, count,
                   coarse, sums)

static void write_signs(const Signs *signs, float *out) {
    if (signs->kind == TWO_SIDED) {
        Part part = {0};
        for (find_part(signs, &part); part.cols; part.at += part.cols, find_part(signs, &part))
            for (ptrdiff_t col = 0; col < part.cols; col++)
                out[part.at + col] = as_float(as_bits(part.pattern[col]) ^ part.flip);
        return;
    }
    ptrdiff_t row_step;
    const float *pattern = spread_rows(signs, &row_step);
    for (int64_t row = 0; row < signs->rows; row++)
        memcpy(out + row * signs->cols, pattern + row * row_step,
               (size_t)signs->cols * sizeof *out);
}

/* The signs of runs of elements of a matrix of `cols` columns, counts[n] from element starts[n] on,
 * one after the other; `signs` are those of its view. */
EXPORT void randes_signs(const Signs *signs, int64_t cols, const int64_t *starts,
                         const int64_t *counts, int64_t runs, float *out) {
    for (int64_t run = 0; run < runs; run++)
        for (int64_t done = 0, taken; done < counts[run]; done += taken, out += taken) {
            Signs some = *signs;
            some.first = starts[run] + done, some.count = counts[run] - done;
            taken = take_signs(&some, some.first, cols, some.count);
            write_signs(&some, out);
        }
}
