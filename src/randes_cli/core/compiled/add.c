/* A delta into a sum: subtracted, rounded, measured and added in one loop. */

#include "fused.h"

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
TEMPLATE void add_block(int version, const void *raw, int dtype, ptrdiff_t first,
                        const float *restrict base, const float *restrict signs,
                        uint32_t *restrict sum, ptrdiff_t size, int minus, Found *found) {
    /* LARGE, an even number, does not change how the sum is rounded; with it the bits above the
     * lowest twelve are those of ROUNDER where the integer is not LARGE. */
    const float rounder = ROUNDER + LARGE;
    uint32_t other = 0, squares = 0, crossed = 0, rests = 0, more_rests = 0;
    int32_t more_crossed = 0;
    for (ptrdiff_t at = 0; at < size; at++) {
        float steps = (load(raw, dtype, first + at) - base[at]) * signs[at], near = steps + rounder;
        uint32_t units = as_bits(near) - (ROUNDER_BITS + LARGE);
        /* Both differences are exact, and so is the product. */
        float rest = steps - (near - rounder);
        float shifted =
            version >= 3 ? __builtin_fmaf(rest, PARTS, ROUNDER) : rest * PARTS + ROUNDER;
        uint32_t parts = as_bits(shifted) - ROUNDER_BITS;
        uint32_t square = parts * parts;
        int32_t product = (int32_t)(units * parts);
        other |= as_bits(near) ^ ROUNDER_BITS;
        squares += units * units;
        rests += square;
        more_rests += square >> 16;
        crossed += (uint32_t)product;
        more_crossed += product >> 16;
        sum[at] = minus ? sum[at] - units : sum[at] + units;
    }
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

#ifdef V4
/* Sixteen deltas in steps, from stored value `at` on. */
V4 TEMPLATE __m512 steps_of(const void *raw, int dtype, ptrdiff_t at, const float *base,
                            const float *signs) {
    __m512 value;
    if (dtype == F32) {
        value = _mm512_loadu_ps((const float *)raw + at);
    } else {
        const __m256i half = _mm256_loadu_si256((const __m256i *)((const uint16_t *)raw + at));
        value = dtype == F16 ? _mm512_cvtph_ps(half)
                             : _mm512_castsi512_ps(
                                   _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
    return _mm512_mul_ps(_mm512_sub_ps(value, _mm512_loadu_ps(base)), _mm512_loadu_ps(signs));
}

/* Sums of 64 bits, and those of 32 added to them: unsigned, or signed. */
V4 TEMPLATE __m512i with(__m512i sums, __m512i lanes) {
    const __m512i low = _mm512_and_si512(lanes, _mm512_set1_epi64(0xFFFFFFFF));
    return _mm512_add_epi64(sums, _mm512_add_epi64(low, _mm512_srli_epi64(lanes, 32)));
}

V4 TEMPLATE __m512i with_signed(__m512i sums, __m512i lanes) {
    const __m512i low = _mm512_srai_epi64(_mm512_slli_epi64(lanes, 32), 32);
    return _mm512_add_epi64(sums, _mm512_add_epi64(low, _mm512_srai_epi64(lanes, 32)));
}

/* Nearest integers, half to even. */
V4 TEMPLATE __m512i nearest(__m512 values) {
    return _mm512_cvt_roundps_epi32(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* As `add_block`, for a multiple of 32 elements, 32 at a time. Deltas are taken one round ahead:
 * else what waits for them fills the processor's queues, which compilers do not see. Squares are
 * of words, two of which one instruction multiplies and adds: units that are no words are LARGE,
 * and parts of 2^15, which are none either, have the square of their wrapped word. A lane adds 32
 * squares of units, and twice 16 products, of a block: they fit in its 32 bits. */
V4 TEMPLATE void add_many(const void *raw, int dtype, ptrdiff_t first, const float *base,
                          const float *signs, uint32_t *sum, ptrdiff_t size, int minus,
                          Found *found) {
    const __m512i zero = _mm512_setzero_si512(), large = _mm512_set1_epi16(LARGE);
    __m512i all_squares = zero, all_crossed = zero, all_rests = zero, all_upper = zero;
    __m512 ahead[2];
    for (int half = 0; half < 2; half++)
        ahead[half] = steps_of(raw, dtype, first + 16 * half, base + 16 * half, signs + 16 * half);
    for (ptrdiff_t start = 0, stop; start < size; start = stop) {
        __m512i other = zero, squares = zero, crossed[2] = {zero, zero}, rests = zero, upper = zero;
        stop = size - start < BLOCK ? size : start + BLOCK;
        for (ptrdiff_t at = start; at < stop; at += 32) {
            const ptrdiff_t next = at + 32 < size ? at + 32 : at;
            __m512i units[2], parts[2];
            for (int half = 0; half < 2; half++) {
                const ptrdiff_t to = next + 16 * half;
                const __m512 rest = _mm512_reduce_ps(ahead[half], 0); /* less the nearest integer */
                units[half] = nearest(ahead[half]);
                parts[half] = nearest(_mm512_mul_ps(rest, _mm512_set1_ps(PARTS)));
                ahead[half] = steps_of(raw, dtype, first + to, base + to, signs + to);
                const __m512i product = _mm512_mullo_epi32(units[half], parts[half]);
                crossed[half] = _mm512_add_epi32(crossed[half], product);
                uint32_t *into = sum + at + 16 * half;
                const __m512i before = _mm512_loadu_si512(into);
                _mm512_storeu_si512(into, minus ? _mm512_sub_epi32(before, units[half])
                                                : _mm512_add_epi32(before, units[half]));
            }
            const __m512i words = _mm512_packs_epi32(units[0], units[1]);
            const __m512i shifted = _mm512_slli_epi32(parts[1], 16);
            const __m512i pairs = _mm512_mask_mov_epi16(parts[0], 0xAAAAAAAAu, shifted);
            const __m512i both = _mm512_madd_epi16(pairs, pairs); /* 2^31 at the most */
            other = _mm512_or_si512(other, _mm512_add_epi16(words, large));
            squares = _mm512_add_epi32(squares, _mm512_madd_epi16(words, words));
            rests = _mm512_add_epi32(rests, both);
            upper = _mm512_add_epi32(upper, _mm512_srli_epi32(both, 16));
        }
        if (_mm512_test_epi16_mask(other, _mm512_set1_epi16(-2 * LARGE))) {
            look_closely(raw, dtype, first + start, base + start, signs + start, stop - start,
                         found);
            continue;
        }
        all_squares = with(all_squares, squares);
        all_crossed = with_signed(with_signed(all_crossed, crossed[0]), crossed[1]);
        all_rests = with(all_rests, _mm512_sub_epi32(rests, _mm512_slli_epi32(upper, 16)));
        all_upper = with(all_upper, upper);
    }
    found->squares += (uint64_t)_mm512_reduce_add_epi64(all_squares);
    found->crossed += _mm512_reduce_add_epi64(all_crossed);
    found->rests += (uint64_t)_mm512_reduce_add_epi64(all_rests) +
                    ((uint64_t)_mm512_reduce_add_epi64(all_upper) << 16);
}

/* The same of any dtype. */
V4 static void add_any(const void *raw, int dtype, ptrdiff_t first, const float *base,
                       const float *signs, uint32_t *sum, ptrdiff_t size, int minus, Found *found) {
    if (dtype == BF16 && !minus) add_many(raw, BF16, first, base, signs, sum, size, 0, found);
    if (dtype == BF16 && minus) add_many(raw, BF16, first, base, signs, sum, size, 1, found);
    if (dtype == F16 && !minus) add_many(raw, F16, first, base, signs, sum, size, 0, found);
    if (dtype == F16 && minus) add_many(raw, F16, first, base, signs, sum, size, 1, found);
    if (dtype == F32 && !minus) add_many(raw, F32, first, base, signs, sum, size, 0, found);
    if (dtype == F32 && minus) add_many(raw, F32, first, base, signs, sum, size, 1, found);
}
#endif

/* Whether any value differs from the base's. */
TEMPLATE int differs(const void *raw, int dtype, const float *base, ptrdiff_t size) {
    uint32_t changed = 0;
    for (ptrdiff_t at = 0; at < size; at++) changed |= as_bits(load(raw, dtype, at) - base[at]);
    return changed << 1 != 0; /* of either zero */
}

TEMPLATE void add_row(int version, const void *raw, int dtype, ptrdiff_t first, const float *base,
                      const float *signs, uint32_t *sum, ptrdiff_t cols, int minus, Found *found) {
    ptrdiff_t done = 0;
#ifdef V4
    if (version >= 4) done = cols / 32 * 32;
    if (done) add_any(raw, dtype, first, base, signs, sum, done, minus, found);
#endif
    for (ptrdiff_t at = done; at < cols; at += BLOCK) {
        ptrdiff_t size = cols - at < BLOCK ? cols - at : BLOCK;
        const ptrdiff_t here = first + at;
        if (minus)
            add_block(version, raw, dtype, here, base + at, signs + at, sum + at, size, 1, found);
        else
            add_block(version, raw, dtype, here, base + at, signs + at, sum + at, size, 0, found);
    }
}

TEMPLATE void add_rows(int version, const void *raw, int dtype, const float *base,
                       const Signs *signs, uint32_t *sum, int minus, Found *found) {
    if (signs->kind == TWO_SIDED) {
        Part part = {0};
        for (find_part(signs, &part); part.cols; part.at += part.cols, find_part(signs, &part))
            add_row(version, raw, dtype, part.at, base + part.at, part.pattern, sum + part.at,
                    part.cols, part.flip ? !minus : minus, found);
        return;
    }
    ptrdiff_t row_step;
    const float *pattern = spread_rows(signs, &row_step);
    for (ptrdiff_t row = 0; row < signs->rows; row++) {
        ptrdiff_t first = row * signs->cols;
        add_row(version, raw, dtype, first, base + first, pattern + row * row_step, sum + first,
                signs->cols, minus, found);
    }
}

TEMPLATE void add_all(int version, const void *raw, int dtype, const float *base,
                      const Signs *signs, uint32_t *sum, int minus, Found *found) {
    add_rows(version, raw, dtype, base, signs, sum, minus, found);
    /* Where all else is zero what changed is less than half a part of a step, if anything did. */
    const int64_t size = signs->kind == TWO_SIDED ? signs->count : signs->rows * signs->cols;
    found->changed = found->squares || found->rests || differs(raw, dtype, base, size);
}

TEMPLATE int add_as(int version, const void *raw, int dtype, const float *base, const Signs *signs,
                    uint32_t *sum, int minus, Found *found) {
    if (dtype == BF16) add_all(version, raw, BF16, base, signs, sum, minus, found);
    if (dtype == F16) add_all(version, raw, F16, base, signs, sum, minus, found);
    if (dtype == F32) add_all(version, raw, F32, base, signs, sum, minus, found);
    return 0;
}

FOR_EACH_PROCESSOR(static, int, add,
                          (const void *raw, int dtype, const float *base, const Signs *signs,
                    uint32_t *sum, int minus, Found *found),
                   raw, dtype, base, signs, sum, minus, found)

int randes_add(const void *raw, int dtype, const float *base, const Signs *signs, uint32_t *sum,
               Found *found) {
    Found taken = {0};
    memset(found, 0, sizeof *found);
    add(raw, dtype, base, signs, sum, 0, found);
    if (!found->beyond) return 0;
    add(raw, dtype, base, signs, sum, 1, &taken);
    return -1;
}
