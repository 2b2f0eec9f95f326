/* One chunk of one task's tensor on its way out of a bank, as a run of strips: base and sum are read
 * and digested, added, and written here; see back.py. */

#ifdef _WIN32
#include "fused.h"

EXPORT int64_t randes_back(void) { return -1; }
#else
#include "chunk.h"
#include "cut.h"

/* Elements `first` to `first` + `count` of a matrix of `cols` columns; `rows` and `view_cols` are
 * the view of scales and of two-sided signs.
 *
 * The base's chunk, of `base_dtype`, lies at byte `base_at` of file `base` (-1: all zeros). The sum's
 * of `sum_bits` at byte `sum_at` of file `sum`; or (-1) `packed` are codes of elements `packed_first`
 * and on, to be read as `cut` has it. The output, of `dtype`, goes to byte `to` of file `into`, or
 * (-1) to `out`. Buffers have room for `strip` elements (a multiple of 64) and more: `values` for 8,
 * `scratch` for 15. */
typedef struct {
    int64_t first, count, cols, rows, view_cols, strip, kind;
    int64_t base, base_at, base_dtype;
    int64_t sum, sum_at, sum_bits;
    int64_t into, to, dtype;
    int64_t wanted, packed_first;
    const uint8_t *packed;
    const Cut *cut;
    const uint8_t *bits;
    uint8_t *out;
    float *widened, *scratch, *values;
    uint8_t *raw, *made;
    double scale;
} Back;

/* What is wanted beside the output: digests, and whether signs turned. */
enum { BASE_DIGEST = 1, SUM_DIGEST = 2, TURNED = 4 };

/* Values beyond the output's dtype; whether the base has values that are not positive, and where it
 * has none the output negative ones. */
typedef struct {
    int64_t lost, mixed, negative;
    uint8_t base[16], sum[16];
} Came;

TEMPLATE int64_t size_of(int64_t dtype) { return dtype == BF16 || dtype == F16 ? 2 : 4; }

TEMPLATE int randes_finite_as(int version, const float *values, ptrdiff_t count) {
    (void)version;
    uint32_t most = 0;
    for (ptrdiff_t at = 0; at < count; at++) {
        uint32_t size = as_bits(values[at]) & 0x7FFFFFFFu;
        most = size > most ? size : most;
    }
    return most < 0x7F800000u;
}

FOR_EACH_PROCESSOR(static, int, randes_finite, (const float *values, ptrdiff_t count), values, count)

static int positive(const float *values, int64_t count) {
    for (int64_t at = 0; at < count; at++)
        if (!(values[at] > 0.0f)) return 0;
    return 1;
}

/* Whether any value is below zero, where -0 is not. */
static int negative(const uint8_t *made, int64_t dtype, int64_t count) {
    if (size_of(dtype) == 2) {
        const int16_t *values = (const int16_t *)made;
        for (int64_t at = 0; at < count; at++)
            if (values[at] < 0 && values[at] != INT16_MIN) return 1;
    } else {
        const int32_t *values = (const int32_t *)made;
        for (int64_t at = 0; at < count; at++)
            if (values[at] < 0 && values[at] != INT32_MIN) return 1;
    }
    return 0;
}

static int read_base(const Back *back, Came *came, Digest *running, int64_t done, int64_t count,
                     int last) {
    if (back->base < 0) {
        memset(back->widened, 0, (size_t)count * sizeof *back->widened);
        return DONE;
    }
    int64_t size = size_of(back->base_dtype);
    uint8_t *raw = size == 4 ? (uint8_t *)back->widened : back->raw;
    int failed = read_all((int)back->base, raw, count * size, back->base_at + done * size);
    if (failed) return failed;
    if (size == 2) randes_widen(raw, (int)back->base_dtype, back->widened, count);
    if (!(back->wanted & BASE_DIGEST)) return DONE;
    digest_strip(running, raw, count * size, last, came->base);
    return randes_finite(back->widened, count) ? DONE : UNFIT;
}

/* The strip of the sum as numbers of steps: at *numbers, of *bits bits. */
static int read_sum(const Back *back, Came *came, Digest *running, int64_t done, int64_t count,
                    int last, const void **numbers, int *bits) {
    if (back->sum < 0) {
        int64_t start = back->first + done, skipped = start % 8;
        int64_t place = (start - skipped - back->packed_first) / 8 * back->cut->bits;
        Piece piece = {back->packed + place, 8, count + skipped, start - skipped, back->view_cols, 1};
        randes_read(&piece, back->cut, back->values);
        *numbers = back->values + skipped, *bits = 32;
        return DONE;
    }
    int64_t size = back->sum_bits / 8;
    int failed = read_all((int)back->sum, back->raw, count * size, back->sum_at + done * size);
    if (failed) return failed;
    if (back->wanted & SUM_DIGEST) digest_strip(running, back->raw, count * size, last, came->sum);
    *numbers = back->raw, *bits = (int)back->sum_bits;
    return DONE;
}

/* The output's strip, at `made`: returns how many values were beyond its dtype. */
static int64_t add_up(const Back *back, int64_t done, int64_t count, const uint8_t *numbers, int bits,
                      uint8_t *made) {
    int64_t lost = 0, first = back->first + done, size = size_of(back->dtype);
    Signs signs = {back->bits, first, back->rows, back->view_cols, count, back->scratch,
                   (float)back->scale, (int32_t)back->kind};
    for (int64_t at = 0; at < count;) {
        int64_t taken = take_signs(&signs, first + at, back->cols, count - at);
        lost += randes_retrieve(numbers + at * bits / 8, bits, &signs, back->widened + at,
                                (int)back->dtype, made + at * size);
        at += taken;
    }
    return lost;
}

/* Retrieve the chunk. Returns 0, or what kept it from the end: then it is done again by who can say
 * why. */
EXPORT int64_t randes_back(const Back *back, Came *came) {
    Digest base, sum;
    const int64_t size = size_of(back->dtype);
    memset(came, 0, sizeof *came);
    begin_digest(&base);
    begin_digest(&sum);
    came->mixed = !(back->wanted & TURNED) || back->base < 0;
    int64_t most = back->strip;
    Over over = {0};
    if (back->into >= 0 && back->count > most) most = first_strip(back->to, size, most);
    for (int64_t done = 0; done < back->count; done += most, most = back->strip) {
        int last = back->count - done <= most, bits;
        int64_t count = last ? back->count - done : most;
        uint8_t *made = back->into < 0 ? back->out + done * size : back->made + MOST_OVER;
        const void *numbers;
        int failed = read_base(back, came, &base, done, count, last);
        if (!failed) failed = read_sum(back, came, &sum, done, count, last, &numbers, &bits);
        if (failed) return failed;
        came->mixed = came->mixed || !positive(back->widened, count);
        came->lost += add_up(back, done, count, numbers, bits, made);
        if (!came->mixed) came->negative |= negative(made, back->dtype, count);
        if (back->into < 0) continue;
        failed = write_strip((int)back->into, &over, made, count * size, back->to + done * size, last);
        if (failed) return failed;
    }
    return DONE;
}
#endif
