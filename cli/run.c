/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - what every command that runs a model does: choose it, open it,
 * turn options into requests, tell at the end how it went.
 */
#include "cli.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

int
model_choose(struct cli *c, int *is_default)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    const char      *path = moe_options_get(c->o, "model.path");
    char             folder[PATH_MAX];

    if (is_default != NULL)
        *is_default = path[0] == '\0';
    if (path[0] != '\0')
        return EXIT_OK;
    if (moe_default_model(c->o, folder, sizeof(folder), &err) != MOE_OK
        || moe_options_set(c->o, "model.path", folder, MOE_FROM_DEFAULT, &err)
               != MOE_OK)
        return fail(&err);
    return EXIT_OK;
}

int
engine_open(struct cli *c, moe_engine **out)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    int              status = model_choose(c, NULL);

    if (status != EXIT_OK)
        return status;
    if (moe_engine_open(c->o, out, &err) != MOE_OK)
        return fail(&err);
    signals_mode(ON_SIGNAL_CANCEL, *out);
    return EXIT_OK;
}

static int
is_true(const char *value)
{
    return strcasecmp(value, "true") == 0 || strcasecmp(value, "yes") == 0
           || strcasecmp(value, "on") == 0 || strcmp(value, "1") == 0;
}

/* A seed that a person can type again. */
static uint64_t
short_seed(void)
{
    uint32_t seed;

    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
        seed = (uint32_t) (now_s() * 1e6);
    return seed % 1000000000u;
}

int
settings_read(const struct cli *c, const moe_engine *e, struct settings *out)
{
    memset(out, 0, sizeof(*out));
    out->sampling.struct_size = sizeof(out->sampling);
    if (moe_engine_sampling(e, &out->sampling) != MOE_OK) {
        say("the model's sampling parameters cannot be read");
        return EXIT_RUN;
    }
    if (strcmp(moe_options_get(c->o, "generate.seed"), "-1") == 0)
        out->sampling.seed = short_seed();
    out->max_tokens
        = strtoll(moe_options_get(c->o, "generate.max_tokens"), NULL, 10);
    if (is_true(moe_options_get(c->o, "generate.ignore_eos")))
        out->flags |= MOE_REQUEST_IGNORE_EOS;
    out->stop = list_split(moe_options_get(c->o, "generate.stop"),
                           &out->n_stop);
    if (out->stop == NULL) {
        say("out of memory");
        return EXIT_RUN;
    }
    return EXIT_OK;
}

void
settings_clear(struct settings *s)
{
    free(s->stop);
    memset(s, 0, sizeof(*s));
}

int
submit(moe_engine *e, const struct settings *s, const uint32_t *ids, size_t n,
       moe_sequence **out)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_engine_info info = { .struct_size = sizeof(info) };
    struct moe_request     r = {
            .struct_size = sizeof(r),
            .flags = s->flags,
            .prompt = ids,
            .n_prompt = n,
            .max_tokens = (uint32_t) s->max_tokens,
            .n_stop = (uint32_t) s->n_stop,
            .stop = (const char *const *) s->stop,
            .sampling = &s->sampling,
    };

    if (s->max_tokens < 0) {
        if (moe_engine_info(e, &info) != MOE_OK || info.max_context <= n)
            r.max_tokens = 1; /* submit says what is wrong */
        else
            r.max_tokens = info.max_context - (uint32_t) n;
    }
    if (moe_engine_submit(e, &r, out, &err) != MOE_OK)
        return fail(&err);
    return EXIT_OK;
}

const char *
finish_text(uint32_t finish)
{
    switch (finish) {
    case MOE_FINISH_STOP:
        return "stop";
    case MOE_FINISH_LENGTH:
        return "length";
    case MOE_FINISH_ERROR:
        return "error";
    default:
        return "interrupted";
    }
}

static void
print_rate(const char *what, uint64_t tokens, double seconds)
{
    if (tokens == 0)
        return;
    fprintf(stderr, "  %-12s %llu tokens in %.2f s", what,
            (unsigned long long) tokens, seconds);
    if (seconds > 0)
        fprintf(stderr, ", %.1f tokens/s", (double) tokens / seconds);
    fputc('\n', stderr);
}

