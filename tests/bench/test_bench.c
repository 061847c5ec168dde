/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a benchmark counts: the bytes, operations and experts of a step
 * against sums made here from the model's shape; tokens and steps; refusals;
 * the probes of the machine.
 */
#include <math.h>

#include "bench/ceiling.h"

#include "tap.h"

static moe_bench *
open_bench(const char *model, const struct moe_bench_test *tests, uint32_t n,
           uint32_t flags, const char *const *set, struct moe_error *err)
{
    struct moe_bench_setup setup = {.struct_size = sizeof(setup),
                                    .flags = flags, .repetitions = 3,
                                    .n_tests = n, .tests = tests};
    moe_options           *o = NULL;
    moe_bench             *b = NULL;
    moe_status             st = moe_options_new(&o, err);

    if (st == MOE_OK)
        st = moe_options_load_defaults(o, err);
    if (st == MOE_OK)
        st = moe_options_set(o, "model.path", tap_src(model), MOE_FROM_ARG,
                             err);
    for (; set != NULL && st == MOE_OK && set[0] != NULL; set += 2)
        st = moe_options_set(o, set[0], set[1], MOE_FROM_ARG, err);
    if (st == MOE_OK)
        st = moe_bench_open(o, &setup, &b, err);
    moe_options_free(o);
    return b;
}

/* tests/model/fixtures/olmoe: hidden 32, 2 layers, 4 heads of 8, 8 experts
 * of width 24, 4 for a token, vocabulary 110, not tied, f32. */
#define H 32.0
#define QKV  (3 * H * H)
#define OUT  (H * H)
#define ROUT (8 * H)
#define FFN  (3 * H * 24)
#define HEAD (110 * H)

static void
test_counts(void)
{
    static const struct moe_bench_test tests[] = {
        {sizeof(tests[0]), 0, 5, 1, 0},
        {sizeof(tests[0]), 0, 6, 4, 7},
        {sizeof(tests[0]), 40, 0, 1, 0},
        {sizeof(tests[0]), 40, 0, 2, 16},
    };
    static const char *const set[] = {"engine.batch_rows", "16", NULL};
    struct moe_error         err = {.struct_size = sizeof(err)};
    struct moe_bench_result  r = {.struct_size = sizeof(r)};
    struct moe_bench_op      op = {.struct_size = sizeof(op)};
    double                   bytes, ops, tps, dense, sum = 0;
    uint32_t                 i, named = 0;
    moe_bench *b = open_bench("tests/model/fixtures/olmoe", tests, 4,
                              MOE_BENCH_NO_MACHINE | MOE_BENCH_OPS, set, &err);

    if (!ok(b != NULL, "a bench opens")) {
        tap_diag("%s", err.text);
        return;
    }
    ok(moe_bench_machine(b, NULL, &err) == MOE_E_NOT_FOUND,
       "no ceilings were asked for");
    dense = 2 * (QKV + OUT + ROUT) + HEAD;
    ok(moe_bench_run(b, &tests[0], &r, &err) == MOE_OK, "tg5 runs");
    is_int((long long) r.tokens, 5, "... five tokens");
    is_int((long long) r.steps, 5, "... in five steps");
    is_int(r.repetitions, 3, "... three times");
    ops = 2 * (dense + 2 * 4 * FFN);
    ok(r.ops == ops, "... operations of a step: %g, %g wanted", r.ops, ops);
    /* slots may be padded, but not by much */
    bytes = ops / 2 * 4;
    ok(r.weight_bytes >= bytes && r.weight_bytes < 2.5 * bytes,
       "... bytes of a step: %g, at least %g wanted", r.weight_bytes, bytes);
    ok(r.distinct == 4 && fabs(r.expected_distinct - 4) < 1e-9,
       "... four experts");
    /* 2 layers, k and v of 32, f32; positions 1 to 5: 2..6 tokens */
    ok(r.kv_bytes == 2 * 2 * H * 4 * 4, "... cached bytes: %g", r.kv_bytes);
    ok(r.read_share == 0 && r.arith_share == 0, "... no shares");
    ok(r.tps_min <= r.tps && r.tps <= r.tps_max && r.tps_min > 0,
       "... the median lies between");
    for (i = 0; moe_bench_sample(b, i, &tps) == MOE_OK; i++)
        sum += tps;
    is_int(i, 3, "... three samples");
    ok(sum > 0 && r.tps * 3 > r.tps_min, "... of which it is made");
    for (i = 0, bytes = ops = 0; moe_bench_op_at(b, i, &op) == MOE_OK; i++) {
        if (strcmp(op.name, "attention") != 0)
            bytes += op.bytes;
        ops += op.ops;
        named += strcmp(op.name, "expert ffn") == 0 && op.calls == 2
                 && op.seconds > 0;
    }
    ok(named == 1, "... the expert products, once a layer, timed");
    ok(fabs(bytes - r.weight_bytes) < 1 && fabs(ops - r.ops) < 1,
       "... the operations add up");

    ok(moe_bench_run(b, &tests[1], &r, &err) == MOE_OK, "tg6 b4 @ d7 runs");
    is_int((long long) r.tokens, 24, "... 24 tokens");
    is_int((long long) r.steps, 6, "... in six steps");
    ok(fabs(r.ops - 2 * 4 * (dense + 2 * 4 * FFN)) < 1,
       "... four rows of operations");
    ok(r.distinct >= 4 && r.distinct <= 8, "... %g experts", r.distinct);
    ok(fabs(r.expected_distinct - 8 * (1 - pow(0.5, 4))) < 1e-9,
       "... %g expected", r.expected_distinct);

    ok(moe_bench_run(b, &tests[2], &r, &err) == MOE_OK, "pp40 runs");
    is_int((long long) r.tokens, 40, "... 40 tokens");
    is_int((long long) r.steps, 3, "... in three steps of 16");
    if (!ok(moe_bench_run(b, &tests[3], &r, &err) == MOE_OK,
            "pp40 b2 @ d16 runs"))
        tap_diag("%s", err.text);
    is_int((long long) r.tokens, 80, "... 80 tokens");
    is_int((long long) r.steps, 5, "... in five steps of 16");
    moe_bench_close(b);
}

