/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_refusals.c - what the CPU backend says no to, and what it leaves.
 *
 * Every wrong payload, id, page and description is a status with a text and
 * touches nothing; every byte is granted before it is mapped; when the ledger
 * or the heap refuses, nothing is left behind.
 */

#include <sys/mman.h>
#include <unistd.h>

#include "matrix/host.h"
#include "matrix/weights.h"

#define OP(type, code_)                                                       \
    {                                                                         \
        .struct_size = sizeof(struct type), .code = (code_)                   \
    }

static struct test_host host;

static moe_status
launch(const void *op)
{
    host.err.text[0] = '\0';
    return host.ops->launch(host.stream, op, &host.err);
}

/* The status, and that a text came with it. */
#define refused(op, status, ...)                                              \
    do {                                                                      \
        moe_status st_ = launch(op);                                          \
        if (!ok(st_ == (status) && host.err.text[0] != '\0', __VA_ARGS__))    \
            printf("# status %d: %s\n", st_, host.err.text);                  \
    } while (0)

/* ---------------------------------------------------------------- plugin -- */

static void
test_plugin(void)
{
    struct moe_device_info info;
    struct moe_probe       probe = { .struct_size = sizeof(probe) };
    moe_device            *dev;
    uint32_t               n;

    is_int(host_init(&host, "mmx", 1), MOE_E_INVAL,
           "an unknown instruction set is refused");
    has_str(host.err.text, "mmx", "and named");
    ok(host_close(&host), "and nothing is left behind");
    is_int(host_init(&host, "auto", 1), MOE_OK, "auto is fine");
    is_int(host.plugin->probe(&host.host, &probe, &host.err), MOE_OK,
           "probe");
    ok(probe.score > 0, "a processor can always run");
    is_int(host.ops->device_count(host.self, &n), MOE_OK, "device_count");
    is_int(n, 1, "one device");
    is_int(host.ops->device_info(host.self, 0, &info), MOE_OK, "info");
    is_int(info.caps, MOE_CAP_HOST_VIEW, "synchronous, visible to the host");
    is_str(info.domain, "host", "its memory is the host's");
    ok((info.dtypes & MOE_DTYPE_BIT(MOE_F32)) != 0
           && (info.kv_dtypes & MOE_DTYPE_BIT(MOE_F32)) != 0
           && info.mem_total >= info.mem_free && info.mem_free > 0,
       "types and memory");
    is_int(host.ops->device_info(host.self, 1, &info), MOE_E_NOT_FOUND,
           "there is no second device");
    is_int(host.ops->device_open(host.self, 1, &dev, &host.err),
           MOE_E_NOT_FOUND, "nor can it be opened");
    ok(host_close(&host), "nothing is left behind");
}

/* ---------------------------------------------------------------- memory -- */

static uint64_t
resident(const void *p, uint64_t bytes)
{
    const uint64_t page = (uint64_t) sysconf(_SC_PAGESIZE);
    unsigned char  vec[4096];
    uint64_t       i, n = 0, pages = (bytes + page - 1) / page;

    if (pages > sizeof(vec) || mincore((void *) (uintptr_t) p, bytes, vec) != 0)
        return UINT64_MAX;
    for (i = 0; i < pages; i++)
        n += (vec[i] & 1u) != 0 ? page : 0;
    return n;
}

