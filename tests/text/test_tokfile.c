/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_tokfile.c - tokenizer.json that is wrong, and what the reference's
 * fixtures do not ask: UTF-8, pieces of a chat, streaming, folders, memory.
 */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tap.h"
#include "text/tokenizer.h"

#define VOCAB  "{\"a\":0,\"b\":1,\"ab\":2,\"c\":3,\"abc\":4,\"<u>\":5}"
#define MERGES "[\"a b\",[\"ab\",\"c\"]]"

static struct moe_error err = {.struct_size = sizeof(err)};
static char             json[1 << 20];

/* A file with these parts; NULL takes a plain one. */
static const char *
file(const char *added, const char *normal, const char *pre,
     const char *post, const char *decode, const char *model)
{
    snprintf(json, sizeof(json),
             "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
             "\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,"
             "\"post_processor\":%s,\"decoder\":%s,\"model\":%s}",
             added != NULL ? added : "[]", normal != NULL ? normal : "null",
             pre != NULL ? pre : "null", post != NULL ? post : "null",
             decode != NULL ? decode : "null",
             model != NULL ? model
                           : "{\"type\":\"BPE\",\"vocab\":" VOCAB
                             ",\"merges\":[\"a b\",\"ab c\"]}");
    return json;
}

static struct moe_tokenizer *
make(const char *text)
{
    struct moe_tokenizer *t = NULL;

    if (moe_tokenizer_parse(text, strlen(text), "tokenizer.json", 0, &t, &err)
        != MOE_OK)
        tap_diag("%s", err.text);
    return t;
}

/* A refusal with this status, whose one line names the file and part. */
static void
refused_n(const char *text, size_t n, moe_status want, const char *part,
          const char *name)
{
    struct moe_tokenizer *t = (void *) json;
    moe_status            s;

    err.text[0] = '\0';
    s = moe_tokenizer_parse(text, n, "tokenizer.json", 0, &t, &err);
    if (s == MOE_OK)
        moe_tokenizer_close(t);
    if (!ok(s == want && err.status == want
                && strstr(err.text, "tokenizer.json") != NULL
                && strstr(err.text, part) != NULL
                && strchr(err.text, '\n') == NULL
                && (s == MOE_OK || t == (void *) json),
            "refused: %s", name))
        tap_diag("status %d: %s", s, err.text);
}

static void
refused(const char *text, moe_status want, const char *part, const char *name)
{
    refused_n(text, strlen(text), want, part, name);
}

static void
bad_model(const char *model, moe_status want, const char *part,
          const char *name)
{
    refused(file(NULL, NULL, NULL, NULL, NULL, model), want, part, name);
}

static void
test_syntax(void)
{
    char       *deep = malloc(400001), *cut;
    const char *good = file(NULL, NULL, NULL, NULL, NULL, NULL);
    size_t      n = strlen(good);
    int         bad = 0;

    cut = malloc(n + 1);
    refused("", MOE_E_CORRUPT, "byte 0", "an empty file");
    refused("  \n", MOE_E_CORRUPT, "byte 3", "white space alone");
    refused("[]", MOE_E_CORRUPT, "byte 0", "a list");
    refused("{}", MOE_E_CORRUPT, "model", "an empty object");
    refused("{\"model\":{}}", MOE_E_CORRUPT, "vocab", "an empty model");
    refused("{\"model\":[]}", MOE_E_CORRUPT, "model", "a model that is a list");
    refused("{\"model\":{\"vocab\":{},\"merges\":[],}}", MOE_E_CORRUPT,
            "byte", "a comma too many");
    refused("{'model':1}", MOE_E_CORRUPT, "byte 1", "single quotes");
    refused("{\"model\":NaN // x\n}", MOE_E_CORRUPT, "byte", "a comment");
    refused("\xef\xbb\xbf{}", MOE_E_CORRUPT, "byte 0", "a byte order mark");
    refused("{\"a\":\"\xff\"}", MOE_E_CORRUPT, "byte 6: not UTF-8",
            "bytes that are not UTF-8");
    refused("{\"a\":1}{", MOE_E_CORRUPT, "behind", "two values");
    refused("{\"model\":{\"vocab\":{},\"merges\":[],\"vocab\":{}}}",
            MOE_E_CORRUPT, "second time", "vocab twice");
    refused("{\"model\":{},\"model\":{}}", MOE_E_CORRUPT, "second time",
            "model twice");
    refused(file(NULL, "null,\"normalizer\":null", NULL, NULL, NULL, NULL),
            MOE_E_CORRUPT, "the key \"normalizer\" is there twice",
            "a setting twice");
    refused(file(NULL, NULL, NULL, NULL, NULL,
                 "{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":[],"
                 "\"v\\u006fcab\":{}}"),
            MOE_E_CORRUPT, "there twice", "vocab twice, once with an escape");
    for (size_t i = 0; i < n; i++) {
        struct moe_tokenizer *t;

        memcpy(cut, good, i);
        bad += moe_tokenizer_parse(cut, i, "t", 0, &t, &err) != MOE_E_CORRUPT;
    }
    is_int(bad, 0, "refused: the file cut at each of %zu bytes", n);
    memset(deep, '[', 200000);
    refused_n(deep, 200000, MOE_E_CORRUPT, "byte", "200,000 brackets");
    memcpy(deep, "{\"x\":", 5);
    memset(deep + 5, '[', 100000);
    memset(deep + 100005, ']', 100000);
    deep[200005] = '}';
    refused_n(deep, 200006, MOE_E_CORRUPT, "byte", "lists in lists");
    for (size_t i = 0; i < 400000; i += 5)
        memcpy(deep + i, i == 0 ? "{\"x\":" : "{\"a\":", 5);
    refused_n(deep, 400000, MOE_E_CORRUPT, "byte", "objects in objects");
    free(deep);
    free(cut);
}

