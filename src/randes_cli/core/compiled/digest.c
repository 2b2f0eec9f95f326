/* XXH3-128 as its specification has it (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). */

#include "digest.h"

#include "fused.h"

#ifdef V4
#include <immintrin.h>
#endif

#define P32_1 0x9E3779B1u
#define P32_2 0x85EBCA77u
#define P32_3 0xC2B2AE3Du
#define P64_1 0x9E3779B185EBCA87u
#define P64_2 0xC2B2AE3D27D4EB4Fu
#define P64_3 0x165667B19E3779F9u
#define P64_4 0x85EBCA77C2B2AE63u
#define P64_5 0x27D4EB2F165667C5u

enum { LANES = 8, SECRET = 192, STRIPES = (SECRET - STRIPE) / 8 };

static const uint8_t secret[SECRET] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

/* Little-endian, as the processors are that this is compiled for. */
TEMPLATE uint64_t word(const uint8_t *bytes) {
    uint64_t made;
    memcpy(&made, bytes, sizeof made);
    return made;
}

static void mix_stripe(uint64_t *lanes, const uint8_t *data, const uint8_t *key) {
    for (int lane = 0; lane < LANES; lane++) {
        uint64_t mixed = word(data + 8 * lane) ^ word(key + 8 * lane);
        lanes[lane ^ 1] += word(data + 8 * lane);
        lanes[lane] += (mixed & 0xFFFFFFFFu) * (mixed >> 32);
    }
}

static void scramble(uint64_t *lanes) {
    for (int lane = 0; lane < LANES; lane++) {
        uint64_t mixed = lanes[lane] ^ lanes[lane] >> 47;
        lanes[lane] = (mixed ^ word(secret + SECRET - STRIPE + 8 * lane)) * P32_1;
    }
}

/* Mix whole stripes, of which `place` of a block were mixed already; more data follow. */
static void mix_any(uint64_t *lanes, const uint8_t *data, ptrdiff_t count, int place) {
    for (ptrdiff_t stripe = 0; stripe < count; stripe++) {
        mix_stripe(lanes, data + STRIPE * stripe, secret + 8 * place);
        if (++place < STRIPES) continue;
        scramble(lanes);
        place = 0;
    }
}

#ifdef V4
/* Compilers do not find these instructions by themselves. */
V4 static void mix_v4(uint64_t *lanes, const uint8_t *data, ptrdiff_t count, int place) {
    const __m512i prime = _mm512_set1_epi64(P32_1);
    const __m512i end = _mm512_loadu_si512(secret + SECRET - STRIPE);
    __m512i held = _mm512_loadu_si512(lanes);
    while (count) {
        int some = count < STRIPES - place ? (int)count : STRIPES - place;
#pragma GCC unroll 16
        for (int stripe = 0; stripe < some; stripe++) {
            __m512i words = _mm512_loadu_si512(data + STRIPE * stripe);
            __m512i mixed = _mm512_loadu_si512(secret + 8 * (place + stripe));
            mixed = _mm512_xor_si512(words, mixed);
            __m512i product = _mm512_mul_epu32(mixed, _mm512_srli_epi64(mixed, 32));
            __m512i other = _mm512_shuffle_epi32(words, _MM_PERM_BADC);
            held = _mm512_add_epi64(held, _mm512_add_epi64(product, other));
        }
        data += STRIPE * some, count -= some, place += some;
        if (place < STRIPES) break;
        __m512i mixed = _mm512_xor_si512(_mm512_xor_si512(held, _mm512_srli_epi64(held, 47)), end);
        __m512i product = _mm512_mul_epu32(_mm512_srli_epi64(mixed, 32), prime);
        held = _mm512_add_epi64(_mm512_mul_epu32(mixed, prime), _mm512_slli_epi64(product, 32));
        place = 0;
    }
    _mm512_storeu_si512(lanes, held);
}