/* The bytes of experts follow those that were used. */
static void
test_distinct(void)
{
    static const struct moe_bench_test one = {sizeof(one), 0, 4, 1, 0};
    static const struct moe_bench_test many = {sizeof(many), 0, 4, 16, 0};
    struct moe_bench_test              both[2] = {one, many};
    struct moe_error                   err = {.struct_size = sizeof(err)};
    struct moe_bench_result            a = {.struct_size = sizeof(a)};
    struct moe_bench_result            z = {.struct_size = sizeof(z)};
    double                             expert;
    moe_bench *b = open_bench("tests/model/fixtures/olmoe", both, 2,
                              MOE_BENCH_NO_MACHINE, NULL, &err);

    if (!ok(b != NULL, "a bench opens")) {
        tap_diag("%s", err.text);
        return;
    }
    ok(moe_bench_run(b, &one, &a, &err) == MOE_OK, "one sequence");
    ok(moe_bench_run(b, &many, &z, &err) == MOE_OK, "sixteen sequences");
    expert = FFN * 4;
    ok(z.distinct > a.distinct, "more experts are used: %g", z.distinct);
    ok(z.weight_bytes - a.weight_bytes
           >= 0.9 * 2 * (z.distinct - a.distinct) * expert,
       "and counted: %g more bytes", z.weight_bytes - a.weight_bytes);
    ok(z.weight_bytes < a.weight_bytes * 8 / 4,
       "all else is read once for all");
    moe_bench_close(b);
}

static void
test_refusals(void)
{
    static const struct moe_bench_test test = {sizeof(test), 0, 4, 2, 0};
    static const char *const small[] = {"model.context", "16", NULL};
    struct moe_bench_result  r = {.struct_size = sizeof(r)};
    struct moe_error         err = {.struct_size = sizeof(err)};
    struct moe_bench_test    t = test;
    moe_bench *b = open_bench("tests/model/fixtures/olmoe", &test, 1,
                              MOE_BENCH_NO_MACHINE, NULL, &err);

    if (!ok(b != NULL, "a bench opens")) {
        tap_diag("%s", err.text);
        return;
    }
    t.batch = 3;
    ok(moe_bench_run(b, &t, &r, &err) == MOE_E_INVAL,
       "more sequences than there was room made for: %s", err.text);
    t.batch = 0;
    ok(moe_bench_run(b, &t, &r, &err) == MOE_E_INVAL, "no sequence");
    t = test;
    t.n_prompt = 3;
    ok(moe_bench_run(b, &t, &r, &err) == MOE_E_INVAL, "two things at once");
    t = test;
    t.depth = 200;
    ok(moe_bench_run(b, &t, &r, &err) == MOE_E_INVAL,
       "longer than the context: %s", err.text);
    t = test;
    t.struct_size = 4;
    ok(moe_bench_run(b, &t, &r, &err) == MOE_E_INVAL, "a struct too small");
    ok(moe_bench_run(b, &test, &r, &err) == MOE_OK, "and then it runs");
    moe_bench_close(b);

    t = test;
    t.depth = 20;
    b = open_bench("tests/model/fixtures/olmoe", &t, 1, MOE_BENCH_NO_MACHINE,
                   small, &err);
    ok(b == NULL && strstr(err.text, "model.context") != NULL,
       "model.context stands, and is named: %s", err.text);
    t.depth = 2000;
    b = open_bench("tests/model/fixtures/olmoe", &t, 1, MOE_BENCH_NO_MACHINE,
                   NULL, &err);
    ok(b == NULL, "more than the model knows: %s", err.text);
}

