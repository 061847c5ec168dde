/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantize.c - a checkpoint in other formats.
 *
 * Owns the stream: rows of a matrix are read, decoded to f32, looked at and
 * encoded, and their planes written where the plan says.  Which matrix gets
 * what is plan.c's, the folder folder.c's; what a text says about the inputs
 * of a matrix is calibrate.c's, how that helps rounding feedback.c's.
 *
 * A format whose planes grow row by row is encoded in pieces of a few rows
 * on all threads; one with a number for the whole matrix (one scale a
 * tensor) needs the matrix in memory as f32.  Either way the bytes do not
 * depend on the number of threads or on the budget.
 */

#include <convert/calibrate.h>
#include <convert/feedback.h>

#include <checkpoint/json.h>
#include <engine/engine.h>

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_ROWS 128u        /* rows of one encode(), if they can be cut */
#define FEED_ROWS  32u         /* the same where columns are done one by one */
#define CHUNK_MAX  (16u << 20) /* bytes of f32 held at a time, if they can */
#define FEED_CHUNK (2u << 20)
#define FEED_PROBE 8u /* every so manieth piece is rounded to nearest, too */
#define COPY_BYTES (4u << 20)

struct buffer {
    void      *p;
    uint64_t   size;
    moe_grant *grant;
};

struct job {
    const moe_options      *o;
    struct moe_host_services services;
    struct moe_registry    *registry;
    struct moe_checkpoint  *c;
    struct moe_arch         a;
    struct moe_recode_plan  plan;
    struct moe_writer      *w;
    struct moe_folder       folder;
    struct buffer           raw;   /* source planes, or rows of a plain one */
    struct buffer           rows;  /* f32 (chunk, k) */
    struct buffer           dst[MOE_PLANES_MAX];
    struct buffer           h, u;  /* f64 (k, k), of calibrated matrices */
    struct buffer           wide;  /* and what their pieces need besides */
    struct moe_calibration *calibration; /* NULL: round to nearest */
    uint64_t                budget; /* of the process */
    uint64_t                chunk_bytes;
    uint64_t                done, total;
    uint64_t                calibrated; /* matrices */
    double                  error; /* sum of theirs, over that of rounding */
    moe_progress_fn         fn;
    void                   *ctx;
};

/* ------------------------------------------------------------ resources -- */

static void
drop(struct job *j, struct buffer *b)
{
    free(b->p);
    if (b->grant != NULL)
        moe_ledger_release(j->services.ledger, b->grant);
    memset(b, 0, sizeof(*b));
}

static moe_status
need(struct job *j, struct buffer *b, uint64_t size, struct moe_error *err)
{
    moe_status status;

    if (b->size >= size)
        return MOE_OK;
    drop(j, b);
    status = moe_ledger_reserve(j->services.ledger, MOE_LEDGER_HOST,
                                "quantize", size, &b->grant, err);
    if (status != MOE_OK)
        return status;
    b->p = malloc(size);
    if (b->p == NULL) {
        drop(j, b);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "quantize: no memory for %llu bytes",
                        (unsigned long long) size);
    }
    b->size = size;
    return MOE_OK;
}

static moe_status
report(struct job *j, uint64_t bytes, const char *what, struct moe_error *err)
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
    const double       *u; /* (k, k); NULL: round to nearest */
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
cut(const struct job *j, struct matrix *m)
{
    const struct moe_recode *r = m->r;
    const struct moe_format *f = r->to.format;
    struct moe_plane         planes[MOE_PLANES_MAX];
    uint64_t                 unit = m->u != NULL ? FEED_ROWS : PIECE_ROWS;
    uint64_t                 row = r->src.k * 4;
    uint64_t                 most = m->u != NULL ? FEED_CHUNK : CHUNK_MAX;
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
    struct job      *j;
    struct matrix   *m;
    uint64_t         row0, rows; /* of the chunk */
    pthread_mutex_t  lock;
    uint32_t         failed; /* lowest piece that did; UINT32_MAX: none */
    moe_status       status;
    struct moe_error err;
    double          *error;  /* (pieces, 2) of probes: so, and to nearest */
};

