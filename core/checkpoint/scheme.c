/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scheme.c - the words of quantization_config, matched with modules.
 *
 * Owns the reading of config_groups, targets and ignore lists as
 * compressed-tensors 0.20 defines them, and of the "fp8" method that
 * DeepSeek and Qwen use.  Does not know any format: it hands out the words,
 * and the registry finds who understands them.
 *
 * Of several targets that match a module, one with its exact name wins, then
 * the first pattern in alphabetical order, then a class name; of two groups
 * with the same target the later wins.  Activations are computed as they
 * are, so input_activations has no effect here.
 */

#include <checkpoint/scheme.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define GROUPS_MAX   256u
#define RULES_MAX    (1u << 20)
#define PATTERNS_MAX 512u
#define PATTERN_LEN  4096u
#define MATCH_LIMIT  20000u /* steps of one match; real patterns take tens */
#define IGNORE       UINT32_MAX

struct rule {
    const char *text;  /* the module's name, the pattern, the class */
    uint32_t    group; /* or IGNORE */
    uint32_t    order; /* as in the file */
    pcre2_code *re;    /* of a pattern */
};

struct rules {
    struct rule *at;
    size_t       n, cap;
};

struct group {
    struct moe_scheme scheme;
    char              label[64];
    char              why[160]; /* not readable; "" if it is */
};

struct moe_schemes {
    const char       *file;
    char              why[200]; /* the method is unknown; "" else */
    struct group     *groups;
    size_t            n_groups;
    struct rules      exact, patterns, classes;
    pcre2_match_data *match;
    pcre2_match_context *context;
};

/* ---------------------------------------------------------------- rules -- */

static moe_status
add_rule(struct moe_schemes *s, const char *text, uint32_t group,
         struct moe_error *err)
{
    char          show[MOE_SHOW_MAX + 4];
    struct rules *r;
    struct rule  *rule;
    int           pattern = strncmp(text, "re:", 3) == 0;
    size_t        n = s->exact.n + s->patterns.n + s->classes.n;

    /* other class names than these match nothing that we read */
    r = pattern ? &s->patterns
        : strcmp(text, "Linear") == 0 || strcmp(text, "Embedding") == 0
            ? &s->classes
            : &s->exact;
    if (n >= RULES_MAX || (pattern && r->n >= PATTERNS_MAX))
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: quantization_config has too many %s", s->file,
                        pattern ? "patterns" : "targets");
    if (r->n == r->cap) {
        size_t cap = r->cap == 0 ? 16 : 2 * r->cap;

        rule = realloc(r->at, cap * sizeof(*rule));
        if (rule == NULL)
            return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                            "%s: no memory for quantization_config", s->file);
        r->at = rule;
        r->cap = cap;
    }
    rule = &r->at[r->n];
    rule->text = pattern ? text + 3 : text;
    rule->group = group;
    rule->order = (uint32_t) n;
    rule->re = NULL;
    r->n++;
    if (pattern) {
        PCRE2_SIZE at;
        int        code;

        if (strlen(rule->text) > PATTERN_LEN)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "%s: quantization_config: the pattern \"%s\" is "
                            "longer than %u bytes", s->file,
                            moe_show(rule->text, show), PATTERN_LEN);
        /* Python's re.match: from the start, not to the end */
        rule->re = pcre2_compile((PCRE2_SPTR) rule->text,
                                 PCRE2_ZERO_TERMINATED,
                                 PCRE2_UTF | PCRE2_ANCHORED
                                     | PCRE2_NEVER_BACKSLASH_C,
                                 &code, &at, NULL);
        if (rule->re == NULL) {
            PCRE2_UCHAR why[96];

            pcre2_get_error_message(code, why, sizeof(why));
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: quantization_config: bad pattern \"%s\": %s",
                            s->file, moe_show(rule->text, show),
                            (const char *) why);
        }
    }
    return MOE_OK;
}

