/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_counts.c - parameters, operations and bytes of published models.
 *
 * The totals of those marked in their presets as published equal the sums of
 * the published files' tensors; the others are counts from module shapes.
 */
#include <moe/plan.h>

#include "checkpoint/checkpoint.h"
#include "tests/tap.h"

#include <json-c/json.h>
#include <math.h>
#include <unistd.h>

struct count {
    const char *name;
    uint64_t    total, active, per_expert;
    /* embeddings, output, attention, router, experts, shared, dense, norms */
    uint64_t    classes[MOE_PLAN_CLASSES];
    /* operations: a token, a pair when decoding, a pair in a prefill */
    double      flop, decode_pair, prefill_pair;
    double      kv; /* bytes a token up to every window, 16 bits; 0: not set */
};

static const struct count counts[] = {
    { "mixtral-8x7b", 46702792704ull, 12748853248ull, 176160768ull,
      { 131072000ull, 131072000ull, 1342177280ull, 1048576ull,
        45097156608ull, 0ull, 0ull, 266240ull },
      25497174016, 524288, 524288, 131072 },
    { "mixtral-8x22b", 140620634112ull, 38955423744ull, 301989888ull,
      { 196608000ull, 196608000ull, 4932501504ull, 2752512ull,
        135291469824ull, 0ull, 0ull, 694272ull },
      77909458944, 1376256, 1376256, 229376 },
    { "deepseek-v3", 671026419200ull, 36625618432ull, 44040192ull,
      { 926679040ull, 926679040ull, 11413422080ull, 106445312ull,
        653908770816ull, 2554331136ull, 1189085184ull, 1006592ull },
      73249193984, 16990208, 4997120, 70272 },
    { "deepseek-r1", 671026419200ull, 36625618432ull, 44040192ull,
      { 926679040ull, 926679040ull, 11413422080ull, 106445312ull,
        653908770816ull, 2554331136ull, 1189085184ull, 1006592ull },
      73249193984, 16990208, 4997120, 70272 },
    { "deepseek-v3.2", 671877944064ull, 37477143296ull, 44040192ull,
      { 926679040ull, 926679040ull, 12264931328ull, 106445312ull,
        653908770816ull, 2554331136ull, 1189085184ull, 1022208ull },
      74952212480, 16990208, 4997120, 70272 },
    { "deepseek-v2-lite", 15706484224ull, 2451435008ull, 8650752ull,
      { 209715200ull, 209715200ull, 371589120ull, 3407872ull,
        14394851328ull, 449839104ull, 67239936ull, 126464ull },
      4902617088, 940032, 276480, 31104 },
    { "qwen1.5-moe-a2.7b", 14315784192ull, 2378008576ull, 8650752ull,
      { 311164928ull, 311164928ull, 402800640ull, 2949120ull,
        12457082880ull, 830521344ull, 0ull, 100352ull },
      4755521536, 196608, 196608, 196608 },
    { "qwen3-30b-a3b", 30532122624ull, 3041867776ull, 4718592ull,
      { 311164928ull, 311164928ull, 905969664ull, 12582912ull,
        28991029248ull, 0ull, 0ull, 210944ull },
      6083313664, 786432, 786432, 98304 },
    { "qwen3-235b-a22b", 235093634560ull, 21568433664ull, 18874368ull,
      { 622329856ull, 622329856ull, 6702497792ull, 49283072ull,
        227096395776ull, 0ull, 0ull, 798208ull },
      43135270912, 3080192, 3080192, 192512 },
    { "llama-4-scout", 107769861120ull, 16138408960ull, 125829120ull,
      { 1034485760ull, 1034485760ull, 3019898880ull, 3932160ull,
        96636764160ull, 6039797760ull, 0ull, 496640ull },
      32275824640, 983040, 983040, 196608 },
    { "olmoe-1b-7b-0924", 6919161856ull, 1178994688ull, 6291456ull,
      { 103022592ull, 103022592ull, 268435456ull, 2097152ull,
        6442450944ull, 0ull, 0ull, 133120ull },
      2357723136, 131072, 131072, 131072 },
    { "gpt-oss-20b", 20914757184ull, 3608307264ull, 24891840ull,
      { 579133440ull, 579133440ull, 637203456ull, 2212608ull,
        19116933120ull, 0ull, 0ull, 141120ull },
      7214284800, 196608, 196608, 0 },
    { "gpt-oss-120b", 116829156672ull, 5132849472ull, 24891840ull,
      { 579133440ull, 579133440ull, 955805184ull, 13275648ull,
        114701598720ull, 0ull, 0ull, 210240ull },
      10262200320, 294912, 294912, 36864 },
    { "granite-3.1-1b-a400m", 1334628352ull, 428658688ull, 1572864ull,
      { 50334720ull, 0ull, 75497472ull, 786432ull,
        1207959552ull, 0ull, 0ull, 50176ull },
      857217024, 98304, 98304, 49152 },
    { "llama-3-70b", 70553706496ull, 69503033344ull, 0ull,
      { 1050673152ull, 1050673152ull, 12079595520ull, 0ull,
        0ull, 0ull, 56371445760ull, 1318912ull },
      139003428864, 2621440, 2621440, 327680 },
    { "llama-3.1-70b", 70553706496ull, 69503033344ull, 0ull,
      { 1050673152ull, 1050673152ull, 12079595520ull, 0ull,
        0ull, 0ull, 56371445760ull, 1318912ull },
      139003428864, 2621440, 2621440, 327680 },
    { "llama-3.1-405b", 405853388800ull, 403752042496ull, 0ull,
      { 2101346304ull, 2101346304ull, 71873593344ull, 0ull,
        0ull, 0ull, 329772957696ull, 4145152ull },
      807495794688, 8257536, 8257536, 516096 },
    { "llama-3.1-8b", 8030261248ull, 7504924672ull, 0ull,
      { 525336576ull, 525336576ull, 1342177280ull, 0ull,
        0ull, 0ull, 5637144576ull, 266240ull },
      15009316864, 524288, 524288, 131072 },
    { "llama-2-70b", 68976648192ull, 68714504192ull, 0ull,
      { 262144000ull, 262144000ull, 12079595520ull, 0ull,
        0ull, 0ull, 56371445760ull, 1318912ull },
      137426370560, 2621440, 2621440, 327680 },
    { "qwen3-32b", 32762123264ull, 31984210944ull, 0ull,
      { 777912320ull, 777912320ull, 6039797760ull, 0ull,
        0ull, 0ull, 25165824000ull, 676864ull },
      63967068160, 2097152, 2097152, 262144 },
    { "qwen3-coder-480b-a35b", 480154875392ull, 34541270528ull, 47185920ull,
      { 933494784ull, 933494784ull, 10141827072ull, 60948480ull,
        468084326400ull, 0ull, 0ull, 783872ull },
      69080973312, 3047424, 3047424, 0 },
};