/* Bytes of `wide` for a piece: rows as f64, rows as f32, scratch. */
static uint64_t
wide_bytes(const struct matrix *m)
{
    return m->unit * m->r->src.k * 12 + m->scratch;
}

/* Rows that make up for their rounding; of a probe also how far plain
 * rounding is off. */
static moe_status
feed_piece(struct pieces *p, uint32_t index, const float *x, uint64_t rows,
           const struct moe_tensor *dst, struct moe_error *err)
{
    const struct matrix     *m = p->m;
    const struct moe_recode *r = m->r;
    uint64_t                 n = rows * r->src.k, i;
    uint8_t                 *mem = (uint8_t *) p->j->wide.p
                                   + index * wide_bytes(m);
    double                  *w = (double *) (void *) mem;
    float                   *near = (float *) (void *) (mem + m->unit
                                                              * r->src.k * 8);
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
        for (i = 0; i < n && st == MOE_OK; i++)
            w[i] = (double) x[i] - near[i];
        if (st == MOE_OK)
            plain = moe_feedback_error(m->u, w, rows, r->src.k);
    }
    for (i = 0; i < n; i++)
        w[i] = x[i];
    if (st == MOE_OK)
        st = moe_feedback_encode(&m->feedback, m->u, w, rows,
                                 mem + m->unit * r->src.k * 12, dst, &error,
                                 err);
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
    struct job              *j = p->j;
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
encode_chunk(struct job *j, struct matrix *m, uint64_t row0, uint64_t rows,
             double error[2], struct moe_error *err)
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
hold_source(struct job *j, struct matrix *m, struct moe_error *err)
{
    const struct moe_weight *s = &m->r->src;
    struct moe_error         why;
    uint64_t                 at = 0;
    uint32_t                 i;
    moe_status               status;

    m->resident = 1;
    status = need(j, &j->raw, s->bytes + 64 * MOE_PLANES_MAX, err);
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

/* u: (k, k) of moe_gram_factor, NULL: round to nearest. */
static moe_status
encode_matrix(struct job *j, const struct moe_recode *r, const double *u,
              struct moe_error *err)
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

    status = need(j, &j->rows, m.chunk * s->k * 4, err);
    if (status == MOE_OK && m.u != NULL)
        status = need(j, &j->wide, ((m.chunk + m.unit - 1) / m.unit)
                                       * (wide_bytes(&m) + 16), err);
    if (status == MOE_OK && s->ref.format->scheme.storage != NULL)
        status = hold_source(j, &m, err);
    else if (status == MOE_OK)
        status = need(j, &j->raw, m.chunk * source_row, err);
    if (status == MOE_OK)
        status = plane_bytes(r, m.chunk, planes);
    for (i = 0; i < r->n_planes && status == MOE_OK; i++)
        status = need(j, &j->dst[i], planes[i].bytes, err);

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
            status = report(j, rows * s->bytes / s->n, m.module, err);
    }
    if (m.u != NULL) {
        j->calibrated++;
        j->error += error[1] > 0 ? error[0] / error[1] : 1;
    }
    return status;
}

/* A tensor's bytes as they are. */
static moe_status
copy_bytes(struct job *j, const struct moe_tensor_info *t, size_t out,
           struct moe_error *err)
{
    uint64_t   size = t->bytes < COPY_BYTES ? t->bytes : COPY_BYTES, at;
    moe_status status = need(j, &j->raw, size, err);

    for (at = 0; at < t->bytes && status == MOE_OK; at += size) {
        uint64_t n = t->bytes - at < size ? t->bytes - at : size;

        status = moe_checkpoint_read(j->c, t, at, n, j->raw.p, err);
        if (status == MOE_OK)
            status = moe_writer_put(j->w, out, at, n, j->raw.p, err);
        if (status == MOE_OK)
            status = report(j, n, t->name, err);
    }
    return status;
}

