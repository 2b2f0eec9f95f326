/* Tensors of a task whose base and sum lie in memory as the bank stores them: see swap.py. */

#include "cut.h"
#include "fused.h"

/* Elements `first` to `last` of a tensor, a matrix of `cols` columns; `rows` and `view_cols` are the
 * view of scales and of two-sided signs. `sum`: integers of `sum_bits`, or packed codes that are read
 * as `cut` has it; null where the output is the base, of its dtype. Element `first` goes to `out`. */
typedef struct {
    int64_t first, last, cols, rows, view_cols, kind, base_dtype, dtype, sum_bits;
    const uint8_t *base, *sum;
    const Cut *cut;
    const uint8_t *bits;
    uint8_t *out;
    double scale;
} Swap;

/* RUN elements, and what they are made of, stay in a core's first cache; so do signs of all columns,
 * written out once a part, where there are at most WIDE. What is written past the caches is written
 * BLOCK by BLOCK: a processor looks ahead for the next reads over a few blocks, not over a run. */
enum { RUN = 2048, WIDE = 8192, BLOCK = 64, LINE = 64 };

typedef struct {
    float base[RUN], levels[RUN + 16], scratch[WIDE + 16];
    const float *signs;
    int64_t first, last;
} Space;

/* A part of one row, both of the view and of the matrix that signs are of: its numbers, of a sum or
 * levels that are to be scaled, and the signs of its columns, which `flip` turns. (Without `across`
 * the scales of columns have their signs already: one number a column less to be read.) */
typedef struct {
    const void *base, *numbers;
    const float *signs, *across;
    float along, scale;
    uint32_t flip;
    void *out;
    int64_t count;
    int streamed;
} Run;

static int64_t size_of(int64_t dtype) { return dtype == F32 || dtype == ANY_F32 ? 4 : 2; }

enum { LEVELS = 32, SIGNED_LEVELS = 33 };

/* Copy bytes past the caches, where a processor can: what is written is then not read before. */
static inline void stream(uint8_t *to, const void *from, size_t size) {
    const uint8_t *next = from;
#if defined(__x86_64__) && defined(__GNUC__)
    size_t head = -(uintptr_t)to % 16;
    if (size >= head + 16) {
        memcpy(to, next, head);
        for (to += head, next += head, size -= head; size >= 16; to += 16, next += 16, size -= 16)
            _mm_stream_si128((void *)to, _mm_loadu_si128((const void *)next));
    }
#endif
    memcpy(to, next, size);
}

/* out = base + numbers * signs, of the run's elements from `first` on; levels are times the scales of
 * their column and row before. */
TEMPLATE void write_some(const Run *run, int base_dtype, int bits, int dtype, ptrdiff_t first,
                         ptrdiff_t count, void *restrict out) {
    const float *restrict signs = run->signs, *restrict across = run->across;
    const float turned = as_float(as_bits(run->along) ^ run->flip), along = run->along;
    const float scale = run->scale;
    const uint32_t flip = run->flip;
#pragma GCC ivdep
    for (ptrdiff_t made = 0; made < count; made++) {
        ptrdiff_t at = first + made;
        float value = number(run->numbers, bits, at);
        if (bits == SIGNED_LEVELS) {
            value = value * signs[at] * turned * scale;
        } else {
            if (bits == LEVELS) value = value * across[at] * along;
            value = value * as_float(as_bits(signs[at]) ^ flip);
        }
        put(out, made, load(run->base, base_dtype, at) + value, dtype);
    }
}

/* A run, past the caches in blocks of whole lines where it is `streamed`. */
TEMPLATE void write_run(const Run *run, int base_dtype, int bits, int dtype) {
    const ptrdiff_t size = size_of(dtype);
    uint8_t *out = run->out;
    ptrdiff_t head = (ptrdiff_t)(-(uintptr_t)out % LINE) / size, at = 0;
    if (run->streamed && head < run->count) {
        write_some(run, base_dtype, bits, dtype, 0, head, out);
        for (at = head; at + BLOCK <= run->count; at += BLOCK) {
            _Alignas(LINE) uint8_t made[BLOCK * sizeof(float)];
            write_some(run, base_dtype, bits, dtype, at, BLOCK, made);
            stream(out + at * size, made, (size_t)(BLOCK * size));
        }
    }
    write_some(run, base_dtype, bits, dtype, at, run->count - at, out + at * size);
}

TEMPLATE void write_of(const Run *run, int base_dtype, int bits, int dtype) {
    if (bits == 8) write_run(run, base_dtype, 8, dtype);
    if (bits == 16) write_run(run, base_dtype, 16, dtype);
    if (bits == LEVELS && run->across) write_run(run, base_dtype, LEVELS, dtype);
    if (bits == LEVELS && !run->across) write_run(run, base_dtype, SIGNED_LEVELS, dtype);
}

/* A base of another dtype than the output's has become float32 before. */
TEMPLATE void write_any(const Run *run, int base_dtype, int bits, int dtype) {
    if (base_dtype == BF16 && dtype == ANY_BF16) write_of(run, BF16, bits, ANY_BF16);
    else if (base_dtype == BF16) write_of(run, BF16, bits, BF16);
    else if (base_dtype == F16) write_of(run, F16, bits, F16);
    else if (dtype == BF16) write_of(run, F32, bits, BF16);
    else if (dtype == F16) write_of(run, F32, bits, F16);
    else if (dtype == ANY_F32) write_of(run, F32, bits, ANY_F32);
    else write_of(run, F32, bits, F32);
}

