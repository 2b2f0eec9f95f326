/* Runs every compiled pass on the same made-up numbers and prints a digest of all that they give:
 * equal from every compiler, for every processor and in every version of the passes. */

#include <stdio.h>
#include <stdlib.h>

#include "../../src/randes_cli/core/compiled/cut.h"
#include "../../src/randes_cli/core/compiled/digest.h"

enum { ROWS = 37, COLS = 211, SIZE = ROWS * COLS };

double randes_on_grid(const float *delta, ptrdiff_t count, int bits, double *out);
int randes_moments(const double *units, ptrdiff_t count, int coarse, int64_t *sums);
void randes_signs(const Signs *signs, int64_t cols, const int64_t *starts, const int64_t *counts,
                  int64_t runs, float *out);
void randes_digest(const uint8_t *data, ptrdiff_t size, ptrdiff_t piece, uint8_t *out);
void randes_streams(const uint8_t *texts, const int64_t *lengths, const int64_t *counts,
                    int64_t many, uint8_t *out);

static uint8_t all[1 << 20];
static ptrdiff_t filled;

static void keep(const void *data, size_t size) {
    memcpy(all + filled, data, size);
    filled += (ptrdiff_t)size;
}

static uint32_t state = 1;
static uint32_t next(void) { return (state = state * 1664525u + 1013904223u) >> 8; }

int main(int argc, char **argv) {
    static float base[SIZE], task[SIZE], out[SIZE], scratch[SIZE + 16], ones[SIZE];
    static uint16_t half[SIZE];
    static int32_t sum[SIZE];
    static int16_t codes[SIZE];
    static uint8_t bits[SIZE / 8 + 64], packed[SIZE + 8];
    if (argc > 1) randes_processor(atoi(argv[1]));
    for (int at = 0; at < SIZE; at++) {
        base[at] = (float)next() / 65536.0f - 128.0f;
        task[at] = base[at] + ((float)next() / 65536.0f - 128.0f) / (at % 97 ? 64.0f : 1.0f);
        half[at] = (uint16_t)(next() % 0x7C00 | (at & 1) << 15);
        ones[at] = 1.0f / (float)(1 + at % 5);
    }
    for (size_t at = 0; at < sizeof bits; at++) bits[at] = (uint8_t)next();
    for (int kind = NONE; kind <= TWO_SIDED; kind++)
        for (int dtype = F32; dtype <= F16; dtype++) {
            Signs signs = {bits, 0, ROWS, COLS, SIZE, scratch, dtype == F16 ? 0.25f : 64.0f, kind};
            Found found;
            int refused = randes_add(dtype == F32 ? (void *)task : (void *)half, dtype, base,
                                     &signs, (uint32_t *)sum, &found);
            keep(&refused, sizeof refused);
            if (!refused) keep(&found, sizeof found);
            int64_t peak = randes_store(sum, SIZE, 16, codes);
            int64_t lost = randes_retrieve(codes, 16, &signs, base, dtype == F16 ? BF16 : F32, out);
            keep(&peak, sizeof peak);
            keep(&lost, sizeof lost);
            keep(out, dtype == F16 ? SIZE * 2 : sizeof out);
            lost = randes_retrieve(codes, 16, &signs, base, F16, out);
            keep(&lost, sizeof lost);
            keep(out, SIZE * 2);
        }
    static uint64_t along[ROWS], table[COLS];
    Piece piece = {codes, 16, SIZE, 0, COLS, 1};
    randes_squares(&piece, along, table);
    keep(along, sizeof along);
    keep(table, sizeof table);
    static const float limits[] = {-INFINITY, -1.0f, 0.0f, 1.0f, INFINITY};
    static const float levels[] = {-1.5f, -0.5f, 0.5f, 1.5f};
    static float rows[ROWS];
    for (int row = 0; row < ROWS; row++) rows[row] = 1.0f / (float)(8 + row);
    Cut cut = {2, rows, ones, ones, ones, limits, levels, NULL, NULL, 512.0f};
    Agreement agreement = {0, 0};
    randes_cut(&piece, &cut, packed, &agreement);
    keep(packed, (SIZE + 7) / 8 * 2);
    keep(&agreement, sizeof agreement);
    static float many[256], several[2048];
    for (int level = 0; level < 256; level++) many[level] = (float)level - 100.0f;
    static const int widths[] = {1, 2, 3, 4, 8};
    for (int width = 0; width < 5; width++) {
        const int wide = widths[width], together = (wide == 3 ? 6 : 8) / wide;
        for (int code = 0; code < together << together * wide; code++)
            several[code] =
                many[code / together >> code % together * wide & ((1 << wide) - 1)];
        Piece codes_piece = {bits, 8, SIZE / 8, 8, COLS, 1};
        Cut reading = {wide, NULL, NULL, rows, ones, NULL, many, several, NULL, 0};
        randes_read(&codes_piece, &reading, out);
        keep(out, SIZE / 8 * sizeof *out);
    }
    static double grid[SIZE];
    static int64_t moments[3];
    double unit = randes_on_grid(task, SIZE, 18, grid);
    randes_moments(grid, SIZE, 6, moments);
    keep(&unit, sizeof unit);
    keep(grid, sizeof grid);
    keep(moments, sizeof moments);
    for (int kind = NONE; kind <= TWO_SIDED; kind++) {
        static const int64_t starts[] = {0, 5, 3 * COLS}, some[] = {COLS + 7, 9, 2 * COLS};
        Signs signs = {bits, 0, ROWS, COLS, 0, scratch, 1.0f, kind};
        randes_signs(&signs, COLS, starts, some, 3, out);
        keep(out, (size_t)(some[0] + some[1] + some[2]) * sizeof *out);
    }
    static const int64_t lengths[] = {3, 40, 0, 135, 136, 137, 300, 7, 8, 9, 10, 11};
    static const int64_t counts[] = {8, 5, 136, 137, 1, 500, 4, 0, 3, 3, 3, 3};
    static uint8_t streams[1024];
    randes_streams(bits, lengths, counts, 12, streams);
    keep(streams, sizeof streams);
    uint8_t digest[16];
    randes_digest(all, filled, 4096, digest);
    for (int byte = 0; byte < 16; byte++) printf("%02x", digest[byte]);
    printf("\n");
    return 0;
}
