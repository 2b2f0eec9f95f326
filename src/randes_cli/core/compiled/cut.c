/* The two passes that seal a superposition: sums of squares, and codes; see cutting.py. Codes are read
 * in levels.c. */

#include "cut.h"

TEMPLATE int32_t unit(const Piece *piece, int bits, ptrdiff_t at) {
    return bits == 8 ? ((const int8_t *)piece->units)[at] : ((const int16_t *)piece->units)[at];
}

TEMPLATE void square_row(const Piece *piece, int bits, ptrdiff_t at, ptrdiff_t count,
                         uint64_t *along, uint64_t *restrict across) {
    uint64_t whole = 0;
    for (ptrdiff_t col = 0; col < count; col++) {
        int32_t value = unit(piece, bits, at + col);
        uint32_t square = (uint32_t)(value * value);
        across[col] += square;
        whole += square;
    }
    *along += whole;
}

TEMPLATE int randes_squares_as(int version, const Piece *piece, uint64_t *along, uint64_t *table) {
    (void)version;
    int64_t row, col, first = piece->start / piece->cols;
    for (ptrdiff_t at = 0, count; at < piece->count; at += count) {
        count = in_row(piece, at, &row, &col);
        uint64_t *across = table + row % piece->every * piece->cols + col;
        if (piece->bits == 8)
            square_row(piece, 8, at, count, along + (row - first), across);
        else
            square_row(piece, 16, at, count, along + (row - first), across);
    }
    return 0;
}

FOR_EACH_PROCESSOR(, int, randes_squares,
                   (const Piece *piece, uint64_t *along, uint64_t *table), piece, along, table)

enum { FINE = 24 * 128 };

/* The codes of 8 bits: a table finds each to within one, thresholds settle it. */
TEMPLATE void find_codes(const Cut *cut, const float *restrict scaled, ptrdiff_t count,
                         uint8_t *restrict codes, float *restrict level) {
    const float *limits = cut->limits + 1;
    int32_t places[AT_ONCE];
    for (ptrdiff_t at = 0; at < count; at++) {
        float place = (scaled[at] + 12.0f) * 128.0f;
        place = place > 0.0f ? place : 0.0f;
        places[at] = (int32_t)(place < FINE - 1 ? place : FINE - 1);
    }
    for (ptrdiff_t at = 0; at < count; at++) {
        int32_t code = cut->fine[places[at]];
        code += scaled[at] > limits[code];
        code -= scaled[at] <= limits[code - 1];
        codes[at] = (uint8_t)code;
        level[at] = cut->levels[code];
    }
}

/* Those of fewer: as many thresholds as lie below. */
TEMPLATE void count_limits(const Cut *cut, int bits, const float *restrict scaled,
                           ptrdiff_t count, uint8_t *restrict codes, float *restrict level) {
    const float *restrict limits = cut->limits + 1, *restrict levels = cut->levels;
    for (ptrdiff_t at = 0; at < count; at++) {
        float found = levels[0];
        int32_t code = 0;
#pragma GCC unroll 16
        for (int limit = 0; limit < (1 << bits) - 1; limit++) {
            float next = levels[limit + 1];
            code += scaled[at] > limits[limit];
            found = scaled[at] > limits[limit] ? next : found;
        }
        codes[at] = (uint8_t)code;
        level[at] = found;
    }
}

#ifdef V4
/* Sixteen integers of a piece, from element `at` on. */
V4 TEMPLATE __m512i sixteen(const Piece *piece, int unit_bits, ptrdiff_t at) {
    if (unit_bits == 8)
        return _mm512_cvtepi8_epi32(
            _mm_loadu_si128((const __m128i *)((const int8_t *)piece->units + at)));
    return _mm512_cvtepi16_epi32(
        _mm256_loadu_si256((const __m256i *)((const int16_t *)piece->units + at)));
}

/* Their codes by halving: each step compares to the limit in the middle of what is left. */
V4 TEMPLATE __m512i halve(__m512 scaled, int bits, const float *limits) {
    __m512i code = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int step = 1 << bits >> 1; step; step >>= 1) {
        const __m512 limit = step == 1 << bits >> 1
                                 ? _mm512_set1_ps(limits[step])
                                 : _mm512_permutexvar_ps(code, _mm512_loadu_ps(limits + step));
        const __mmask16 above = _mm512_cmp_ps_mask(scaled, limit, _CMP_GT_OQ);
        code = _mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(step));
    }
    return code;
}

