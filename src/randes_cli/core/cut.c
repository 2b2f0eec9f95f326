/* The two passes that seal a superposition: sums of squares, and codes; see cutting.py. */

#include "cut.h"

TEMPLATE int32_t unit(const Piece *piece, int bits, ptrdiff_t at) {
    return bits == 8 ? ((const int8_t *)piece->units)[at] : ((const int16_t *)piece->units)[at];
}

/* The elements of a piece that lie in one row: how many, from element `at` on. */
TEMPLATE ptrdiff_t in_row(const Piece *piece, ptrdiff_t at, int64_t *row, int64_t *col) {
    *row = (piece->start + at) / piece->cols;
    *col = (piece->start + at) % piece->cols;
    int64_t left = piece->count - at;
    return piece->cols - *col < left ? piece->cols - *col : left;
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

enum { FINE = 24 * 128, AT_ONCE = 1024 };

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
/* The same by halving: each step compares to the limit in the middle of what is left. */
V4 static void halve_limits(const Cut *cut, int bits, const float *scaled, ptrdiff_t count,
                            uint8_t *codes, float *level) {
    const int most = (1 << bits) - 1;
    float limits[32], levels[16];
    for (int at = 0; at < 32; at++) limits[at] = at <= most ? cut->limits[at] : INFINITY;
    for (int at = 0; at < 16; at++) levels[at] = cut->levels[at & most];
    for (ptrdiff_t at = 0; at < count; at += 16) { /* the arrays have room for whole sixteens */
        const __mmask16 some = count - at < 16 ? (__mmask16)((1u << (count - at)) - 1) : 0xFFFF;
        const __m512 value = _mm512_loadu_ps(scaled + at);
        __m512i code = _mm512_setzero_si512();
        for (int step = 1 << bits >> 1; step; step >>= 1) {
            const __m512 limit = _mm512_permutexvar_ps(code, _mm512_loadu_ps(limits + step));
            const __mmask16 above = _mm512_cmp_ps_mask(value, limit, _CMP_GT_OQ);
            code = _mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(step));
        }
        _mm512_mask_cvtepi32_storeu_epi8(codes + at, some, code);
        _mm512_storeu_ps(level + at, _mm512_permutexvar_ps(code, _mm512_loadu_ps(levels)));
    }
}
#endif