static moe_status
write_matrix(struct job *j, const struct moe_recode *r, const double *u,
             struct moe_error *err)
{
    uint32_t   i;
    moe_status status = MOE_OK;

    if (r->shape_out != SIZE_MAX) {
        unsigned char shape[16];

        for (i = 0; i < 16; i++)
            shape[i] = (unsigned char) ((i < 8 ? r->src.n : r->src.k)
                                        >> i % 8 * 8);
        status = moe_writer_put(j->w, r->shape_out, 0, sizeof(shape), shape,
                                err);
    }
    if (status != MOE_OK)
        return status;
    if (r->what == MOE_RECODE_ENCODE)
        return encode_matrix(j, r, u, err);
    for (i = 0; i < r->n_planes && status == MOE_OK; i++)
        status = copy_bytes(j, r->src.plane[i], r->out[i], err);
    return status;
}

static moe_status
write_tensors(struct job *j, struct moe_error *err)
{
    size_t     i, n = moe_checkpoint_count(j->c);
    moe_status status = MOE_OK;

    for (i = 0; i < n && status == MOE_OK; i++) {
        const struct moe_tensor_info *t = moe_checkpoint_at(j->c, i);
        const struct moe_recode      *r;

        if (j->plan.owner[i] == 0) {
            status = copy_bytes(j, t, j->plan.copy_out[i], err);
            continue;
        }
        r = &j->plan.at[j->plan.owner[i] - 1];
        if (j->calibration != NULL && r->what == MOE_RECODE_ENCODE
            && moe_input_of(r->tensor) != MOE_INPUT_NONE)
            continue;
        if (r->src.plane[MOE_PLANE_ELEM] == t)
            status = write_matrix(j, r, NULL, err);
    }
    return status;
}

/* ---------------------------------------------------------- calibration -- */

/* The matrices of a layer that are fed so, by expert; one H serves all that
 * are fed alike. */
static moe_status
write_fed(struct job *j, uint32_t layer, uint32_t feed, struct moe_error *err)
{
    uint64_t   have = 0; /* k that u is for; experts begin anew */
    size_t     i;
    moe_status st = MOE_OK;

    for (i = 0; i < j->plan.n && st == MOE_OK; i++) {
        const struct moe_recode *r = &j->plan.at[i];
        uint64_t                 k = r->src.k;

        if (r->layer != layer || r->what != MOE_RECODE_ENCODE
            || moe_input_of(r->tensor) != feed)
            continue;
        if (have != k || feed == MOE_INPUT_DOWN) {
            st = need(j, &j->h, k * k * 8, err);
            if (st == MOE_OK)
                st = need(j, &j->u, k * k * 8, err);
            if (st == MOE_OK)
                st = moe_calibration_gram(j->calibration, layer, feed,
                                          r->expert, (uint32_t) k, j->h.p,
                                          err);
            if (st == MOE_OK) {
                st = moe_gram_factor(j->services.pool, MOE_CALIBRATE_DAMP,
                                     (uint32_t) k, j->h.p, j->u.p);
                if (st != MOE_OK)
                    (void) moe_fail(err, st, 0,
                                    "calibration: layer %u computes numbers "
                                    "that are not finite", layer);
            }
            have = k;
        }
        if (st == MOE_OK)
            st = write_matrix(j, r, j->u.p, err);
    }
    return st;
}

static moe_status
write_calibrated(struct job *j, struct moe_error *err)
{
    uint32_t   first, count, l, feed;
    moe_status st = MOE_OK;

    for (first = 0; first < j->a.n_layers && st == MOE_OK; first += count) {
        st = moe_calibration_read(j->calibration, first, &count, err);
        for (l = first; st == MOE_OK && l < first + count; l++)
            for (feed = 1; st == MOE_OK && feed < MOE_INPUTS; feed++)
                st = write_fed(j, l, feed, err);
    }
    return st;
}

static moe_status
watch(void *ctx, const char *what, struct moe_error *err)
{
    return report(ctx, 0, what, err);
}

