/* Tensors of a task whose base and sum lie in memory as the bank stores them: see fused_swap.py. */

#include "cut.h"
#include "fused.h"

/* A tensor as a matrix of `cols` columns; `rows` and `view_cols` are the view of scales and of
 * two-sided signs. `sum`: integers of `sum_bits`, or packed codes that are read as `cut` has it; null
 * where the output is the base, of its dtype. */
typedef struct {
    int64_t count, cols, rows, view_cols, kind, base_dtype, dtype, sum_bits;
    const uint8_t *base, *sum;
    const Cut *cut;
    const uint8_t *bits;
    uint8_t *out;
    double scale;
} Swap;

/* STRIP elements stay in a core's first cache with all that is made of them; a thread takes PART
 * of them at a time. */
enum { STRIP = 2048, PART = 64 * STRIP };

typedef struct {
    float base[STRIP], values[STRIP], signs[STRIP + 16];
} Space;

static int64_t size_of(int64_t dtype) { return dtype == BF16 || dtype == F16 ? 2 : 4; }

static const float *base_of(const Swap *swap, int64_t first, int64_t count, float *space) {
    if (swap->base_dtype == F32) return (const float *)swap->base + first;
    randes_widen(swap->base + first * 2, (int)swap->base_dtype, space, count);
    return space;
}

static const uint8_t *sum_of(const Swap *swap, int64_t first, int64_t count, float *space, int *bits) {
    *bits = swap->cut ? 32 : (int)swap->sum_bits;
    if (!swap->cut) return swap->sum + first * *bits / 8;
    const uint8_t *packed = swap->sum + first / 8 * swap->cut->bits;
    Piece piece = {packed, 8, count, first, swap->view_cols, 1};
    randes_read(&piece, swap->cut, space);
    return (const uint8_t *)space;
}

/* Elements `first` (a multiple of 8) and on; `count` at the most STRIP. */
static void swap_strip(const Swap *swap, int64_t first, int64_t count, Space *space) {
    int64_t size = size_of(swap->dtype);
    uint8_t *out = swap->out + first * size;
    if (!swap->sum) {
        memcpy(out, swap->base + first * size, (size_t)(count * size));
        return;
    }
    int bits;
    const float *base = base_of(swap, first, count, space->base);
    const uint8_t *sum = sum_of(swap, first, count, space->values, &bits);
    Signs signs = {swap->bits, first, swap->rows, swap->view_cols, count, space->signs,
                   (float)swap->scale, (int32_t)swap->kind};
    for (int64_t at = 0; at < count;) {
        int64_t taken = take_signs(&signs, first + at, swap->cols, count - at);
        randes_retrieve(sum + at * bits / 8, bits, &signs, base + at, (int)swap->dtype,
                        out + at * size);
        at += taken;
    }
}

/* Swap parts, the next of which is number *next, until none is left: several threads call it.
 * `ends` are how many parts there are up to each tensor's end. */
EXPORT void randes_swap(const Swap *swaps, const int64_t *ends, int64_t count, int64_t *next) {
    Space space;
    int64_t tensor = 0;
    while (count) {
        int64_t part = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        while (tensor < count && part >= ends[tensor]) tensor++;
        if (tensor == count) break;
        const Swap *swap = swaps + tensor;
        int64_t first = (part - (tensor ? ends[tensor - 1] : 0)) * PART;
        int64_t last = swap->count - first < PART ? swap->count : first + PART;
        for (; first < last; first += STRIP)
            swap_strip(swap, first, last - first < STRIP ? last - first : STRIP, &space);
    }
}