static moe_planner *
open_or_die(const char *name)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    moe_planner        *p;

    if (moe_plan_open(name, &p, &err) != MOE_OK) {
        printf("Bail out! %s: %s\n", name, err.text);
        exit(1);
    }
    return p;
}

static void
test_count(const struct count *c)
{
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    moe_planner             *p = open_or_die(c->name);
    uint32_t              i;

    moe_plan_model(p, &m);
    is_int(m.total, c->total, "%s: total", c->name);
    is_int(m.active, c->active, "%s: active", c->name);
    is_int(m.active_table,
           c->active
               + (c->classes[MOE_PLAN_OUTPUT] != 0 ? c->classes[0] : 0),
           "%s: active with the input table", c->name);
    is_int(m.per_expert, c->per_expert, "%s: an expert", c->name);
    for (i = 0; i < MOE_PLAN_CLASSES; i++)
        is_int(m.params[i], c->classes[i], "%s: %s", c->name,
               moe_plan_class_name(i));
    ok(m.flop_token == c->flop, "%s: %.0f operations a token", c->name,
       m.flop_token);
    if (m.published != 0)
        is_int(m.published, m.total, "%s: as published", c->name);
    /* windows bound a few layers: their pairs are all there below 100 */
    if (m.limited_layers == 0) {
        ok(moe_plan_decode_flop(p, 4096) - m.flop_token
               == 4096 * c->decode_pair, "%s: decoding pairs", c->name);
        ok(moe_plan_prefill_flop(p, 100, 1) - 100 * m.flop_token
               == 5050 * c->prefill_pair, "%s: prefill pairs", c->name);
    }
    if (c->kv != 0 && m.limited_layers == 0)
        is_int(moe_plan_kv_growth(p, 2), (long long) c->kv,
               "%s: cache of a token", c->name);
    moe_plan_close(p);
}

