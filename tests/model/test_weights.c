/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrices and vectors of a checkpoint: format, planes, values; and planes
 * that are not what the format says.  Needs the quantizer plugins.
 */
#include "model/weights.h"

#include <math.h>

#include "change.h"

static struct moe_registry *registry;

static void say(void *ctx, uint32_t level, const char *line)
{
    (void) ctx;
    (void) level;
    (void) line;
}
static const char *no_config(void *ctx, const char *section, const char *key)
{
    (void) ctx;
    (void) section;
    (void) key;
    return NULL;
}
static moe_status reserve(void *ctx, const char *domain, uint64_t bytes,
                          const char *what, moe_grant **out)
{
    (void) ctx;
    (void) domain;
    (void) bytes;
    (void) what;
    *out = NULL;
    return MOE_OK;
}
static void release(void *ctx, moe_grant *grant)
{
    (void) ctx;
    (void) grant;
}
static void *host_alloc(void *ctx, uint64_t bytes, uint64_t align)
{
    (void) ctx;
    return aligned_alloc(align < 16 ? 16 : align, (bytes + 63) / 64 * 64);
}
static void host_free(void *ctx, void *p)
{
    (void) ctx;
    free(p);
}
static void parallel(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
                     void *arg)
{
    uint32_t i;

    (void) ctx;
    for (i = 0; i < n; i++)
        fn(arg, i);
}
static uint32_t workers(void *ctx)
{
    (void) ctx;
    return 1;
}

static int
open_registry(const char *path)
{
    static const struct moe_services services = {
        .log = say, .config = no_config, .reserve = reserve,
        .release = release, .alloc = host_alloc, .free = host_free,
        .parallel = parallel, .workers = workers,
    };
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_format_ref ref;

    if (moe_registry_open(&services, path, NULL, 0, &registry, &err)
        != MOE_OK) {
        printf("# %s\n", err.text);
        return 0;
    }
    return moe_registry_format(registry, "int4-g32", &ref, NULL) == MOE_OK
           && moe_registry_format(registry, "fp8-e4m3-channel", &ref, NULL)
                  == MOE_OK
           && moe_registry_format(registry, "bf16", &ref, NULL) == MOE_OK;
}

static int
open_model(const char *dir, struct moe_checkpoint **c, struct moe_arch *a)
{
    struct moe_error err = { .struct_size = sizeof(err) };

    *c = NULL;
    if (ok(moe_checkpoint_open(dir, c, &err) == MOE_OK
               && moe_arch_read(*c, a, &err) == MOE_OK,
           "%s", dir))
        return 1;
    printf("# %s\n", err.text);
    moe_checkpoint_close(*c);
    return 0;
}

/* What a fixture's experts and attention are. */
static void
formats(const char *rel, const char *experts, const char *attention,
        uint32_t scale, uint32_t planes)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c;
    struct moe_arch        a;
    struct moe_weight      w;
    uint32_t               t, l, e, i, n = 0, bad = 0;
    uint64_t               rows, k, bytes;

    if (!open_model(tap_src(rel), &c, &a))
        return;
    for (t = 0; t < MOE_T_COUNT; t++)
        for (l = 0; l < (moe_arch_per_layer(t) ? a.n_layers : 1); l++)
            for (e = 0; e < (moe_arch_per_expert(t) ? a.n_experts : 1); e++) {
                moe_arch_shape(&a, t, l, &rows, &k);
                if (rows == 0 || moe_arch_class(t) == MOE_CLASS_NORM)
                    continue;
                n++;
                if (moe_weight_find(c, registry, &a, t, l, e, &w, &err)
                    != MOE_OK) {
                    printf("# %s\n", err.text);
                    bad++;
                    continue;
                }
                for (i = 0, bytes = 0; i < w.n_planes; i++)
                    bytes += w.plane[i]->bytes;
                bad += w.n != rows || w.k != k || w.bytes != bytes;
            }
    is_int(bad, 0, "%s: %u matrices", rel, n);
    if (moe_weight_find(c, registry, &a, MOE_T_EXPERT_DOWN, 1, 2, &w, &err)
        == MOE_OK) {
        is_str(w.ref.format->id, experts, "%s: experts", rel);
        is_int(w.scale_dtype, scale, "%s: scales", rel);
        is_int(w.n_planes, planes, "%s: planes", rel);
    }
    is_int(moe_weight_find(c, registry, &a, MOE_T_Q, 1, 0, &w, &err), MOE_OK,
           "%s: q", rel);
    is_str(w.ref.format->id, attention, "%s: attention", rel);
    is_int(moe_weight_find(c, registry, &a, MOE_T_FFN_NORM, 1, 0, &w, &err),
           MOE_E_INVAL, "%s: a norm is no matrix", rel);
    is_int(moe_weight_find(c, registry, &a, MOE_T_GATE, 1, 0, &w, &err),
           MOE_E_NOT_FOUND, "%s: no dense layer", rel);
    moe_arch_free(&a);
    moe_checkpoint_close(c);
}

