/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - a device under test, and one operation on it beside the oracle.
 *
 * A case keeps each buffer twice: on the device, and as a shadow on the host
 * that the reference operations work on.  After a launch the two must agree,
 * in results within a tolerance and everywhere else bit for bit: buffers are
 * filled with a pattern first, so a write outside of a result is seen.
 */
#ifndef MOE_TESTS_CONFORM_DEVICE_H
#define MOE_TESTS_CONFORM_DEVICE_H

#include <moe/ops.h>

#include "common/op_info.h"
#include "common/ref_ops.h"
#include "conform/conform.h"

#define CASE_BUFS   16
#define CASE_HASHES 4096

struct cdevice {
    struct conform               *c;
    const struct moe_registry    *r;
    const struct moe_backend_ops *ops;
    void                         *self;
    struct moe_device_info        info;
    moe_device                   *dev;
    moe_stream                   *s;
    moe_event                    *ev;
    struct moe_error              err;
    uint64_t                      random;
    /* Errors of all cases of a lossy format: one small case may be unlucky,
     * its products nearly cancelled, and the bound is for the sum of all. */
    double   pool_diff, pool_sum;
    /* Results by case, to compare runs with other numbers of workers. */
    uint64_t hash[CASE_HASHES];
    unsigned n_hash, at_hash;
    int      second; /* 1: compare instead of remember */
};

struct cbuf {
    struct moe_buf dev;
    uint64_t       bytes;
    uint32_t       dtype;
    int            piecewise; /* 0: pieces are free to write it otherwise */
    uint8_t       *before;    /* (bytes) at the launch */
    uint8_t       *want;      /* after it, by the oracle */
    uint8_t       *got;       /* after it, by the device */
};

struct ccase {
    struct cdevice *d;
    char            name[160];
    struct cbuf     buf[CASE_BUFS];
    uint32_t        n_buf;
    struct moe_buf  work; /* scratch of the launch, mem NULL: none */
    uint64_t        work_bytes;
    double          tolerance; /* nmse of results */
    int             bad;       /* set-up failed; was reported */
};

/* The weights of a case: one slab, every slot filled. */
struct cweights {
    moe_slab          *slab;
    struct moe_plan    plan;
    struct moe_weights about; /* as query() wants it */
    struct moe_shape   shape;
    struct moe_affine  affine[MOE_PARTS_MAX];
    uint32_t           n_slots;
    float             *value; /* (n_slots, all parts), as decode() says */
    uint64_t           slot_values, part_at[MOE_PARTS_MAX];
    const struct moe_wref *refs; /* of the launch under way */
};

/* What the weights are stored as. */
struct cformat {
    const struct moe_format        *format;
    const struct moe_quantizer_ops *ops; /* NULL: a universal type */
    void                           *self;
    uint32_t                        dtype;       /* of a universal type */
    uint32_t                        scale_dtype; /* 0: none */
};

/* device.c --------------------------------------------------------------- */

moe_status cdevice_open(struct cdevice *d);
void       cdevice_close(struct cdevice *d);
moe_status cdevice_sync(struct cdevice *d);

/* Numbers that repeat from run to run. */
uint64_t crandom(struct cdevice *d);
uint32_t crandom_below(struct cdevice *d, uint32_t n);
float    crandom_float(struct cdevice *d); /* about normal, variance 1 */

void case_begin(struct ccase *k, struct cdevice *d, const char *fmt, ...)
    __attribute__((__format__(__printf__, 3, 4)));
void case_end(struct ccase *k);
/* A buffer of n elements, full of a pattern (NaN, as a float). */
struct moe_buf case_buf(struct ccase *k, uint32_t dtype, uint64_t n);
/* A buffer of n random numbers times scale. */
struct moe_buf case_random(struct ccase *k, uint32_t dtype, uint64_t n,
                           float scale);
/* A buffer of rows x width random numbers, rows ld apart, the pattern
 * between them. */
struct moe_buf case_matrix(struct ccase *k, uint64_t rows, uint64_t width,
                           uint64_t ld, float scale);
struct moe_buf case_u32(struct ccase *k, const uint32_t *v, uint64_t n);
/* What lies in a buffer before the launch. */
void *case_before(struct ccase *k, struct moe_buf b);

/*
 * Asks about op, launches it, runs the oracle and compares: results within
 * the tolerance, all else bit for bit.  Then launches it again with other
 * orders of parallel(): the same bits.  w: its weights or NULL.  work: the
 * field of the payload for scratch, or NULL.  Returns 1 if all is well.
 */
int case_run(struct ccase *k, struct moe_op *op, struct cweights *w,
             struct moe_buf *work);

/* Turns *op, a copy of the whole launch, into piece i; 0: leave it out. */
typedef int (*case_piece_fn)(struct ccase *k, struct moe_op *op, uint32_t i,
                             void *arg);
/* The launch of the last case_run in n pieces: the same bits. */
void case_pieces(struct ccase *k, const struct moe_op *op, uint32_t n,
                 case_piece_fn fn, void *arg, const char *what);

/* weights.c -------------------------------------------------------------- */

struct cformat weights_universal(uint32_t dtype);
/* A slab of n_slots slots for op, of random numbers.  0: op is not done with
 * this format (reported as skipped) or something failed (reported). */
int  weights_make(struct ccase *k, const struct moe_op *op,
                  const struct cformat *f, const struct moe_shape *shape,
                  uint32_t n_slots, struct cweights *w);
void weights_free(struct ccase *k, struct cweights *w);
struct moe_ref_weights weights_ref(struct cweights *w);

/* The operations: rows.c, products.c, attention.c ------------------------- */

void conform_rows(struct cdevice *d);
void conform_products(struct cdevice *d, const struct cformat *f);
void conform_attention(struct cdevice *d);

#endif /* MOE_TESTS_CONFORM_DEVICE_H */