static int
near(double got, double want, double rel)
{
    return fabs(got - want) <= rel * fabs(want);
}

static void
test_flop(void)
{
    static const struct {
        const char *name;
        int         kind; /* 0: a token at a context; 1: prefill; 2: all */
        double      tokens, want, rel;
    } rows[] = {
        { "mixtral-8x7b", 0, 0, 25497174016, 0.001 },
        { "deepseek-v3", 0, 0, 73249193984, 0.001 },
        { "qwen3-30b-a3b", 0, 0, 6083313664, 0.001 },
        { "gpt-oss-120b", 0, 0, 10262200320, 0.001 },
        { "llama-3-70b", 0, 0, 139003428864, 0.001 },
        { "llama-3.1-405b", 0, 0, 807495794688, 0.001 },
        { "mixtral-8x7b", 1, 2048, 52781652115456, 0.001 },
        { "llama-3-70b", 1, 2048, 285877808922624, 0.001 },
        { "deepseek-v3", 1, 2048, 156705362542592, 0.001 },
        { "deepseek-v3", 2, 8192, 767753388556288, 0.0001 },
        { "mixtral-8x7b", 0, 4096, 27644657664, 0.001 },
        { "deepseek-v3", 0, 4096, 142841085952, 0.001 },
    };
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        moe_planner *p = open_or_die(rows[i].name);
        double    got = rows[i].kind == 0
                            ? moe_plan_decode_flop(p, rows[i].tokens)
                            : moe_plan_prefill_flop(p, rows[i].tokens,
                                                    rows[i].kind == 2);

        ok(near(got, rows[i].want, rows[i].rel), "%s: %g tokens, %.0f",
           rows[i].name, rows[i].tokens, got);
        moe_plan_close(p);
    }
}

static void
test_cache(void)
{
    static const struct {
        const char *name;
        long long   want;
    } rows[] = {
        { "mixtral-8x7b", 131072 },  { "deepseek-v3", 70272 },
        { "deepseek-v3.2", 70272 },  { "deepseek-v2-lite", 31104 },
        { "qwen3-30b-a3b", 98304 },  { "llama-3-70b", 327680 },
        { "llama-3.1-405b", 516096 }, { "gpt-oss-120b", 36864 },
        { "gpt-oss-20b", 24576 },    { "llama-4-scout", 49152 },
        { "qwen3-coder-480b-a35b", 253952 },
    };
    moe_planner *p;
    size_t    i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        p = open_or_die(rows[i].name);
        is_int(moe_plan_kv_growth(p, 2), rows[i].want, "%s: growth",
               rows[i].name);
        moe_plan_close(p);
    }
    p = open_or_die("llama-4-scout");
    ok(moe_plan_kv_bytes(p, 8192, 2) == 8192.0 * 196608,
       "chunks: all layers grow up to one");
    ok(moe_plan_kv_bytes(p, 16384, 2) == 8192.0 * 196608 + 8192.0 * 49152,
       "chunks: a quarter of them beyond it");
    moe_plan_close(p);
    p = open_or_die("gpt-oss-120b");
    ok(moe_plan_kv_bytes(p, 1000, 2) == 1000.0 * 36864 + 128.0 * 36864,
       "windows are full at 128");
    moe_plan_close(p);
}

