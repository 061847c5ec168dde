/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe_quantize: what it writes is what was asked for, the same bytes with
 * any number of threads and any budget; and whatever goes wrong, nothing is
 * left.  Needs the quantizer plugins.
 */
#include "model/weights.h"

#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "config/with_plugins.h"
#include "engine/engine.h"
#include "model/change.h"

static struct moe_error err;
static char             last_warning[600];

static void
hear(void *ctx, uint32_t level, const char *line)
{
    (void) ctx;
    if (level == 1)
        snprintf(last_warning, sizeof(last_warning), "%s", line);
}

static moe_options *
options(const char *const *set)
{
    moe_options *o = test_options(set);

    moe_options_set_log(o, hear, NULL);
    return o;
}

static moe_status
quantize(const char *in, const char *out, const char *const *set,
         moe_progress_fn fn, void *ctx)
{
    moe_options *o = options(set);
    moe_status   st;

    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    last_warning[0] = '\0';
    st = moe_quantize(o, in, out, fn, ctx, NULL, &err);
    moe_options_free(o);
    return st;
}

static char *
whole(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rbe");
    char *p;

    *len = 0;
    if (f == NULL)
        return NULL;
    fseek(f, 0, SEEK_END);
    *len = (size_t) ftell(f);
    rewind(f);
    p = malloc(*len + 1);
    *len = fread(p, 1, *len, f);
    p[*len] = '\0';
    fclose(f);
    return p;
}

static int
equal_files(const char *a, const char *b)
{
    size_t n, m;
    char  *x = whole(a, &n), *y = whole(b, &m);
    int    same_bytes = x != NULL && y != NULL && n == m
                     && memcmp(x, y, n) == 0;

    free(x);
    free(y);
    return same_bytes;
}

/* ------------------------------------------------------------- decoding -- */

struct model {
    struct moe_host_services services;
    moe_options             *o;
    struct moe_registry     *registry;
    struct moe_checkpoint   *c;
    struct moe_arch          a;
};

static int
open_model(struct model *m, const char *dir)
{
    memset(m, 0, sizeof(*m));
    m->o = options(NULL);
    m->services.options = m->o;
    if (moe_ledger_open(&m->services.ledger, &err) == MOE_OK
        && moe_pool_open(1, &m->services.pool, &err) == MOE_OK
        && moe_services_registry(&m->services, &m->registry, &err) == MOE_OK
        && moe_checkpoint_open(dir, &m->c, &err) == MOE_OK
        && moe_arch_read(m->c, &m->a, &err) == MOE_OK)
        return ok(1, "%s is read", dir);
    ok(0, "%s is read", dir);
    printf("# %s\n", err.text);
    return 0;
}

static void
close_model(struct model *m)
{
    moe_arch_free(&m->a);
    moe_checkpoint_close(m->c);
    moe_registry_close(m->registry);
    moe_pool_close(m->services.pool);
    moe_ledger_close(m->services.ledger);
    moe_options_free(m->o);
}

/* A matrix as f32, (n, k); the format's id into id.  NULL: absent. */
static float *
decoded(struct model *m, uint32_t t, uint32_t l, uint32_t e, char *id,
        uint64_t *count)
{
    struct moe_weight w;
    struct moe_tensor x = { .struct_size = sizeof(x) };
    float            *out = NULL;
    uint32_t          i;

    *count = 0;
    if (moe_weight_find(m->c, m->registry, &m->a, t, l, e, &w, &err) != MOE_OK)
        return NULL;
    strcpy(id, w.ref.format->id);
    x.n = w.n;
    x.k = w.k;
    x.scale_dtype = w.scale_dtype;
    for (i = 0; i < w.n_planes; i++) {
        void *p = malloc(w.plane[i]->bytes);

        if (moe_checkpoint_read(m->c, w.plane[i], 0, w.plane[i]->bytes, p,
                                &err) != MOE_OK)
            abort();
        x.plane[i] = p;
        x.len[i] = w.plane[i]->bytes;
    }
    out = malloc(w.n * w.k * sizeof(*out));
    if (w.ref.ops->check(w.ref.self, w.ref.format, &x, &err) != MOE_OK
        || w.ref.ops->decode(w.ref.self, w.ref.format, &x, 0, w.n, MOE_F32,
                             out, w.k) != MOE_OK) {
        printf("# %s\n", err.text);
        free(out);
        out = NULL;
    }
    for (i = 0; i < w.n_planes; i++)
        free((void *) (uintptr_t) x.plane[i]);
    *count = out != NULL ? w.n * w.k : 0;
    return out;
}

