/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frequencies of every rope variant against those of transformers 5.23.0 in
 * PyTorch, within one unit in the last place (its pow is not always the
 * nearest); and the parameters that are wrong.
 */
#include "model/family.h"

#include <math.h>

#include "tap.h"

static const struct {
    const char *name;
    uint32_t    dim;
    const char *config;
    float       scale;
    uint32_t    n;
    uint32_t    index[8];
    float       want[8];
} cases[] = {
    { "plain", 128,
      "{\"max_position_embeddings\":131072,\"rope_theta\":1000000.0}",
      0x1p+0f, 8, { 0, 1, 16, 21, 32, 42, 53, 63 },
      { 0x1p+0f, 0x1.9c975ap-1f, 0x1.030dc6p-5f, 0x1.6020a4p-7f,
        0x1.0624dep-10f, 0x1.e459c4p-14f, 0x1.68941cp-17f, 0x1.4d1c98p-20f }
        },
    { "plain, dim 18", 18,
      "{\"max_position_embeddings\":256,\"rope_theta\":10000.0}",
      0x1p+0f, 8, { 0, 1, 2, 3, 4, 6, 7, 8 },
      { 0x1p+0f, 0x1.7001acp-2f, 0x1.088266p-3f, 0x1.7c3d2ap-5f,
        0x1.114d36p-6f, 0x1.1a62d2p-9f, 0x1.95efe6p-11f, 0x1.23c5c2p-12f } },
    { "linear", 128,
      "{\"max_position_embeddings\":16384,\"rope_theta\":10000.0"
      ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8.0}}",
      0x1p+0f, 8, { 0, 1, 16, 21, 32, 42, 53, 63 },
      { 0x1p-3f, 0x1.bb5faep-4f, 0x1.99999ap-7f, 0x1.8eec7ep-8f,
        0x1.47ae14p-10f, 0x1.36d21ap-12f, 0x1.fe9f58p-15f, 0x1.e459c4p-17f }
        },
    { "linear, under type", 64,
      "{\"max_position_embeddings\":4096,\"rope_theta\":10000.0"
      ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}",
      0x1p+0f, 8, { 0, 1, 8, 10, 16, 21, 26, 31 },
      { 0x1.99999ap-2f, 0x1.33281cp-2f, 0x1.47ae14p-5f, 0x1.708936p-6f,
        0x1.0624dcp-8f, 0x1.f1502ap-11f, 0x1.d7b9ep-13f, 0x1.bf74ap-15f } },
    { "dynamic", 128,
      "{\"max_position_embeddings\":4096,\"rope_theta\":10000.0"
      ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":4.0}}",
      0x1p+0f, 8, { 0, 1, 16, 21, 32, 42, 53, 63 },
      { 0x1p+0f, 0x1.bb5faep-1f, 0x1.99999ap-4f, 0x1.8eec7ep-5f,
        0x1.47ae14p-7f, 0x1.36d21ap-9f, 0x1.fe9f58p-12f, 0x1.e459c4p-14f } },
    { "llama3", 128,
      "{\"max_position_embeddings\":131072,\"rope_theta\":500000.0"
      ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
      "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
      "\"original_max_position_embeddings\":8192}}",
      0x1p+0f, 8, { 0, 1, 16, 21, 32, 42, 53, 63 },
      { 0x1p+0f, 0x1.a11582p-1f, 0x1.34119p-5f, 0x1.ba0dd8p-7f,
        0x1.132ba4p-11f, 0x1.7da9e8p-16f, 0x1.4014d2p-19f, 0x1.4985fep-22f }
        },
    { "llama3, factor 32", 64,
      "{\"max_position_embeddings\":131072,\"rope_theta\":500000.0"
      ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32.0,"
      "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
      "\"original_max_position_embeddings\":8192}}",
      0x1p+0f, 8, { 0, 1, 8, 10, 16, 21, 26, 31 },
      { 0x1p+0f, 0x1.53c38cp-1f, 0x1.34119p-5f, 0x1.0f5386p-6f,
        0x1.c26c4p-12f, 0x1.7da9e8p-18f, 0x1.88ec2p-21f, 0x1.94836p-24f } },
    { "yarn", 128,
      "{\"max_position_embeddings\":40960,\"rope_theta\":1000000.0"
      ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
      "\"original_max_position_embeddings\":32768}}",
      0x1.237d38p+0f, 8, { 0, 1, 16, 21, 32, 42, 53, 63 },
      { 0x1p+0f, 0x1.9c975ap-1f, 0x1.030dc6p-5f, 0x1.6020a4p-7f,
        0x1.3c1d64p-11f, 0x1.e459c4p-16f, 0x1.68941cp-19f, 0x1.4d1c98p-22f }
        },
    { "yarn with both mscales", 64,
      "{\"max_position_embeddings\":163840,\"rope_theta\":10000.0"
      ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,"
      "\"mscale\":0.707,\"mscale_all_dim\":1.0,\"beta_fast\":32,"
      "\"beta_slow\":1,\"original_max_position_embeddings\":4096}}",
      0x1.d792dep-1f, 8, { 0, 1, 8, 10, 16, 21, 26, 31 },
      { 0x1p+0f, 0x1.7ff222p-1f, 0x1.99999ap-4f, 0x1.ccab84p-5f,
        0x1.6872b2p-8f, 0x1.b32624p-12f, 0x1.d7b9ep-17f, 0x1.bf749ep-19f } },
    { "yarn, not truncated", 64,
      "{\"max_position_embeddings\":131072,\"rope_theta\":150000.0"
      ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,"
      "\"original_max_position_embeddings\":4096,\"truncate\":false,"
      "\"beta_fast\":32.0,\"beta_slow\":1.0}}",
      0x1.58b90cp+0f, 8, { 0, 1, 8, 10, 16, 21, 26, 31 },
      { 0x1p+0f, 0x1.60ca6ap-1f, 0x1.a04328p-5f, 0x1.3cc8dep-6f,
        0x1.dea878p-12f, 0x1.a485f4p-17f, 0x1.05448ap-19f, 0x1.44a5a6p-22f }
        },
    { "yarn, attention_factor given", 64,
      "{\"max_position_embeddings\":131072,\"rope_theta\":10000.0"
      ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":16.0,"
      "\"original_max_position_embeddings\":8192,"
      "\"attention_factor\":1.0}}",
      0x1p+0f, 8, { 0, 1, 8, 10, 16, 21, 26, 31 },
      { 0x1p+0f, 0x1.7ff222p-1f, 0x1.99999ap-4f, 0x1.ccab84p-5f,
        0x1.d2505ap-8f, 0x1.b4582ep-11f, 0x1.26d42cp-15f, 0x1.17a8e4p-17f } },
    { "yarn of no original length", 32,
      "{\"max_position_embeddings\":1024,\"rope_theta\":10000.0"
      ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2.0}}",
      0x1.11be9cp+0f, 8, { 0, 1, 4, 5, 8, 10, 13, 15 },
      { 0x1p+0f, 0x1.1feb34p-1f, 0x1.5f15f2p-4f, 0x1.69f478p-5f,
        0x1.767dccp-8f, 0x1.9e7c7p-10f, 0x1.26d42cp-12f, 0x1.74eea6p-14f } },
};