static void
test_model(void)
{
    static char           big[300000];
    struct moe_tokenizer *t;
    size_t                at;

    bad_model("{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1.0]]}",
              MOE_E_UNSUPPORTED, "Unigram", "a Unigram model");
    bad_model("{\"type\":\"WordPiece\",\"vocab\":" VOCAB "}",
              MOE_E_UNSUPPORTED, "WordPiece", "a WordPiece model");
    bad_model("{\"type\":7,\"vocab\":{},\"merges\":[]}", MOE_E_CORRUPT,
              "type", "a type that is a number");
    bad_model("{\"vocab\":" VOCAB "}", MOE_E_CORRUPT, "model.merges",
              "no merges");
    bad_model("{\"merges\":[]}", MOE_E_CORRUPT, "model.vocab", "no vocab");
    bad_model("{\"vocab\":[],\"merges\":[]}", MOE_E_CORRUPT, "model.vocab",
              "a vocab that is a list");
    bad_model("{\"vocab\":{},\"merges\":{}}", MOE_E_CORRUPT, "model.merges",
              "merges that are an object");
    bad_model("{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}", MOE_E_CORRUPT,
              "\"b\" or its id 0 is there twice", "an id twice");
    bad_model("{\"vocab\":{\"a\":0,\"\\u0061\":1},\"merges\":[]}",
              MOE_E_CORRUPT, "\"a\" or its id 1 is there twice",
              "a token twice");
    bad_model("{\"vocab\":{\"a\\n\\u001b[2J\":0,\"b\":0},\"merges\":[]}",
              MOE_E_CORRUPT, "there twice", "an id twice, of a token");
    bad_model("{\"vocab\":{\"b\":0,\"a\\n\\u001b[2J\\u009b\":0},"
              "\"merges\":[]}", MOE_E_CORRUPT, "\"a??[2J?\"",
              "a token that would clear the screen");
    bad_model("{\"vocab\":{\"a\":-1},\"merges\":[]}", MOE_E_CORRUPT,
              "whole number", "an id below 0");
    bad_model("{\"vocab\":{\"a\":1.5},\"merges\":[]}", MOE_E_CORRUPT,
              "whole number", "an id that is a fraction");
    bad_model("{\"vocab\":{\"a\":\"0\"},\"merges\":[]}", MOE_E_CORRUPT,
              "whole number", "an id that is a string");
    bad_model("{\"vocab\":{\"a\":4294967296},\"merges\":[]}", MOE_E_CORRUPT,
              "2^30", "an id above 32 bits");
    bad_model("{\"vocab\":{\"a\":99999999999999999999999},\"merges\":[]}",
              MOE_E_CORRUPT, "whole number", "an id above 64 bits");
    bad_model("{\"vocab\":{\"a\":900000000},\"merges\":[]}", MOE_E_CORRUPT,
              "id 900000000 for 1 tokens", "an id that would fill memory");
    bad_model("{\"vocab\":{\"a\\ud800\":0},\"merges\":[]}", MOE_E_CORRUPT,
              "escape", "half a surrogate pair");
    bad_model("{\"vocab\":{\"a\\x\":0},\"merges\":[]}", MOE_E_CORRUPT,
              "escape", "an escape that is none");
    bad_model("{\"vocab\":{\"a\nb\":0},\"merges\":[]}", MOE_E_CORRUPT,
              "byte", "a line break in a token");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[\"a x\"]}", MOE_E_CORRUPT,
              "merge 0 needs the token \"x\"", "a merge of an unknown token");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[\"x a\"]}", MOE_E_CORRUPT,
              "\"x\"", "a merge that begins with an unknown token");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[\"a b\",\"b a\"]}",
              MOE_E_CORRUPT, "merge 1 needs the token \"ba\"",
              "a merge to an unknown token");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[\"ab\"]}", MOE_E_CORRUPT,
              "one space", "a merge of one token");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[\"a b c\"]}", MOE_E_CORRUPT,
              "one space", "a merge of three tokens");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[[\"a\"]]}", MOE_E_CORRUPT,
              "pair", "a pair of one");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[[\"a\",\"b\",\"c\"]]}",
              MOE_E_CORRUPT, "pair", "a pair of three");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[\"a b\",[\"ab\",\"c\"]]}",
              MOE_E_CORRUPT, "byte", "merges of both kinds");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[7]}", MOE_E_CORRUPT, "byte",
              "a merge that is a number");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[[\"a\",\"b\"]],"
              "\"continuing_subword_prefix\":\"##\"}",
              MOE_E_CORRUPT, "continuing_subword_prefix",
              "a right side shorter than its prefix");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[],\"dropout\":0.1}",
              MOE_E_UNSUPPORTED, "dropout", "dropout");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[],\"fuse_unk\":1}",
              MOE_E_CORRUPT, "fuse_unk", "fuse_unk that is a number");
    bad_model("{\"vocab\":" VOCAB ",\"merges\":[],\"unk_token\":[]}",
              MOE_E_CORRUPT, "unk_token", "unk_token that is a list");

    /* settings that would make a huge tree */
    memset(big, 'x', sizeof(big));
    memcpy(big, "{\"y\":\"", 6);
    memcpy(big + sizeof(big) - 3, "\"}", 3);
    refused(big, MOE_E_UNSUPPORTED, "Precompiled", "300 kB of settings");
    at = (size_t) snprintf(big, sizeof(big), "{\"y\":[0");
    for (int i = 0; i < 5000; i++)
        at += (size_t) snprintf(big + at, sizeof(big) - at, ",{}");
    snprintf(big + at, sizeof(big) - at, "]}");
    refused(big, MOE_E_UNSUPPORTED, "4096 values", "5,000 objects");
    /* many tiny tokens in a large file: the tables would be too big */
    at = (size_t) snprintf(json, sizeof(json), "{\"model\":{\"vocab\":{");
    for (int i = 0; at < sizeof(json) - 64; i++)
        at += (size_t) snprintf(json + at, sizeof(json) - at, "%s\"%x\":%d",
                                i > 0 ? "," : "", i, i);
    snprintf(json + at, sizeof(json) - at, "},\"merges\":[]}}");
    t = make(json);
    ok(t != NULL || err.status == MOE_E_CORRUPT,
       "a megabyte of tiny tokens ends with a status");
    if (t != NULL)
        ok(moe_tokenizer_bytes(t) < moe_tokenizer_load_peak(strlen(json)),
           "and within the bound");
    moe_tokenizer_close(t);
}