/* list: the value of `key`, an array. */
static moe_status
add_values(struct moe_schemes *s, const struct moe_json *j, const char *key,
           struct json_object *list, uint32_t group, struct moe_error *err)
{
    moe_status status;
    size_t     i;

    for (i = 0; i < json_object_array_length(list); i++) {
        struct json_object *v = json_object_array_get_idx(list, i);

        if (!json_object_is_type(v, json_type_string))
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: \"%s%s\" may hold strings only", j->file,
                            j->path, key);
        status = add_rule(s, json_object_get_string(v), group, err);
        if (status != MOE_OK)
            return status;
    }
    return MOE_OK;
}

static moe_status
add_list(struct moe_schemes *s, const struct moe_json *j, const char *key,
         uint32_t group, struct moe_error *err)
{
    struct json_object *list;
    moe_status          status = moe_json_array_or(j, key, &list, err);

    if (status != MOE_OK || list == NULL)
        return status;
    return add_values(s, j, key, list, group, err);
}

static int
by_text(const void *a, const void *b)
{
    const struct rule *x = a, *y = b;
    int                c = strcmp(x->text, y->text);

    if (c != 0)
        return c;
    return (x->order > y->order) - (x->order < y->order);
}

static void
sort_rules(struct rules *r)
{
    if (r->n > 1)
        qsort(r->at, r->n, sizeof(*r->at), by_text);
}

/* The first rule with this text; NULL: none. */
static const struct rule *
first_named(const struct rules *r, const char *text)
{
    size_t lo = 0, hi = r->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (strcmp(r->at[mid].text, text) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < r->n && strcmp(r->at[lo].text, text) == 0 ? &r->at[lo] : NULL;
}

/* All rules with this text: is it ignored, and which group is the last. */
static void
look_up(const struct rules *r, const char *text, int *ignored, int32_t *group)
{
    const struct rule *p = first_named(r, text);

    if (p == NULL)
        return;
    for (; p < r->at + r->n && strcmp(p->text, text) == 0; p++) {
        if (p->group == IGNORE)
            *ignored = 1;
        else
            *group = (int32_t) p->group;
    }
}

moe_status
moe_schemes_match(struct moe_schemes *s, const char *module, int32_t *group,
                  struct moe_error *err)
{
    char        show[MOE_SHOW_MAX + 4];
    const char *last = strrchr(module, '.');
    const char *class;
    int32_t     exact = -1, pattern = -1, by_class = -1;
    const char *taken = NULL; /* the pattern that `pattern` is from */
    int         ignored = 0;
    size_t      i;

    last = last != NULL ? last + 1 : module;
    class = strcmp(last, "embed_tokens") == 0 ? "Embedding" : "Linear";
    look_up(&s->exact, module, &ignored, &exact);
    look_up(&s->classes, class, &ignored, &by_class);
    for (i = 0; i < s->patterns.n && !ignored; i++) {
        const struct rule *r = &s->patterns.at[i];
        int                rc;

        /* a later group with the very same pattern replaces the earlier */
        if (r->group != IGNORE
            && (exact >= 0
                || (taken != NULL && strcmp(taken, r->text) != 0)))
            continue;
        rc = pcre2_match(r->re, (PCRE2_SPTR) module, strlen(module), 0, 0,
                         s->match, s->context);
        if (rc == PCRE2_ERROR_NOMATCH)
            continue;
        if (rc < 0) {
            PCRE2_UCHAR why[96];

            pcre2_get_error_message(rc, why, sizeof(why));
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: quantization_config: pattern \"%s\": %s",
                            s->file, moe_show(r->text, show),
                            (const char *) why);
        }
        if (r->group == IGNORE) {
            ignored = 1;
        } else {
            pattern = (int32_t) r->group;
            taken = r->text;
        }
    }
    *group = ignored        ? MOE_SCHEME_IGNORED
             : exact >= 0   ? exact
             : pattern >= 0 ? pattern
             : by_class >= 0 ? by_class
                             : MOE_SCHEME_NONE;
    return MOE_OK;
}

