/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer.c - does a quantizer keep what moe/quantizer.h asks of it?
 *
 * Knows no format: what is right follows from the format's own words (planes,
 * decode, affine) compared with each other.  Every buffer that a plugin may
 * write lies between guard bytes.  A plugin that crashes is not caught: a
 * shell or a sanitizer says it better.
 */

#include "conform/quantizer.h"

#include <fenv.h>
#include <pthread.h>

#include "conform/quantizer_run.h"

/* --------------------------------------------------------------- topics -- */

static void
look_at_format(struct run *run)
{
    const struct moe_format *f = run->f;
    const struct moe_scheme *s = &f->scheme;

    expect(run, T_FORMAT, f->struct_size >= sizeof(struct moe_format),
           "struct_size is %u", (unsigned) f->struct_size);
    expect(run, T_FORMAT, s->struct_size >= sizeof(struct moe_scheme),
           "scheme.struct_size is %u", (unsigned) s->struct_size);
    expect(run, T_FORMAT, f->revision >= 1, "revision is 0");
    expect(run, T_FORMAT,
           f->summary != NULL && f->summary[0] != '\0'
               && strchr(f->summary, '\n') == NULL,
           "summary is not one line");
    expect(run, T_FORMAT, f->k_multiple >= 1 && f->n_multiple >= 1,
           "k_multiple or n_multiple is 0");
    expect(run, T_FORMAT, f->bits_x1000 >= 1, "bits_x1000 is 0");
    expect(run, T_FORMAT, f->nmse_x1e9 >= 1,
           "nmse_x1e9 is 0: not even the order of a sum may differ");
    expect(run, T_FORMAT, s->elem != NULL && s->elem[0] != '\0',
           "scheme.elem is missing");
    if (s->storage == NULL)
        return;
    expect(run, T_FORMAT, s->type != NULL && s->strategy != NULL,
           "scheme.type or scheme.strategy is missing");
    expect(run, T_FORMAT, s->num_bits >= 1, "scheme.num_bits is 0");
    if (s->strategy == NULL)
        return;
    expect(run, T_FORMAT,
           (strcmp(s->strategy, "group") == 0) == (s->group_size != 0),
           "strategy \"%s\" with group_size %u", s->strategy,
           (unsigned) s->group_size);
    expect(run, T_FORMAT,
           (strcmp(s->strategy, "block") == 0)
               == (s->block_n != 0 && s->block_k != 0),
           "strategy \"%s\" with blocks of %u x %u", s->strategy,
           (unsigned) s->block_n, (unsigned) s->block_k);
}

/* Bits of an element of a safetensors type; 0: not known to us. */
static uint64_t
safetensors_bits(const char *dtype)
{
    static const struct {
        const char *name;
        uint64_t    bits;
    } known[] = { { "F64", 64 },    { "F32", 32 }, { "F16", 16 },
                  { "BF16", 16 },   { "I64", 64 }, { "I32", 32 },
                  { "I16", 16 },    { "I8", 8 },   { "U64", 64 },
                  { "U32", 32 },    { "U16", 16 }, { "U8", 8 },
                  { "F8_E4M3", 8 }, { "F8_E5M2", 8 },
                  { "F8_E8M0", 8 }, { "BOOL", 8 } };
    uint32_t i;

    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(dtype, known[i].name) == 0)
            return known[i].bits;
    return 0;
}

