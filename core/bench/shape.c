/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shape.c - a model's shape with random weights.
 *
 * Owns what the weights are like: which format each class gets, and how large
 * the numbers are.  The bytes are made by checkpoint/synthetic.c, the planes
 * of a matrix are the quantizer's to say; only the words of its scheme are
 * read here, so a format of known elements needs nothing.
 *
 * A matrix of k inputs has standard deviation 1 / sqrt(k): inputs that were
 * normalised to 1 give outputs of about 1.  Nothing adds the same to every
 * token, so tokens stay apart and the router sees different ones.
 */
#include "bench/shape.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/json.h"
#include "checkpoint/synthetic.h"
#include "model/arch.h"
#include "model/weights.h"
#include "plan/shape.h"

#define CONFIG_MAX (8u << 20)

struct maker {
    const struct moe_registry *registry;
    struct moe_arch            a;
    struct moe_made           *made;
    struct moe_format_ref      format[MOE_CLASSES];
    double                     skew;
};

/* --------------------------------------------------------------- the shape -- */

/* NAME as a preset, or the only preset that begins with it. */
static moe_status
find_preset(const char *name, char *path, size_t size, struct moe_error *err)
{
    char       one[128], found[128] = "";
    size_t     i, len = strlen(name), n = 0;
    moe_status st = moe_facts_find("models", name, path, size, err);

    if (st == MOE_OK || len == 0)
        return st;
    for (i = 0; moe_facts_at("models", i, one, sizeof(one)); i++)
        if (strncmp(one, name, len) == 0) {
            memcpy(found, one, sizeof(found));
            n++;
        }
    return n == 1 ? moe_facts_find("models", found, path, size, err) : st;
}

/* The list names dense layers; those that are cut off are none. */
static void
cut_list(struct json_object *config, uint32_t layers)
{
    struct json_object *list = NULL;
    size_t              i;

    if (!json_object_object_get_ex(config, "mlp_only_layers", &list)
        || !json_object_is_type(list, json_type_array))
        return;
    for (i = json_object_array_length(list); i-- > 0;)
        if (json_object_get_int64(json_object_array_get_idx(list, i))
            >= (int64_t) layers)
            json_object_array_del_idx(list, i, 1);
}

static moe_status
read_config(const struct moe_shape_wish *w, struct json_object **out,
            char *label, size_t size, struct moe_error *err)
{
    char            path[4200], shown[MOE_SHOW_PATH_MAX + 4];
    struct moe_json j = {NULL, shown, ""};
    struct stat     s;
    uint32_t        layers;
    size_t          len = strlen(w->name);
    moe_status      st = MOE_OK;

    if (len > 4096)
        return moe_fail(err, MOE_E_INVAL, 0, "a shape's name of %zu bytes",
                        len);
    if (strchr(w->name, '/') == NULL && stat(w->name, &s) != 0)
        st = find_preset(w->name, path, sizeof(path), err);
    else
        snprintf(path, sizeof(path), "%s%s", w->name,
                 stat(w->name, &s) == 0 && S_ISDIR(s.st_mode)
                     ? "/config.json" : "");
    if (st != MOE_OK)
        return st;
    moe_show_path(path, shown);
    st = moe_json_file(path, CONFIG_MAX, out, err);
    if (st != MOE_OK)
        return st;
    j.obj = *out;
    json_object_object_del(*out, "quantization_config");
    st = moe_json_u32(&j, "num_hidden_layers", 1, 1u << 16, &layers, err);
    if (st == MOE_OK && w->layers > layers)
        st = moe_fail(err, MOE_E_INVAL, 0,
                      "%s: %u layers asked for, the model has %u", shown,
                      w->layers, layers);
    moe_show(w->name, shown);
    if (w->layers == 0 || w->layers == layers) {
        snprintf(label, size, "%s", shown);
    } else {
        snprintf(label, size, "%s (%u of %u layers)", shown, w->layers,
                 layers);
        if (st == MOE_OK
            && json_object_object_add(*out, "num_hidden_layers",
                                      json_object_new_int64(w->layers))
                   != 0)
            st = moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
        cut_list(*out, w->layers);
    }
    if (st != MOE_OK) {
        json_object_put(*out);
        *out = NULL;
    }
    return st;
}

/* -------------------------------------------------------------- formats -- */

static moe_status
set_format(struct maker *m, const char *cls, size_t len, const char *id,
           struct moe_format_ref ref, struct moe_error *err)
{
    uint32_t i;

