/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_check.c - every rule that the check wrapper knows is seen broken.
 *
 * Around the fake device for mistakes of a caller, around liar.c for those of
 * a backend.  Sound use breaks none.
 */

#include "backend/check/check.h"
#include "device.h"
#include "tap.h"

#define CHECK "plugins/backend/check/.libs/check.so"
#define FAKE  "plugins/backend/fake/.libs/fake.so"
#define LIAR  "tests/plugin/.libs/liar.so"

static const struct moe_check_report *report;

/* Key and value beside `around`; NULL: none. */
static int
begin(struct test_device *t, const char *around, const char *key,
      const char *value)
{
    static char path[1024], full[64];
    const char *config[5] = { "backend.check.around", path, NULL, NULL, NULL };
    moe_status  status;

    snprintf(path, sizeof(path), "%s", test_built(around));
    if (key != NULL) {
        snprintf(full, sizeof(full), "backend.check.%s", key);
        config[2] = full;
        config[3] = value;
    }
    status = test_load(t, test_built(CHECK), "check", config);
    t->host.config = NULL;
    if (status == MOE_OK)
        status = test_open(t);
    if (!ok(status == MOE_OK, "check around %s%s%s", around,
            key != NULL ? ", " : "", key != NULL ? value : "")) {
        tap_diag("%s", t->err.text);
        return 0;
    }
    report = t->ops->extension(t->dev, MOE_CHECK_EXTENSION);
    return 1;
}

/* One more rule was broken than before, and it is this one. */
static void
broken(struct test_device *t, uint64_t *before, const char *part,
       const char *what)
{
    uint64_t n = report->violations(t->dev);

    is_int(n - *before, 1, "%s: one rule is broken", what);
    has_str(report->last(t->dev), part, "  this one");
    *before = n;
}

static struct moe_op_grouped_gemm
product(void)
{
    struct moe_op_grouped_gemm op = { .op = { .struct_size = sizeof(op),
                                              .code = MOE_OP_GROUPED_GEMM },
                                      .n_groups = 1,
                                      .rows = 1,
                                      .n = 2,
                                      .k = 3,
                                      .n_parts = 1,
                                      .dtype = MOE_F32,
                                      .ldx = 3,
                                      .ldy = 2 };
    return op;
}