/* ---------------------------------------------------------- odd planes -- */

#define N 24
static const struct made dense[N] = {
    { "model.embed_tokens.weight", "F32", { 4, 32 }, 2, NULL },
    { "model.norm.weight", "F32", { 32 }, 1, NULL },
    { "model.layers.0.input_layernorm.weight", "F32", { 32 }, 1, NULL },
    { "model.layers.0.post_attention_layernorm.weight", "F32", { 32 }, 1,
      NULL },
    { "model.layers.0.self_attn.q_proj.weight_packed", "I32", { 32, 4 }, 2,
      NULL },
    { "model.layers.0.self_attn.k_proj.weight", "F8_E4M3", { 32, 32 }, 2,
      NULL },
    { "model.layers.0.self_attn.k_proj.weight_scale", "F32", { 32, 1 }, 2,
      NULL },
    { "model.layers.0.self_attn.v_proj.weight", "F32", { 32, 32 }, 2, NULL },
    { "model.layers.0.self_attn.o_proj.weight", "F32", { 32, 32 }, 2, NULL },
    { "model.layers.0.mlp.gate_proj.weight", "F32", { 32, 32 }, 2, NULL },
    { "model.layers.0.mlp.up_proj.weight", "F32", { 32, 32 }, 2, NULL },
    { "model.layers.0.mlp.down_proj.weight", "F32", { 32, 32 }, 2, NULL },
    /* last: with other sizes it would misalign what follows */
    { "model.layers.0.self_attn.q_proj.weight_scale", "BF16", { 32, 1 }, 2,
      NULL },
};

static const char config[]
    = "{\"model_type\":\"llama\",\"hidden_size\":32,\"num_hidden_layers\":1,"
      "\"num_attention_heads\":1,\"vocab_size\":4,\"intermediate_size\":32,"
      "\"max_position_embeddings\":8,\"tie_word_embeddings\":true,"
      "\"quantization_config\":{\"config_groups\":{\"a\":{\"targets\":"
      "[\"re:.*q_proj\"],\"weights\":{\"num_bits\":4,\"type\":\"int\","
      "\"group_size\":32,\"symmetric\":true}},\"b\":{\"targets\":"
      "[\"re:.*k_proj\"],\"weights\":{\"num_bits\":8,\"type\":\"float\","
      "\"strategy\":\"channel\"}}}}}";

/* The model with one tensor replaced (dropped if its dtype is NULL), and one
 * appended; finding q and k ends like this. */
static void
with(const struct made *other, const char *extra, uint32_t tensor,
     moe_status want, const char *thing, const char *what)
{
    const char            *dir = new_dir();
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c;
    struct moe_arch        a;
    struct moe_weight      w;
    struct made            m[N];
    size_t                 i, n = 0;

    for (i = 0; i < N && dense[i].name != NULL; i++) {
        m[n] = dense[i];
        if (other != NULL && strcmp(other->name, dense[i].name) == 0) {
            if (other->dtype == NULL)
                continue;
            m[n] = *other;
        }
        n++;
    }
    if (extra != NULL) {
        m[n] = dense[1];
        m[n++].name = extra;
    }
    put_text(dir, "config.json", config);
    put_tensors(dir, "model.safetensors", m, n);
    if (open_model(dir, &c, &a)) {
        is_int(moe_weight_find(c, registry, &a, tensor, 0, 0, &w, &err), want,
               "%s: status", what);
        if (want != MOE_OK) {
            has_str(err.text, thing, "%s: named", what);
            has_str(err.text, dir, "%s: file", what);
        }
        moe_arch_free(&a);
        moe_checkpoint_close(c);
    }
    drop_dir(dir);
}