void
print_summary(const moe_engine *e, double ttft_s, const uint64_t *seed)
{
    struct moe_stats s = { .struct_size = sizeof(s) };
    char             a[32], b[32];

    if (moe_engine_stats(e, &s) != MOE_OK)
        return;
    fputc('\n', stderr);
    print_rate("prefill", s.prefill_tokens, s.prefill_s);
    print_rate("decode", s.decode_tokens, s.decode_s);
    if (ttft_s > 0)
        fprintf(stderr, "  %-12s after %.1f ms, the model opened in %.1f ms\n",
                "first token", 1e3 * ttft_s, 1e3 * s.open_s);
    fprintf(stderr, "  %-12s %s of a budget of %s", "memory",
            bytes_text(s.peak_bytes, a, sizeof(a)),
            bytes_text(s.budget_bytes, b, sizeof(b)));
    if (s.budget_bytes > 0)
        fprintf(stderr, " (%.1f %%)",
                100.0 * (double) s.peak_bytes / (double) s.budget_bytes);
    fputc('\n', stderr);
    if (s.n_moe_layers > 0)
        fprintf(stderr,
                "  %-12s load max/mean %.2f, entropy %.2f, %.1f used a layer "
                "and step\n",
                "experts", s.imbalance, s.entropy, s.distinct);
    if (s.expert_loads > 0)
        fprintf(stderr, "  %-12s %llu experts read (%s), %.1f %% were there\n",
                "from disk", (unsigned long long) s.expert_loads,
                bytes_text(s.bytes_read, a, sizeof(a)),
                100.0 * (double) s.expert_hits
                    / (double) (s.expert_hits + s.expert_loads));
    if (seed != NULL)
        fprintf(stderr, "  %-12s %llu\n", "seed",
                (unsigned long long) *seed);
}

static void
out_expert_load(const moe_engine *e, uint32_t n_layers, uint32_t n_experts)
{
    uint64_t *counts = calloc(n_experts > 0 ? n_experts : 1, sizeof(*counts));
    uint32_t  i, k, layer;

    out_text(",\"expert_load\":[");
    for (i = 0; counts != NULL && i < n_layers; i++) {
        if (moe_engine_expert_load(e, i, &layer, counts) != MOE_OK)
            break;
        out_format("%s\n{\"layer\":%u,\"tokens\":[", i == 0 ? "" : ",", layer);
        for (k = 0; k < n_experts; k++)
            out_format("%s%llu", k == 0 ? "" : ",",
                       (unsigned long long) counts[k]);
        out_text("]}");
    }
    out_text("]");
    free(counts);
}

int
out_stats(const moe_engine *e)
{
    struct moe_stats       s = { .struct_size = sizeof(s) };
    struct moe_engine_info info = { .struct_size = sizeof(info) };

    if (moe_engine_stats(e, &s) != MOE_OK
        || moe_engine_info(e, &info) != MOE_OK)
        return out_text("{}");
    {
        const struct {
            const char *name;
            uint64_t    value;
        } counts[] = {
            { "prefill_tokens", s.prefill_tokens },
            { "decode_tokens", s.decode_tokens },
            { "steps", s.steps },
            { "expert_hits", s.expert_hits },
            { "expert_loads", s.expert_loads },
            { "bytes_read", s.bytes_read },
            { "reserved_bytes", s.reserved_bytes },
            { "peak_bytes", s.peak_bytes },
            { "budget_bytes", s.budget_bytes },
        };
        const struct {
            const char *name;
            double      value;
        } numbers[] = {
            { "prefill_s", s.prefill_s },
            { "decode_s", s.decode_s },
            { "prefill_tokens_per_s",
              s.prefill_s > 0 ? (double) s.prefill_tokens / s.prefill_s : 0 },
            { "decode_tokens_per_s",
              s.decode_s > 0 ? (double) s.decode_tokens / s.decode_s : 0 },
            { "open_s", s.open_s },
            { "imbalance", s.imbalance },
            { "entropy", s.entropy },
            { "distinct", s.distinct },
        };
        size_t i;

        for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
            out_format("%s\"%s\":%llu", i == 0 ? "{" : ",", counts[i].name,
                       (unsigned long long) counts[i].value);
        for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
            out_format(",\"%s\":", numbers[i].name);
            out_number(numbers[i].value);
        }
    }
    out_expert_load(e, s.n_moe_layers, info.n_experts);
    return out_text("}");
}
