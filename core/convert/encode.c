/* SPDX-License-Identifier: Apache-2.0 */
/*
 * encode.c - a matrix on its way from one format to another.
 *
 * Owns its rows: they are read, decoded to f32, looked at and encoded, and
 * their planes written where the plan says.  How inputs help rounding is
 * feedback.c's.
 *
 * A format whose planes grow row by row is encoded in pieces of a few rows
 * on all threads; one with a number for the whole matrix (one scale a
 * tensor) needs the matrix in memory as f32.  Either way the bytes do not
 * depend on the number of threads or on the budget.
 */

#include <convert/feedback.h>
#include <convert/recode.h>

#include <checkpoint/json.h>

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_ROWS 128u        /* rows of one encode(), if they can be cut */
#define FEED_ROWS  64u         /* the same where columns are done one by one */
#define FEED_CHUNK (8u << 20)
#define FEED_PROBE 8u /* every so manieth piece is rounded to nearest, too */

/* ------------------------------------------------------------ resources -- */

void
moe_recode_drop(struct moe_recode_job *j, struct moe_recode_buffer *b)
{
    free(b->p);
    if (b->grant != NULL)
        moe_ledger_release(j->services.ledger, b->grant);
    memset(b, 0, sizeof(*b));
}

moe_status
moe_recode_need(struct moe_recode_job *j, struct moe_recode_buffer *b,
                uint64_t size, struct moe_error *err)
{
    moe_status status;

    if (b->size >= size)
        return MOE_OK;
    moe_recode_drop(j, b);
    status = moe_ledger_reserve(j->services.ledger, MOE_LEDGER_HOST,
                                "quantize", size, &b->grant, err);
    if (status != MOE_OK)
        return status;
    b->p = malloc(size);
    if (b->p == NULL) {
        moe_recode_drop(j, b);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "quantize: no memory for %llu bytes",
                        (unsigned long long) size);
    }
    b->size = size;
    return MOE_OK;
}

moe_status
moe_recode_report(struct moe_recode_job *j, uint64_t bytes, const char *what,
                  struct moe_error *err)
{
    j->done += bytes;
    if (j->fn != NULL && j->fn(j->ctx, j->done, j->total, what) != 0)
        return moe_fail(err, MOE_E_CANCELED, 0,
                        "quantize: interrupted; nothing was written");
    return MOE_OK;
}

/* --------------------------------------------------------------- pieces -- */

/* One matrix on its way. */
struct matrix {
    const struct moe_recode *r;
    char                     module[256];
    uint64_t                 unit;  /* rows of a piece; n: it is not cut */
    uint64_t                 chunk; /* rows held at a time */
    uint64_t  unit_bytes[MOE_PLANES_MAX]; /* of the result, for unit rows */
    int       resident; /* source planes are held whole */
    struct moe_tensor src; /* planes of the source, or of its chunk */
    const struct moe_factor *u; /* NULL: round to nearest */
    struct moe_feedback feedback; /* if there is u */
    uint64_t            scratch;  /* bytes of a piece, beside its rows */
};

static moe_status
plane_bytes(const struct moe_recode *r, uint64_t n,
            struct moe_plane planes[MOE_PLANES_MAX])
{
    uint32_t n_planes, i;

    memset(planes, 0, MOE_PLANES_MAX * sizeof(*planes));
    for (i = 0; i < MOE_PLANES_MAX; i++)
        planes[i].struct_size = sizeof(planes[i]);
    if (r->to.ops->planes(r->to.self, r->to.format, n, r->src.k,
                          r->scale_dtype, planes, &n_planes, NULL)
            != MOE_OK
        || n_planes != r->n_planes)
        return MOE_E_UNSUPPORTED;
    return MOE_OK;
}

/* Can the result be cut at multiples of unit rows: are its planes those of
 * the pieces, one after the other? */
static int
can_cut(const struct moe_recode *r, uint64_t unit)
{
    struct moe_plane whole[MOE_PLANES_MAX], part[MOE_PLANES_MAX];
    struct moe_plane rest[MOE_PLANES_MAX];
    uint64_t         n = r->src.n, left = n % unit;
    uint32_t         i;

    if (unit >= n || plane_bytes(r, n, whole) != MOE_OK
        || plane_bytes(r, unit, part) != MOE_OK
        || (left != 0 && plane_bytes(r, left, rest) != MOE_OK))
        return 0;
    for (i = 0; i < r->n_planes; i++)
        if (whole[i].n_dims != 2 || part[i].n_dims != 2
            || part[i].dim[1] != whole[i].dim[1]
            || part[i].bytes * (n / unit) + (left != 0 ? rest[i].bytes : 0)
                   != whole[i].bytes)
            return 0;
    return 1;
}

