/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device on which the n-th call fails, for every n, every kind of call:
 * the engine says so in one line and nothing stays reserved.  And a device
 * without faults that is lazy, has no host view and too little memory for
 * all experts: the answers are those of the CPU.
 */
#include <unistd.h>

#include <moe/moe.h>
#include <moe/plugin.h>

#include "tap.h"

#define OUT 6

struct outcome {
    moe_status status;
    uint32_t   tokens[OUT];
    uint64_t   loads, slots, experts;
    char       text[500];
};

static int leaked;

static void
watch_log(void *ctx, uint32_t level, const char *line)
{
    (void) ctx;
    if (level <= MOE_LOG_WARN && strstr(line, "never given back") != NULL)
        leaked++;
}

static void
run(const char *model, const char *fail, const char *memory, const char *seed,
    struct outcome *out)
{
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct moe_sampling   greedy = {.struct_size = sizeof(greedy),
                                    .top_p = 1, .repeat_penalty = 1};
    static const uint32_t prompt[] = {5, 9, 2, 77, 31, 8, 44, 60, 12};
    struct moe_request    req = {.struct_size = sizeof(req),
                                 .flags = MOE_REQUEST_IGNORE_EOS,
                                 .prompt = prompt, .n_prompt = 9,
                                 .max_tokens = OUT, .sampling = &greedy};
    struct moe_stats       stats = {.struct_size = sizeof(stats)};
    struct moe_engine_info info = {.struct_size = sizeof(info)};
    char                  plugin[1100], path[256];
    moe_options          *o = NULL;
    moe_engine           *e = NULL;
    moe_sequence         *s = NULL;
    const uint32_t       *ids;
    uint32_t              active = 1;
    size_t                n = 0;
    moe_status            st;

    memset(out, 0, sizeof(*out));
    snprintf(path, sizeof(path), "tests/model/fixtures/%s", model);
    snprintf(plugin, sizeof(plugin), "%s/plugins/backend/fake/.libs/fake.so",
             getenv("MOE_TEST_BUILDDIR"));
    st = moe_options_new(&o, &err);
    if (st == MOE_OK)
        st = moe_options_load_defaults(o, &err);
    if (st == MOE_OK)
        moe_options_set_log(o, watch_log, NULL);
#define SET(key, value)                                                       \
    if (st == MOE_OK)                                                         \
    st = moe_options_set(o, key, value, MOE_FROM_ARG, &err)
    SET("model.path", tap_src(path));
    SET("memory.kv_type", "f32");
    SET("engine.threads", "1");
    SET("engine.batch_rows", "8");
    SET("engine.sequences", "1");
    SET("model.context", "64");
    if (fail != NULL) {
        SET("plugin.load", plugin);
        SET("engine.backend", "fake");
        if (*fail != '\0')
            SET("backend.fake.fail", fail);
        SET("backend.fake.memory", memory);
        SET("backend.fake.seed", seed);
    }
#undef SET
    if (st == MOE_OK)
        st = moe_engine_open(o, &e, &err);
    if (st == MOE_OK)
        st = moe_engine_submit(e, &req, &s, &err);
    while (st == MOE_OK && active != 0)
        st = moe_engine_step(e, &active, &err);
    if (st == MOE_OK) {
        (void) moe_sequence_tokens(s, &ids, &n);
        memcpy(out->tokens, ids, (n < OUT ? n : OUT) * sizeof(*ids));
        (void) moe_engine_stats(e, &stats);
        (void) moe_engine_info(e, &info);
        out->loads = stats.expert_loads;
        out->slots = info.n_slots;
        out->experts = info.n_expert_total;
    }
    out->status = st;
    snprintf(out->text, sizeof(out->text), "%s", err.text);
    moe_engine_close(e);
    moe_options_free(o);
}

static void
test_kind(const char *model, const char *kind, const struct outcome *good)
{
    struct outcome r;
    char           fail[64];
    int            n, silent = 0, wrong = 0, step = 1;

    leaked = 0;
    for (n = 1; n < 5000; n += step) {
        snprintf(fail, sizeof(fail), "%s:%d", kind, n);
        run(model, fail, "1G", "1", &r);
        if (r.status == MOE_OK)
            break; /* fewer calls than n */
        silent += r.text[0] == '\0' || strchr(r.text, '\n') != NULL;
        if (n >= 20)
            step = 1 + n / 8;
    }
    wrong = memcmp(r.tokens, good->tokens, sizeof(r.tokens)) != 0;
    ok(n > 1, "%s: fails when %s fails (up to call %d)", model, kind, n - 1);
    is_int(silent, 0, "%s: each with one line", kind);
    is_int(leaked, 0, "%s: nothing stays reserved", kind);
    is_int(wrong, 0, "%s: without the fault the answer is right", kind);
}

int
main(void)
{
    static const char *const kind[] = {"open",   "alloc",  "reserve",
                                       "stream", "event",  "slab",
                                       "upload", "download", "slot",
                                       "launch"};
    static const char *const model[] = {"mixtral", "qwen2_moe-step",
                                        "qwen3_moe-bf16", "llama-linear"};
    struct outcome cpu, fake, r;
    char           seed[16], memory[32];
    size_t         i, j;
    long           mem;

    for (i = 0; i < 4; i++) {
        run(model[i], NULL, "1G", "1", &cpu);
        if (!is_int(cpu.status, MOE_OK, "%s on the CPU", model[i]))
            tap_diag("%s", cpu.text);
        for (j = 1; j <= 3; j++) {
            snprintf(seed, sizeof(seed), "%zu", j);
            run(model[i], "", "1G", seed, &fake);
            if (!is_int(fake.status, MOE_OK, "%s on the fake, order %s",
                        model[i], seed))
                tap_diag("%s", fake.text);
            ok(memcmp(cpu.tokens, fake.tokens, sizeof(cpu.tokens)) == 0,
               "%s: the CPU's tokens", model[i]);
        }
    }

    /* less and less device memory: fewer slots, then a refusal */
    run("mixtral", "", "1G", "1", &fake);
    i = j = 0;
    for (mem = 800; mem > 0; mem -= 16) {
        snprintf(memory, sizeof(memory), "%ldK", mem);
        run("mixtral", "", memory, "1", &r);
        if (r.status != MOE_OK)
            break;
        i += memcmp(fake.tokens, r.tokens, sizeof(r.tokens)) != 0;
        j += r.slots < r.experts && r.loads > 0;
    }
    is_int(i, 0, "less device memory, the same tokens");
    ok(j > 0, "with experts coming and going (%zu sizes)", j);
    is_int(r.status, MOE_E_OVER_BUDGET, "and at last a refusal");
    has_str(r.text, "smallest that works", "which names the figure");

    for (i = 0; i < sizeof(kind) / sizeof(kind[0]); i++)
        test_kind("mixtral", kind[i], &fake);
    return tap_done();
}
