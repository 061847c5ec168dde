/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shape.c - from config.json to a table of matrices.
 *
 * Owns the table and the way from the engine's own description to it.  What
 * the families outside of the engine need is in other.c.
 */
#include "plan/shape.h"
#include "plan/stored.h"
#include "support/near.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_CONFIG (16u << 20) /* bytes of a config.json */

int
moe_shape_add(struct moe_sketch *s, uint32_t cls, int vector, uint64_t n,
              uint64_t k, uint64_t count, uint64_t used)
{
    return moe_sketch_add_stored(s, cls, vector, n, k, count, used, 0);
}

int
moe_sketch_add_stored(struct moe_sketch *s, uint32_t cls, int vector,
                      uint64_t n, uint64_t k, uint64_t count, uint64_t used,
                      double bits)
{
    uint32_t i;

    if (n == 0 || k == 0 || count == 0)
        return 1;
    for (i = 0; i < s->n_m; i++)
        if (s->m[i].cls == cls && s->m[i].vector == (uint32_t) vector
            && s->m[i].n == n && s->m[i].k == k && s->m[i].bits == bits
            && (s->m[i].count == s->m[i].used) == (count == used))
            break;
    if (i == s->n_m) {
        if (s->n_m == MOE_SHAPE_MATRICES)
            return 0;
        s->m[s->n_m++] = (struct moe_matrix){ cls, (uint32_t) vector, n, k,
                                              0, 0, bits };
    }
    s->m[i].count += count;
    s->m[i].used += used;
    return 1;
}

void
moe_shape_free(struct moe_sketch *s)
{
    free(s->layers);
    s->layers = NULL;
}

/* The owner's class: a bias belongs to its matrix, a gate to its expert. */
static uint32_t
class_of(uint32_t tensor)
{
    switch (tensor) {
    case MOE_T_EMBED:
        return MOE_PLAN_EMBED;
    case MOE_T_OUTPUT:
        return MOE_PLAN_OUTPUT;
    case MOE_T_Q_BIAS:
    case MOE_T_K_BIAS:
    case MOE_T_V_BIAS:
    case MOE_T_O_BIAS:
        return MOE_PLAN_ATTENTION;
    case MOE_T_ROUTER_BIAS:
        return MOE_PLAN_ROUTER;
    case MOE_T_SHARED_SCALE:
        return MOE_PLAN_SHARED;
    case MOE_T_GATE_BIAS:
    case MOE_T_UP_BIAS:
    case MOE_T_DOWN_BIAS:
        return MOE_PLAN_DENSE;
    default:
        break;
    }
    switch (moe_arch_class(tensor)) {
    case MOE_CLASS_ATTENTION:
        return MOE_PLAN_ATTENTION;
    case MOE_CLASS_ROUTER:
        return MOE_PLAN_ROUTER;
    case MOE_CLASS_EXPERT:
        return MOE_PLAN_EXPERTS;
    case MOE_CLASS_SHARED:
        return MOE_PLAN_SHARED;
    case MOE_CLASS_DENSE:
        return MOE_PLAN_DENSE;
    default:
        return MOE_PLAN_NORMS;
    }
}

/* Tensor t of layer l; the experts' one by one if they may differ. */
static moe_status
add_tensor(const struct moe_json *config, const struct moe_arch *a,
           struct moe_stored *stored, uint32_t t, uint32_t l,
           struct moe_sketch *s, struct moe_error *err)
{
    uint32_t   experts = moe_arch_per_expert(t) ? a->n_experts : 1, e, run;
    uint32_t   cls = class_of(t);
    int        vector = moe_arch_class(t) == MOE_CLASS_NORM, good = 1;
    uint64_t   n, k, used = moe_arch_per_expert(t)         ? a->top_k
                            : t == MOE_T_EMBED && !a->tied ? 0
                                                           : 1;
    double     bits = 0, next = 0;
    moe_status status = MOE_OK;

    moe_arch_shape(a, t, l, &n, &k);
    if (n == 0 || k == 0 || experts == 0)
        return MOE_OK;
    if (stored == NULL || vector) {
        good = moe_shape_add(s, cls, vector, n, k, experts, used);
    } else {
        for (e = run = 0; e <= experts && good && status == MOE_OK; e++) {
            if (e < experts)
                status = moe_stored_bits(stored, cls, t, l, e, n, k, &next,
                                         err);
            if (e > 0 && (e == experts || next != bits)) {
                /* those that a token uses are counted with the first */
                good = moe_sketch_add_stored(s, cls, 0, n, k, e - run, used,
                                             bits);
                used = 0;
                run = e;
            }
            bits = next;
        }
    }
    if (status == MOE_OK && !good)
        status = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                          "%s: more than %u kinds of matrices", config->file,
                          MOE_SHAPE_MATRICES);
    return status;
}