/* --------------------------------------------------------------- groups -- */

/* A known word's static copy whatever its case; the word itself if it is
 * unknown. */
static const char *
known(const char *word, const char *const *words)
{
    size_t i;

    for (i = 0; words[i] != NULL; i++)
        if (strcasecmp(words[i], word) == 0)
            return words[i];
    return word;
}

/* "block_structure": [128, 128], or "128x128" in older files. */
static moe_status
read_block(const struct moe_json *j, const char *key, uint32_t *n,
           uint32_t *k, struct moe_error *err)
{
    struct json_object *v = moe_json_get(j, key);
    uint64_t            b[2];
    moe_status          status;
    size_t              i;

    if (json_object_is_type(v, json_type_string)) {
        const char *s = json_object_get_string(v);
        char       *end;
        long        x, y;

        x = strtol(s, &end, 10);
        if (end == s || *end != 'x')
            goto bad;
        s = end + 1;
        y = strtol(s, &end, 10);
        if (end == s || *end != '\0' || x < 1 || y < 1 || x > 1 << 20
            || y > 1 << 20)
            goto bad;
        *n = (uint32_t) x;
        *k = (uint32_t) y;
        return MOE_OK;
    }
    if (!json_object_is_type(v, json_type_array)
        || json_object_array_length(v) != 2)
        goto bad;
    for (i = 0; i < 2; i++) {
        status = moe_json_as_uint(j, key, json_object_array_get_idx(v, i), 1,
                                  1 << 20, &b[i], err);
        if (status != MOE_OK)
            return status;
    }
    *n = (uint32_t) b[0];
    *k = (uint32_t) b[1];
    return MOE_OK;
bad:
    return moe_fail(err, MOE_E_CORRUPT, 0,
                    "%s: \"%s%s\": two sizes expected, as [128, 128]",
                    j->file, j->path, key);
}

/* What the group's weights are called when no format is given. */
static const char *
inferred_storage(const struct moe_scheme *s, int int_activations)
{
    if (strcmp(s->type, "int") == 0)
        return int_activations ? "int-quantized" : "pack-quantized";
    if (strcmp(s->type, "float") == 0 && s->num_bits == 8)
        return "float-quantized";
    if (strcmp(s->type, "float") == 0 && s->num_bits == 4
        && s->group_size == 32)
        return "mxfp4-pack-quantized";
    return "naive-quantized";
}

/* "group" is 1 to 2^20, -1 or missing says that there is none. */
static moe_status
read_group_size(const struct moe_json *w, int32_t *size,
                struct moe_error *err)
{
    struct json_object *v = moe_json_get(w, "group_size");
    uint64_t            u;
    moe_status          status;

    *size = 0;
    if (v == NULL)
        return MOE_OK;
    if (json_object_is_type(v, json_type_int)
        && json_object_get_int64(v) == -1) {
        *size = -1;
        return MOE_OK;
    }
    status = moe_json_as_uint(w, "group_size", v, 1, 1 << 20, &u, err);
    if (status == MOE_OK)
        *size = (int32_t) u;
    return status;
}