static void
look_at_planes(struct run *run, const struct matrix *m)
{
    uint32_t i, j;
    uint64_t count, bits;

    for (i = 0; i < m->n_planes; i++) {
        const struct moe_plane *p = &m->plane[i];

        if (!expect(run, T_PLANES,
                    memchr(p->suffix, '\0', sizeof(p->suffix)) != NULL
                        && memchr(p->dtype, '\0', sizeof(p->dtype)) != NULL
                        && p->suffix[0] != '\0' && p->dtype[0] != '\0',
                    "plane %u: suffix or dtype is no text", (unsigned) i)
            || !expect(run, T_PLANES, p->n_dims == 1 || p->n_dims == 2,
                       "plane %s has %u dimensions", p->suffix,
                       (unsigned) p->n_dims))
            continue;
        count = p->dim[0] * (p->n_dims == 2 ? p->dim[1] : 1);
        bits = safetensors_bits(p->dtype);
        expect(run, T_PLANES, bits == 0 || count * bits / 8 == p->bytes,
               "plane %s of %llu x %s has %llu bytes", p->suffix,
               (unsigned long long) count, p->dtype,
               (unsigned long long) p->bytes);
        for (j = 0; j < i; j++)
            expect(run, T_PLANES, strcmp(p->suffix, m->plane[j].suffix) != 0,
                   "two planes are called %s", p->suffix);
    }
    expect(run, T_PLANES,
           run->f->scheme.elem == NULL
               || strcmp(m->plane[MOE_PLANE_ELEM].dtype, run->f->scheme.elem)
                      == 0,
           "plane %s is %s, but scheme.elem is %s",
           m->plane[MOE_PLANE_ELEM].suffix, m->plane[MOE_PLANE_ELEM].dtype,
           run->f->scheme.elem);
}

static void
look_at_impossible(struct run *run, uint32_t scale_dtype)
{
    const struct moe_format *f = run->f;
    const struct {
        uint64_t    n, k;
        const char *what;
        int         skip;
    } no[] = {
        { 0, f->k_multiple, "no rows", 0 },
        { f->n_multiple, 0, "no columns", 0 },
        { UINT64_MAX / f->n_multiple * f->n_multiple,
          UINT64_MAX / f->k_multiple * f->k_multiple, "2^128 numbers", 0 },
        { (UINT64_C(1) << 62) / f->n_multiple * f->n_multiple,
          (uint64_t) f->k_multiple * 64, "2^68 numbers and more", 0 },
        { f->n_multiple, (uint64_t) f->k_multiple + 1,
          "k that is no multiple of k_multiple", f->k_multiple == 1 },
        { (uint64_t) f->n_multiple + 1, f->k_multiple,
          "n that is no multiple of n_multiple", f->n_multiple == 1 },
    };
    struct moe_plane planes[MOE_PLANES_MAX];
    struct moe_error err;
    uint32_t         i, n_planes;
    moe_status       st;

    for (i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        if (no[i].skip)
            continue;
        clear_error(&err);
        st = run->ops->planes(run->self, f, no[i].n, no[i].k, scale_dtype,
                              planes, &n_planes, &err);
        expect(run, T_PLANES_REFUSE, st < 0, "%s is accepted", no[i].what);
        expect_reason(run, st, &err, no[i].what);
        st = run->ops->planes(run->self, f, no[i].n, no[i].k, scale_dtype,
                              planes, &n_planes, NULL);
        expect(run, T_PLANES_REFUSE, st < 0,
               "%s is accepted when there is no error to fill", no[i].what);
    }
    if (scale_dtype == 0)
        return;
    clear_error(&err);
    st = run->ops->planes(run->self, f, f->n_multiple, f->k_multiple, 77,
                          planes, &n_planes, &err);
    expect(run, T_PLANES_REFUSE, st == MOE_E_UNSUPPORTED,
           "a scale type that does not exist gives %d", (int) st);
    expect_reason(run, st, &err, "scale type 77");
}

