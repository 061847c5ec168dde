/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arch.c - one description of a decoder, whatever its family.
 *
 * Owns the table of families, the shapes that a description implies and the
 * check that a checkpoint has them.  The families' own keys and names are in
 * their files.  Bytes are never read here: a header is enough.
 */

#include <model/arch.h>

#include <checkpoint/checkpoint.h>
#include <model/family.h>
#include <support/near.h>

#include <stdlib.h>
#include <string.h>

static const struct moe_family *const families[] = {
    &moe_family_llama,     &moe_family_mistral, &moe_family_mixtral,
    &moe_family_olmoe,     &moe_family_qwen2,   &moe_family_qwen2_moe,
    &moe_family_qwen3,     &moe_family_qwen3_moe,
};
#define N_FAMILIES (sizeof(families) / sizeof(families[0]))

const char *
moe_arch_families(void)
{
    return "llama mistral mixtral olmoe qwen2 qwen2_moe qwen3 qwen3_moe";
}

/* ------------------------------------------------------- names, shapes -- */

uint32_t
moe_arch_class(uint32_t tensor)
{
    switch (tensor) {
    case MOE_T_EMBED:
    case MOE_T_OUTPUT:
        return MOE_CLASS_EMBED;
    case MOE_T_Q:
    case MOE_T_K:
    case MOE_T_V:
    case MOE_T_O:
        return MOE_CLASS_ATTENTION;
    case MOE_T_ROUTER:
    case MOE_T_SHARED_SCALE: /* one row that decides: a router in small */
        return MOE_CLASS_ROUTER;
    case MOE_T_EXPERT_GATE:
    case MOE_T_EXPERT_UP:
    case MOE_T_EXPERT_DOWN:
        return MOE_CLASS_EXPERT;
    case MOE_T_SHARED_GATE:
    case MOE_T_SHARED_UP:
    case MOE_T_SHARED_DOWN:
        return MOE_CLASS_SHARED;
    case MOE_T_GATE:
    case MOE_T_UP:
    case MOE_T_DOWN:
        return MOE_CLASS_DENSE;
    default:
        return MOE_CLASS_NORM;
    }
}

const char *
moe_class_name(uint32_t cls)
{
    static const char *const names[MOE_CLASSES] = {
        "embeddings", "attention", "router", "experts",
        "shared",     "dense",     "norms",
    };

    return cls < MOE_CLASSES ? names[cls] : "?";
}

int
moe_arch_per_layer(uint32_t tensor)
{
    return tensor >= MOE_T_ATTN_NORM;
}

int
moe_arch_per_expert(uint32_t tensor)
{
    return moe_arch_class(tensor) == MOE_CLASS_EXPERT;
}