/* The result's tensor t is in this format, and near the source's. */
static void
near(struct model *from, struct model *to, uint32_t t, uint32_t l,
     const char *format, double nmse)
{
    char     a_id[64] = "", b_id[64] = "";
    uint64_t n = 0, m = 0, i;
    float   *a = decoded(from, t, l, 0, a_id, &n);
    float   *b = decoded(to, t, l, 0, b_id, &m);
    double   d = 0, s = 0;

    is_str(b_id, format, "tensor %u: format", t);
    if (ok(a != NULL && b != NULL && n == m && n > 0, "tensor %u: decoded",
           t)) {
        for (i = 0; i < n; i++) {
            d += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
            s += (double) a[i] * a[i];
        }
        ok(nmse == 0 ? d == 0 : d <= nmse * s, "tensor %u: error %.2g", t,
           d / s);
    }
    free(a);
    free(b);
}

/* --------------------------------------------------------------- models -- */

/* A Llama with one layer whose feed-forward is wide enough to be cut into
 * pieces, and whose values are no accident. */
static const char *
wide_model(int nan_at)
{
    static float  w[300 * 64];
    const char   *dir = new_dir();
    struct made   m[16];
    uint32_t      seed = 1;
    size_t        i;
    static const struct made shapes[] = {
        { "model.embed_tokens.weight", "F32", { 7, 64 }, 2, NULL },
        { "model.layers.0.self_attn.q_proj.weight", "F32", { 64, 64 }, 2,
          NULL },
        { "model.layers.0.self_attn.k_proj.weight", "F32", { 64, 64 }, 2,
          NULL },
        { "model.layers.0.self_attn.v_proj.weight", "F32", { 64, 64 }, 2,
          NULL },
        { "model.layers.0.self_attn.o_proj.weight", "F32", { 64, 64 }, 2,
          NULL },
        { "model.layers.0.mlp.gate_proj.weight", "F32", { 300, 64 }, 2,
          NULL },
        { "model.layers.0.mlp.up_proj.weight", "F32", { 300, 64 }, 2, NULL },
        { "model.layers.0.mlp.down_proj.weight", "F32", { 64, 300 }, 2,
          NULL },
        { "model.layers.0.input_layernorm.weight", "F32", { 64 }, 1, NULL },
        { "model.layers.0.post_attention_layernorm.weight", "F32", { 64 }, 1,
          NULL },
        { "model.norm.weight", "F32", { 64 }, 1, NULL },
        { "lm_head.weight", "F32", { 7, 64 }, 2, NULL },
        { "extra.thing", "I64", { 2 }, 1, NULL },
    };

    for (i = 0; i < sizeof(w) / sizeof(w[0]); i++) {
        seed = seed * 1664525u + 1013904223u;
        w[i] = ((float) (seed >> 8) / 8388608.0f - 1.0f) * 0.1f;
    }
    if (nan_at >= 0)
        w[nan_at] = NAN;
    for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        m[i] = shapes[i];
        m[i].data = w;
    }
    put_text(dir, "config.json",
             "{\"model_type\":\"llama\",\"hidden_size\":64,"
             "\"num_hidden_layers\":1,\"num_attention_heads\":4,"
             "\"vocab_size\":7,\"intermediate_size\":300,"
             "\"max_position_embeddings\":32}");
    put_text(dir, "tokenizer.json", "{\"a\":1}");
    put_text(dir, "README.md", "words");
    put_text(dir, "pytorch_model.bin", "not this");
    put_text(dir, ".hidden", "nor this");
    put_tensors(dir, "model.safetensors", m, i);
    return dir;
}