#define QS "model.layers.0.self_attn.q_proj.weight_scale"
#define KS "model.layers.0.self_attn.k_proj.weight_scale"

static void
planes(void)
{
    struct made m = { 0 };

    with(NULL, NULL, MOE_T_Q, MOE_OK, "", "int4 as it should be");
    with(NULL, NULL, MOE_T_K, MOE_OK, "", "fp8 as it should be");
    m.name = QS;
    with(&m, NULL, MOE_T_Q, MOE_E_CORRUPT, QS "\" is missing (int4-g32)",
         "no scales");
    m = (struct made){ QS, "BF16", { 32, 2 }, 2, NULL };
    with(&m, NULL, MOE_T_Q, MOE_E_CORRUPT,
         QS "\": 32x1 expected for int4-g32, 32x2 found", "too many scales");
    m = (struct made){ QS, "BF16", { 31, 1 }, 2, NULL };
    with(&m, NULL, MOE_T_Q, MOE_E_CORRUPT, "31x1 found", "too few scales");
    m = (struct made){ QS, "BF16", { 1, 32 }, 2, NULL };
    with(&m, NULL, MOE_T_Q, MOE_OK, "", "dimensions of 1 do not count");
    m = (struct made){ QS, "F16", { 32 }, 1, NULL };
    with(&m, NULL, MOE_T_Q, MOE_OK, "", "as a vector, in f16");
    m = (struct made){ QS, "I32", { 32, 1 }, 2, NULL };
    with(&m, NULL, MOE_T_Q, MOE_E_CORRUPT, "expected for int4-g32, I32 found",
         "integers for scales");
    with(NULL, "model.layers.0.self_attn.q_proj.weight_g_idx", MOE_T_Q,
         MOE_E_UNSUPPORTED, "weight_g_idx", "columns in another order");
    m = (struct made){ KS, "F32", { 1 }, 1, NULL };
    with(&m, NULL, MOE_T_K, MOE_E_CORRUPT, "32x1 expected", "one fp8 scale");
}

/* Method "fp8" calls the scales weight_scale_inv. */
static void
scale_inv(void)
{
    const char            *dir = new_dir();
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c;
    struct moe_arch        a;
    struct moe_weight      w;
    struct made            m[N];
    char                   text[sizeof(config) + 100], *p;
    size_t                 i, n = 0;

    for (i = 0; dense[i].name != NULL; i++) {
        m[n] = dense[i];
        if (strstr(m[n].name, "q_proj.weight_packed") != NULL)
            m[n] = (struct made){ "model.layers.0.self_attn.q_proj.weight",
                                  "F32", { 32, 32 }, 2, NULL };
        else if (strstr(m[n].name, "q_proj.weight_scale") != NULL)
            continue;
        else if (strstr(m[n].name, "weight_scale") != NULL)
            m[n] = (struct made){ KS "_inv", "F32", { 1, 1 }, 2, NULL };
        n++;
    }
    strcpy(text, config);
    p = strstr(text, "\"config_groups\"");
    strcpy(p, "\"quant_method\":\"fp8\",\"weight_block_size\":[128,128],"
              "\"activation_scheme\":\"dynamic\"}}");
    put_text(dir, "config.json", text);
    put_tensors(dir, "model.safetensors", m, n);
    if (open_model(dir, &c, &a)) {
        if (ok(moe_weight_find(c, registry, &a, MOE_T_K, 0, 0, &w, &err)
                   == MOE_OK,
               "method fp8 is read")) {
            is_str(w.ref.format->id, "fp8-e4m3-block", "as blocks");
            is_str(w.plane[1]->name, KS "_inv", "with its scales");
        } else {
            printf("# %s\n", err.text);
        }
        is_int(moe_weight_find(c, registry, &a, MOE_T_Q, 0, 0, &w, &err),
               MOE_OK, "a module that was not converted");
        is_str(w.ref.format->id, "f32", "as it is");
        moe_arch_free(&a);
        moe_checkpoint_close(c);
    }
    drop_dir(dir);
}