static void
test_stages(void)
{
#define N(x) refused(file(NULL, x, NULL, NULL, NULL, NULL)
#define P(x) refused(file(NULL, NULL, x, NULL, NULL, NULL)
#define Q(x) refused(file(NULL, NULL, NULL, x, NULL, NULL)
#define D(x) refused(file(NULL, NULL, NULL, NULL, x, NULL)
    N("{\"type\":\"Nmt\"}"), MOE_E_UNSUPPORTED, "normalizer \"Nmt\"",
      "normalizer Nmt");
    N("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"\"}"),
      MOE_E_UNSUPPORTED, "Precompiled", "normalizer Precompiled");
    N("{}"), MOE_E_CORRUPT, "normalizer: type", "a normalizer without type");
    N("7"), MOE_E_CORRUPT, "normalizer", "a normalizer that is a number");
    N("{\"type\":\"Sequence\"}"), MOE_E_CORRUPT, "normalizers",
      "a Sequence without a list");
    N("{\"type\":\"Sequence\",\"normalizers\":[null]}"), MOE_E_CORRUPT,
      "null", "a Sequence of null");
    N("{\"type\":\"Strip\",\"strip_left\":true}"), MOE_E_CORRUPT,
      "strip_right", "Strip without a side");
    N("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},"
      "\"content\":\"\"}"), MOE_E_CORRUPT, "regular expression",
      "a pattern without )");
    N("{\"type\":\"Replace\",\"pattern\":{},\"content\":\"\"}"),
      MOE_E_CORRUPT, "neither String nor Regex", "a pattern of neither kind");
    N("{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}"),
      MOE_E_CORRUPT, "content", "Replace without content");
    N("{\"type\":\"Prepend\",\"prepend\":null}"), MOE_E_CORRUPT, "prepend",
      "Prepend of null");
    P("{\"type\":\"BertPreTokenizer\"}"), MOE_E_UNSUPPORTED,
      "BertPreTokenizer", "pre_tokenizer BertPreTokenizer");
    P("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a{2\"},"
      "\"behavior\":\"Sideways\",\"invert\":false}"), MOE_E_CORRUPT,
      "behavior", "a behavior that is none");
    P("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[b-a]\"},"
      "\"behavior\":\"Isolated\",\"invert\":false}"), MOE_E_CORRUPT,
      "backwards", "a range that runs backwards");
    P("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"*a\"},"
      "\"behavior\":\"Isolated\",\"invert\":false}"), MOE_E_CORRUPT,
      "nothing to repeat", "a star at the start");
    P("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?<=a*)b\"},"
      "\"behavior\":\"Isolated\",\"invert\":false}"), MOE_E_CORRUPT,
      "does not compile", "a look-behind of any length");
    P("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{Emoji}\"},"
      "\"behavior\":\"Isolated\",\"invert\":false}"), MOE_E_UNSUPPORTED,
      "property", "a property that is not known");
    P("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a)\\\\1\"},"
      "\"behavior\":\"Isolated\",\"invert\":false}"), MOE_E_UNSUPPORTED,
      "escape", "a back-reference");
    P("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?~a)\"},"
      "\"behavior\":\"Isolated\",\"invert\":false}"), MOE_E_UNSUPPORTED,
      "group", "Oniguruma's absent operator");
    P("{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"), MOE_E_CORRUPT,
      "single character", "a replacement of two characters");
    P("{\"type\":\"Metaspace\",\"replacement\":\"_\","
      "\"prepend_scheme\":\"last\"}"), MOE_E_CORRUPT, "prepend_scheme",
      "a prepend_scheme that is none");
    P("{\"type\":\"Metaspace\",\"replacement\":\"_\","
      "\"add_prefix_space\":false}"), MOE_E_CORRUPT, "disagree",
      "two settings that disagree");
    P("{\"type\":\"ByteLevel\"}"), MOE_E_CORRUPT, "add_prefix_space",
      "ByteLevel without its setting");
    Q("{\"type\":\"BertProcessing\"}"), MOE_E_UNSUPPORTED, "BertProcessing",
      "post_processor BertProcessing");
    Q("{\"type\":\"TemplateProcessing\",\"single\":[]}"), MOE_E_CORRUPT,
      "special_tokens", "a template without special_tokens");
    Q("{\"type\":\"TemplateProcessing\",\"special_tokens\":{},\"single\":"
      "[{\"SpecialToken\":{\"id\":\"<s>\"}}]}"), MOE_E_CORRUPT,
      "special token", "a template with an unknown token");
    Q("{\"type\":\"TemplateProcessing\",\"special_tokens\":{\"<s>\":"
      "{\"ids\":[77]}},\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}]}"),
      MOE_E_CORRUPT, "id that no token has", "a template with a strange id");
    Q("{\"type\":\"TemplateProcessing\",\"special_tokens\":{},\"single\":"
      "[{\"Sequence\":{\"id\":\"B\"}}]}"), MOE_E_CORRUPT, "sequence A",
      "a template for the second sequence");
    Q("{\"type\":\"TemplateProcessing\",\"special_tokens\":{},\"single\":"
      "[7]}"), MOE_E_CORRUPT, "piece", "a template of numbers");
    D("{\"type\":\"WordPiece\"}"), MOE_E_UNSUPPORTED, "WordPiece",
      "decoder WordPiece");
    D("{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}"),
      MOE_E_CORRUPT, "start", "Strip of -1 characters");
    refused("{\"version\":\"2.0\",\"model\":{\"vocab\":{},\"merges\":[]}}",
            MOE_E_UNSUPPORTED, "version", "another version");
}

