/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant_test.h - what the tests of the quantizers share: a plugin opened as
 * the build left it, random weights, matrices with guarded memory.
 */
#ifndef MOE_TESTS_QUANT_TEST_H
#define MOE_TESTS_QUANT_TEST_H

#include <dlfcn.h>
#include <float.h>
#include <math.h>

#include <moe/plugin.h>
#include <moe/quantizer.h>

#include "conform/affine.h"
#include "tap.h"

/* The quantizer plugin of that name from the build tree; exits if it is not
 * there: nothing after it could be tested. */
__attribute__((__unused__)) static const struct moe_quantizer_ops *
qt_open(const char *name)
{
    const char              *top = getenv("MOE_TEST_BUILDDIR");
    char                     path[4096];
    void                    *so;
    const struct moe_plugin *p;

    snprintf(path, sizeof(path), "%s/plugins/quant/%s/.libs/%s.so",
             top != NULL ? top : ".", name, name);
    so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (so == NULL) {
        printf("Bail out! %s\n", dlerror());
        exit(1);
    }
    p = dlsym(so, "moe_plugin");
    if (p == NULL || p->magic != MOE_PLUGIN_MAGIC
        || p->kind != MOE_KIND_QUANTIZER || p->ops == NULL) {
        printf("Bail out! %s is no quantizer\n", path);
        exit(1);
    }
    is_str(p->name, name, "the plugin is called %s", name);
    return p->ops;
}

__attribute__((__unused__)) static const struct moe_format *
qt_format(const struct moe_quantizer_ops *ops, const char *id)
{
    uint32_t i;

    for (i = 0; i < ops->n_formats; i++)
        if (strcmp(ops->formats[i]->id, id) == 0)
            return ops->formats[i];
    printf("Bail out! no format %s\n", id);
    exit(1);
}

/* ---------------------------------------------------------------- random -- */

static uint64_t qt_state = 0x9e3779b97f4a7c15u;

