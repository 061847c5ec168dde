/* SPDX-License-Identifier: Apache-2.0 */
/* moe_inspect: the figures of a checkpoint, for people and as JSON. */
#include "config/options.h"

#include <json-c/json.h>

#include "checkpoint/folder.h"

struct text {
    char   s[65536];
    size_t n, refuse;
};

static int
take(void *ctx, const char *s, size_t len)
{
    struct text *t = ctx;

    if (t->refuse || t->n + len >= sizeof(t->s))
        return 1;
    memcpy(t->s + t->n, s, len);
    t->n += len;
    t->s[t->n] = '\0';
    return 0;
}

static struct text       text;
static struct moe_error  err;

static moe_status
inspect(const char *path, int json, const char *plugins)
{
    moe_options *o;
    moe_status   st;

    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    text.n = 0;
    text.s[0] = '\0';
    if (moe_options_new(&o, &err) != MOE_OK
        || moe_options_set(o, "plugin.path", plugins, MOE_FROM_ARG, &err)
               != MOE_OK)
        exit(1);
    st = moe_inspect(o, path, json, take, &text, &err);
    moe_options_free(o);
    return st;
}

static struct json_object *
at(struct json_object *o, const char *key)
{
    struct json_object *v = NULL;

    json_object_object_get_ex(o, key, &v);
    return v;
}

static uint64_t
number(struct json_object *o, const char *key)
{
    return json_object_get_uint64(at(o, key));
}

static void
people(const char *plugins)
{
    is_int(inspect(tap_src("tests/quant/fixtures/qwen3_moe-mixed"), 0,
                   plugins), MOE_OK, "mixed: %s", err.text);
    has_str(text.s, "family         qwen3_moe\n", "family");
    has_str(text.s, "parameters     100256, 69024 for a token\n",
            "parameters");
    has_str(text.s, "experts     int4-g32                   24           49152",
            "experts by format");
    has_str(text.s, "attention   fp8-e4m3-channel            8           36864",
            "attention by format");
    is_int(inspect(tap_src("tests/model/fixtures/qwen2_moe-step"), 0,
                   plugins), MOE_OK, "dense layers: %s", err.text);
    has_str(text.s, "experts        4 of width 18 in 1 layers, 4 for a token",
            "experts");
    has_str(text.s, "shared expert  width 34, gated", "shared expert");
    has_str(text.s, "dense layers   3 of width 50", "dense layers");
    has_str(text.s, "output tied to input", "tied");
}

static void
programs(const char *plugins)
{
    struct json_object *o, *list, *v;
    uint64_t            params = 0, bytes = 0;
    size_t              i, n;

    is_int(inspect(tap_src("tests/model/fixtures/qwen3_moe-bf16"), 1,
                   plugins), MOE_OK, "JSON: %s", err.text);
    o = json_tokener_parse(text.s);
    if (!ok(o != NULL, "it is JSON"))
        return;
    is_str(json_object_get_string(at(o, "family")), "qwen3_moe", "family");
    is_int(number(o, "params_total"), 57636, "params_total");
    is_int(number(o, "params_active"), 38916, "params_active");
    is_int(number(o, "experts"), 7, "experts");
    is_int(number(o, "top_k"), 3, "top_k");
    is_int(number(o, "moe_layers"), 3, "moe_layers");
    list = at(o, "classes");
    for (i = 0; i < json_object_array_length(list); i++) {
        v = json_object_array_get_idx(list, i);
        params += number(v, "params");
        bytes += number(v, "bytes");
    }
    is_int(params, 57636, "the classes' parameters are all");
    is_int(bytes, 2 * 57636, "and their bytes");
    is_int(number(o, "bytes"), 2 * 57636, "as those of the files");
    list = at(o, "tensors");
    n = json_object_array_length(list);
    ok(n > 60, "%zu tensors", n);
    v = json_object_array_get_idx(list, 0);
    ok(at(v, "name") != NULL && at(v, "dtype") != NULL
           && at(v, "shape") != NULL && at(v, "offset") != NULL
           && at(v, "bytes") != NULL && at(v, "file") != NULL,
       "what each is");
    has_str(json_object_get_string(at(v, "file")), "model-00001-of-",
            "in which file");
    json_object_put(o);
}

int
main(void)
{
    const char *plugins = getenv("MOE_PLUGIN_PATH");
    const char *dir = new_dir();

    if (plugins == NULL)
        tap_skip_all("MOE_PLUGIN_PATH does not say where the quantizers are");
    people(plugins);
    programs(plugins);

    /* no plugin is needed to look */
    is_int(inspect(tap_src("tests/quant/fixtures/qwen3_moe-w4a16"), 0, dir),
           MOE_OK, "without plugins: %s", err.text);
    has_str(text.s, "pack-quantized int4", "a format in its own words");
    is_int(inspect(dir, 0, dir), MOE_E_NOT_FOUND, "an empty folder");
    has_str(err.text, dir, "is named");
    text.refuse = 1;
    is_int(inspect(tap_src("tests/model/fixtures/llama"), 0, dir), MOE_E_IO,
           "a reader who has enough");
    drop_dir(dir);
    return tap_done();
}