#define TOK(id, text, more)                                                   \
    "{\"id\":" #id ",\"content\":\"" text                                     \
    "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"             \
    "\"normalized\":false,\"special\":" more "}"

static void
test_added(void)
{
#define A(x) refused(file(x, NULL, NULL, NULL, NULL, NULL)
    A("{}"), MOE_E_CORRUPT, "added_tokens", "added_tokens that is an object");
    A("[7]"), MOE_E_CORRUPT, "object expected", "an added token of a number");
    A("[{\"id\":6,\"id\":7}]"), MOE_E_CORRUPT, "a key twice",
            "an added token with two ids");
    A("[{\"id\":6}]"), MOE_E_CORRUPT, "content", "one without content");
    A("[{\"content\":\"x\"}]"), MOE_E_CORRUPT, "id", "one without id");
    A("[{\"id\":6,\"content\":\"x\"}]"), MOE_E_CORRUPT, "single_word",
      "one without its flags");
    A("[" TOK(9, "x", "true") "]"), MOE_E_CORRUPT, "says id 9",
      "an id that leaves a hole");
    A("[" TOK(3, "x", "true") "]"), MOE_E_CORRUPT, "says id 3",
      "an id that another token has");
    A("[" TOK(6, "a", "true") "]"), MOE_E_CORRUPT, "says id 6",
      "another id for a token of the model");
    A("[" TOK(6, "x", "true") "," TOK(6, "y", "true") "]"), MOE_E_CORRUPT,
      "says id 6", "one id for two");
    A("[" TOK(-6, "x", "true") "]"), MOE_E_CORRUPT, "out of range",
      "an id below 0");
    A("[" TOK(99999999999999999999, "x", "true") "]"), MOE_E_CORRUPT,
      "out of range", "an id above 64 bits");
}