/* Mistakes of a caller. */
static void
test_caller(void)
{
    static const float w[6] = { 1, 2, 3, 4, 5, 6 }, x[3] = { 1, 1, 1 };
    struct test_device t;
    struct moe_op_grouped_gemm op = product();
    struct moe_shape   shape = { sizeof(shape), 1, { 2 }, { 3 } };
    struct moe_weights about = { .struct_size = sizeof(about),
                                 .format = &test_f32,
                                 .shape = &shape };
    struct moe_tensor  tensor = { .struct_size = sizeof(tensor),
                                  .n = 2,
                                  .k = 3 };
    struct moe_weight_src src = { .struct_size = sizeof(src) };
    struct moe_plan    plan = { .struct_size = sizeof(plan) };
    struct moe_wref    ref = { NULL, 0, 0 };
    struct moe_buf     b = { NULL, 0 };
    moe_stream        *other = NULL;
    moe_event         *ev = NULL;
    moe_mem           *gone;
    float              y[2] = { 0, 0 };
    uint64_t           n = 0;

    if (!begin(&t, FAKE, NULL, NULL))
        return;
    tensor.plane[0] = w;
    tensor.len[0] = sizeof(w);
    src.part[0] = &tensor;

    /* All as it should be. */
    t.ops->stream_create(t.dev, 0, &other, &t.err);
    t.ops->event_create(t.dev, &ev, &t.err);
    is_int(t.ops->query(t.dev, &op.op, &about, &plan, &t.err), MOE_OK,
           "query");
    is_int(t.ops->slab_create(t.dev, &about, &plan, 2, &ref.slab, &t.err),
           MOE_OK, "a slab");
    is_int(t.ops->slot_upload(other, ref.slab, 0, &src, &t.err), MOE_OK,
           "a slot is filled on another stream");
    t.ops->event_record(other, ev);
    t.ops->stream_wait(t.s, ev);
    test_put(&t, x, sizeof(x), &op.x);
    test_put(&t, NULL, 8, &op.y);
    test_put(&t, NULL, plan.work_bytes, &op.work);
    op.w = &ref;
    is_int(t.ops->launch(t.s, &op.op, &t.err), MOE_OK, "a launch");
    is_int(test_get(&t, op.y, y, 8), MOE_OK, "a result");
    ok(y[0] == 6 && y[1] == 15, "is right: the one inside did it");
    is_int(report->violations(t.dev), 0, "and no rule is broken");

    /* Slots. */
    ref.slot = 1;
    is_int(t.ops->launch(t.s, &op.op, &t.err), MOE_E_INVAL,
           "a slot that was never filled");
    has_str(t.err.text, "rule broken", "  is refused as a rule");
    broken(&t, &n, "never filled", "it");
    t.ops->slot_upload(other, ref.slab, 1, &src, &t.err);
    t.ops->launch(t.s, &op.op, &t.err);
    broken(&t, &n, "before it is sure", "a slot without waiting");
    t.ops->event_record(other, ev);
    t.ops->stream_wait(t.s, ev);
    is_int(t.ops->launch(t.s, &op.op, &t.err), MOE_OK, "with waiting");
    t.ops->slot_upload(other, ref.slab, 1, &src, &t.err);
    broken(&t, &n, "may still run", "a slot filled under work");
    t.ops->slot_advise(ref.slab, 1, MOE_ADVISE_DONE);
    broken(&t, &n, "given up", "a slot given up under work");
    t.ops->slot_upload(t.s, ref.slab, 2, &src, &t.err);
    broken(&t, &n, "slot 2 of 2", "a slot past the last");
    tensor.k = 2;
    t.ops->slot_upload(t.s, ref.slab, 1, &src, &t.err);
    broken(&t, &n, "2 x 2", "a tensor of another shape");
    tensor.k = 3;
    src.struct_size = 0;
    t.ops->slot_upload(t.s, ref.slab, 1, &src, &t.err);
    broken(&t, &n, "struct_size", "a source without its size");
    src.struct_size = sizeof(src);
    t.ops->slab_destroy(ref.slab);
    broken(&t, &n, "slab is destroyed while", "a slab destroyed under work");
    t.ops->launch(t.s, &op.op, &t.err);
    broken(&t, &n, "destroyed before", "a slab used after that");
    test_sync(&t); /* the fake device saw it, too */
    test_close(&t);
    t.ops->event_destroy(ev);
    t.ops->stream_destroy(other);
    has_str(t.host.log, "objects are alive",
            "a device closed before its objects");
    t.ops->mem_free(op.x.mem);
    t.ops->mem_free(op.y.mem);
    t.ops->mem_free(op.work.mem);
    test_unload(&t);
    is_int(t.host.held, 0, "even so, the ledger is at zero");

    /* Buffers and payloads. */
    if (!begin(&t, FAKE, "devices", "2"))
        return;
    n = 0;
    op = product();
    memset(&plan, 0, sizeof(plan));
    t.ops->query(t.dev, &op.op, &about, &plan, &t.err);
    broken(&t, &n, "moe_plan.struct_size", "a plan without its size");
    plan.struct_size = sizeof(plan);
    t.ops->query(t.dev, &op.op, NULL, &plan, &t.err);
    broken(&t, &n, "without weights", "a query without weights");
    op.op.struct_size = 16;
    t.ops->query(t.dev, &op.op, &about, &plan, &t.err);
    broken(&t, &n, "struct_size of GROUPED_GEMM is 16", "a payload too short");
    t.ops->launch(t.s, &op.op, &t.err);
    broken(&t, &n, "struct_size of GROUPED_GEMM is 16", "launched as well");
    op.op.struct_size = sizeof(op);
    about.struct_size = 0;
    t.ops->query(t.dev, &op.op, &about, &plan, &t.err);
    broken(&t, &n, "moe_weights.struct_size", "weights without their size");
    about.struct_size = sizeof(about);
    shape.n_parts = 0;
    t.ops->query(t.dev, &op.op, &about, &plan, &t.err);
    broken(&t, &n, "0 parts", "a shape of no parts");
    shape.n_parts = 1;
    t.ops->query(t.dev, &op.op, &about, &plan, &t.err);
    test_weights(&t, &op.op, w, 2, 3, &plan, &ref.slab);
    ref.slot = 0;
    op.w = &ref;
    test_put(&t, x, sizeof(x), &op.x);
    test_put(&t, NULL, 8, &op.y);
    is_int(report->violations(t.dev), n, "(no other rule so far)");
    t.ops->launch(t.s, &op.op, &t.err);
    broken(&t, &n, "bytes of work and gets 0", "a launch without its scratch");
    test_put(&t, NULL, plan.work_bytes, &op.work);
    op.ldx = 2;
    t.ops->launch(t.s, &op.op, &t.err);
    broken(&t, &n, "row stride", "rows that overlap");
    op.ldx = 3;
    op.rows = 2;
    t.ops->launch(t.s, &op.op, &t.err);
    broken(&t, &n, "x needs 24 bytes", "more rows than x has");
    op.rows = 1;
    op.n = 1;
    t.ops->launch(t.s, &op.op, &t.err);
    broken(&t, &n, "not those of its weights", "another n than the weights");
    op.n = 2;
    ref.part = 1;
    t.ops->launch(t.s, &op.op, &t.err);
    broken(&t, &n, "parts 1", "a part that is not there");
    ref.part = 0;
    is_int(t.ops->upload(t.s, (struct moe_buf){ op.x.mem, 8 }, x, 12),
           MOE_E_INVAL, "an upload past the end");
    broken(&t, &n, "12 bytes from 8 on, of memory of 12", "it");
    {
        moe_device *second = NULL;
        moe_mem    *theirs = NULL;

        t.ops->device_open(t.self, 1, &second, &t.err);
        t.ops->mem_alloc(second, 12, MOE_USE_ACT, &theirs, &t.err);
        t.ops->upload(t.s, (struct moe_buf){ theirs, 0 }, x, 12);
        broken(&t, &n, "belongs to another device", "another device's memory");
        t.ops->mem_free(theirs);
        t.ops->device_close(second);
    }
    is_int(t.ops->mem_alloc(t.dev, 8, 77, &gone, &t.err), MOE_E_INVAL,
           "memory for an unknown use");
    broken(&t, &n, "use 77", "it");

    /* Life and death. */
    t.ops->mem_alloc(t.dev, 12, MOE_USE_ACT, &b.mem, &t.err);
    t.ops->upload(t.s, b, x, 12);
    t.ops->event_record(t.s, t.ev);
    t.ops->event_wait(t.ev, FOREVER, &t.err);
    t.ops->mem_free(b.mem);
    is_int(report->violations(t.dev), n, "memory freed after its event");
    t.ops->upload(t.s, b, x, 12);
    broken(&t, &n, "destroyed before", "and then used");
    t.ops->mem_free(b.mem);
    broken(&t, &n, "destroyed before", "and freed twice");
    t.ops->upload(t.s, (struct moe_buf){ (moe_mem *) (void *) t.ev, 0 }, x,
                  1);
    broken(&t, &n, "another kind", "an event as memory");
    t.ops->mem_alloc(t.dev, 12, MOE_USE_ACT, &b.mem, &t.err);
    t.ops->upload(t.s, b, x, 12);
    t.ops->mem_free(b.mem);
    broken(&t, &n, "freed while", "memory freed under work");
    is_int(test_sync(&t), MOE_E_DEVICE, "which the device inside does not "
                                        "survive");
    t.ops->upload(t.s, op.x, x, 12);
    broken(&t, &n, "has failed", "work for a device that has failed");
    t.ops->mem_free(op.x.mem);
    t.ops->mem_free(op.y.mem);
    t.ops->mem_free(op.work.mem);
    t.ops->slab_destroy(ref.slab);
    is_int(report->violations(t.dev), n, "to give up everything is right");
    test_unload(&t);
    is_int(t.host.held, 0, "the ledger is at zero");
    is_int(t.host.blocks, 0, "no host memory is left");
}