static void
test_weights(void)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    uint64_t         bytes, by[MOE_PLAN_CLASSES];
    moe_planner        *p = open_or_die("mixtral-8x7b");

    is_int(moe_plan_weights(p, "bf16", &bytes, NULL, &err), MOE_OK, "bf16");
    is_int(bytes, 93405585408, "mixtral-8x7b in bf16");
    is_int(moe_plan_weights(p, NULL, &bytes, by, &err), MOE_OK, "its own");
    is_int(bytes, 93405585408, "as published");
    is_int(by[MOE_PLAN_EXPERTS], 90194313216, "its experts");
    ok(moe_plan_weights(p, "q4_0", &bytes, NULL, &err) == MOE_OK
           && near((double) bytes, 46702792704 * 4.5 / 8, 0.02),
       "4.5 bits");
    ok(moe_plan_weights(p, "4bit", &bytes, NULL, &err) == MOE_OK
           && bytes == 46702792704 / 2, "plainly 4 bits");
    is_int(moe_plan_weights(p, "qptq", &bytes, NULL, &err), MOE_E_INVAL,
           "a format that is none");
    has_str(err.text, "did you mean gptq", "the nearest");
    is_int(moe_plan_weights(p, "expert=fp8", &bytes, NULL, &err),
           MOE_E_INVAL, "a class that is none");
    has_str(err.text, "did you mean experts", "the nearest class");
    moe_plan_close(p);

    p = open_or_die("deepseek-v3");
    ok(moe_plan_weights(p, "bf16", &bytes, NULL, &err) == MOE_OK
           && bytes == 1342052838400, "deepseek-v3 in bf16");
    ok(moe_plan_weights(p, NULL, &bytes, NULL, &err) == MOE_OK
           && near((double) bytes, 673.2e9, 0.01), "and as published, %llu",
       (unsigned long long) bytes);
    moe_plan_close(p);

    p = open_or_die("gpt-oss-120b");
    ok(moe_plan_weights(p, NULL, &bytes, NULL, &err) == MOE_OK
           && bytes == 65248815744, "gpt-oss-120b as published, %llu",
       (unsigned long long) bytes);
    moe_plan_close(p);
}

/* What the planner counts for a folder is what lies in its files. */
static void
test_files(void)
{
    static const char *const folders[] = {
        "conf/model/stories",
        "tests/model/fixtures/llama-bf16",
        "tests/model/fixtures/llama-llama3",
        "tests/model/fixtures/mixtral-bf16",
        "tests/model/fixtures/mixtral-f16",
        "tests/model/fixtures/mixtral",
        "tests/model/fixtures/olmoe",
        "tests/model/fixtures/qwen2",
        "tests/model/fixtures/qwen2_moe",
        "tests/model/fixtures/qwen2_moe-bf16",
        "tests/model/fixtures/qwen3",
        "tests/model/fixtures/qwen3_moe",
        "tests/model/fixtures/qwen3_moe-step",
    };
    size_t i, k;

    for (i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        struct moe_error       err = { .struct_size = sizeof(err) };
        struct moe_checkpoint *c;
        uint64_t               files = 0, bytes = 0;
        moe_planner              *p = open_or_die(tap_src(folders[i]));

        if (moe_checkpoint_open(tap_src(folders[i]), &c, &err) != MOE_OK) {
            ok(0, "%s: %s", folders[i], err.text);
            moe_plan_close(p);
            continue;
        }
        for (k = 0; k < moe_checkpoint_count(c); k++)
            files += moe_checkpoint_at(c, k)->bytes;
        is_int(moe_plan_weights(p, moe_checkpoint_at(c, 0)->dtype[0] == 'B'
                                       ? "bf16"
                                       : moe_checkpoint_at(c, 0)->dtype[1]
                                                 == '1' ? "f16" : "f32",
                                &bytes, NULL, &err),
               MOE_OK, "%s", folders[i]);
        is_int(bytes, files, "%s: bytes planned and in the file", folders[i]);
        moe_checkpoint_close(c);
        moe_plan_close(p);
    }
}

