/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shapes with random weights: made-up bytes are the same however they are
 * read, look as they were asked to, and make models that run in every format,
 * with even routing unless a skew is asked for.
 */
#include <math.h>

#include <json-c/json.h>

#include "checkpoint/synthetic.h"
#include "support/half.h"
#include "tap.h"

#include <moe/moe.h>

#define QWEN "tests/quant/fixtures/qwen3_moe-w4a16"

static struct moe_checkpoint *
make(uint64_t seed)
{
    static const struct moe_made_tensor t[] = {
        {"bf16", "BF16", 2, MOE_MADE_BELL, {300, 64}, 0.5, 0, NULL},
        {"codes", "I32", 2, MOE_MADE_NIBBLES, {64, 128}, 0, 0, NULL},
        {"scales", "BF16", 2, MOE_MADE_SCALES, {64, 16}, 0.25, 0, NULL},
        {"ones", "F32", 1, MOE_MADE_CONST, {33}, 1, 0, NULL},
        {"fp8", "F8_E4M3", 2, MOE_MADE_BELL, {64, 64}, 1, 0, NULL},
        {"skewed", "F32", 2, MOE_MADE_ROUTER, {32, 64}, 1, 1, NULL},
        {"odd", "BF16", 1, MOE_MADE_BELL, {7}, 1, 0, NULL},
        {"zeros", "I32", 2, MOE_MADE_ZEROS, {3, 5}, 0, 0, NULL},
        {"e2m1", "U8", 2, MOE_MADE_E2M1, {64, 512}, 0, 0, NULL},
        {"e8m0", "U8", 2, MOE_MADE_SCALES, {64, 64}, 0.02, 0, NULL},
    };
    struct moe_error       err = {.struct_size = sizeof(err)};
    struct moe_made       *m;
    struct moe_checkpoint *c = NULL;
    moe_status             st;
    size_t                 i;

    st = moe_made_new("made up", json_object_new_object(), seed, &m, &err);
    for (i = 0; i < sizeof(t) / sizeof(t[0]) && st == MOE_OK; i++)
        st = moe_made_add(m, &t[i], &err);
    if (st == MOE_OK)
        st = moe_checkpoint_made(m, &c, &err);
    if (!ok(st == MOE_OK, "a checkpoint is made up"))
        tap_diag("%s", err.text);
    return c;
}

static void
bytes_of(const struct moe_checkpoint *c, const char *name, uint8_t *to,
         uint64_t piece)
{
    const struct moe_tensor_info *t = moe_checkpoint_find(c, name);
    uint64_t                      at, n;

    for (at = 0; t != NULL && at < t->bytes; at += n) {
        n = t->bytes - at < piece ? t->bytes - at : piece;
        (void) moe_checkpoint_read(c, t, at, n, to + at, NULL);
    }
}

