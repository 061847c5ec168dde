/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokset.c - the settings of a tokenizer.json: what is not a long list.
 *
 * Owns which keys there are: the BPE model's options, the three chains and
 * the post-processor.  Leaves each stage to its own loader, typed access to
 * tokcfg.c, the lists to tokload.c.
 */
#include "text/tok_int.h"

#include <json.h>

/* A string that may be missing or null; an empty one then is NULL too. */
static moe_status
optional_string(const struct moe_tokcfg *cfg, struct json_object *model,
                const char *key, int keep_empty, char **out, size_t *n)
{
    struct json_object *v;
    moe_status          s;

    if (!json_object_object_get_ex(model, key, &v) || v == NULL)
        return MOE_OK;
    s = moe_cfg_string(cfg, "model", model, key, 0, out, n);
    if (s == MOE_OK && *n == 0 && !keep_empty) {
        free(*out);
        *out = NULL;
    }
    return s;
}

moe_status
moe_set_model(const struct moe_tokcfg *cfg, struct json_object *root,
              struct moe_tokenizer *t)
{
    struct json_object *model, *v;
    const char         *type = "BPE";
    moe_status          s;

    if (!json_object_object_get_ex(root, "model", &model)
        || !json_object_is_type(model, json_type_object))
        return moe_cfg_corrupt(cfg, "model", "missing or not an object");
    if (json_object_object_get_ex(model, "type", &v)) {
        s = moe_cfg_type(cfg, "model", model, &type);
        if (s != MOE_OK)
            return s;
    }
    if (strcmp(type, "BPE") != 0)
        return moe_cfg_unsupported(cfg, "model type", type);
    if (json_object_object_get_ex(model, "dropout", &v) && v != NULL
        && json_object_get_double(v) != 0.0)
        return moe_cfg_unsupported(cfg, "model", "dropout");
    s = moe_cfg_bool(cfg, "model", model, "fuse_unk", 0, &t->fuse_unk);
    if (s == MOE_OK)
        s = moe_cfg_bool(cfg, "model", model, "byte_fallback", 0,
                         &t->byte_fallback);
    if (s == MOE_OK)
        s = moe_cfg_bool(cfg, "model", model, "ignore_merges", 0,
                         &t->ignore_merges);
    if (s == MOE_OK)
        s = optional_string(cfg, model, "unk_token", 1, &t->unk, &t->unk_n);
    if (s == MOE_OK)
        s = optional_string(cfg, model, "continuing_subword_prefix", 0,
                            &t->sub_prefix, &t->sub_prefix_n);
    if (s == MOE_OK)
        s = optional_string(cfg, model, "end_of_word_suffix", 0,
                            &t->word_suffix, &t->word_suffix_n);
    return s;
}

moe_status
moe_set_chains(const struct moe_tokcfg *cfg, struct json_object *root,
               struct moe_tokenizer *t)
{
    struct json_object *v;
    moe_status          s;

    if (json_object_object_get_ex(root, "version", &v)
        && (!json_object_is_type(v, json_type_string)
            || strcmp(json_object_get_string(v), "1.0") != 0))
        return moe_cfg_unsupported(cfg, "version",
                                   v != NULL ? json_object_get_string(v)
                                             : "null");
    v = NULL;
    json_object_object_get_ex(root, "normalizer", &v);
    s = moe_cfg_each(cfg, "normalizer", v, "normalizers", moe_normal_load,
                     &t->normal);
    if (s != MOE_OK)
        return s;
    v = NULL;
    json_object_object_get_ex(root, "pre_tokenizer", &v);
    s = moe_cfg_each(cfg, "pre_tokenizer", v, "pretokenizers",
                     moe_pretok_load, &t->pre);
    if (s != MOE_OK)
        return s;
    v = NULL;
    json_object_object_get_ex(root, "decoder", &v);
    t->has_decoder = v != NULL;
    return moe_cfg_each(cfg, "decoder", v, "decoders", moe_decode_load,
                        &t->decode);
}

/* --- the post-processor ------------------------------------------------- */

static moe_status
post_add(const struct moe_tokcfg *cfg, struct moe_post *p, uint32_t id)
{
    uint32_t *ids;

    /* the text's ids are copied once for each time it is named */
    if (p->n >= 1024 || (id == MOE_NO_TOKEN && p->texts++ >= 4))
        return moe_cfg_unsupported(cfg, "post_processor",
                                   "a template of that length");
    ids = realloc(p->id, (p->n + 1) * sizeof(*ids));
    if (ids == NULL)
        return moe_cfg_nomem(cfg);
    p->id = ids;
    p->id[p->n++] = id;
    return MOE_OK;
}