/* ---------------------------------------------------------------- tests -- */

static void
defaults(void)
{
    const char         *in = tap_src("tests/model/fixtures/qwen2_moe-bf16");
    const char         *top = new_dir();
    char                out[300];
    struct model        from, to;
    struct json_object *c, *q, *v;

    /* experts of 36 columns do not fit groups of 32: the others do */
    snprintf(out, sizeof(out), "%s/out", top);
    is_int(quantize(in, out, NULL, NULL, NULL), MOE_E_UNSUPPORTED,
           "nothing fits: refused");
    has_str(err.text, "nothing can be converted", "says so");
    is_int(dir_entries(top), 0, "nothing is left");

    in = tap_src("tests/quant/fixtures/qwen3_moe-w4a16");
    is_int(quantize(in, out, NULL, NULL, NULL), MOE_E_UNSUPPORTED,
           "the same format as it has: refused");
    has_str(err.text, "has that format already", "says so");

    in = tap_src("tests/quant/fixtures/qwen3_moe-fp8");
    is_int(quantize(in, out, NULL, NULL, NULL), MOE_OK,
           "from fp8 to int4: %s", err.text);
    if (open_model(&from, in) && open_model(&to, out)) {
        near(&from, &to, MOE_T_EXPERT_UP, 0, "int4-g32", 0.02);
        near(&from, &to, MOE_T_EXPERT_DOWN, 1, "int4-g32", 0.02);
        near(&from, &to, MOE_T_Q, 1, "fp8-e4m3-channel", 0);
        near(&from, &to, MOE_T_ROUTER, 1, "bf16", 0);
        near(&from, &to, MOE_T_EMBED, 0, "bf16", 0);
        near(&from, &to, MOE_T_OUTPUT, 0, "bf16", 0);
        close_model(&to);
        close_model(&from);
    }
    c = json_object_from_file(in_dir(out, "config.json"));
    ok(json_object_object_get_ex(c, "quantization_config", &q), "its config");
    json_object_object_get_ex(q, "format", &v);
    is_str(json_object_get_string(v), "mixed-precision", "two formats");
    json_object_object_get_ex(q, "quant_method", &v);
    is_str(json_object_get_string(v), "compressed-tensors", "the method");
    json_object_object_get_ex(q, "quantization_status", &v);
    is_str(json_object_get_string(v), "compressed", "the status");
    json_object_object_get_ex(q, "config_groups", &v);
    is_int(json_object_object_length(v), 2, "two groups");
    json_object_object_get_ex(c, "hidden_size", &v);
    ok(v != NULL, "the rest of the config is kept");
    json_object_put(c);
    drop_dir(out);
    drop_dir(top);
}

/* Scales of another type than the weights were, which the config says; and
 * back to plain floats, where what is lost was lost on the way there. */
