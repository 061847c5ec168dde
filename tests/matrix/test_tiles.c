/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_tiles.c - that tiles in plain C do what Intel's SDM says of tiles, by
 * examples worked by hand, so that a product on them means something.
 */

#include <signal.h>

#include <sys/wait.h>
#include <unistd.h>

#include "matrix/tiles_emulated.h"
#include "tap.h"

/* True if f(arg) ends a process, as a fault would. */
static int
faults(void (*f)(void))
{
    int   status = 0;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        f();
        _exit(0);
    }
    return child > 0 && waitpid(child, &status, 0) == child
           && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void
config(uint8_t m, uint16_t k, uint16_t n4)
{
    struct emu_config c = { .palette = 1,
                            .bytes = { n4, k, n4 },
                            .rows = { m, m, (uint8_t) (k / 4) } };

    emu_ldtilecfg(&c);
}

static void
unconfigured(void)
{
    emu_tilerelease();
    emu_tilezero(0);
}

static void
too_long(void)
{
    config(16, 64, 68);
}

static void
too_many_rows(void)
{
    config(17, 64, 64);
}

static void
no_length(void)
{
    config(16, 64, 0);
}

static void
reserved(void)
{
    struct emu_config c = { .palette = 1, .zero1 = { 1 } };

    emu_ldtilecfg(&c);
}

static void
shapes_differ(void)
{
    struct emu_config c = { .palette = 1,
                            .bytes = { 64, 64, 64 },
                            .rows = { 16, 16, 15 } };

    emu_ldtilecfg(&c);
    emu_tdpbssd(0, 1, 2);
}

static void
same_tile(void)
{
    config(16, 64, 64);
    emu_tdpbssd(0, 1, 1);
}

int
main(void)
{
    /* 2 x 8 by 8 x 3: a (2, 8), b by fours of k: (2, 3, 4) */
    static const int8_t a[2][8] = { { 1, -2, 3, 4, -128, 127, 0, 5 },
                                    { -128, -128, -128, -128, 1, 0, 0, 0 } };
    static const int8_t b[2][12]
        = { { 1, 1, 1, 1, -128, -128, -128, -128, 0, 10, 0, -10 },
            { 1, 2, 3, 4, -128, 127, 9, -1, 0, 0, 0, 100 } };
    /* by hand: row 0: (1-2+3+4) + (-128+254+20) = 152,
     *   6 * -128 + (16384+16129-5) = 31740, (-20-40) + 500 = 440
     * row 1: -512 + 1, 65536 - 128, 0 */
    static const int32_t want[2][3] = { { 152, 31740, 440 },
                                        { -511, 65408, 0 } };
    uint8_t  in[16][64], out[16][80];
    int32_t  c[2][3], top = INT32_MAX, got;
    unsigned i, r, same = 1;

    config(2, 8, 12);
    emu_tilezero(0);
    emu_tileloadd(1, a, 8);
    emu_tileloadd(2, b, 12);
    emu_tdpbssd(0, 1, 2);
    emu_tilestored(0, c, 12);
    ok(memcmp(c, want, sizeof(c)) == 0, "2 x 8 by 8 x 3, signed");
    emu_tdpbssd(0, 1, 2);
    emu_tilestored(0, c, 12);
    for (i = 0; i < 6; i++)
        same &= c[i / 3][i % 3] == 2 * want[i / 3][i % 3];
    ok(same, "a second product is added");

    for (i = 0; i < sizeof(in); i++)
        in[i / 64][i % 64] = (uint8_t) (i * 7 + i / 64);
    memset(out, 0xee, sizeof(out));
    config(16, 64, 64);
    emu_tileloadd(0, in, 64);
    emu_tilestored(0, out, 80);
    for (r = 0, same = 1; r < 16; r++)
        same &= memcmp(out[r], in[r], 64) == 0 && out[r][64] == 0xee;
    ok(same, "rows lie their stride apart");
    config(3, 64, 20);
    emu_tilestored(0, out, 80);
    for (r = 0, same = 1; r < 16; r++)
        for (i = 0; i < 64; i++)
            same &= out[r][i] == (r < 3 && i < 20 ? 0 : in[r][i]);
    ok(same, "a configuration empties tiles; only its part is stored");

    config(1, 4, 4);
    emu_tileloadd(0, &top, 4);
    emu_tileloadd(1, "\1\0\0", 4);
    emu_tileloadd(2, "\1\0\0", 4);
    emu_tdpbssd(0, 1, 2);
    emu_tilestored(0, &got, 4);
    ok(got == INT32_MIN, "sums are modulo 2^32, not clamped");

    ok(faults(unconfigured), "a tile without a configuration is refused");
    ok(faults(too_long), "rows of more than 64 bytes are refused");
    ok(faults(too_many_rows), "more than 16 rows are refused");
    ok(faults(no_length), "rows without a length are refused");
    ok(faults(reserved), "reserved bytes must be 0");
    ok(faults(shapes_differ), "shapes that do not fit are refused");
    ok(faults(same_tile), "operands must be three tiles");
    return tap_done();
}
