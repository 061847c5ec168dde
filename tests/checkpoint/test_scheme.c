/* SPDX-License-Identifier: Apache-2.0 */
/* quantization_config: whose words mean which module, and which do not. */
#include "folder.h"

/* A folder with modules q (packed), m (packed, U8), f (F8_E4M3), p (plain
 * BF16), e (E5M2) and l.0.up_proj, l.0.down_proj (packed). */
static const char *
make(const char *config)
{
    static const struct made tensors[] = {
        { .name = "q.weight_packed", .dtype = "I32", .dim = { 4, 8 },
          .n_dims = 2 },
        { .name = "l.0.up_proj.weight_packed", .dtype = "I32",
          .dim = { 1, 8 }, .n_dims = 2 },
        { .name = "l.0.down_proj.weight_packed", .dtype = "I32",
          .dim = { 1, 8 }, .n_dims = 2 },
        { .name = "p.weight", .dtype = "BF16", .dim = { 2, 2 }, .n_dims = 2 },
        { .name = "f.weight", .dtype = "F8_E4M3", .dim = { 2, 2 },
          .n_dims = 2 },
        { .name = "m.weight_packed", .dtype = "U8", .dim = { 1, 16 },
          .n_dims = 2 },
        { .name = "e.weight", .dtype = "F8_E5M2", .dim = { 2, 2 },
          .n_dims = 2 },
        { .name = "embed_tokens.weight", .dtype = "F8_E4M3", .dim = { 2, 2 },
          .n_dims = 2 },
    };
    const char *dir = new_dir();

    put_text(dir, "config.json", config);
    put_tensors(dir, "model.safetensors", tensors,
                sizeof(tensors) / sizeof(tensors[0]));
    return dir;
}

static void
fails(const char *config, const char *module, moe_status want,
      const char *thing, const char *what)
{
    const char            *dir = make(config);
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c = NULL;
    struct moe_scheme      s;
    moe_status             st = moe_checkpoint_open(dir, &c, &err);

    if (st == MOE_OK)
        st = moe_checkpoint_scheme(c, module, &s, &err);
    is_int(st, want, "%s: status", what);
    has_str(err.text, thing, "%s: names the thing", what);
    has_str(err.text, st == MOE_E_NOT_FOUND ? "model.safetensors"
                                            : "config.json",
            "%s: names the file", what);
    moe_checkpoint_close(c);
    drop_dir(dir);
}

/* The module's scheme in words: "pack-quantized int4 group 32 sym I32". */
static void
means(const char *config, const char *module, const char *want,
      const char *what)
{
    const char            *dir = make(config);
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c = NULL;
    struct moe_scheme      s;
    char                   got[600] = "";
    moe_status             st = moe_checkpoint_open(dir, &c, &err);

    if (st == MOE_OK)
        st = moe_checkpoint_scheme(c, module, &s, &err);
    if (st != MOE_OK)
        snprintf(got, sizeof(got), "%.500s", err.text);
    else if (s.storage == NULL)
        snprintf(got, sizeof(got), "plain %s", s.elem);
    else
        snprintf(got, sizeof(got), "%s %s%u %s %u %ux%u %s %s", s.storage,
                 s.type, s.num_bits, s.strategy, s.group_size, s.block_n,
                 s.block_k, s.symmetric ? "sym" : "asym", s.elem);
    is_str(got, want, "%s", what);
    moe_checkpoint_close(c);
    drop_dir(dir);
}

#define Q(x) "{\"quantization_config\":{" x "}}"
#define CT(groups, rest)                                                      \
    Q("\"quant_method\":\"compressed-tensors\",\"config_groups\":{" groups    \
      "}" rest)
#define GROUP(name, targets, weights)                                         \
    "\"" name "\":{\"targets\":[" targets "],\"weights\":{" weights "}}"
#define INT4                                                                  \
    "\"num_bits\":4,\"type\":\"int\",\"strategy\":\"group\","                 \
    "\"group_size\":32,\"symmetric\":true"
#define FP8                                                                   \
    "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\","             \
    "\"symmetric\":true"
#define PACK ",\"format\":\"pack-quantized\""

#define IS_INT4 "pack-quantized int4 group 32 0x0 sym I32"
#define MXFP4                                                                 \
    "\"num_bits\":4,\"type\":\"float\",\"strategy\":\"group\","               \
    "\"group_size\":32,\"symmetric\":true,\"scale_dtype\":\"torch.uint8\""
