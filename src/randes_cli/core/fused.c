/* The passes of kernel.py's NumpyKernel over one strip, fused into one loop each.
 *
 * Every function gives the bits that NumPy gives: differences, products and sums are single
 * float32 operations (compile without contraction into fused multiply-adds), rounding is to the
 * nearest even integer, and everything after it is integer. Arrays are contiguous, native-endian
 * and as long as rows * cols.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
/* One version for each generation of processors; the loader chooses. */
#if __GNUC__ >= 12
#define EACH_PROCESSOR \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define EACH_PROCESSOR
#endif
#define TEMPLATE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

/* As in fused_kernel.py: raise INTERFACE when what a function takes changes, so that a library
 * compiled from older text is left alone. */
enum { INTERFACE = 3 };
enum { F32, BF16, F16, ANY_F32 };
enum { NONE, COLUMN, HANKEL, TWO_SIDED };

/* 1.5 * 2^23: between 2^23 and 2^24 float32 holds the integers alone, so that adding it to a
 * number below 2^22 rounds that to an integer, half to even, found in the low bits. */
#define ROUNDER 12582912.0f
#define ROUNDER_BITS 0x4B400000u
#define GRID_LIMIT 32767
/* Parts of a step that what rounding leaves is counted in. */
#define PARTS 65536.0f
#define LARGEST 3.40282346638528859812e38f

TEMPLATE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

TEMPLATE uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Stored value number `at` in float32. */
TEMPLATE float load(const void *raw, int dtype, ptrdiff_t at) {
    if (dtype == BF16) return as_float((uint32_t)((const uint16_t *)raw)[at] << 16);
    if (dtype == F16) {
        /* Sign, exponent and fraction move into place; the product, exact, corrects the bias of
         * the exponent and normalises. What was infinite or NaN ends up at 2^16 or beyond. */
        uint32_t bits = (uint32_t)((const int16_t *)raw)[at] << 13 & 0x8FFFE000u;
        float value = as_float(bits) * 0x1p112f;
        return fabsf(value) < 65536.0f ? value : value * INFINITY;
    }
    return ((const float *)raw)[at];
}

/* Which signs a strip has, see signs.py: element (i, j) is -scale where bit `first` + j (HANKEL:
 * + i) of `bits` is 1, else +scale. TWO_SIDED: the strip is the elements `first` to `first` +
 * `count` of a rows * cols matrix, where bit i and bit `rows` + j each flip element (i, j).
 * `scratch` has room for all signs of one element each, and 15 more. */
typedef struct {
    const uint8_t *bits;
    int64_t first, rows, cols, count;
    float *scratch;
    float scale;
    int32_t kind;
} Signs;

/* Write out `count` signs from bit `first` on. */
TEMPLATE const float *spread(const Signs *signs, int64_t first, int64_t count) {
    int64_t skipped = signs->kind == NONE ? 0 : first % 8;
    for (int64_t byte = 0; byte < (skipped + count + 7) / 8; byte++) {
        uint32_t eight = signs->kind == NONE ? 0 : signs->bits[first / 8 + byte];
        for (int bit = 0; bit < 8; bit++)
            signs->scratch[8 * byte + bit] =
                as_float(as_bits(signs->scale) ^ (eight >> bit & 1u) << 31);
    }
    return signs->scratch + skipped;
}

/* The signs of a strip's first row, of which each further one starts *row_step floats later. */
TEMPLATE const float *spread_rows(const Signs *signs, ptrdiff_t *row_step) {
    *row_step = signs->kind == HANKEL;
    return spread(signs, signs->first, signs->cols + (*row_step ? signs->rows - 1 : 0));
}

/* A part of one row of a TWO_SIDED strip: `cols` elements from element `at` of the strip on, the
 * signs of their columns, and the sign bit that their row adds. */
typedef struct {
    ptrdiff_t at, cols;
    const float *columns, *pattern;
    uint32_t flip;
} Part;

/* The part at `part->at`, cols 0 after the last. Where the strip has a row or more, the signs of
 * all columns are written once; a shorter strip writes those of each of its two parts. */
TEMPLATE void find_part(const Signs *signs, Part *part) {
    int64_t place = signs->first + part->at, row = place / signs->cols, col = place % signs->cols;
    int64_t left = signs->count - part->at;
    part->cols = signs->cols - col < left ? signs->cols - col : left;
    if (!part->cols) return;
    part->flip = (uint32_t)(signs->bits[row / 8] >> row % 8 & 1) << 31;
    if (signs->count < signs->cols) {
        part->pattern = spread(signs, signs->rows + col, part->cols);
        return;
    }
    if (!part->columns) part->columns = spread(signs, signs->rows, signs->cols);
    part->pattern = part->columns + col;
}

