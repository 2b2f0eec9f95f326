/* One chunk of a superposition as a run of strips: read, digested, added, stored and written here,
 * so that a thread asks for Python's lock once a chunk, and a strip stays in the core's cache. */

#ifdef _WIN32
#include "fused.h"

EXPORT int64_t randes_run(void) { return -1; }
EXPORT void randes_run_many(void) {}
#else
#include "chunk.h"
#include "cut.h"

/* As in run.py. BASE: read a layer of the base. BEGIN: a sum, from nothing or from stored
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
 * of 64), the base's for those of each layer, `raw` for MOST_OVER bytes more. */
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

/* Elements `done` to `done` + `count` of a chunk; `over` is of the one step whose strips are cut so that
 * they end with pieces of its file. */
typedef struct {
    int64_t done, count;
    int last;
    Over *over;
} Strip;

static int begin(const Run *run, const Step *step, Made *made, const Strip *strip) {
    int64_t size = step->dtype / 8, bytes = strip->count * size;
    if (step->from < 0) {
        memset(run->sum, 0, (size_t)strip->count * sizeof *run->sum);
        return DONE;
    }
    int failed = read_all((int)step->from, run->raw, bytes, step->at + strip->done * size);
    if (failed) return failed;
    digest_strip(&made->running, run->raw, bytes, strip->last, made->digest);
    for (int64_t at = 0; at < strip->count; at++)
        run->sum[at] = size == 1 ? ((int8_t *)run->raw)[at] : ((int16_t *)run->raw)[at];
    return DONE;
}

static int write_out(const Step *step, const Strip *strip, uint8_t *data, int64_t size) {
    int64_t to = step->to + strip->done * size;
    if (!strip->over) return write_all((int)step->into, data, strip->count * size, to);
    return write_strip((int)step->into, strip->over, data, strip->count * size, to, strip->last);
}

static int store(const Run *run, const Step *step, Made *made, const Strip *strip) {
    int64_t size = step->dtype / 8, first = run->first + strip->done, cols = run->view_cols;
    uint8_t *units = step->memory ? step->memory + strip->done * size : run->raw + MOST_OVER;
    if (randes_store(run->sum, strip->count, (int)step->dtype, units) > run->most >> (16 - step->dtype))
        return UNFIT;
    if (step->along) {
        Piece piece = {units, step->dtype, strip->count, first, cols, 1};
        randes_squares(&piece, step->along + (first / cols - run->first / cols), step->across);
    }
    if (step->memory) return DONE;
    digest_strip(&made->running, units, strip->count * size, strip->last, made->digest);
    return write_out(step, strip, units, size);
}

static int read_base(const Run *run, const Step *step, Made *made, const Strip *strip) {
    float *base = run->base + step->layer * run->strip;
    uint8_t *raw = run->raw + MOST_OVER;
    int64_t size = step->dtype == F32 ? 4 : 2, bytes = strip->count * size;
    if (step->from < 0) {
        memset(base, 0, (size_t)strip->count * sizeof *base);
        return DONE;
    }
    int failed = read_all((int)step->from, raw, bytes, step->at + strip->done * size);
    if (failed) return failed;
    digest_strip(&made->running, raw, bytes, strip->last, made->digest);
    if (step->dtype == F32)
        memcpy(base, raw, (size_t)bytes);
    else
        randes_widen(raw, (int)step->dtype, base, strip->count);
    return step->into < 0 ? DONE : write_out(step, strip, raw, size);
}

static int add(const Run *run, const Step *step, Made *made, const Strip *strip) {
    int64_t size = step->dtype == F32 ? 4 : 2, bytes = strip->count * size;
    int failed = read_all((int)step->from, run->raw, bytes, step->at + strip->done * size);
    if (failed) return failed;
    digest_strip(&made->running, run->raw, bytes, strip->last, made->digest);
    return add_elements(run, step, run->first + strip->done, strip->count, &made->found);
}

/* The first step that writes to a file; the end where none does. */
static const Step *first_written(const Run *run, const Step *steps) {
    const Step *step = steps;
    while (step < steps + run->steps && (step->into < 0 || step->memory || step->kind == NOTHING))
        step++;
    return step;
}

static int64_t size_written(const Step *step) {
    return step->kind == STORE ? step->dtype / 8 : step->dtype == F32 ? 4 : 2;
}

/* Do all steps of all strips. Returns 0, or what kept it from the end: then nothing that was
 * written counts, and all of the chunk is done again by who can say why. */
EXPORT int64_t randes_run(const Run *run, const Step *steps, Made *made) {
    if (run->count > run->strip && run->count < SHORTEST) return UNFIT; /* its digest is of one piece */
    for (int64_t step = 0; step < run->steps; step++) {
        memset(&made[step].found, 0, sizeof made[step].found);
        begin_digest(&made[step].running);
    }
    const Step *written = first_written(run, steps);
    int64_t most = run->strip;
    Over over = {0};
    if (run->count > most && written < steps + run->steps)
        most = first_strip(written->to, size_written(written), most);
    for (int64_t done = 0; done < run->count; done += most, most = run->strip) {
        Strip strip = {done, run->count - done < most ? run->count - done : most, 0, NULL};
        strip.last = done + strip.count == run->count;
        for (const Step *step = steps; step < steps + run->steps; step++) {
            Made *here = made + (step - steps);
            strip.over = step == written ? &over : NULL;
            int failed = step->kind == BASE    ? read_base(run, step, here, &strip)
                         : step->kind == BEGIN ? begin(run, step, here, &strip)
                         : step->kind == ADD   ? add(run, step, here, &strip)
                         : step->kind == STORE ? store(run, step, here, &strip)
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
