/* SPDX-License-Identifier: Apache-2.0 */
/*
 * isa.c - which instruction set this process uses.
 *
 * One table, best first.  A row is taken if the processor and the operating
 * system have it AND it computes what plain C computes on a small problem:
 * a compiler or an emulator that gets an instruction wrong costs speed, not
 * answers.  Matrix tiles stand beside the table: they must give the bits of
 * the row that was taken, and from how many rows on they are the faster ones
 * is measured here.
 */

#include <math.h>
#include <time.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/lines.h"

static const struct cpu_isa *const table[] = {
#if defined(__x86_64__)
    &cpu_isa_avx512vnni,
    &cpu_isa_avx512,
    &cpu_isa_avxvnni,
    &cpu_isa_avx2,
#endif
    &cpu_isa_portable,
};
#define N_ISA (sizeof(table) / sizeof(table[0]))

/* The problem: 2 panels, 7 rows of x, odd numbers of columns and groups. */
#define T_K    83u
#define T_NT   7u
#define T_NP   2u
#define T_WORK 8192u /* bytes of one matrix: the largest is f32 */

/* Tiles: two tiles of rows and a part of one, 2 panels of up to 16 runs. */
#define T_ROWS 39u
#define T_RUNS 16u

struct trial {
    _Alignas(64) uint8_t w[2 * T_WORK];
    float         x[T_NT][T_K + 13]; /* up to 96 */
    struct cpu_q8 q[T_NT][3];
    float         want[T_NT * T_NP * CPU_LANES], got[T_NT * T_NP * CPU_LANES];
    struct cpu_q8 many[T_ROWS][T_RUNS];
    float         tall[2][T_ROWS * T_NP * CPU_LANES];
    uint32_t      seed;
};

static uint32_t
next(struct trial *t)
{
    t->seed = t->seed * 1664525u + 1013904223u;
    return t->seed >> 8;
}

static float
next_float(struct trial *t) /* in [-1, 1) */
{
    return (float) (int32_t) (next(t) & 0xffffu) / 32768.0f - 1.0f;
}

/* Equal within 1e-5 of the largest one. */
static int
close_to(const float *got, const float *want, uint32_t n)
{
    float    top = 1e-6f, off = 0.0f;
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (isnan(got[i]) || isnan(want[i]))
            return 0;
        top = fmaxf(top, fabsf(want[i]));
        off = fmaxf(off, fabsf(got[i] - want[i]));
    }
    return off <= 1e-5f * top;
}

/* Random numbers of a kind; FP8 and half bits that are finite. */
static void
fill_weights(struct trial *t, uint32_t kind, struct cpu_mat *m)
{
    uint64_t i;
    float    f;
    uint16_t h;

    memset(m, 0, sizeof(*m));
    m->data = t->w;
    m->n = T_NP * CPU_LANES;
    m->k = T_K;
    m->panels = T_NP;
    m->kind = kind;
    m->group = 32;
    m->panel_bytes = T_WORK;
    for (i = 0; i < 2 * T_WORK; i++)
        t->w[i] = (uint8_t) (next(t) & 0xb7u); /* no exponent of all ones */
    switch (kind) {
    case CPU_F32:
        for (i = 0; i < 2 * T_WORK; i += 4) {
            f = next_float(t);
            memcpy(t->w + i, &f, 4);
        }
        break;
    case CPU_F16:
    case CPU_BF16:
        for (i = 0; i < 2 * T_WORK; i += 2) {
            f = next_float(t);
            h = kind == CPU_F16 ? moe_f16_round(f) : moe_bf16_round(f);
            memcpy(t->w + i, &h, 2);
        }
        break;
    case CPU_E4M3:
    case CPU_E5M2:
        m->scale = CPU_LANES;
        for (i = 0; i < (uint64_t) T_NP * 3 * CPU_LANES; i++) {
            f = next_float(t);
            memcpy(t->w + (i / (3 * CPU_LANES)) * T_WORK
                       + cpu_fp8_bytes(T_K)
                       + 4 * (i % (3 * CPU_LANES)),
                   &f, 4);
        }
        break;
    default: /* lines: any byte will do but in the scales */
        m->scale = kind == CPU_FP4 ? MOE_SCALE_E8M0 : MOE_SCALE_F16;
        m->has_zero = kind != CPU_FP4;
        m->zero = kind == CPU_FP4 ? LINE_FP4 : kind == CPU_INT8 ? -131 : 0;
        for (i = 0; i < (uint64_t) T_NP * 3 * CPU_LANES; i++) {
            const uint64_t g = i / CPU_LANES % 3, lane = i % CPU_LANES;
            uint8_t       *s = t->w + i / (3 * CPU_LANES) * T_WORK
                         + lines_group_off(m, g) + lines_run_bytes(kind);

            h = moe_f16_round(next_float(t));
            if (kind == CPU_FP4)
                s[lane] = (uint8_t) (next(t) % 16 < 14 ? 120 + next(t) % 10
                                                       : 0);
            else
                memcpy(s + 2 * lane, &h, 2);
        }
        break;
    }
}