/* The size of a large matrix for the scale type it fits best. */
static void
look_at_bits(struct run *run)
{
    static const uint32_t dtypes[] = { 0, MOE_F32, MOE_F16, MOE_BF16 };
    struct moe_plane      planes[MOE_PLANES_MAX];
    uint64_t n = UINT64_C(4096) * run->f->n_multiple;
    uint64_t k = UINT64_C(4096) * run->f->k_multiple;
    double   bits, best = 0.0, said = run->f->bits_x1000 / 1000.0;
    uint32_t i, j, n_planes;

    for (i = 0; i < 4; i++) {
        if (run->ops->planes(run->self, run->f, n, k, dtypes[i], planes,
                             &n_planes, NULL)
                != MOE_OK
            || n_planes > MOE_PLANES_MAX)
            continue;
        for (bits = 0.0, j = 0; j < n_planes; j++)
            bits += 8.0 * (double) planes[j].bytes;
        bits /= (double) n * (double) k;
        if (fabs(bits - said) < fabs(best - said))
            best = bits;
    }
    expect(run, T_BITS, fabs(best - said) <= 0.01 * said,
           "it says %.3f bits, its planes have %.3f", said, best);
}

static double
relative_error(const float *a, const float *b, uint64_t count)
{
    double   d = 0.0, s = 0.0;
    uint64_t i;

    for (i = 0; i < count; i++) {
        d += ((double) a[i] - (double) b[i]) * ((double) a[i] - (double) b[i]);
        s += (double) b[i] * (double) b[i];
    }
    return s > 0.0 ? sqrt(d / s) : sqrt(d);
}

static void
look_at_encode(struct run *run, struct matrix *m)
{
    const struct moe_quantizer_ops *ops = run->ops;
    uint64_t         n = m->t.n, k = m->t.k;
    struct moe_error err;
    struct matrix    again;
    uint32_t         i, j;
    moe_status       st;
    float            keep;
    static const float odd[] = { NAN, INFINITY, -INFINITY };

    clear_error(&err);
    st = ops->encode(run->self, run->f, m->src, k, NULL, &m->t, &err);
    expect_reason(run, st, &err, "encode");
    if (!expect(run, T_ENCODE, st == MOE_OK, "encode returned %d: %.120s",
                (int) st, err.text))
        return;
    expect(run, T_GUARD, planes_guarded(m),
           "encode wrote outside of a plane, n %llu, k %llu",
           (unsigned long long) n, (unsigned long long) k);
    if (!matrix_make(run, &again, n, k, m->t.scale_dtype))
        return;
    /* the same numbers once more, with room between the rows of src */
    free(again.src);
    again.src = malloc(n * (k + 5) * sizeof(float));
    if (again.src == NULL) {
        run->no_memory = 1;
        matrix_free(&again);
        return;
    }
    for (i = 0; i < n * (k + 5); i++)
        again.src[i] = 1e30f;
    for (i = 0; i < n; i++)
        memcpy(again.src + i * (k + 5), m->src + i * k, k * sizeof(float));
    st = ops->encode(run->self, run->f, again.src, k + 5, NULL, &again.t, &err);
    for (i = 0; st == MOE_OK && i < m->n_planes; i++)
        expect(run, T_ENCODE,
               memcmp(m->t.plane[i], again.t.plane[i], m->t.len[i]) == 0,
               "plane %s differs between two calls, n %llu, k %llu",
               m->plane[i].suffix, (unsigned long long) n,
               (unsigned long long) k);
    for (i = 0; i < 3; i++) {
        char row[32], col[32];
        /* the last number, and one in the middle */
        uint64_t r = i == 0 ? n - 1 : n / 2, c = i == 0 ? k - 1 : k / 2;

        snprintf(row, sizeof(row), "%llu", (unsigned long long) r);
        snprintf(col, sizeof(col), "%llu", (unsigned long long) c);
        keep = m->src[r * k + c];
        m->src[r * k + c] = odd[i];
        clear_error(&err);
        st = ops->encode(run->self, run->f, m->src, k, NULL, &again.t, &err);
        m->src[r * k + c] = keep;
        expect(run, T_ENCODE_NAN, st == MOE_E_CORRUPT,
               "a weight of %g gives %d", (double) odd[i], (int) st);
        expect_reason(run, st, &err, "encode of a NaN");
        expect(run, T_ENCODE_NAN,
               strstr(err.text, row) != NULL && strstr(err.text, col) != NULL,
               "the error does not name row %s and column %s", row, col);
    }
    for (j = 0; j < again.n_planes; j++)
        expect(run, T_GUARD, guards_hold(again.t.plane[j], again.t.len[j]),
               "encode wrote outside of a plane");
    matrix_free(&again);
}

