/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can go wrong between opening and the last token: each is a status and
 * one line that says what, where and what to do.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moe/moe.h>

#include "tap.h"

static struct moe_error err;

/* Options for a model, with further key, value pairs up to NULL. */
static moe_options *
options(const char *model, const char *const *set)
{
    moe_options *o = NULL;
    moe_status   st = moe_options_new(&o, &err);

    if (st == MOE_OK)
        st = moe_options_load_defaults(o, &err);
    if (st == MOE_OK)
        st = moe_options_set(o, "model.path", model, MOE_FROM_ARG, &err);
    for (; st == MOE_OK && set != NULL && set[0] != NULL; set += 2)
        st = moe_options_set(o, set[0], set[1], MOE_FROM_ARG, &err);
    if (!ok(st == MOE_OK, "options"))
        tap_diag("%s", err.text);
    return o;
}

static void
refused(const char *model, const char *const *set, moe_status want,
        const char *part, const char *what)
{
    moe_options *o = options(model, set);
    moe_engine  *e = NULL;
    moe_status   st;

    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    st = moe_engine_open(o, &e, &err);
    is_int(st, want, "%s", what);
    has_str(err.text, part, "%s: the reason", what);
    ok(strchr(err.text, '\n') == NULL, "%s: one line", what);
    moe_engine_close(e);
    moe_options_free(o);
}

/* A copy of a folder's files that may be spoilt. */
static void
copy_folder(const char *from, char *to)
{
    static const char *const name[] = {"config.json", "generation_config.json",
                                       "model.safetensors", "tokenizer.json"};
    static char buf[1 << 16];
    char        a[1200], b[1200];
    size_t      i, n;

    strcpy(to, "/tmp/moe-engine-XXXXXX");
    if (mkdtemp(to) == NULL)
        return;
    for (i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
        FILE *in, *out;

        snprintf(a, sizeof(a), "%s/%s", from, name[i]);
        snprintf(b, sizeof(b), "%s/%s", to, name[i]);
        in = fopen(a, "rbe");
        out = in != NULL ? fopen(b, "wbe") : NULL;
        while (out != NULL && (n = fread(buf, 1, sizeof(buf), in)) > 0)
            (void) fwrite(buf, 1, n, out);
        if (out != NULL)
            fclose(out);
        if (in != NULL)
            fclose(in);
    }
}

static void
remove_folder(const char *dir)
{
    static const char *const name[] = {"config.json", "generation_config.json",
                                       "model.safetensors", "tokenizer.json"};
    char   path[1200];
    size_t i;

    for (i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, name[i]);
        (void) unlink(path);
    }
    (void) rmdir(dir);
}

static int
cut(void *ctx, const char *text, size_t len)
{
    struct moe_error *out = ctx;

    snprintf(out->text, sizeof(out->text), "%.*s", (int) len, text);
    return 0;
}

/* The file shrinks under a running engine whose experts come from it. */
static void
test_read_error(void)
{
    static const char *const small[] = {
        "engine.batch_rows", "8", "model.context", "64", "engine.sequences",
        "1", "plugin.load", NULL, "engine.backend", "fake",
        "backend.fake.memory", "280K", NULL};
    const char        *set[13];
    struct moe_request req = {.struct_size = sizeof(req), .n_prompt = 3,
                              .flags = MOE_REQUEST_IGNORE_EOS,
                              .max_tokens = 40};
    struct moe_sampling greedy = {.struct_size = sizeof(greedy), .top_p = 1,
                                  .repeat_penalty = 1};
    struct moe_stats    stats = {.struct_size = sizeof(stats)};
    uint32_t            prompt[3] = {4, 5, 6}, active = 1, steps = 0;
    char                dir[64], path[200], plugin[1100], memory[32];
    moe_options        *o;
    moe_engine         *e = NULL;
    moe_sequence       *s;
    moe_status          st = MOE_E_INVAL;
    long                kib;

    snprintf(plugin, sizeof(plugin), "%s/plugins/backend/fake/.libs/fake.so",
             getenv("MOE_TEST_BUILDDIR"));
    memcpy(set, small, sizeof(small));
    set[7] = plugin;
    copy_folder(tap_src("tests/model/fixtures/mixtral"), dir);
    /* the least memory that the model still opens with */
    for (kib = 100; kib < 2000 && st != MOE_OK; kib += 20) {
        snprintf(memory, sizeof(memory), "%ldK", kib);
        set[11] = memory;
        o = NULL;
        st = moe_options_new(&o, &err);
        if (st == MOE_OK)
            st = moe_options_load_defaults(o, &err);
        if (st == MOE_OK)
            st = moe_options_set(o, "model.path", dir, MOE_FROM_ARG, &err);
        for (int i = 0; st == MOE_OK && set[i] != NULL; i += 2)
            st = moe_options_set(o, set[i], set[i + 1], MOE_FROM_ARG, &err);
        if (st == MOE_OK)
            st = moe_engine_open(o, &e, &err);
        moe_options_free(o);
    }
    if (!ok(st == MOE_OK, "opens with %ld KiB of device memory", kib - 20)) {
        tap_diag("%s", err.text);
        remove_folder(dir);
        return;
    }
    req.prompt = prompt;
    req.sampling = &greedy;
    st = moe_engine_submit(e, &req, &s, &err);
    while (st == MOE_OK && active != 0) {
        st = moe_engine_step(e, &active, &err);
        if (++steps == 4) {
            snprintf(path, sizeof(path), "%s/model.safetensors", dir);
            if (truncate(path, 4096) != 0)
                break;
        }
    }
    (void) moe_engine_stats(e, &stats);
    ok(stats.expert_loads > 0, "experts came from the file");
    is_int(st, MOE_E_IO, "the file was cut after 4 steps");
    has_str(err.text, "model.safetensors", "the message names the file");
    ok(steps >= 4 && steps < 40, "in the middle of a generation (%u)", steps);
    is_int(moe_engine_step(e, &active, &err), MOE_E_INVAL,
           "a failed engine stays failed");
    moe_engine_close(e);
    remove_folder(dir);
}

