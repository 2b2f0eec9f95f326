/* Codes of a superposition as they are read: levels times scales. */

#include "cut.h"

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