/* Without encode(): bytes that check() accepts, if we can find some. */
static int
invent_bytes(struct run *run, struct matrix *m)
{
    uint64_t i, p;

    for (p = 0; p < m->n_planes; p++)
        for (i = 0; i < m->t.len[p]; i++)
            plane_bytes(m, (uint32_t) p)[i] = (unsigned char) next_random(run);
    if (has_scales(m))
        for (i = 0; i < m->t.len[1] / moe_dtype_size(m->t.scale_dtype); i++)
            put_scale(m, i, 0.0078125f);
    if (run->ops->check(run->self, run->f, &m->t, NULL) == MOE_OK)
        return 1;
    memset(plane_bytes(m, 0), 0, m->t.len[0]);
    return run->ops->check(run->self, run->f, &m->t, NULL) == MOE_OK;
}

static void
look_at_check(struct run *run, struct matrix *m)
{
    const struct moe_quantizer_ops *ops = run->ops;
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    struct moe_tensor  t;
    struct moe_error   err;
    unsigned char      keep[4];
    uint64_t           count, at;
    uint32_t           i, j, size = moe_dtype_size(m->t.scale_dtype);
    moe_status         st;

    for (i = 0; i < m->n_planes; i++)
        for (j = 0; j < 4; j++) {
            t = m->t;
            if (j == 0)
                t.plane[i] = NULL;
            else
                t.len[i] = j == 1 ? t.len[i] - 1 : j == 2 ? 0 : t.len[i] + 1;
            clear_error(&err);
            st = ops->check(run->self, run->f, &t, &err);
            expect(run, T_CHECK_LENGTH, st == MOE_E_CORRUPT,
                   "plane %s, %s: check returned %d", m->plane[i].suffix,
                   j == 0   ? "missing"
                   : j == 1 ? "one byte short"
                   : j == 2 ? "empty"
                            : "one byte long",
                   (int) st);
            expect_reason(run, st, &err, "check of a wrong length");
            expect(run, T_CHECK_LENGTH,
                   ops->check(run->self, run->f, &t, NULL) < 0,
                   "plane %s: accepted when there is no error to fill",
                   m->plane[i].suffix);
        }
    if (!has_scales(m))
        return;
    count = m->t.len[1] / size;
    for (i = 0; i < 3; i++) {
        at = i == 0 ? count - 1 : next_random(run) % count;
        memcpy(keep, plane_bytes(m, 1) + at * size, size);
        put_scale(m, at, bad[i]);
        clear_error(&err);
        st = ops->check(run->self, run->f, &m->t, &err);
        expect(run, T_CHECK_SCALE, st == MOE_E_CORRUPT,
               "scale %llu of %llu is %g: check returned %d",
               (unsigned long long) at, (unsigned long long) count,
               (double) bad[i], (int) st);
        expect_reason(run, st, &err, "check of a bad scale");
        memcpy(plane_bytes(m, 1) + at * size, keep, size);
    }
}

