/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.c - a case: buffers on the device and on the host, one launch,
 * compared with the oracle.
 */

#include "conform/device.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN    0x7fc0beefu /* a NaN: reading it spoils a result */
#define WORK_GUARD 256u        /* bytes after the scratch */

/* ----------------------------------------------------------------- device -- */

moe_status
cdevice_open(struct cdevice *d)
{
    moe_status status = d->ops->device_open(d->self, 0, &d->dev, &d->err);

    if (status != MOE_OK)
        return status;
    status = d->ops->stream_create(d->dev, 0, &d->s, &d->err);
    if (status == MOE_OK)
        status = d->ops->event_create(d->dev, &d->ev, &d->err);
    if (status != MOE_OK)
        cdevice_close(d);
    return status;
}

void
cdevice_close(struct cdevice *d)
{
    if (d->ev != NULL)
        d->ops->event_destroy(d->ev);
    if (d->s != NULL)
        d->ops->stream_destroy(d->s);
    if (d->dev != NULL)
        d->ops->device_close(d->dev);
    d->ev = NULL;
    d->s = NULL;
    d->dev = NULL;
}

moe_status
cdevice_sync(struct cdevice *d)
{
    moe_status status = d->ops->event_record(d->s, d->ev);

    return status != MOE_OK
               ? moe_fail(&d->err, status, 0, "event_record failed")
               : d->ops->event_wait(d->ev, CONFORM_TIMEOUT, &d->err);
}