/* Prompts that fill the context end with the logits of a token, unless the
 * model knows no longer ones: the fixture knows 256 tokens. */
static void
test_prompt_room(void)
{
    static const struct {
        uint32_t tokens, head;
    } rows[] = {{16, 1}, {255, 1}, {256, 0}};
    uint32_t i, j;

    for (i = 0; i < 3; i++) {
        struct moe_bench_test   t = {sizeof(t), rows[i].tokens, 0, 1, 0};
        struct moe_bench_result r = {.struct_size = sizeof(r)};
        struct moe_bench_op     op = {.struct_size = sizeof(op)};
        struct moe_error        err = {.struct_size = sizeof(err)};
        uint32_t                head = 0;
        moe_bench *b = open_bench("tests/model/fixtures/olmoe", &t, 1,
                                  MOE_BENCH_NO_MACHINE | MOE_BENCH_OPS, NULL,
                                  &err);

        if (!ok(b != NULL && moe_bench_run(b, &t, &r, &err) == MOE_OK,
                "a prompt of %u tokens: %s", rows[i].tokens, err.text)) {
            moe_bench_close(b);
            continue;
        }
        for (j = 0; moe_bench_op_at(b, j, &op) == MOE_OK; j++)
            head += strcmp(op.name, "output head") == 0;
        is_int(head, rows[i].head, "... and the head");
        moe_bench_close(b);
    }
}

static void
test_machine(void)
{
    struct moe_error         err = {.struct_size = sizeof(err)};
    struct moe_bench_machine m;
    struct moe_ledger       *ledger = NULL;
    struct moe_pool         *pool = NULL;
    struct moe_ceiling      *c = NULL;
    struct moe_ledger_domain d;
    double v[] = {3, 1, 2, 9}, read = 0, arith = 0;
    static uint8_t page[4096];
    struct moe_kernels k;
    uint64_t           want = 0;
    size_t             i;

    ok(moe_median(v, 4) == 2.5 && moe_median(v, 3) == 2
           && moe_median(v, 0) == 0,
       "medians");
    for (i = 0; i < sizeof(page); i++)
        page[i] = (uint8_t) (i * 7);
    for (i = 0; i < sizeof(page); i += 8) {
        uint64_t x;

        memcpy(&x, page + i, 8);
        want += x;
    }
    moe_kernels_pick(&k);
    ok(k.read(page, sizeof(page)) == want, "every byte is read once");
    ok(k.read_streams(page, sizeof(page)) == want, "... in four streams too");
    ok(moe_ledger_open(&ledger, &err) == MOE_OK
           && moe_pool_open(2, &pool, &err) == MOE_OK,
       "ledger and threads");
    (void) moe_ledger_limit(ledger, MOE_LEDGER_HOST, 1 << 20, &err);
    ok(moe_ceiling_open(pool, ledger, &c, &err) == MOE_E_OVER_BUDGET,
       "a budget too small: %s", err.text);
    moe_ledger_domain(ledger, MOE_LEDGER_HOST, &d);
    ok(d.used == 0, "... and nothing is kept");
    /* as little as there may be: caches of 300 MB exist */
    for (i = 128; c == NULL && i < 8192; i *= 2) {
        (void) moe_ledger_limit(ledger, MOE_LEDGER_HOST,
                                (uint64_t) (i + 2) << 20, &err);
        (void) moe_ceiling_open(pool, ledger, &c, &err);
    }
    if (ok(c != NULL, "the machine is measured")) {
        moe_ceiling_measure(c, 1, &m);
        ok(m.read_4k > 1e7 && m.read_2m > 1e7 && m.read_4k_streams > 1e7
               && m.read_2m_streams > 1e7 && m.read_2m < 1e14,
           "reading: %.1f GB/s", m.read_2m / 1e9);
        ok(m.f32_ops > 1e4 && m.f32_ops < 1e15, "f32: %.1f Gop/s by %s",
           m.f32_ops / 1e9, m.f32_by);
        ok(m.int8_ops >= 0, "int8: %.1f Gop/s by %s", m.int8_ops / 1e9,
           m.int8_by);
        moe_ceiling_now(c, &read, &arith);
        ok(read > 1e7 && arith > 1e7, "and again");
        moe_ceiling_close(c);
    }
    moe_ledger_domain(ledger, MOE_LEDGER_HOST, &d);
    ok(d.used == 0, "the buffer is given back");
    moe_pool_close(pool);
    (void) moe_ledger_close(ledger);
}

int
main(void)
{
    test_counts();
    test_distinct();
    test_refusals();
    test_prompt_room();
    test_machine();
    return tap_done();
}
