/* One chunk of a superposition as a run of strips: read, digested, added, stored and written here,
 * so that a thread asks for Python's lock once a chunk, and a strip stays in the core's cache. */

#ifdef _WIN32
#include "fused.h"

EXPORT int64_t randes_run(void) { return -1; }
EXPORT void randes_run_many(void) {}
#else
#include "chunk.h"
#include "cut.h"

/* As in fused_run.py. BASE: read a layer of the base. BEGIN: a sum, from nothing or from stored
 * integers. ADD: a delta to it. STORE: write the sum. NOTHING: a place that is left out. */
enum { BASE, BEGIN, ADD, STORE, NOTHING };

/* A step that every strip goes through. Its tensor's chunk lies at byte `at` of file `from` (-1:
 * all zeros), and goes to byte `to` of file `into` (-1: nowhere). `dtype` is that of the tensor;
 * of a sum its bits. A sum goes to `memory` where that is given, without a digest; its squares are
 * added to `along` (of rows, from the chunk's first one on) and `across` (of columns, of the view)
 * where these are. */
typedef struct {
    int64_t kind, from, at, into, to, dtype, layer;
    const uint8_t *bits;
    uint8_t *memory;
    uint64_t *along, *across;
    double scale;
} Step;

/* What a step found: its chunk's digest, and of a delta that was added its sums. */
typedef struct {
    Found found;
    uint8_t digest[16];
    Digest running;
} Made;

/* A chunk: elements `first` to `first` + `count` of a matrix of `cols` columns; `rows` and
 * `view_cols` are the view of two-sided signs. Buffers have room for `strip` elements (a multiple
 * of 64), the base's for those of each layer. */
typedef struct {
    int64_t first, count, cols, rows, view_cols, strip, kind, steps, most;
    float *base, *scratch;
    int32_t *sum;
    uint8_t *raw;
} Run;

static void take_in(Found *whole, const Found *part) {
    whole->squares += part->squares;
    whole->crossed += part->crossed;
    whole->rests += part->rests;
    whole->changed |= part->changed;
}

/* Add `count` elements from element `first` of the matrix on, in whole rows or parts of one. */
static int add_elements(const Run *run, const Step *step, int64_t first, int64_t count,
                        Found *whole) {
    Signs signs = {step->bits, first, run->rows, run->view_cols, count, run->scratch,
                   (float)step->scale, (int32_t)run->kind};
    const int size = step->dtype == F32 ? 4 : 2;
    const float *base = run->base + step->layer * run->strip;
    for (int64_t done = 0; done < count;) {
        int64_t taken = take_signs(&signs, first + done, run->cols, count - done);
        Found part;
        if (randes_add(run->raw + done * size, (int)step->dtype, base + done, &signs,
                       (uint32_t *)run->sum + done, &part))
            return UNFIT;
        take_in(whole, &part);
        done += taken;
    }
    return DONE;
}

static int begin(const Run *run, const Step *step, Made *made, int64_t done, int64_t count,
                 int last) {
    if (step->from < 0) {
        memset(run->sum, 0, (size_t)count * sizeof *run->sum);
        return DONE;
    }
    int64_t size = step->dtype / 8;
    int failed = read_all((int)step->from, run->raw, count * size, step->at + done * size);
    if (failed) return failed;
    digest_strip(&made->running, run->raw, count * size, last, made->digest);
    for (int64_t at = 0; at < count; at++)
        run->sum[at] = size == 1 ? ((int8_t *)run->raw)[at] : ((int16_t *)run->raw)[at];
    return DONE;
}

static int store(const Run *run, const Step *step, Made *made, int64_t done, int64_t count,
                 int last) {
    int64_t size = step->dtype / 8, first = run->first + done, cols = run->view_cols;
    uint8_t *units = step->memory ? step->memory + done * size : run->raw;
    if (randes_store(run->sum, count, (int)step->dtype, units) > run->most >> (16 - step->dtype))
        return UNFIT;
    if (step->along) {
        Piece piece = {units, step->dtype, count, first, cols, 1};
        randes_squares(&piece, step->along + (first / cols - run->first / cols), step->across);
    }
    if (step->memory) return DONE;
    digest_strip(&made->running, units, count * size, last, made->digest);
    return write_all((int)step->into, units, count * size, step->to + done * size);
}

static int read_base(const Run *run, const Step *step, Made *made, int64_t done, int64_t count,
                     int last) {
    float *base = run->base + step->layer * run->strip;
    int64_t size = step->dtype == F32 ? 4 : 2;
    if (step->from < 0) {
        memset(base, 0, (size_t)count * sizeof *base);
        return DONE;
    }
    int failed = read_all((int)step->from, run->raw, count * size, step->at + done * size);
    if (failed) return failed;
    digest_strip(&made->running, run->raw, count * size, last, made->digest);
    if (step->dtype == F32)
        memcpy(base, run->raw, (size_t)(count * size));
    else
        randes_widen(run->raw, (int)step->dtype, base, count);
    return step->into < 0 ? DONE
                        : write_all((int)step->into, run->raw, count * size, step->to + done * size);
}

static int add(const Run *run, const Step *step, Made *made, int64_t done, int64_t count,
               int last) {
    int64_t size = step->dtype == F32 ? 4 : 2;
    int failed = read_all((int)step->from, run->raw, count * size, step->at + done * size);
    if (failed) return failed;
    digest_strip(&made->running, run->raw, count * size, last, made->digest);
    return add_elements(run, step, run->first + done, count, &made->found);
}

/* Do all steps of all strips. Returns 0, or what kept it from the end: then nothing that was
 * written counts, and all of the chunk is done again by who can say why. */
EXPORT int64_t randes_run(const Run *run, const Step *steps, Made *made) {
    if (run->count > run->strip && run->count < SHORTEST) return UNFIT; /* its digest is of one piece */
    for (int64_t step = 0; step < run->steps; step++) {
        memset(&made[step].found, 0, sizeof made[step].found);
        begin_digest(&made[step].running);
    }
    for (int64_t done = 0; done < run->count; done += run->strip) {
        int last = run->count - done <= run->strip;
        int64_t count = last ? run->count - done : run->strip;
        for (const Step *step = steps; step < steps + run->steps; step++) {
            Made *here = made + (step - steps);
            int failed = step->kind == BASE    ? read_base(run, step, here, done, count, last)
                         : step->kind == BEGIN ? begin(run, step, here, done, count, last)
                         : step->kind == ADD   ? add(run, step, here, done, count, last)
                         : step->kind == STORE ? store(run, step, here, done, count, last)
                                               : DONE;
            if (failed) return failed;
        }
    }
    return DONE;
}

/* Many small chunks, whose steps lie one after the other; `failed` is what became of each. */
EXPORT void randes_run_many(const Run *runs, int64_t count, const Step *steps, Made *made,
                            int64_t *failed) {
    for (int64_t at = 0; at < count; at++) {
        failed[at] = randes_run(runs + at, steps, made);
        steps += runs[at].steps, made += runs[at].steps;
    }
}
#endif