static void
mxfp4(void)
{
    static const char *const set[] = { "quant.experts=mxfp4", NULL };
    static const char *const back[] = { "quant.experts=f32", NULL };
    const char         *in = tap_src("tests/quant/fixtures/qwen3_moe-fp8");
    const char         *top = new_dir();
    char                out[300], plain[300];
    struct model        from, to;
    struct json_object *c, *q = NULL, *g, *v = NULL;

    snprintf(out, sizeof(out), "%s/out", top);
    snprintf(plain, sizeof(plain), "%s/plain", top);
    is_int(quantize(in, out, set, NULL, NULL), MOE_OK, "from fp8 to mxfp4: %s",
           err.text);
    if (open_model(&from, in) && open_model(&to, out)) {
        near(&from, &to, MOE_T_EXPERT_UP, 0, "mxfp4", 0.02);
        near(&from, &to, MOE_T_EXPERT_DOWN, 1, "mxfp4", 0.02);
        close_model(&to);
        close_model(&from);
    }
    is_int(quantize(out, plain, back, NULL, NULL), MOE_OK,
           "from mxfp4 to f32: %s", err.text);
    if (open_model(&from, out) && open_model(&to, plain)) {
        near(&from, &to, MOE_T_EXPERT_UP, 1, "f32", 0);
        close_model(&to);
        close_model(&from);
    }
    c = json_object_from_file(in_dir(out, "config.json"));
    json_object_object_get_ex(c, "quantization_config", &q);
    json_object_object_get_ex(q, "config_groups", &g);
    json_object_object_foreach(g, name, group)
    {
        struct json_object *w = NULL, *f = NULL;

        (void) name;
        json_object_object_get_ex(group, "format", &f);
        json_object_object_get_ex(group, "weights", &w);
        if (strcmp(json_object_get_string(f), "mxfp4-pack-quantized") == 0)
            json_object_object_get_ex(w, "scale_dtype", &v);
        else
            ok(!json_object_object_get_ex(w, "scale_dtype", NULL),
               "other formats have the model's type of scales");
    }
    ok(v != NULL && strcmp(json_object_get_string(v), "torch.uint8") == 0,
       "the type of its scales is said");
    json_object_put(c);
    drop_dir(plain);
    drop_dir(out);
    drop_dir(top);
}

static void
one_format(void)
{
    static const char *const set[]
        = { "quant.dense=int4-g32", "quant.attention=int4-g64z", NULL };
    static const char *const one[] = { "quant.dense=int4-g32", NULL };
    const char         *in = wide_model(-1), *top = new_dir();
    char                out[300], shape[16] = "";
    struct model        from, to;
    struct json_object *c, *q, *v;
    const struct moe_tensor_info *t;

    snprintf(out, sizeof(out), "%s/out/", top);
    is_int(quantize(in, out, one, NULL, NULL), MOE_OK, "int4: %s", err.text);
    out[strlen(out) - 1] = '\0';
    has_str(last_warning, "1 matrices stay as they are", "one does not fit");
    has_str(last_warning, "model.layers.0.mlp.down_proj", "by name");
    is_int(dir_entries(out), 4, "config, tensors and two small files");
    ok(equal_files(in_dir(in, "tokenizer.json"), in_dir(out,
                                                        "tokenizer.json")),
       "the tokenizer is copied");
    is_int(dir_entries(top), 1, "and no partial folder");

    c = json_object_from_file(in_dir(out, "config.json"));
    json_object_object_get_ex(c, "quantization_config", &q);
    json_object_object_get_ex(q, "format", &v);
    is_str(json_object_get_string(v), "pack-quantized", "one format");
    json_object_object_get_ex(q, "config_groups", &v);
    json_object_object_get_ex(v, "group_0", &v);
    json_object_object_get_ex(v, "targets", &v);
    is_str(json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN),
           "[\"Linear\"]", "its target");
    json_object_object_get_ex(q, "ignore", &v);
    is_str(json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN),
           "[\"lm_head\",\"re:model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\"
           ".q_proj$\",\"re:model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\"
           ".k_proj$\",\"re:model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\"
           ".v_proj$\",\"re:model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\"
           ".o_proj$\",\"re:model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\"
           ".down_proj$\"]",
           "what it is not for");
    json_object_put(c);
    if (open_model(&from, in) && open_model(&to, out)) {
        near(&from, &to, MOE_T_GATE, 0, "int4-g32", 0.02);
        near(&from, &to, MOE_T_UP, 0, "int4-g32", 0.02);
        near(&from, &to, MOE_T_DOWN, 0, "f32", 0);
        near(&from, &to, MOE_T_Q, 0, "f32", 0);
        t = moe_checkpoint_find(to.c, "model.layers.0.mlp.up_proj"
                                      ".weight_shape");
        ok(t != NULL && t->bytes == 16 && strcmp(t->dtype, "I64") == 0,
           "a weight_shape");
        if (t != NULL)
            (void) moe_checkpoint_read(to.c, t, 0, 16, shape, &err);
        ok(shape[0] == 300 % 256 && shape[1] == 300 / 256 && shape[8] == 64,
           "rows and columns");
        t = moe_checkpoint_find(to.c, "model.layers.0.mlp.up_proj"
                                      ".weight_scale");
        is_str(t != NULL ? t->dtype : "", "F32", "scales as wide as weights");
        ok(moe_checkpoint_find(to.c, "extra.thing") != NULL,
           "a tensor that nobody knows is kept");
        close_model(&to);
        close_model(&from);
    }
    drop_dir(out);

    is_int(quantize(in, out, set, NULL, NULL), MOE_OK, "two int4 formats: %s",
           err.text);
    c = json_object_from_file(in_dir(out, "config.json"));
    json_object_object_get_ex(c, "quantization_config", &q);
    json_object_object_get_ex(q, "format", &v);
    is_str(json_object_get_string(v), "pack-quantized", "one way of packing");
    json_object_object_get_ex(q, "config_groups", &v);
    is_int(json_object_object_length(v), 2, "but two groups");
    json_object_put(c);
    if (open_model(&from, in) && open_model(&to, out)) {
        near(&from, &to, MOE_T_GATE, 0, "int4-g32", 0.02);
        near(&from, &to, MOE_T_O, 0, "int4-g64z", 0.02);
        close_model(&to);
        close_model(&from);
    }
    drop_dir(out);
    drop_dir(top);
    drop_dir(in);
}