void
moe_arch_shape(const struct moe_arch *a, uint32_t tensor, uint32_t layer,
               uint64_t *n, uint64_t *k)
{
    const struct moe_layer *l = NULL;
    uint64_t                q, kv, v;

    *n = *k = 0;
    if (tensor >= MOE_T_COUNT || a->name[tensor] == NULL)
        return;
    if (moe_arch_per_layer(tensor)) {
        if (layer >= a->n_layers)
            return;
        l = &a->layers[layer];
    }
    q = (uint64_t) a->heads * a->head_dim;
    kv = (uint64_t) a->kv_heads * a->head_dim;
    v = (uint64_t) a->kv_heads * a->v_dim;

    switch (tensor) {
    case MOE_T_EMBED:
    case MOE_T_OUTPUT:
        *n = a->vocab;
        *k = a->hidden;
        break;
    case MOE_T_Q:
        *n = q;
        *k = a->hidden;
        break;
    case MOE_T_K:
        *n = kv;
        *k = a->hidden;
        break;
    case MOE_T_V:
        *n = v;
        *k = a->hidden;
        break;
    case MOE_T_O:
        *n = a->hidden;
        *k = (uint64_t) a->heads * a->v_dim;
        break;
    case MOE_T_Q_BIAS:
        *n = q;
        *k = 1;
        break;
    case MOE_T_K_BIAS:
        *n = kv;
        *k = 1;
        break;
    case MOE_T_V_BIAS:
        *n = v;
        *k = 1;
        break;
    case MOE_T_OUTPUT_NORM:
    case MOE_T_ATTN_NORM:
    case MOE_T_FFN_NORM:
    case MOE_T_O_BIAS:
        *n = a->hidden;
        *k = 1;
        break;
    case MOE_T_Q_NORM:
        *n = a->qk_norm == 2 ? q : a->head_dim;
        *k = 1;
        break;
    case MOE_T_K_NORM:
        *n = a->qk_norm == 2 ? kv : a->head_dim;
        *k = 1;
        break;
    default:
        break;
    }
    if (*n != 0 || l == NULL)
        return;

    if (l->ffn == MOE_FFN_DENSE) {
        switch (tensor) {
        case MOE_T_GATE:
        case MOE_T_UP:
            *n = l->ffn_width;
            *k = a->hidden;
            break;
        case MOE_T_DOWN:
            *n = a->hidden;
            *k = l->ffn_width;
            break;
        case MOE_T_GATE_BIAS:
        case MOE_T_UP_BIAS:
            *n = l->ffn_width;
            *k = 1;
            break;
        case MOE_T_DOWN_BIAS:
            *n = a->hidden;
            *k = 1;
            break;
        default:
            break;
        }
        return;
    }
    switch (tensor) {
    case MOE_T_ROUTER:
        *n = a->n_experts;
        *k = a->hidden;
        break;
    case MOE_T_ROUTER_BIAS:
        *n = a->n_experts;
        *k = 1;
        break;
    case MOE_T_EXPERT_GATE:
    case MOE_T_EXPERT_UP:
        *n = a->expert_width;
        *k = a->hidden;
        break;
    case MOE_T_EXPERT_DOWN:
        *n = a->hidden;
        *k = a->expert_width;
        break;
    case MOE_T_SHARED_GATE:
    case MOE_T_SHARED_UP:
        *n = a->shared_width;
        *k = a->hidden;
        break;
    case MOE_T_SHARED_DOWN:
        *n = a->hidden;
        *k = a->shared_width;
        break;
    case MOE_T_SHARED_SCALE:
        *n = 1;
        *k = a->hidden;
        break;
    default:
        break;
    }
}

/* Warm: called for every tensor of a model, tens of thousands. */
moe_status
moe_arch_name(const struct moe_arch *a, uint32_t tensor, uint32_t layer,
              uint32_t expert, char *buf, size_t size)
{
    const char *p;
    size_t      n = 0;

    if (tensor >= MOE_T_COUNT || a->name[tensor] == NULL)
        return MOE_E_NOT_FOUND;
    for (p = a->name[tensor]; *p != '\0';) {
        uint32_t v = 0;
        char     digits[10];
        size_t   d = 0;

        if (*p != '{') {
            if (n + 1 >= size)
                return MOE_E_INVAL;
            buf[n++] = *p++;
            continue;
        }
        v = p[1] == 'l' ? layer : expert;
        p += 3;
        do {
            digits[d++] = (char) ('0' + v % 10);
            v /= 10;
        } while (v != 0);
        if (n + d >= size)
            return MOE_E_INVAL;
        while (d > 0)
            buf[n++] = digits[--d];
    }
    if (n >= size)
        return MOE_E_INVAL;
    buf[n] = '\0';
    return MOE_OK;
}

void
moe_arch_params(const struct moe_arch *a, uint64_t *total, uint64_t *active)
{
    uint64_t n, k, all = 0, used = 0;
    uint32_t t, l;

    for (t = 0; t < MOE_T_COUNT; t++)
        for (l = 0; l < (moe_arch_per_layer(t) ? a->n_layers : 1); l++) {
            moe_arch_shape(a, t, l, &n, &k);
            if (moe_arch_per_expert(t)) {
                all += n * k * a->n_experts;
                used += n * k * a->top_k;
            } else {
                all += n * k;
                if (t != MOE_T_EMBED || a->tied)
                    used += n * k;
            }
        }
    *total = all;
    *active = used;
}

/* -------------------------------------------------------------- checks -- */