/* --------------------------------------------------- mistakes of a backend -- */

static struct test_device *in_call; /* of test_threads */
static struct moe_buf      in_buf;
static moe_status          in_status;

/* The backend logs from within upload: use the same stream meanwhile. */
static void
log_and_call(void *ctx, uint32_t level, const char *line)
{
    struct test_device *t = in_call;

    if (t != NULL && strstr(line, "in upload") != NULL) {
        in_call = NULL;
        in_status = t->ops->upload(t->s, in_buf, "x", 1);
    }
    test_log(ctx, level, line);
}

static void
test_threads(void)
{
    struct test_device t;
    char        around[1024];
    const char *path = test_built(CHECK), *found;
    const char *config[] = { "backend.check.around", around,
                             "backend.check.lie", "call", NULL };
    uint64_t    n = 0;

    memset(&t, 0, sizeof(t));
    t.err.struct_size = sizeof(t.err);
    snprintf(around, sizeof(around), "%s", test_built(LIAR));
    test_host_init(&t.host, config);
    t.host.services.log = log_and_call;
    is_int(moe_registry_open(&t.host.services, "", &path, 1, &t.r, &t.err),
           MOE_OK, "a backend that calls back");
    if (t.r == NULL
        || moe_registry_backend(t.r, "check", &t.ops, &t.self, &found, &t.err)
               != MOE_OK
        || test_open(&t) != MOE_OK) {
        ok(0, "it opens: %s", t.err.text);
        return;
    }
    report = t.ops->extension(t.dev, MOE_CHECK_EXTENSION);
    t.ops->mem_alloc(t.dev, 4, MOE_USE_ACT, &in_buf.mem, &t.err);
    in_call = &t;
    t.ops->upload(t.s, in_buf, "y", 1);
    is_int(in_status, MOE_E_INVAL, "a stream that is used twice at once");
    broken(&t, &n, "two threads use one stream", "it");
    test_sync(&t);
    t.ops->mem_free(in_buf.mem);
    test_unload(&t);
}