/* Whether the columns that have scales are those that have signs. */
TEMPLATE int joined(const Swap *swap) {
    int same = swap->kind != HANKEL && swap->cols == swap->view_cols;
    return swap->cut && (swap->kind == TWO_SIDED || same);
}

/* Scales of columns with the signs that were written out. */
static void join(float *signs, const float *across, int64_t count) {
    for (int64_t at = 0; at < count; at++)
        signs[at] = as_float(as_bits(across[at]) ^ (as_bits(signs[at]) & 0x80000000u));
}

/* Signs of a run of columns (of HANKEL: columns and rows together), of `all` that there are. */
static const float *signs_of(const Swap *swap, int64_t first, int64_t count, int64_t all,
                             Space *space) {
    if (first < space->first || first + count > space->last) {
        int64_t start = all > WIDE ? first : 0, end = all > WIDE ? first + count : all;
        Signs signs = {swap->bits, 0, 0, 0, 0, space->scratch, (float)swap->scale,
                       (int32_t)swap->kind};
        int64_t place = start + (swap->kind == TWO_SIDED ? swap->rows : 0);
        space->first = start, space->last = end;
        space->signs = spread(&signs, place, end - start);
        if (joined(swap))
            join(space->scratch + (space->signs - space->scratch),
                 swap->cut->read_table + start, end - start);
    }
    return space->signs + (first - space->first);
}

/* The levels of `count` codes from element `first` on. */
static const float *levels_of(const Swap *swap, int64_t first, int64_t count, Space *space) {
    const uint8_t *packed = swap->sum + first / 8 * swap->cut->bits;
    randes_look_up(packed, (first % 8 + count + 7) / 8, swap->cut, space->levels);
    return space->levels + first % 8;
}

/* What lies at the run's elements, from number `first` on. */
TEMPLATE void fill_run(const Swap *swap, int64_t first, Run *run, Space *space, int *base_dtype) {
    run->base = swap->base + first * size_of(swap->base_dtype);
    *base_dtype = (int)swap->base_dtype;
    if (*base_dtype != F32 && *base_dtype != swap->dtype && swap->dtype != ANY_BF16) {
        randes_widen(run->base, *base_dtype, space->base, run->count);
        run->base = space->base, *base_dtype = F32;
    }
    if (swap->cut)
        run->numbers = levels_of(swap, first, run->count, space);
    else
        run->numbers = swap->sum + first * swap->sum_bits / 8;
}

/* Elements `first` to `last` of a tensor that has a sum. */
TEMPLATE int randes_part_as(int version, const Swap *swap, int64_t first, int64_t last, int streamed,
                            Space *space) {
    (void)version;
    const int64_t cols = swap->kind == TWO_SIDED ? swap->view_cols : swap->cols;
    const int64_t all = swap->kind == HANKEL ? (swap->last - 1) / cols + cols : cols;
    const int bits = swap->cut ? 32 : (int)swap->sum_bits;
    int64_t row = first / cols, col = first % cols;
    int64_t view_row = first / swap->view_cols, view_col = first % swap->view_cols;
    space->first = space->last = 0;
    for (Run run = {0}; first < last; first += run.count) {
        int base_dtype;
        int64_t left = cols - col, in_view = swap->view_cols - view_col;
        left = in_view < left ? in_view : left;
        left = last - first < left ? last - first : left;
        run.count = left < RUN ? left : RUN;
        run.signs = signs_of(swap, swap->kind == HANKEL ? row + col : col, run.count, all, space);
        if (swap->kind == TWO_SIDED)
            run.flip = (uint32_t)(swap->bits[row / 8] >> row % 8 & 1) << 31;
        if (swap->cut) {
            run.along = swap->cut->read_rows[view_row], run.scale = fabsf((float)swap->scale);
            run.across = joined(swap) ? NULL : swap->cut->read_table + view_col;
        }
        fill_run(swap, first, &run, space, &base_dtype);
        run.out = swap->out + (first - swap->first) * size_of(swap->dtype);
        run.streamed = streamed;
        write_any(&run, base_dtype, bits, (int)swap->dtype);
        col += run.count, view_col += run.count;
        if (col == cols) row++, col = 0;
        if (view_col == swap->view_cols) view_row++, view_col = 0;
    }
    return 0;
}

FOR_EACH_PROCESSOR(static, int, randes_part,
                   (const Swap *swap, int64_t first, int64_t last, int streamed, Space *space),
                   swap, first, last, streamed, space)

/* Swap parts of `most` elements, the next of which is number *next, until none is left: several
 * threads call it. `ends` are how many parts there are up to each tensor's end. `streamed`: what is
 * written is more than caches hold. */
EXPORT void randes_swap(const Swap *swaps, const int64_t *ends, int64_t count, int64_t most,
                        int streamed, int64_t *next) {
    Space space;
    int64_t tensor = 0;
    while (count) {
        int64_t part = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        while (tensor < count && part >= ends[tensor]) tensor++;
        if (tensor == count) break;
        const Swap *swap = swaps + tensor;
        int64_t first = swap->first + (part - (tensor ? ends[tensor - 1] : 0)) * most;
        int64_t last = swap->last - first < most ? swap->last : first + most;
        int64_t size = size_of(swap->dtype);
        uint8_t *out = swap->out + (first - swap->first) * size;
        if (swap->sum)
            randes_part(swap, first, last, streamed, &space);
        else if (streamed)
            stream(out, swap->base + first * size, (size_t)((last - first) * size));
        else
            memcpy(out, swap->base + first * size, (size_t)((last - first) * size));
    }
#if defined(__x86_64__) && defined(__GNUC__)
    _mm_sfence();
#endif
}