static void
cut(const struct moe_recode_job *j, struct matrix *m)
{
    const struct moe_recode *r = m->r;
    const struct moe_format *f = r->to.format;
    struct moe_plane         planes[MOE_PLANES_MAX];
    uint64_t                 unit = m->u != NULL ? FEED_ROWS : PIECE_ROWS;
    uint64_t                 row = r->src.k * 4;
    uint64_t                 most = m->u != NULL ? FEED_CHUNK
                                                 : MOE_RECODE_CHUNK;
    uint32_t                 i;

    if (most > j->chunk_bytes)
        most = j->chunk_bytes;
    if (f->scheme.block_n > 1)
        unit = (unit + f->scheme.block_n - 1) / f->scheme.block_n
               * f->scheme.block_n;
    if (f->n_multiple > 1)
        unit *= f->n_multiple;
    if (!can_cut(r, unit))
        unit = r->src.n;
    m->unit = unit;
    m->chunk = row * unit > most ? unit : most / (row * unit) * unit;
    if (m->chunk > r->src.n)
        m->chunk = r->src.n;
    memset(planes, 0, sizeof(planes));
    (void) plane_bytes(r, unit, planes);
    for (i = 0; i < r->n_planes; i++)
        m->unit_bytes[i] = planes[i].bytes;
}

/* Pieces of one chunk, for the pool. */
struct pieces {
    struct moe_recode_job      *j;
    struct matrix   *m;
    uint64_t         row0, rows; /* of the chunk */
    pthread_mutex_t  lock;
    uint32_t         failed; /* lowest piece that did; UINT32_MAX: none */
    moe_status       status;
    struct moe_error err;
    double          *error;  /* (pieces, 2) of probes: so, and to nearest */
};

/* Bytes of `wide` for a piece: rows as f32, scratch. */
static uint64_t
wide_bytes(const struct matrix *m)
{
    return (m->unit * m->r->src.k * 4 + 63) / 64 * 64 + m->scratch;
}

/* Rows that make up for their rounding; of a probe also how far plain
 * rounding is off. */
static moe_status
feed_piece(struct pieces *p, uint32_t index, const float *x, uint64_t rows,
           const struct moe_tensor *dst, struct moe_error *err)
{
    const struct matrix     *m = p->m;
    const struct moe_recode *r = m->r;
    uint8_t                 *mem = (uint8_t *) p->j->wide.p
                                   + index * wide_bytes(m);
    float                   *near = (float *) (void *) (mem + m->scratch);
    uint64_t                 row = p->row0 + index * m->unit;
    int                      probe = row / m->unit % FEED_PROBE == 0;
    double                   error = 0, plain = 0;
    moe_status               st = MOE_OK;

    if (probe) {
        st = r->to.ops->encode(r->to.self, r->to.format, x, r->src.k, NULL,
                               dst, err);
        if (st == MOE_OK)
            st = r->to.ops->decode(r->to.self, r->to.format, dst, 0, rows,
                                   MOE_F32, near, r->src.k);
        if (st == MOE_OK)
            plain = moe_feedback_error(&m->feedback, m->u, x, near, rows,
                                       mem);
    }
    if (st == MOE_OK)
        st = moe_feedback_encode(&m->feedback, m->u, x, rows, mem, dst,
                                 &error, err);
    p->error[2 * index] = probe ? error : 0;
    p->error[2 * index + 1] = plain;
    return st;
}

static moe_status
look_at(struct pieces *p, const float *x, uint64_t row, uint64_t rows,
        uint64_t k, struct moe_error *err)
{
    const struct moe_tensor_info *t = p->m->r->src.plane[MOE_PLANE_ELEM];
    char                          show[MOE_SHOW_MAX + 4];
    uint64_t                      i;

    for (i = 0; i < rows * k; i++)
        if (!isfinite(x[i]))
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: tensor \"%s\": row %llu, column %llu is %s",
                            moe_checkpoint_file_name(p->j->c, t->file),
                            moe_show(t->name, show),
                            (unsigned long long) (row + i / k),
                            (unsigned long long) (i % k),
                            isnan(x[i]) ? "NaN" : "infinite");
    return MOE_OK;
}