static void
test_backend(void)
{
    static const char *const plans[][2] = {
        { "tier", "tier 1" },
        { "why", "does not end" },
        { "size", "slots of 0 bytes" },
    };
    struct test_device t;
    struct moe_op_grouped_gemm op = product();
    struct moe_shape   shape = { sizeof(shape), 1, { 2 }, { 3 } };
    struct moe_weights about = { .struct_size = sizeof(about),
                                 .format = &test_f32,
                                 .shape = &shape };
    struct moe_plan    plan = { .struct_size = sizeof(plan) };
    moe_slab          *slab = NULL;
    moe_mem           *mem = NULL;
    uint64_t           n;
    size_t             i;

    if (begin(&t, LIAR, NULL, NULL)) {
        is_int(t.ops->mem_alloc(t.dev, 100, MOE_USE_ACT, &mem, &t.err),
               MOE_OK, "without a lie there is memory");
        t.ops->mem_free(mem);
        t.ops->query(t.dev, &op.op, &about, &plan, &t.err);
        n = report->violations(t.dev);
        is_int(n, 0, "and no rule is broken");
        is_int(t.ops->slab_create(t.dev, &about, &plan, 2, &slab, &t.err),
               MOE_E_INVAL, "a slab that reserves for one slot of two");
        broken(&t, &n, "reserved 256 bytes for 2 slots", "it");
        test_unload(&t);
        is_int(t.host.held, 0, "and is undone");
    }
    if (begin(&t, LIAR, "lie", "no-reserve")) {
        n = 0;
        is_int(t.ops->mem_alloc(t.dev, 100, MOE_USE_ACT, &mem, &t.err),
               MOE_E_INVAL, "memory that was not reserved");
        broken(&t, &n, "reserved 0 bytes for 100", "it");
        test_unload(&t);
    }
    if (begin(&t, LIAR, "lie", "much")) {
        n = 0;
        t.ops->mem_alloc(t.dev, 100, MOE_USE_ACT, &mem, &t.err);
        broken(&t, &n, "reserved 512 bytes for 100", "too much reserved");
        test_unload(&t);
    }
    if (begin(&t, LIAR, "lie", "keep")) {
        n = 0;
        is_int(t.ops->mem_alloc(t.dev, 1000, MOE_USE_ACT, &mem, &t.err),
               MOE_E_NOMEM, "a failure");
        broken(&t, &n, "kept 256 reserved bytes", "a reservation kept");
        test_unload(&t);
    }
    for (i = 0; i < sizeof(plans) / sizeof(*plans); i++)
        if (begin(&t, LIAR, "lie", plans[i][0])) {
            n = 0;
            is_int(t.ops->query(t.dev, &op.op, &about, &plan, &t.err),
                   MOE_E_INVAL, "a plan with a fault");
            broken(&t, &n, plans[i][1], "it");
            test_unload(&t);
        }
    if (begin(&t, LIAR, "lie", "no-view")) {
        n = 0;
        t.ops->mem_alloc(t.dev, 100, MOE_USE_ACT, &mem, &t.err);
        ok(t.ops->mem_host_ptr(mem) == NULL, "a host pointer not given");
        broken(&t, &n, "MOE_CAP_HOST_VIEW", "it");
        t.ops->mem_free(mem);
        test_unload(&t);
    }
    if (begin(&t, LIAR, "lie", "heal")) {
        n = 0;
        is_int(test_sync(&t), MOE_E_DEVICE, "a fault");
        is_int(report->violations(t.dev), 0, "is no rule broken");
        t.ops->event_query(t.ev, &t.err);
        broken(&t, &n, "stays so until it is closed", "a device that heals");
        test_unload(&t);
    }
}