/* The ids of a text as "1 2 3", or the error's text. */
static const char *
ids(const struct moe_tokenizer *t, const char *text, size_t n, uint32_t flags)
{
    static char out[8][512];
    static int  slot;
    char       *buf = out[slot++ % 8];
    uint32_t   *list;
    size_t      count, at = 0;

    buf[0] = '\0';
    if (t == NULL)
        return "no tokenizer";
    if (moe_tokenizer_encode(t, text, n, flags, &list, &count, &err)
        != MOE_OK)
        return err.text;
    for (size_t i = 0; i < count && at < 480; i++)
        at += (size_t) snprintf(buf + at, 512 - at, "%s%u", i > 0 ? " " : "",
                                list[i]);
    free(list);
    return buf;
}

static void
test_utf8(void)
{
    static const struct {
        const char *text, *where;
        size_t      n;
    } bad[] = {
        {"\x80", "byte 0", 1},          {"ab\xff", "byte 2", 3},
        {"ab\xc3", "byte 2", 3},        {"\xc3(", "byte 0", 2},
        {"a\xe2\x82", "byte 1", 3},     {"\xed\xa0\x80", "byte 0", 3},
        {"\xf4\x90\x80\x80", "byte 0", 4}, {"\xc0\x80", "byte 0", 2},
        {"\xe0\x80\xaf", "byte 0", 3},  {"\xf0\x80\x80\xaf", "byte 0", 4},
        {"aaaaaaaaaaaaaaaa\xf8", "byte 16", 17},
    };
    struct moe_tokenizer *t = make(file(NULL, NULL, NULL, NULL, NULL, NULL));

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint32_t  *list;
        size_t     n;
        moe_status s = moe_tokenizer_encode(t, bad[i].text, bad[i].n, 0,
                                            &list, &n, &err);

        ok(s == MOE_E_INVAL && strstr(err.text, bad[i].where) != NULL,
           "not UTF-8, %s", bad[i].where);
    }
    is_str(ids(t, "abcab", 5, 0), "4 2", "merges in the order of the list");
    is_str(ids(t, "a\0c", 3, 0), "0 3", "NUL is a character");
    is_str(ids(t, "", 0, 0), "", "an empty text");
    is_str(ids(t, "xyz", 3, 0), "", "unknown characters without unk_token");
    moe_tokenizer_close(t);
    t = make(file(NULL, NULL, NULL, NULL, NULL,
                  "{\"vocab\":" VOCAB ",\"merges\":[],"
                  "\"unk_token\":\"nowhere\"}"));
    has_str(ids(t, "ax", 2, 0), "unk_token", "an unk_token that is not there");
    is_str(ids(t, "ab", 2, 0), "0 1", "which matters only when it is needed");
    moe_tokenizer_close(t);
}

