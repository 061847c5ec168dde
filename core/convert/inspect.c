/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect.c - what a checkpoint folder holds, for people and programs.
 *
 * Owns the counting by class and format and its two spellings.  Reads
 * headers only.  A scheme that no loaded plugin reads is shown in its own
 * words: to look at a model nothing need be able to run it.
 */

#include <convert/convert.h>

#include <checkpoint/json.h>
#include <engine/engine.h>
#include <support/str.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLICES_MAX 64u

/* The matrices of one class in one format. */
struct slice {
    uint32_t cls;
    char     format[64];
    uint64_t matrices, params, bytes;
};

struct look {
    const char            *dir;
    struct moe_checkpoint *c;
    struct moe_registry   *registry;
    struct moe_arch        a;
    struct slice           slices[SLICES_MAX];
    uint32_t               n_slices;
    uint64_t               total, active, bytes;
    uint32_t               moe_layers;
};

static void
format_words(const struct look *k, const struct moe_scheme *s, char *buf,
             size_t size)
{
    struct moe_format_ref ref;

    if (moe_registry_scheme(k->registry, s, &ref) == MOE_OK)
        snprintf(buf, size, "%.63s", ref.format->id);
    else if (s->storage == NULL)
        snprintf(buf, size, "%.16s", s->elem);
    else
        snprintf(buf, size, "%.24s %.8s%u %.12s", s->storage, s->type,
                 s->num_bits, s->strategy);
}

static void
add(struct look *k, uint32_t cls, const char *format, uint64_t params,
    uint64_t bytes)
{
    struct slice *s;
    uint32_t      i;

    for (i = 0; i < k->n_slices; i++)
        if (k->slices[i].cls == cls
            && strcmp(k->slices[i].format, format) == 0)
            break;
    if (i == SLICES_MAX)
        i--; /* more formats than anyone has: the last takes them in */
    s = &k->slices[i];
    if (i == k->n_slices) {
        k->n_slices++;
        s->cls = cls;
        snprintf(s->format, sizeof(s->format), "%s", format);
    }
    s->matrices++;
    s->params += params;
    s->bytes += bytes;
}

/* Bytes of all tensors that store a module's weight. */
static uint64_t
module_bytes(const struct moe_checkpoint *c, const char *module)
{
    static const char *const suffix[] = {
        "weight",           "weight_packed",     "weight_scale",
        "weight_scale_inv", "weight_zero_point", "weight_shape",
        "weight_global_scale",
    };
    char     name[320];
    uint64_t sum = 0;
    size_t   i;

    for (i = 0; i < sizeof(suffix) / sizeof(suffix[0]); i++) {
        const struct moe_tensor_info *t;

        snprintf(name, sizeof(name), "%s.%s", module, suffix[i]);
        t = moe_checkpoint_find(c, name);
        if (t != NULL)
            sum += t->bytes;
    }
    return sum;
}

static moe_status
count_tensor(struct look *k, uint32_t tensor, uint32_t layer, uint32_t expert,
             struct moe_error *err)
{
    const struct moe_tensor_info *t;
    struct moe_scheme             scheme;
    char                          name[256], format[64];
    uint64_t                      n, m;
    uint32_t                      cls = moe_arch_class(tensor);
    size_t                        len;
    moe_status                    status;

    moe_arch_shape(&k->a, tensor, layer, &n, &m);
    if (n == 0)
        return MOE_OK;
    status = moe_arch_name(&k->a, tensor, layer, expert, name, sizeof(name));
    if (status != MOE_OK)
        return status;
    len = strlen(name);
    if (cls == MOE_CLASS_NORM || len <= 7) {
        t = moe_checkpoint_find(k->c, name);
        memset(&scheme, 0, sizeof(scheme));
        scheme.struct_size = sizeof(scheme);
        scheme.elem = t != NULL ? t->dtype : "?";
        format_words(k, &scheme, format, sizeof(format));
        add(k, cls, format, n, t != NULL ? t->bytes : 0);
        return MOE_OK;
    }
    name[len - 7] = '\0';
    status = moe_checkpoint_scheme(k->c, name, &scheme, err);
    if (status != MOE_OK)
        return status;
    format_words(k, &scheme, format, sizeof(format));
    add(k, cls, format, n * m, module_bytes(k->c, name));
    return MOE_OK;
}