static void
test_memory(void)
{
    static const uint64_t sizes[] = { 0, 1, 4095, 4096, 4097, 1 << 20,
                                      (8 << 20) + 5 };
    const uint64_t page = (uint64_t) sysconf(_SC_PAGESIZE);
    moe_mem       *mem;
    moe_event     *ev;
    struct buf     a;
    uint8_t        some[16] = { 0 };
    uint32_t       i;

    for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const uint64_t want = up(sizes[i] != 0 ? sizes[i] : 1, page);
        uint64_t       before = atomic_load(&host.reserved);
        uint8_t       *p;

        is_int(host.ops->mem_alloc(host.dev, sizes[i], MOE_USE_SCRATCH, &mem,
                                   &host.err),
               MOE_OK, "%llu bytes", (unsigned long long) sizes[i]);
        is_int(atomic_load(&host.reserved) - before, want,
               "are granted to the page");
        p = host.ops->mem_host_ptr(mem);
        ok(resident(p, want) == 0, "are not there before they are touched");
        if (sizes[i] > 0) {
            memset(p, 1, sizes[i]);
            ok(resident(p, want) <= want, "and not more than granted after");
        }
        host.ops->mem_free(mem);
        is_int(atomic_load(&host.reserved), before, "and given back");
    }
    is_int(host.ops->mem_alloc(host.dev, 100, 77, &mem, &host.err),
           MOE_E_INVAL, "memory for an unknown use");
    is_int(host.ops->mem_alloc(host.dev, UINT64_MAX - 100, MOE_USE_ACT, &mem,
                               &host.err),
           MOE_E_NOMEM, "more than addresses");
    atomic_store(&host.budget, atomic_load(&host.reserved) + 8192);
    is_int(host.ops->mem_alloc(host.dev, 8193, MOE_USE_ACT, &mem, &host.err),
           MOE_E_OVER_BUDGET, "more than the budget");
    is_int(host.ops->mem_alloc(host.dev, 8192, MOE_USE_ACT, &mem, &host.err),
           MOE_OK, "exactly the budget");
    host.ops->mem_free(mem);
    atomic_store(&host.budget, UINT64_C(1) << 40);

    a = buf_new(&host, 64);
    is_int(host.ops->upload(host.stream, buf_at(&a, 120), some, 16),
           MOE_E_INVAL, "an upload beyond the end");
    is_int(host.ops->upload(host.stream, buf_at(&a, UINT64_MAX - 3), some, 16),
           MOE_E_INVAL, "an upload that wraps");
    is_int(host.ops->download(host.stream, some, buf_at(&a, 113), 16),
           MOE_E_INVAL, "a download beyond the end");
    is_int(host.ops->copy(host.stream, buf_at(&a, 0), buf_at(&a, 4), 200),
           MOE_E_INVAL, "a copy beyond the end");
    is_int(host.ops->upload(host.stream, buf_at(&a, 48), some, 16), MOE_OK,
           "an upload to the end");
    is_int(host.ops->event_create(host.dev, &ev, &host.err), MOE_OK, "event");
    is_int(host.ops->event_record(host.stream, ev), MOE_OK, "record");
    is_int(host.ops->stream_wait(host.stream, ev), MOE_OK, "stream_wait");
    is_int(host.ops->event_query(ev, &host.err), MOE_OK,
           "events are always complete");
    is_int(host.ops->event_wait(ev, 0, &host.err), MOE_OK, "waiting too");
    host.ops->event_destroy(ev);
    ok(buf_free(&a), "guards are whole");
}

/* -------------------------------------------------------------- payloads -- */

/* A small matrix in f16, in one slot. */
struct fixture {
    struct wset                w;
    struct moe_op_grouped_gemm gemm;
    struct moe_wref            ref;
    struct buf                 x, y, work, off;
};

static void
fixture_open(struct fixture *f)
{
    static const struct moe_shape shape
        = { .struct_size = sizeof(shape), .n_parts = 2, .n = { 20, 8 },
            .k = { 24, 24 } };

    memset(f, 0, sizeof(*f));
    f->gemm = (struct moe_op_grouped_gemm){
        .op = OP(moe_op_grouped_gemm, MOE_OP_GROUPED_GEMM),
        .n_groups = 1, .rows = 3, .n = 28, .k = 24, .n_parts = 2,
        .dtype = MOE_F32, .ldx = 24, .ldy = 28
    };
    wset_make(&f->w, &host, &specs[1], &shape, 2);
    wset_upload(&f->w, &f->gemm.op);
    f->ref = f->w.wref[0];
    f->x = buf_new(&host, 3 * 24 * 4);
    f->y = buf_new(&host, 3 * 28 * 4);
    f->off = buf_new(&host, 4 * 4);
    f->work = buf_new(&host, f->w.plan.work_bytes);
    fill_normal(f->x.f, 3 * 24, 1.0f);
    f->gemm.w = &f->ref;
    f->gemm.x = buf_of(&f->x);
    f->gemm.y = buf_of(&f->y);
    f->gemm.work = buf_of(&f->work);
}

static void
fixture_close(struct fixture *f)
{
    ok(buf_free(&f->x) & buf_free(&f->y) & buf_free(&f->off)
           & buf_free(&f->work),
       "guards are whole");
    wset_free(&f->w);
}