static moe_status
read_weights(struct group *g, const struct moe_json *w, const char *storage,
             int int_activations, struct moe_error *err)
{
    static const char *const types[] = { "int", "float", NULL };
    static const char *const strategies[] = {
        "tensor", "channel", "group", "block", "tensor_group", NULL
    };
    static const char *const storages[] = {
        "pack-quantized", "float-quantized", "int-quantized",
        "naive-quantized", "mxfp4-pack-quantized", NULL
    };
    struct moe_scheme  *s = &g->scheme;
    struct json_object *order;
    const char         *word;
    int32_t             group_size;
    moe_status          status;

    status = moe_json_u32_or(w, "num_bits", 1, 64, 8, &s->num_bits, err);
    if (status != MOE_OK)
        return status;
    status = moe_json_text_or(w, "type", "int", &word, err);
    if (status != MOE_OK)
        return status;
    s->type = known(word, types);
    status = moe_json_bool_or(w, "symmetric", 1, &s->symmetric, err);
    if (status != MOE_OK)
        return status;
    status = read_group_size(w, &group_size, err);
    if (status != MOE_OK)
        return status;
    status = moe_json_text_or(w, "strategy",
                              group_size > 0    ? "group"
                              : group_size == -1 ? "channel"
                                                 : "tensor",
                              &word, err);
    if (status != MOE_OK)
        return status;
    s->strategy = known(word, strategies);
    if (strcmp(s->strategy, "group") == 0
        || strcmp(s->strategy, "tensor_group") == 0) {
        if (group_size <= 0)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: \"%sgroup_size\" is missing for strategy "
                            "\"%s\"", w->file, w->path, s->strategy);
        s->group_size = (uint32_t) group_size;
    } else if (group_size > 0) {
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"%sgroup_size\" is %d, but the strategy is "
                        "no \"group\"", w->file, w->path, (int) group_size);
    }
    if (strcmp(s->strategy, "block") == 0) {
        status = read_block(w, "block_structure", &s->block_n, &s->block_k,
                            err);
        if (status != MOE_OK)
            return status;
    }

    s->storage = storage != NULL ? known(storage, storages)
                                 : inferred_storage(s, int_activations);
    /* two words for the same bytes */
    if (strcmp(s->storage, "naive-quantized") == 0)
        s->storage = strcmp(s->type, "float") == 0 ? "float-quantized"
                                                   : "int-quantized";

    /* Columns that were reordered by group need an index that newer files
     * no longer have. */
    order = moe_json_get(w, "actorder");
    if (json_object_is_type(order, json_type_string)) {
        word = json_object_get_string(order);
        if (strcasecmp(word, "group") == 0 || strcasecmp(word, "dynamic") == 0)
            snprintf(g->why, sizeof(g->why),
                     "actorder \"%s\" (columns in another order)", word);
    } else if (json_object_is_type(order, json_type_boolean)
               && json_object_get_boolean(order)) {
        snprintf(g->why, sizeof(g->why),
                 "actorder true (columns in another order)");
    }
    return MOE_OK;
}

static moe_status
read_group(struct moe_schemes *s, uint32_t index, const char *name,
           struct json_object *obj, const char *global, struct moe_error *err)
{
    struct group       *g = &s->groups[index];
    char                path[160], show[MOE_SHOW_MAX + 4];
    struct moe_json     j = { obj, s->file, path };
    struct moe_json     w = { NULL, s->file, path };
    struct moe_json     a = { NULL, s->file, path };
    struct json_object *input;
    const char         *storage, *type = "";
    moe_status          status;

    moe_show(name, show);
    snprintf(g->label, sizeof(g->label), "config_groups.%.40s", show);
    g->scheme.struct_size = sizeof(g->scheme);
    snprintf(path, sizeof(path), "quantization_config.config_groups.%s.",
             show);
    if (json_object_is_type(obj, json_type_array)) {
        /* targets under the name of a preset: "W4A16": ["Linear"] */
        snprintf(g->why, sizeof(g->why),
                 "the preset \"%.40s\" without its figures", show);
        j.path = "quantization_config.config_groups.";
        return add_values(s, &j, show, obj, index, err);
    }
    if (!json_object_is_type(obj, json_type_object))
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"quantization_config.config_groups.%s\": an "
                        "object expected", s->file, show);
    status = add_list(s, &j, "targets", index, err);
    if (status != MOE_OK)
        return status;
    status = moe_json_text_or(&j, "format", global, &storage, err);
    if (status != MOE_OK)
        return status;
    status = moe_json_object_or(&j, "weights", &w.obj, err);
    if (status != MOE_OK)
        return status;
    status = moe_json_object_or(&j, "input_activations", &input, err);
    if (status != MOE_OK)
        return status;
    if (w.obj == NULL) {
        snprintf(g->why, sizeof(g->why), "no figures for weights");
        return MOE_OK;
    }
    a.obj = input;
    snprintf(path, sizeof(path),
             "quantization_config.config_groups.%s.input_activations.", show);
    if (input != NULL) {
        status = moe_json_text_or(&a, "type", "int", &type, err);
        if (status != MOE_OK)
            return status;
    }
    snprintf(path, sizeof(path),
             "quantization_config.config_groups.%s.weights.", show);
    return read_weights(g, &w, storage, strcasecmp(type, "int") == 0, err);
}

