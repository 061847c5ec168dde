/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json that lacks, contradicts or exaggerates, and tensors that are
 * missing or of another shape: each is refused by name.  And what may be
 * absent is taken as the family's own code takes it.
 */
#include "model/arch.h"

#include "change.h"

static moe_status
read_arch(const char *dir, struct moe_arch *a, struct moe_error *err)
{
    struct moe_checkpoint *c = NULL;
    moe_status             st;

    memset(err, 0, sizeof(*err));
    err->struct_size = sizeof(*err);
    memset(a, 0, sizeof(*a));
    st = moe_checkpoint_open(dir, &c, err);
    if (st == MOE_OK)
        st = moe_arch_read(c, a, err);
    moe_checkpoint_close(c);
    return st;
}

static void
bad(const char *fixture, const struct change *ch, moe_status want,
    const char *file, const char *thing, const char *what)
{
    const char      *dir = changed(fixture, ch);
    struct moe_arch  a;
    struct moe_error err;

    is_int(read_arch(dir, &a, &err), want, "%s: status", what);
    has_str(err.text, file, "%s: names the file", what);
    has_str(err.text, thing, "%s: names the thing", what);
    ok(strchr(err.text, '\n') == NULL, "%s: one line", what);
    moe_arch_free(&a);
    drop_dir(dir);
}

static void
config(const char *fixture, const char *patch, moe_status want,
       const char *thing)
{
    struct change ch = { .config = patch };

    bad(fixture, &ch, want, "config.json", thing, patch);
}

static void
families(void)
{
    config("llama", "{\"model_type\":\"-\"}", MOE_E_CORRUPT,
           "\"model_type\" is missing");
    config("llama", "{\"model_type\":7}", MOE_E_CORRUPT,
           "a string expected, int found");
    config("llama", "{\"model_type\":\"mixtrol\"}", MOE_E_UNSUPPORTED,
           "nearest: mixtral (known: llama mistral mixtral");
    config("llama", "{\"model_type\":\"qwen4_moe\"}", MOE_E_UNSUPPORTED,
           "nearest: qwen2_moe or qwen3_moe (");
    config("llama", "{\"model_type\":\"transformer_xl\"}", MOE_E_UNSUPPORTED,
           "\"transformer_xl\" is not supported (known: llama");
    config("llama", "{\"model_type\":\"\"}", MOE_E_UNSUPPORTED,
           "is not supported");
    config("llama", "{\"model_type\":\"a\\u001b[2Jb\"}", MOE_E_UNSUPPORTED,
           "\"a?[2Jb\"");
    config("llama", "{\"model_type\":\"gemma3\",\"text_config\":{}}",
           MOE_E_UNSUPPORTED, "lies in \"text_config\"");
}