/* The ids of a template's special token. */
static moe_status
post_special(const struct moe_tokcfg *cfg, struct json_object *tokens,
             struct json_object *name, struct moe_tokenizer *t)
{
    struct json_object *v, *ids;
    moe_status          s = MOE_OK;

    if (!json_object_is_type(name, json_type_string)
        || !json_object_object_get_ex(tokens, json_object_get_string(name),
                                      &v)
        || !json_object_object_get_ex(v, "ids", &ids)
        || !json_object_is_type(ids, json_type_array))
        return moe_cfg_corrupt(cfg, "post_processor",
                               "a special token without ids");
    for (size_t i = 0; i < json_object_array_length(ids) && s == MOE_OK;
         i++) {
        struct json_object *one = json_object_array_get_idx(ids, i);
        int64_t id = json_object_is_type(one, json_type_int)
                         ? json_object_get_int64(one) : -1;

        if (id < 0 || id >= t->vocab.n_ids
            || t->vocab.token[id].off == MOE_NO_TOKEN)
            return moe_cfg_corrupt(cfg, "post_processor",
                                   "an id that no token has");
        s = post_add(cfg, &t->post, (uint32_t) id);
    }
    return s;
}

static moe_status
read_template(const struct moe_tokcfg *cfg, struct json_object *o,
              struct moe_tokenizer *t)
{
    struct json_object *single, *tokens = NULL, *v, *id;
    moe_status          s = MOE_OK;

    if (t->post.n != 0 || t->plain.n != 0)
        return moe_cfg_unsupported(cfg, "post_processor",
                                   "a second TemplateProcessing");
    if (!json_object_object_get_ex(o, "single", &single)
        || !json_object_is_type(single, json_type_array)
        || !json_object_object_get_ex(o, "special_tokens", &tokens)
        || !json_object_is_type(tokens, json_type_object))
        return moe_cfg_corrupt(cfg, "post_processor TemplateProcessing",
                               "single or special_tokens missing");
    for (size_t i = 0; i < json_object_array_length(single) && s == MOE_OK;
         i++) {
        struct json_object *piece = json_object_array_get_idx(single, i);

        id = NULL;
        if (json_object_object_get_ex(piece, "Sequence", &v)) {
            json_object_object_get_ex(v, "id", &id);
            if (!json_object_is_type(id, json_type_string)
                || strcmp(json_object_get_string(id), "A") != 0)
                return moe_cfg_corrupt(cfg, "post_processor",
                                       "a single template that is not for "
                                       "sequence A");
            s = post_add(cfg, &t->post, MOE_NO_TOKEN);
            if (s == MOE_OK)
                s = post_add(cfg, &t->plain, MOE_NO_TOKEN);
        } else if (json_object_object_get_ex(piece, "SpecialToken", &v)) {
            json_object_object_get_ex(v, "id", &id);
            s = post_special(cfg, tokens, id, t);
        } else {
            return moe_cfg_corrupt(cfg, "post_processor",
                                   "a piece that is neither Sequence nor "
                                   "SpecialToken");
        }
    }
    return s;
}

static moe_status
read_post(const struct moe_tokcfg *cfg, struct json_object *o,
          struct moe_tokenizer *t)
{
    struct json_object *list;
    const char         *type;
    moe_status          s = moe_cfg_type(cfg, "post_processor", o, &type);

    if (s != MOE_OK)
        return s;
    if (strcmp(type, "ByteLevel") == 0)
        return MOE_OK; /* it trims offsets, which nobody asks for here */
    if (strcmp(type, "TemplateProcessing") == 0) {
        t->has_template = 1;
        return read_template(cfg, o, t);
    }
    if (strcmp(type, "Sequence") != 0)
        return moe_cfg_unsupported(cfg, "post_processor", type);
    if (!json_object_object_get_ex(o, "processors", &list)
        || !json_object_is_type(list, json_type_array))
        return moe_cfg_corrupt(cfg, "post_processor",
                               "processors missing or not a list");
    for (size_t i = 0; i < json_object_array_length(list) && s == MOE_OK; i++)
        s = read_post(cfg, json_object_array_get_idx(list, i), t);
    return s;
}

moe_status
moe_set_post(const struct moe_tokcfg *cfg, struct json_object *root,
             struct moe_tokenizer *t)
{
    struct json_object *o = NULL;
    moe_status          s = MOE_OK;

    json_object_object_get_ex(root, "post_processor", &o);
    if (o != NULL)
        s = read_post(cfg, o, t);
    if (s == MOE_OK && !t->has_template) {
        s = post_add(cfg, &t->post, MOE_NO_TOKEN);
        if (s == MOE_OK)
            s = post_add(cfg, &t->plain, MOE_NO_TOKEN);
    }
    return s;
}
