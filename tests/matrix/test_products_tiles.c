/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_products_tiles.c - test_products.c with matrix tiles in plain C.
 */

#define HOST_PLUGIN "tests/matrix/.libs/tiles.so"
#define HOST_ISAS   "amx"

#include "matrix/test_products.c"