static void
sizes(void)
{
    static const char *const keys[] = {
        "hidden_size",       "num_hidden_layers",       "vocab_size",
        "num_attention_heads", "intermediate_size",
        "max_position_embeddings",
    };
    char   patch[128], thing[128];
    size_t i;

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        snprintf(patch, sizeof(patch), "{\"%s\":\"-\"}", keys[i]);
        snprintf(thing, sizeof(thing), "\"%s\" is missing", keys[i]);
        config("llama", patch, MOE_E_CORRUPT, thing);
        snprintf(patch, sizeof(patch), "{\"%s\":0}", keys[i]);
        snprintf(thing, sizeof(thing), "\"%s\" is 0, expected 1 to", keys[i]);
        config("llama", patch, MOE_E_CORRUPT, thing);
        snprintf(patch, sizeof(patch), "{\"%s\":-4}", keys[i]);
        snprintf(thing, sizeof(thing), "\"%s\" is -4", keys[i]);
        config("llama", patch, MOE_E_CORRUPT, thing);
        snprintf(patch, sizeof(patch), "{\"%s\":4000000000}", keys[i]);
        snprintf(thing, sizeof(thing), "\"%s\" is 4000000000", keys[i]);
        config("llama", patch, MOE_E_CORRUPT, thing);
        snprintf(patch, sizeof(patch), "{\"%s\":1e300}", keys[i]);
        snprintf(thing, sizeof(thing), "\"%s\" is 1e+300", keys[i]);
        config("llama", patch, MOE_E_CORRUPT, thing);
        snprintf(patch, sizeof(patch), "{\"%s\":NaN}", keys[i]);
        snprintf(thing, sizeof(thing), "\"%s\" is nan", keys[i]);
        config("llama", patch, MOE_E_CORRUPT, thing);
        snprintf(patch, sizeof(patch), "{\"%s\":[3]}", keys[i]);
        snprintf(thing, sizeof(thing), "\"%s\": a whole number expected, "
                                       "array found", keys[i]);
        config("llama", patch, MOE_E_CORRUPT, thing);
    }
    config("llama", "{\"hidden_size\":4.5}", MOE_E_CORRUPT,
           "\"hidden_size\" is 4.5, expected a whole number");
    config("llama", "{\"num_hidden_layers\":4097}", MOE_E_CORRUPT,
           "expected 1 to 4096");
    config("llama", "{\"num_hidden_layers\":99999999999999999999}",
           MOE_E_CORRUPT, "\"num_hidden_layers\"");
    config("llama", "{\"num_attention_heads\":3}", MOE_E_CORRUPT,
           "no multiple of");
    config("llama", "{\"num_attention_heads\":16777216,"
                    "\"num_key_value_heads\":2,\"head_dim\":65536}",
           MOE_E_CORRUPT, "16777216 heads of 65536");
    config("llama", "{\"num_key_value_heads\":3}", MOE_E_CORRUPT,
           "no multiple of \"num_key_value_heads\" 3");
    config("mixtral", "{\"num_key_value_heads\":\"-\"}", MOE_E_CORRUPT,
           "\"num_key_value_heads\" is missing");
    config("llama", "{\"head_dim\":9}", MOE_E_CORRUPT, "head of 9");
    config("llama", "{\"rms_norm_eps\":-1}", MOE_E_CORRUPT,
           "\"rms_norm_eps\" is -1");
    config("llama", "{\"rms_norm_eps\":\"1e-5\"}", MOE_E_CORRUPT,
           "a number expected, string found");
    config("llama", "{\"hidden_act\":\"xielu\"}", MOE_E_UNSUPPORTED,
           "the activation \"xielu\"");
    config("llama", "{\"tie_word_embeddings\":1}", MOE_E_CORRUPT,
           "true or false expected");
    config("llama", "{\"attention_bias\":\"yes\"}", MOE_E_CORRUPT,
           "\"attention_bias\": true or false");
    config("llama", "{\"rope_scaling\":{\"rope_type\":\"su\"}}",
           MOE_E_UNSUPPORTED, "\"su\" is not supported");
}

