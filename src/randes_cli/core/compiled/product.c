/* Products of a few vectors with a superposition that lies as the bank stores it: see product.py.
 *
 * Numbers of S are unpacked into a core's first cache and multiplied there with all vectors. Sums
 * are over as many lanes as a processor has, so their last digits differ among processors. */

#include "cut.h"
#include "fused.h"

/* y = S x, or transposed(S) x where `turned`, for `count` vectors x, at most MOST. S is rows * width
 * packed codes, read by `cut`, or integers of `bits` where that is null. Of a share, row r has the
 * inputs q, q + every ..., q = -r - group mod every, and WIDE of these lie together (zeros after the
 * last): `x` is [every][tiles][count][WIDE]. `y` is [count][y_size], zeros before, y_size a multiple
 * of ALIGNED. */
typedef struct {
    const uint8_t *stored;
    const Cut *cut;
    int64_t bits, rows, width, every, group, turned, tiles, count, y_size;
    const float *x;
    float *y;
} Product;

/* WIDE numbers of DOWN rows are unpacked at once; of `turned`, ACROSS of HIGH rows. They meet BESIDE
 * vectors at once, or one. */
enum { MOST = 128, ALIGNED = 32, WIDE = 512, DOWN = 4, ACROSS = 64, HIGH = 64, BESIDE = 4 };
enum { LANES = 16, SPARE = ALIGNED + 8 };

typedef struct {
    float numbers[HIGH * (ACROSS + SPARE)], lanes[DOWN * MOST * LANES];
} Space;

/* `count` numbers of S from number `first` on, then zeros up to a multiple of ALIGNED; returns where
 * they begin in `out`. */
static const float *unpack(const Product *product, int64_t first, int64_t count, float *out) {
    if (product->cut) {
        const uint8_t *packed = product->stored + first / 8 * product->cut->bits;
        randes_look_up(packed, (first % 8 + count + 7) / 8, product->cut, out);
        out += first % 8;
    } else if (product->bits == 8) {
        for (ptrdiff_t at = 0; at < count; at++) out[at] = number(product->stored, 8, first + at);
    } else {
        for (ptrdiff_t at = 0; at < count; at++) out[at] = number(product->stored, 16, first + at);
    }
    memset(out + count, 0, (size_t)(-count & (ALIGNED - 1)) * sizeof *out);
    return out;
}

/* Add products of DOWN rows, `down` at once, and `beside` vectors, `size` numbers each, to the lanes
 * of their sums: lanes[vector][row]. */
#define DOTS(down, beside, wide, Vector, load, same, add, store)                                   \
    for (int first = 0; first < DOWN; first += down) {                                             \
        float *const mine = lanes + LANES * (DOWN * done + first);                                          \
        const float *const *row = rows + first;                                                    \
        Vector sums[down][beside];                                                                 \
        for (int r = 0; r < down; r++)                                                             \
            for (int v = 0; v < beside; v++) sums[r][v] = load(mine + (DOWN * v + r) * LANES);     \
        for (ptrdiff_t k = 0; k < size; k += wide)                                                 \
            for (int v = 0; v < beside; v++)                                                       \
                for (int r = 0; r < down; r++)                                                     \
                    sums[r][v] = add(load(row[r] + k), load(x + WIDE * v + k), sums[r][v]);      \
        for (int r = 0; r < down; r++)                                                             \
            for (int v = 0; v < beside; v++) store(mine + (DOWN * v + r) * LANES, sums[r][v]);     \
    }

/* Add products of `size` rows of two lots of lanes, each ACROSS + SPARE after the one before, and
 * `beside` vectors to y[vector][lane]. */
#define OUTER(beside, wide, Vector, load, same, add, store)                                        \
    do {                                                                                           \
        Vector sums[beside][2];                                                                    \
        for (int v = 0; v < beside; v++)                                                           \
            for (int j = 0; j < 2; j++) sums[v][j] = load(y + v * y_size + wide * j);              \
        for (ptrdiff_t k = 0; k < size; k++)                                                       \
            for (int v = 0; v < beside; v++)                                                       \
                for (int j = 0; j < 2; j++)                                                        \
                    sums[v][j] = add(load(numbers + k * (ACROSS + SPARE) + wide * j),              \
                                     same(x[WIDE * v + k]), sums[v][j]);                         \
        for (int v = 0; v < beside; v++)                                                           \
            for (int j = 0; j < 2; j++) store(y + v * y_size + wide * j, sums[v][j]);              \
    } while (0)

/* Both for all vectors, in one version for each generation of processors. */
#define FOR_A_PROCESSOR(scope, version, down, ...)                                                       \
    scope dots_##version(const Product *product, const float *const *rows, const float *x,         \
                         ptrdiff_t size, float *lanes) {                                           \
        const ptrdiff_t count = product->count;                                                    \
        ptrdiff_t done = 0;                                                                        \
        for (; done + BESIDE <= count; done += BESIDE, x += BESIDE * WIDE) \
            DOTS(down, BESIDE, __VA_ARGS__)                                                        \
        for (; done < count; done++, x += WIDE) DOTS(down, 1, __VA_ARGS__)                         \
    }                                                                                              \
    scope outer_##version(const Product *product, const float *numbers, const float *x,            \
                          ptrdiff_t size, float *y) {                                              \
        const ptrdiff_t y_size = product->y_size, count = product->count;                          \
        ptrdiff_t done = 0;                                                                        \
        for (; done + BESIDE <= count; done += BESIDE, x += BESIDE * WIDE, y += BESIDE * y_size)  \
            OUTER(BESIDE, __VA_ARGS__);                                                            \
        for (; done < count; done++, x += WIDE, y += y_size) OUTER(1, __VA_ARGS__);              \
    }

