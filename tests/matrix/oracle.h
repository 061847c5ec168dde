/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oracle.h - an operation on the backend against the one in double.
 *
 * check_op() copies every buffer of a payload, runs the reference on the
 * copies and the backend on the originals, and compares the whole buffers:
 * what neither should have touched is still poison in both.
 */
#ifndef MOE_TESTS_MATRIX_ORACLE_H
#define MOE_TESTS_MATRIX_ORACLE_H

#include "common/op_info.h"
#include "common/ref_ops.h"
#include "matrix/host.h"

/* Buffers of the case at hand, so that a payload's can be found again. */
#define ARENA_MAX 24
static struct buf arena[ARENA_MAX];
static uint32_t   arena_n;

static struct buf
arena_new(struct test_host *t, uint64_t bytes)
{
    if (arena_n == ARENA_MAX) {
        printf("Bail out! too many buffers in one case\n");
        exit(1);
    }
    arena[arena_n] = buf_new(t, bytes);
    return arena[arena_n++];
}

/* rows x n normal numbers, ld apart, the gaps poison. */
static struct buf
arena_normal(struct test_host *t, uint64_t rows, uint64_t n, uint64_t ld,
             float scale)
{
    struct buf b = arena_new(t, rows == 0 ? 4 : ((rows - 1) * ld + n) * 4);
    uint64_t   i;

    for (i = 0; i < rows; i++)
        fill_normal(b.f + i * ld, n, scale);
    return b;
}

/* True if all guards are whole. */
static int
arena_free(void)
{
    int whole = 1;

    while (arena_n > 0)
        whole &= buf_free(&arena[--arena_n]);
    return whole;
}

/* query() for op and a buffer of the scratch it asks for.  w: or NULL. */
static struct moe_buf
arena_work(struct test_host *t, const struct moe_op *op,
           const struct moe_weights *w)
{
    struct moe_plan plan;
    struct buf      b;

    if (t->ops->query(t->dev, op, w, &plan, &t->err) != MOE_OK) {
        printf("Bail out! query: %s\n", t->err.text);
        exit(1);
    }
    b = arena_new(t, plan.work_bytes);
    return buf_of(&b);
}

struct oracle {
    double nmse; /* of all floats that the operation may write */
    double error, square; /* its numerator and denominator */
    double max;  /* largest error over the largest number */
    int    same; /* integers and untouched bytes are equal */
};

static const struct buf *
arena_of(const moe_mem *mem)
{
    uint32_t i;

    for (i = 0; i < arena_n; i++)
        if (arena[i].mem == mem)
            return &arena[i];
    return NULL;
}

static int
is_integer(const char *field)
{
    return strcmp(field, "ids") == 0 || strcmp(field, "offsets") == 0
           || strcmp(field, "perm") == 0;
}

/* got and want: bytes of one buffer of the given type. */
static void
compare(const uint8_t *got, const uint8_t *want, uint64_t bytes,
        uint32_t dtype, int integer, struct oracle *o)
{
    const uint32_t es = moe_dtype_size(dtype);
    double         e = 0.0, s = 0.0, worst = 0.0, top = 1e-30;
    uint64_t       i;

    for (i = 0; i + es <= bytes; i += es) {
        double a, b;

        if (memcmp(got + i, want + i, es) == 0) {
            a = moe_ref_get(want, dtype, i / es);
            if (!isnan(a)) {
                s += a * a;
                top = fmax(top, fabs(a));
            }
            continue;
        }
        if (integer) {
            o->same = 0;
            return;
        }
        a = moe_ref_get(got, dtype, i / es);
        b = moe_ref_get(want, dtype, i / es);
        if (isnan(a) || isnan(b)) {
            o->same = 0;
            return;
        }
        e += (a - b) * (a - b);
        s += b * b;
        worst = fmax(worst, fabs(a - b));
        top = fmax(top, fabs(b));
    }
    o->nmse = fmax(o->nmse, s > 0.0 ? e / s : e);
    if (!integer && e > 0.0) {
        o->error += e;
        o->square += s;
    }
    o->max = fmax(o->max, worst / top);
}

/* kv_dtype: of caches, else MOE_F32. */
static moe_status
check_op(struct test_host *t, const struct moe_op *op,
         const struct moe_ref_weights *w, uint32_t kv_dtype,
         struct oracle *out)
{
    struct moe_extent x[MOE_EXTENTS_MAX];
    struct moe_span   s[MOE_EXTENTS_MAX];
    const struct buf *b[MOE_EXTENTS_MAX];
    uint8_t          *copy[ARENA_MAX] = { NULL };
    const char       *bad = NULL;
    double           *scratch;
    moe_status        st;
    uint32_t          n, i;

    *out = (struct oracle){ .same = 1 };
    n = moe_op_extents(op, 1, x, &bad);
    if (n == 0) {
        printf("# payload: %s\n", bad);
        return MOE_E_INVAL;
    }
    for (i = 0; i < n; i++) {
        struct moe_buf m;
        ptrdiff_t      at;

        memcpy(&m, (const char *) op + x[i].offset, sizeof(m));
        s[i] = (struct moe_span){ NULL, 0 };
        b[i] = m.mem != NULL ? arena_of(m.mem) : NULL;
        if (b[i] == NULL)
            continue;
        at = b[i] - arena;
        if (copy[at] == NULL) {
            copy[at] = malloc(b[i]->bytes + HOST_GUARD);
            memcpy(copy[at], b[i]->b, b[i]->bytes + HOST_GUARD);
        }
        s[i].p = copy[at] + m.off;
        s[i].len = b[i]->bytes - m.off;
    }
    scratch = malloc(moe_ref_scratch(op) + 64);
    bad = moe_ref_run(op, s, w, scratch);
    free(scratch);
    st = t->ops->launch(t->stream, op, &t->err);
    if (st != MOE_OK || bad != NULL)
        printf("# launch %d: %s; reference: %s\n", st, t->err.text,
               bad != NULL ? bad : "fine");
    for (i = 0; i < n; i++) {
        if (b[i] == NULL || (x[i].access & MOE_ACCESS_WORK) != 0)
            continue;
        compare(b[i]->b, copy[b[i] - arena], b[i]->bytes,
                strncmp(x[i].field, "kv.", 3) == 0 ? kv_dtype : MOE_F32,
                is_integer(x[i].field), out);
    }
    for (i = 0; i < ARENA_MAX; i++)
        free(copy[i]);
    return bad != NULL ? MOE_E_INVAL : st;
}

#endif /* MOE_TESTS_MATRIX_ORACLE_H */