static void
experts(void)
{
    static const struct change many = {
        .config = "{\"num_local_experts\":65536,"
                  "\"num_hidden_layers\":4096}"
    };

    config("mixtral", "{\"num_local_experts\":\"-\"}", MOE_E_CORRUPT,
           "neither \"num_experts\" nor \"num_local_experts\"");
    config("mixtral", "{\"num_experts\":8}", MOE_E_CORRUPT,
           "\"num_experts\" is 8, but \"num_local_experts\" is 4");
    config("mixtral", "{\"num_local_experts\":65537}", MOE_E_CORRUPT,
           "expected 0 to 65536");
    config("mixtral", "{\"num_local_experts\":0}", MOE_E_CORRUPT, "is 0");
    config("olmoe", "{\"num_experts\":0}", MOE_E_CORRUPT, "is 0");
    config("mixtral", "{\"num_experts_per_tok\":\"-\"}", MOE_E_CORRUPT,
           "\"num_experts_per_tok\" is missing");
    config("mixtral", "{\"num_experts_per_tok\":5}", MOE_E_CORRUPT,
           "\"num_experts_per_tok\" is 5, expected 1 to 4");
    config("qwen3_moe", "{\"moe_intermediate_size\":\"-\"}", MOE_E_CORRUPT,
           "\"moe_intermediate_size\" is missing");
    config("qwen2_moe", "{\"shared_expert_intermediate_size\":\"-\"}",
           MOE_E_CORRUPT, "\"shared_expert_intermediate_size\" is missing");
    config("qwen2_moe-step", "{\"intermediate_size\":\"-\"}", MOE_E_CORRUPT,
           "\"intermediate_size\" is missing");
    config("qwen2_moe", "{\"decoder_sparse_step\":0}", MOE_E_CORRUPT,
           "\"decoder_sparse_step\" is 0");
    config("qwen2_moe", "{\"mlp_only_layers\":3}", MOE_E_CORRUPT,
           "a list expected");
    config("qwen2_moe", "{\"mlp_only_layers\":[-1]}", MOE_E_CORRUPT,
           "\"mlp_only_layers\" is -1");
    config("qwen2_moe", "{\"mlp_only_layers\":[\"0\"]}", MOE_E_CORRUPT,
           "a whole number expected, string found");
    config("qwen2_moe", "{\"mlp_only_layers\":[null]}", MOE_E_CORRUPT,
           "a whole number expected, null found");
    config("qwen2_moe", "{\"mlp_only_layers\":[0.5]}", MOE_E_CORRUPT,
           "\"mlp_only_layers\" is 0.5");
    config("qwen3_moe", "{\"mlp_only_layers\":[0,3]}", MOE_E_CORRUPT,
           "\"mlp_only_layers\" names layer 3, but there are 3");
    config("qwen3_moe", "{\"mlp_only_layers\":[18446744073709551615]}",
           MOE_E_CORRUPT, "names layer 18446744073709551615");
    config("qwen3_moe", "{\"mlp_only_layers\":[2,0,2]}", MOE_E_CORRUPT,
           "names layer 2 twice");
    config("qwen3_moe", "{\"decoder_sparse_step\":-1}", MOE_E_CORRUPT,
           "\"decoder_sparse_step\" is -1, expected 1");
    config("qwen3_moe", "{\"decoder_sparse_step\":\"1\"}", MOE_E_CORRUPT,
           "a whole number expected, string found");
    config("qwen3_moe", "{\"norm_topk_prob\":1}", MOE_E_CORRUPT,
           "\"norm_topk_prob\"");
    config("olmoe", "{\"clip_qkv\":0}", MOE_E_CORRUPT, "\"clip_qkv\" is 0");
    config("olmoe", "{\"head_dim\":16}", MOE_E_CORRUPT,
           "4 heads of 16 are not");
    /* many experts that are not there cost nothing */
    bad("mixtral", &many, MOE_E_CORRUPT, "model.safetensors",
        "model.layers.2.", "4096 layers of 65536 experts");
}

static void
windows(void)
{
    config("mixtral", "{\"sliding_window\":0}", MOE_E_CORRUPT,
           "\"sliding_window\" is 0");
    config("mixtral", "{\"sliding_window\":-1}", MOE_E_CORRUPT,
           "\"sliding_window\" is -1");
    config("qwen2", "{\"layer_types\":[\"full_attention\"]}", MOE_E_CORRUPT,
           "1 entries for 2 layers");
    config("qwen2", "{\"layer_types\":[\"full_attention\",\"mamba\"]}",
           MOE_E_UNSUPPORTED, "layer 1 has \"mamba\"");
    config("qwen2", "{\"layer_types\":[\"full_attention\",3]}",
           MOE_E_UNSUPPORTED, "layer 1 has");
    config("qwen2", "{\"layer_types\":[\"full_attention\","
                    "\"sliding_attention\"]}",
           MOE_E_CORRUPT, "no \"sliding_window\" is in use");
    config("qwen2", "{\"use_sliding_window\":true,\"sliding_window\":0}",
           MOE_E_CORRUPT, "\"sliding_window\" is 0");
}

