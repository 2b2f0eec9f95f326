/* The passes of kernel.py's NumpyKernel over one strip, fused into one loop each. */

#include "fused.h"

EXPORT int randes_interface(void) { return INTERFACE; }

#if defined(__x86_64__) && defined(__GNUC__)
static int look(void) {
    __builtin_cpu_init();
    int v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
             __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
    int v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return v4 ? 4 : v3 ? 3 : 1;
}
#else
static int look(void) { return 1; }
#endif

int randes_processor(int most) {
    static int known, bound; /* threads that look at once find the same */
    if (most) bound = most;
    if (!known) known = look();
    return bound && bound < known ? bound : known;
}

/* Elements whose sums of squares fit in 32 bits where no integer is as large as LARGE. */
enum { BLOCK = 512, LARGE = 2048 };

/* The sums over one block in which an integer is LARGE, or too large. */
TEMPLATE void look_closely(const void *raw, int dtype, ptrdiff_t first, const float *base,
                           const float *signs, ptrdiff_t size, Found *found) {
    for (ptrdiff_t at = 0; at < size; at++) {
        float steps = (load(raw, dtype, first + at) - base[at]) * signs[at];
        float near = steps + ROUNDER;
        /* Larger numbers, infinities and NaN give bits far from those of the rounder. */
        uint32_t units = as_bits(near) - ROUNDER_BITS;
        uint32_t parts = as_bits((steps - (near - ROUNDER)) * PARTS + ROUNDER) - ROUNDER_BITS;
        found->beyond |= units + GRID_LIMIT > 2u * GRID_LIMIT;
        found->squares += units * units;
        found->crossed += (int32_t)(units * parts);
        found->rests += parts * parts;
    }
}

/* A block of a row: sum += (or, `minus`, -=) round((raw - base) * signs). */
TEMPLATE void add_block(int fma, const void *raw, int dtype, ptrdiff_t first,
                        const float *restrict base, const float *restrict signs,
                        uint32_t *restrict sum, ptrdiff_t size, int minus, Found *found) {
    /* LARGE, an even number, does not change how the sum is rounded; with it the bits above the
     * lowest twelve are those of ROUNDER where the integer is not LARGE. */
    const float rounder = ROUNDER + LARGE;
    uint32_t changed = 0, other = 0, squares = 0, crossed = 0, rests = 0, more_rests = 0;
    int32_t more_crossed = 0;
    for (ptrdiff_t at = 0; at < size; at++) {
        float delta = load(raw, dtype, first + at) - base[at];
        float steps = delta * signs[at], near = steps + rounder;
        uint32_t units = as_bits(near) - (ROUNDER_BITS + LARGE);
        /* Both differences are exact, and so is the product. */
        float rest = steps - (near - rounder);
        float shifted = fma ? __builtin_fmaf(rest, PARTS, ROUNDER) : rest * PARTS + ROUNDER;
        uint32_t parts = as_bits(shifted) - ROUNDER_BITS;
        uint32_t square = parts * parts;
        int32_t product = (int32_t)(units * parts);
        changed |= as_bits(delta);
        other |= as_bits(near) ^ ROUNDER_BITS;
        squares += units * units;
        rests += square;
        more_rests += square >> 16;
        crossed += (uint32_t)product;
        more_crossed += product >> 16;
        sum[at] = minus ? sum[at] - units : sum[at] + units;
    }
    found->changed |= changed << 1; /* of either zero */
    if (other / (2 * LARGE)) {
        look_closely(raw, dtype, first, base, signs, size, found);
        return;
    }
    found->squares += squares;
    /* Of sums beyond 32 bits those know the upper part, these all but that: what their lower halves
     * come to is less than 2^25. */
    found->crossed += (int64_t)more_crossed * 65536 + (crossed - ((uint32_t)more_crossed << 16));
    found->rests += ((uint64_t)more_rests << 16) + (rests - (more_rests << 16));
}

TEMPLATE void add_row(int fma, const void *raw, int dtype, ptrdiff_t first, const float *base,
                      const float *signs, uint32_t *sum, ptrdiff_t cols, int minus, Found *found) {
    for (ptrdiff_t at = 0; at < cols; at += BLOCK) {
        ptrdiff_t size = cols - at < BLOCK ? cols - at : BLOCK;
        if (minus)
            add_block(fma, raw, dtype, first + at, base + at, signs + at, sum + at, size, 1, found);
        else
            add_block(fma, raw, dtype, first + at, base + at, signs + at, sum + at, size, 0, found);
    }
}