#define IS_MXFP4 "mxfp4-pack-quantized float4 group 32 0x0 sym U8"
#define IS_FP8 "float-quantized float8 channel 0 0x0 sym F8_E4M3"

static void
plain(void)
{
    means("{}", "p", "plain BF16", "no quantization_config");
    means("{\"quantization_config\":null}", "p", "plain BF16", "null");
    means(CT(GROUP("g", "\"Linear\"", INT4), PACK), "p", "plain BF16",
          "a plain tensor whatever the config says");
    fails("{}", "nothing", MOE_E_NOT_FOUND, "\"nothing.weight\" is missing",
          "no such module");
    fails("{}", "f", MOE_E_CORRUPT, "no quantization_config",
          "FP8 without a word about it");
    fails("{\"quantization_config\":3}", "p", MOE_E_CORRUPT,
          "\"quantization_config\": an object expected", "a number");
}

static void
targets(void)
{
    means(CT(GROUP("g", "\"Linear\"", INT4), PACK), "q", IS_INT4, "class");
    means(CT(GROUP("g", "\"q\"", INT4), PACK), "q", IS_INT4, "exact name");
    means(CT(GROUP("g", "\"re:^q$\"", INT4), PACK), "q", IS_INT4, "pattern");
    means(CT(GROUP("g", "\"re:.*(up|down)_proj\"", INT4), PACK),
          "l.0.up_proj", IS_INT4, "alternatives");
    fails(CT(GROUP("g", "\"re:0.up_proj\"", INT4), PACK), "l.0.up_proj",
          MOE_E_CORRUPT, "no group", "a pattern counts from the start");
    means(CT(GROUP("g", "\"re:l.0\"", INT4), PACK), "l.0.up_proj", IS_INT4,
          "but not to the end");
    fails(CT(GROUP("g", "\"r\"", INT4), PACK), "q", MOE_E_CORRUPT,
          "\"q\" is stored quantized (I32), but no group",
          "no target matches");
    fails(CT(GROUP("g", "\"Linear\"", INT4), ",\"ignore\":[\"q\"]" PACK), "q",
          MOE_E_CORRUPT, "ignore list", "ignored but quantized");
    fails(CT(GROUP("g", "\"Linear\"", INT4), ",\"ignore\":[\"re:q\"]" PACK),
          "q", MOE_E_CORRUPT, "ignore list", "ignored by a pattern");
    means(CT(GROUP("g", "\"Linear\"", INT4) ","
             GROUP("h", "\"f\"", FP8), ""),
          "f", IS_FP8, "a name comes before the class");
    means(CT(GROUP("g", "\"Linear\"", FP8) ","
             GROUP("h", "\"re:l\\\\..*\"", INT4), ""),
          "l.0.down_proj", IS_INT4, "a pattern comes before the class");
    means(CT(GROUP("g", "\"re:z|f\"", INT4) ","
             GROUP("h", "\"re:a|f\"", FP8), ""),
          "f", IS_FP8, "of two patterns the first in the alphabet");
    means(CT(GROUP("g", "\"f\"", INT4) "," GROUP("h", "\"f\"", FP8), ""),
          "f", IS_FP8, "of two equal targets the later");
    means(CT(GROUP("g", "\"re:f\"", INT4) "," GROUP("h", "\"re:f\"", FP8),
             ""),
          "f", IS_FP8, "of two equal patterns the later");
    fails(CT(GROUP("g", "\"Linear\"", FP8), ""), "embed_tokens",
          MOE_E_CORRUPT, "no group", "an embedding is no Linear");
    means(CT(GROUP("g", "\"Embedding\"", FP8), ""), "embed_tokens", IS_FP8,
          "but an Embedding");
    fails(CT(GROUP("g", "\"re:(\"", INT4), PACK), "q", MOE_E_CORRUPT,
          "bad pattern \"(\"", "a pattern that is none");
    fails(CT(GROUP("g", "\"re:(.+)+[XY]\"", INT4), PACK),
          "l.0.down_proj", MOE_E_CORRUPT, "pattern \"",
          "a pattern that would run for ever");
    fails(CT(GROUP("g", "3", INT4), PACK), "q", MOE_E_CORRUPT,
          "config_groups.g.targets\" may hold strings only",
          "a number for a target");
}