static void
dims_text(const struct moe_tensor_info *t, char *buf, size_t size)
{
    size_t   n = 0;
    uint32_t i;

    if (t->n_dims == 0)
        snprintf(buf, size, "a single number");
    for (i = 0; i < t->n_dims && n < size; i++)
        n += (size_t) snprintf(buf + n, size - n, "%s%llu", i > 0 ? "x" : "",
                               (unsigned long long) t->dim[i]);
}

static moe_status
missing(const struct moe_checkpoint *c, const struct moe_arch *a,
        uint32_t tensor, uint32_t layer, const char *name,
        struct moe_error *err)
{
    const char *remedy = "";
    moe_status  status = MOE_E_CORRUPT;
    char        other[128];

    if (tensor == MOE_T_OUTPUT) {
        remedy = ", and tie_word_embeddings is false";
    } else if (tensor == MOE_T_EMBED
               && moe_checkpoint_find(c, "embed_tokens.weight") != NULL) {
        remedy = ": the model was saved without its head";
    } else if (moe_arch_per_expert(tensor)) {
        static const char *const fused[] = {
            "model.layers.%u.mlp.experts.gate_up_proj",
            "model.layers.%u.block_sparse_moe.experts.gate_up_proj",
        };
        size_t i;

        for (i = 0; i < 2; i++) {
            snprintf(other, sizeof(other), i == 0 ? fused[0] : fused[1],
                     layer);
            if (moe_checkpoint_find(c, other) != NULL) {
                remedy = ": its experts are fused in one tensor; save it in "
                         "the original layout, one tensor an expert";
                status = MOE_E_UNSUPPORTED;
            }
        }
    }
    return moe_fail(err, status, 0,
                    "%s: tensor \"%s\" is missing (%s)%s",
                    moe_checkpoint_index_name(c), name, a->family, remedy);
}

/* A vector: one dimension, a plain float. */
static moe_status
check_vector(const struct moe_checkpoint *c, const struct moe_arch *a,
             uint32_t tensor, uint32_t layer, const char *name, uint64_t n,
             struct moe_error *err)
{
    const struct moe_tensor_info *t = moe_checkpoint_find(c, name);
    char                          dims[200];

    if (t == NULL)
        return missing(c, a, tensor, layer, name, err);
    if (t->n_dims != 1 || t->dim[0] != n) {
        dims_text(t, dims, sizeof(dims));
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\": %llu expected, %s found",
                        moe_checkpoint_file_name(c, t->file), name,
                        (unsigned long long) n, dims);
    }
    if (strcmp(t->dtype, "F32") != 0 && strcmp(t->dtype, "F16") != 0
        && strcmp(t->dtype, "BF16") != 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: tensor \"%s\": F32, F16 or BF16 expected, %s "
                        "found", moe_checkpoint_file_name(c, t->file), name,
                        t->dtype);
    return MOE_OK;
}

/* A matrix: plain, or the element plane of its scheme. */
static moe_status
check_matrix(const struct moe_checkpoint *c, const struct moe_arch *a,
             uint32_t tensor, uint32_t layer, char *name, uint64_t n,
             uint64_t k, struct moe_error *err)
{
    static const char             packed[] = "_packed";
    const struct moe_tensor_info *t = moe_checkpoint_find(c, name);
    struct moe_scheme             scheme;
    size_t                        len = strlen(name);
    uint64_t                      want = k, bits;
    moe_status                    status;
    char                          dims[200];

    if (t == NULL) {
        strcpy(name + len, packed);
        t = moe_checkpoint_find(c, name);
        if (t == NULL)
            name[len] = '\0';
    }
    name[len - strlen(".weight")] = '\0';
    status = moe_checkpoint_scheme(c, name, &scheme, err);
    name[len - strlen(".weight")] = '.';
    if (status == MOE_E_NOT_FOUND)
        return missing(c, a, tensor, layer, name, err);
    if (status != MOE_OK)
        return status;
    if (scheme.storage != NULL
        && strstr(scheme.storage, "pack-quantized") != NULL) {
        /* in words of 32 bits, or in bytes */
        uint32_t word = strcmp(t->dtype, "U8") == 0 ? 8 : 32;

        if (__builtin_mul_overflow(k, (uint64_t) scheme.num_bits, &bits))
            bits = UINT64_MAX - 31;
        want = (bits + word - 1) / word;
    }
    if (t->n_dims != 2 || t->dim[0] != n || t->dim[1] != want) {
        dims_text(t, dims, sizeof(dims));
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\": %llux%llu expected, %s found",
                        moe_checkpoint_file_name(c, t->file), name,
                        (unsigned long long) n, (unsigned long long) want,
                        dims);
    }
    return MOE_OK;
}

