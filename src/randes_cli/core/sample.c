/* Samples of deltas: the same runs of elements of several tensors, less those of the base. */

#ifdef _WIN32
#include "fused.h"

EXPORT int64_t randes_deltas(void) { return -1; }
#else
#include "chunk.h"

/* A tensor of `dtype` whose first byte is byte `at` of file `from`; of file -1 all is zero. */
typedef struct {
    int64_t from, at, dtype;
} Lies;

/* Runs of counts[n] elements from element starts[n] on, `elements` together; `raw` has room for
 * the longest as it is stored, `base` for all of the base's. */
typedef struct {
    int64_t runs, elements;
    const int64_t *starts, *counts;
    uint8_t *raw;
    float *base;
} Runs;

static int read_runs(const Runs *runs, const Lies *tensor, float *out) {
    const int64_t size = tensor->dtype == F32 ? 4 : 2;
    for (int64_t run = 0; run < runs->runs; run++) {
        int64_t count = runs->counts[run];
        uint8_t *raw = tensor->dtype == F32 ? (uint8_t *)out : runs->raw;
        int failed = read_all((int)tensor->from, raw, count * size,
                              tensor->at + runs->starts[run] * size);
        if (failed) return failed;
        if (tensor->dtype != F32) randes_widen(raw, (int)tensor->dtype, out, count);
        out += count;
    }
    return DONE;
}

/* Take the base away; whether all is finite. */
TEMPLATE int subtract_as(int version, const float *restrict base, ptrdiff_t count, float *restrict out) {
    (void)version;
    uint32_t beyond = 0;
    for (ptrdiff_t at = 0; at < count; at++) {
        out[at] -= base[at];
        beyond |= !(fabsf(out[at]) <= LARGEST);
    }
    return !beyond;
}

FOR_EACH_PROCESSOR(static, int, subtract, (const float *base, ptrdiff_t count, float *out), base,
                   count, out)

/* The deltas of `count` tensors, one after the other. Returns 0, or what kept it from the end: then
 * it is done again by who can say why. */
EXPORT int64_t randes_deltas(const Runs *runs, const Lies *base, const Lies *tensors, int64_t count,
                             float *out) {
    int failed = DONE;
    if (base->from < 0)
        memset(runs->base, 0, (size_t)runs->elements * sizeof *runs->base);
    else
        failed = read_runs(runs, base, runs->base);
    for (int64_t at = 0; !failed && at < count; at++, out += runs->elements) {
        failed = read_runs(runs, tensors + at, out);
        if (!failed && !subtract(runs->base, runs->elements, out)) failed = UNFIT;
    }
    return failed;
}
#endif