static void
test_pieces(void)
{
    static const char added[] = "[" TOK(6, "<s>", "true") ","
                                TOK(7, "<t>", "false") "]";
    static const char model[] =
        "{\"vocab\":{\"<\":0,\"s\":1,\">\":2,\"a\":3,\"t\":4,\"<u>\":5},"
        "\"merges\":[]}";
    struct moe_text_piece p[3] = {{"<s>", 3, 0, 0}, {"a<s>", 4, 1, 0},
                                  {"<s>a", 4, 0, 0}};
    struct moe_tokenizer *t = make(file(added, NULL, NULL, NULL, NULL,
                                        model));
    uint32_t             *list;
    size_t                n;
    static const uint32_t want[] = {6, 3, 0, 1, 2, 6, 3};
    static const uint32_t across[] = {0, 1, 2};

    is_str(ids(t, "<s>a<t>", 7, MOE_TOK_PARSE_SPECIAL), "6 3 7",
           "special tokens in the text");
    is_str(ids(t, "<s>a<t>", 7, 0), "0 1 2 3 7",
           "special tokens read as text, others not");
    ok(moe_tokenizer_encode_pieces(t, p, 3, MOE_TOK_PARSE_SPECIAL, &list, &n,
                                   &err) == MOE_OK
           && n == 7 && memcmp(list, want, sizeof(want)) == 0,
       "a user's piece cannot hold a special token");
    free(list);
    p[0].text = "<";
    p[0].len = 1;
    p[1].text = "s>";
    p[1].len = 2;
    ok(moe_tokenizer_encode_pieces(t, p, 2, MOE_TOK_PARSE_SPECIAL, &list, &n,
                                   &err) == MOE_OK
           && n == 3 && memcmp(list, across, sizeof(across)) == 0,
       "nor complete one that the template began");
    free(list);
    p[1].text = "\xc3";
    p[1].len = 1;
    ok(moe_tokenizer_encode_pieces(t, p, 2, 0, &list, &n, &err) == MOE_E_INVAL
           && strstr(err.text, "byte 1") != NULL,
       "the offset of a bad byte counts from the first piece");
    ok(moe_tokenizer_encode_pieces(t, p, 0, 0, &list, &n, &err) == MOE_OK
           && n == 0 && list == NULL, "no pieces");
    ok(moe_tokenizer_is_special(t, 6) && !moe_tokenizer_is_special(t, 7)
           && !moe_tokenizer_is_special(t, 3), "which token is special");
    moe_tokenizer_close(t);

    /* a normalizer moves places, so a user's text guards its neighbours */
    t = make(file("[{\"id\":6,\"content\":\"<s>\",\"single_word\":false,"
                  "\"lstrip\":false,\"rstrip\":false,\"normalized\":true,"
                  "\"special\":true}]", "{\"type\":\"Lowercase\"}", NULL,
                  NULL, NULL, model));
    is_str(ids(t, "<S>A", 4, MOE_TOK_PARSE_SPECIAL), "6 3",
           "a special token in the normalised text");
    p[0] = (struct moe_text_piece){"A", 1, 0, 0};
    p[1] = (struct moe_text_piece){"<S>", 3, 1, 0};
    ok(moe_tokenizer_encode_pieces(t, p, 2, MOE_TOK_PARSE_SPECIAL, &list, &n,
                                   &err) == MOE_OK
           && n == 4 && list[1] == 0, "but not in a user's piece");
    free(list);
    moe_tokenizer_close(t);
}

