/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence's tokens and logits do not depend on its company, on threads,
 * on how its prompt was cut, or on who had to give pages back.
 */
#include <moe/moe.h>

#include "tap.h"

#define PROMPTS 16
#define OUT     24
#define MAX_POS 128

struct run {
    uint32_t tokens[PROMPTS][OUT];
    uint64_t hash[PROMPTS][MAX_POS]; /* of the logits by position */
};

struct watch {
    uint64_t *hash;
};

static void
on_logits(void *ctx, uint32_t position, const float *logits, uint32_t vocab)
{
    struct watch *w = ctx;
    uint64_t      h = 1469598103934665603u;
    uint32_t      i, bits;

    for (i = 0; i < vocab; i++) {
        memcpy(&bits, &logits[i], sizeof(bits));
        h = (h ^ bits) * 1099511628211u;
    }
    w->hash[position % MAX_POS] = h;
}

static moe_engine *
open_engine(const char *model, const char *const *set)
{
    struct moe_error err = {.struct_size = sizeof(err)};
    moe_options     *o = NULL;
    moe_engine      *e = NULL;
    moe_status       st = moe_options_new(&o, &err);

    if (st == MOE_OK)
        st = moe_options_load_defaults(o, &err);
    if (st == MOE_OK)
        st = moe_options_set(o, "model.path", tap_src(model), MOE_FROM_ARG,
                             &err);
    for (; st == MOE_OK && set[0] != NULL; set += 2)
        st = moe_options_set(o, set[0], set[1], MOE_FROM_ARG, &err);
    if (st == MOE_OK)
        st = moe_engine_open(o, &e, &err);
    if (!ok(st == MOE_OK, "%s opens", model))
        tap_diag("%s", err.text);
    moe_options_free(o);
    return e;
}

/* Prompts [from, to) at once. */
static void
generate(moe_engine *e, uint32_t vocab, uint32_t from, uint32_t to,
         struct run *out)
{
    struct moe_error  err = {.struct_size = sizeof(err)};
    moe_sequence     *s[PROMPTS];
    struct watch      w[PROMPTS];
    uint32_t          i, j, active = 1, prompt[MAX_POS];
    const uint32_t   *ids;
    size_t            n;
    moe_status        st = MOE_OK;

    for (i = from; i < to; i++) {
        struct moe_sampling sampling = {
            .struct_size = sizeof(sampling), .temperature = i % 2 ? 0.9f : 0,
            .top_p = 0.95f, .repeat_penalty = 1.1f, .seed = i};
        struct moe_request req = {
            .struct_size = sizeof(req), .prompt = prompt,
            .flags = MOE_REQUEST_IGNORE_EOS, .max_tokens = OUT,
            .sampling = &sampling, .on_logits = on_logits, .ctx = &w[i]};

        req.n_prompt = 1 + i * 5;
        for (j = 0; j < req.n_prompt; j++)
            prompt[j] = (i * 131 + j * 29 + j * j) % vocab;
        w[i].hash = out->hash[i];
        st = moe_engine_submit(e, &req, &s[i], &err);
        if (st != MOE_OK)
            break;
    }
    while (st == MOE_OK && active != 0)
        st = moe_engine_step(e, &active, &err);
    if (st != MOE_OK) {
        ok(0, "generation");
        tap_diag("%s", err.text);
        return;
    }
    for (i = from; i < to; i++) {
        (void) moe_sequence_tokens(s[i], &ids, &n);
        memcpy(out->tokens[i], ids, (n < OUT ? n : OUT) * sizeof(*ids));
        moe_sequence_free(s[i]);
    }
}

static void
same(const struct run *a, const struct run *b, const char *what)
{
    ok(memcmp(a->tokens, b->tokens, sizeof(a->tokens)) == 0,
       "%s: the same tokens", what);
    ok(memcmp(a->hash, b->hash, sizeof(a->hash)) == 0,
       "%s: the same bits of logits", what);
}

/* Behind the last attention only rows go on that logits are wanted of: of a
 * prompt the last. */
static void
check_load(const moe_engine *e, const struct moe_engine_info *info)
{
    struct moe_stats stats = {.struct_size = sizeof(stats)};
    uint64_t         counts[128], sum, rows, most;
    uint32_t         i, j, layer = 0;

    if (info->n_moe_layers == 0 || info->n_experts > 128)
        return;
    (void) moe_engine_stats(e, &stats);
    rows = stats.prefill_tokens + stats.decode_tokens;
    for (i = 0; i < info->n_moe_layers; i++) {
        (void) moe_engine_expert_load(e, i, &layer, counts);
        for (sum = 0, most = 0, j = 0; j < info->n_experts; j++) {
            sum += counts[j];
            most = counts[j] > most ? counts[j] : most;
        }
        is_int(sum, (layer + 1 == info->n_layers ? PROMPTS * OUT : rows)
                        * info->top_k, "layer %u: pairs of rows and experts",
               layer);
        ok(most <= rows, "... each row once an expert");
    }
    ok(rows > PROMPTS * OUT, "the prompts are longer than that");
}

static void
test_model(const char *model)
{
    static const char *const one[] = {"engine.threads", "1", NULL};
    static const char *const two[] = {"engine.threads", "2",
                                      "engine.batch_rows", "16", NULL};
    static const char *const three[] = {"engine.threads", "3",
                                        "engine.sequences", "5",
                                        "memory.page_rows", "4",
                                        "engine.batch_rows", "37", NULL};
    static struct run        alone, r;
    struct moe_engine_info   info = {.struct_size = sizeof(info)};
    moe_engine              *e;
    uint32_t                 i;

    memset(&alone, 0, sizeof(alone));
    e = open_engine(model, one);
    if (e == NULL)
        return;
    (void) moe_engine_info(e, &info);
    for (i = 0; i < PROMPTS; i++)
        generate(e, info.vocab, i, i + 1, &alone);
    ok(alone.tokens[3][OUT - 1] != 0 || alone.tokens[5][OUT - 2] != 0,
       "something was generated");
    check_load(e, &info);
    memset(&r, 0, sizeof(r));
    generate(e, info.vocab, 0, PROMPTS, &r);
    same(&alone, &r, "16 together, 1 thread");
    moe_engine_close(e);

    e = open_engine(model, two);
    if (e != NULL) {
        memset(&r, 0, sizeof(r));
        generate(e, info.vocab, 0, PROMPTS, &r);
        same(&alone, &r, "2 threads, 16 rows a step");
        moe_engine_close(e);
    }
    e = open_engine(model, three);
    if (e != NULL) {
        memset(&r, 0, sizeof(r));
        generate(e, info.vocab, 0, PROMPTS, &r);
        same(&alone, &r, "3 threads, 5 places, pages of 4, 37 rows");
        moe_engine_close(e);
    }
}

int
main(void)
{
    test_model("tests/model/fixtures/mixtral");
    test_model("tests/model/fixtures/qwen2_moe-bf16");
    if (tap_every(2) == 1)
        test_model("conf/model/stories");
    return tap_done();
}