static moe_status
read_compressed(struct moe_schemes *s, const struct moe_json *q,
                struct moe_error *err)
{
    struct json_object *groups, *other;
    const char         *global;
    moe_status          status;
    uint32_t            i = 0;

    status = moe_json_object_or(q, "config_groups", &groups, err);
    if (status != MOE_OK)
        return status;
    /* null, or an object with figures */
    status = moe_json_object_or(q, "sparsity_config", &other, err);
    if (status != MOE_OK)
        return status;
    if (other != NULL) {
        struct moe_json sp = { other, s->file,
                               "quantization_config.sparsity_config." };
        const char     *format;

        status = moe_json_text_or(&sp, "format", "dense", &format, err);
        if (status != MOE_OK)
            return status;
        if (strcmp(format, "dense") != 0) {
            char show[MOE_SHOW_MAX + 4];

            snprintf(s->why, sizeof(s->why), "sparse weights (format \"%s\")",
                     moe_show(format, show));
        }
    }
    status = moe_json_object_or(q, "transform_config", &other, err);
    if (status != MOE_OK)
        return status;
    if (other != NULL
        && json_object_object_get_ex(other, "config_groups", &other)
        && json_object_is_type(other, json_type_object)
        && json_object_object_length(other) > 0)
        snprintf(s->why, sizeof(s->why),
                 "transform_config (weights that were rotated)");

    status = moe_json_text_or(q, "format", NULL, &global, err);
    if (status != MOE_OK)
        return status;
    /* words that leave it to the groups, or to what the weights are */
    if (global != NULL
        && (strcmp(global, "mixed-precision") == 0
            || strcmp(global, "fakequant") == 0
            || strcmp(global, "dense") == 0))
        global = NULL;
    status = add_list(s, q, "ignore", IGNORE, err);
    if (status != MOE_OK || groups == NULL)
        return status;

    s->n_groups = (size_t) json_object_object_length(groups);
    if (s->n_groups > GROUPS_MAX)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: quantization_config: %zu config_groups, at most "
                        "%u are read", s->file, s->n_groups, GROUPS_MAX);
    s->groups = calloc(s->n_groups + 1, sizeof(*s->groups));
    if (s->groups == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "%s: no memory for quantization_config", s->file);
    {
        json_object_object_foreach(groups, name, value)
        {
            status = read_group(s, i++, name, value, global, err);
            if (status != MOE_OK)
                return status;
        }
    }
    return MOE_OK;
}

/*
 * "fp8": E4M3 elements; the scale of a block of weight_block_size (or of the
 * whole matrix) multiplies, although its tensor is called weight_scale_inv.
 */
static moe_status
read_fp8(struct moe_schemes *s, const struct moe_json *q,
         struct moe_error *err)
{
    struct group *g;