static void
piece(void *arg, uint32_t index)
{
    struct pieces           *p = arg;
    struct moe_recode_job              *j = p->j;
    struct matrix           *m = p->m;
    const struct moe_recode *r = m->r;
    uint64_t                 k = r->src.k, first = index * m->unit;
    uint64_t                 rows = p->rows - first;
    float                   *x = (float *) j->rows.p + first * k;
    struct moe_plane         planes[MOE_PLANES_MAX];
    struct moe_tensor        dst;
    struct moe_error         err;
    uint32_t                 i;
    moe_status               status;

    if (rows > m->unit)
        rows = m->unit;
    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    status = r->src.ref.ops->decode(r->src.ref.self, r->src.ref.format,
                                    &m->src,
                                    m->resident ? p->row0 + first : first,
                                    rows, MOE_F32, x, k);
    if (status != MOE_OK)
        moe_fail(&err, status, 0, "plugin %s: decode() of %s failed",
                 r->src.ref.plugin, r->src.ref.format->id);
    if (status == MOE_OK)
        status = look_at(p, x, p->row0 + first, rows, k, &err);
    if (status == MOE_OK) {
        memset(&dst, 0, sizeof(dst));
        dst.struct_size = sizeof(dst);
        dst.scale_dtype = r->scale_dtype;
        dst.n = rows;
        dst.k = k;
        status = plane_bytes(r, rows, planes);
        for (i = 0; i < r->n_planes; i++) {
            dst.plane[i] = (char *) j->dst[i].p + index * m->unit_bytes[i];
            dst.len[i] = planes[i].bytes;
        }
    }
    if (status == MOE_OK && m->u != NULL)
        status = feed_piece(p, index, x, rows, &dst, &err);
    else if (status == MOE_OK)
        status = r->to.ops->encode(r->to.self, r->to.format, x, k, NULL, &dst,
                                   &err);
    /* what no reader would take must not be written */
    if (status == MOE_OK)
        status = r->to.ops->check(r->to.self, r->to.format, &dst, &err);
    if (status == MOE_OK)
        return;
    pthread_mutex_lock(&p->lock);
    if (index < p->failed) {
        p->failed = index;
        p->status = status;
        p->err = err;
    }
    pthread_mutex_unlock(&p->lock);
}

static moe_status
encode_chunk(struct moe_recode_job *j, struct matrix *m, uint64_t row0,
             uint64_t rows, double error[2], struct moe_error *err)
{
    struct pieces p;
    uint64_t      n = (rows + m->unit - 1) / m->unit, i;

    memset(&p, 0, sizeof(p));
    p.j = j;
    p.m = m;
    p.row0 = row0;
    p.rows = rows;
    p.failed = UINT32_MAX;
    if (m->u != NULL)
        p.error = (double *) (void *) ((char *) j->wide.p
                                       + (m->chunk + m->unit - 1) / m->unit
                                             * wide_bytes(m));
    pthread_mutex_init(&p.lock, NULL);
    moe_pool_run(j->services.pool, (uint32_t) n, piece, &p);
    pthread_mutex_destroy(&p.lock);
    for (i = 0; i < 2 * n && m->u != NULL; i++)
        error[i % 2] += p.error[i];
    if (p.failed == UINT32_MAX)
        return MOE_OK;
    if (strstr(p.err.text, "tensor \"") != NULL)
        return moe_fail(err, p.status, p.err.native, "%s", p.err.text);
    return moe_fail(err, p.status, p.err.native,
                    "%s to %s: %.300s (rows from %llu)", m->module,
                    m->r->to.format->id, p.err.text,
                    (unsigned long long) (row0 + p.failed * m->unit));
}

/* ------------------------------------------------------------- matrices -- */

/* The source's planes into memory, and checked, if they cannot be read by
 * rows. */
static moe_status
hold_source(struct moe_recode_job *j, struct matrix *m, struct moe_error *err)
{
    const struct moe_weight *s = &m->r->src;
    struct moe_error         why;
    uint64_t                 at = 0;
    uint32_t                 i;
    moe_status               status;

    m->resident = 1;
    status = moe_recode_need(j, &j->raw, s->bytes + 64 * MOE_PLANES_MAX, err);
    for (i = 0; i < s->n_planes && status == MOE_OK; i++) {
        void *p = (char *) j->raw.p + at;

        status = moe_checkpoint_read(j->c, s->plane[i], 0, s->plane[i]->bytes,
                                     p, err);
        m->src.plane[i] = p;
        m->src.len[i] = s->plane[i]->bytes;
        at += (s->plane[i]->bytes + 63) / 64 * 64;
    }
    if (status != MOE_OK)
        return status;
    memset(&why, 0, sizeof(why));
    why.struct_size = sizeof(why);
    status = s->ref.ops->check(s->ref.self, s->ref.format, &m->src, &why);
    if (status != MOE_OK)
        return moe_fail(err, status, why.native, "%s: \"%s\": %.300s",
                        moe_checkpoint_file_name(j->c, s->plane[0]->file),
                        m->module, why.text);
    return MOE_OK;
}