static void
plain_target(void)
{
    static const char *const set[] = { "quant.dense=f16",
                                       "quant.embeddings=bf16", NULL };
    const char         *in = wide_model(-1), *top = new_dir();
    char                out[300];
    struct model        from, to;
    struct json_object *c;

    snprintf(out, sizeof(out), "%s/out", top);
    is_int(quantize(in, out, set, NULL, NULL), MOE_OK, "to 16 bits: %s",
           err.text);
    c = json_object_from_file(in_dir(out, "config.json"));
    ok(!json_object_object_get_ex(c, "quantization_config", NULL),
       "needs no quantization_config");
    json_object_put(c);
    if (open_model(&from, in) && open_model(&to, out)) {
        near(&from, &to, MOE_T_DOWN, 0, "f16", 1e-6);
        near(&from, &to, MOE_T_OUTPUT, 0, "bf16", 1e-4);
        near(&from, &to, MOE_T_Q, 0, "f32", 0);
        close_model(&to);
        close_model(&from);
    }
    drop_dir(out);
    drop_dir(top);
    drop_dir(in);
}

/* Threads and budget change nothing. */
static void
same_bytes(void)
{
    static const char *const sets[][6] = {
        { "engine.threads=1", "quant.dense=int4-g32z",
          "quant.attention=fp8-e4m3", "quant.embeddings=fp8-e4m3-block",
          NULL },
        { "engine.threads=3", "quant.dense=int4-g32z",
          "quant.attention=fp8-e4m3", "quant.embeddings=fp8-e4m3-block",
          NULL },
        { "engine.threads=2", "quant.dense=int4-g32z",
          "quant.attention=fp8-e4m3", "quant.embeddings=fp8-e4m3-block",
          "memory.budget=1G", NULL },
    };
    const char *in = wide_model(-1), *top = new_dir();
    char        out[3][300];
    size_t      i;

    for (i = 0; i < 3; i++) {
        snprintf(out[i], sizeof(out[i]), "%s/out%zu", top, i);
        is_int(quantize(in, out[i], sets[i], NULL, NULL), MOE_OK, "%s: %s",
               sets[i][0], err.text);
        ok(equal_files(in_dir(out[0], "model.safetensors"),
                       in_dir(out[i], "model.safetensors"))
               && equal_files(in_dir(out[0], "config.json"),
                              in_dir(out[i], "config.json")),
           "%s: the same bytes", sets[i][0]);
    }
    for (i = 0; i < 3; i++)
        drop_dir(out[i]);
    drop_dir(top);
    drop_dir(in);
}