    for (i = 0; i < MOE_CLASS_NORM; i++) {
        const char *name = moe_class_name(i);

        if (strlen(name) == len && strncmp(name, cls, len) == 0) {
            m->format[i] = ref;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_E_INVAL, 0,
                    "bench: format '%s' for '%.*s': experts, shared, "
                    "attention, dense, router, embeddings or rest are known",
                    id, (int) (len < 40 ? len : 40), cls);
}

/* "FORMAT" or "CLASS=FORMAT,...": rest is every class that is not named, but
 * for the router, which stays bf16. */
static moe_status
read_formats(struct maker *m, const char *text, struct moe_error *err)
{
    struct moe_format_ref ref, router;
    uint32_t              i, pass;
    moe_status st = moe_registry_format(m->registry, "bf16", &router, err);

    /* what is said of all first, then what is said of one */
    for (pass = 0; pass < 2 && st == MOE_OK; pass++) {
        const char *p = text;

        for (i = 0; pass == 0 && i < MOE_CLASSES; i++)
            m->format[i] = router;
        while (*p != '\0' && st == MOE_OK) {
            size_t      n = strcspn(p, ",");
            const char *eq = memchr(p, '=', n);
            const char *id = eq != NULL ? eq + 1 : p;
            char        word[48];
            int         all = eq == NULL
                      || (eq - p == 4 && strncmp(p, "rest", 4) == 0);

            snprintf(word, sizeof(word), "%.*s", (int) (p + n - id), id);
            st = moe_registry_format(m->registry, word, &ref, err);
            for (i = 0; st == MOE_OK && all && pass == 0 && i < MOE_CLASSES;
                 i++)
                if (i != MOE_CLASS_ROUTER)
                    m->format[i] = ref;
            if (st == MOE_OK && !all && pass == 1)
                st = set_format(m, p, (size_t) (eq - p), word, ref, err);
            p += n + (p[n] == ',');
        }
    }
    return st;
}

/* -------------------------------------------------------------- tensors -- */

static int
is_norm(uint32_t t)
{
    return t == MOE_T_OUTPUT_NORM || t == MOE_T_ATTN_NORM
           || t == MOE_T_FFN_NORM || t == MOE_T_Q_NORM || t == MOE_T_K_NORM;
}

static moe_status
add_vector(struct maker *m, const char *name, uint32_t tensor, uint64_t n,
           struct moe_error *err)
{
    struct moe_made_tensor t = {.name = name, .dtype = "BF16", .n_dims = 1,
                                .fill = MOE_MADE_CONST};

    t.dim[0] = n;
    t.value = is_norm(tensor) ? 1 : 0;
    return moe_made_add(m->made, &t, err);
}

/* The planes of a matrix; the scales' type is the first that the format
 * takes. */
static moe_status
ask_planes(const struct moe_format_ref *f, uint64_t n, uint64_t k,
           struct moe_plane planes[MOE_PLANES_MAX], uint32_t *n_planes,
           struct moe_error *err)
{
    static const uint32_t types[] = {MOE_BF16, MOE_F32, 0};
    struct moe_error      why;
    moe_status            st = MOE_E_UNSUPPORTED;
    uint32_t              i, from = f->format->scheme.storage == NULL ? 2 : 0;