static void
test_bytes(void)
{
    static const char *const names[] = {"bf16", "codes", "scales", "ones",
                                        "fp8", "skewed", "odd", "zeros",
                                        "e2m1", "e8m0"};
    static uint8_t         a[65536], b[65536];
    struct moe_error       err = {.struct_size = sizeof(err)};
    struct moe_checkpoint *c = make(1), *d = make(2);
    const struct moe_tensor_info *t;
    double                        sum = 0, squares = 0, row[32], least, most;
    size_t                        i, j, n;
    float                         f;

    if (c == NULL || d == NULL)
        return;
    is_int((long long) moe_checkpoint_count(c), 10, "all tensors are there");
    for (i = 0; i < 10; i++) {
        t = moe_checkpoint_find(c, names[i]);
        memset(b, 0, sizeof(b));
        bytes_of(c, names[i], a, sizeof(a));
        bytes_of(c, names[i], b, 13);
        ok(t != NULL && memcmp(a, b, t->bytes) == 0,
           "%s: the same bytes in pieces of 13", names[i]);
    }
    bytes_of(c, "bf16", a, 4096);
    bytes_of(d, "bf16", b, 4096);
    ok(memcmp(a, b, 4096) != 0, "another seed, other bytes");
    n = 300 * 64;
    for (i = 0; i < n; i++) {
        uint16_t h;

        memcpy(&h, a + 2 * i, 2);
        f = moe_bf16_f32(h);
        sum += f;
        squares += (double) f * f;
    }
    ok(fabs(sum / (double) n) < 0.02
           && fabs(sqrt(squares / (double) n) - 0.5) < 0.02,
       "numbers: mean %.4f, deviation %.4f", sum / (double) n,
       sqrt(squares / (double) n));
    bytes_of(c, "codes", a, sizeof(a));
    n = 64 * 128 * 4;
    for (sum = squares = 0, i = 0; i < 2 * n; i++) {
        int v = (a[i / 2] >> (i % 2 * 4) & 15) - 8;

        sum += v;
        squares += v * v;
    }
    ok(fabs(sum / (2.0 * (double) n)) < 0.05
           && fabs(sqrt(squares / (2.0 * (double) n)) - moe_made_sigma("I32"))
                  < 0.05
           && moe_made_sigma("I32") > 2,
       "codes: mean %.4f, deviation %.3f", sum / (2.0 * (double) n),
       moe_made_sigma("I32"));
    bytes_of(c, "e2m1", a, sizeof(a));
    n = 64 * 512;
    for (sum = squares = 0, i = 0; i < 2 * n; i++) {
        static const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
        int                 v = a[i / 2] >> (i % 2 * 4) & 15;

        sum += v & 8 ? -e2m1[v & 7] : e2m1[v];
        squares += e2m1[v & 7] * e2m1[v & 7];
    }
    ok(fabs(sum / (2.0 * (double) n)) < 0.05
           && fabs(sqrt(squares / (2.0 * (double) n)) - moe_made_sigma("U8"))
                  < 0.05
           && moe_made_sigma("U8") > 2,
       "E2M1: mean %.4f, deviation %.3f", sum / (2.0 * (double) n),
       moe_made_sigma("U8"));
    bytes_of(c, "e8m0", a, sizeof(a));
    for (squares = 0, n = 0, i = 0; i < 4096; i++) {
        n += a[i] == 121 || a[i] == 122; /* 1/64, 1/32 */
        squares += ldexp(1, 2 * (a[i] - 127));
    }
    ok(n == 4096 && fabs(sqrt(squares / 4096) - 0.02) < 0.0005,
       "E8M0: powers of two of about %.4f", sqrt(squares / 4096));
    bytes_of(c, "scales", a, sizeof(a));
    for (least = 1, most = 0, i = 0; i < 1024; i++) {
        uint16_t h;

        memcpy(&h, a + 2 * i, 2);
        f = moe_bf16_f32(h);
        least = f < least ? f : least;
        most = f > most ? f : most;
    }
    ok(least > 0.18 && most < 0.32 && most > least, "scales: %.3f to %.3f",
       least, most);
    bytes_of(c, "ones", a, sizeof(a));
    for (n = 0, i = 0; i < 33; i++) {
        memcpy(&f, a + 4 * i, 4);
        n += f == 1;
    }
    is_int((long long) n, 33, "ones are ones");
    bytes_of(c, "zeros", a, sizeof(a));
    ok(a[0] == 0x88 && a[59] == 0x88, "zero points are 8");
    bytes_of(c, "fp8", a, sizeof(a));
    for (n = 0, i = 0; i < 4096; i++)
        n += (a[i] & 0x7f) == 0x7f;
    is_int((long long) n, 0, "no 8-bit float is no number");
    bytes_of(c, "skewed", a, sizeof(a));
    for (least = 1e9, most = 0, i = 0; i < 32; i++) {
        for (row[i] = 0, j = 0; j < 64; j++) {
            memcpy(&f, a + 4 * (i * 64 + j), 4);
            row[i] += (double) f * f;
        }
        least = row[i] < least ? row[i] : least;
        most = row[i] > most ? row[i] : most;
    }
    ok(most > 20 * least, "rows of a skewed router differ");
    t = moe_checkpoint_find(c, "odd");
    ok(moe_checkpoint_read(c, t, 8, 8, a, &err) == MOE_E_INVAL,
       "nothing behind the end: %s", err.text);
    moe_checkpoint_close(c);
    moe_checkpoint_close(d);
}