/* Refused with this, and nothing is left in the folder above. */
static void
refuse(const char *in, const char *const *set, moe_status want,
       const char *thing, const char *what)
{
    const char *top = new_dir();
    char        out[300];

    snprintf(out, sizeof(out), "%s/out", top);
    is_int(quantize(in, out, set, NULL, NULL), want, "%s: status", what);
    has_str(err.text, thing, "%s: named", what);
    is_int(dir_entries(top), 0, "%s: nothing is left", what);
    drop_dir(top);
}

static void
refusals(void)
{
    static const char *const none[] = { "quant.experts=keep", NULL };
    static const char *const dead[] = { "quant.dense=int4-g32",
                                        "quant.experts=int4-g32", NULL };
    static const char *const odd[] = { "quant.dense=int5", NULL };
    static const char *const dense[] = { "quant.dense=int4-g32", NULL };
    static const char *const little[] = { "quant.dense=int4-g32",
                                          "memory.budget=1K", NULL };
    struct change ch = { .spoil = "model.layers.1.mlp.experts.2.up_proj"
                                  ".weight_scale" };
    const char   *in = wide_model(-1), *bad;
    char          out[300];

    refuse(in, none, MOE_E_INVAL, "nothing to do", "nothing asked for");
    refuse(in, dead, MOE_E_INVAL, "quant.experts = int4-g32 has no effect",
           "an option without effect");
    refuse(in, odd, MOE_E_UNSUPPORTED, "int5", "an unknown format");
    refuse(in_dir(in, "nowhere"), dense, MOE_E_NOT_FOUND, "nowhere",
           "no source");
    refuse(in, little, MOE_E_OVER_BUDGET, "", "a budget of 1 KiB");

    is_int(quantize(in, in, dense, NULL, NULL), MOE_E_INVAL,
           "into itself: refused");
    has_str(err.text, "exists already", "says so");
    is_int(dir_entries(in), 5, "and untouched");
    snprintf(out, sizeof(out), "%s/none/out", in);
    is_int(quantize(in, out, dense, NULL, NULL), MOE_E_IO,
           "no folder to write into");
    has_str(err.text, "none/out", "names it");
    is_int(quantize(in, "", dense, NULL, NULL), MOE_E_INVAL,
           "no name to write to");

    bad = wide_model(130 * 64 + 5);
    refuse(bad, dense, MOE_E_CORRUPT,
           "tensor \"model.layers.0.mlp.gate_proj.weight\": row 130, column 5 "
           "is NaN", "a NaN");
    drop_dir(bad);
    bad = changed("../../quant/fixtures/qwen3_moe-fp8", &ch);
    refuse(bad, NULL, MOE_E_CORRUPT, "model.layers.1.mlp.experts.2.up_proj",
           "a NaN scale in the source");
    has_str(err.text, "model.safetensors", "the file is named");
    drop_dir(bad);
    drop_dir(in);
}

/* ------------------------------------------------------- interruptions -- */

struct stop {
    uint64_t calls, at, last, total;
    int      backwards;
};

static int
stop_at(void *ctx, uint64_t done, uint64_t total, const char *what)
{
    struct stop *s = ctx;

    s->backwards |= done < s->last || done > total || what == NULL;
    s->last = done;
    s->total = total;
    return ++s->calls == s->at;
}

