/* What chunks that are done in one call share: files and digests. */

#ifndef RANDES_CHUNK_H
#define RANDES_CHUNK_H

#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

#include "digest.h"
#include "fused.h"

/* Beyond these: UNWRITTEN less the number of the error that a write ended with. */
enum { DONE = 0, UNREADABLE = -1, UNFIT = -2, UNWRITTEN = -1000 };

TEMPLATE int read_all(int file, uint8_t *out, int64_t size, int64_t at) {
    while (size) {
        ssize_t done = pread(file, out, (size_t)size, (off_t)at);
        if (done <= 0) return UNREADABLE;
        out += done, size -= done, at += done;
    }
    return DONE;
}

/* Bytes of a file, from a multiple of as many on, that Linux keeps in one piece of memory where one
 * write has them all: pieces of a page take it twice as long, and larger ones are often of memory
 * that nobody has used yet. */
enum { TOGETHER = 65536, MOST_OVER = 256 };

/* A write that fails is not tried again: what it left in the file is not known. */
TEMPLATE int write_all(int file, const uint8_t *data, int64_t size, int64_t at) {
    while (size) {
        int64_t count = TOGETHER - at % TOGETHER;
        ssize_t done = pwrite(file, data, (size_t)(count < size ? count : size), (off_t)at);
        if (done <= 0) return UNWRITTEN - (done < 0 ? errno : EIO);
        data += done, size -= done, at += done;
    }
    return DONE;
}

/* What a strip had beyond the last of such pieces, up to MOST_OVER: it is written with the next. */
typedef struct {
    int64_t count;
    uint8_t bytes[MOST_OVER];
} Over;

/* Elements of a first strip (a multiple of 64, as `strip`, which it is at most), so that it and those
 * of `strip` after it end where such pieces do, or a little beyond: of `size` bytes, written from
 * byte `to` on. */
TEMPLATE int64_t first_strip(int64_t to, int64_t size, int64_t strip) {
    if (strip * size % TOGETHER) return strip;
    int64_t left = (TOGETHER - to % TOGETHER + size - 1) / size, more = TOGETHER / size;
    int64_t first = (left + 63) / 64 * 64;
    if (first > strip) return strip;
    return first + (strip - first) / more * more;
}

/* Write a strip, before which there is room for MOST_OVER bytes. */
TEMPLATE int write_strip(int file, Over *over, uint8_t *data, int64_t size, int64_t at, int last) {
    int64_t before = over->count, beyond = (at + size) % TOGETHER;
    memcpy(data - before, over->bytes, (size_t)before);
    over->count = last || beyond >= MOST_OVER || beyond > size ? 0 : beyond;
    memcpy(over->bytes, data + size - over->count, (size_t)over->count);
    return write_all(file, data - before, before + size - over->count, at - before);
}

/* Add a strip to a running digest; the last one ends it. */
TEMPLATE void digest_strip(Digest *running, const uint8_t *data, int64_t size, int last,
                           uint8_t *digest) {
    if (last)
        end_digest(running, data, size, digest);
    else
        add_to_digest(running, data, size);
}

#endif