/* Everything a stream gave so far, and what the last push gave. */
static void
test_stream(void)
{
    static const char model[] =
        "{\"vocab\":{\"\\u00c3\":0,\"\\u00a9\":1,\"a\":2,\"\\u0120b\":3,"
        "\"<0xE2>\":4,\"<0x82>\":5,\"<0xAC>\":6,\"\xe2\x96\x81x\":7,"
        "\"</w>\":8,\"yz</w>\":9},\"merges\":[]}";
    static const struct {
        const char *name, *decoder;
        uint32_t    id[5];
        size_t      n;
        const char *part[6]; /* of each push and of flush */
    } rows[] = {
        {"ByteLevel holds half a character", "{\"type\":\"ByteLevel\"}",
         {2, 0, 1, 3}, 4, {"a", "", "\xc3\xa9", " b", ""}},
        {"ByteLevel gives up at the end", "{\"type\":\"ByteLevel\"}",
         {2, 0}, 2, {"a", "", "\xef\xbf\xbd"}},
        {"ByteLevel gives up when it must", "{\"type\":\"ByteLevel\"}",
         {0, 2, 1}, 3, {"", "\xef\xbf\xbd""a", "\xef\xbf\xbd", ""}},
        {"ByteFallback holds a run", "{\"type\":\"ByteFallback\"}",
         {4, 5, 6, 2}, 4, {"", "", "", "\xe2\x82\xac""a", ""}},
        {"ByteFallback: a broken run is broken whole",
         "{\"type\":\"ByteFallback\"}", {4, 5, 6, 4}, 4,
         {"", "", "", "", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}},
        {"as Llama does",
         "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
         "\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},"
         "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":"
         "\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}",
         {7, 7, 2}, 3, {"x", " x", "a", ""}},
        {"Metaspace", "{\"type\":\"Metaspace\",\"replacement\":"
         "\"\xe2\x96\x81\",\"prepend_scheme\":\"always\"}",
         {7, 7, 2}, 3, {"x", " x", "a", ""}},
        {"Strip holds what may be the end",
         "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
         "{\"type\":\"Strip\",\"content\":\"a\",\"start\":1,\"stop\":1}]}",
         {2, 2, 2, 7, 2}, 5, {"", "", "a", "a\xe2\x96\x81x", "", ""}},
        {"Replace holds what may begin a match",
         "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
         "{\"type\":\"Replace\",\"pattern\":{\"String\":\"aa\"},"
         "\"content\":\"-\"}]}",
         {2, 2, 2, 7}, 4, {"", "-", "", "a\xe2\x96\x81x", ""}},
        {"a pattern over joined text comes with the end",
         "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
         "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},"
         "\"content\":\"-\"}]}",
         {2, 2, 7}, 3, {"", "", "", "-\xe2\x96\x81x"}},
        {"BPEDecoder: the last word has no space",
         "{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}",
         {9, 2, 9}, 3, {"", "yz ", "a", "yz"}},
        {"no decoder puts spaces between", "null", {2, 99, 2}, 3,
         {"a", "", " a", ""}},
    };

    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        const char           *full;
        struct moe_tokenizer *t;
        struct moe_detok     *d;
        char                  all[64] = "", *whole;
        size_t                len;
        int                   good = 1;

        full = file(NULL, NULL, NULL, NULL, rows[r].decoder, model);
        if (strstr(rows[r].decoder, "ByteLevel") != NULL)
            full = file(NULL, NULL, NULL, NULL,
                        "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                        "\"trim_offsets\":true}", model);
        t = make(full);
        if (!ok(t != NULL, "%s", rows[r].name))
            continue;
        if (moe_detok_open(t, 0, &d, &err) != MOE_OK)
            continue;
        for (int twice = 0; twice < 2; twice++) {
            all[0] = '\0';
            for (size_t i = 0; i <= rows[r].n; i++) {
                const char *text;
                size_t      n;
                moe_status  s = i < rows[r].n
                                    ? moe_detok_push(d, rows[r].id[i], &text,
                                                     &n, &err)
                                    : moe_detok_flush(d, &text, &n, &err);

                if (s != MOE_OK || n != strlen(rows[r].part[i])
                    || memcmp(text, rows[r].part[i], n) != 0) {
                    tap_diag("step %zu: \"%.*s\"", i, (int) n, text);
                    good = 0;
                }
                strncat(all, text, n);
            }
        }
        ok(good, "  piece by piece, and again after flush");
        if (moe_tokenizer_decode(t, rows[r].id, rows[r].n, 0, &whole, &len,
                                 &err) == MOE_OK) {
            is_str(whole, all, "  the whole is the sum");
            free(whole);
        }
        moe_detok_close(d);
        moe_tokenizer_close(t);
    }
    moe_detok_close(NULL);
    moe_tokenizer_close(NULL);
}