static void
words(void)
{
    means(CT(GROUP("g", "\"Linear\"", "\"num_bits\":4,\"group_size\":128,"
                                      "\"symmetric\":false"), PACK),
          "q", "pack-quantized int4 group 128 0x0 asym I32",
          "strategy from group_size, type from the default");
    means(CT(GROUP("g", "\"Linear\"", "\"num_bits\":4,\"group_size\":-1"),
             PACK),
          "q", "pack-quantized int4 channel 0 0x0 sym I32",
          "group_size -1 is a channel");
    means(CT(GROUP("g", "\"Linear\"", "\"num_bits\":4"), PACK), "q",
          "pack-quantized int4 tensor 0 0x0 sym I32", "neither: a tensor");
    means(CT(GROUP("g", "\"Linear\"", INT4), ""), "q", IS_INT4,
          "format inferred for integers");
    means(CT(GROUP("g", "\"Linear\"", FP8), ""), "f", IS_FP8,
          "format inferred for floats");
    means(CT(GROUP("g", "\"Linear\"", MXFP4),
             ",\"format\":\"MXFP4-pack-quantized\""),
          "m", IS_MXFP4, "MXFP4");
    means(CT(GROUP("g", "\"Linear\"", MXFP4), ""), "m", IS_MXFP4,
          "format inferred for MXFP4");
    means(CT(GROUP("g", "\"Linear\"", FP8),
             ",\"format\":\"naive-quantized\""),
          "f", IS_FP8, "naive-quantized floats are the same bytes");
    means(CT("\"g\":{\"targets\":[\"Linear\"],\"weights\":{" FP8
             "},\"format\":\"float-quantized\"}",
             ",\"format\":\"mixed-precision\""),
          "f", IS_FP8, "the group's own format");
    means(CT(GROUP("g", "\"Linear\"", "\"num_bits\":8,\"type\":\"FLOAT\","
                                      "\"strategy\":\"Tensor\""), ""),
          "e", "float-quantized float8 tensor 0 0x0 sym F8_E5M2",
          "words in any case, E5M2 from the tensor");
    means(CT(GROUP("g", "\"Linear\"",
                   "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\","
                   "\"block_structure\":[128,64]"), ""),
          "f", "float-quantized float8 block 0 128x64 sym F8_E4M3", "blocks");
    means(CT(GROUP("g", "\"Linear\"",
                   "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\","
                   "\"block_structure\":\"128x64\""), ""),
          "f", "float-quantized float8 block 0 128x64 sym F8_E4M3",
          "blocks in the older spelling");
    means(CT("\"g\":{\"targets\":[\"Linear\"],\"weights\":{" FP8
             "},\"input_activations\":{\"num_bits\":8,\"type\":\"float\","
             "\"dynamic\":true,\"strategy\":\"token\"}}", ""),
          "f", IS_FP8, "dynamic activations have no effect");
    means(CT(GROUP("g", "\"Linear\"", INT4 ",\"actorder\":\"weight\""), PACK),
          "q", IS_INT4, "actorder of calibration only");
    means(CT(GROUP("g", "\"Linear\"", INT4),
             ",\"format\":\"new-packed\""),
          "q", "new-packed int4 group 32 0x0 sym I32",
          "a storage unknown to us is passed on");
    means("{\"compression_config\":{\"config_groups\":{"
          GROUP("g", "\"Linear\"", FP8) "}}}",
          "f", IS_FP8, "under its older name, without quant_method");
    means(Q("\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]"), "f",
          "float-quantized float8 block 0 128x128 sym F8_E4M3",
          "method fp8");
    means(Q("\"quant_method\":\"fp8\""), "f",
          "float-quantized float8 tensor 0 0x0 sym F8_E4M3",
          "method fp8 without blocks");
}

