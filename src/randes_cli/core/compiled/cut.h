/* Pieces of superpositions, and what they are cut with: see cut.c and levels.c. */

#ifndef RANDES_CUT_H
#define RANDES_CUT_H

#include "fused.h"

/* A piece of a stored superposition: `count` integers of `bits` bits, elements `start` and on of
 * a matrix of `cols` columns whose row i has the column scales table[i mod every]. */
typedef struct {
    const void *units;
    int64_t bits, count, start, cols, every;
} Piece;

/* What codes are made and read with: scales of rows (from the matrix's first) and the tables of
 * columns, the thresholds (between infinities) and levels of `bits`, and those of all codes of each
 * byte (of 3 bits: of each two codes); of 8 bits the code at the lower edge of each 1/128 from -12
 * to 12; and how many parts a step has. */
typedef struct {
    int64_t bits;
    const float *rows, *table, *read_rows, *read_table, *limits, *levels, *several;
    const int32_t *fine;
    float parts;
} Cut;

/* How integers agree with what their codes are read as. */
typedef struct {
    int64_t crossed, lengths;
} Agreement;

/* Elements of a row that are worked on at once. */
enum { AT_ONCE = 1024 };

/* The elements of a piece that lie in one row: how many, from element `at` on. */
TEMPLATE ptrdiff_t in_row(const Piece *piece, ptrdiff_t at, int64_t *row, int64_t *col) {
    *row = (piece->start + at) / piece->cols;
    *col = (piece->start + at) % piece->cols;
    int64_t left = piece->count - at;
    return piece->cols - *col < left ? piece->cols - *col : left;
}

/* Add the squares of a piece to the sums of its rows (from its first one on) and columns. */
EXPORT int randes_squares(const Piece *piece, uint64_t *along, uint64_t *table);

/* The codes of a piece (of a multiple of eight elements, or the last), added to *found how the
 * integers agree with what is read. */
EXPORT int randes_cut(const Piece *piece, const Cut *cut, uint8_t *out, Agreement *found);

/* The values of a piece of codes (its `units`), the first of which begins a byte: levels times the
 * scales that they are read with. */
EXPORT int randes_read(const Piece *piece, const Cut *cut, float *out);

/* The levels of packed codes, eight for each `bits` bytes. */
void randes_look_up(const uint8_t *packed, ptrdiff_t eights, const Cut *cut, float *level);

#endif
