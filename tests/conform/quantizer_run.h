/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer_run.h - what quantizer.c works with: the topics and the first
 * fault of each, guarded memory, and matrices of the format under test.
 */
#ifndef MOE_TESTS_CONFORM_QUANTIZER_RUN_H
#define MOE_TESTS_CONFORM_QUANTIZER_RUN_H

#include <float.h>
#include <stdlib.h>

#include "conform/affine.h"
#include "support/half.h"

#define GUARD      64u /* bytes before and after each buffer */
#define GUARD_BYTE 0xc3

/* What is looked at, once for each format; the line that is reported. */
enum topic {
    T_FORMAT,
    T_PLANES,
    T_PLANES_REFUSE,
    T_BITS,
    T_ENCODE,
    T_ENCODE_NAN,
    T_ROUND_TRIP,
    T_CHECK_OWN,
    T_CHECK_LENGTH,
    T_CHECK_SCALE,
    T_CHECK_DAMAGE,
    T_DECODE,
    T_ROWS,
    T_HALF,
    T_GUARD,
    T_AFFINE,
    T_THREADS,
    T_ERRORS,
    T_COUNT
};

static const char *const topic_text[T_COUNT] = {
    [T_FORMAT] = "its description is complete",
    [T_PLANES] = "planes have names, types and sizes that fit each other",
    [T_PLANES_REFUSE] = "planes of impossible matrices are refused",
    [T_BITS] = "bits_x1000 is the size of its planes",
    [T_ENCODE] = "encodes, each time to the same bytes",
    [T_ENCODE_NAN] = "a NaN or an infinity is not encoded but named",
    [T_ROUND_TRIP] = "decoding gives back what was encoded, and stays there",
    [T_CHECK_OWN] = "check accepts what encode wrote",
    [T_CHECK_LENGTH] = "check refuses missing, short and long planes",
    [T_CHECK_SCALE] = "check refuses scales that are NaN or infinite",
    [T_CHECK_DAMAGE] = "bytes that check accepts decode to finite numbers",
    [T_DECODE] = "decodes, each time to the same bits",
    [T_ROWS] = "a range of rows is the same as in the whole",
    [T_HALF] = "f16 and bf16 are the f32 numbers rounded to nearest even",
    [T_GUARD] = "writes nothing outside of its outputs",
    [T_AFFINE] = "the affine description says what decode does",
    [T_THREADS] = "two threads decode at once to the same bits",
    [T_ERRORS] = "a refusal has a status, and one line that says why",
};

struct run {
    const struct moe_quantizer_ops *ops;
    void                           *self;
    void (*report)(void *ctx, int pass, const char *text);
    void    *ctx;
    int      failed, no_memory;
    uint64_t random;

    /* of the format being looked at */
    const struct moe_format *f;
    int                      seen[T_COUNT];      /* 1: looked at */
    char                     wrong[T_COUNT][200]; /* first fault, or "" */
};

/* One n x k matrix of the format, and what it decodes to. */
struct matrix {
    struct moe_tensor t;
    struct moe_plane  plane[MOE_PLANES_MAX];
    uint32_t          n_planes;
    float            *src;     /* (n, k) */
    float            *decoded; /* (n, k) */
};

__attribute__((__format__(__printf__, 4, 5))) static int
expect(struct run *run, enum topic topic, int pass, const char *fmt, ...)
{
    va_list args;

    run->seen[topic] = 1;
    if (!pass && run->wrong[topic][0] == '\0') {
        va_start(args, fmt);
        vsnprintf(run->wrong[topic], sizeof(run->wrong[topic]), fmt, args);
        va_end(args);
    }
    return pass;
}