static moe_status
open_calibration(struct job *j, const char *in, struct moe_error *err)
{
    struct moe_calibration_setup s = { &j->services, &j->plan, j->registry,
                                       in, j->budget, 0, watch, j };
    size_t                       i;
    uint64_t                     most = 0;
    int                          any = 0;

    if (moe_option_text(j->o, "quant.calibrate")[0] == '\0')
        return MOE_OK;
    for (i = 0; i < j->plan.n; i++) {
        const struct moe_recode *r = &j->plan.at[i];
        struct moe_feedback      f;
        struct matrix            m;
        uint64_t                 bytes;

        if (r->what != MOE_RECODE_ENCODE)
            continue;
        memset(&m, 0, sizeof(m));
        m.r = r;
        if (moe_input_of(r->tensor) != MOE_INPUT_NONE
            && moe_feedback_open(&r->to, r->src.k, r->scale_dtype, &f)) {
            static const double some = 1;

            any = 1;
            m.u = &some; /* for the size of its pieces */
        }
        cut(j, &m);
        /* f32, its source, its result; f64, f32 and a scratch like both */
        bytes = m.chunk * r->src.k * (m.u != NULL ? 32 : 12) + r->src.bytes;
        most = bytes > most ? bytes : most;
    }
    if (!any)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "quant.calibrate has no effect: no matrix of a layer "
                        "gets a format that rounding can be calibrated for");
    s.spare = most + COPY_BYTES + (1u << 20);
    return moe_calibration_open(&s, &j->calibration, err);
}

/* ----------------------------------------------------------------- main -- */

static moe_status
open_job(struct job *j, const char *in, struct moe_error *err)
{
    struct moe_limits m;
    uint64_t          asked, budget;
    const char       *why;
    double            percent;
    moe_status        status;

    j->services.options = j->o;
    status = moe_ledger_open(&j->services.ledger, err);
    if (status == MOE_OK)
        status = moe_pool_open((uint32_t) moe_option_int(j->o,
                                                         "engine.threads"),
                               &j->services.pool, err);
    if (status == MOE_OK)
        status = moe_services_registry(&j->services, &j->registry, err);
    if (status == MOE_OK)
        status = moe_checkpoint_open(in, &j->c, err);
    if (status == MOE_OK)
        status = moe_arch_read(j->c, &j->a, err);
    if (status == MOE_OK)
        status = moe_writer_open(MOE_WRITER_SHARD, &j->w, err);
    if (status == MOE_OK)
        status = moe_recode_make(j->c, &j->a, j->registry, j->o, j->w,
                                 &j->plan, err);
    if (status != MOE_OK)
        return status;

    asked = moe_option_size(j->o, "memory.budget");
    percent = moe_option_percent(j->o, "memory.budget");
    moe_limits_read(&m);
    if (percent > 0)
        asked = (uint64_t) ((double) moe_limits_budget(&m, 0, &why) * percent
                            / 100.0);
    budget = moe_limits_budget(&m, asked, &why);
    j->budget = budget;
    budget = budget > m.rss ? budget - m.rss : 0;
    /* f32 rows, their source and their result: below half of what there is */
    j->chunk_bytes = budget / 4 < CHUNK_MAX ? budget / 4 : CHUNK_MAX;
    return moe_ledger_limit(j->services.ledger, MOE_LEDGER_HOST, budget, err);
}

static void
close_job(struct job *j)
{
    size_t i;

    if (j->services.ledger != NULL) {
        drop(j, &j->raw);
        drop(j, &j->rows);
        drop(j, &j->h);
        drop(j, &j->u);
        drop(j, &j->wide);
        for (i = 0; i < MOE_PLANES_MAX; i++)
            drop(j, &j->dst[i]);
        moe_calibration_close(j->calibration);
    }
    moe_writer_close(j->w);
    moe_folder_abandon(&j->folder);
    moe_recode_free(&j->plan);
    moe_arch_free(&j->a);
    moe_checkpoint_close(j->c);
    moe_registry_close(j->registry);
    moe_pool_close(j->services.pool);
    if (j->services.ledger != NULL)
        (void) moe_ledger_close(j->services.ledger);
}