static moe_status
from_arch(const struct moe_json *config, struct moe_arch *a,
          struct moe_sketch *s, struct moe_error *err)
{
    struct moe_stored *stored;
    uint32_t           t, l;
    moe_status         status;

    snprintf(s->family, sizeof(s->family), "%s", a->family);
    s->runnable = 1;
    s->hidden = a->hidden;
    s->n_layers = a->n_layers;
    s->vocab = a->vocab;
    s->tied = a->tied;
    s->heads = a->heads;
    s->kv_heads = a->kv_heads;
    s->head_dim = a->head_dim;
    s->v_dim = a->v_dim;
    s->max_context = a->max_context;
    s->n_experts = a->n_experts;
    s->top_k = a->top_k;
    s->expert_width = a->expert_width;
    s->shared_width = a->shared_width;
    status = moe_stored_open(config, a, &stored, err);
    for (t = 0; t < MOE_T_COUNT && status == MOE_OK; t++)
        for (l = 0; l < (moe_arch_per_layer(t) ? a->n_layers : 1)
                    && status == MOE_OK; l++)
            status = add_tensor(config, a, stored, t, l, s, err);
    if (stored != NULL && status == MOE_OK)
        moe_stored_words(stored, config, s);
    moe_stored_close(stored);
    if (status != MOE_OK)
        return status;
    s->layers = a->layers; /* taken over */
    a->layers = NULL;
    return MOE_OK;
}

static int
known(const char *words, const char *word)
{
    size_t      len = strlen(word);
    const char *p;

    for (p = words; len > 0 && (p = strstr(p, word)) != NULL; p += len)
        if ((p == words || p[-1] == ' ') && (p[len] == ' ' || p[len] == '\0'))
            return 1;
    return 0;
}

static moe_status
unknown_family(const struct moe_json *config, const char *type,
               struct moe_error *err)
{
    char words[256], near[128], shown[MOE_SHOW_MAX + 4];

    snprintf(words, sizeof(words), "%s %s", moe_arch_families(),
             moe_shape_others());
    moe_words_near(type, words, near, sizeof(near));
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "%s: \"model_type\" \"%s\" cannot be planned%s%s "
                    "(known: %s)",
                    config->file, moe_show(type, shown),
                    near[0] != '\0' ? "; nearest: " : "", near, words);
}

moe_status
moe_shape_read(const struct moe_json *config, struct moe_sketch *out,
               struct moe_error *err)
{
    struct moe_sketch s = { 0 };
    struct moe_arch  a;
    const char      *type;
    moe_status       status;
    uint32_t         l;

    status = moe_json_text(config, "model_type", &type, err);
    if (status != MOE_OK)
        return status;
    if (!moe_shape_other(type, config, &s, &status, err)) {
        if (!known(moe_arch_families(), type))
            return unknown_family(config, type, err);
        status = moe_arch_config(config, &a, err);
        if (status == MOE_OK) {
            status = from_arch(config, &a, &s, err);
            moe_arch_free(&a);
        }
    }
    if (status != MOE_OK) {
        moe_shape_free(&s);
        return status;
    }
    for (l = 0; l < s.n_layers; l++)
        s.n_moe += s.layers[l].ffn == MOE_FFN_MOE;
    if (s.n_moe == 0)
        s.n_experts = s.top_k = 0;
    *out = s;
    return MOE_OK;
}

/* What a preset's "_about" says of itself. */
static moe_status
read_about(const struct moe_json *config, struct moe_sketch *s,
           struct moe_error *err)
{
    struct moe_json about = { NULL, config->file, "_about." };
    const char     *text;
    moe_status      status;

    status = moe_json_object_or(config, "_about", &about.obj, err);
    if (status != MOE_OK || about.obj == NULL)
        return status;
    status = moe_json_text_or(&about, "source", "", &text, err);
    if (status == MOE_OK) {
        snprintf(s->source, sizeof(s->source), "%s", text);
        status = moe_json_text_or(&about, "released_in", s->format, &text,
                                  err);
    }
    if (status == MOE_OK) {
        if (text != s->format)
            snprintf(s->format, sizeof(s->format), "%s", text);
        if (moe_json_get(&about, "published_parameters") != NULL)
            status = moe_json_uint(&about, "published_parameters", 1,
                                   UINT64_MAX / 2, &s->published, err);
    }
    return status;
}