/* Weights in lines, of any number of runs in a group: bytes as they are, and
 * scales. */
static void
fill_lines(struct trial *t, uint32_t kind, uint32_t runs, uint32_t per,
           struct cpu_mat *m)
{
    uint32_t p, g, first, lane;

    fill_weights(t, kind, m);
    m->k = runs * CPU_RUN - 3;
    m->group = per * CPU_RUN;
    for (p = 0; p < T_NP; p++)
        for (g = 0, first = 0; first < runs; g++, first += per) {
            uint8_t *s = t->w + p * T_WORK + lines_group_off(m, g)
                         + cpu_min(per, runs - first) * lines_run_bytes(kind);

            for (lane = 0; lane < CPU_LANES; lane++) {
                const uint16_t h = moe_f16_round(next_float(t));

                if (kind == CPU_FP4)
                    s[lane] = (uint8_t) (120 + next(t) % 10);
                else
                    memcpy(s + 2 * lane, &h, 2);
            }
        }
}

/* The same bits as the vectors', for groups of several sizes. */
static int
try_tiles(const struct cpu_isa *isa, const struct cpu_tiles *tiles,
          struct trial *t)
{
    static const uint32_t per[] = { 1, 2, 3, 4, 13 };
    const uint32_t        ldo = T_NP * CPU_LANES;
    const void           *rows[T_ROWS];
    struct cpu_mat        m;
    uint32_t              kind, i, n, at;

    for (kind = CPU_INT4; kind <= CPU_INT8; kind++)
        for (i = 0; i < sizeof(per) / sizeof(*per); i++) {
            fill_lines(t, kind, 13, per[i], &m);
            for (n = 0; n < T_ROWS; n++)
                rows[n] = t->many[n];
            for (at = 0; at < T_ROWS; at += n) {
                n = (uint32_t) cpu_min(T_ROWS - at, CPU_TOKENS);
                isa->dot[kind](&m, 0, T_NP, rows + at, n,
                               t->tall[0] + at * ldo, ldo);
            }
            tiles->dot[kind - CPU_INT4](&m, 0, T_NP, rows, T_ROWS, t->tall[1],
                                        ldo);
            if (memcmp(t->tall[0], t->tall[1], sizeof(t->tall[0])) != 0)
                return 0;
            tiles->dot[kind - CPU_INT4](&m, 0, T_NP, rows, 5, t->tall[1],
                                        ldo);
            if (memcmp(t->tall[0], t->tall[1], 5 * ldo * sizeof(float)) != 0)
                return 0;
        }
    return 1;
}

/* The shortest of several times of a product, in nanoseconds. */
static uint64_t
time_of(cpu_dot_fn *dot, const struct cpu_mat *m, const void *const *rows,
        uint32_t n, float *out)
{
    struct timespec a, b;
    uint64_t        best = UINT64_MAX, ns;
    uint32_t        i, j;

    for (i = 0; i < 5; i++) {
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (j = 0; j < 8; j++)
            dot(m, 0, T_NP, rows, n, out, T_NP * CPU_LANES);
        clock_gettime(CLOCK_MONOTONIC, &b);
        ns = (uint64_t) (b.tv_sec - a.tv_sec) * 1000000000u
             + (uint64_t) b.tv_nsec - (uint64_t) a.tv_nsec;
        best = cpu_min(best, ns);
    }
    return best;
}

/* The number of rows from which on tiles are faster, 0: from none.  Weights
 * of 4 bits out of the cache, as those of an expert whose rows are many; all
 * of it takes well under a millisecond. */
static uint32_t
measure_from(const struct cpu_isa *isa, const struct cpu_tiles *tiles,
             struct trial *t)
{
    static const uint32_t probe[] = { 24, 16, 12, 8, 6, 4, 2 };
    const void           *rows[T_ROWS];
    struct cpu_mat        m;
    uint32_t              i, n, from = 0;