EXPORT int randes_interface(void) { return INTERFACE; }

/* Sums over q, the integers that were added, and p, what rounding left of each, in parts of a step:
 * of q * q, of q * p and of p * p. */
typedef struct {
    uint64_t squares;
    int64_t crossed;
    uint64_t rests;
    uint32_t changed, beyond;
} Found;

/* One row: sum += direction * round((raw - base) * signs). */
TEMPLATE void add_row(const void *raw, int dtype, ptrdiff_t first, const float *restrict base,
                      const float *restrict signs, uint32_t *restrict sum, ptrdiff_t cols,
                      uint32_t direction, Found *found) {
    uint64_t squares = 0, rests = 0;
    int64_t crossed = 0;
    uint32_t changed = 0, beyond = 0;
    for (ptrdiff_t col = 0; col < cols; col++) {
        float delta = load(raw, dtype, first + col) - base[col];
        float steps = delta * signs[col], near = steps + ROUNDER;
        /* Larger numbers, infinities and NaN give bits far from those of the rounder. */
        uint32_t units = as_bits(near) - ROUNDER_BITS;
        /* Both differences are exact. */
        uint32_t parts = as_bits((steps - (near - ROUNDER)) * PARTS + ROUNDER) - ROUNDER_BITS;
        changed |= delta != 0.0f;
        beyond |= units + GRID_LIMIT > 2u * GRID_LIMIT;
        squares += units * units;
        crossed += (int32_t)(units * parts);
        rests += parts * parts;
        sum[col] += direction * units;
    }
    found->squares += squares;
    found->crossed += crossed;
    found->rests += rests;
    found->changed |= changed;
    found->beyond |= beyond;
}

TEMPLATE Found add_rows(const void *raw, int dtype, const float *base, const Signs *signs,
                        uint32_t *sum, uint32_t direction) {
    Found found = {0, 0, 0, 0, 0};
    if (signs->kind == TWO_SIDED) {
        Part part = {0};
        for (find_part(signs, &part); part.cols; part.at += part.cols, find_part(signs, &part))
            add_row(raw, dtype, part.at, base + part.at, part.pattern, sum + part.at, part.cols,
                    part.flip ? 0u - direction : direction, &found);
        return found;
    }
    ptrdiff_t row_step;
    const float *pattern = spread_rows(signs, &row_step);
    for (ptrdiff_t row = 0; row < signs->rows; row++) {
        ptrdiff_t first = row * signs->cols;
        add_row(raw, dtype, first, base + first, pattern + row * row_step, sum + first,
                signs->cols, direction, &found);
    }
    return found;
}

EACH_PROCESSOR static Found add_any(const void *raw, int dtype, const float *base,
                                    const Signs *signs, uint32_t *sum, uint32_t direction) {
    if (dtype == BF16) return add_rows(raw, BF16, base, signs, sum, direction);
    if (dtype == F16) return add_rows(raw, F16, base, signs, sum, direction);
    return add_rows(raw, F32, base, signs, sum, direction);
}

/* sum += round((raw - base) * signs), all of it or, where a rounded delta passes GRID_LIMIT or is
 * no number, nothing. Returns 0, or -1; *found says what was added, and whether any value differs
 * from the base's. */
EXPORT int randes_add(const void *raw, int dtype, const float *base, const Signs *signs,
                      uint32_t *sum, Found *found) {
    *found = add_any(raw, dtype, base, signs, sum, 1u);
    if (!found->beyond) return 0;
    add_any(raw, dtype, base, signs, sum, ~0u);
    return -1;
}

/* A sum as stored integers; returns the largest magnitude (they are cut where it is too large). */
EACH_PROCESSOR static int64_t store(const int32_t *restrict sum, ptrdiff_t size, int bits,
                                    void *restrict codes) {
    int32_t least = 0, most = 0;
    for (ptrdiff_t at = 0; at < size; at++) {
        least = sum[at] < least ? sum[at] : least;
        most = sum[at] > most ? sum[at] : most;
    }
    if (bits == 8)
        for (ptrdiff_t at = 0; at < size; at++) ((int8_t *)codes)[at] = (int8_t)sum[at];
    else
        for (ptrdiff_t at = 0; at < size; at++) ((int16_t *)codes)[at] = (int16_t)sum[at];
    return most > -(int64_t)least ? most : -(int64_t)least;
}

