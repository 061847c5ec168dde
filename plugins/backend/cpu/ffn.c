/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ffn.c - the gated feed-forward of experts, and dense.
 *
 * Two passes with one meeting of the threads between them: gate and up of
 * the same columns together with their activation, then down.  A place is a
 * row of the launch's own numbering, group after group; the intermediate
 * lies in scratch by place, so nothing depends on which other experts take
 * part in a launch.
 *
 * Scratch: groups; rows of x in 8 bits for weights in lines; rows of x times
 * their weight if asked for; the intermediate, in 8 bits or f32.
 */

#include "backend/cpu/grid.h"

struct ffn {
    const struct moe_op_grouped_ffn *op;
    const moe_device                *dev;
    const struct cpu_isa            *isa;
    const uint32_t                  *perm;    /* (rows * k) or NULL */
    const float                     *weights; /* (rows, k) or NULL */
    const float                     *x;       /* (rows, h) */
    const float *bias[3]; /* by part: (f), (f), (h), or NULL */
    float                           *y;       /* (rows * k, h) */
    struct cpu_group                *groups;
    uint32_t                         n_groups; /* that have rows */
    uint32_t                         kind;
    /* rows of x ready for the products, by place if scaled, else by row */
    uint8_t *in;
    uint64_t in_bytes; /* of a row; 0: x itself */
    uint8_t *mid;      /* (places, mid_bytes) */
    uint64_t mid_bytes;
    struct cpu_grid grid;
};

/* Where each piece of scratch begins. */
struct ffn_work {
    uint64_t in, mid, bytes;
    uint64_t in_bytes, mid_bytes;
};

static int
is_scaled(const struct moe_op_grouped_ffn *op)
{
    return (op->op.flags & MOE_FFN_SCALE_INPUT) != 0;
}

static void
ffn_layout(const struct moe_op_grouped_ffn *op, uint32_t kind,
           struct ffn_work *w)
{
    const uint64_t pairs = (uint64_t) op->rows * (op->k != 0 ? op->k : 1);
    const int      q8 = cpu_is_lines(kind);

    w->in = cpu_align(op->n_groups * sizeof(struct cpu_group), CPU_ALIGN);
    w->in_bytes = q8              ? cpu_q8_bytes(op->h)
                  : is_scaled(op) ? (uint64_t) op->h * sizeof(float)
                                  : 0;
    w->mid = w->in
             + cpu_align((is_scaled(op) ? pairs : op->rows) * w->in_bytes,
                         CPU_ALIGN);
    w->mid_bytes = q8 ? cpu_q8_bytes(op->f)
                      : cpu_align(op->f, CPU_LANES) * sizeof(float);
    w->bytes = w->mid + cpu_align(pairs * w->mid_bytes, CPU_ALIGN);
}

uint64_t
cpu_ffn_work(const struct moe_op_grouped_ffn *op, uint32_t kind)
{
    struct ffn_work w;

    ffn_layout(op, kind, &w);
    return w.bytes;
}

static uint32_t
pair_of(const struct ffn *f, const struct cpu_group *g, uint32_t row)
{
    return f->perm != NULL ? f->perm[g->begin + row] : g->begin + row;
}

/* ----------------------------------------------------------------- input -- */

static void
prepare(const struct ffn *f, const float *x, float scale, uint8_t *out)
{
    const uint32_t h = f->op->h;
    float          part[256];
    uint32_t       i, n;

    if (!cpu_is_lines(f->kind)) {
        f->isa->scale(scale, x, h, (float *) (void *) out);
        return;
    }
    if (!is_scaled(f->op)) {
        f->isa->quantize(x, h, (struct cpu_q8 *) (void *) out);
        return;
    }
    for (i = 0; i < h; i += n) {
        n = (uint32_t) cpu_min(256, h - i);
        f->isa->scale(scale, x + i, n, part);
        f->isa->quantize(part, n, (struct cpu_q8 *) (void *) out
                                      + i / CPU_RUN);
    }
}

static void
prepare_row(void *arg, uint32_t i, uint32_t slot)
{
    const struct ffn *f = arg;

    (void) slot;
    prepare(f, f->x + i * f->op->ldx, 1.0f, f->in + i * f->in_bytes);
}

/* i: a group; its rows by place, each times its weight. */
static void
prepare_group(void *arg, uint32_t i, uint32_t slot)
{
    const struct ffn       *f = arg;
    const struct cpu_group *g = &f->groups[i];
    uint32_t                r;

    (void) slot;
    for (r = 0; r < g->rows; r++) {
        const uint32_t pair = pair_of(f, g, r);

        prepare(f, f->x + pair / f->op->k * f->op->ldx, f->weights[pair],
                f->in + (g->base + r) * f->in_bytes);
    }
}

