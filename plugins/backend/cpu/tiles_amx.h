/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiles_amx.h - the words of tiles_body.h in AMX-TILE and AMX-INT8.
 *
 * In assembly and not by the compilers' intrinsics: those of GCC 12 name 8 of
 * the 64 bytes of a configuration as read, and no bytes at all of what a tile
 * load reads, so that stores before them may be dropped and the first load
 * dies of SIGILL.  Compilers allocate no tiles by themselves; none is named
 * as changed.
 */

/* Intel SDM, LDTILECFG: the memory format of palette 1. */
struct tiles_shape {
    uint8_t  palette, start_row, zero0[14];
    uint16_t bytes[8]; /* of a row */
    uint16_t zero1[8];
    uint8_t  rows[8];
    uint8_t  zero2[8];
};
_Static_assert(sizeof(struct tiles_shape) == 64, "as LDTILECFG reads it");

V_FN void
tiles_config(uint32_t rows)
{
    const uint8_t      n = (uint8_t) rows;
    struct tiles_shape s = { .palette = 1,
                             .bytes = { 64, 64, 64, 64, 32, 32, 64, 64 },
                             .rows = { n, n, n, n, n, n, 8, 8 } };

    __asm__ volatile("ldtilecfg %0" : : "m"(s) : "memory");
}

V_FN void
tiles_release(void)
{
    __asm__ volatile("tilerelease" : : : "memory");
}

#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")

#define TILE_LOAD(t, p, stride)                                               \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t                          \
                     :                                                        \
                     : "r"((const void *) (p)), "r"((uint64_t) (stride))      \
                     : "memory")

#define TILE_STORE(t, p, stride)                                              \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)"                      \
                     :                                                        \
                     : "r"((void *) (p)), "r"((uint64_t) (stride))            \
                     : "memory")

/* c += a b, signed by signed bytes */
#define TILE_DOT(c, a, b)                                                     \
    __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c             \
                     :                                                        \
                     :                                                        \
                     : "memory")