/* Add products of integers and what their codes are read as, and squares of these. */
V4 TEMPLATE void agree(__m512i value, __m512i counted, __m512i *crossed, __m512i *lengths) {
    const __m512i other = _mm512_srli_epi64(value, 32), odd = _mm512_srli_epi64(counted, 32);
    *crossed = _mm512_add_epi64(*crossed, _mm512_mul_epi32(value, counted));
    *crossed = _mm512_add_epi64(*crossed, _mm512_mul_epi32(other, odd));
    *lengths = _mm512_add_epi64(*lengths, _mm512_mul_epi32(counted, counted));
    *lengths = _mm512_add_epi64(*lengths, _mm512_mul_epi32(odd, odd));
}
#endif

/* Elements of one row of a piece, `count` from element `at` on: scales of their columns and of the
 * row, to be cut and to be read with. */
typedef struct {
    ptrdiff_t at, count;
    const float *across, *read_across;
    float along, read_along;
} Row;

#ifdef V4
/* As `cut_row`, of at most 4 bits and a multiple of 64 elements. Integers are scaled one round
 * ahead, and products are taken one round later: else what waits for them fills the processor's
 * queues. (The parts of a step are a power of two: a product with them rounds nothing.) */
V4 TEMPLATE void cut_many(const Piece *piece, int unit_bits, const Cut *cut, int bits, const Row *row,
                          uint8_t *codes, Agreement *found) {
    const int most = (1 << bits) - 1;
    float limits[32], levels[16];
    for (int one = 0; one < 32; one++) limits[one] = one <= most ? cut->limits[one] : INFINITY;
    for (int one = 0; one < 16; one++) levels[one] = cut->levels[one & most];
    const __m512 table = _mm512_loadu_ps(levels), along = _mm512_set1_ps(row->along);
    const __m512 read_along = _mm512_set1_ps(row->read_along * cut->parts);
    const __m512i zero = _mm512_setzero_si512();
    __m512i crossed = zero, lengths = zero, values[4], before[4], counted[4];
    __m512 scaled[4];
    for (int part = 0; part < 4; part++) {
        values[part] = before[part] = counted[part] = zero;
        scaled[part] = _mm512_setzero_ps();
    }
    for (ptrdiff_t next = 0; next < row->count + 64; next += 64) {
        const ptrdiff_t start = next - 64, from = next < row->count ? next : start;
#pragma GCC unroll 4
        for (int part = 0; part < 4; part++) {
            const ptrdiff_t col = start + 16 * part, ahead = from + 16 * part;
            const __m512i value = values[part];
            const __m512 steps = scaled[part];
            values[part] = sixteen(piece, unit_bits, row->at + ahead);
            scaled[part] = _mm512_mul_ps(_mm512_cvtepi32_ps(values[part]),
                                         _mm512_loadu_ps(row->across + ahead));
            scaled[part] = _mm512_mul_ps(scaled[part], along);
            if (!next) continue;
            const __m512i code = halve(steps, bits, limits);
            _mm_storeu_si128((__m128i *)(codes + col), _mm512_cvtepi32_epi8(code));
            agree(before[part], counted[part], &crossed, &lengths);
            const __m512 level = _mm512_mul_ps(_mm512_permutexvar_ps(code, table),
                                               _mm512_loadu_ps(row->read_across + col));
            counted[part] = _mm512_cvtps_epi32(_mm512_mul_ps(level, read_along));
            before[part] = value;
        }
    }
    for (int part = 0; part < 4; part++) agree(before[part], counted[part], &crossed, &lengths);
    found->crossed += _mm512_reduce_add_epi64(crossed);
    found->lengths += _mm512_reduce_add_epi64(lengths);
}

/* The same of any integers and bits. */
V4 static void cut_any(const Piece *piece, int unit_bits, const Cut *cut, int bits, const Row *row,
                       uint8_t *codes, Agreement *found) {
    if (unit_bits == 8) {
        if (bits == 1) cut_many(piece, 8, cut, 1, row, codes, found);
        if (bits == 2) cut_many(piece, 8, cut, 2, row, codes, found);
        if (bits == 3) cut_many(piece, 8, cut, 3, row, codes, found);
        if (bits == 4) cut_many(piece, 8, cut, 4, row, codes, found);
        return;
    }
    if (bits == 1) cut_many(piece, 16, cut, 1, row, codes, found);
    if (bits == 2) cut_many(piece, 16, cut, 2, row, codes, found);
    if (bits == 3) cut_many(piece, 16, cut, 3, row, codes, found);
    if (bits == 4) cut_many(piece, 16, cut, 4, row, codes, found);
}
#endif