static void
interrupted(void)
{
    static const char *const set[] = { "quant.dense=int4-g32", NULL };
    const char *in = wide_model(-1), *top = new_dir();
    char        out[300];
    struct stop s = { 0 };
    uint64_t    calls, i;

    snprintf(out, sizeof(out), "%s/out", top);
    is_int(quantize(in, out, set, stop_at, &s), MOE_OK, "to the end");
    ok(s.calls > 10 && !s.backwards && s.last == s.total,
       "progress to the end in %llu calls", (unsigned long long) s.calls);
    calls = s.calls;
    drop_dir(out);
    for (i = 1; i <= calls; i += 3) {
        memset(&s, 0, sizeof(s));
        s.at = i;
        if (quantize(in, out, set, stop_at, &s) != MOE_E_CANCELED
            || dir_entries(top) != 0)
            break;
    }
    ok(i > calls, "canceled at any call: nothing is left");
    has_str(err.text, "interrupted", "says so");
    is_int(quantize(in, out, set, NULL, NULL), MOE_OK, "and again");
    drop_dir(out);
    drop_dir(top);
    drop_dir(in);
}

/* A limit on the size of files stands for a full disk. */
static void
no_space(void)
{
    static const char *const set[] = { "quant.dense=int4-g32", NULL };
    const char   *in = wide_model(-1), *top = new_dir();
    char          out[300];
    struct rlimit old, now;
    rlim_t        at;
    int           left = 0, passed = 0;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    snprintf(out, sizeof(out), "%s/out", top);
    for (at = 16; at < 400000; at = at * 3 / 2) {
        moe_status st;

        now = old;
        now.rlim_cur = at;
        setrlimit(RLIMIT_FSIZE, &now);
        st = quantize(in, out, set, NULL, NULL);
        setrlimit(RLIMIT_FSIZE, &old);
        if (st == MOE_OK) {
            passed = 1;
            drop_dir(out);
        } else if (st != MOE_E_IO || strstr(err.text, top) == NULL) {
            printf("# %llu: %s\n", (unsigned long long) at, err.text);
            left++;
        }
        left += dir_entries(top);
    }
    is_int(left, 0, "no room for a file: an error, and nothing is left");
    ok(passed, "with enough room it works");
    drop_dir(top);
    drop_dir(in);
}