static void
tensors(void)
{
    static const struct {
        const char   *fixture;
        struct change ch;
        moe_status    want;
        const char   *thing;
    } t[] = {
        { "mixtral", { .drop = "model.norm.weight" }, MOE_E_CORRUPT,
          "tensor \"model.norm.weight\" is missing (mixtral)" },
        { "mixtral", { .drop = "lm_head.weight" }, MOE_E_CORRUPT,
          "\"lm_head.weight\" is missing (mixtral), and "
          "tie_word_embeddings is false" },
        { "mixtral", { .rename = "model.embed_tokens.weight",
                       .to = "embed_tokens.weight" }, MOE_E_CORRUPT,
          "the model was saved without its head" },
        { "qwen3_moe", { .rename = "model.layers.2.mlp.experts.6.up_proj"
                                   ".weight",
                         .to = "model.layers.2.mlp.experts.gate_up_proj" },
          MOE_E_UNSUPPORTED, "fused in one tensor" },
        { "olmoe", { .drop = "model.layers.1.self_attn.q_norm.weight" },
          MOE_E_CORRUPT, "layers.1.self_attn.q_norm.weight" },
        { "qwen2", { .drop = "model.layers.0.self_attn.k_proj.bias" },
          MOE_E_CORRUPT, "layers.0.self_attn.k_proj.bias" },
        { "qwen2_moe", { .drop = "model.layers.1.mlp.shared_expert_gate"
                                 ".weight" },
          MOE_E_CORRUPT, "shared_expert_gate.weight" },
        { "mixtral",
          { .reshape = "model.layers.1.block_sparse_moe.experts.3.w2"
                       ".weight" },
          MOE_E_CORRUPT,
          "experts.3.w2.weight\": 36x44 expected, 35x44 found" },
        { "mixtral", { .reshape = "model.layers.0.input_layernorm.weight" },
          MOE_E_CORRUPT, "input_layernorm.weight\": 36 expected, 35 found" },
        { "mixtral", { .retype = "model.layers.0.input_layernorm.weight" },
          MOE_E_UNSUPPORTED, "F32, F16 or BF16 expected, I32 found" },
        { "mixtral", { .retype = "model.layers.0.self_attn.q_proj.weight" },
          MOE_E_CORRUPT, "is I32, but there is no quantization_config" },
    };
    struct change ch = { .config = "{\"hidden_size\":48}" };
    size_t        i;

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++)
        bad(t[i].fixture, &t[i].ch, t[i].want,
            strstr(t[i].thing, "quantization_config") != NULL
                ? "config.json" : "model.safetensors",
            t[i].thing, t[i].thing);
    bad("mixtral", &ch, MOE_E_CORRUPT, "model.safetensors",
        "\"model.embed_tokens.weight\": 112x48 expected, 112x36 found",
        "another width than the tensors have");
    ch.config = "{\"quantization_config\":{\"quant_method\":\"gptq\"}}";
    ch.retype = "lm_head.weight";
    bad("mixtral", &ch, MOE_E_UNSUPPORTED, "config.json",
        "quantization method \"gptq\" is not supported", "GPTQ");
}

/* The fixture, changed, is read, and the field is this. */
static void
good(const char *fixture, const struct change *ch, const char *what,
     uint32_t (*field)(const struct moe_arch *a), uint32_t want)
{
    const char      *dir = changed(fixture, ch);
    struct moe_arch  a;
    struct moe_error err;

    if (is_ok(read_arch(dir, &a, &err), &err))
        is_int(field(&a), want, "%s", what);
    moe_arch_free(&a);
    drop_dir(dir);
}

static uint32_t kv(const struct moe_arch *a) { return a->kv_heads; }
static uint32_t renorm(const struct moe_arch *a) { return a->renorm; }
static uint32_t window0(const struct moe_arch *a)
{
    return a->layers[0].window;
}
static uint32_t window1(const struct moe_arch *a)
{
    return a->layers[1].window;
}
static uint32_t act(const struct moe_arch *a) { return a->act; }
static uint32_t experts_of(const struct moe_arch *a) { return a->n_experts; }
static uint32_t bias(const struct moe_arch *a)
{
    return a->name[MOE_T_Q_BIAS] != NULL;
}
static uint32_t tied(const struct moe_arch *a) { return a->tied; }
static uint32_t eps(const struct moe_arch *a)
{
    return (uint32_t) (a->norm_eps * 1e7f + 0.5f);
}
static uint32_t base(const struct moe_arch *a) /* of rope, by its second */
{
    return (uint32_t) (1.0 / (double) a->inv_freq[1] + 0.5);
}