static void
unknown(void)
{
    static const char odd[] = "\"num_bits\":3";
    const char            *dir = new_dir();
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c;
    struct moe_arch        a;
    struct moe_weight      w;
    struct made            m[N];
    char                   text[sizeof(config)], *p;
    size_t                 n = 0;

    for (; dense[n].name != NULL; n++)
        m[n] = dense[n];
    m[4].dim[1] = 3;
    strcpy(text, config);
    p = strstr(text, "\"num_bits\":4");
    memcpy(p, odd, sizeof(odd) - 1);
    put_text(dir, "config.json", text);
    put_tensors(dir, "model.safetensors", m, n);
    if (open_model(dir, &c, &a)) {
        is_int(moe_weight_find(c, registry, &a, MOE_T_Q, 0, 0, &w, &err),
               MOE_E_UNSUPPORTED, "three bits");
        has_str(err.text, "pack-quantized: int3, group of 32, symmetric, I32",
                "in words");
        has_str(err.text, "moe-run plugins", "with a remedy");
        moe_arch_free(&a);
        moe_checkpoint_close(c);
    }
    drop_dir(dir);
}

static void
vectors(void)
{
    const char            *fixture = "tests/model/fixtures/mixtral-bf16";
    struct change          ch = { .spoil = "model.norm.weight" };
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c;
    struct moe_arch        a;
    float                  v[64];
    uint16_t               raw[64];
    uint32_t               i, wrong = 0;
    const char            *dir;

    if (open_model(tap_src(fixture), &c, &a)) {
        is_int(moe_vector_read(c, &a, MOE_T_OUTPUT_NORM, 0, v, &err), MOE_OK,
               "a norm");
        (void) moe_checkpoint_read(
            c, moe_checkpoint_find(c, "model.norm.weight"), 0, 72, raw, &err);
        for (i = 0; i < 36; i++) {
            uint32_t bits = (uint32_t) raw[i] << 16;
            float    f;

            memcpy(&f, &bits, 4);
            wrong += f != v[i];
        }
        is_int(wrong, 0, "its values");
        is_int(moe_vector_read(c, &a, MOE_T_Q_BIAS, 0, v, &err),
               MOE_E_NOT_FOUND, "no bias");
        moe_arch_free(&a);
        moe_checkpoint_close(c);
    }
    dir = changed("mixtral", &ch);
    if (open_model(dir, &c, &a)) {
        is_int(moe_vector_read(c, &a, MOE_T_OUTPUT_NORM, 0, v, &err),
               MOE_E_CORRUPT, "a NaN in a norm");
        has_str(err.text, "\"model.norm.weight\": element 35 is NaN",
                "named");
        moe_arch_free(&a);
        moe_checkpoint_close(c);
    }
    drop_dir(dir);
}

int
main(void)
{
    const char *path = getenv("MOE_PLUGIN_PATH");

    if (!ok(path != NULL && open_registry(path), "quantizers in %s",
            path != NULL ? path : "MOE_PLUGIN_PATH"))
        return tap_done();
    formats("tests/model/fixtures/mixtral", "f32", "f32", 0, 1);
    formats("tests/model/fixtures/qwen2_moe-bf16", "bf16", "bf16", 0, 1);
    formats("tests/model/fixtures/mixtral-f16", "f16", "f16", 0, 1);
    formats("tests/quant/fixtures/qwen3_moe-w4a16", "int4-g32", "int4-g32",
            MOE_BF16, 2);
    formats("tests/quant/fixtures/qwen3_moe-w4a16-asym", "int4-g32z",
            "int4-g32z", MOE_F16, 3);
    formats("tests/quant/fixtures/qwen3_moe-fp8", "fp8-e4m3-channel",
            "fp8-e4m3-channel", MOE_BF16, 2);
    formats("tests/quant/fixtures/qwen3_moe-fp8-block", "fp8-e4m3-block",
            "fp8-e4m3-block", MOE_BF16, 2);
    formats("tests/quant/fixtures/qwen3_moe-mixed", "int4-g32",
            "fp8-e4m3-channel", MOE_BF16, 2);
    formats("tests/quant/fixtures/qwen3_moe-mxfp4", "mxfp4", "mxfp4", 0, 2);
    planes();
    scale_inv();
    unknown();
    vectors();
    moe_registry_close(registry);
    return tap_done();
}