static moe_status
check_tensors(const struct moe_checkpoint *c, const struct moe_arch *a,
              struct moe_error *err)
{
    char       name[256];
    uint64_t   n, k;
    uint32_t   t, l, e;
    moe_status status;

    for (t = 0; t < MOE_T_COUNT; t++)
        for (l = 0; l < (moe_arch_per_layer(t) ? a->n_layers : 1); l++) {
            uint32_t experts = moe_arch_per_expert(t) ? a->n_experts : 1;

            moe_arch_shape(a, t, l, &n, &k);
            if (n == 0)
                continue;
            for (e = 0; e < experts; e++) {
                /* 16 bytes for the suffix of a packed plane */
                status = moe_arch_name(a, t, l, e, name, sizeof(name) - 16);
                if (status != MOE_OK)
                    return moe_fail(err, MOE_E_INTERNAL, 0,
                                    "%s: no name for tensor %u", a->family,
                                    t);
                status = moe_arch_class(t) == MOE_CLASS_NORM
                             ? check_vector(c, a, t, l, name, n, err)
                             : check_matrix(c, a, t, l, name, n, k, err);
                if (status != MOE_OK)
                    return status;
            }
        }
    return MOE_OK;
}

/* ------------------------------------------------------------ dispatch -- */

static moe_status
unknown_family(const struct moe_json *config, const char *type,
               struct moe_error *err)
{
    char show[MOE_SHOW_MAX + 4], near[160];

    moe_show(type, show);
    if (moe_json_get(config, "text_config") != NULL)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: \"model_type\" \"%s\": a model of several kinds "
                        "of input, whose text model lies in \"text_config\": "
                        "not supported", config->file, show);
    moe_words_near(type, moe_arch_families(), near, sizeof(near));
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "%s: \"model_type\" \"%s\" is not supported%s%s "
                    "(known: %s)", config->file, show,
                    near[0] != '\0' ? "; nearest: " : "", near,
                    moe_arch_families());
}

moe_status
moe_arch_config(const struct moe_json *config, struct moe_arch *out,
                struct moe_error *err)
{
    struct moe_arch a;
    const char     *type;
    moe_status      status;
    size_t          i;

    status = moe_json_text(config, "model_type", &type, err);
    if (status != MOE_OK)
        return status;
    for (i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i]->model_type, type) == 0)
            break;
    if (i == N_FAMILIES)
        return unknown_family(config, type, err);
    memset(&a, 0, sizeof(a));
    snprintf(a.family, sizeof(a.family), "%s", type);
    status = families[i]->read(config, &a, err);
    if (status != MOE_OK) {
        moe_arch_free(&a);
        return status;
    }
    *out = a;
    return MOE_OK;
}

moe_status
moe_arch_read(const struct moe_checkpoint *c, struct moe_arch *out,
              struct moe_error *err)
{
    struct moe_json config = { moe_checkpoint_config(c),
                               moe_checkpoint_config_name(c), "" };
    struct moe_arch a;
    moe_status      status = moe_arch_config(&config, &a, err);

    if (status != MOE_OK)
        return status;
    status = check_tensors(c, &a, err);
    if (status != MOE_OK) {
        moe_arch_free(&a);
        return status;
    }
    *out = a;
    return MOE_OK;
}

void
moe_arch_free(struct moe_arch *a)
{
    if (a == NULL)
        return;
    free(a->layers);
    free(a->inv_freq);
    a->layers = NULL;
    a->inv_freq = NULL;
}
