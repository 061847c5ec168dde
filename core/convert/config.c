/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - config.json of a converted checkpoint.
 *
 * Owns quantization_config in the words of compressed-tensors 0.20, which
 * transformers and vLLM read.  With one format the target is the class
 * "Linear", which every reader knows, and what stayed as it was is on the
 * ignore list; with several formats each group names its modules.
 */

#include <convert/convert.h>

#include <checkpoint/json.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FORMATS_MAX 16u
#define CT_VERSION  "0.20.0"

/* What became of all tensors of one kind (all query matrices, say). */
struct kind {
    uint32_t n[FORMATS_MAX + 1]; /* by format; the last: plain */
    uint32_t total;
};

struct summary {
    const struct moe_format *formats[FORMATS_MAX];
    uint32_t                 n_formats;
    struct kind              kinds[MOE_T_COUNT];
};

/* The number of the format of a result; FORMATS_MAX: a plain tensor; -1: too
 * many. */
static int
format_index(struct summary *s, const struct moe_recode *r)
{
    uint32_t i;

    if (r->to.format->scheme.storage == NULL)
        return FORMATS_MAX;
    for (i = 0; i < s->n_formats; i++)
        if (s->formats[i] == r->to.format)
            return (int) i;
    if (s->n_formats == FORMATS_MAX)
        return -1;
    s->formats[s->n_formats] = r->to.format;
    return (int) s->n_formats++;
}

static void
add_text(struct json_object *list, const char *text, int *failed)
{
    struct json_object *s = json_object_new_string(text);

    if (s == NULL || json_object_array_add(list, s) != 0)
        *failed = 1;
}

static void
put(struct json_object *obj, const char *key, struct json_object *value,
    int *failed)
{
    if (json_object_object_add(obj, key, value) != 0)
        *failed = 1;
}

/* Every module of a kind in one entry: its name, or a pattern. */
static void
add_kind(struct json_object *list, const char *name, int *failed)
{
    char        buf[400];
    const char *p;
    size_t      n = 0, len = strlen(name);
    int         pattern = strchr(name, '{') != NULL;

    if (len > 7 && strcmp(name + len - 7, ".weight") == 0)
        len -= 7;
    if (pattern)
        n = (size_t) snprintf(buf, sizeof(buf), "re:");
    for (p = name; p < name + len && n + 8 < sizeof(buf); p++) {
        if (*p == '{') {
            memcpy(buf + n, "\\d+", 3);
            n += 3;
            p += 2;
        } else {
            if (*p == '.' && pattern)
                buf[n++] = '\\';
            buf[n++] = *p;
        }
    }
    if (pattern)
        buf[n++] = '$';
    buf[n] = '\0';
    add_text(list, buf, failed);
}

/* The modules that got format `index`, as patterns where a whole kind did. */
static void
add_modules(const struct moe_recode_plan *plan, struct summary *s, int index,
            struct json_object *list, int *failed)
{
    char     module[256];
    uint32_t t;
    size_t   i;

    for (t = 0; t < MOE_T_COUNT; t++)
        if (s->kinds[t].total > 0
            && s->kinds[t].n[index] == s->kinds[t].total
            && (t != MOE_T_EMBED || index != (int) FORMATS_MAX))
            add_kind(list, plan->a->name[t], failed);
    for (i = 0; i < plan->n; i++) {
        const struct moe_recode *r = &plan->at[i];
        const struct kind       *k = &s->kinds[r->tensor];

        if (format_index(s, r) != index || k->n[index] == k->total)
            continue;
        moe_recode_module(plan, r, module, sizeof(module));
        add_text(list, module, failed);
    }
}

static struct json_object *
weights_of(const struct moe_scheme *s, int *failed)
{
    struct json_object *w = json_object_new_object(), *block;

    if (w == NULL) {
        *failed = 1;
        return NULL;
    }
    put(w, "num_bits", json_object_new_int64(s->num_bits), failed);
    put(w, "type", json_object_new_string(s->type), failed);
    put(w, "symmetric", json_object_new_boolean(s->symmetric != 0), failed);
    put(w, "strategy", json_object_new_string(s->strategy), failed);
    put(w, "group_size",
        s->group_size != 0 ? json_object_new_int64(s->group_size) : NULL,
        failed);
    if (s->block_n != 0) {
        block = json_object_new_array();
        if (block == NULL
            || json_object_array_add(block, json_object_new_int64(s->block_n))
                   != 0
            || json_object_array_add(block, json_object_new_int64(s->block_k))
                   != 0)
            *failed = 1;
        put(w, "block_structure", block, failed);
    }
    /* the scales of its "mx" formats are E8M0, which it has as bytes */
    if (strncmp(s->storage, "mx", 2) == 0)
        put(w, "scale_dtype", json_object_new_string("torch.uint8"), failed);
    put(w, "dynamic", json_object_new_boolean(0), failed);
    put(w, "actorder", NULL, failed);
    return w;
}