static moe_status
read_rope(const char *text, uint32_t dim, struct moe_arch *a,
          struct moe_error *err)
{
    struct moe_json j = { json_tokener_parse(text), "config.json", "" };
    moe_status      st;

    memset(a, 0, sizeof(*a));
    memset(err, 0, sizeof(*err));
    err->struct_size = sizeof(*err);
    a->head_dim = dim;
    st = j.obj == NULL ? MOE_E_INTERNAL
                       : moe_json_u32(&j, "max_position_embeddings", 1,
                                      1u << 30, &a->max_context, err);
    if (st == MOE_OK)
        st = moe_rope_read(&j, 1e4, a, err);
    json_object_put(j.obj);
    return st;
}

static int
near(float got, float want)
{
    return got == want || got == nextafterf(want, INFINITY)
           || got == nextafterf(want, 0.0f);
}

static void
equal(void)
{
    size_t i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct moe_error err;
        struct moe_arch  a;
        uint32_t         k, wrong = 0;

        if (!ok(read_rope(cases[i].config, cases[i].dim, &a, &err) == MOE_OK,
                "%s: read", cases[i].name)) {
            printf("# %s\n", err.text);
            moe_arch_free(&a);
            continue;
        }
        is_int(a.n_inv_freq, cases[i].dim / 2, "%s: how many",
               cases[i].name);
        for (k = 0; k < cases[i].n; k++)
            if (!near(a.inv_freq[cases[i].index[k]], cases[i].want[k])) {
                printf("# %u: %a, want %a\n", cases[i].index[k],
                       (double) a.inv_freq[cases[i].index[k]],
                       (double) cases[i].want[k]);
                wrong++;
            }
        is_int(wrong, 0, "%s: frequencies", cases[i].name);
        ok(a.rope_scale == cases[i].scale, "%s: attention factor %a",
           cases[i].name, (double) a.rope_scale);
        is_int(a.rope_kind, MOE_ROPE_HALF, "%s: halves", cases[i].name);
        moe_arch_free(&a);
    }
}