static uint64_t
next_random(struct run *run)
{
    uint64_t z = (run->random += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Nearly Gaussian, sigma 0.02: the sum of twelve. */
static float
next_weight(struct run *run)
{
    double s = -6.0;
    int    i;

    for (i = 0; i < 12; i++)
        s += (double) (next_random(run) >> 11) * 0x1p-53;
    return (float) (0.02 * s);
}

/* ------------------------------------------------------- guarded memory -- */

/* bytes between two guards, or NULL; remembers the lack of memory */
static void *
guarded_alloc(struct run *run, uint64_t bytes)
{
    unsigned char *p = malloc(bytes + 2 * GUARD);

    if (p == NULL) {
        run->no_memory = 1;
        return NULL;
    }
    memset(p, GUARD_BYTE, bytes + 2 * GUARD);
    return p + GUARD;
}

static void
guarded_free(const void *p)
{
    if (p != NULL)
        free((unsigned char *) (uintptr_t) p - GUARD);
}

static int
guards_hold(const void *p, uint64_t bytes)
{
    const unsigned char *b = p;
    uint32_t             i;

    for (i = 1; i <= GUARD; i++)
        if (b[bytes + i - 1] != GUARD_BYTE || *(b - i) != GUARD_BYTE)
            return 0;
    return 1;
}

/* --------------------------------------------------------------- errors -- */

/* st was returned with err: a refusal explains itself. */
static void
expect_reason(struct run *run, moe_status st, const struct moe_error *err,
              const char *when)
{
    if (st == MOE_OK)
        return;
    expect(run, T_ERRORS, st < 0 && err->status == st,
           "%s: returned %d, but the error says %d", when, (int) st,
           (int) err->status);
    expect(run, T_ERRORS,
           err->text[0] != '\0'
               && memchr(err->text, '\0', sizeof(err->text)) != NULL
               && strchr(err->text, '\n') == NULL,
           "%s: the error is not one line of text", when);
}

static void
clear_error(struct moe_error *err)
{
    memset(err, 0, sizeof(*err));
    err->struct_size = sizeof(*err);
}

/* --------------------------------------------------------------- matrix -- */

static const char *
scale_name(uint32_t dtype)
{
    return dtype == MOE_F32    ? "F32"
           : dtype == MOE_F16  ? "F16"
           : dtype == MOE_BF16 ? "BF16"
                               : "none";
}

static void
matrix_free(struct matrix *m)
{
    uint32_t i;

    for (i = 0; i < MOE_PLANES_MAX; i++)
        guarded_free(m->t.plane[i]);
    free(m->src);
    free(m->decoded);
    memset(m, 0, sizeof(*m));
}

/* Planes for n x k, and numbers to put into them.  0: no memory, or the
 * format does not take this matrix. */
static int
matrix_make(struct run *run, struct matrix *m, uint64_t n, uint64_t k,
            uint32_t scale_dtype)
{
    struct moe_error err;
    uint64_t         i;
    moe_status       st;

    memset(m, 0, sizeof(*m));
    clear_error(&err);
    m->t.struct_size = sizeof(m->t);
    m->t.scale_dtype = scale_dtype;
    m->t.n = n;
    m->t.k = k;
    st = run->ops->planes(run->self, run->f, n, k, scale_dtype, m->plane,
                          &m->n_planes, &err);
    if (st != MOE_OK || m->n_planes < 1 || m->n_planes > MOE_PLANES_MAX)
        return 0;
    for (i = 0; i < m->n_planes; i++) {
        if (m->plane[i].bytes > (UINT64_C(1) << 32))
            return 0;
        m->t.plane[i] = guarded_alloc(run, m->plane[i].bytes);
        m->t.len[i] = m->plane[i].bytes;
    }
    m->src = malloc(n * k * sizeof(float));
    m->decoded = malloc(n * k * sizeof(float));
    if (m->src == NULL || m->decoded == NULL)
        run->no_memory = 1;
    if (run->no_memory) {
        matrix_free(m);
        return 0;
    }
    for (i = 0; i < n * k; i++)
        m->src[i] = next_weight(run);
    return 1;
}

static unsigned char *
plane_bytes(const struct matrix *m, uint32_t i)
{
    return (unsigned char *) (uintptr_t) m->t.plane[i];
}

static int
planes_guarded(const struct matrix *m)
{
    uint32_t i;

    for (i = 0; i < m->n_planes; i++)
        if (!guards_hold(m->t.plane[i], m->t.len[i]))
            return 0;
    return 1;
}

/* Scale number i of plane 1 becomes s. */
static void
put_scale(struct matrix *m, uint64_t i, float s)
{
    uint32_t size = moe_dtype_size(m->t.scale_dtype);
    uint16_t h = m->t.scale_dtype == MOE_F16 ? moe_f32_f16(s)
                                             : moe_f32_bf16(s);

    memcpy(plane_bytes(m, MOE_PLANE_SCALE) + i * size,
           size == 4 ? (void *) &s : (void *) &h, size);
}

/* True if plane 1 is a plane of scales of the tensor's own type. */
static int
has_scales(const struct matrix *m)
{
    return m->n_planes > MOE_PLANE_SCALE && m->t.scale_dtype != 0
           && strcmp(m->plane[MOE_PLANE_SCALE].dtype,
                     scale_name(m->t.scale_dtype))
                  == 0;
}

#endif /* MOE_TESTS_CONFORM_QUANTIZER_RUN_H */