static void
test_requests(void)
{
    moe_options        *o = options(tap_src("tests/model/fixtures/mixtral"),
                                    NULL);
    uint32_t            ids[300] = {1, 2, 3}, active;
    struct moe_request  req = {.struct_size = sizeof(req), .prompt = ids,
                               .max_tokens = 4};
    struct moe_sampling bad = {.struct_size = sizeof(bad), .top_p = 2,
                               .repeat_penalty = 1};
    struct moe_engine_info info = {.struct_size = sizeof(info)};
    moe_engine         *e = NULL;
    moe_sequence       *s = NULL;

    if (!ok(moe_engine_open(o, &e, &err) == MOE_OK, "opens")) {
        tap_diag("%s", err.text);
        moe_options_free(o);
        return;
    }
    (void) moe_engine_info(e, &info);
    is_int(moe_engine_submit(e, &req, &s, &err), MOE_E_INVAL, "no prompt");
    has_str(err.text, "empty prompt", "is said");
    req.n_prompt = info.max_context + 1;
    ok(req.n_prompt <= 300, "context %u", info.max_context);
    is_int(moe_engine_submit(e, &req, &s, &err), MOE_E_INVAL, "too long");
    has_str(err.text, "the context has", "with both figures");
    req.n_prompt = 3;
    ids[1] = info.vocab;
    is_int(moe_engine_submit(e, &req, &s, &err), MOE_E_INVAL, "unknown id");
    ids[1] = 2;
    req.sampling = &bad;
    is_int(moe_engine_submit(e, &req, &s, &err), MOE_E_INVAL, "top_p 2");
    has_str(err.text, "top_p", "is named");
    req.sampling = NULL;
    req.struct_size = 8;
    is_int(moe_engine_submit(e, &req, &s, &err), MOE_E_INVAL,
           "a request of no size");
    req.struct_size = sizeof(req);
    is_int(moe_engine_encode(e, "a", 1, 0, NULL, NULL, &err), MOE_E_NOT_FOUND,
           "text without a tokenizer");
    has_str(err.text, "tokenizer.json", "says what is missing");
    ok(moe_engine_submit(e, &req, &s, &err) == MOE_OK, "a good one");
    moe_engine_cancel(e);
    is_int(moe_engine_step(e, &active, &err), MOE_E_CANCELED, "canceled");
    moe_engine_close(e); /* and the sequence with it */
    moe_options_free(o);
}

int
main(void)
{
    static const char *const backend[] = {"engine.backend", "nosuch", NULL};
    static const char *const unused[] = {"backend.cpu.colour", "red", NULL};
    static const char *const context[] = {"model.context", "100000", NULL};
    static const char *const budget[] = {"memory.budget", "1M", NULL};
    const char  *mixtral = tap_src("tests/model/fixtures/mixtral");
    char         model[1100];
    moe_options *o;

    snprintf(model, sizeof(model), "%s", mixtral);
    err.struct_size = sizeof(err);
    refused("/nonexistent", NULL, MOE_E_NOT_FOUND, "/nonexistent",
            "no such model");
    refused(model, backend, MOE_E_ABSENT, "nosuch", "no such backend");
    refused(model, unused, MOE_E_INVAL, "colour", "a key nobody reads");
    refused(model, context, MOE_E_INVAL, "100000", "context beyond the model");
    refused(model, budget, MOE_E_OVER_BUDGET, "smallest that works",
            "budget of 1 MiB");
    o = options(model, NULL);
    ok(moe_explain(o, 1, cut, &err, NULL) == MOE_OK, "explanation");
    has_str(err.text, "\"groups\":[", "as JSON");
    moe_options_free(o);
    test_requests();
    test_read_error();
    return tap_done();
}