/* --------------------------------------------------------------- gate, up -- */

/* out: columns of panel p on of a part's product. */
static void
add_bias(const struct ffn *f, uint32_t part, uint32_t p, uint32_t cols,
         float *out)
{
    if (f->bias[part] != NULL)
        f->isa->axpy(1.0f, f->bias[part] + p * CPU_LANES, cols, out);
}

static void
gate_block(const struct ffn *f, const struct cpu_group *g,
           const struct cpu_mat *gate, const struct cpu_mat *up, uint32_t p,
           uint32_t np, uint32_t row, uint32_t nt, const void *const *x)
{
    enum { LDO = CPU_NP * CPU_LANES };
    float          a[CPU_TILE_ROWS * LDO], b[CPU_TILE_ROWS * LDO];
    const uint32_t cols = (uint32_t) cpu_min(np * CPU_LANES,
                                             f->op->f - p * CPU_LANES);
    uint32_t       t;

    cpu_dot(f->dev, gate, p, np, x, nt, a, LDO);
    cpu_dot(f->dev, up, p, np, x, nt, b, LDO);
    for (t = 0; t < nt; t++) {
        uint8_t *mid = f->mid + (g->base + row + t) * f->mid_bytes;

        add_bias(f, MOE_PART_GATE, p, cols, a + t * LDO);
        add_bias(f, MOE_PART_UP, p, cols, b + t * LDO);
        f->isa->gate(f->op->act, a + t * LDO, b + t * LDO, cols, a + t * LDO);
        if (cpu_is_lines(f->kind)) /* p is even: a whole number of records */
            f->isa->quantize(a + t * LDO, cols,
                             (struct cpu_q8 *) (void *) mid
                                 + p * CPU_LANES / CPU_RUN);
        else
            memcpy((float *) (void *) mid + p * CPU_LANES, a + t * LDO,
                   cols * sizeof(float));
    }
}

static void
gate_item(void *arg, uint32_t i, uint32_t slot)
{
    const struct ffn       *f = arg;
    const struct cpu_item   it = cpu_grid_item(&f->grid, f->groups, i);
    const struct cpu_group *g = &f->groups[it.group];
    const struct moe_wref  *ref = &f->op->w[g->ref];
    const void             *x[CPU_TILE_ROWS];
    struct cpu_mat          gate, up;
    uint32_t                r, t, nt, p, np;

    (void) slot;
    cpu_mat_of(f->dev, ref, MOE_PART_GATE, f->op->f, f->op->h, "ffn", &gate,
               NULL);
    cpu_mat_of(f->dev, ref, MOE_PART_UP, f->op->f, f->op->h, "ffn", &up,
               NULL);
    for (r = it.row0; r < it.row1; r += nt) {
        nt = cpu_rows_of_call(f->dev, f->kind, it.row1 - r);
        for (t = 0; t < nt; t++) {
            const uint32_t row = pair_of(f, g, r + t)
                                 / (f->perm != NULL ? f->op->k : 1);

            if (f->in_bytes == 0)
                x[t] = f->x + row * f->op->ldx;
            else
                x[t] = f->in
                       + (is_scaled(f->op) ? g->base + r + t : row)
                             * f->in_bytes;
        }
        for (p = it.panel0; p < it.panel1; p += np) {
            np = (uint32_t) cpu_min(it.panel1 - p, CPU_NP);
            gate_block(f, g, &gate, &up, p, np, r, nt, x);
        }
    }
}

/* ------------------------------------------------------------------ down -- */

static void
down_item(void *arg, uint32_t i, uint32_t slot)
{
    enum { LDO = CPU_NP * CPU_LANES };
    const struct ffn       *f = arg;
    const struct cpu_item   it = cpu_grid_item(&f->grid, f->groups, i);
    const struct cpu_group *g = &f->groups[it.group];
    const int               add = (f->op->op.flags & MOE_FFN_ACCUMULATE) != 0;
    const void             *x[CPU_TILE_ROWS];
    float                   out[CPU_TILE_ROWS * LDO];
    struct cpu_mat          down;
    uint32_t                r, t, nt, p, np, cols;

    (void) slot;
    cpu_mat_of(f->dev, &f->op->w[g->ref], MOE_PART_DOWN, f->op->h, f->op->f,
               "ffn", &down, NULL);
    for (r = it.row0; r < it.row1; r += nt) {
        nt = cpu_rows_of_call(f->dev, f->kind, it.row1 - r);
        for (t = 0; t < nt; t++)
            x[t] = f->mid + (g->base + r + t) * f->mid_bytes;
        for (p = it.panel0; p < it.panel1; p += np) {
            np = (uint32_t) cpu_min(it.panel1 - p, CPU_NP);
            cols = (uint32_t) cpu_min(np * CPU_LANES,
                                      f->op->h - p * CPU_LANES);
            cpu_dot(f->dev, &down, p, np, x, nt, out, LDO);
            for (t = 0; t < nt; t++) {
                float *y = f->y + pair_of(f, g, r + t) * f->op->ldy
                           + p * CPU_LANES;

                if (add)
                    f->isa->axpy(1.0f, out + t * LDO, cols, y);
                else
                    memcpy(y, out + t * LDO, cols * sizeof(float));
                add_bias(f, MOE_PART_DOWN, p, cols, y);
            }
        }
    }
}