__attribute__((__unused__)) static uint64_t
qt_random(void)
{
    uint64_t z = (qt_state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In (0, 1). */
__attribute__((__unused__)) static double
qt_uniform(void)
{
    return ((double) (qt_random() >> 11) + 0.5) * 0x1p-53;
}

__attribute__((__unused__)) static double
qt_gauss(void)
{
    double radius = sqrt(-2.0 * log(qt_uniform()));

    return radius * cos(6.283185307179586 * qt_uniform());
}

/* Student's t with 4 degrees of freedom, variance 1: heavy tails. */
__attribute__((__unused__)) static double
qt_heavy(void)
{
    double g = qt_gauss(), s = 0.0, x;
    int    i;

    for (i = 0; i < 4; i++) {
        x = qt_gauss();
        s += x * x;
    }
    return g / sqrt(s / 4.0) / sqrt(2.0);
}

__attribute__((__unused__)) static float *
qt_weights(uint64_t n, uint64_t k, double sigma, double (*draw)(void))
{
    float   *w = malloc(n * k * sizeof(*w));
    uint64_t i;

    if (w == NULL)
        exit(1);
    for (i = 0; i < n * k; i++)
        w[i] = (float) (sigma * draw());
    return w;
}

/* ---------------------------------------------------------------- matrix -- */

struct qt_matrix {
    struct moe_tensor t;
    struct moe_plane  plane[MOE_PLANES_MAX];
    uint32_t          n_planes;
    moe_status        status;
    struct moe_error  err;
};

/* Memory for the planes of an n x k matrix, exactly as long as they are (a
 * sanitizer sees the first byte past them), filled with 0xa5. */
__attribute__((__unused__)) static struct qt_matrix *
qt_matrix(const struct moe_quantizer_ops *ops, const struct moe_format *f,
          uint64_t n, uint64_t k, uint32_t scale_dtype)
{
    struct qt_matrix *m = calloc(1, sizeof(*m));
    uint32_t          i;
    void             *p;

    if (m == NULL)
        exit(1);
    m->err.struct_size = sizeof(m->err);
    m->t.struct_size = sizeof(m->t);
    m->t.scale_dtype = scale_dtype;
    m->t.n = n;
    m->t.k = k;
    m->status = ops->planes(NULL, f, n, k, scale_dtype, m->plane, &m->n_planes,
                            &m->err);
    for (i = 0; m->status == MOE_OK && i < m->n_planes; i++) {
        p = malloc(m->plane[i].bytes);
        if (p == NULL)
            exit(1);
        memset(p, 0xa5, m->plane[i].bytes);
        m->t.plane[i] = p;
        m->t.len[i] = m->plane[i].bytes;
    }
    return m;
}

__attribute__((__unused__)) static unsigned char *
qt_bytes(const struct qt_matrix *m, uint32_t plane)
{
    return (unsigned char *) (uintptr_t) m->t.plane[plane];
}

__attribute__((__unused__)) static void
qt_free(struct qt_matrix *m)
{
    uint32_t i;

    for (i = 0; i < MOE_PLANES_MAX; i++)
        free(qt_bytes(m, i));
    free(m);
}

/* src: n x k */
__attribute__((__unused__)) static struct qt_matrix *
qt_encode(const struct moe_quantizer_ops *ops, const struct moe_format *f,
          uint64_t n, uint64_t k, uint32_t scale_dtype, const float *src)
{
    struct qt_matrix *m = qt_matrix(ops, f, n, k, scale_dtype);

    if (m->status == MOE_OK)
        m->status = ops->encode(NULL, f, src, k, NULL, &m->t, &m->err);
    return m;
}

/* n x k numbers, to be freed */
__attribute__((__unused__)) static float *
qt_decode(const struct moe_quantizer_ops *ops, const struct moe_format *f,
          const struct qt_matrix *m)
{
    float *w = malloc(m->t.n * m->t.k * sizeof(*w));

    if (w == NULL
        || ops->decode(NULL, f, &m->t, 0, m->t.n, MOE_F32, w, m->t.k) != MOE_OK)
        exit(1);
    return w;
}

__attribute__((__unused__)) static int
qt_same_planes(const struct qt_matrix *a, const struct qt_matrix *b,
               uint32_t from, uint32_t to)
{
    uint32_t i;

    for (i = from; i < to && i < a->n_planes; i++)
        if (a->t.len[i] != b->t.len[i]
            || memcmp(a->t.plane[i], b->t.plane[i], a->t.len[i]) != 0)
            return 0;
    return 1;
}

/* Relative RMS error: sqrt(sum (a-b)^2 / sum b^2). */
__attribute__((__unused__)) static double
qt_error(const float *a, const float *b, uint64_t n)
{
    double   d = 0.0, s = 0.0;
    uint64_t i;

    for (i = 0; i < n; i++) {
        d += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
        s += (double) b[i] * b[i];
    }
    return s == 0.0 ? sqrt(d) : sqrt(d / s);
}

/* decode() of the whole equals the affine description, bit for bit. */
__attribute__((__unused__)) static int
qt_affine_agrees(const struct moe_quantizer_ops *ops,
                 const struct moe_format *f, const struct qt_matrix *m)
{
    struct moe_affine a;
    float            *w = qt_decode(ops, f, m), x;
    uint64_t          r, c, end[3];
    int               same = 1, i;

    memset(&a, 0x5a, sizeof(a));
    a.struct_size = sizeof(a);
    if (ops->affine(NULL, f, m->t.n, m->t.k, m->t.scale_dtype, &a) != MOE_OK)
        same = 0;
    for (r = 0; same && r < m->t.n; r++)
        for (c = 0; same && c < m->t.k; c++) {
            affine_ends(&a, r, c, end);
            for (i = 0; i < 3; i++)
                if (end[i] > m->t.len[i])
                    same = 0;
            x = same ? affine_weight(&a, &m->t, r, c) : 0.0f;
            if (memcmp(&x, &w[r * m->t.k + c], sizeof(x)) != 0
                && !(isnan(x) && isnan(w[r * m->t.k + c]))) {
                printf("# row %d, column %d: decode %a, affine %a\n", (int) r,
                       (int) c, (double) w[r * m->t.k + c], (double) x);
                same = 0;
            }
        }
    free(w);
    return same;
}

/* Rows [row0, row0 + rows) of each output type, into padded memory: equal to
 * the whole rounded, and nothing else written. */
__attribute__((__unused__)) static int
qt_ranges_agree(const struct moe_quantizer_ops *ops,
                const struct moe_format *f, const struct qt_matrix *m,
                uint64_t row0, uint64_t rows)
{
    static const uint32_t dtypes[] = { MOE_F32, MOE_F16, MOE_BF16 };
    struct moe_tensor     whole = m->t;
    unsigned char        *got, *want;
    uint64_t              k = m->t.k, ld = k + 3, r, i;
    uint32_t              d, size;
    int                   same = 1;

    for (d = 0; d < 3; d++) {
        size = moe_dtype_size(dtypes[d]);
        got = malloc(rows * ld * size);
        want = malloc(m->t.n * k * size);
        if (got == NULL || want == NULL)
            exit(1);
        memset(got, 0x77, rows * ld * size);
        same &= ops->decode(NULL, f, &whole, 0, m->t.n, dtypes[d], want, k)
                == MOE_OK;
        same &= ops->decode(NULL, f, &m->t, row0, rows, dtypes[d], got, ld)
                == MOE_OK;
        for (r = 0; r < rows; r++) {
            same &= memcmp(got + r * ld * size, want + (row0 + r) * k * size,
                           k * size)
                    == 0;
            for (i = k * size; i < ld * size; i++)
                same &= got[r * ld * size + i] == 0x77;
        }
        free(got);
        free(want);
    }
    return same;
}

#endif /* MOE_TESTS_QUANT_TEST_H */