static void
context(const char *text, uint32_t want, const char *what)
{
    struct moe_error err;
    struct moe_arch  a;

    is_int(read_rope(text, 64, &a, &err), MOE_OK, "%s: read", what);
    is_int(a.max_context, want, "%s: context", what);
    moe_arch_free(&a);
}

#define C(scaling)                                                            \
    "{\"max_position_embeddings\":4096,\"rope_scaling\":{" scaling "}}"
#define P(scaling)                                                            \
    "{\"max_position_embeddings\":4096,\"rope_parameters\":{" scaling "}}"

static void
where(void)
{
    struct moe_error err;
    struct moe_arch  a, b;

    context(C("\"type\":\"yarn\",\"factor\":4,"
              "\"original_max_position_embeddings\":4096"), 16384,
            "yarn extends the context of before");
    context(C("\"type\":\"yarn\",\"factor\":4,"
              "\"original_max_position_embeddings\":1024"), 4096,
            "and leaves one that was extended");
    context(C("\"type\":\"linear\",\"factor\":4"), 4096, "linear");
    context(C("\"type\":\"dynamic\",\"factor\":4"), 4096, "dynamic");
    context(C(""), 4096, "empty parameters");

    /* the newer place, with the base inside */
    is_int(read_rope(P("\"rope_type\":\"default\",\"rope_theta\":5e5"), 8,
                     &a, &err), MOE_OK, "rope_parameters");
    is_int(read_rope("{\"max_position_embeddings\":4096,"
                     "\"rope_theta\":500000}", 8, &b, &err), MOE_OK,
           "rope_theta");
    ok(memcmp(a.inv_freq, b.inv_freq, 4 * sizeof(float)) == 0,
       "both say the same");
    moe_arch_free(&a);
    moe_arch_free(&b);
}

static void
bad(const char *text, moe_status want, const char *thing, const char *what)
{
    struct moe_error err;
    struct moe_arch  a;

    is_int(read_rope(text, 64, &a, &err), want, "%s: status", what);
    has_str(err.text, thing, "%s: named", what);
    has_str(err.text, "config.json", "%s: file", what);
    moe_arch_free(&a);
}

static void
wrong(void)
{
    bad(C("\"rope_type\":\"longrope\""), MOE_E_UNSUPPORTED, "\"longrope\"",
        "longrope");
    bad(C("\"type\":\"mrope\""), MOE_E_UNSUPPORTED, "\"mrope\"", "mrope");
    bad(C("\"rope_type\":3"), MOE_E_CORRUPT, "rope_scaling.rope_type",
        "type a number");
    bad(C("\"type\":\"linear\""), MOE_E_CORRUPT,
        "\"rope_scaling.factor\" is missing", "no factor");
    bad(P("\"rope_type\":\"linear\",\"factor\":0"), MOE_E_CORRUPT,
        "\"rope_parameters.factor\" is 0", "factor 0");
    bad(C("\"type\":\"linear\",\"factor\":-2"), MOE_E_CORRUPT, "factor",
        "negative factor");
    bad(C("\"type\":\"linear\",\"factor\":NaN"), MOE_E_CORRUPT, "factor",
        "NaN factor");
    bad(C("\"type\":\"linear\",\"factor\":\"2\""), MOE_E_CORRUPT,
        "a number expected, string found", "factor in quotes");
    bad(C("\"rope_type\":\"llama3\",\"factor\":8"), MOE_E_CORRUPT,
        "low_freq_factor", "llama3 without its band");
    bad(C("\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
          "\"high_freq_factor\":4"), MOE_E_CORRUPT, "must exceed",
        "llama3 with an empty band");
    bad(C("\"rope_type\":\"yarn\",\"factor\":4,"
          "\"original_max_position_embeddings\":0"), MOE_E_CORRUPT,
        "original_max_position_embeddings", "yarn from nothing");
    bad(P("\"full_attention\":{\"rope_type\":\"default\"}"),
        MOE_E_UNSUPPORTED, "differ by layer", "parameters by layer");
    bad(P("\"partial_rotary_factor\":0.5"), MOE_E_UNSUPPORTED,
        "partial_rotary_factor", "half heads");
    bad("{\"max_position_embeddings\":64,\"rope_theta\":0}", MOE_E_CORRUPT,
        "\"rope_theta\" is 0", "base 0");
    bad("{\"max_position_embeddings\":64,\"rope_theta\":1}", MOE_E_CORRUPT,
        "rope_theta", "base 1");
    bad("{\"max_position_embeddings\":64,\"rope_theta\":Infinity}",
        MOE_E_CORRUPT, "rope_theta", "base infinite");
    bad("{\"max_position_embeddings\":64,\"rope_scaling\":3}",
        MOE_E_CORRUPT, "an object expected", "parameters a number");
}

int
main(void)
{
    equal();
    where();
    wrong();
    return tap_done();
}