/* ------------------------------------------------------------------ GGUF -- */

static void
put(FILE *f, uint64_t v, size_t bytes)
{
    fwrite(&v, 1, bytes, f);
}

static void
put_text(FILE *f, const char *text)
{
    put(f, strlen(text), 8);
    fwrite(text, 1, strlen(text), f);
}

static void
put_key(FILE *f, const char *key, uint32_t v)
{
    put_text(f, key);
    put(f, 4, 4);
    put(f, v, 4);
}

/* Types 0 f32, 1 f16, 2 q4_0, 8 q8_0; each tensor behind the last, at a
 * multiple of 32. */
static void
put_tensor(FILE *f, const char *name, uint32_t type, uint32_t dims,
           uint64_t a, uint64_t b, uint64_t c)
{
    static uint64_t at;
    uint64_t        dim[3] = { a, b, c };
    uint64_t        n = a * (dims > 1 ? b : 1) * (dims > 2 ? c : 1);

    if (strcmp(name, "token_embd.weight") == 0)
        at = 0;
    put_text(f, name);
    put(f, dims, 4);
    fwrite(dim, 8, dims, f);
    put(f, type, 4);
    put(f, at, 8);
    at += type == 0 ? n * 4 : type == 1 ? n * 2
          : type == 2 ? n / 32 * 18 : n / 32 * 34;
    at = (at + 31) / 32 * 32;
}

#define GGUF_DATA (12800 + 256 * 2 + 2304 + 2176 + 1152 + 2304 + 1024         \
                   + 3 * 4608)

/* A layer of 4 experts, 2 of them for a token; wrong: one of its numbers.
 * No data: only so many bytes behind the header. */
static void
write_gguf(const char *path, uint32_t experts, size_t data)
{
    FILE *f = fopen(path, "wb");

    if (f == NULL)
        return;
    fwrite("GGUF", 1, 4, f);
    put(f, 3, 4);
    put(f, 11, 8);
    put(f, 10, 8);
    put_text(f, "general.architecture");
    put(f, 8, 4);
    put_text(f, "qwen3moe");
    put_key(f, "qwen3moe.embedding_length", 64);
    put_key(f, "qwen3moe.block_count", 1);
    put_key(f, "qwen3moe.context_length", 512);
    put_key(f, "qwen3moe.attention.head_count", 4);
    put_key(f, "qwen3moe.attention.head_count_kv", 2);
    put_key(f, "qwen3moe.attention.key_length", 16);
    put_key(f, "qwen3moe.expert_count", experts);
    put_key(f, "qwen3moe.expert_used_count", 2);
    put_text(f, "tokenizer.ggml.tokens");
    put(f, 9, 4);
    put(f, 8, 4);
    put(f, 2, 8);
    put_text(f, "a");
    put_text(f, "b");
    put_tensor(f, "token_embd.weight", 1, 2, 64, 100, 0);
    put_tensor(f, "output_norm.weight", 0, 1, 64, 0, 0);
    put_tensor(f, "blk.0.attn_norm.weight", 0, 1, 64, 0, 0);
    put_tensor(f, "blk.0.attn_q.weight", 2, 2, 64, 64, 0);
    put_tensor(f, "blk.0.attn_k.weight", 2, 2, 64, 32, 0);
    put_tensor(f, "blk.0.attn_v.weight", 8, 2, 64, 32, 0);
    put_tensor(f, "blk.0.attn_output.weight", 2, 2, 64, 64, 0);
    put_tensor(f, "blk.0.ffn_gate_inp.weight", 0, 2, 64, 4, 0);
    put_tensor(f, "blk.0.ffn_gate_exps.weight", 2, 3, 64, 32, 4);
    put_tensor(f, "blk.0.ffn_up_exps.weight", 2, 3, 64, 32, 4);
    put_tensor(f, "blk.0.ffn_down_exps.weight", 2, 3, 32, 64, 4);
    fflush(f);
    if (data > 0
        && ftruncate(fileno(f), (off_t) ((size_t) ftell(f) + 31) / 32 * 32
                                    + (off_t) data) != 0)
        printf("Bail out! no disk\n");
    fclose(f);
}

