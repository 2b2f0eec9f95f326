/* XXH3-128 (seed 0, the library's own secret) of inputs that come in pieces. */

#ifndef RANDES_DIGEST_H
#define RANDES_DIGEST_H

#include <stddef.h>
#include <stdint.h>

/* Shorter inputs have digests of another making, and come in one piece. */
enum { SHORTEST = 241, STRIPE = 64 };

typedef struct {
    uint64_t lanes[8];
    uint8_t before[STRIPE]; /* the last bytes so far */
    uint64_t total;
} Digest;

void begin_digest(Digest *digest);

/* Add a piece: of a multiple of STRIPE bytes, and not the last one. */
void add_to_digest(Digest *digest, const void *data, ptrdiff_t size);

/* Add the last piece, of a byte or more, and write the canonical 16 bytes. */
void end_digest(Digest *digest, const void *data, ptrdiff_t size, uint8_t *out);

#endif
