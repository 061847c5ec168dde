/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_same_bits_tiles.c - test_same_bits.c with matrix tiles in plain C.
 *
 * There a launch of one or two rows of x is computed by vectors and one of
 * more by tiles: the bits have to be the same.  Rows are more than a call
 * takes, columns more than a chunk has.
 */

#define HOST_PLUGIN "tests/matrix/.libs/tiles.so"
#define HOST_ISAS   "amx"
#define ROWS        69u
#define COLUMNS     580u

#include "matrix/test_same_bits.c"