/* Cut elements of one row: their codes, a byte each, and how what is read agrees. */
TEMPLATE void cut_row(int version, const Piece *piece, int unit_bits, const Cut *cut, int bits,
                      ptrdiff_t at, ptrdiff_t count, const float *restrict across,
                      const float *restrict read_across, float along, float read_along,
                      uint8_t *codes, Agreement *found) {
    int64_t crossed = 0, lengths = 0;
    float scaled[AT_ONCE], level[AT_ONCE];
    int32_t values[AT_ONCE];
    const float parts = cut->parts;
    for (ptrdiff_t col = 0; col < count; col++) {
        values[col] = unit(piece, unit_bits, at + col);
        scaled[col] = (float)values[col] * across[col] * along;
    }
    if (bits == 8)
        find_codes(cut, scaled, count, codes, level);
#ifdef V4
    else if (version >= 4 && bits > 2)
        halve_limits(cut, bits, scaled, count, codes, level);
#endif
    else
        count_limits(cut, bits, scaled, count, codes, level);
    for (ptrdiff_t col = 0; col < count; col++) {
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
        cut_row(version, piece, unit_bits, cut, bits, at, count, cut->table + place,
                cut->read_table + place, cut->rows[row], cut->read_rows[row], codes + filled, found);
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

/* Eight codes as one number, the first lowest. */
TEMPLATE uint64_t eight_codes(const uint8_t *at, int bits) {
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    if (bits == 1) return *at;
    if (bits == 2) return memcpy(&two, at, 2), two;
    if (bits == 3) return memcpy(&two, at, 2), two | (uint64_t)at[2] << 16;
    if (bits == 4) return memcpy(&four, at, 4), four;
    return memcpy(&eight, at, 8), eight;
}

/* The levels of codes, `several` at once: of a byte's, or of two of 3 bits. */
TEMPLATE void look_up(const uint8_t *restrict packed, int bits, ptrdiff_t eights,
                      const float *restrict several, float *restrict level) {
    const int key_bits = bits == 3 ? 6 : 8, key_codes = key_bits / bits;
    for (ptrdiff_t eight = 0; eight < eights; eight++) {
        const uint64_t held = eight_codes(packed + eight * bits, bits);
        for (int key = 0; key < 8 / key_codes; key++) {
            uint64_t found = held >> key_bits * key & ((1u << key_bits) - 1);
            memcpy(level + 8 * eight + key_codes * key, several + (size_t)key_codes * found,
                   (size_t)key_codes * sizeof *level);
        }
    }
}

#ifdef V4
/* The same by permuting 16 levels, of which a code's lowest bits choose: what lies above them in a
 * lane is of the next code, so the levels come again and again. */
V4 TEMPLATE void permute(const uint8_t *restrict packed, int bits, ptrdiff_t eights,
                         const float *restrict levels, float *restrict level) {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i half = _mm512_srli_epi32(lane, 3), within = _mm512_set1_epi32(bits < 3 ? 15 : 7);
    const __m512i shifts =
        _mm512_mullo_epi32(_mm512_and_si512(lane, within), _mm512_set1_epi32(bits));
    float again[16];
    for (int code = 0; code < 16; code++) again[code] = levels[code & ((1 << bits) - 1)];
    const __m512 table = _mm512_loadu_ps(again);
    for (ptrdiff_t eight = 0; eight < eights; eight += 2) {
        const int one = eight + 1 == eights;
        const uint8_t *at = packed + eight * bits;
        const uint64_t next = one ? 0 : eight_codes(at + bits, bits);
        /* Of one or two bits all sixteen are in every lane, else the first or the last eight. */
        const uint64_t held = eight_codes(at, bits) | next << (bits < 3 ? 8 * bits : 32);
        __m512i codes = _mm512_set1_epi32((int32_t)held);
        if (bits > 2) codes = _mm512_permutexvar_epi32(half, _mm512_set1_epi64((int64_t)held));
        const __m512 found = _mm512_permutexvar_ps(_mm512_srlv_epi32(codes, shifts), table);
        _mm512_mask_storeu_ps(level + 8 * eight, one ? 0xFF : 0xFFFF, found);
    }
}

V4 static void permuted(const uint8_t *packed, ptrdiff_t eights, const Cut *cut, float *level) {
    if (cut->bits == 1) permute(packed, 1, eights, cut->levels, level);
    if (cut->bits == 2) permute(packed, 2, eights, cut->levels, level);
    if (cut->bits == 3) permute(packed, 3, eights, cut->levels, level);
    if (cut->bits == 4) permute(packed, 4, eights, cut->levels, level);
}
#endif

void randes_look_up(const uint8_t *packed, ptrdiff_t eights, const Cut *cut, float *level) {
    const int bits = (int)cut->bits;
#ifdef V4
    if (bits < 8 && randes_processor(0) >= 4) {
        permuted(packed, eights, cut, level);
        return;
    }
#endif
    if (bits == 1) look_up(packed, 1, eights, cut->several, level);
    if (bits == 2) look_up(packed, 2, eights, cut->several, level);
    if (bits == 3) look_up(packed, 3, eights, cut->several, level);
    if (bits == 4) look_up(packed, 4, eights, cut->several, level);
    if (bits == 8) look_up(packed, 8, eights, cut->several, level);
}

TEMPLATE int randes_read_as(int version, const Piece *piece, const Cut *cut, float *restrict out) {
    (void)version;
    float level[AT_ONCE];
    int64_t row, col;
    for (ptrdiff_t at = 0, count; at < piece->count; at += count) {
        ptrdiff_t skipped = at % 8;
        count = in_row(piece, at, &row, &col);
        if (count > AT_ONCE - 8) count = AT_ONCE - 8;
        const uint8_t *packed = (const uint8_t *)piece->units + at / 8 * cut->bits;
        randes_look_up(packed, (skipped + count + 7) / 8, cut, level);
        const float *restrict across = cut->read_table + row % piece->every * piece->cols + col;
        const float along = cut->read_rows[row];
        for (ptrdiff_t one = 0; one < count; one++)
            out[at + one] = level[skipped + one] * across[one] * along;
    }
    return 0;
}

FOR_EACH_PROCESSOR(, int, randes_read, (const Piece *piece, const Cut *cut, float *out),
                   piece, cut, out)