/* The whole as f32 into m->decoded, twice. */
static int
look_at_decode(struct run *run, struct matrix *m)
{
    uint64_t   n = m->t.n, k = m->t.k, bytes = n * k * sizeof(float);
    float     *twice = guarded_alloc(run, bytes);
    uint32_t   i;
    int        pass = 0;
    moe_status st;

    if (twice == NULL)
        return 0;
    st = run->ops->decode(run->self, run->f, &m->t, 0, n, MOE_F32, twice, k);
    if (!expect(run, T_DECODE, st == MOE_OK, "decode returned %d", (int) st))
        goto out;
    expect(run, T_GUARD, guards_hold(twice, bytes) && planes_guarded(m),
           "decode of %llu x %llu wrote outside of dst",
           (unsigned long long) n, (unsigned long long) k);
    memcpy(m->decoded, twice, bytes);
    memset(twice, 0xee, bytes);
    run->ops->decode(run->self, run->f, &m->t, 0, n, MOE_F32, twice, k);
    pass = expect(run, T_DECODE, memcmp(twice, m->decoded, bytes) == 0,
                  "two calls give different bits, or leave some unwritten");
    for (i = 0; i < 3; i++) {
        static const uint32_t no[] = { MOE_U8, 0, 77 };

        st = run->ops->decode(run->self, run->f, &m->t, 0, 1, no[i], twice, k);
        expect(run, T_DECODE, st < 0, "an output type of %u is accepted",
               (unsigned) no[i]);
    }
out:
    guarded_free(twice);
    return pass;
}

/* Rows [row0, row0 + rows) of one type against m->decoded. */
static void
look_at_rows(struct run *run, const struct matrix *m, uint64_t row0,
             uint64_t rows, uint32_t dtype)
{
    uint64_t       k = m->t.k, ld = k + 7, size = moe_dtype_size(dtype);
    uint64_t       bytes = rows * ld * size, r, c, i;
    unsigned char *dst = guarded_alloc(run, bytes);
    enum topic     topic = dtype == MOE_F32 ? T_ROWS : T_HALF;
    moe_status     st;
    float          x;
    uint16_t       h, want;

    if (dst == NULL)
        return;
    st = run->ops->decode(run->self, run->f, &m->t, row0, rows, dtype, dst, ld);
    expect(run, topic, st == MOE_OK, "rows %llu to %llu as %s: decode returned "
                                     "%d",
           (unsigned long long) row0, (unsigned long long) (row0 + rows),
           scale_name(dtype), (int) st);
    for (r = 0; st == MOE_OK && r < rows; r++) {
        for (c = 0; c < k; c++) {
            memcpy(&x, &m->decoded[(row0 + r) * k + c], sizeof(x));
            if (dtype == MOE_F32) {
                expect(run, topic,
                       memcmp(dst + (r * ld + c) * size, &x, size) == 0,
                       "row %llu, column %llu differs when decoding starts at "
                       "row %llu",
                       (unsigned long long) (row0 + r), (unsigned long long) c,
                       (unsigned long long) row0);
                continue;
            }
            memcpy(&h, dst + (r * ld + c) * size, sizeof(h));
            want = dtype == MOE_F16 ? moe_f32_f16(x) : moe_f32_bf16(x);
            expect(run, topic, h == want,
                   "%a as %s is 0x%04x, should be 0x%04x (row %llu, column "
                   "%llu)",
                   (double) x, scale_name(dtype), h, want,
                   (unsigned long long) (row0 + r), (unsigned long long) c);
        }
        for (i = (r * ld + k) * size; i < (r + 1) * ld * size; i++)
            expect(run, T_GUARD, dst[i] == GUARD_BYTE,
                   "decode wrote between row %llu and the next",
                   (unsigned long long) r);
    }
    expect(run, T_GUARD, guards_hold(dst, bytes),
           "decode of rows %llu to %llu wrote outside of dst",
           (unsigned long long) row0, (unsigned long long) (row0 + rows));
    guarded_free(dst);
}