static void
wrong_words(void)
{
    fails(CT(GROUP("g", "\"Linear\"", INT4 ",\"actorder\":\"group\""), PACK),
          "q", MOE_E_UNSUPPORTED, "actorder \"group\"",
          "columns in another order");
    fails(CT(GROUP("g", "\"Linear\"", "\"strategy\":\"group\""), PACK), "q",
          MOE_E_CORRUPT, "group_size\" is missing", "a group of no size");
    fails(CT(GROUP("g", "\"Linear\"", "\"strategy\":\"group\","
                                      "\"group_size\":0"), PACK), "q",
          MOE_E_CORRUPT, "group_size\" is 0", "a group of 0");
    fails(CT(GROUP("g", "\"Linear\"", "\"strategy\":\"channel\","
                                      "\"group_size\":32"), PACK), "q",
          MOE_E_CORRUPT, "but the strategy is no", "a channel of 32");
    fails(CT(GROUP("g", "\"Linear\"", "\"num_bits\":0"), PACK), "q",
          MOE_E_CORRUPT, "weights.num_bits\" is 0", "no bits");
    fails(CT(GROUP("g", "\"Linear\"", "\"num_bits\":\"4\""), PACK), "q",
          MOE_E_CORRUPT, "a whole number expected, string found",
          "bits in quotes");
    fails(CT(GROUP("g", "\"Linear\"", "\"num_bits\":NaN"), PACK), "q",
          MOE_E_CORRUPT, "num_bits\" is nan", "NaN bits");
    fails(CT(GROUP("g", "\"Linear\"", "\"num_bits\":99999999999999999999"),
             PACK), "q", MOE_E_CORRUPT, "num_bits", "bits beyond 64 bits");
    fails(CT(GROUP("g", "\"Linear\"", "\"symmetric\":1"), PACK), "q",
          MOE_E_CORRUPT, "true or false expected", "symmetric 1");
    fails(CT(GROUP("g", "\"Linear\"", "\"type\":3"), PACK), "q",
          MOE_E_CORRUPT, "a string expected", "type a number");
    fails(CT(GROUP("g", "\"Linear\"",
                   "\"strategy\":\"block\",\"block_structure\":[128]"), PACK),
          "q", MOE_E_CORRUPT, "two sizes expected", "half a block");
    fails(CT(GROUP("g", "\"Linear\"",
                   "\"strategy\":\"block\",\"block_structure\":\"12\""),
             PACK),
          "q", MOE_E_CORRUPT, "two sizes expected", "a block of words");
    fails(CT(GROUP("g", "\"Linear\"",
                   "\"strategy\":\"block\",\"block_structure\":[0,1]"), PACK),
          "q", MOE_E_CORRUPT, "block_structure\" is 0", "an empty block");
    fails(CT("\"g\":{\"targets\":[\"Linear\"]}", ""), "q", MOE_E_UNSUPPORTED,
          "no figures for weights", "a group without weights");
    fails(CT("\"W4A16\":[\"Linear\"]", ""), "q", MOE_E_UNSUPPORTED,
          "preset \"W4A16\"", "a preset");
    fails(CT("\"g\":3", ""), "q", MOE_E_CORRUPT, "config_groups.g",
          "a number for a group");
    fails(CT("\"g\":{\"targets\":\"Linear\"}", ""), "q", MOE_E_CORRUPT,
          "a list expected", "a word for the targets");
    fails(CT(GROUP("g", "\"Linear\"", INT4),
             ",\"sparsity_config\":{\"format\":\"sparse-24-bitmask\"}"),
          "q", MOE_E_UNSUPPORTED, "sparse-24-bitmask", "sparse weights");
    fails(CT(GROUP("g", "\"Linear\"", INT4),
             ",\"transform_config\":{\"config_groups\":{\"u\":{}}}"),
          "q", MOE_E_UNSUPPORTED, "transform_config", "rotated weights");
    means(CT(GROUP("g", "\"Linear\"", INT4),
             ",\"sparsity_config\":{},\"transform_config\":{}" PACK),
          "q", IS_INT4, "both empty, as the library writes them");
}

static void
methods(void)
{
    fails(Q("\"quant_method\":\"gptq\",\"bits\":4"), "q", MOE_E_UNSUPPORTED,
          "quantization method \"gptq\"", "GPTQ");
    fails(Q("\"quant_method\":\"awq\""), "nothing", MOE_E_UNSUPPORTED,
          "quantization method \"awq\"", "AWQ, whose names differ");
    fails(Q("\"quant_method\":\"bitsandbytes\""), "f", MOE_E_UNSUPPORTED,
          "\"bitsandbytes\"", "bitsandbytes");
    fails(Q("\"quant_method\":\"mxfp4\""), "f", MOE_E_UNSUPPORTED,
          "\"mxfp4\"", "MXFP4");
    fails(Q("\"bits\":4"), "q", MOE_E_CORRUPT,
          "quantization_config.quant_method\" is missing", "no method");
    fails(Q("\"quant_method\":4"), "q", MOE_E_CORRUPT, "a string expected",
          "method a number");
    fails(Q("\"quant_method\":\"e\\u001b[0m\""), "f", MOE_E_UNSUPPORTED,
          "method \"e?[0m\"", "a method with an escape code");
    fails(Q("\"quant_method\":\"fp8\",\"weight_block_size\":[128]"), "f",
          MOE_E_CORRUPT, "two sizes expected", "fp8 with half a block");
}

int
main(void)
{
    plain();
    targets();
    words();
    wrong_words();
    methods();
    return tap_done();
}