/* A model of 4 TiB, of which the file system holds a header. */
static void
disk(void)
{
    static const char *const set[] = { "quant.dense=int4-g32", NULL };
    static const char header[]
        = "{\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":"
          "[67108864,16384],\"data_offsets\":[0,4398046511104]},";
    const char   *in = wide_model(-1), *top = new_dir();
    char          out[300], *text;
    uint64_t      n;
    size_t        len, h;
    unsigned char head[8];
    FILE         *f;

    /* the head of the small model, its embedding grown to 4 TiB and the
     * other tensors as vectors of that width */
    text = malloc(8192);
    h = (size_t) sprintf(text, "%s", header);
    n = 4398046511104u;
    {
        static const struct {
            const char *name;
            uint64_t    rows, cols;
        } t[] = {
            { "self_attn.q_proj.weight", 2, 16384 },
            { "self_attn.k_proj.weight", 2, 16384 },
            { "self_attn.v_proj.weight", 2, 16384 },
            { "self_attn.o_proj.weight", 16384, 2 },
            { "mlp.gate_proj.weight", 1, 16384 },
            { "mlp.up_proj.weight", 1, 16384 },
            { "mlp.down_proj.weight", 16384, 1 },
            { "input_layernorm.weight", 16384, 0 },
            { "post_attention_layernorm.weight", 16384, 0 },
        };
        size_t i;

        for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
            uint64_t bytes = 4 * t[i].rows * (t[i].cols != 0 ? t[i].cols : 1);
            char     dims[64];

            snprintf(dims, sizeof(dims),
                     t[i].cols != 0 ? "%llu,%llu" : "%llu",
                     (unsigned long long) t[i].rows,
                     (unsigned long long) t[i].cols);
            h += (size_t) sprintf(text + h,
                                  "\"model.layers.0.%s\":{\"dtype\":\"F32\","
                                  "\"shape\":[%s],\"data_offsets\":[%llu,"
                                  "%llu]},",
                                  t[i].name, dims, (unsigned long long) n,
                                  (unsigned long long) (n + bytes));
            n += bytes;
        }
    }
    h += (size_t) sprintf(text + h,
                          "\"model.norm.weight\":{\"dtype\":\"F32\","
                          "\"shape\":[16384],\"data_offsets\":[%llu,%llu]}}",
                          (unsigned long long) n,
                          (unsigned long long) (n + 65536));
    n += 65536;
    while (h % 8 != 0)
        text[h++] = ' ';
    for (len = 0; len < 8; len++)
        head[len] = (unsigned char) ((uint64_t) h >> 8 * len);
    put_text(in, "config.json",
             "{\"model_type\":\"llama\",\"hidden_size\":16384,"
             "\"num_hidden_layers\":1,\"num_attention_heads\":1,"
             "\"head_dim\":2,\"vocab_size\":67108864,"
             "\"intermediate_size\":1,\"max_position_embeddings\":32,"
             "\"tie_word_embeddings\":true}");
    f = fopen(in_dir(in, "model.safetensors"), "wbe");
    if (f == NULL || fwrite(head, 1, 8, f) != 8
        || fwrite(text, 1, h, f) != h)
        abort();
    fclose(f);
    free(text);
    if (truncate(in_dir(in, "model.safetensors"), (off_t) (8 + h + n)) != 0) {
        ok(1, "no room on disk # SKIP no sparse file of 4 TiB here");
    } else {
        snprintf(out, sizeof(out), "%s/out", top);
        is_int(quantize(in, out, set, NULL, NULL), MOE_E_IO,
               "no room on disk");
        has_str(err.text, " bytes are needed, ", "what is needed");
        has_str(err.text, " are free", "and what there is");
        is_int(err.native, ENOSPC, "the system's own reason");
        is_int(dir_entries(top), 0, "nothing is left");
    }
    drop_dir(top);
    drop_dir(in);
}

/* What a killed process left is removed by the next. */
static void
orphans(void)
{
    static const char *const set[] = { "quant.dense=int4-g32", NULL };
    const char *in = wide_model(-1), *top = new_dir();
    char        out[300], path[400], mine[400];
    pid_t       pid;

    snprintf(out, sizeof(out), "%s/out", top);
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0); /* a number that is free now */
    snprintf(path, sizeof(path), "out.partial-%ld", (long) pid);
    ok(mkdir(in_dir(top, path), 0700) == 0, "a partial folder of old");
    put_text(in_dir(top, path), "model.safetensors", "half");
    snprintf(mine, sizeof(mine), "out.partial-%ld", (long) getppid());
    ok(mkdir(in_dir(top, mine), 0700) == 0, "one of a living process");
    ok(mkdir(in_dir(top, "out.partial-1x"), 0700) == 0, "one of no process");
    is_int(quantize(in, out, set, NULL, NULL), MOE_OK, "started again: %s",
           err.text);
    ok(access(in_dir(top, path), F_OK) != 0, "the old one is gone");
    ok(access(in_dir(top, mine), F_OK) == 0, "the living one's is not");
    ok(access(in_dir(top, "out.partial-1x"), F_OK) == 0, "nor the other");
    drop_dir(in_dir(top, mine));
    drop_dir(in_dir(top, "out.partial-1x"));
    drop_dir(out);
    drop_dir(top);
    drop_dir(in);
}

int
main(void)
{
    if (getenv("MOE_PLUGIN_PATH") == NULL)
        tap_skip_all("MOE_PLUGIN_PATH does not say where the quantizers are");
    defaults();
    mxfp4();
    one_format();
    plain_target();
    same_bytes();
    refusals();
    interrupted();
    no_space();
    disk();
    orphans();
    return tap_done();
}