TEMPLATE void add_rows(int fma, const void *raw, int dtype, const float *base, const Signs *signs,
                       uint32_t *sum, int minus, Found *found) {
    if (signs->kind == TWO_SIDED) {
        Part part = {0};
        for (find_part(signs, &part); part.cols; part.at += part.cols, find_part(signs, &part))
            add_row(fma, raw, dtype, part.at, base + part.at, part.pattern, sum + part.at,
                    part.cols, part.flip ? !minus : minus, found);
        return;
    }
    ptrdiff_t row_step;
    const float *pattern = spread_rows(signs, &row_step);
    for (ptrdiff_t row = 0; row < signs->rows; row++) {
        ptrdiff_t first = row * signs->cols;
        add_row(fma, raw, dtype, first, base + first, pattern + row * row_step, sum + first,
                signs->cols, minus, found);
    }
}

TEMPLATE int add_as(int fma, const void *raw, int dtype, const float *base, const Signs *signs,
                    uint32_t *sum, int minus, Found *found) {
    if (dtype == BF16) add_rows(fma, raw, BF16, base, signs, sum, minus, found);
    if (dtype == F16) add_rows(fma, raw, F16, base, signs, sum, minus, found);
    if (dtype == F32) add_rows(fma, raw, F32, base, signs, sum, minus, found);
    return 0;
}

FOR_EACH_PROCESSOR(static, int, add,
                          (const void *raw, int dtype, const float *base, const Signs *signs,
                    uint32_t *sum, int minus, Found *found),
                   raw, dtype, base, signs, sum, minus, found)

int randes_add(const void *raw, int dtype, const float *base, const Signs *signs, uint32_t *sum,
               Found *found) {
    Found taken;
    memset(found, 0, sizeof *found);
    add(raw, dtype, base, signs, sum, 0, found);
    if (!found->beyond) return 0;
    add(raw, dtype, base, signs, sum, 1, &taken);
    return -1;
}

TEMPLATE int64_t randes_store_as(int fma, const int32_t *restrict sum, ptrdiff_t size, int bits,
                                    void *restrict codes) {
    (void)fma;
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

FOR_EACH_PROCESSOR(EXPORT, int64_t, randes_store,
                   (const int32_t *sum, ptrdiff_t size, int bits, void *codes), sum, size, bits,
                   codes)

/* One row: out = base + signs * codes as a stored dtype, where `flip` is one more sign bit;
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
        lost += put(out, at, value, dtype);
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

TEMPLATE int64_t retrieve_as(const void *codes, int bits, const Signs *signs, const float *base,
                             int dtype, void *out) {
    if (bits == 8) return retrieve_rows(codes, 8, signs, base, dtype, out);
    if (bits == 16) return retrieve_rows(codes, 16, signs, base, dtype, out);
    return retrieve_rows(codes, 32, signs, base, dtype, out);
}

TEMPLATE int64_t randes_retrieve_as(int fma, const void *codes, int bits, const Signs *signs,
                                       const float *base, int dtype, void *out) {
    (void)fma;
    if (dtype == BF16) return retrieve_as(codes, bits, signs, base, BF16, out);
    if (dtype == F16) return retrieve_as(codes, bits, signs, base, F16, out);
    if (dtype == ANY_F32) return retrieve_as(codes, bits, signs, base, ANY_F32, out);
    return retrieve_as(codes, bits, signs, base, F32, out);
}

FOR_EACH_PROCESSOR(, int64_t, randes_retrieve,
                   (const void *codes, int bits, const Signs *signs, const float *base, int dtype,
                    void *out),
                   codes, bits, signs, base, dtype, out)

TEMPLATE int widen_as(int fma, const void *raw, int dtype, float *restrict out, ptrdiff_t size) {
    (void)fma;
    if (dtype == BF16)
        for (ptrdiff_t at = 0; at < size; at++) out[at] = load(raw, BF16, at);
    else
        for (ptrdiff_t at = 0; at < size; at++) out[at] = load(raw, F16, at);
    return 0;
}

FOR_EACH_PROCESSOR(static, int, widen, (const void *raw, int dtype, float *out, ptrdiff_t size), raw,
                   dtype, out, size)

void randes_widen(const void *raw, int dtype, float *out, ptrdiff_t size) {
    widen(raw, dtype, out, size);
}