static void
say_unfit(const struct job *j)
{
    if (j->plan.unfit > 0)
        moe_options_log(j->o, MOE_LOG_WARN,
                        "quantize: %llu matrices stay as they are, since the "
                        "format does not fit them; one is %s: %s",
                        (unsigned long long) j->plan.unfit,
                        j->plan.unfit_name, j->plan.unfit_why);
}

static moe_status
write_config(struct job *j, struct moe_error *err)
{
    char      *text = NULL, *path;
    moe_status status = moe_recode_config(&j->plan, &text, err);

    if (status != MOE_OK)
        return status;
    path = malloc(strlen(j->folder.partial) + 32);
    if (path == NULL) {
        status = moe_fail(err, MOE_E_NOMEM, ENOMEM, "quantize: no memory");
    } else {
        sprintf(path, "%s/config.json", j->folder.partial);
        status = moe_file_write(path, text, strlen(text), err);
    }
    free(path);
    free(text);
    return status;
}

static void
tell(const struct job *j, struct moe_quantize_info *info)
{
    struct moe_quantize_info i;
    uint32_t                 size = info->struct_size;

    memset(&i, 0, sizeof(i));
    i.source_bytes = j->total;
    i.matrices = j->plan.encoded;
    i.calibrated = j->calibrated;
    if (j->calibration != NULL)
        moe_calibration_count(j->calibration, &i.tokens, &i.expert_least,
                              &i.expert_most, &i.expert_few);
    i.few = MOE_CALIBRATE_FEW;
    if (j->calibrated != 0)
        i.error = j->error / (double) j->calibrated;
    i.struct_size = size;
    memcpy(info, &i, size < sizeof(i) ? size : sizeof(i));
}

MOE_API moe_status
moe_quantize(const moe_options *o, const char *in, const char *out,
             moe_progress_fn fn, void *ctx, struct moe_quantize_info *info,
             struct moe_error *err)
{
    struct job j;
    size_t     i;
    moe_status status;

    memset(&j, 0, sizeof(j));
    j.folder.lock = -1;
    j.o = o;
    j.fn = fn;
    j.ctx = ctx;
    status = moe_folder_open(out, &j.folder, err);
    if (status == MOE_OK)
        status = open_job(&j, in, err);
    if (status == MOE_OK && j.plan.encoded == 0)
        status = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                          "quantize: nothing can be converted; %s: %s",
                          j.plan.unfit_name,
                          j.plan.unfit > 0 ? j.plan.unfit_why
                                           : "it has that format already");
    if (status == MOE_OK) {
        say_unfit(&j);
        status = moe_folder_space(j.folder.out,
                                  j.plan.out_bytes
                                      + moe_folder_small_bytes(in)
                                      + (1u << 20), err);
    }
    for (i = 0; status == MOE_OK && i < moe_checkpoint_count(j.c); i++)
        j.total += moe_checkpoint_at(j.c, i)->bytes;
    if (status == MOE_OK)
        status = open_calibration(&j, in, err);
    if (status == MOE_OK)
        status = moe_writer_begin(j.w, j.folder.partial, err);
    if (status == MOE_OK)
        status = report(&j, 0, "", err);
    if (status == MOE_OK)
        status = write_tensors(&j, err);
    if (status == MOE_OK && j.calibration != NULL)
        status = write_calibrated(&j, err);
    if (status == MOE_OK)
        status = moe_writer_finish(j.w, err);
    if (status == MOE_OK)
        status = write_config(&j, err);
    if (status == MOE_OK)
        status = moe_folder_copy_small(in, &j.folder, err);
    if (status == MOE_OK)
        status = moe_folder_commit(&j.folder, err);
    if (status == MOE_OK && info != NULL)
        tell(&j, info);
    close_job(&j);
    return status;
}