static moe_status
count(struct look *k, struct moe_error *err)
{
    uint32_t   t, l, e;
    size_t     i;
    moe_status status;

    moe_arch_params(&k->a, &k->total, &k->active);
    for (i = 0; i < moe_checkpoint_count(k->c); i++)
        k->bytes += moe_checkpoint_at(k->c, i)->bytes;
    for (l = 0; l < k->a.n_layers; l++)
        k->moe_layers += k->a.layers[l].ffn == MOE_FFN_MOE;
    for (t = 0; t < MOE_T_COUNT; t++)
        for (l = 0; l < (moe_arch_per_layer(t) ? k->a.n_layers : 1); l++)
            for (e = 0; e < (moe_arch_per_expert(t) ? k->a.n_experts : 1);
                 e++) {
                status = count_tensor(k, t, l, e, err);
                if (status != MOE_OK)
                    return status;
            }
    return MOE_OK;
}

/* --------------------------------------------------------------- output -- */

static void
print_text(const struct look *k, struct moe_str *s)
{
    const struct moe_arch *a = &k->a;
    char                   size[32], shown[MOE_SHOW_PATH_MAX + 4];
    uint32_t               i;

    moe_str_addf(s, "model          %s\n", moe_show_path(k->dir, shown));
    moe_str_addf(s, "family         %s\n", a->family);
    moe_str_addf(s, "parameters     %llu, %llu for a token\n",
                 (unsigned long long) k->total,
                 (unsigned long long) k->active);
    moe_str_addf(s, "layers         %u of width %u\n", a->n_layers, a->hidden);
    moe_str_addf(s, "attention      %u heads of %u, %u for keys and values\n",
                 a->heads, a->head_dim, a->kv_heads);
    if (k->moe_layers > 0)
        moe_str_addf(s, "experts        %u of width %u in %u layers, %u for a "
                        "token\n",
                     a->n_experts, a->expert_width, k->moe_layers, a->top_k);
    if (a->shared_width > 0)
        moe_str_addf(s, "shared expert  width %u%s\n", a->shared_width,
                     a->shared_gated ? ", gated" : "");
    for (i = 0; i < a->n_layers; i++)
        if (a->layers[i].ffn == MOE_FFN_DENSE) {
            moe_str_addf(s, "dense layers   %u of width %u\n",
                         a->n_layers - k->moe_layers,
                         a->layers[i].ffn_width);
            break;
        }
    moe_str_addf(s, "vocabulary     %u%s\n", a->vocab,
                 a->tied ? ", output tied to input" : "");
    moe_str_addf(s, "context        %u\n", a->max_context);
    moe_str_addf(s, "files          %zu, %zu tensors, %s\n\n",
                 moe_checkpoint_files(k->c), moe_checkpoint_count(k->c),
                 moe_bytes_text(k->bytes, size, sizeof(size)));
    moe_str_addf(s, "%-11s %-20s %8s %15s %15s %6s\n", "class", "format",
                 "tensors", "parameters", "bytes", "bits");
    for (i = 0; i < k->n_slices; i++) {
        const struct slice *x = &k->slices[i];

        moe_str_addf(s, "%-11s %-20s %8llu %15llu %15llu %6.2f\n",
                     moe_class_name(x->cls), x->format,
                     (unsigned long long) x->matrices,
                     (unsigned long long) x->params,
                     (unsigned long long) x->bytes,
                     x->params > 0
                         ? 8.0 * (double) x->bytes / (double) x->params
                         : 0.0);
    }
}

static void
text_of(struct moe_str *s, const char *key, const char *value)
{
    moe_str_addf(s, "\"%s\":", key);
    moe_str_add_json(s, value, strlen(value));
}