EXPORT int64_t randes_store(const int32_t *sum, ptrdiff_t size, int bits, void *codes) {
    return store(sum, size, bits, codes);
}

TEMPLATE float number(const void *codes, int bits, ptrdiff_t at) {
    if (bits == 8) return ((const int8_t *)codes)[at];
    return bits == 16 ? (float)((const int16_t *)codes)[at] : ((const float *)codes)[at];
}

/* One row: out = base + signs * codes as float32 or bfloat16, where `flip` is one more sign bit;
 * returns how many did not fit. */
TEMPLATE uint32_t retrieve_row(const void *codes, int bits, ptrdiff_t first,
                               const float *restrict signs, uint32_t flip, const float *base,
                               int dtype, void *out, ptrdiff_t cols) {
    uint32_t lost = 0;
#pragma GCC ivdep
    for (ptrdiff_t col = 0; col < cols; col++) {
        ptrdiff_t at = first + col;
        float sign = as_float(as_bits(signs[col]) ^ flip);
        float value = base[at] + number(codes, bits, at) * sign;
        if (dtype == BF16) {
            uint32_t word = as_bits(value);
            word = (word + (word >> 16 & 1u) + 0x7FFFu) >> 16;
            uint32_t beyond = (word & 0x7FFFu) >= 0x7F80u;
            ((uint16_t *)out)[at] = (uint16_t)(word - beyond);
            lost += beyond;
        } else if (dtype == ANY_F32) {
            ((float *)out)[at] = value;
        } else {
            uint32_t beyond = !(fabsf(value) <= LARGEST);
            ((float *)out)[at] = beyond ? copysignf(LARGEST, value) : value;
            lost += beyond;
        }
    }
    return lost;
}

TEMPLATE int64_t retrieve_rows(const void *codes, int bits, const Signs *signs,
                               const float *base, int dtype, void *out) {
    int64_t lost = 0;
    if (signs->kind == TWO_SIDED) {
        Part part = {0};
        for (find_part(signs, &part); part.cols; part.at += part.cols, find_part(signs, &part))
            lost += retrieve_row(codes, bits, part.at, part.pattern, part.flip, base, dtype, out,
                                 part.cols);
        return lost;
    }
    ptrdiff_t row_step;
    const float *pattern = spread_rows(signs, &row_step);
    for (ptrdiff_t row = 0; row < signs->rows; row++)
        lost += retrieve_row(codes, bits, row * signs->cols, pattern + row * row_step, 0, base,
                             dtype, out, signs->cols);
    return lost;
}

EACH_PROCESSOR static int64_t retrieve(const void *codes, int bits, const Signs *signs,
                                       const float *base, int dtype, void *out) {
    if (dtype == BF16) {
        if (bits == 8) return retrieve_rows(codes, 8, signs, base, BF16, out);
        if (bits == 16) return retrieve_rows(codes, 16, signs, base, BF16, out);
        return retrieve_rows(codes, 32, signs, base, BF16, out);
    }
    if (dtype == ANY_F32) {
        if (bits == 8) return retrieve_rows(codes, 8, signs, base, ANY_F32, out);
        if (bits == 16) return retrieve_rows(codes, 16, signs, base, ANY_F32, out);
        return retrieve_rows(codes, 32, signs, base, ANY_F32, out);
    }
    if (bits == 8) return retrieve_rows(codes, 8, signs, base, F32, out);
    if (bits == 16) return retrieve_rows(codes, 16, signs, base, F32, out);
    return retrieve_rows(codes, 32, signs, base, F32, out);
}

/* out = base + signs * codes as `dtype`; `base` may be `out`. Returns how many values were beyond
 * the range of `dtype` and became its largest number (ANY_F32: none does). */
EXPORT int64_t randes_retrieve(const void *codes, int bits, const Signs *signs, const float *base,
                               int dtype, void *out) {
    return retrieve(codes, bits, signs, base, dtype, out);
}

EACH_PROCESSOR static void widen(const void *raw, int dtype, float *restrict out, ptrdiff_t size) {
    if (dtype == BF16)
        for (ptrdiff_t at = 0; at < size; at++) out[at] = load(raw, BF16, at);
    else
        for (ptrdiff_t at = 0; at < size; at++) out[at] = load(raw, F16, at);
}

/* Stored bfloat16 or float16 values as float32. */
EXPORT void randes_widen(const void *raw, int dtype, float *out, ptrdiff_t size) {
    widen(raw, dtype, out, size);
}
