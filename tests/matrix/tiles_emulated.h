/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiles_emulated.h - the words of tiles_body.h in plain C.
 *
 * What AMX-TILE and AMX-INT8 do by the operation sections of Intel's SDM,
 * volume 2, LDTILECFG, TILELOADD, TILESTORED, TILEZERO and TDPBSSD, with
 * their faults: where a processor would fault this ends the process.  So the
 * product on tiles runs, line for line, on machines without them.
 */
#ifndef MOE_TESTS_MATRIX_TILES_EMULATED_H
#define MOE_TESTS_MATRIX_TILES_EMULATED_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* As LDTILECFG reads it: palette, start row, 14 bytes of 0, 8 row lengths in
 * bytes, 8 more of 0, 8 numbers of rows, 8 more of 0. */
struct emu_config {
    uint8_t  palette, start_row, zero0[14];
    uint16_t bytes[8];
    uint16_t zero1[8];
    uint8_t  rows[8];
    uint8_t  zero2[8];
};

static _Thread_local struct {
    struct emu_config config;
    uint8_t           tmm[8][16][64];
} emu;

static inline void
emu_check(int right)
{
    if (!right)
        abort(); /* #GP or #UD */
}

static inline void
emu_ldtilecfg(const struct emu_config *c)
{
    static const struct emu_config none;
    unsigned                       i;

    emu_check(c->palette == 1 && c->start_row == 0);
    emu_check(memcmp(c->zero0, none.zero0, sizeof(c->zero0)) == 0
              && memcmp(c->zero1, none.zero1, sizeof(c->zero1)) == 0
              && memcmp(c->zero2, none.zero2, sizeof(c->zero2)) == 0);
    for (i = 0; i < 8; i++)
        emu_check(c->bytes[i] <= 64 && c->rows[i] <= 16
                  && (c->bytes[i] == 0) == (c->rows[i] == 0));
    memset(&emu, 0, sizeof(emu));
    emu.config = *c;
}

static inline void
emu_tilerelease(void)
{
    memset(&emu, 0, sizeof(emu));
}

static inline void
emu_used(unsigned t)
{
    emu_check(emu.config.palette == 1 && t < 8 && emu.config.rows[t] != 0);
}

static inline void
emu_tilezero(unsigned t)
{
    emu_used(t);
    memset(emu.tmm[t], 0, sizeof(emu.tmm[t]));
}

static inline void
emu_tileloadd(unsigned t, const void *p, uint64_t stride)
{
    unsigned r;

    emu_used(t);
    memset(emu.tmm[t], 0, sizeof(emu.tmm[t]));
    for (r = 0; r < emu.config.rows[t]; r++)
        memcpy(emu.tmm[t][r], (const uint8_t *) p + r * stride,
               emu.config.bytes[t]);
}

static inline void
emu_tilestored(unsigned t, void *p, uint64_t stride)
{
    unsigned r;

    emu_used(t);
    for (r = 0; r < emu.config.rows[t]; r++)
        memcpy((uint8_t *) p + r * stride, emu.tmm[t][r],
               emu.config.bytes[t]);
}

/* c += a b: signed bytes by fours, sums modulo 2^32. */
static inline void
emu_tdpbssd(unsigned c, unsigned a, unsigned b)
{
    const struct emu_config *f = &emu.config;
    unsigned                 m, k, n, i;

    emu_used(a);
    emu_used(b);
    emu_used(c);
    emu_check(a != b && b != c && a != c);
    emu_check(f->rows[c] == f->rows[a] && f->bytes[c] == f->bytes[b]
              && f->bytes[a] / 4 == f->rows[b] && f->bytes[a] % 4 == 0
              && f->bytes[b] % 4 == 0);
    for (m = 0; m < f->rows[c]; m++) {
        uint32_t sum[16];

        memcpy(sum, emu.tmm[c][m], 64);
        for (k = 0; k < f->bytes[a] / 4u; k++) {
            int8_t x[4], y[64];

            memcpy(x, emu.tmm[a][m] + 4 * k, 4);
            memcpy(y, emu.tmm[b][k], 64); /* 0 behind its row's end */
            for (n = 0; n < 16; n++)
                for (i = 0; i < 4; i++)
                    sum[n] += (uint32_t) (x[i] * y[4 * n + i]);
        }
        memcpy(emu.tmm[c][m], sum, 64);
    }
}

/* ---------------------------------------------------- the words, by these -- */

__attribute__((__unused__)) static void
tiles_config(uint32_t rows)
{
    const uint8_t     n = (uint8_t) rows;
    struct emu_config c = { .palette = 1,
                            .bytes = { 64, 64, 64, 64, 32, 32, 64, 64 },
                            .rows = { n, n, n, n, n, n, 8, 8 } };

    emu_ldtilecfg(&c);
}

__attribute__((__unused__)) static void
tiles_release(void)
{
    emu_tilerelease();
}

#define TILE_ZERO(t)             emu_tilezero(t)
#define TILE_LOAD(t, p, stride)  emu_tileloadd(t, p, stride)
#define TILE_STORE(t, p, stride) emu_tilestored(t, p, stride)
#define TILE_DOT(c, a, b)        emu_tdpbssd(c, a, b)

#endif /* MOE_TESTS_MATRIX_TILES_EMULATED_H */