V3 static void mix_v3(uint64_t *lanes, const uint8_t *data, ptrdiff_t count, int place) {
    const __m256i prime = _mm256_set1_epi64x(P32_1);
    __m256i *lanes_at = (__m256i *)lanes, held[2];
    for (int half = 0; half < 2; half++) held[half] = _mm256_loadu_si256(lanes_at + half);
    for (ptrdiff_t stripe = 0; stripe < count; stripe++) {
        const __m256i *at = (const __m256i *)(data + STRIPE * stripe);
        const __m256i *key = (const __m256i *)(secret + 8 * place);
        for (int half = 0; half < 2; half++) {
            __m256i words = _mm256_loadu_si256(at + half);
            __m256i mixed = _mm256_xor_si256(words, _mm256_loadu_si256(key + half));
            __m256i product = _mm256_mul_epu32(mixed, _mm256_srli_epi64(mixed, 32));
            __m256i other = _mm256_shuffle_epi32(words, 0x4E);
            held[half] = _mm256_add_epi64(held[half], _mm256_add_epi64(product, other));
        }
        if (++place < STRIPES) continue;
        key = (const __m256i *)(secret + SECRET - STRIPE);
        for (int half = 0; half < 2; half++) {
            __m256i mixed = _mm256_xor_si256(held[half], _mm256_srli_epi64(held[half], 47));
            mixed = _mm256_xor_si256(mixed, _mm256_loadu_si256(key + half));
            __m256i product = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
            product = _mm256_slli_epi64(product, 32);
            held[half] = _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), product);
        }
        place = 0;
    }
    for (int half = 0; half < 2; half++) _mm256_storeu_si256(lanes_at + half, held[half]);
}
#endif

static void mix(Digest *digest, const uint8_t *data, ptrdiff_t count) {
    int place = (int)(digest->total / STRIPE % STRIPES);
#ifdef V4
    int processor = randes_processor(0);
    if (processor >= 4) mix_v4(digest->lanes, data, count, place);
    if (processor == 3) mix_v3(digest->lanes, data, count, place);
    if (processor >= 3) return;
#endif
    mix_any(digest->lanes, data, count, place);
}

void begin_digest(Digest *digest) {
    static const uint64_t first[LANES] = {P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1};
    memcpy(digest->lanes, first, sizeof first);
    digest->total = 0;
}

void add_to_digest(Digest *digest, const void *data, ptrdiff_t size) {
    mix(digest, data, size / STRIPE);
    memcpy(digest->before, (const uint8_t *)data + size - STRIPE, STRIPE);
    digest->total += (uint64_t)size;
}