static void
print_json(const struct look *k, struct moe_str *s)
{
    const struct moe_arch *a = &k->a;
    uint32_t               d;
    size_t                 i;

    moe_str_add(s, "{", 1);
    text_of(s, "model", k->dir);
    moe_str_add(s, ",", 1);
    text_of(s, "family", a->family);
    moe_str_addf(s, ",\"params_total\":%llu,\"params_active\":%llu",
                 (unsigned long long) k->total,
                 (unsigned long long) k->active);
    moe_str_addf(s, ",\"hidden\":%u,\"layers\":%u,\"moe_layers\":%u,"
                    "\"vocab\":%u,\"heads\":%u,\"kv_heads\":%u,"
                    "\"head_dim\":%u,\"max_context\":%u,\"tied\":%s",
                 a->hidden, a->n_layers, k->moe_layers, a->vocab, a->heads,
                 a->kv_heads, a->head_dim, a->max_context,
                 a->tied ? "true" : "false");
    moe_str_addf(s, ",\"experts\":%u,\"top_k\":%u,\"expert_width\":%u,"
                    "\"shared_width\":%u,\"bytes\":%llu",
                 a->n_experts, a->top_k, a->expert_width, a->shared_width,
                 (unsigned long long) k->bytes);
    moe_str_addf(s, ",\"classes\":[");
    for (i = 0; i < k->n_slices; i++) {
        const struct slice *x = &k->slices[i];

        moe_str_addf(s, "%s{", i > 0 ? "," : "");
        text_of(s, "class", moe_class_name(x->cls));
        moe_str_add(s, ",", 1);
        text_of(s, "format", x->format);
        moe_str_addf(s, ",\"tensors\":%llu,\"params\":%llu,\"bytes\":%llu}",
                     (unsigned long long) x->matrices,
                     (unsigned long long) x->params,
                     (unsigned long long) x->bytes);
    }
    moe_str_addf(s, "],\"tensors\":[");
    for (i = 0; i < moe_checkpoint_count(k->c); i++) {
        const struct moe_tensor_info *t = moe_checkpoint_at(k->c, i);
        const char *path = moe_checkpoint_file(k->c, t->file);
        const char *slash = strrchr(path, '/');

        moe_str_addf(s, "%s{", i > 0 ? "," : "");
        text_of(s, "name", t->name);
        moe_str_addf(s, ",\"dtype\":\"%s\",\"shape\":[", t->dtype);
        for (d = 0; d < t->n_dims; d++)
            moe_str_addf(s, "%s%llu", d > 0 ? "," : "",
                         (unsigned long long) t->dim[d]);
        moe_str_addf(s, "],\"offset\":%llu,\"bytes\":%llu,",
                     (unsigned long long) t->offset,
                     (unsigned long long) t->bytes);
        text_of(s, "file", slash != NULL ? slash + 1 : path);
        moe_str_add(s, "}", 1);
    }
    moe_str_addf(s, "]}\n");
}

MOE_API moe_status
moe_inspect(const moe_options *o, const char *path, int json, moe_write_fn fn,
            void *ctx, struct moe_error *err)
{
    struct moe_host_services services = { o, NULL, NULL };
    struct look             *k = calloc(1, sizeof(*k));
    struct moe_str           s = { 0 };
    moe_status               status;

    if (k == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "inspect: no memory");
    k->dir = path;
    status = moe_ledger_open(&services.ledger, err);
    if (status == MOE_OK)
        status = moe_pool_open(1, &services.pool, err);
    if (status == MOE_OK)
        status = moe_services_registry(&services, &k->registry, err);
    if (status == MOE_OK)
        status = moe_checkpoint_open(path, &k->c, err);
    if (status == MOE_OK)
        status = moe_arch_read(k->c, &k->a, err);
    if (status == MOE_OK)
        status = count(k, err);
    if (status == MOE_OK) {
        if (json)
            print_json(k, &s);
        else
            print_text(k, &s);
        if (s.failed)
            status = moe_fail(err, MOE_E_NOMEM, ENOMEM, "inspect: no memory");
        else if (fn(ctx, s.text, s.len) != 0)
            status = moe_fail(err, MOE_E_IO, 0,
                              "inspect: the output was refused");
    }
    moe_str_free(&s);
    moe_arch_free(&k->a);
    moe_checkpoint_close(k->c);
    moe_registry_close(k->registry);
    moe_pool_close(services.pool);
    if (services.ledger != NULL)
        (void) moe_ledger_close(services.ledger);
    free(k);
    return status;
}