    s->groups = calloc(1, sizeof(*s->groups));
    if (s->groups == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "%s: no memory for quantization_config", s->file);
    s->n_groups = 1;
    g = s->groups;
    snprintf(g->label, sizeof(g->label), "quant_method fp8");
    g->scheme.struct_size = sizeof(g->scheme);
    g->scheme.num_bits = 8;
    g->scheme.symmetric = 1;
    g->scheme.storage = "float-quantized";
    g->scheme.type = "float";
    g->scheme.strategy = "tensor";
    if (moe_json_get(q, "weight_block_size") != NULL) {
        moe_status status = read_block(q, "weight_block_size",
                                       &g->scheme.block_n,
                                       &g->scheme.block_k, err);

        if (status != MOE_OK)
            return status;
        g->scheme.strategy = "block";
    }
    return add_rule(s, "Linear", 0, err);
}

moe_status
moe_schemes_parse(const struct moe_json *config, struct moe_schemes **out,
                  struct moe_error *err)
{
    struct moe_json     q = { NULL, config->file, "quantization_config." };
    struct moe_schemes *s;
    const char         *method;
    moe_status          status;

    *out = NULL;
    status = moe_json_object_or(config, "quantization_config", &q.obj, err);
    if (status == MOE_OK && q.obj == NULL) {
        q.path = "compression_config.";
        status = moe_json_object_or(config, "compression_config", &q.obj,
                                    err);
    }
    if (status != MOE_OK || q.obj == NULL)
        return status;

    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "%s: no memory for quantization_config",
                        config->file);
    s->file = config->file;
    s->match = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    if (s->match == NULL || s->context == NULL) {
        status = moe_fail(err, MOE_E_NOMEM, ENOMEM,
                          "%s: no memory for quantization_config",
                          config->file);
        goto fail;
    }
    pcre2_set_match_limit(s->context, MATCH_LIMIT);

    method = moe_json_get(&q, "config_groups") != NULL ? "compressed-tensors"
                                                       : NULL;
    if (method != NULL)
        status = moe_json_text_or(&q, "quant_method", method, &method, err);
    else
        status = moe_json_text(&q, "quant_method", &method, err);
    if (status != MOE_OK)
        goto fail;
    if (strcmp(method, "compressed-tensors") == 0) {
        status = read_compressed(s, &q, err);
    } else if (strcmp(method, "fp8") == 0) {
        status = read_fp8(s, &q, err);
    } else {
        char show[MOE_SHOW_MAX + 4];

        snprintf(s->why, sizeof(s->why), "quantization method \"%s\"",
                 moe_show(method, show));
    }
    if (status != MOE_OK)
        goto fail;
    sort_rules(&s->exact);
    sort_rules(&s->patterns);
    sort_rules(&s->classes);
    *out = s;
    return MOE_OK;
fail:
    moe_schemes_free(s);
    return status;
}

void
moe_schemes_free(struct moe_schemes *s)
{
    size_t i;

    if (s == NULL)
        return;
    for (i = 0; i < s->patterns.n; i++)
        pcre2_code_free(s->patterns.at[i].re);
    free(s->exact.at);
    free(s->patterns.at);
    free(s->classes.at);
    free(s->groups);
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    free(s);
}

const char *
moe_schemes_unsupported(const struct moe_schemes *s)
{
    return s->why[0] != '\0' ? s->why : NULL;
}

moe_status
moe_schemes_get(const struct moe_schemes *s, int32_t group,
                const char *module, const char *elem, struct moe_scheme *out,
                struct moe_error *err)
{
    char                show[MOE_SHOW_MAX + 4];
    const struct group *g;

    if (s->why[0] != '\0')
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: %s is not supported (compressed-tensors and fp8 "
                        "are)", s->file, s->why);
    if (group < 0 || (size_t) group >= s->n_groups)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: module \"%s\" is stored quantized (%s), but %s",
                        s->file, moe_show(module, show), elem,
                        group == MOE_SCHEME_IGNORED
                            ? "on quantization_config's ignore list"
                            : "no group of quantization_config targets it");
    g = &s->groups[group];
    if (g->why[0] != '\0')
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: quantization_config.%s: %s: not supported",
                        s->file, g->label, g->why);
    *out = g->scheme;
    out->elem = elem;
    return MOE_OK;
}