/* Each element by the description against m->decoded. */
static void
look_at_affine(struct run *run, const struct matrix *m)
{
    struct moe_affine a;
    uint64_t          n = m->t.n, k = m->t.k, r, c, end[3];
    uint32_t          i;
    float             x;

    memset(&a, 0, sizeof(a));
    a.struct_size = sizeof(a);
    if (!MOE_HAS(run->ops, moe_quantizer_ops, affine)
        || run->ops->affine == NULL
        || run->ops->affine(run->self, run->f, n, k, m->t.scale_dtype, &a)
               != MOE_OK)
        return;
    if (!expect(run, T_AFFINE,
                a.elem_bits >= 1 && a.elem_bits <= 32 && a.zero_bits <= 32
                    && a.group_n != 0 && a.group_k != 0 && a.block_k != 0
                    && (a.zero_bits == 0 || a.zero_block_n != 0),
                "a length or a number of bits is 0 or too large"))
        return;
    for (r = 0; r < n; r++)
        for (c = 0; c < k; c++) {
            affine_ends(&a, r, c, end);
            for (i = 0; i < 3; i++)
                if (!expect(run, T_AFFINE, end[i] <= m->t.len[i],
                            "row %llu, column %llu lies past the end of plane "
                            "%u",
                            (unsigned long long) r, (unsigned long long) c,
                            (unsigned) i))
                    return;
            x = affine_weight(&a, &m->t, r, c);
            if (!expect(run, T_AFFINE,
                        memcmp(&x, &m->decoded[r * k + c], sizeof(x)) == 0,
                        "row %llu, column %llu: decode gives %a, the "
                        "description %a (n %llu, k %llu)",
                        (unsigned long long) r, (unsigned long long) c,
                        (double) m->decoded[r * k + c], (double) x,
                        (unsigned long long) n, (unsigned long long) k))
                return;
        }
}

/* Bits flipped at random: check() says no, or decode() gives numbers. */
static void
look_at_damage(struct run *run, struct matrix *m)
{
    uint64_t       n = m->t.n, k = m->t.k, at, i;
    uint32_t       round, p;
    unsigned char *plane, keep;
    float         *x = guarded_alloc(run, n * k * sizeof(float));

    if (x == NULL)
        return;
    for (round = 0; round < 200; round++) {
        p = (uint32_t) (next_random(run) % m->n_planes);
        plane = plane_bytes(m, p);
        at = next_random(run) % m->t.len[p];
        keep = plane[at];
        plane[at] = (unsigned char) next_random(run);
        if (run->ops->check(run->self, run->f, &m->t, NULL) == MOE_OK) {
            expect(run, T_CHECK_DAMAGE,
                   run->ops->decode(run->self, run->f, &m->t, 0, n, MOE_F32, x,
                                    k)
                       == MOE_OK,
                   "check accepts byte %llu of plane %s as 0x%02x, decode "
                   "fails",
                   (unsigned long long) at, m->plane[p].suffix, plane[at]);
            for (i = 0; i < n * k - 1 && fabsf(x[i]) <= FLT_MAX;)
                i++;
            expect(run, T_CHECK_DAMAGE, fabsf(x[i]) <= FLT_MAX,
                   "check accepts byte %llu of plane %s as 0x%02x, decode "
                   "gives %g",
                   (unsigned long long) at, m->plane[p].suffix, plane[at],
                   (double) x[i]);
        }
        plane[at] = keep;
    }
    expect(run, T_GUARD, guards_hold(x, n * k * sizeof(float)),
           "decode of damaged bytes wrote outside of dst");
    guarded_free(x);
}

struct twin {
    struct run          *run;
    const struct matrix *m;
    float               *dst; /* (n, k) */
    int                  same;
};

static void *
twin_decode(void *arg)
{
    struct twin *w = arg;
    uint64_t     n = w->m->t.n, k = w->m->t.k;
    int          i;

    for (w->same = 1, i = 0; i < 20 && w->same; i++) {
        memset(w->dst, 0xee, n * k * sizeof(float));
        w->same = w->run->ops->decode(w->run->self, w->run->f, &w->m->t, 0, n,
                                      MOE_F32, w->dst, k)
                      == MOE_OK
                  && w->run->ops->check(w->run->self, w->run->f, &w->m->t, NULL)
                         == MOE_OK
                  && memcmp(w->dst, w->m->decoded, n * k * sizeof(float)) == 0;
    }
    return NULL;
}

