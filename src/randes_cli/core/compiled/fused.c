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

/* One loop for both: a second one would wait for the memory that the first has passed. */
TEMPLATE int64_t store_as(const int32_t *restrict sum, ptrdiff_t size, int bits, void *restrict codes) {
    int32_t least = 0, most = 0;
    for (ptrdiff_t at = 0; at < size; at++) {
        least = sum[at] < least ? sum[at] : least;
        most = sum[at] > most ? sum[at] : most;
        if (bits == 8)
            ((int8_t *)codes)[at] = (int8_t)sum[at];
        else
            ((int16_t *)codes)[at] = (int16_t)sum[at];
    }
    return most > -(int64_t)least ? most : -(int64_t)least;
}

TEMPLATE int64_t randes_store_as(int version, const int32_t *sum, ptrdiff_t size, int bits,
                                 void *codes) {
    (void)version;
    return bits == 8 ? store_as(sum, size, 8, codes) : store_as(sum, size, 16, codes);
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

TEMPLATE int64_t randes_retrieve_as(int version, const void *codes, int bits, const Signs *signs,
                                       const float *base, int dtype, void *out) {
    (void)version;
    if (dtype == BF16) return retrieve_as(codes, bits, signs, base, BF16, out);
    if (dtype == F16) return retrieve_as(codes, bits, signs, base, F16, out);
    if (dtype == ANY_F32) return retrieve_as(codes, bits, signs, base, ANY_F32, out);
    return retrieve_as(codes, bits, signs, base, F32, out);
}

FOR_EACH_PROCESSOR(, int64_t, randes_retrieve,
                   (const void *codes, int bits, const Signs *signs, const float *base, int dtype,
                    void *out),
                   codes, bits, signs, base, dtype, out)

TEMPLATE int widen_as(int version, const void *raw, int dtype, float *restrict out, ptrdiff_t size) {
    (void)version;
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