/* The file with so much data: what it lacks. */
static void
lacks(const char *path, size_t data, uint64_t want)
{
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    moe_planner          *p = NULL;

    write_gguf(path, 4, data);
    is_int(moe_plan_open(path, &p, &err), MOE_OK,
           "a GGUF file with %zu bytes of weights: %s", data, err.text);
    if (p == NULL)
        return;
    moe_plan_model(p, &m);
    is_int(m.file_lacks, want, "what it lacks");
    moe_plan_close(p);
}

static void
test_gguf(void)
{
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    char                  path[] = "/tmp/moe-plan-XXXXXX.gguf";
    uint64_t              bytes;
    moe_planner          *p;
    int                   fd = mkstemps(path, 5);

    if (fd >= 0)
        close(fd);
    write_gguf(path, 4, GGUF_DATA);
    is_int(moe_plan_open(path, &p, &err), MOE_OK, "a GGUF file");
    if (p == NULL) {
        unlink(path);
        return;
    }
    moe_plan_model(p, &m);
    is_int(m.total, 6400 + 128 + 12288 + 256 + 4 * 6144, "its parameters");
    is_int(m.active, 6400 + 128 + 12288 + 256 + 2 * 6144, "of a token");
    is_int(m.per_expert, 6144, "of an expert");
    is_int(moe_plan_kv_growth(p, 2), 2 * 2 * 16 * 2, "its cache");
    is_int(moe_plan_weights(p, NULL, &bytes, NULL, &err), MOE_OK,
           "as the file has it");
    /* f16, f32, q4_0 of 4.5 bits, q8_0 of 8.5 bits */
    is_int(bytes, 6400 * 2 + 128 * 4 + 10240 * 9 / 16 + 2048 * 17 / 16
                      + 256 * 4 + 4 * 6144 * 9 / 16, "its bytes");
    ok(moe_plan_weights(p, "bf16", &bytes, NULL, &err) == MOE_OK
           && bytes == 2 * m.total, "and in another format");
    is_int(m.file_lacks, 0, "nothing is missing");
    moe_plan_close(p);
    lacks(path, GGUF_DATA + 5, 0);
    lacks(path, GGUF_DATA - 1, 1);
    lacks(path, 1, GGUF_DATA - 1);
    write_gguf(path, 5, GGUF_DATA);
    is_int(moe_plan_open(path, &p, &err), MOE_E_CORRUPT,
           "experts that contradict the metadata");
    has_str(err.text, "4 experts, but expert_count is 5", "are named");
    if (truncate(path, 300) == 0)
        is_int(moe_plan_open(path, &p, &err), MOE_E_CORRUPT, "a cut file");
    unlink(path);
}

/* A preset with one key set to something else, in "text_config" if it is
 * there: refused, with these words. */
static void
spoiled(const char *preset, const char *key, const char *value,
        const char *want)
{
    char                path[] = "/tmp/moe-plan-XXXXXX.json", from[200];
    struct moe_error    err = { .struct_size = sizeof(err) };
    int                 fd = mkstemps(path, 5);
    struct json_object *top, *in = NULL;
    moe_planner        *p = NULL;

    if (fd >= 0)
        close(fd);
    snprintf(from, sizeof(from), "conf/model/%s.json", preset);
    top = json_object_from_file(tap_src(from));
    if (!json_object_object_get_ex(top, "text_config", &in))
        in = top;
    json_object_object_add(in, key, json_tokener_parse(value));
    json_object_to_file(path, top);
    json_object_put(top);
    is_int(moe_plan_open(path, &p, &err), MOE_E_CORRUPT, "%s: \"%s\": %s",
           preset, key, value);
    has_str(err.text, path, "names the file");
    has_str(err.text, want, "and what is wrong");
    ok(strchr(err.text, '\n') == NULL, "in one line");
    moe_plan_close(p);
    unlink(path);
}