static void
look_at_threads(struct run *run, const struct matrix *m)
{
    uint64_t    bytes = m->t.n * m->t.k * sizeof(float);
    struct twin a = { run, m, guarded_alloc(run, bytes), 0 };
    struct twin b = { run, m, guarded_alloc(run, bytes), 0 };
    pthread_t   thread;

    if (a.dst == NULL || b.dst == NULL
        || pthread_create(&thread, NULL, twin_decode, &a) != 0) {
        run->no_memory = 1;
    } else {
        twin_decode(&b);
        pthread_join(thread, NULL);
        expect(run, T_THREADS, a.same && b.same,
               "decode or check gives something else when two threads call it");
    }
    guarded_free(a.dst);
    guarded_free(b.dst);
}

/* ------------------------------------------------------------ one format -- */

static void
look_at_matrix(struct run *run, uint64_t n, uint64_t k, uint32_t scale_dtype)
{
    static const uint32_t dtypes[] = { MOE_F32, MOE_F16, MOE_BF16 };
    int              writes = MOE_HAS(run->ops, moe_quantizer_ops, encode)
                              && run->ops->encode != NULL;
    struct matrix    m;
    struct moe_error err;
    uint32_t         i;
    moe_status       st;
    double           once, twice;

    if (!matrix_make(run, &m, n, k, scale_dtype)) {
        if (!run->no_memory)
            expect(run, T_PLANES, 0, "n %llu, k %llu with scales %s is refused",
                   (unsigned long long) n, (unsigned long long) k,
                   scale_name(scale_dtype));
        return;
    }
    look_at_planes(run, &m);
    if (writes) {
        look_at_encode(run, &m);
        clear_error(&err);
        st = run->ops->check(run->self, run->f, &m.t, &err);
        expect_reason(run, st, &err, "check");
        if (!expect(run, T_CHECK_OWN, st == MOE_OK,
                    "n %llu, k %llu with scales %s: %.120s",
                    (unsigned long long) n, (unsigned long long) k,
                    scale_name(scale_dtype), err.text))
            goto out;
    } else if (!invent_bytes(run, &m)) {
        goto out; /* nothing more can be said without bytes */
    }
    look_at_check(run, &m);
    if (!look_at_decode(run, &m))
        goto out;
    for (i = 0; i < 3; i++) {
        look_at_rows(run, &m, 0, n, dtypes[i]);
        look_at_rows(run, &m, n / 2, n - n / 2, dtypes[i]);
        look_at_rows(run, &m, n - 1, 1, dtypes[i]);
        look_at_rows(run, &m, 0, 0, dtypes[i]);
        look_at_rows(run, &m, n, 0, dtypes[i]);
    }
    look_at_affine(run, &m);
    look_at_damage(run, &m);
    look_at_threads(run, &m);
    if (writes) {
        /* Half the weights' size is a bound that any format of one bit and
         * more keeps; the second trip starts from numbers that the format
         * has, so it may not lose as much again. */
        once = relative_error(m.decoded, m.src, n * k);
        expect(run, T_ROUND_TRIP, once < 0.5,
               "relative error %.3f, n %llu, k %llu", once,
               (unsigned long long) n, (unsigned long long) k);
        memcpy(m.src, m.decoded, n * k * sizeof(float));
        st = run->ops->encode(run->self, run->f, m.src, k, NULL, &m.t, NULL);
        if (expect(run, T_ROUND_TRIP, st == MOE_OK,
                   "what was decoded is refused: %d", (int) st)
            && look_at_decode(run, &m)) {
            twice = relative_error(m.decoded, m.src, n * k);
            expect(run, T_ROUND_TRIP, twice <= 0.1 * once + 1e-6,
                   "encoding what was decoded adds %.6f to an error of %.6f",
                   twice, once);
        }
    }
out:
    matrix_free(&m);
}