static void
defaults(void)
{
    struct change ch = { 0 };

    ch.config = "{\"num_key_value_heads\":\"-\"}";
    good("olmoe", &ch, "no num_key_value_heads: as heads", kv, 4);
    good("llama-linear", &ch, "no num_key_value_heads: as heads", kv, 2);
    ch.config = "{\"num_key_value_heads\":null}";
    good("qwen2_moe", &ch, "null num_key_value_heads: as heads", kv, 6);
    ch.config = "{\"norm_topk_prob\":\"-\"}";
    good("qwen3_moe", &ch, "no norm_topk_prob: false", renorm, 0);
    good("olmoe-clip", &ch, "no norm_topk_prob: false", renorm, 0);
    ch.config = "{\"tie_word_embeddings\":\"-\"}";
    good("llama", &ch, "no tie_word_embeddings: false", tied, 0);
    ch.config = "{\"rms_norm_eps\":\"-\"}";
    good("mixtral", &ch, "no rms_norm_eps: 1e-5", eps, 100);
    good("llama", &ch, "no rms_norm_eps: 1e-6", eps, 10);
    ch.config = "{\"rope_theta\":\"-\"}";
    good("mixtral", &ch, "no rope_theta: 1e6 in Mixtral", base, 100);
    good("llama", &ch, "no rope_theta: 1e4 elsewhere", base, 6);
    ch.config = "{\"hidden_act\":\"gelu_pytorch_tanh\"}";
    good("llama", &ch, "tanh", act, MOE_ACT_GELU_TANH);
    ch.config = "{\"hidden_act\":\"gelu\"}";
    good("llama", &ch, "erf", act, MOE_ACT_GELU);
    ch.config = "{\"hidden_act\":\"-\"}";
    good("llama", &ch, "no hidden_act: silu", act, MOE_ACT_SILU);
    ch.config = "{\"num_experts\":4}";
    good("mixtral", &ch, "both names of the number of experts", experts_of,
         4);
    ch.config = "{\"num_local_experts\":7,\"num_experts\":\"-\"}";
    good("qwen3_moe", &ch, "the other name", experts_of, 7);
    ch.config = "{\"qkv_bias\":false}";
    good("qwen2_moe", &ch, "qkv_bias false", bias, 0);
    ch.config = "{\"vocab_size\":112.0}";
    good("mixtral", &ch, "a size with a fraction of 0", kv, 2);

    ch.config = "{\"model_type\":\"mistral\"}";
    good("llama", &ch, "Mistral without a word of windows: 4096", window0,
         4096);
    ch.config = "{\"model_type\":\"mistral\",\"sliding_window\":null}";
    good("llama", &ch, "Mistral with null: none", window0, 0);
    ch.config = "{\"sliding_window\":\"-\"}";
    good("mixtral", &ch, "Mixtral without: none", window0, 0);
    ch.config = "{\"use_sliding_window\":true,\"max_window_layers\":1}";
    good("qwen2", &ch, "Qwen2: from layer 1 on", window1, 4);
    good("qwen2", &ch, "Qwen2: not before", window0, 0);
    good("qwen2_moe", &ch, "Qwen2-MoE: before layer 1", window0, 4);
    good("qwen2_moe", &ch, "Qwen2-MoE: not from it on", window1, 0);
    ch.config = "{\"use_sliding_window\":true,\"sliding_window\":5}";
    good("qwen3_moe", &ch, "Qwen3-MoE: everywhere", window0, 5);
    ch.config = "{\"use_sliding_window\":true,\"sliding_window\":\"-\","
                "\"max_window_layers\":0}";
    good("qwen2", &ch, "in use but not given: 4096", window0, 4096);
    ch.config = "{\"use_sliding_window\":true,\"sliding_window\":null,"
                "\"max_window_layers\":0}";
    good("qwen2", &ch, "in use but null: none", window0, 0);
    ch.config = "{\"use_sliding_window\":true,\"layer_types\":"
                "[\"sliding_attention\",\"full_attention\"]}";
    good("qwen2", &ch, "layer_types before max_window_layers", window0, 4);
}

int
main(void)
{
    families();
    sizes();
    experts();
    windows();
    tensors();
    defaults();
    ok(strstr(moe_arch_families(), "qwen3_moe") != NULL, "the known families");
    return tap_done();
}