/* ----------------------------------------------------------------- checks -- */

static moe_status
check_group(const struct ffn *f, uint32_t ref, uint32_t a, uint32_t b,
            struct cpu_mat *gate, struct cpu_mat *down, struct moe_error *err)
{
    const struct moe_op_grouped_ffn *op = f->op;
    const uint64_t                   pairs = (uint64_t) op->rows * op->k;
    struct cpu_mat                   up;
    uint32_t                         i;
    moe_status                       st;

    if (b < a || b > pairs)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "ffn: group %u has pairs %u to %u of %llu", ref, a, b,
                        (unsigned long long) pairs);
    for (i = a; f->perm != NULL && i < b; i++)
        if (f->perm[i] >= pairs)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "ffn: pair %u of group %u is not below %llu",
                            f->perm[i], ref, (unsigned long long) pairs);
    st = cpu_mat_of(f->dev, &op->w[ref], MOE_PART_GATE, op->f, op->h,
                    "ffn gate", gate, err);
    if (st == MOE_OK)
        st = cpu_mat_of(f->dev, &op->w[ref], MOE_PART_UP, op->f, op->h,
                        "ffn up", &up, err);
    if (st == MOE_OK)
        st = cpu_mat_of(f->dev, &op->w[ref], MOE_PART_DOWN, op->h, op->f,
                        "ffn down", down, err);
    return st;
}

/* The groups that have rows; *total of them all, *most of one, *bytes of
 * gate (or up) and of down. */
static moe_status
find_groups(struct ffn *f, const uint32_t *offsets, uint32_t n_offsets,
            uint32_t *total, uint32_t *most, uint64_t bytes[2],
            struct moe_error *err)
{
    const struct moe_op_grouped_ffn *op = f->op;
    struct cpu_mat                   gate, down;
    uint32_t                         i, a = 0, b = op->rows;
    moe_status                       st;

    *total = *most = 0;
    bytes[0] = bytes[1] = 0;
    for (i = 0; i < op->n_groups; i++) {
        if (offsets != NULL) {
            const uint32_t e = op->experts[i];

            if (e >= n_offsets)
                return moe_fail(err, MOE_E_INVAL, 0,
                                "ffn: expert %u of group %u has no offset", e,
                                i);
            a = offsets[e];
            b = offsets[e + 1];
        }
        if (a == b)
            continue;
        st = check_group(f, i, a, b, &gate, &down, err);
        if (st != MOE_OK)
            return st;
        if (f->n_groups == 0) {
            f->kind = gate.kind;
            bytes[0] = cpu_panel_cost(&gate);
            bytes[1] = cpu_panel_cost(&down);
        } else if (gate.kind != f->kind) {
            return moe_fail(err, MOE_E_INVAL, 0,
                            "ffn: group %u is in another format than the "
                            "first",
                            i);
        }
        if (b - a > (uint64_t) op->rows * op->k - *total)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "ffn: the groups have more pairs than the rows");
        f->groups[f->n_groups++] = (struct cpu_group){
            .ref = i, .begin = a, .rows = b - a, .base = *total
        };
        *total += b - a;
        *most = b - a > *most ? b - a : *most;
    }
    return MOE_OK;
}

static moe_status
check_shape(const struct moe_op_grouped_ffn *op, struct moe_error *err)
{
    const int routed = op->perm.mem != NULL;

    if (op->dtype != MOE_F32)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "ffn: activations of type %u; only f32 is supported",
                        op->dtype);
    if (op->act < MOE_ACT_SILU || op->act > MOE_ACT_RELU)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "ffn: activation %u is unknown", op->act);
    if (op->h == 0 || op->f == 0 || op->k == 0 || op->w == NULL
        || (uint64_t) op->rows * op->k > UINT32_MAX
        || (routed ? op->offsets.mem == NULL || op->experts == NULL
                   : op->n_groups != 1 || op->k != 1)
        || (!routed && is_scaled(op)))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "ffn: %u groups, %u rows, %u experts a row, %u x %u",
                        op->n_groups, op->rows, op->k, op->f, op->h);
    return MOE_OK;
}