moe_status
moe_recode_encode(struct moe_recode_job *j, const struct moe_recode *r,
                  const struct moe_factor *u, struct moe_error *err)
{
    struct matrix            m;
    const struct moe_weight *s = &r->src;
    struct moe_plane         planes[MOE_PLANES_MAX];
    uint64_t                 at[MOE_PLANES_MAX] = { 0 }, row, source_row;
    double                   error[2] = { 0, 0 };
    uint32_t                 i;
    moe_status               status;

    memset(&m, 0, sizeof(m));
    m.r = r;
    moe_recode_module(&j->plan, r, m.module, sizeof(m.module));
    if (u != NULL
        && moe_feedback_open(&r->to, s->k, r->scale_dtype, &m.feedback))
        m.u = u;
    cut(j, &m);
    if (m.u != NULL) {
        m.scratch = moe_feedback_scratch(&m.feedback, m.unit);
        if (m.scratch == 0) {
            m.u = NULL;
            cut(j, &m);
        }
    }
    m.src.struct_size = sizeof(m.src);
    m.src.scale_dtype = s->scale_dtype;
    m.src.n = s->n;
    m.src.k = s->k;
    source_row = s->plane[MOE_PLANE_ELEM]->bytes / s->n;

    status = moe_recode_need(j, &j->rows, m.chunk * s->k * 4, err);
    if (status == MOE_OK && m.u != NULL)
        status = moe_recode_need(j, &j->wide, ((m.chunk + m.unit - 1) / m.unit)
                                       * (wide_bytes(&m) + 16), err);
    if (status == MOE_OK && s->ref.format->scheme.storage != NULL)
        status = hold_source(j, &m, err);
    else if (status == MOE_OK)
        status = moe_recode_need(j, &j->raw, m.chunk * source_row, err);
    if (status == MOE_OK)
        status = plane_bytes(r, m.chunk, planes);
    for (i = 0; i < r->n_planes && status == MOE_OK; i++)
        status = moe_recode_need(j, &j->dst[i], planes[i].bytes, err);

    for (row = 0; row < s->n && status == MOE_OK; row += m.chunk) {
        uint64_t rows = s->n - row < m.chunk ? s->n - row : m.chunk;

        if (!m.resident) {
            status = moe_checkpoint_read(j->c, s->plane[0], row * source_row,
                                         rows * source_row, j->raw.p, err);
            m.src.plane[0] = j->raw.p;
            m.src.len[0] = rows * source_row;
            m.src.n = rows;
        }
        if (status == MOE_OK)
            status = encode_chunk(j, &m, row, rows, error, err);
        if (status == MOE_OK)
            status = plane_bytes(r, rows, planes);
        for (i = 0; i < r->n_planes && status == MOE_OK; i++) {
            status = moe_writer_put(j->w, r->out[i], at[i], planes[i].bytes,
                                    j->dst[i].p, err);
            at[i] += planes[i].bytes;
        }
        if (status == MOE_OK)
            status = moe_recode_report(j, rows * s->bytes / s->n, m.module,
                                       err);
    }
    if (m.u != NULL) {
        j->calibrated++;
        j->error += error[1] > 0 ? error[0] / error[1] : 1;
    }
    return status;
}

uint64_t
moe_recode_room(const struct moe_recode_job *j, const struct moe_recode *r,
                int feed)
{
    static const struct moe_factor some = { NULL, NULL };
    struct matrix       m;

    memset(&m, 0, sizeof(m));
    m.r = r;
    m.u = feed ? &some : NULL; /* for the size of its pieces */
    cut(j, &m);
    /* f32, its source, its result; with feedback also f32 twice and f64, of
     * rows by sixteen */
    return (feed ? m.chunk + 15 : m.chunk) * r->src.k * (feed ? 32 : 12)
           + r->src.bytes;
}