static void
test_gemm(void)
{
    struct fixture             f;
    struct moe_op_grouped_gemm op;
    struct moe_op              odd = { .struct_size = sizeof(odd) };

    fixture_open(&f);
    is_int(launch(&f.gemm), MOE_OK, "the product that is spoilt below");
    memset(f.y.p, HOST_POISON, f.y.bytes);
#define SPOILT(change, status, what)                                          \
    do {                                                                      \
        op = f.gemm;                                                          \
        change;                                                               \
        refused(&op, status, "gemm: %s", what);                               \
    } while (0)
    SPOILT(op.op.struct_size -= 8, MOE_E_INVAL, "a payload cut short");
    SPOILT(op.dtype = MOE_F16, MOE_E_UNSUPPORTED, "f16 activations");
    SPOILT(op.n_parts = 5, MOE_E_INVAL, "five parts");
    SPOILT(op.n_parts = 1, MOE_E_INVAL, "n that is not the parts'");
    SPOILT(op.k = 23; op.ldx = 23, MOE_E_INVAL, "k that is not the weights'");
    SPOILT(op.ldx = 23, MOE_E_INVAL, "rows closer than they are long");
    SPOILT(op.rows = 4, MOE_E_INVAL, "more rows than the buffers have");
    SPOILT(op.rows = UINT32_MAX; op.ldx = UINT64_MAX / 8, MOE_E_INVAL,
           "sizes that wrap");
    SPOILT(op.x.mem = NULL, MOE_E_INVAL, "no x");
    SPOILT(op.x.off = 2, MOE_E_INVAL, "an offset between floats");
    SPOILT(op.y.off = UINT64_MAX - 3, MOE_E_INVAL, "an offset that wraps");
    SPOILT(op.work.mem = NULL, MOE_E_INVAL, "no scratch");
    SPOILT(op.w = NULL, MOE_E_INVAL, "no weights");
    SPOILT(f.ref.slot = 2, MOE_E_INVAL, "a slot that is not there");
    f.ref.slot = 0;
    SPOILT(f.ref.part = 1, MOE_E_INVAL, "a part that is not there");
    f.ref.part = 0;
    SPOILT(f.ref.slab = NULL, MOE_E_INVAL, "no slab");
    f.ref.slab = f.w.slab;
    SPOILT(op.n_groups = 2, MOE_E_INVAL, "two groups without offsets");
    op = f.gemm;
    op.offsets = buf_of(&f.off);
    memcpy(f.off.u, (uint32_t[]){ 2, 1 }, 8);
    refused(&op, MOE_E_INVAL, "gemm: offsets that fall");
    memcpy(f.off.u, (uint32_t[]){ 0, 4 }, 8);
    refused(&op, MOE_E_INVAL, "gemm: offsets beyond the rows");
    memcpy(f.off.u, (uint32_t[]){ 2, 2 }, 8);
    is_int(launch(&op), MOE_OK, "gemm: a group without rows is legal");
    ok(is_poison(f.y.f, 3 * 28), "and nothing was written by any of them");
    odd.code = 99;
    refused(&odd, MOE_E_UNSUPPORTED, "an unknown operation");
    fixture_close(&f);
}