uint64_t
crandom(struct cdevice *d)
{
    uint64_t z = d->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t
crandom_below(struct cdevice *d, uint32_t n)
{
    return (uint32_t) (crandom(d) % n);
}

float
crandom_float(struct cdevice *d)
{
    double sum = 0;
    int    i;

    for (i = 0; i < 4; i++) /* variance 4 / 12 each, times sqrt(3) */
        sum += (double) (crandom(d) >> 11) * 0x1p-53 - 0.5;
    return (float) (sum * 1.7320508);
}

/* ---------------------------------------------------------------- buffers -- */

void
case_begin(struct ccase *k, struct cdevice *d, const char *fmt, ...)
{
    va_list args;

    memset(k, 0, sizeof(*k));
    k->d = d;
    k->tolerance = 1e-9;
    va_start(args, fmt);
    vsnprintf(k->name, sizeof(k->name), fmt, args);
    va_end(args);
}

static void
case_failed(struct ccase *k, const char *what)
{
    if (!k->bad)
        conform_ok(k->d->c, 0, "%s: %s", k->name, what);
    if (!k->bad && k->d->err.text[0] != '\0')
        conform_note(k->d->c, "%s", k->d->err.text);
    k->bad = 1;
}

void
case_end(struct ccase *k)
{
    uint32_t i;

    for (i = 0; i < k->n_buf; i++) {
        if (k->buf[i].dev.mem != NULL)
            k->d->ops->mem_free(k->buf[i].dev.mem);
        free(k->buf[i].before);
        free(k->buf[i].want);
        free(k->buf[i].got);
    }
    if (k->work.mem != NULL)
        k->d->ops->mem_free(k->work.mem);
}

static struct cbuf *
buf_new(struct ccase *k, uint32_t dtype, uint64_t n)
{
    static struct cbuf none;
    struct cbuf       *b;
    uint64_t           i;
    uint32_t           pattern = PATTERN;

    none.dev.mem = NULL;
    if (k->n_buf == CASE_BUFS) {
        case_failed(k, "too many buffers");
        return &none;
    }
    n = n > 0 ? n : 1; /* no buffer of no bytes: not every device has those */
    b = &k->buf[k->n_buf++];
    b->dtype = dtype;
    b->piecewise = 1;
    b->bytes = n * moe_dtype_size(dtype);
    b->before = malloc(b->bytes + 4);
    b->want = malloc(b->bytes + 4);
    b->got = malloc(b->bytes + 4);
    if (b->before == NULL || b->want == NULL || b->got == NULL
        || k->d->ops->mem_alloc(k->d->dev, b->bytes, MOE_USE_ACT, &b->dev.mem,
                                &k->d->err)
               != MOE_OK) {
        b->dev.mem = NULL;
        case_failed(k, "memory for its buffers");
    }
    for (i = 0; b->before != NULL && i < b->bytes; i++)
        b->before[i] = (uint8_t) (pattern >> (8 * (i % 4)));
    return b;
}

struct moe_buf
case_buf(struct ccase *k, uint32_t dtype, uint64_t n)
{
    return buf_new(k, dtype, n)->dev;
}

struct moe_buf
case_random(struct ccase *k, uint32_t dtype, uint64_t n, float scale)
{
    struct cbuf *b = buf_new(k, dtype, n);
    uint64_t     i;

    for (i = 0; b->before != NULL && i < n; i++)
        moe_ref_put(b->before, dtype, i,
                    (double) (scale * crandom_float(k->d)));
    return b->dev;
}

struct moe_buf
case_matrix(struct ccase *k, uint64_t rows, uint64_t width, uint64_t ld,
            float scale)
{
    struct cbuf *b = buf_new(k, MOE_F32,
                             rows > 0 ? (rows - 1) * ld + width : 1);
    uint64_t     r, c;

    for (r = 0; b->before != NULL && r < rows; r++)
        for (c = 0; c < width; c++)
            moe_ref_put(b->before, MOE_F32, r * ld + c,
                        (double) (scale * crandom_float(k->d)));
    return b->dev;
}

struct moe_buf
case_u32(struct ccase *k, const uint32_t *v, uint64_t n)
{
    struct cbuf *b = buf_new(k, MOE_U32, n);

    if (b->before != NULL)
        memcpy(b->before, v, n * sizeof(*v));
    return b->dev;
}

static struct cbuf *
buf_of(struct ccase *k, const moe_mem *mem)
{
    uint32_t i;

    for (i = 0; i < k->n_buf; i++)
        if (mem != NULL && k->buf[i].dev.mem == mem)
            return &k->buf[i];
    return NULL;
}

void *
case_before(struct ccase *k, struct moe_buf b)
{
    struct cbuf *c = buf_of(k, b.mem);

    return c != NULL ? c->before + b.off : NULL;
}

/* --------------------------------------------------------------- launches -- */

static int
upload_all(struct ccase *k)
{
    static uint8_t fill[WORK_GUARD];
    uint32_t       i;
    uint64_t       at, n;

    for (i = 0; i < k->n_buf; i++)
        if (k->d->ops->upload(k->d->s, k->buf[i].dev, k->buf[i].before,
                              k->buf[i].bytes)
            != MOE_OK)
            return 0;
    memset(fill, 0xa5, sizeof(fill));
    for (at = 0; k->work.mem != NULL && at < k->work_bytes + WORK_GUARD;
         at += n) {
        struct moe_buf b = { k->work.mem, at };

        n = k->work_bytes + WORK_GUARD - at;
        n = n < sizeof(fill) ? n : sizeof(fill);
        if (k->d->ops->upload(k->d->s, b, fill, n) != MOE_OK)
            return 0;
    }
    return cdevice_sync(k->d) == MOE_OK;
}

/* Everything to `to` of each buffer: 0 want, 1 got. */
static int
download_all(struct ccase *k, int to_got)
{
    uint32_t i;

    for (i = 0; i < k->n_buf; i++)
        if (k->d->ops->download(k->d->s,
                                to_got ? k->buf[i].got : k->buf[i].want,
                                k->buf[i].dev, k->buf[i].bytes)
            != MOE_OK)
            return 0;
    return cdevice_sync(k->d) == MOE_OK;
}

/* Was the memory after the scratch left alone? */
static int
guard_is_whole(struct ccase *k)
{
    uint8_t        tail[WORK_GUARD];
    struct moe_buf b = { k->work.mem, k->work_bytes };
    size_t         i;

    if (k->work.mem == NULL)
        return 1;
    if (k->d->ops->download(k->d->s, tail, b, sizeof(tail)) != MOE_OK
        || cdevice_sync(k->d) != MOE_OK)
        return 0;
    for (i = 0; i < sizeof(tail); i++)
        if (tail[i] != 0xa5)
            return 0;
    return 1;
}

static int
launch_once(struct ccase *k, const struct moe_op *op)
{
    if (!upload_all(k)) {
        case_failed(k, "upload");
        return 0;
    }
    if (k->d->ops->launch(k->d->s, op, &k->d->err) != MOE_OK
        || cdevice_sync(k->d) != MOE_OK) {
        case_failed(k, "launch");
        return 0;
    }
    return 1;
}

/* Runs the oracle on copies in want. */
static const char *
run_oracle(struct ccase *k, const struct moe_op *op, struct cweights *w)
{
    struct moe_extent      x[MOE_EXTENTS_MAX];
    struct moe_span        s[MOE_EXTENTS_MAX];
    struct moe_ref_weights ref;
    union {
        struct moe_op_grouped_gemm gemm;
        struct moe_op_grouped_ffn  ffn;
        struct moe_op_attention    attn;
        struct moe_op_rope_kv      rope;
        struct moe_op_route        route;
        struct moe_op_combine      combine;
        struct moe_op              op;
    } copy;
    const char *bad;
    uint32_t    i, n;
    double     *scratch;

    memcpy(&copy, op, moe_op_size(op->code));
    n = moe_op_extents(&copy.op, 1, x, &bad);
    if (n == 0)
        return bad;
    for (i = 0; i < k->n_buf; i++)
        memcpy(k->buf[i].want, k->buf[i].before, k->buf[i].bytes);
    for (i = 0; i < n; i++) {
        struct moe_buf *b = moe_extent_buf(&copy.op, &x[i]);
        struct cbuf    *c = b->mem != NULL ? buf_of(k, b->mem) : NULL;

        s[i].p = c != NULL ? c->want + b->off : NULL;
        s[i].len = c != NULL ? c->bytes - b->off : 0;
        if (c != NULL && x[i].bytes > s[i].len)
            return "the case's own buffer is too small";
    }
    scratch = malloc(moe_ref_scratch(op) + 8);
    if (scratch == NULL)
        return "out of memory";
    if (w != NULL)
        ref = weights_ref(w);
    bad = moe_ref_run(op, s, w != NULL ? &ref : NULL, scratch);
    free(scratch);
    return bad;
}

/* Results within the tolerance, everything else as it was. */
static int
compare(struct ccase *k, double *nmse)
{
    uint32_t i;
    uint64_t e;
    int      good = 1;

    *nmse = 0;
    for (i = 0; i < k->n_buf; i++) {
        struct cbuf *b = &k->buf[i];
        uint32_t     size = moe_dtype_size(b->dtype);
        double       diff = 0, sum = 0;

        for (e = 0; e < b->bytes / size; e++) {
            const uint8_t *was = b->before + e * size;
            const uint8_t *want = b->want + e * size;
            const uint8_t *got = b->got + e * size;
            double         a, c;

            if (memcmp(want, got, size) == 0) {
                if (b->dtype != MOE_U32) {
                    a = moe_ref_get(want, b->dtype, 0);
                    if (isfinite(a))
                        sum += a * a;
                }
                continue;
            }
            if (b->dtype == MOE_U32 || memcmp(was, want, size) == 0) {
                if (good)
                    conform_note(k->d->c,
                                 "buffer %u, element %llu: %s", i,
                                 (unsigned long long) e,
                                 b->dtype == MOE_U32
                                     ? "another integer"
                                     : "changed, but is no result");
                good = 0;
                continue;
            }
            a = moe_ref_get(want, b->dtype, 0);
            c = moe_ref_get(got, b->dtype, 0);
            if (!isfinite(c) && good) {
                conform_note(k->d->c, "buffer %u, element %llu: %g, not %g",
                             i, (unsigned long long) e, c, a);
                good = 0;
            }
            diff += (a - c) * (a - c);
            sum += a * a;
        }
        if (diff > 0 && !(diff <= sum * 1e30))
            diff = INFINITY;
        k->d->pool_diff += diff;
        k->d->pool_sum += b->dtype != MOE_U32 && diff > 0 ? sum : 0;
        if (diff > 0)
            *nmse = fmax(*nmse, diff / (sum > 0 ? sum : 1));
    }
    return good && *nmse <= k->tolerance;
}

/* Is what lies on the device, bit for bit, what the whole launch left? */
static int
same_bits(struct ccase *k)
{
    uint32_t i;

    if (!download_all(k, 0))
        return 0;
    for (i = 0; i < k->n_buf; i++)
        if (k->buf[i].piecewise
            && memcmp(k->buf[i].want, k->buf[i].got, k->buf[i].bytes) != 0)
            return 0;
    return 1;
}

/* The results' hash, against the one of the run with other workers. */
static int
same_hash(struct ccase *k)
{
    struct cdevice *d = k->d;
    uint64_t        h = 0xcbf29ce484222325u, e; /* FNV-1a */
    uint32_t        i;

    for (i = 0; i < k->n_buf; i++)
        for (e = 0; e < k->buf[i].bytes; e++)
            h = (h ^ k->buf[i].got[e]) * 0x100000001b3u;
    if (d->second)
        return d->at_hash >= d->n_hash || d->hash[d->at_hash++] == h;
    if (d->n_hash < CASE_HASHES)
        d->hash[d->n_hash++] = h;
    return 1;
}

/* Sizes of scratch by query; the plan itself is looked at as well. */
static int
ask(struct ccase *k, const struct moe_op *op, const struct cweights *w)
{
    struct moe_plan plan = { .struct_size = sizeof(plan) };
    moe_status      status;

    memset(plan.why, 'x', sizeof(plan.why));
    status = k->d->ops->query(k->d->dev, op, w != NULL ? &w->about : NULL,
                              &plan, &k->d->err);
    if (status != MOE_OK) {
        case_failed(k, "query says yes");
        return 0;
    }
    if (memchr(plan.why, '\0', sizeof(plan.why)) == NULL
        || (plan.tier != MOE_TIER_GENERIC && plan.tier != MOE_TIER_NATIVE)
        || (w != NULL && plan.slot_bytes != w->plan.slot_bytes)) {
        k->d->err.text[0] = '\0';
        case_failed(k, "the plan has a tier, a reason that ends, and always "
                       "one size");
        return 0;
    }
    k->work_bytes = plan.work_bytes;
    return 1;
}

int
case_run(struct ccase *k, struct moe_op *op, struct cweights *w,
         struct moe_buf *work)
{
    struct conform *c = k->d->c;
    const char     *bad;
    double          nmse = 0;
    int             good;

    if (k->bad || !ask(k, op, w))
        return 0;
    if (work != NULL && k->work_bytes > 0) {
        if (k->work.mem != NULL)
            k->d->ops->mem_free(k->work.mem);
        k->work.mem = NULL;
        if (k->d->ops->mem_alloc(k->d->dev, k->work_bytes + WORK_GUARD,
                                 MOE_USE_SCRATCH, &k->work.mem, &k->d->err)
            != MOE_OK) {
            k->work.mem = NULL;
            case_failed(k, "memory for its scratch");
            return 0;
        }
        *work = k->work;
    }
    c->order = CONFORM_FORWARD;
    if (!launch_once(k, op))
        return 0;
    if (!download_all(k, 1)) {
        case_failed(k, "download");
        return 0;
    }
    bad = run_oracle(k, op, w);
    if (bad != NULL) {
        conform_note(c, "oracle: %s", bad);
        case_failed(k, "the oracle can follow");
        return 0;
    }
    good = compare(k, &nmse);
    good = conform_ok(c, good, "%s: error %.1e of %.1e allowed", k->name,
                      nmse, k->tolerance);
    if (!guard_is_whole(k))
        good = conform_ok(c, 0, "%s: writes within work_bytes of scratch",
                          k->name);
    if (!same_hash(k))
        good = conform_ok(c, 0, "%s: the same bits with 1 worker as with 3",
                          k->name);
    c->order = CONFORM_BACKWARD;
    if (launch_once(k, op) && !same_bits(k))
        good = conform_ok(c, 0, "%s: the same bits in any order of parallel()",
                          k->name);
    c->order = CONFORM_PARALLEL;
    if (launch_once(k, op) && !same_bits(k))
        good = conform_ok(c, 0, "%s: the same bits on several threads",
                          k->name);
    c->order = CONFORM_FORWARD;
    return good && !k->bad;
}

void
case_pieces(struct ccase *k, const struct moe_op *op, uint32_t n,
            case_piece_fn fn, void *arg, const char *what)
{
    union {
        struct moe_op_grouped_gemm gemm;
        struct moe_op_grouped_ffn  ffn;
        struct moe_op_attention    attn;
        struct moe_op_rope_kv      rope;
        struct moe_op_route        route;
        struct moe_op_combine      combine;
        struct moe_op              op;
    } copy;
    uint32_t i;

    if (k->bad)
        return;
    if (!upload_all(k)) {
        case_failed(k, "upload");
        return;
    }
    for (i = 0; i < n; i++) {
        memcpy(&copy, op, moe_op_size(op->code));
        if (fn(k, &copy.op, i, arg)
            && k->d->ops->launch(k->d->s, &copy.op, &k->d->err) != MOE_OK) {
            case_failed(k, what);
            return;
        }
    }
    if (cdevice_sync(k->d) != MOE_OK) {
        case_failed(k, what);
        return;
    }
    conform_ok(k->d->c, same_bits(k), "%s: the same bits %s", k->name, what);
}