static void
put_file(const char *dir, const char *name, const char *text)
{
    char  path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wbe");
    if (f == NULL)
        return;
    fputs(text, f);
    fclose(f);
}

static void
test_folders(void)
{
    char                  dir[] = "moe-tok-XXXXXX", path[256];
    struct moe_tokenizer *t;

    if (!ok(mkdtemp(dir) != NULL, "a folder"))
        return;
    is_int(moe_tokenizer_open(dir, &t, &err), MOE_E_NOT_FOUND,
           "a folder without tokenizer");
    has_str(err.text, "tokenizer.json", "  is named");
    put_file(dir, "tokenizer.model", "x");
    is_int(moe_tokenizer_open(dir, &t, &err), MOE_E_UNSUPPORTED,
           "a folder with SentencePiece's file alone");
    has_str(err.text, "tokenizer.model", "  the file is named");
    has_str(err.text, "AutoTokenizer", "  and the remedy");
    snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
    is_int(moe_tokenizer_open(path, &t, &err), MOE_E_UNSUPPORTED,
           "the same by the file's name");
    put_file(dir, "tokenizer.json",
             file(NULL, NULL, NULL, NULL, NULL, NULL));
    is_int(moe_tokenizer_open(dir, &t, &err), MOE_OK, "a folder");
    moe_tokenizer_close(t);
    is_int(moe_tokenizer_open(path, &t, &err), MOE_OK, "a file");
    moe_tokenizer_close(t);
    if (geteuid() != 0) {
        chmod(path, 0);
        is_int(moe_tokenizer_open(path, &t, &err), MOE_E_IO,
               "a file that may not be read");
        is_int(err.native, EACCES, "  with errno");
    }
    unlink(path);
    mkdir(path, 0700);
    is_int(moe_tokenizer_open(dir, &t, &err), MOE_E_CORRUPT,
           "a folder in the file's place");
    rmdir(path);
    snprintf(path, sizeof(path), "%s/tokenizer.model", dir);
    unlink(path);
    rmdir(dir);
}

static size_t
held(void)
{
    struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

/* The figure for the memory ledger against malloc's own. */
static void
test_memory(void)
{
    size_t                before, after, at;
    uint64_t              said;
    struct moe_tokenizer *t;

    at = (size_t) snprintf(json, sizeof(json), "{\"model\":{\"vocab\":{");
    for (int i = 0; i < 30000; i++)
        at += (size_t) snprintf(json + at, sizeof(json) - at,
                                "%s\"token%d\":%d", i > 0 ? "," : "", i, i);
    snprintf(json + at, sizeof(json) - at, "},\"merges\":[]}}");
    before = held();
    t = make(json);
    after = held();
    if (!ok(t != NULL, "30,000 tokens"))
        return;
    said = moe_tokenizer_bytes(t);
    if (before != 0 || after != 0)
        ok(said <= after - before + 16384 && said + 65536 >= after - before,
           "moe_tokenizer_bytes %llu, malloc %zu", (unsigned long long) said,
           after - before);
    ok(said < moe_tokenizer_load_peak(strlen(json)),
       "the bound of loading is above what stays");
    moe_tokenizer_close(t);
}

int
main(void)
{
    test_syntax();
    test_model();
    test_stages();
    test_added();
    test_utf8();
    test_pieces();
    test_stream();
    test_folders();
    test_memory();
    return tap_done();
}