static void
test_embed_norm(void)
{
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 1,
                               .n = { 10 }, .k = { 12 } };
    struct moe_op_embed e = { .op = OP(moe_op_embed, MOE_OP_EMBED),
                              .rows = 2, .n = 10, .k = 12, .dtype = MOE_F32,
                              .scale = 1.0f, .ldy = 12 };
    struct moe_op_norm  n = { .op = OP(moe_op_norm, MOE_OP_NORM), .rows = 1,
                              .n = 12, .kind = 9, .dtype = MOE_F32,
                              .ldx = 12, .ldy = 12 };
    struct moe_op_gather g = { .op = OP(moe_op_gather, MOE_OP_GATHER),
                               .rows = 1, .n = 12, .dtype = MOE_F32,
                               .ldx = 12, .ldy = 12 };
    struct wset w;
    struct buf  ids = buf_new(&host, 8), y = buf_new(&host, 96);

    wset_make(&w, &host, &specs[0], &shape, 1);
    wset_upload(&w, &e.op);
    e.w = w.wref[0];
    e.ids = buf_of(&ids);
    e.y = buf_of(&y);
    ids.u[0] = 9;
    ids.u[1] = 10;
    refused(&e, MOE_E_INVAL, "embed: an id that is not below n");
    ok(is_poison(y.f, 24), "embed: writes nothing then");
    ids.u[1] = 0;
    is_int(launch(&e), MOE_OK, "embed: ids in range");
    e.n = 11;
    refused(&e, MOE_E_INVAL, "embed: n that is not the table's");
    n.x = n.y = buf_of(&y);
    refused(&n, MOE_E_UNSUPPORTED, "norm: an unknown kind");
    g.index = buf_of(&ids);
    g.x = g.y = buf_of(&y);
    ids.u[0] = 4;
    refused(&g, MOE_E_INVAL, "gather: a row outside x");
    ids.u[0] = UINT32_MAX;
    refused(&g, MOE_E_INVAL, "gather: a row far outside x");
    wset_free(&w);
    ok(buf_free(&ids) & buf_free(&y), "guards are whole");
}

static void
test_ffn(void)
{
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 3,
                               .n = { 8, 8, 12 }, .k = { 12, 12, 8 } };
    uint32_t         experts[2] = { 0, 1 };
    struct moe_wref  refs[2];
    struct moe_op_grouped_ffn f
        = { .op = OP(moe_op_grouped_ffn, MOE_OP_GROUPED_FFN), .n_groups = 2,
            .rows = 2, .k = 2, .h = 12, .f = 8, .act = MOE_ACT_SILU,
            .dtype = MOE_F32, .experts = experts, .w = refs, .ldx = 12,
            .ldy = 12 };
    struct wset w;
    struct buf  x = buf_new(&host, 96), y = buf_new(&host, 4 * 48);
    struct buf  perm = buf_new(&host, 16), off = buf_new(&host, 12), work;

    wset_make(&w, &host, &specs[0], &shape, 2);
    wset_upload(&w, &f.op);
    refs[0] = w.wref[0];
    refs[1] = w.wref[1];
    work = buf_new(&host, w.plan.work_bytes);
    fill_normal(x.f, 24, 1.0f);
    f.x = buf_of(&x);
    f.y = buf_of(&y);
    f.perm = buf_of(&perm);
    f.offsets = buf_of(&off);
    f.work = buf_of(&work);
    memcpy(perm.u, (uint32_t[]){ 0, 3, 1, 4 }, 16);
    memcpy(off.u, (uint32_t[]){ 0, 2, 4 }, 12);
    refused(&f, MOE_E_INVAL, "ffn: a pair that is not there");
    perm.u[3] = 2;
    is_int(launch(&f), MOE_OK, "ffn: pairs that are");
    off.u[1] = 5;
    refused(&f, MOE_E_INVAL, "ffn: offsets beyond the pairs");
    off.u[1] = 2;
    off.u[2] = 1;
    refused(&f, MOE_E_INVAL, "ffn: offsets that fall");
    off.u[2] = 4;
    experts[1] = 40;
    refused(&f, MOE_E_INVAL, "ffn: an expert without an offset");
    experts[1] = 0;
    off.u[1] = 4;
    refused(&f, MOE_E_INVAL, "ffn: more pairs than rows by naming one twice");
    experts[1] = 1;
    off.u[1] = 2;
    f.act = 9;
    refused(&f, MOE_E_UNSUPPORTED, "ffn: an unknown activation");
    f.act = MOE_ACT_SILU;
    f.f = 9;
    refused(&f, MOE_E_INVAL, "ffn: a width that is not the weights'");
    f.f = 8;
    f.gate_bias = buf_of(&x);
    refused(&f, MOE_E_INVAL, "ffn: a bias of routed experts");
    f.gate_bias.mem = NULL;
    f.op.flags = MOE_FFN_SCALE_INPUT;
    refused(&f, MOE_E_INVAL, "ffn: to be scaled by nothing");
    f.op.flags = 0;
    f.work = buf_at(&work, 128);
    refused(&f, MOE_E_INVAL, "ffn: too little scratch");
    wset_free(&w);
    ok(buf_free(&x) & buf_free(&y) & buf_free(&perm) & buf_free(&off)
           & buf_free(&work),
       "guards are whole");
}

