/* What the compiled passes share: stored numbers, signs, and versions for each processor.
 *
 * Every function gives the bits that NumPy gives: differences, products and sums are single
 * float32 operations (compile without contraction into fused multiply-adds; where one is asked
 * for, its product is exact), rounding is to the nearest even integer, and everything after it
 * is integer. Arrays are contiguous, native-endian and as long as rows * cols.
 */

#ifndef RANDES_FUSED_H
#define RANDES_FUSED_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TEMPLATE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

/* One version of a function for each generation of processors, chosen when it is called: by hand,
 * for only glibc's loader does it, and not for every compiler. NAME_as is the template; its first
 * argument is that version: from the third on a multiply-add is one instruction. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define V4 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,fma")))
#define V3 __attribute__((target("avx2,bmi,bmi2,fma")))
#define FOR_EACH_PROCESSOR(scope, type, name, parameters, ...)                       \
    V4 static type name##_v4 parameters { return name##_as(4, __VA_ARGS__); }        \
    V3 static type name##_v3 parameters { return name##_as(3, __VA_ARGS__); }        \
    static type name##_v1 parameters { return name##_as(1, __VA_ARGS__); }           \
    scope type name parameters {                                                     \
        int processor = randes_processor(0);                                         \
        if (processor >= 4) return name##_v4(__VA_ARGS__);                           \
        return processor == 3 ? name##_v3(__VA_ARGS__) : name##_v1(__VA_ARGS__);     \
    }
#else
#if defined(__aarch64__)
#define VERSION 3
#else
#define VERSION 1
#endif
#define FOR_EACH_PROCESSOR(scope, type, name, parameters, ...) \
    scope type name parameters { return name##_as(VERSION, __VA_ARGS__); }
#endif

/* The generation of this processor: 1, 3 or 4, as x86-64-v1 ... are numbered. `most` bounds it
 * from now on where it is not 0. */
EXPORT int randes_processor(int most);

/* As in kernel.py: raise INTERFACE when what a function takes changes, so that a library
 * compiled from older text is left alone. */
enum { INTERFACE = 14 };
enum { F32, BF16, F16, ANY_F32, ANY_BF16 };
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

/* Integer `at` of 8 or 16 bits, or float32 number of 32. */
TEMPLATE float number(const void *codes, int bits, ptrdiff_t at) {
    if (bits == 8) return ((const int8_t *)codes)[at];
    return bits == 16 ? (float)((const int16_t *)codes)[at] : ((const float *)codes)[at];
}

/* A magnitude as the nearest float16, half to even; 0x7C00 or more where it is beyond them. */
TEMPLATE uint32_t as_half(float size) {
    uint32_t bits = as_bits(size);
    /* From 2^-14 on the exponent's bias changes; below, units are those of 1/2 in float32. */
    uint32_t normal = (bits - 0x38000000u + 0xFFFu + (bits >> 13 & 1u)) >> 13;
    uint32_t subnormal = as_bits(size + 0.5f) - 0x3F000000u;
    return bits < 0x38800000u ? subnormal : normal;
}

/* Store a value as number `at`; returns 1 where it is beyond the dtype and becomes its largest (of
 * ANY_F32 and ANY_BF16 none is). */
TEMPLATE uint32_t put(void *out, ptrdiff_t at, float value, int dtype) {
    uint32_t beyond = 0;
    if (dtype == BF16 || dtype == ANY_BF16) {
        uint32_t word = as_bits(value);
        word = (word + (word >> 16 & 1u) + 0x7FFFu) >> 16;
        beyond = dtype == BF16 && (word & 0x7FFFu) >= 0x7F80u;
        ((uint16_t *)out)[at] = (uint16_t)(word - beyond);
    } else if (dtype == F16) {
        uint32_t half = as_half(fabsf(value));
        beyond = half >= 0x7C00u;
        half = beyond ? 0x7BFFu : half;
        ((uint16_t *)out)[at] = (uint16_t)(half | (as_bits(value) >> 16 & 0x8000u));
    } else if (dtype == ANY_F32) {
        ((float *)out)[at] = value;
    } else {
        beyond = !(fabsf(value) <= LARGEST);
        ((float *)out)[at] = beyond ? copysignf(LARGEST, value) : value;
    }
    return beyond;
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
    const uint32_t scale = as_bits(signs->scale);
    const int64_t skipped = signs->kind == NONE ? 0 : first % 8, bytes = (skipped + count + 7) / 8;
    float *restrict scratch = signs->scratch;
    if (signs->kind == NONE) {
        for (int64_t at = 0; at < 8 * bytes; at++) scratch[at] = as_float(scale);
        return scratch;
    }
    const uint8_t *bits = signs->bits + first / 8;
    for (int64_t byte = 0; byte < bytes; byte++) {
        const uint32_t eight = bits[byte];
        for (int bit = 0; bit < 8; bit++)
            scratch[8 * byte + bit] = as_float(scale ^ (eight << (31 - bit) & 0x80000000u));
    }
    return scratch + skipped;
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

/* Take the signs of elements from `first` on of a matrix of `cols` columns, `left` at the most:
 * those of whole rows, or of a part of one. Returns how many. */
TEMPLATE int64_t take_signs(Signs *signs, int64_t first, int64_t cols, int64_t left) {
    if (signs->kind == TWO_SIDED) return left;
    int64_t row = first / cols, col = first % cols;
    signs->rows = col || left < cols ? 1 : left / cols;
    signs->cols = signs->rows > 1 || cols - col < left ? cols - col : left;
    signs->first = signs->kind == HANKEL ? row + col : col;
    return signs->rows * signs->cols;
}

/* Sums over q, the integers that were added, and p, what rounding left of each, in parts of a step:
 * of q * q, of q * p and of p * p. */
typedef struct {
    uint64_t squares;
    int64_t crossed;
    uint64_t rests;
    uint32_t changed, beyond;
} Found;

/* sum += round((raw - base) * signs), all of it or, where a rounded delta passes GRID_LIMIT or is
 * no number, nothing. Returns 0, or -1; *found says what was added, and whether any value differs
 * from the base's. */
EXPORT int randes_add(const void *raw, int dtype, const float *base, const Signs *signs,
                      uint32_t *sum, Found *found);

/* A sum as stored integers; returns the largest magnitude (they are cut where it is too large). */
EXPORT int64_t randes_store(const int32_t *sum, ptrdiff_t size, int bits, void *codes);

/* out = base + signs * codes as `dtype`; `base` may be `out`. `codes` are integers of 8 or 16 bits,
 * or float32 numbers of 32. Returns how many values were beyond the range of `dtype` and became its
 * largest number (ANY_F32: none does). */
EXPORT int64_t randes_retrieve(const void *codes, int bits, const Signs *signs, const float *base,
                               int dtype, void *out);

/* Stored bfloat16 or float16 values as float32. */
EXPORT void randes_widen(const void *raw, int dtype, float *out, ptrdiff_t size);

#endif