    fill_lines(t, CPU_INT4, T_RUNS, 1, &m);
    for (n = 0; n < T_ROWS; n++)
        rows[n] = t->many[n];
    for (i = 0; i < sizeof(probe) / sizeof(*probe); i++) {
        n = probe[i];
        if (time_of(tiles->dot[0], &m, rows, n, t->tall[1])
            > time_of(isa->dot[CPU_INT4], &m, rows, n, t->tall[0]))
            break;
        from = n;
    }
    return from;
}

static int
try_dot(const struct cpu_isa *isa, struct trial *t, uint32_t kind)
{
    const void    *rows[T_NT];
    const uint32_t ldo = T_NP * CPU_LANES;
    struct cpu_mat m;
    uint32_t       i;

    fill_weights(t, kind, &m);
    for (i = 0; i < T_NT; i++)
        rows[i] = cpu_is_lines(kind) ? (const void *) t->q[i]
                                     : (const void *) t->x[i];
    cpu_isa_portable.dot[kind](&m, 0, T_NP, rows, T_NT, t->want, ldo);
    isa->dot[kind](&m, 0, T_NP, rows, T_NT, t->got, ldo);
    if (!close_to(t->got, t->want, T_NT * ldo))
        return 0;
    /* one row at a time: the same bits */
    for (i = 0; i < T_NT; i++)
        isa->dot[kind](&m, 0, T_NP, rows + i, 1, t->want + i * ldo, ldo);
    return memcmp(t->got, t->want, sizeof(t->got)) == 0;
}

static int
try_vectors(const struct cpu_isa *isa, struct trial *t)
{
    const struct cpu_isa *ref = &cpu_isa_portable;
    const float *const    q[CPU_HEADS] = { t->x[0], t->x[1], t->x[2],
                                           t->x[3] };
    float                 a[2][96], b[2][96], top;
    uint32_t              act, i;

    ref->rms(t->x[0], t->x[1], T_K, 1e-5f, a[0]);
    isa->rms(t->x[0], t->x[1], T_K, 1e-5f, b[0]);
    ref->layer(t->x[0], t->x[1], t->x[2], T_K, 1e-5f, a[1]);
    isa->layer(t->x[0], t->x[1], t->x[2], T_K, 1e-5f, b[1]);
    if (!close_to(b[0], a[0], T_K) || !close_to(b[1], a[1], T_K))
        return 0;
    for (act = MOE_ACT_SILU; act <= MOE_ACT_RELU; act++) {
        ref->gate(act, t->x[0], t->x[1], T_K, a[0]);
        isa->gate(act, t->x[0], t->x[1], T_K, b[0]);
        if (!close_to(b[0], a[0], T_K))
            return 0;
    }
    memcpy(a[0], t->x[2], T_K * 4);
    memcpy(b[0], t->x[2], T_K * 4);
    a[1][0] = ref->softmax(a[0], T_K, -INFINITY, &top);
    b[1][0] = isa->softmax(b[0], T_K, -INFINITY, &top);
    if (!close_to(b[0], a[0], T_K) || !close_to(b[1], a[1], 1))
        return 0;
    ref->rotate(a[0], a[1], t->x[3], t->x[4], 1, 1.0f);
    for (i = 0; i < 3; i++) {
        uint8_t kv[2][T_K * 4];
        float  *sa[CPU_HEADS] = { a[0], a[0] + 8, a[0] + 16, a[0] + 24 };
        float  *sb[CPU_HEADS] = { b[0], b[0] + 8, b[0] + 16, b[0] + 24 };

        ref->store[i](t->x[5], T_K, kv[0]);
        isa->store[i](t->x[5], T_K, kv[1]);
        if (memcmp(kv[0], kv[1], T_K * (i == 0 ? 4 : 2)) != 0)
            return 0;
        memset(a[0], 0, sizeof(a[0]));
        memset(b[0], 0, sizeof(b[0]));
        ref->scores[i](q, 3, kv[0], 3, 27, sa);
        isa->scores[i](q, 3, kv[0], 3, 27, sb);
        if (!close_to(b[0], a[0], 32))
            return 0;
        memset(a, 0, sizeof(a));
        memset(b, 0, sizeof(b));
        sa[1] = a[1];
        sb[1] = b[1];
        ref->mix[i](q, 2, kv[0], 2, 41, sa);
        isa->mix[i](q, 2, kv[0], 2, 41, sb);
        if (!close_to(b[0], a[0], 41) || !close_to(b[1], a[1], 41))
            return 0;
    }
    return 1;
}

