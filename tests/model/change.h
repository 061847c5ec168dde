/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.h - a fixture with something changed, in a folder of its own.
 */
#ifndef MOE_TESTS_MODEL_CHANGE_H
#define MOE_TESTS_MODEL_CHANGE_H

#include <json-c/json.h>

#include "checkpoint/folder.h"

struct change {
    const char *config;  /* a JSON object: keys to set; "-" deletes one */
    const char *drop;    /* a tensor to leave out */
    const char *rename;  /* a tensor to give another name */
    const char *to;
    const char *reshape; /* a tensor with one row less */
    const char *retype;  /* a tensor of floats to be called I32 or I16 */
    const char *spoil;   /* a tensor whose last element becomes NaN */
};

static void
change_config(const char *path, const char *dir, const char *patch)
{
    struct json_object *config = json_object_from_file(path);
    struct json_object *p = patch != NULL ? json_tokener_parse(patch) : NULL;
    struct json_object_iterator i, end;

    if (config == NULL || (patch != NULL && p == NULL)) {
        printf("Bail out! %s or its change is no JSON\n", path);
        exit(1);
    }
    if (p != NULL) {
        i = json_object_iter_begin(p);
        end = json_object_iter_end(p);
        for (; !json_object_iter_equal(&i, &end); json_object_iter_next(&i)) {
            struct json_object *v = json_object_iter_peek_value(&i);
            const char         *key = json_object_iter_peek_name(&i);

            if (json_object_is_type(v, json_type_string)
                && strcmp(json_object_get_string(v), "-") == 0)
                json_object_object_del(config, key);
            else
                json_object_object_add(config, key, json_object_get(v));
        }
    }
    put_text(dir, "config.json", json_object_to_json_string(config));
    json_object_put(p);
    json_object_put(config);
}

static int
same(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

/* The fixture, changed; a folder to be dropped. */
static const char *
changed(const char *fixture, const struct change *ch)
{
    char                   rel[300], path[1100];
    const char            *dir = new_dir();
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c = NULL;
    struct made           *made;
    unsigned char         *data;
    size_t                 i, n = 0, at = 0, bytes = 0;

    snprintf(rel, sizeof(rel), "tests/model/fixtures/%s", fixture);
    snprintf(path, sizeof(path), "%s/config.json", tap_src(rel));
    if (moe_checkpoint_open(tap_src(rel), &c, &err) != MOE_OK) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    for (i = 0; i < moe_checkpoint_count(c); i++)
        bytes += moe_checkpoint_at(c, i)->bytes;
    made = calloc(moe_checkpoint_count(c), sizeof(*made));
    data = malloc(bytes);
    for (i = 0; i < moe_checkpoint_count(c); i++) {
        const struct moe_tensor_info *t = moe_checkpoint_at(c, i);
        struct made                  *m = &made[n];
        uint32_t                      d;

        if (same(ch->drop, t->name))
            continue;
        m->name = same(ch->rename, t->name) ? ch->to : t->name;
        m->dtype = !same(ch->retype, t->name)     ? t->dtype
                   : strstr(t->dtype, "16") != NULL ? "I16"
                                                    : "I32";
        m->n_dims = t->n_dims;
        for (d = 0; d < t->n_dims; d++)
            m->dim[d] = t->dim[d];
        if (same(ch->reshape, t->name))
            m->dim[0]--;
        if (moe_checkpoint_read(c, t, 0, t->bytes, data + at, &err) != MOE_OK)
            abort();
        if (same(ch->spoil, t->name))
            memset(data + at + t->bytes - 4, 0xff, 4);
        m->data = data + at;
        at += t->bytes;
        n++;
    }
    change_config(path, dir, ch->config);
    put_tensors(dir, "model.safetensors", made, n);
    moe_checkpoint_close(c);
    free(made);
    free(data);
    return dir;
}

#endif /* MOE_TESTS_MODEL_CHANGE_H */