    memset(&why, 0, sizeof(why));
    memset(planes, 0, MOE_PLANES_MAX * sizeof(*planes));
    for (i = 0; i < MOE_PLANES_MAX; i++)
        planes[i].struct_size = sizeof(planes[i]);
    for (i = from; i < 3 && st == MOE_E_UNSUPPORTED; i++) {
        why.struct_size = sizeof(why);
        st = f->ops->planes(f->self, f->format, n, k, types[i], planes,
                            n_planes, i == from ? &why : NULL);
    }
    if (st != MOE_OK)
        return moe_fail(err, st, 0, "bench: %llu x %llu in %s: %s",
                        (unsigned long long) n, (unsigned long long) k,
                        f->format->id, why.text);
    return MOE_OK;
}

static moe_status
add_matrix(struct maker *m, const char *name, uint32_t tensor, uint64_t n,
           uint64_t k, struct moe_error *err)
{
    const struct moe_format_ref *f = &m->format[moe_arch_class(tensor)];
    const struct moe_scheme     *s = &f->format->scheme;
    struct moe_plane             planes[MOE_PLANES_MAX];
    struct moe_made_tensor       t;
    char                         full[320];
    size_t                       len = strlen(name);
    double     sigma = tensor == MOE_T_EMBED ? 1 : 1 / sqrt((double) k), codes;
    uint32_t   n_planes, i;
    moe_status st = ask_planes(f, n, k, planes, &n_planes, err);

    if (len > 7 && strcmp(name + len - 7, ".weight") == 0)
        len -= 7;
    for (i = 0; i < n_planes && st == MOE_OK; i++) {
        memset(&t, 0, sizeof(t));
        planes[i].dtype[sizeof(planes[i].dtype) - 1] = '\0';
        snprintf(full, sizeof(full), "%.*s.%.31s", (int) len, name,
                 planes[i].suffix);
        t.name = full;
        t.dtype = planes[i].dtype;
        t.n_dims = planes[i].n_dims;
        t.dim[0] = planes[i].dim[0];
        t.dim[1] = planes[i].dim[1];
        t.scheme = i == MOE_PLANE_ELEM && s->storage != NULL ? s : NULL;
        codes = moe_made_sigma(planes[MOE_PLANE_ELEM].dtype);
        if (codes == 0
            || (strcmp(planes[0].dtype, "I32") == 0 && s->num_bits != 4)
            || (strcmp(planes[0].dtype, "U8") == 0
                && (s->storage == NULL || s->num_bits != 4
                    || strcmp(s->type, "float") != 0))) {
            st = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                          "bench: no random weights can be made in format %s",
                          f->format->id);
            break;
        }
        t.value = s->storage == NULL ? sigma : sigma / codes;
        t.fill = i == MOE_PLANE_SCALE  ? MOE_MADE_SCALES
                 : i != MOE_PLANE_ELEM ? MOE_MADE_ZEROS
                 : strcmp(t.dtype, "I32") == 0 ? MOE_MADE_NIBBLES
                 : strcmp(t.dtype, "U8") == 0  ? MOE_MADE_E2M1
                                               : MOE_MADE_BELL;
        if (tensor == MOE_T_ROUTER && m->skew != 0) {
            if (s->storage != NULL)
                st = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                              "bench: a skew needs a router of plain floats, "
                              "not %s", f->format->id);
            t.fill = MOE_MADE_ROUTER;
            t.skew = m->skew;
        }
        if (st == MOE_OK)
            st = moe_made_add(m->made, &t, err);
    }
    return st;
}

static moe_status
add_tensors(struct maker *m, struct moe_error *err)
{
    const struct moe_arch *a = &m->a;
    char                   name[256];
    uint64_t               n, k;
    uint32_t               t, l, e;
    moe_status             st = MOE_OK;

    for (t = 0; t < MOE_T_COUNT; t++)
        for (l = 0; l < (moe_arch_per_layer(t) ? a->n_layers : 1); l++) {
            uint32_t experts = moe_arch_per_expert(t) ? a->n_experts : 1;

            moe_arch_shape(a, t, l, &n, &k);
            for (e = 0; n != 0 && e < experts && st == MOE_OK; e++) {
                st = moe_arch_name(a, t, l, e, name, sizeof(name));
                if (st != MOE_OK)
                    return moe_fail(err, st, 0, "%s: no name for tensor %u",
                                    a->family, t);
                st = moe_arch_class(t) == MOE_CLASS_NORM
                         ? add_vector(m, name, t, n, err)
                         : add_matrix(m, name, t, n, k, err);
            }
        }
    return st;
}

/* label: what it is called; config is taken over. */
static moe_status
make_checkpoint(const struct moe_registry   *registry,
                const struct moe_shape_wish *wish, struct json_object *config,
                const char *label, struct moe_checkpoint **out,
                struct moe_error *err)
{
    struct moe_json j = {NULL, NULL, ""};
    struct maker    m;
    moe_status      st;

    memset(&m, 0, sizeof(m));
    m.registry = registry;
    m.skew = wish->skew;
    j.obj = config;
    j.file = label;
    st = moe_arch_config(&j, &m.a, err);
    if (st != MOE_OK) {
        json_object_put(config);
        return st;
    }
    st = read_formats(&m, wish->format, err);
    if (st != MOE_OK)
        json_object_put(config);
    else
        st = moe_made_new(label, config, wish->seed, &m.made, err);
    if (st == MOE_OK)
        st = add_tensors(&m, err);
    moe_arch_free(&m.a);
    if (st != MOE_OK) {
        moe_made_free(m.made);
        return st;
    }
    return moe_checkpoint_made(m.made, out, err);
}

moe_status
moe_bench_shape(const struct moe_registry   *registry,
                const struct moe_shape_wish *wish,
                struct moe_checkpoint **out, struct moe_error *err)
{
    struct json_object *config = NULL;
    char                label[240];
    moe_status          st;

    st = read_config(wish, &config, label, sizeof(label), err);
    if (st != MOE_OK)
        return st;
    return make_checkpoint(registry, wish, config, label, out, err);
}

moe_status
moe_bench_shape_config(const struct moe_registry   *registry,
                       const struct moe_shape_wish *wish,
                       struct json_object          *config,
                       struct moe_checkpoint **out, struct moe_error *err)
{
    return make_checkpoint(registry, wish, config, wish->name, out, err);
}
