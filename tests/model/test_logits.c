/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every family against the transformers library: logits within 1e-4 of the
 * row's largest, and the same 32 greedy tokens, token by token through the
 * whole engine (checkpoint, plugins, scheduler, paged cache).  Quantized
 * folders against their weights in float32: further off where the backend
 * rounds activations to 8 bits, which is all that may differ.
 */
#include <json-c/json.h>
#include <math.h>

#include <moe/moe.h>

#include "tap.h"

#define MAX_POS 256
#define EXACT   1e-4

static const char *const model[] = {
    "llama",        "llama-bf16",      "llama-linear",  "llama-llama3",
    "mixtral",      "mixtral-bf16",    "mixtral-f16",   "mixtral-window",
    "olmoe",        "olmoe-clip",      "qwen2",         "qwen2-window",
    "qwen2_moe",    "qwen2_moe-bf16",  "qwen2_moe-step", "qwen3",
    "qwen3-bf16",   "qwen3_moe",       "qwen3_moe-bf16", "qwen3_moe-step",
};

static const struct {
    const char *name;
    double      limit;
} quantized[] = {
    { "qwen3_moe-fp8", EXACT },      { "qwen3_moe-fp8-block", EXACT },
    { "qwen3_moe-mixed", 0.1 },      { "qwen3_moe-mxfp4", 0.1 },
    { "qwen3_moe-w4a16", 0.1 },      { "qwen3_moe-w4a16-asym", 0.1 },
};

struct seen {
    float   *row[MAX_POS]; /* (vocab) by position */
    uint32_t vocab;
};

static void
on_logits(void *ctx, uint32_t position, const float *logits, uint32_t vocab)
{
    struct seen *s = ctx;

    if (position >= MAX_POS)
        return;
    s->vocab = vocab;
    free(s->row[position]);
    s->row[position] = malloc(vocab * sizeof(float));
    memcpy(s->row[position], logits, vocab * sizeof(float));
}

static struct json_object *
field(struct json_object *o, const char *name)
{
    struct json_object *v = NULL;

    json_object_object_get_ex(o, name, &v);
    return v;
}

static size_t
ids_of(struct json_object *list, uint32_t *ids)
{
    size_t i, n = json_object_array_length(list);

    for (i = 0; i < n; i++)
        ids[i] = (uint32_t) json_object_get_int(
            json_object_array_get_idx(list, i));
    return n;
}

/* Largest difference of the reference's rows, relative to the row's largest
 * value. */
static double
worst_error(struct json_object *ref, const struct seen *s)
{
    struct json_object *rows = field(ref, "logits_rows");
    struct json_object *all = field(ref, "logits");
    double              worst = 0;
    size_t              i, j;

    for (i = 0; i < json_object_array_length(rows); i++) {
        int pos = json_object_get_int(json_object_array_get_idx(rows, i));
        struct json_object *row = json_object_array_get_idx(all, i);
        double              top = 0, diff = 0;

        if (s->row[pos] == NULL || json_object_array_length(row) != s->vocab)
            return INFINITY;
        for (j = 0; j < s->vocab; j++) {
            double want = json_object_get_double(
                json_object_array_get_idx(row, j));
            double d = fabs(want - (double) s->row[pos][j]);

            if (fabs(want) > top)
                top = fabs(want);
            if (!(d <= diff))
                diff = d;
        }
        if (!(diff / top <= worst))
            worst = diff / top;
    }
    return worst;
}

/* limit: of the logits' error; greedy tokens are compared if it is EXACT. */
static void
test_model(const char *room, const char *name, double limit)
{
    char                path[256];
    struct moe_error    err = {.struct_size = sizeof(err)};
    struct moe_sampling greedy = {.struct_size = sizeof(greedy),
                                  .top_p = 1, .repeat_penalty = 1};
    struct moe_request  req = {.struct_size = sizeof(req)};
    struct seen         seen = {{0}, 0};
    struct json_object *ref;
    moe_options        *o = NULL;
    moe_engine         *e = NULL;
    moe_sequence       *s = NULL;
    const uint32_t     *got;
    uint32_t            prompt[MAX_POS], want[MAX_POS], active = 1;
    size_t              n_want, n_got = 0, i, same = 0;
    moe_status          st;
    double              worst;

    snprintf(path, sizeof(path), "tests/%s/fixtures/%s/reference.json", room,
             name);
    ref = json_object_from_file(tap_src(path));
    if (!ok(ref != NULL, "%s: reference", name))
        return;
    snprintf(path, sizeof(path), "tests/%s/fixtures/%s", room, name);
    st = moe_options_new(&o, &err);
    if (st == MOE_OK)
        st = moe_options_load_defaults(o, &err);
    if (st == MOE_OK)
        st = moe_options_set(o, "model.path", tap_src(path), MOE_FROM_ARG,
                             &err);
    if (st == MOE_OK)
        st = moe_options_set(o, "memory.kv_type", "f32", MOE_FROM_ARG, &err);
    if (st == MOE_OK)
        st = moe_engine_open(o, &e, &err);
    if (!ok(st == MOE_OK, "%s: opens", name)) {
        tap_diag("%s", err.text);
        goto out;
    }
    req.flags = MOE_REQUEST_SCORE | MOE_REQUEST_IGNORE_EOS;
    req.prompt = prompt;
    req.n_prompt = ids_of(field(ref, "prompt"), prompt);
    n_want = ids_of(field(ref, "greedy"), want);
    if (limit > EXACT) {
        /* given, since one that differs would change all that follow */
        memcpy(prompt + req.n_prompt, want, n_want * sizeof(*want));
        req.n_prompt += n_want;
        n_want = 1;
    }
    req.max_tokens = (uint32_t) n_want;
    req.sampling = &greedy;
    req.on_logits = on_logits;
    req.ctx = &seen;
    st = moe_engine_submit(e, &req, &s, &err);
    while (st == MOE_OK && active != 0)
        st = moe_engine_step(e, &active, &err);
    if (!ok(st == MOE_OK, "%s: runs", name)) {
        tap_diag("%s", err.text);
        goto out;
    }
    (void) moe_sequence_tokens(s, &got, &n_got);
    for (i = 0; i < n_got && i < n_want; i++)
        same += got[i] == want[i];
    if (limit <= EXACT)
        is_int(same, n_want, "%s: the same %zu greedy tokens", name, n_want);
    worst = worst_error(ref, &seen);
    ok(worst <= limit, "%s: logits within %g (%.2g)", name, limit, worst);

out:
    for (i = 0; i < MAX_POS; i++)
        free(seen.row[i]);
    moe_engine_close(e);
    moe_options_free(o);
    json_object_put(ref);
}

int
main(void)
{
    size_t i;

    for (i = 0; i < sizeof(model) / sizeof(model[0]); i++)
        test_model("model", model[i], EXACT);
    for (i = 0; i < sizeof(quantized) / sizeof(quantized[0]); i++)
        test_model("quant", quantized[i].name, quantized[i].limit);
    return tap_done();
}