static void
test_attention(void)
{
    struct moe_op_rope_kv   r = { .op = OP(moe_op_rope_kv, MOE_OP_ROPE_KV) };
    struct moe_op_attention a
        = { .op = OP(moe_op_attention, MOE_OP_ATTENTION) };
    struct moe_plan plan;
    struct buf      q = buf_new(&host, 4 * 8 * 4), y = buf_new(&host, 64);
    struct buf      k = buf_new(&host, 2 * 4 * 8 * 4);
    struct buf      v = buf_new(&host, 2 * 4 * 8 * 4);
    struct buf      u = buf_new(&host, 64), work;

    fill_normal(k.f, 64, 1.0f);
    fill_normal(v.f, 64, 1.0f);
    fill_normal(q.f, 32, 1.0f);
    a.rows = 1;
    a.heads = 2;
    a.dtype = MOE_F32;
    a.n_seqs = 1;
    a.max_pages = 2;
    a.max_context = 8;
    a.scale = 1.0f;
    a.kv = (struct moe_kv){ .struct_size = sizeof(a.kv), .dtype = MOE_F32,
                            .page_rows = 4, .kv_heads = 1, .k_dim = 8,
                            .v_dim = 8, .k = buf_of(&k), .v = buf_of(&v) };
    a.ldq = a.ldy = 16;
    a.q = buf_of(&q);
    a.y = buf_of(&y);
    memset(u.p, 0, 64);
    u.u[3] = 1; /* pages 0, 1 at 8; sequence at 0, position at 4 */
    u.u[1] = 7;
    a.seqs = buf_at(&u, 0);
    a.positions = buf_at(&u, 4);
    a.pages = buf_at(&u, 8);
    is_int(host.ops->query(host.dev, &a.op, NULL, &plan, &host.err), MOE_OK,
           "attention: query");
    work = buf_new(&host, plan.work_bytes);
    a.work = buf_of(&work);
    is_int(launch(&a), MOE_OK, "attention: in range");
    u.u[1] = 8;
    refused(&a, MOE_E_INVAL, "attention: a position beyond the context");
    u.u[1] = 7;
    u.u[0] = 1;
    refused(&a, MOE_E_INVAL, "attention: a sequence that is not there");
    u.u[0] = 0;
    u.u[3] = 2 + (uint32_t) (HOST_GUARD / 128);
    refused(&a, MOE_E_INVAL, "attention: a page that is not there");
    u.u[3] = UINT32_MAX;
    refused(&a, MOE_E_INVAL, "attention: a page that is nowhere");
    u.u[3] = 1;
    a.kv.kv_heads = 0;
    refused(&a, MOE_E_INVAL, "attention: no key heads");
    a.kv.kv_heads = 1;
    a.kv.dtype = MOE_U8;
    refused(&a, MOE_E_INVAL, "attention: a cache of bytes");
    a.kv.dtype = MOE_F32;
    a.max_context = 10000;
    a.max_pages = 2500;
    refused(&a, MOE_E_INVAL, "attention: scratch for less than that");

    r.rows = 1;
    r.heads = 2;
    r.dtype = MOE_F32;
    r.rope_scale = 1.0f;
    r.kv = a.kv;
    r.ld = 32;
    r.qkv = buf_of(&q);
    r.slots = buf_of(&u);
    u.u[0] = 7;
    is_int(launch(&r), MOE_OK, "rope: a slot in range");
    u.u[0] = 12;
    refused(&r, MOE_E_INVAL, "rope: a slot that is not there");
    u.u[0] = 7;
    r.rot_dim = 10;
    refused(&r, MOE_E_INVAL, "rope: more than a head to rotate");
    r.rot_dim = 8;
    refused(&r, MOE_E_INVAL, "rope: no frequencies");
    r.rot_dim = 0;
    r.ld = 31;
    refused(&r, MOE_E_INVAL, "rope: rows closer than they are long");
    ok(buf_free(&q) & buf_free(&y) & buf_free(&k) & buf_free(&v)
           & buf_free(&u) & buf_free(&work),
       "guards are whole");
}