/* NULL: all right; else what differs. */
static const char *
try_isa(const struct cpu_isa *isa, struct trial *t)
{
    static const char *const name[] = { "f32 products",  "f16 products",
                                        "bf16 products", "e4m3 products",
                                        "e5m2 products", "int4 products",
                                        "e2m1 products", "int8 products" };
    struct cpu_q8            q[3];
    uint32_t                 i, j;

    t->seed = 20;
    for (i = 0; i < T_NT; i++) {
        for (j = 0; j < T_K + 13; j++)
            t->x[i][j] = next_float(t);
        cpu_isa_portable.quantize(t->x[i], T_K, t->q[i]);
        isa->quantize(t->x[i], T_K, q);
        if (memcmp(q, t->q[i], sizeof(q)) != 0)
            return "quantised activations";
    }
    for (i = 0; i < sizeof(name) / sizeof(name[0]); i++)
        if (!try_dot(isa, t, i))
            return name[i];
    return try_vectors(isa, t) ? NULL : "vector functions";
}

/* "avx512" is also the family of rows whose names begin with it. */
static int
is_named(const struct cpu_isa *isa, const char *want)
{
    return strcmp(want, "auto") == 0
           || strncmp(isa->name, want, strlen(want)) == 0;
}

/* Tiles for the vectors that were taken, if they are right, and faster or
 * asked for by name. */
static void
choose_tiles(const struct moe_host *host, struct trial *t,
             const struct cpu_tiles *tiles, int asked, struct cpu_choice *c)
{
    char     line[160];
    uint32_t i, j;

    for (i = 0; i < T_ROWS; i++)
        for (j = 0; j < T_RUNS; j++) {
            float x[CPU_RUN];
            int   c0;

            for (c0 = 0; c0 < (int) CPU_RUN; c0++)
                x[c0] = next_float(t);
            cpu_isa_portable.quantize(x, CPU_RUN, &t->many[i][j]);
        }
    if (!try_tiles(c->isa, tiles, t)) {
        snprintf(line, sizeof(line),
                 "%s and %s differ in integer products on this machine: "
                 "doing without %s",
                 tiles->name, c->isa->name, tiles->name);
        host->log(host->ctx, MOE_LOG_WARN, line);
        return;
    }
    c->from = tiles->from != 0 ? tiles->from : measure_from(c->isa, tiles, t);
    if (c->from == 0 && asked)
        c->from = CPU_TOKENS;
    if (c->from != 0)
        c->tiles = tiles;
}

moe_status
cpu_isa_choose(const struct moe_host *host, const char *want,
               struct cpu_choice *out, struct moe_error *err)
{
    const struct cpu_tiles *tiles = NULL;
    struct trial           *t;
    const char             *what;
    char                    line[160];
    uint32_t                i, known = 0;
    int                     asked = 0;

    if (want == NULL || want[0] == '\0')
        want = "auto";
    for (i = 0; i < N_ISA; i++)
        known += strcmp(want, table[i]->name) == 0;
#if defined(__x86_64__)
    if ((strcmp(want, "auto") == 0 || strcmp(want, cpu_tiles_amx.name) == 0)
        && cpu_tiles_amx.usable())
        tiles = &cpu_tiles_amx;
    if (strcmp(want, cpu_tiles_amx.name) == 0) {
        if (tiles == NULL)
            return moe_fail(err, MOE_E_ABSENT, 0,
                            "isa = %s: this processor does not have it, or "
                            "the system does not allow it; use auto",
                            want);
        asked = 1;
        want = "auto"; /* the best vectors beside them */
    }
#endif
    if (strcmp(want, "auto") != 0 && known == 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "isa = %s: unknown here; use auto, portable, avx2, "
                        "avxvnni, avx512, avx512vnni or amx",
                        want);
    t = host->alloc(host->ctx, sizeof(*t), CPU_ALIGN);
    if (t == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0,
                        "no memory for the test of the instruction sets");
    *out = (struct cpu_choice){ .isa = NULL };
    for (i = 0; i < N_ISA && out->isa == NULL; i++) {
        if (!is_named(table[i], want) || !table[i]->usable())
            continue;
        what = try_isa(table[i], t);
        if (what == NULL) {
            out->isa = table[i];
            break;
        }
        snprintf(line, sizeof(line),
                 "%s computes wrong %s on this machine: trying the next "
                 "instruction set",
                 table[i]->name, what);
        host->log(host->ctx, MOE_LOG_WARN, line);
        want = "auto"; /* whatever comes below it will do */
    }
    if (out->isa != NULL && tiles != NULL)
        choose_tiles(host, t, tiles, asked, out);
    host->free(host->ctx, t);
    if (out->isa == NULL)
        return moe_fail(err, MOE_E_ABSENT, 0,
                        "isa = %s: this processor does not have it; use auto",
                        want);
    return MOE_OK;
}