/* Pointers to everything but scratch; *offsets has *n_offsets + 1. */
static moe_status
find_buffers(struct ffn *f, const uint32_t **offsets, uint32_t *n_offsets,
             struct moe_error *err)
{
    const struct moe_op_grouped_ffn *op = f->op;
    const moe_device                *dev = f->dev;
    const uint64_t                   pairs = (uint64_t) op->rows * op->k;
    const struct moe_buf bias[3] = { op->gate_bias, op->up_bias,
                                     op->down_bias };
    uint32_t             i;

    *offsets = NULL;
    *n_offsets = 0;
    f->x = cpu_rows(dev, op->x, op->rows, op->h, op->ldx, "ffn x", err);
    f->y = cpu_rows(dev, op->y, pairs, op->h, op->ldy, "ffn y", err);
    if (f->x == NULL || f->y == NULL)
        return MOE_E_INVAL;
    for (i = 0; i < 3; i++) {
        if (bias[i].mem == NULL)
            continue;
        if (op->perm.mem != NULL)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "ffn: only a dense feed-forward has biases");
        f->bias[i] = cpu_bytes(dev, bias[i],
                               4 * (uint64_t) (i == MOE_PART_DOWN ? op->h
                                                                  : op->f),
                               "ffn bias", err);
        if (f->bias[i] == NULL)
            return MOE_E_INVAL;
    }
    if (op->perm.mem == NULL)
        return MOE_OK;
    f->perm = cpu_bytes(dev, op->perm, pairs * 4, "ffn perm", err);
    *offsets = cpu_bytes(dev, op->offsets, 8, "ffn offsets", err);
    if (f->perm == NULL || *offsets == NULL)
        return MOE_E_INVAL;
    /* how many experts there are is not said: what the buffer has */
    *n_offsets = (uint32_t) cpu_min(
        (op->offsets.mem->bytes - op->offsets.off) / 4 - 1, UINT32_MAX);
    if (is_scaled(op)) {
        f->weights = cpu_bytes(dev, op->weights, pairs * 4, "ffn weights",
                               err);
        if (f->weights == NULL)
            return MOE_E_INVAL;
    }
    return MOE_OK;
}

/* Hot. */
moe_status
cpu_ffn(moe_device *dev, const struct moe_op_grouped_ffn *op,
        struct moe_error *err)
{
    struct ffn      f = { .op = op, .dev = dev, .isa = dev->isa };
    const uint32_t *offsets;
    struct ffn_work w;
    uint32_t        n_offsets, total, most, panels;
    uint64_t        bytes[2], macs;
    uint8_t        *work;
    moe_status      st;

    st = check_shape(op, err);
    if (st != MOE_OK || op->rows == 0)
        return st;
    st = find_buffers(&f, &offsets, &n_offsets, err);
    if (st != MOE_OK)
        return st;
    ffn_layout(op, CPU_F32, &w);
    work = cpu_bytes(dev, op->work, w.in, "ffn work", err);
    if (work == NULL)
        return MOE_E_INVAL;
    f.groups = (struct cpu_group *) (void *) work;
    st = find_groups(&f, offsets, n_offsets, &total, &most, bytes, err);
    if (st != MOE_OK || f.n_groups == 0)
        return st;
    ffn_layout(op, f.kind, &w);
    if (cpu_bytes(dev, op->work, w.bytes, "ffn work", err) == NULL)
        return MOE_E_INVAL;
    f.in = work + w.in;
    f.in_bytes = w.in_bytes;
    f.mid = work + w.mid;
    f.mid_bytes = w.mid_bytes;
    if (is_scaled(op))
        cpu_run(dev, f.n_groups, (uint64_t) total * op->h / 2, prepare_group,
                &f);
    else if (w.in_bytes != 0)
        cpu_run(dev, op->rows, (uint64_t) op->rows * op->h / 4, prepare_row,
                &f);
    macs = (uint64_t) total * op->f * op->h;
    panels = (uint32_t) cpu_ceil(op->f, CPU_LANES);
    cpu_grid_make(dev, f.n_groups, panels, 2 * bytes[0], f.kind, most,
                  &f.grid);
    cpu_run(dev, f.grid.items,
            cpu_cost(2 * bytes[0] * panels * f.n_groups, 2 * macs), gate_item,
            &f);
    panels = (uint32_t) cpu_ceil(op->h, CPU_LANES);
    cpu_grid_make(dev, f.n_groups, panels, bytes[1], f.kind, most, &f.grid);
    cpu_run(dev, f.grid.items,
            cpu_cost(bytes[1] * panels * f.n_groups, macs), down_item, &f);
    return MOE_OK;
}