/* Cut elements of one row: their codes, a byte each, and how what is read agrees. */
TEMPLATE void cut_row(int version, const Piece *piece, int unit_bits, const Cut *cut, int bits,
                      const Row *row, uint8_t *restrict codes, Agreement *found) {
    int64_t crossed = 0, lengths = 0;
    float scaled[AT_ONCE], level[AT_ONCE];
    int32_t values[AT_ONCE];
    const float *restrict across = row->across, *restrict read_across = row->read_across;
    const float along = row->along, read_along = row->read_along, parts = cut->parts;
    ptrdiff_t first = 0;
#ifdef V4
    if (version >= 4 && bits < 8 && row->count >= 64) {
        Row many = *row;
        many.count = first = row->count / 64 * 64;
        cut_any(piece, unit_bits, cut, bits, &many, codes, found);
    }
#endif
    for (ptrdiff_t col = first; col < row->count; col++) {
        values[col] = unit(piece, unit_bits, row->at + col);
        scaled[col] = (float)values[col] * across[col] * along;
    }
    if (bits == 8)
        find_codes(cut, scaled, row->count, codes, level);
    else
        count_limits(cut, bits, scaled + first, row->count - first, codes + first, level + first);
    for (ptrdiff_t col = first; col < row->count; col++) {
        float read = level[col] * read_across[col] * read_along * parts;
        int32_t counted = (int32_t)(as_bits(read + ROUNDER) - ROUNDER_BITS);
        crossed += (int64_t)values[col] * counted;
        lengths += (int64_t)counted * counted;
    }
    found->crossed += crossed;
    found->lengths += lengths;
}

/* Eight codes fill `bits` bytes, the first one's bits lowest. */
TEMPLATE void pack_row(const uint8_t *restrict codes, int bits, ptrdiff_t eights,
                       uint8_t *restrict out) {
    if (bits == 8) {
        memcpy(out, codes, (size_t)(8 * eights));
    } else if (bits == 3) {
        for (ptrdiff_t eight = 0; eight < eights; eight++) {
            uint32_t held = 0;
            for (int code = 0; code < 8; code++) held |= (uint32_t)codes[8 * eight + code] << 3 * code;
            for (int byte = 0; byte < 3; byte++) out[3 * eight + byte] = (uint8_t)(held >> 8 * byte);
        }
    } else {
        for (ptrdiff_t byte = 0; byte < eights * bits; byte++) {
            uint8_t held = 0;
            for (int code = 0; code < 8 / bits; code++)
                held = (uint8_t)(held | codes[8 / bits * byte + code] << bits * code);
            out[byte] = held;
        }
    }
}

TEMPLATE void cut_piece(int version, const Piece *piece, int unit_bits, const Cut *cut, int bits,
                        uint8_t *out, Agreement *found) {
    uint8_t codes[AT_ONCE];
    ptrdiff_t filled = 0;
    int64_t row, col;
    for (ptrdiff_t at = 0, count; at < piece->count; at += count) {
        count = in_row(piece, at, &row, &col);
        if (count > AT_ONCE - filled) count = AT_ONCE - filled;
        int64_t place = row % piece->every * piece->cols + col;
        const Row part = {at, count, cut->table + place, cut->read_table + place,
                          cut->rows[row], cut->read_rows[row]};
        cut_row(version, piece, unit_bits, cut, bits, &part, codes + filled, found);
        filled += count;
        if (filled < AT_ONCE && at + count < piece->count) continue;
        while (filled % 8) codes[filled++] = 0;
        pack_row(codes, bits, filled / 8, out);
        out += filled / 8 * bits;
        filled = 0;
    }
}

TEMPLATE int randes_cut_as(int version, const Piece *piece, const Cut *cut, uint8_t *out,
                           Agreement *found) {
    const int bits = (int)cut->bits;
    if (piece->bits == 8) {
        if (bits == 1) cut_piece(version, piece, 8, cut, 1, out, found);
        if (bits == 2) cut_piece(version, piece, 8, cut, 2, out, found);
        if (bits == 3) cut_piece(version, piece, 8, cut, 3, out, found);
        if (bits == 4) cut_piece(version, piece, 8, cut, 4, out, found);
        if (bits == 8) cut_piece(version, piece, 8, cut, 8, out, found);
        return 0;
    }
    if (bits == 1) cut_piece(version, piece, 16, cut, 1, out, found);
    if (bits == 2) cut_piece(version, piece, 16, cut, 2, out, found);
    if (bits == 3) cut_piece(version, piece, 16, cut, 3, out, found);
    if (bits == 4) cut_piece(version, piece, 16, cut, 4, out, found);
    if (bits == 8) cut_piece(version, piece, 16, cut, 8, out, found);
    return 0;
}

FOR_EACH_PROCESSOR(, int, randes_cut,
                   (const Piece *piece, const Cut *cut, uint8_t *out, Agreement *found), piece, cut,
                   out, found)