static struct json_object *
group_of(const struct moe_recode_plan *plan, struct summary *s, uint32_t i,
         int *failed)
{
    const struct moe_scheme *scheme = &s->formats[i]->scheme;
    struct json_object      *g = json_object_new_object();
    struct json_object      *targets = json_object_new_array();

    if (g == NULL || targets == NULL) {
        *failed = 1;
        json_object_put(targets);
        return g;
    }
    if (s->n_formats > 1) {
        add_modules(plan, s, (int) i, targets, failed);
    } else {
        uint32_t embed = s->kinds[MOE_T_EMBED].n[i], t, linear = 0;

        for (t = 0; t < MOE_T_COUNT; t++)
            linear += t != MOE_T_EMBED && s->kinds[t].n[i] > 0;
        if (linear > 0)
            add_text(targets, "Linear", failed);
        if (embed > 0)
            add_text(targets, "Embedding", failed);
    }
    put(g, "targets", targets, failed);
    put(g, "weights", weights_of(scheme, failed), failed);
    put(g, "input_activations", NULL, failed);
    put(g, "output_activations", NULL, failed);
    put(g, "format", json_object_new_string(scheme->storage), failed);
    return g;
}

static struct json_object *
quantization_config(const struct moe_recode_plan *plan, struct summary *s,
                    int *failed)
{
    struct json_object *q = json_object_new_object();
    struct json_object *groups = json_object_new_object();
    struct json_object *ignore = json_object_new_array();
    const char         *format = NULL;
    char                name[32];
    uint32_t            i;

    if (q == NULL || groups == NULL || ignore == NULL) {
        *failed = 1;
        json_object_put(groups);
        json_object_put(ignore);
        return q;
    }
    for (i = 0; i < s->n_formats; i++) {
        const char *storage = s->formats[i]->scheme.storage;

        format = format == NULL || strcmp(format, storage) == 0
                     ? storage
                     : "mixed-precision";
        snprintf(name, sizeof(name), "group_%u", i);
        put(groups, name, group_of(plan, s, i, failed), failed);
    }
    add_modules(plan, s, FORMATS_MAX, ignore, failed);
    /* a head that is tied has no tensor here, but is a module to others */
    if (plan->a->tied)
        add_text(ignore, "lm_head", failed);
    put(q, "quant_method", json_object_new_string("compressed-tensors"),
        failed);
    put(q, "version", json_object_new_string(CT_VERSION), failed);
    put(q, "format", json_object_new_string(format), failed);
    put(q, "quantization_status", json_object_new_string("compressed"),
        failed);
    put(q, "global_compression_ratio", NULL, failed);
    put(q, "kv_cache_scheme", NULL, failed);
    put(q, "config_groups", groups, failed);
    put(q, "ignore", ignore, failed);
    return q;
}

moe_status
moe_recode_config(const struct moe_recode_plan *plan, char **text,
                  struct moe_error *err)
{
    struct summary     *s = calloc(1, sizeof(*s));
    struct json_object *config = NULL;
    const char         *out;
    moe_status          status = MOE_OK;
    int                 failed = s == NULL;
    size_t              i;

    for (i = 0; i < plan->n && !failed; i++) {
        int f = format_index(s, &plan->at[i]);

        if (f < 0) {
            status = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                              "quantize: more than %u formats in one "
                              "checkpoint", FORMATS_MAX);
            goto out;
        }
        s->kinds[plan->at[i].tensor].n[f]++;
        s->kinds[plan->at[i].tensor].total++;
    }
    if (!failed
        && json_object_deep_copy(moe_checkpoint_config(plan->c), &config,
                                 NULL) != 0)
        failed = 1;
    if (!failed) {
        json_object_object_del(config, "quantization_config");
        json_object_object_del(config, "compression_config");
        if (s->n_formats > 0)
            put(config, "quantization_config",
                quantization_config(plan, s, &failed), &failed);
    }
    out = failed ? NULL
                 : json_object_to_json_string_ext(
                       config, JSON_C_TO_STRING_PRETTY
                                   | JSON_C_TO_STRING_SPACED
                                   | JSON_C_TO_STRING_NOSLASHESCAPE);
    *text = out != NULL ? malloc(strlen(out) + 2) : NULL;
    if (*text == NULL) {
        status = moe_fail(err, MOE_E_NOMEM, ENOMEM,
                          "quantize: no memory for config.json");
        goto out;
    }
    strcpy(*text, out);
    strcat(*text, "\n");
out:
    json_object_put(config);
    free(s);
    return status;
}
