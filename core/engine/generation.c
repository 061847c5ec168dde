/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generation.c - what a checkpoint says about generating with it.
 *
 * Owns the reading of generation_config.json: sampling values become option
 * values with the weakest source but the built-in ones.  `do_sample: false`
 * means greedy, as in the library that writes the file; a value that cannot
 * be right is named.
 */
#include "engine/engine.h"

#include <json-c/json.h>
#include <math.h>
#include <string.h>

static moe_status
moe_generation_number(const char *dir, struct json_object *g, const char *name,
                      const char *key, moe_options *o, struct moe_error *err)
{
    struct json_object *v;
    struct moe_error    why;
    char                text[64];
    moe_status          st;

    if (!json_object_object_get_ex(g, name, &v) || v == NULL)
        return MOE_OK;
    if (!json_object_is_type(v, json_type_double)
        && !json_object_is_type(v, json_type_int))
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s/generation_config.json: %s: a number is expected",
                        dir, name);
    if (json_object_is_type(v, json_type_int))
        snprintf(text, sizeof(text), "%lld",
                 (long long) json_object_get_int64(v));
    else
        snprintf(text, sizeof(text), "%.9g", json_object_get_double(v));
    memset(&why, 0, sizeof(why));
    why.struct_size = sizeof(why);
    st = moe_options_set(o, key, text, MOE_FROM_MODEL, &why);
    if (st != MOE_OK)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s/generation_config.json: %s: %.300s", dir, name,
                        why.text);
    return MOE_OK;
}

static moe_status
moe_generation_ends(const char *dir, struct json_object *config,
                    const char *file, uint32_t *ids, size_t max, size_t *n,
                    struct moe_error *err)
{
    struct json_object *v, *item;
    size_t              i, j, count;
    int64_t             id;

    if (config == NULL
        || !json_object_object_get_ex(config, "eos_token_id", &v) || v == NULL)
        return MOE_OK;
    count = json_object_is_type(v, json_type_array)
                ? json_object_array_length(v) : 1;
    for (i = 0; i < count; i++) {
        item = json_object_is_type(v, json_type_array)
                   ? json_object_array_get_idx(v, i) : v;
        id = item != NULL && json_object_is_type(item, json_type_int)
                 ? json_object_get_int64(item) : -1;
        if (id < 0 || id > INT32_MAX)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s/%s: eos_token_id: a token id or a list of "
                            "them is expected",
                            dir, file);
        for (j = 0; j < *n && ids[j] != (uint32_t) id; j++)
            ;
        if (j == *n && *n < max)
            ids[(*n)++] = (uint32_t) id;
    }
    return MOE_OK;
}

moe_status
moe_generation_defaults(const struct moe_checkpoint *c, moe_options *o,
                        uint32_t *ids, size_t max, size_t *n,
                        struct moe_error *err)
{
    static const char *const name[][2] = {
        {"temperature", "generate.temperature"},
        {"top_k", "generate.top_k"},
        {"top_p", "generate.top_p"},
        {"min_p", "generate.min_p"},
        {"repetition_penalty", "generate.repeat_penalty"},
    };
    struct json_object *g = moe_checkpoint_generation(c), *v;
    const char         *dir = moe_checkpoint_dir(c);
    moe_status          st = MOE_OK;
    size_t              i;

    *n = 0;
    if (g != NULL) {
        for (i = 0; i < sizeof(name) / sizeof(name[0]) && st == MOE_OK; i++)
            st = moe_generation_number(dir, g, name[i][0], name[i][1], o, err);
        if (st == MOE_OK && json_object_object_get_ex(g, "do_sample", &v)
            && json_object_is_type(v, json_type_boolean)
            && !json_object_get_boolean(v))
            st = moe_options_set(o, "generate.temperature", "0",
                                 MOE_FROM_MODEL, err);
        if (st == MOE_OK)
            st = moe_generation_ends(dir, g, "generation_config.json", ids,
                                     max, n, err);
    }
    if (st == MOE_OK && *n == 0)
        st = moe_generation_ends(dir, moe_checkpoint_config(c), "config.json",
                                 ids, max, n, err);
    return st;
}
