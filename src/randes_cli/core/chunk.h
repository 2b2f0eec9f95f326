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

/* A write that fails is not tried again: what it left in the file is not known. */
TEMPLATE int write_all(int file, const uint8_t *data, int64_t size, int64_t at) {
    while (size) {
        ssize_t done = pwrite(file, data, (size_t)size, (off_t)at);
        if (done <= 0) return UNWRITTEN - (done < 0 ? errno : EIO);
        data += done, size -= done, at += done;
    }
    return DONE;
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