static void
test_route(void)
{
    struct moe_op_route r = { .op = OP(moe_op_route, MOE_OP_ROUTE) };
    struct buf b = buf_new(&host, 4096 * 4);

    memset(b.p, 0, b.bytes);
    r.rows = 2;
    r.n_experts = 8;
    r.k = 2;
    r.score = MOE_SCORE_SOFTMAX;
    r.n_group = 1;
    r.scale = 1.0f;
    r.ld = 8;
    r.logits = buf_of(&b);
    r.ids = buf_at(&b, 1024);
    r.weights = buf_at(&b, 2048);
    r.offsets = buf_at(&b, 3072);
    r.perm = buf_at(&b, 4096);
    is_int(launch(&r), MOE_OK, "route: in range");
    r.k = 9;
    refused(&r, MOE_E_INVAL, "route: more than there are");
    r.k = 0;
    refused(&r, MOE_E_INVAL, "route: none");
    r.k = 2;
    r.score = 7;
    refused(&r, MOE_E_UNSUPPORTED, "route: an unknown score");
    r.score = MOE_SCORE_SIGMOID;
    r.n_group = 3;
    r.topk_group = 1;
    refused(&r, MOE_E_INVAL, "route: groups that do not divide");
    r.n_group = 8;
    refused(&r, MOE_E_INVAL, "route: groups too small for k");
    r.n_group = 1;
    r.n_experts = 100000;
    refused(&r, MOE_E_UNSUPPORTED, "route: a hundred thousand experts");
    ok(buf_free(&b), "guards are whole");
}

/* --------------------------------------------------------------- weights -- */

static void
test_weights(void)
{
    struct moe_op_grouped_gemm op
        = { .op = OP(moe_op_grouped_gemm, MOE_OP_GROUPED_GEMM),
            .n_groups = 1, .rows = 1, .n = 40, .k = 64, .n_parts = 1,
            .dtype = MOE_F32 };
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 1,
                               .n = { 40 }, .k = { 64 } };
    struct moe_weight_src src = { .struct_size = sizeof(src) };
    const struct moe_backend_ops *o;
    struct moe_tensor t;
    struct moe_plan   plan;
    struct wset       w;
    moe_slab         *slab;
    uint64_t          before, page = (uint64_t) sysconf(_SC_PAGESIZE);

    o = host.ops;
    wset_make(&w, &host, &specs[11], &shape, 1); /* int4-g32 */
    op.dtype = MOE_BF16;
    is_int(o->query(host.dev, &op.op, &w.weights, &plan, &host.err),
           MOE_E_UNSUPPORTED, "query: bf16 activations");
    op.dtype = MOE_F32;
    op.k = 96;
    is_int(o->query(host.dev, &op.op, &w.weights, &plan, &host.err),
           MOE_E_INVAL, "query: columns that no part has");
    op.k = 64;
    is_int(o->query(host.dev, &op.op, NULL, &plan, &host.err), MOE_E_INVAL,
           "query: a product without weights");
    w.weights.affine[0] = NULL;
    is_int(o->query(host.dev, &op.op, &w.weights, &plan, &host.err),
           MOE_E_UNSUPPORTED, "query: a format without a description");
    has_str(host.err.text, "int4-g32", "which is named");
    w.weights.affine[0] = &w.affine[0];
    shape.n[0] = 0;
    w.weights.shape = &shape;
    is_int(o->query(host.dev, &op.op, &w.weights, &plan, &host.err),
           MOE_E_UNSUPPORTED, "query: an empty matrix");
    shape.n[0] = UINT64_C(1) << 40;
    is_int(o->query(host.dev, &op.op, &w.weights, &plan, &host.err),
           MOE_E_UNSUPPORTED, "query: a matrix beyond all memory");
    w.weights.shape = &w.shape;
    is_int(o->query(host.dev, &op.op, &w.weights, &plan, &host.err), MOE_OK,
           "query: as it should be");
    /* 40 rows in 3 panels of two groups of 256 + 32 bytes */
    is_int(plan.slot_bytes, 3 * 2 * (256 + 32), "exact bytes of a slot");
    plan.slot_bytes++;
    is_int(o->slab_create(host.dev, &w.weights, &plan, 2, &slab, &host.err),
           MOE_E_INVAL, "a plan that is not this one's");
    plan.slot_bytes--;
    is_int(o->slab_create(host.dev, &w.weights, &plan, 0, &slab, &host.err),
           MOE_E_INVAL, "no slots");
    before = atomic_load(&host.reserved);
    atomic_store(&host.budget, before + 1000);
    is_int(o->slab_create(host.dev, &w.weights, &plan, 9, &slab, &host.err),
           MOE_E_OVER_BUDGET, "slots beyond the budget");
    is_int(atomic_load(&host.reserved), before, "leave nothing behind");
    atomic_store(&host.budget, UINT64_C(1) << 40);
    is_int(o->slab_create(host.dev, &w.weights, &plan, 9, &slab, &host.err),
           MOE_OK, "nine slots");
    is_int(atomic_load(&host.reserved) - before,
           up(9 * plan.slot_bytes, page), "are granted in whole");
    src.part[0] = &w.tensor[0][0];
    is_int(o->slot_upload(host.stream, slab, 9, &src, &host.err), MOE_E_INVAL,
           "a tenth slot");
    t = w.tensor[0][0];
    t.len[0]--;
    src.part[0] = &t;
    is_int(o->slot_upload(host.stream, slab, 0, &src, &host.err),
           MOE_E_CORRUPT, "elements cut short");
    t.len[0]++;
    t.plane[1] = NULL;
    is_int(o->slot_upload(host.stream, slab, 0, &src, &host.err),
           MOE_E_CORRUPT, "no scales");
    t = w.tensor[0][0];
    t.n--;
    is_int(o->slot_upload(host.stream, slab, 0, &src, &host.err), MOE_E_INVAL,
           "another shape");
    src.part[0] = NULL;
    is_int(o->slot_upload(host.stream, slab, 0, &src, &host.err), MOE_E_INVAL,
           "a part that is missing");
    o->slab_destroy(slab);
    is_int(atomic_load(&host.reserved), before, "all is given back");
    wset_free(&w);
}