static uint64_t
round_up(uint64_t x, uint64_t to)
{
    return (x + to - 1) / to * to;
}

static void
look_at(struct run *run, const struct moe_format *f)
{
    static const uint32_t dtypes[] = { MOE_F32, MOE_F16, MOE_BF16, 0 };
    const uint64_t n[] = { 1, 9, 130 }, k[] = { 1, 150, 260 };
    struct moe_plane planes[MOE_PLANES_MAX];
    char             line[512];
    uint32_t         i, s, n_planes, types = 0;

    run->f = f;
    memset(run->seen, 0, sizeof(run->seen));
    memset(run->wrong, 0, sizeof(run->wrong));
    look_at_format(run);
    if (run->wrong[T_FORMAT][0] != '\0')
        goto report;
    look_at_bits(run);
    for (s = 0; s < 4; s++) {
        /* 0, scales whose type is the format's, if no type can be chosen */
        if ((dtypes[s] == 0 && types != 0)
            || run->ops->planes(run->self, f, f->n_multiple, f->k_multiple,
                                dtypes[s], planes, &n_planes, NULL)
                   != MOE_OK)
            continue;
        types++;
        if (!expect(run, T_PLANES, n_planes >= 1 && n_planes <= MOE_PLANES_MAX,
                    "%u planes", (unsigned) n_planes))
            break;
        look_at_impossible(run, n_planes == 1 ? 0 : dtypes[s]);
        for (i = 0; i < 3 && !run->no_memory; i++)
            look_at_matrix(run, round_up(n[i], f->n_multiple),
                           round_up(k[i], f->k_multiple),
                           n_planes == 1 ? 0 : dtypes[s]);
        if (n_planes == 1) /* no scales: once is enough */
            break;
    }
    expect(run, T_PLANES, types != 0, "no scale type is accepted");
report:
    for (i = 0; i < T_COUNT && !run->no_memory; i++) {
        if (!run->seen[i])
            continue;
        snprintf(line, sizeof(line), "%s: %s%s%s", f->id, topic_text[i],
                 run->wrong[i][0] != '\0' ? ": " : "", run->wrong[i]);
        run->failed += run->wrong[i][0] != '\0';
        run->report(run->ctx, run->wrong[i][0] == '\0', line);
    }
}

int
moe_conform_quantizer(const struct moe_quantizer_ops *ops, void *self,
                      void (*report)(void *ctx, int pass, const char *text),
                      void *ctx)
{
    struct run *run = calloc(1, sizeof(*run));
    int         pass, failed, rounding = fegetround();
    uint32_t    i, j;

    if (run == NULL)
        return -1;
    run->ops = ops;
    run->self = self;
    run->report = report;
    run->ctx = ctx;
    run->random = 1;
    pass = MOE_HAS(ops, moe_quantizer_ops, decode) && ops->n_formats != 0
           && ops->formats != NULL && ops->planes != NULL && ops->check != NULL
           && ops->decode != NULL;
    report(ctx, pass, "the table has formats, planes, check and decode");
    run->failed += !pass;
    for (i = 0; pass && i < ops->n_formats && !run->no_memory; i++) {
        const struct moe_format *f = ops->formats[i];
        int                      named;

        named = f != NULL && f->id != NULL && f->id[0] != '\0';
        for (j = 0; named && j < i; j++)
            if (ops->formats[j] != NULL && ops->formats[j]->id != NULL
                && strcmp(ops->formats[j]->id, f->id) == 0)
                named = 0;
        if (named) {
            look_at(run, f);
        } else {
            report(ctx, 0, "a format has no name, or that of another");
            run->failed++;
        }
    }
    report(ctx, fegetround() == rounding,
           "the floating point environment is left alone");
    run->failed += fegetround() != rounding;
    failed = run->no_memory ? -1 : run->failed;
    free(run);
    return failed;
}