static moe_status
run(const char *shape, const char *format, uint32_t layers, double skew,
    struct moe_bench_result *r, struct moe_error *err)
{
    struct moe_bench_test  test = {sizeof(test), 100, 0, 1, 0};
    struct moe_bench_setup setup = {
        .struct_size = sizeof(setup), .flags = MOE_BENCH_NO_MACHINE,
        .repetitions = 2, .n_tests = 1, .tests = &test, .shape = shape,
        .format = format, .layers = layers, .skew = skew};
    moe_options *o = NULL;
    moe_bench   *b = NULL;
    moe_status   st = moe_options_new(&o, err);

    r->struct_size = sizeof(*r);
    if (st == MOE_OK)
        st = moe_options_load_defaults(o, err);
    if (st == MOE_OK)
        st = moe_bench_open(o, &setup, &b, err);
    if (st == MOE_OK)
        st = moe_bench_run(b, &test, r, err);
    moe_bench_close(b);
    moe_options_free(o);
    return st;
}

static void
test_shapes(void)
{
    static const char *const formats[] = {
        "bf16", "f32", "int4-g32", "int4-g32z", "fp8-e4m3", "fp8-e5m2-channel",
        "fp8-e4m3-block", "mxfp4", "experts=int4-g32,rest=bf16",
        "rest=bf16,experts=fp8-e4m3,router=f32"};
    struct moe_error        err = {.struct_size = sizeof(err)};
    struct moe_bench_result r, s;
    char                    path[600];
    size_t                  i;
    moe_status              st;

    snprintf(path, sizeof(path), "%s", tap_src(QWEN));
    for (i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        memset(&r, 0, sizeof(r));
        st = run(path, formats[i], 0, 0, &r, &err);
        if (!ok(st == MOE_OK && r.tps > 0, "a shape in %s", formats[i]))
            tap_diag("%s", err.text);
    }
    memset(&s, 0, sizeof(s));
    st = run(path, "f32", 0, 0, &r, &err);
    if (st == MOE_OK)
        st = run(path, "int4-g32", 0, 0, &s, &err);
    ok(st == MOE_OK && s.weight_bytes < r.weight_bytes / 3,
       "4 bits are fewer bytes: %g of %g", s.weight_bytes, r.weight_bytes);
    ok(run(path, "f32", 1, 0, &s, &err) == MOE_OK
           && s.weight_bytes < r.weight_bytes,
       "one layer is less than two");
    ok(r.entropy > 0.98, "even routing: entropy %.3f", r.entropy);
    st = run(path, "f32", 0, 2, &s, &err);
    ok(st == MOE_OK && s.entropy < r.entropy && s.imbalance > r.imbalance,
       "a skew: entropy %.3f, imbalance %.2f after %.2f", s.entropy,
       s.imbalance, r.imbalance);

    st = run(path, "int5-g32", 0, 0, &r, &err);
    ok(st == MOE_E_UNSUPPORTED && strstr(err.text, "int5-g32") != NULL,
       "an unknown format: %s", err.text);
    st = run(path, "noses=bf16", 0, 0, &r, &err);
    ok(st == MOE_E_INVAL && strstr(err.text, "noses") != NULL,
       "an unknown class: %s", err.text);
    st = run(path, "int4-g128", 0, 0, &r, &err);
    ok(st != MOE_OK && strstr(err.text, "int4-g128") != NULL,
       "a format that does not fit: %s", err.text);
    st = run(path, "bf16", 99, 0, &r, &err);
    ok(st == MOE_E_INVAL, "more layers than there are: %s", err.text);
    st = run("no-such-shape", "bf16", 0, 0, &r, &err);
    ok(st == MOE_E_NOT_FOUND, "an unknown shape: %s", err.text);
    st = run("no/such/shape", "bf16", 0, 0, &r, &err);
    ok(st == MOE_E_NOT_FOUND, "a folder that is not there: %s", err.text);
}

int
main(void)
{
    test_bytes();
    test_shapes();
    return tap_done();
}