/* Descriptions made at random: refused, or followed without reading a byte
 * that is not there (run this with a sanitizer). */
static void
test_strange_formats(void)
{
    uint32_t i, refusals = 0, wrong = 0, taken = 0;

    for (i = 0; i < 3000; i++) {
        struct spec      s = specs[rng() % N_SPECS];
        struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 1,
                                   .n = { 1 + rng() % 20 },
                                   .k = { 1 + rng() % 80 } };
        struct moe_op_embed op
            = { .op = OP(moe_op_embed, MOE_OP_EMBED), .rows = 1,
                .dtype = MOE_F32, .scale = 1.0f };
        struct wset w;
        struct moe_affine *a;
        moe_status  st;

        s.universal = 0;
        s.nmse_x1e9 = rng() % 2 * 200000;
        wset_make(&w, &host, &s, &shape, 1);
        w.quiet = 1;
        a = &w.affine[0];
        op.n = (uint32_t) shape.n[0];
        op.k = (uint32_t) shape.k[0];
        op.ldy = op.k;
        switch (rng() % 16) {
        case 0:
            a->elem = rng() % 12;
            break;
        case 1:
            a->elem_bits = rng() % 40;
            break;
        case 2:
            a->scale = rng() % 7;
            break;
        case 3:
            a->group_n = rng() % 3;
            break;
        case 4:
            a->group_k = rng() % 40;
            break;
        case 5:
            a->block_k = rng() % 20;
            break;
        case 6:
            a->elem_row = rng() % 60;
            break;
        case 7:
            a->elem_block = (uint64_t) rng() << (rng() % 32);
            break;
        case 8:
            a->scale_row = (uint64_t) rng() << (rng() % 32);
            break;
        case 9:
            a->scale_group = rng() % 9;
            break;
        case 10:
            a->zero_bits = rng() % 20;
            break;
        case 11:
            a->zero_block_n = rng() % 10;
            break;
        case 12:
            a->zero_row = rng() % 30;
            break;
        case 13:
            a->bias = (int32_t) rng();
            break;
        case 14:
            a->zero_bias = (int32_t) (rng() % 20) - 10;
            break;
        default:
            a->struct_size = rng() % 200;
            break;
        }
        st = host.ops->query(host.dev, &op.op, &w.weights, &w.plan,
                             &host.err);
        refusals += st == MOE_E_UNSUPPORTED;
        wrong += st != MOE_OK && st != MOE_E_UNSUPPORTED;
        if (st == MOE_OK) {
            uint32_t j;

            /* planes as long as the description needs, if that is little */
            for (j = 0; j < 3; j++) {
                uint64_t len = moe_ref_affine_bytes(a, op.n, op.k, j);
                void    *p;

                free((void *) (uintptr_t) w.tensor[0][0].plane[j]);
                w.tensor[0][0].plane[j] = NULL;
                w.tensor[0][0].len[j] = 0;
                if (len == 0 || len > 1 << 20)
                    continue;
                p = calloc(len, 1);
                w.tensor[0][0].plane[j] = p;
                w.tensor[0][0].len[j] = len;
            }
            if (w.plan.slot_bytes < 1 << 20 && wset_upload(&w, &op.op) == 0) {
                struct buf ids = buf_new(&host, 4);
                struct buf y = buf_new(&host, op.k * 4);

                ids.u[0] = op.n - 1;
                op.w = w.wref[0];
                op.ids = buf_of(&ids);
                op.y = buf_of(&y);
                wrong += launch(&op) != MOE_OK;
                taken++;
                buf_free(&ids);
                buf_free(&y);
            }
        }
        wset_free(&w);
    }
    is_int(wrong, 0, "3000 strange descriptions: %u refused, %u followed",
           refusals, taken);
}