/* Which layers have experts, of the families that the engine runs and of
 * those that are planned only. */
static void
test_layers(void)
{
    const char *q = "qwen3-30b-a3b", *d = "deepseek-v3", *l = "llama-4-scout";

    spoiled(q, "mlp_only_layers", "[48]", "names layer 48, but there are 48");
    spoiled(q, "mlp_only_layers", "[-1]", "\"mlp_only_layers\" is -1");
    spoiled(q, "mlp_only_layers", "[\"0\"]", "a whole number expected");
    spoiled(q, "mlp_only_layers", "[3,3]", "names layer 3 twice");
    spoiled(q, "decoder_sparse_step", "0", "is 0, expected 1 to");
    spoiled(q, "decoder_sparse_step", "-1", "is -1, expected 1 to");
    spoiled(d, "first_k_dense_replace", "62", "is 62, expected 0 to 61");
    spoiled(d, "first_k_dense_replace", "-1", "is -1, expected 0 to 61");
    spoiled(d, "first_k_dense_replace", "null", "is missing");
    spoiled(d, "moe_layer_freq", "0", "\"moe_layer_freq\" is 0");
    spoiled(d, "moe_layer_freq", "2", "\"moe_layer_freq\" is 2");
    spoiled(d, "moe_layer_freq", "[1,0]", "a whole number expected");
    spoiled(l, "interleave_moe_layer_step", "0",
            "interleave_moe_layer_step\" is 0, expected 1 to");
    spoiled(l, "interleave_moe_layer_step", "-2",
            "interleave_moe_layer_step\" is -2, expected 1 to");
    spoiled(l, "interleave_moe_layer_step", "1.5", "a whole number");
    spoiled(l, "no_rope_layers", "[1]", "has 1 entries for 48 layers");
}

static void
test_dense(void)
{
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    moe_planner             *p = open_or_die("mixtral-8x7b"), *d;

    is_int(moe_plan_open_dense(p, 46702792704, "same size", &d, &err),
           MOE_OK, "a dense one");
    moe_plan_model(d, &m);
    ok(near((double) m.total, 46702792704, 0.0001), "as large: %llu",
       (unsigned long long) m.total);
    is_int(m.n_experts, 0, "without experts");
    moe_plan_close(d);
    is_int(moe_plan_open_dense(p, 1000000, "tiny", &d, &err), MOE_E_INVAL,
           "too small for its attention");
    moe_plan_close(p);
}

static void
test_refusals(void)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    moe_planner        *p;

    is_int(moe_plan_open("mixtrall-8x7b", &p, &err), MOE_E_NOT_FOUND,
           "a name that is none");
    has_str(err.text, "did you mean mixtral-8x7b", "the nearest");
    is_int(moe_plan_open("llama-3", &p, &err), MOE_E_NOT_FOUND,
           "the beginning of several names");
    has_str(err.text, "llama-3-70b", "which");
    is_int(moe_plan_open("", &p, &err), MOE_E_INVAL, "no name");
    is_int(moe_plan_open("./nowhere", &p, &err), MOE_E_NOT_FOUND,
           "no such folder");
    is_int(moe_plan_open(tap_src("tests/tap.h"), &p, &err), MOE_E_CORRUPT,
           "a file that is no JSON");
}

int
main(void)
{
    size_t i;
    char   name[64];

    setenv("MOE_TEST_FACTS", tap_src("conf"), 0);
    for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        test_count(&counts[i]);
    for (i = 0; moe_plan_preset_at(i, name, sizeof(name)) == MOE_OK; i++)
        moe_plan_close(open_or_die(name));
    ok(i >= sizeof(counts) / sizeof(counts[0]), "every preset opens: %zu", i);
    test_flop();
    test_cache();
    test_weights();
    test_files();
    test_gguf();
    test_layers();
    test_dense();
    test_refusals();
    return tap_done();
}