/* Formats that a quantization_config names in a way we can tell; "": it is
 * quantized, but how cannot be told. */
static void
guess_format(const struct moe_json *config, struct moe_sketch *s)
{
    struct moe_json     q = { NULL, config->file, "quantization_config." };
    struct moe_error    err = { .struct_size = sizeof(err) };
    const char         *method = "";
    uint32_t            bits = 0;

    if (s->format[0] != '\0') /* it is known matrix by matrix */
        return;
    (void) moe_json_object_or(config, "quantization_config", &q.obj, &err);
    if (q.obj == NULL) {
        snprintf(s->format, sizeof(s->format), "%s",
                 moe_stored_dtype(config));
        return;
    }
    (void) moe_json_text_or(&q, "quant_method", "", &method, &err);
    (void) moe_json_u32_or(&q, "bits", 1, 16, 4, &bits, &err);
    if (strcmp(method, "fp8") == 0)
        snprintf(s->format, sizeof(s->format), "fp8");
    else if (strcmp(method, "mxfp4") == 0)
        snprintf(s->format, sizeof(s->format), "experts=mxfp4,rest=bf16");
    else if ((strcmp(method, "gptq") == 0 || strcmp(method, "awq") == 0)
             && bits == 4)
        snprintf(s->format, sizeof(s->format), "%s", method);
}

/* The last part of a path, or the name as it was given. */
static void
name_it(const char *what, struct moe_sketch *out)
{
    char        shown[MOE_SHOW_MAX + 4];
    const char *base;
    size_t      len = strlen(what);

    while (len > 1 && what[len - 1] == '/')
        len--;
    base = what + len;
    while (base > what && base[-1] != '/')
        base--;
    snprintf(out->name, sizeof(out->name), "%.*s",
             (int) (what + len - base < 60 ? what + len - base : 60), base);
    moe_show(out->name, shown);
    snprintf(out->name, sizeof(out->name), "%.60s", shown);
    len = strlen(out->name);
    if (len > 5 && strcmp(out->name + len - 5, ".json") == 0
        && strcmp(out->name, "config.json") != 0)
        out->name[len - 5] = '\0';
}

static int
ends_with(const char *text, const char *tail)
{
    size_t len = strlen(text), n = strlen(tail);

    return len > n && strcmp(text + len - n, tail) == 0;
}

moe_status
moe_shape_open(const char *what, struct moe_sketch *out, struct moe_error *err)
{
    char                path[4200], shown[MOE_SHOW_PATH_MAX + 4];
    struct json_object *top = NULL;
    struct moe_json     config = { NULL, shown, "" };
    struct stat         st, link; /* a link may lead nowhere */
    size_t              len = strlen(what);
    moe_status          status;
    int                 why;

    memset(out, 0, sizeof(*out));
    if (len == 0 || len > 4096)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "a model's name of %zu bytes: give a preset's name, "
                        "a folder or a config.json", len);
    why = stat(what, &st) == 0 ? 0 : errno;
    if (why == 0) {
        snprintf(path, sizeof(path), "%s%s", what,
                 S_ISDIR(st.st_mode) ? "/config.json" : "");
    } else if (strchr(what, '/') != NULL || ends_with(what, ".gguf")
               || ends_with(what, ".json") || lstat(what, &link) == 0) {
        return moe_fail(err, why == ENOENT || why == ENOTDIR
                                 ? MOE_E_NOT_FOUND : MOE_E_IO, why, "%s: %s",
                        moe_show_path(what, shown), strerror(why));
    } else {
        status = moe_facts_find("models", what, path, sizeof(path), err);
        if (status != MOE_OK)
            return status;
    }
    moe_show_path(path, shown);
    if (ends_with(what, ".gguf")) {
        status = moe_sketch_gguf(path, out, err);
        if (status != MOE_OK)
            return status;
        name_it(what, out);
        return MOE_OK;
    }
    status = moe_json_file(path, MAX_CONFIG, &top, err);
    if (status != MOE_OK)
        return status;
    config.obj = top;
    status = moe_shape_read(&config, out, err);
    if (status == MOE_OK) {
        guess_format(&config, out);
        status = read_about(&config, out, err);
    }
    json_object_put(top);
    if (status != MOE_OK) {
        moe_shape_free(out);
        return status;
    }
    name_it(what, out);
    return MOE_OK;
}