#ifdef V4
FOR_A_PROCESSOR(V4 static void, v4, 4, 16, __m512, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps,
                _mm512_storeu_ps)
FOR_A_PROCESSOR(V3 static void, v3, 2, 8, __m256, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps,
                _mm256_storeu_ps)
#endif

typedef struct {
    float lane[4];
} Four;

TEMPLATE Four load_4(const float *at) { return *(const Four *)at; }

TEMPLATE Four same_4(float value) { return (Four){{value, value, value, value}}; }

TEMPLATE Four add_4(Four one, Four other, Four sum) {
    for (int at = 0; at < 4; at++) sum.lane[at] += one.lane[at] * other.lane[at];
    return sum;
}

TEMPLATE void store_4(float *at, Four value) { *(Four *)at = value; }

FOR_A_PROCESSOR(static void, v1, 2, 4, Four, load_4, same_4, add_4, store_4)

/* Lanes that this processor multiplies at once. */
static int lot(void) {
#ifdef V4
    return randes_processor(0) >= 4 ? 16 : randes_processor(0) == 3 ? 8 : 4;
#else
    return 4;
#endif
}

static void dots(const Product *product, const float *const *rows, const float *x, ptrdiff_t size,
                 float *lanes) {
#ifdef V4
    if (lot() == 16) dots_v4(product, rows, x, size, lanes);
    if (lot() == 8) dots_v3(product, rows, x, size, lanes);
#endif
    if (lot() == 4) dots_v1(product, rows, x, size, lanes);
}

static void outer(const Product *product, const float *numbers, const float *x, ptrdiff_t size,
                  float *y) {
#ifdef V4
    if (lot() == 16) outer_v4(product, numbers, x, size, y);
    if (lot() == 8) outer_v3(product, numbers, x, size, y);
#endif
    if (lot() == 4) outer_v1(product, numbers, x, size, y);
}

/* DOWN outputs from `row` on, or those before `last`, one in `every`: they have the same inputs. */
static void plain(const Product *product, int64_t row, int64_t last, Space *space) {
    const int64_t every = product->every, left_rows = (last - row + every - 1) / every;
    const int64_t many = left_rows < DOWN ? left_rows : DOWN;
    const int64_t residue = (every - (row + product->group) % every) % every;
    const float *x = product->x + residue * product->tiles * product->count * WIDE, *rows[DOWN];
    memset(space->lanes, 0, (size_t)product->count * DOWN * LANES * sizeof *x);
    for (int64_t col = 0; col < product->width; col += WIDE) {
        const int64_t left = product->width - col, size = left < WIDE ? left : WIDE;
        for (int64_t r = 0; r < DOWN; r++) /* what is not there is the first again */
            rows[r] = r < many ? unpack(product, (row + r * every) * product->width + col, size,
                                        space->numbers + r * (WIDE + SPARE))
                               : rows[0];
        dots(product, rows, x + col * product->count, size, space->lanes);
    }
    for (int64_t r = 0; r < many; r++)
        for (int64_t v = 0; v < product->count; v++) {
            const float *lanes = space->lanes + (DOWN * v + r) * LANES;
            float sum = 0;
            for (int at = 0; at < LANES; at++) sum += lanes[at];
            product->y[v * product->y_size + row + r * every] = sum;
        }
}

/* Outputs `col` and on, ACROSS at most: columns of S. */
static void turned(const Product *product, int64_t col, int64_t last, Space *space) {
    const int64_t cols = last - col < ACROSS ? last - col : ACROSS;
    for (int64_t row = 0; row < product->rows; row += HIGH) {
        const int64_t left = product->rows - row, size = left < HIGH ? left : HIGH;
        for (int64_t k = 0; k < size; k++) {
            float *out = space->numbers + k * (ACROSS + SPARE);
            const float *found = unpack(product, (row + k) * product->width + col, cols, out);
            if (found != out) memmove(out, found, (ACROSS + ALIGNED) * sizeof *out);
        }
        const float *x = product->x + row / WIDE * WIDE * product->count + row % WIDE;
        for (int64_t at = 0; at < cols; at += 2 * lot())
            outer(product, space->numbers + at, x, size, product->y + col + at);
    }
}

/* Outputs `first` to `last`. */
EXPORT void randes_product(const Product *product, int64_t first, int64_t last) {
    Space space;
    if (product->turned) {
        for (; first < last; first += ACROSS) turned(product, first, last, &space);
        return;
    }
    const int64_t every = product->every;
    for (int64_t start = first; start < first + every; start++)
        for (int64_t row = start; row < last; row += DOWN * every)
            plain(product, row, last, &space);
}