/* ----------------------------------------------------------------- faults -- */

/* Everything once, the n-th grant or allocation of it refused. */
static moe_status
whole_life(long long n)
{
    struct moe_op_grouped_gemm op
        = { .op = OP(moe_op_grouped_gemm, MOE_OP_GROUPED_GEMM),
            .n_groups = 1, .rows = 1, .n = 40, .k = 64, .n_parts = 1,
            .dtype = MOE_F32, .ldx = 64, .ldy = 40 };
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 1,
                               .n = { 40 }, .k = { 64 } };
    struct wset w;
    moe_mem    *mem = NULL;
    moe_event  *ev = NULL;
    moe_status  st;

    st = host_init(&host, NULL, 2);
    host.plugin->fini(host.self);
    atomic_store(&host.fail_in, n);
    st = host.plugin->init(&host.host, &host.self, &host.err);
    if (st != MOE_OK)
        host.self = NULL;
    if (st == MOE_OK)
        st = host.ops->device_open(host.self, 0, &host.dev, &host.err);
    if (st == MOE_OK)
        st = host.ops->stream_create(host.dev, 0, &host.stream, &host.err);
    if (st == MOE_OK)
        st = host.ops->event_create(host.dev, &ev, &host.err);
    if (st == MOE_OK)
        st = host.ops->mem_alloc(host.dev, 1000, MOE_USE_ACT, &mem,
                                 &host.err);
    memset(&w, 0, sizeof(w));
    if (st == MOE_OK) {
        wset_make(&w, &host, &specs[13], &shape, 1);
        st = host.ops->query(host.dev, &op.op, &w.weights, &w.plan,
                             &host.err);
        if (st == MOE_OK)
            st = host.ops->slab_create(host.dev, &w.weights, &w.plan, 1,
                                       &w.slab, &host.err);
        wset_free(&w);
    }
    if (mem != NULL)
        host.ops->mem_free(mem);
    if (ev != NULL)
        host.ops->event_destroy(ev);
    return st;
}

static void
test_faults(void)
{
    long long  n;
    moe_status st = MOE_E_NOMEM;
    int        bad = 0;

    for (n = 0; n < 30 && st != MOE_OK; n++) {
        st = whole_life(n);
        bad += st != MOE_OK && st != MOE_E_NOMEM && st != MOE_E_OVER_BUDGET;
        bad += st != MOE_OK && host.err.text[0] == '\0';
        bad += !host_close(&host);
    }
    ok(st == MOE_OK && bad == 0,
       "each of %lld grants and allocations can fail", n - 1);
}

int
main(void)
{
    test_plugin();
    if (!ok(host_open(&host, NULL, 2) == MOE_OK, "opened"))
        return tap_done();
    test_memory();
    test_gemm();
    test_embed_norm();
    test_ffn();
    test_attention();
    test_route();
    test_weights();
    test_strange_formats();
    ok(host_close(&host), "nothing is left behind");
    test_faults();
    return tap_done();
}
