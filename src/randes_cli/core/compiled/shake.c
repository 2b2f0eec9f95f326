/* SHAKE-256 (FIPS 202) of many short texts: a stream of random bytes for each name, eight at once.
 * hashlib takes three times as long to begin one as it takes to compute it. */

#include "fused.h"

enum { LANES = 25, RATE = 136, WIDE = 8 };

/* A word of each of eight states. */
typedef uint64_t Word __attribute__((vector_size(8 * WIDE)));

static const uint64_t ROUNDS[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808A, 0x8000000080008000,
    0x000000000000808B, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008A, 0x0000000000000088, 0x0000000080008009, 0x000000008000000A,
    0x000000008000808B, 0x800000000000008B, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800A, 0x800000008000000A,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
};

#define TURN(word, bits) ((word) << (bits) | (word) >> (64 - (bits)))

/* Word (x, y) of a state is number x + 5 y; rho and pi move it to (y, 2 x + 3 y), turned. */
#define MOVE(from, to, bits) moved[to] = TURN(state[from] ^ mixed[(from) % 5], bits)

TEMPLATE void permute_as(int fma, Word *state) {
    (void)fma;
    for (int round = 0; round < 24; round++) {
        Word sums[5], mixed[5], moved[LANES];
        for (int x = 0; x < 5; x++)
            sums[x] = state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20];
        for (int x = 0; x < 5; x++) mixed[x] = sums[(x + 4) % 5] ^ TURN(sums[(x + 1) % 5], 1);
        moved[0] = state[0] ^ mixed[0];
        MOVE(1, 10, 1), MOVE(2, 20, 62), MOVE(3, 5, 28), MOVE(4, 15, 27);
        MOVE(5, 16, 36), MOVE(6, 1, 44), MOVE(7, 11, 6), MOVE(8, 21, 55), MOVE(9, 6, 20);
        MOVE(10, 7, 3), MOVE(11, 17, 10), MOVE(12, 2, 43), MOVE(13, 12, 25), MOVE(14, 22, 39);
        MOVE(15, 23, 41), MOVE(16, 8, 45), MOVE(17, 18, 15), MOVE(18, 3, 21), MOVE(19, 13, 8);
        MOVE(20, 14, 18), MOVE(21, 24, 2), MOVE(22, 9, 61), MOVE(23, 19, 56), MOVE(24, 4, 14);
        for (int y = 0; y < LANES; y += 5)
            for (int x = 0; x < 5; x++)
                state[y + x] = moved[y + x] ^ (~moved[y + (x + 1) % 5] & moved[y + (x + 2) % 5]);
        state[0] ^= ROUNDS[round];
    }
}

FOR_EACH_PROCESSOR(static, void, permute, (Word *state), state)

/* Put up to RATE bytes into state number `which`. */
static void absorb(Word *state, int which, const uint8_t *text, int64_t count) {
    for (int64_t at = 0; at < count; at++)
        state[at / 8][which] ^= (uint64_t)text[at] << at % 8 * 8;
}

static void squeeze(const Word *state, int which, uint8_t *out, int64_t count) {
    for (int64_t at = 0; at < count; at++) out[at] = (uint8_t)(state[at / 8][which] >> at % 8 * 8);
}

/* Put the end of a text, which leaves room for a byte, into a state. */
static void finish(Word *state, int which, const uint8_t *text, int64_t count) {
    absorb(state, which, text, count);
    state[count / 8][which] ^= (uint64_t)0x1F << count % 8 * 8;
    state[RATE / 8 - 1][which] ^= (uint64_t)1 << 63;
}

/* One text of any length, with others that are nothing. */
static void stream(const uint8_t *text, int64_t length, uint8_t *out, int64_t count) {
    Word state[LANES];
    memset(state, 0, sizeof state);
    for (; length >= RATE; text += RATE, length -= RATE) {
        absorb(state, 0, text, RATE);
        permute(state);
    }
    finish(state, 0, text, length);
    for (; count > 0; out += RATE, count -= RATE) {
        permute(state);
        squeeze(state, 0, out, count < RATE ? count : RATE);
    }
}

/* The first counts[n] bytes of the stream of text n, of lengths[n] bytes. All of them lie one after
 * the other, and so do the bytes that are made. */
EXPORT void randes_streams(const uint8_t *texts, const int64_t *lengths, const int64_t *counts,
                           int64_t many, uint8_t *out) {
    for (int64_t first = 0; first < many;) {
        Word state[LANES];
        int held = 0;
        uint8_t *begin = out;
        memset(state, 0, sizeof state);
        for (; held < WIDE && first + held < many; held++) {
            if (lengths[first + held] >= RATE || counts[first + held] > RATE) break;
            finish(state, held, texts, lengths[first + held]);
            texts += lengths[first + held], out += counts[first + held];
        }
        if (held) permute(state);
        for (int which = 0; which < held; begin += counts[first + which], which++)
            squeeze(state, which, begin, counts[first + which]);
        first += held;
        if (held < WIDE && first < many) {
            stream(texts, lengths[first], out, counts[first]);
            texts += lengths[first], out += counts[first], first++;
        }
    }
}