static uint64_t folded(uint64_t left, uint64_t right) {
    unsigned __int128 product = (unsigned __int128)left * right;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t stirred(uint64_t made) {
    made ^= made >> 37;
    made *= 0x165667919E3779F9u;
    return made ^ made >> 32;
}

static uint64_t merged(const uint64_t *lanes, const uint8_t *key, uint64_t made) {
    for (int pair = 0; pair < LANES / 2; pair++)
        made += folded(lanes[2 * pair] ^ word(key + 16 * pair),
                       lanes[2 * pair + 1] ^ word(key + 16 * pair + 8));
    return stirred(made);
}

static void write_digest(uint64_t low, uint64_t high, uint8_t *out) {
    for (int byte = 0; byte < 8; byte++) {
        out[byte] = (uint8_t)(high >> (56 - 8 * byte));
        out[8 + byte] = (uint8_t)(low >> (56 - 8 * byte));
    }
}

/* Inputs shorter than SHORTEST bytes, as section "XXH3 algorithm (for small inputs)" has them. */

TEMPLATE uint32_t half(const uint8_t *bytes) {
    uint32_t made;
    memcpy(&made, bytes, sizeof made);
    return made;
}

static uint64_t stirred_as_before(uint64_t made) {
    made = (made ^ made >> 33) * P64_2;
    made = (made ^ made >> 29) * P64_3;
    return made ^ made >> 32;
}

static void up_to_3(const uint8_t *data, uint64_t size, uint8_t *out) {
    uint32_t all = (uint32_t)data[0] << 16 | (uint32_t)data[size / 2] << 24 | data[size - 1];
    all |= (uint32_t)size << 8;
    uint32_t turned = all >> 24 | (all >> 8 & 0xFF00u) | (all << 8 & 0xFF0000u) | all << 24;
    turned = turned << 13 | turned >> 19;
    write_digest(stirred_as_before(all ^ (uint64_t)(half(secret) ^ half(secret + 4))),
                 stirred_as_before(turned ^ (uint64_t)(half(secret + 8) ^ half(secret + 12))), out);
}

static void up_to_8(const uint8_t *data, uint64_t size, uint8_t *out) {
    uint64_t both = half(data) + ((uint64_t)half(data + size - 4) << 32);
    unsigned __int128 product = both ^ word(secret + 16) ^ word(secret + 24);
    product *= P64_1 + (size << 2);
    uint64_t low = (uint64_t)product, high = (uint64_t)(product >> 64) + (low << 1);
    low ^= high >> 3;
    low = (low ^ low >> 35) * 0x9FB21C651E98DF25u;
    write_digest(low ^ low >> 28, stirred(high), out);
}

static void up_to_16(const uint8_t *data, uint64_t size, uint8_t *out) {
    uint64_t first = word(data), last = word(data + size - 8);
    unsigned __int128 product = first ^ last ^ word(secret + 32) ^ word(secret + 40);
    product *= P64_1;
    uint64_t low = (uint64_t)product + ((size - 1) << 54);
    last ^= word(secret + 48) ^ word(secret + 56);
    uint64_t high = (uint64_t)(product >> 64) + last + (last & 0xFFFFFFFFu) * (P32_2 - 1);
    low ^= __builtin_bswap64(high);
    product = (unsigned __int128)low * P64_2;
    high = (uint64_t)(product >> 64) + high * P64_2;
    write_digest(stirred((uint64_t)product), stirred(high), out);
}

static void mix_pair(uint64_t *sums, const uint8_t *left, const uint8_t *right, const uint8_t *key) {
    sums[0] += folded(word(left) ^ word(key), word(left + 8) ^ word(key + 8));
    sums[0] ^= word(right) + word(right + 8);
    sums[1] += folded(word(right) ^ word(key + 16), word(right + 8) ^ word(key + 24));
    sums[1] ^= word(left) + word(left + 8);
}

static void up_to_240(const uint8_t *data, uint64_t size, uint8_t *out) {
    uint64_t sums[2] = {size * P64_1, 0};
    if (size <= 128) {
        for (int pair = (int)(size - 1) / 32; pair >= 0; pair--)
            mix_pair(sums, data + 16 * pair, data + size - 16 * (pair + 1), secret + 32 * pair);
    } else {
        for (uint64_t at = 0; at < 128; at += 32)
            mix_pair(sums, data + at, data + at + 16, secret + at);
        sums[0] = stirred(sums[0]), sums[1] = stirred(sums[1]);
        for (uint64_t at = 128; at + 32 <= size; at += 32)
            mix_pair(sums, data + at, data + at + 16, secret + 3 + at - 128);
        mix_pair(sums, data + size - 16, data + size - 32, secret + 136 - 17 - 16);
    }
    uint64_t high = sums[0] * P64_1 + sums[1] * P64_4 + size * P64_2;
    write_digest(stirred(sums[0] + sums[1]), 0 - stirred(high), out);
}

static void short_digest(const uint8_t *data, uint64_t size, uint8_t *out) {
    if (size <= 3) up_to_3(data, size, out);
    else if (size <= 8) up_to_8(data, size, out);
    else if (size <= 16) up_to_16(data, size, out);
    else up_to_240(data, size, out);
}

void end_digest(Digest *digest, const void *data, ptrdiff_t size, uint8_t *out) {
    uint8_t last[STRIPE];
    if (!digest->total && size < SHORTEST) {
        short_digest(data, (uint64_t)size, out);
        return;
    }
    mix(digest, data, (size - 1) / STRIPE);
    ptrdiff_t held = size < STRIPE ? STRIPE - size : 0;
    memcpy(last, digest->before + STRIPE - held, (size_t)held);
    memcpy(last + held, (const uint8_t *)data + size - (STRIPE - held), (size_t)(STRIPE - held));
    mix_stripe(digest->lanes, last, secret + SECRET - STRIPE - 7);
    uint64_t total = digest->total + (uint64_t)size;
    uint64_t low = merged(digest->lanes, secret + 11, total * P64_1);
    write_digest(low, merged(digest->lanes, secret + SECRET - STRIPE - 11, ~(total * P64_2)), out);
}

/* The digest of one input of a byte or more, in pieces of `piece` (a multiple of STRIPE). */
EXPORT void randes_digest(const uint8_t *data, ptrdiff_t size, ptrdiff_t piece, uint8_t *out) {
    Digest digest;
    begin_digest(&digest);
    for (; size > piece; data += piece, size -= piece) add_to_digest(&digest, data, piece);
    end_digest(&digest, data, size, out);
}