static void
refused(const char *around, moe_status want, const char *part,
        const char *what)
{
    struct test_device t;
    char               path[1024];
    const char *config[] = { "backend.check.around", path, NULL };

    snprintf(path, sizeof(path), "%s", around != NULL ? around : "");
    is_int(test_load(&t, test_built(CHECK), "check",
                     around != NULL ? config : NULL),
           want, "%s", what);
    has_str(t.err.text, part, "  says what is wanted");
    moe_registry_close(t.r);
}

int
main(void)
{
    refused(NULL, MOE_E_ABSENT, "around names no backend",
            "around nothing");
    refused("cpu", MOE_E_INVAL, "path of a backend's file", "around a name");
    refused("/nowhere/x.so", MOE_E_ABI, "/nowhere/x.so", "around no file");
    refused(test_built("tests/plugin/.libs/odd.so"), MOE_E_ABI,
            "no complete backend", "around a quantizer");
    refused(test_built("tests/plugin/.libs/bad_table.so"), MOE_E_ABI,
            "no complete backend", "around a table with a hole");
    refused(test_built("tests/plugin/.libs/bad_major.so"), MOE_E_ABI,
            "no plugin of this ABI", "around another ABI");
    test_caller();
    test_threads();
    test_backend();
    return tap_done();
}
