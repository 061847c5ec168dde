/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint folder: what it must hold, its index and its shards. */
#include "folder.h"

#include "checkpoint/json.h"

#define INDEX "model.safetensors.index.json"

#define A                                                                     \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}"
#define B                                                                     \
    "{\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}"

static void
no_folder(void)
{
    const char *dir = new_dir();

    refused(in_dir(dir, "nowhere"), MOE_E_NOT_FOUND, "nowhere",
            "no such checkpoint folder", "missing folder");
    put_text(dir, "file", "x");
    refused(in_dir(dir, "file"), MOE_E_INVAL, "/file", "give the folder",
            "a file for a folder");
    put_text(dir, "model.gguf", "x");
    refused(in_dir(dir, "model.gguf"), MOE_E_INVAL, "model.gguf",
            "GGUF is not read", "a GGUF file");
    refused(in_dir(dir, "file/x"), MOE_E_NOT_FOUND, "file/x",
            "no such checkpoint folder", "below a file");
    drop_dir(dir);
}

/* An empty folder but for `name`: the message has `thing`. */
static void
hinted(const char *name, const char *thing, int config)
{
    const char *dir = new_dir();
    char        what[128];

    snprintf(what, sizeof(what), "%s%s alone", name,
             config ? " and config.json" : "");
    if (config)
        put_text(dir, "config.json", "{}");
    if (name[0] != '\0')
        put_text(dir, name, "x");
    refused(dir, MOE_E_NOT_FOUND,
            config ? "model.safetensors.index.json" : "config.json", thing,
            what);
    drop_dir(dir);
}

static void
hints(void)
{
    hinted("", "not a checkpoint folder", 0);
    hinted("", "no model.safetensors", 1);
    hinted("x-Q4_K.gguf", "GGUF", 0);
    hinted("x-Q4_K.gguf", "GGUF", 1);
    hinted("pytorch_model-00001-of-00002.bin", "PyTorch pickles", 1);
    hinted("consolidated.00.pth", "PyTorch pickles", 0);
    hinted("tokenizer.model", "fetch the weights", 1);
    hinted("model-00001-of-00002.safetensors", "their index is missing", 1);
}

static void
bad_config(const char *text, const char *thing, const char *what)
{
    const char *dir = new_dir();

    put_text(dir, "config.json", text);
    put_header(dir, "model.safetensors", A, 8);
    refused(dir, MOE_E_CORRUPT, "config.json", thing, what);
    drop_dir(dir);
}

static void
configs(void)
{
    struct moe_error err;
    const char      *dir = new_dir();
    char            *deep = malloc(400);

    bad_config("", "it is empty", "empty config.json");
    bad_config("{\"a\": 1", "ends in the middle", "cut config.json");
    bad_config("{\"a\": 1,\n \"b\": }", "line 2: not JSON", "broken JSON");
    bad_config(" \n", "not JSON: it is empty", "blanks");
    bad_config("[]", "object is expected", "a list");
    bad_config("\"x\"", "object is expected", "a string");
    bad_config("{} {}", "text after the end", "two objects");
    memset(deep, 0, 400);
    strcpy(deep, "{\"a\":");
    memset(deep + 5, '[', 100);
    memset(deep + 105, ']', 100);
    deep[205] = '}';
    bad_config(deep, "not JSON", "a hundred nested lists");
    free(deep);

    /* config files of some hybrid models hold bare Infinity and NaN */
    put_text(dir, "config.json",
             "{\"a\": Infinity, \"b\": NaN, \"c\": -Infinity}\n");
    put_header(dir, "model.safetensors", A, 8);
    is_int(open_status(dir, &err), MOE_OK, "bare Infinity is read: %s",
           err.text);
    put_text(dir, "generation_config.json", "{\"temperature\": }");
    refused(dir, MOE_E_CORRUPT, "generation_config.json", "not JSON",
            "broken generation_config.json");
    put_text(dir, "generation_config.json", "{\"temperature\": 0.5}");
    is_int(open_status(dir, &err), MOE_OK, "with generation_config.json: %s",
           err.text);
    unlink(in_dir(dir, "config.json"));
    ok(mkdir(in_dir(dir, "config.json"), 0700) == 0, "a folder");
    refused(dir, MOE_E_IO, "config.json", "not a regular file",
            "a folder for config.json");
    rmdir(in_dir(dir, "config.json"));
    drop_dir(dir);
}

/* Nobody can tell which of two values was meant. */
static void
keys_twice(void)
{
    /* the same key in different objects, texts that look like keys, and what
     * json-c takes besides of JSON */
    static const char *const once[] = {
        "{\"a\": {\"a\": 1, \"b\": [{\"a\": 1}, {\"a\": 2}]}, \"b\": 2}",
        "{\"a\": \"\\\"a\\\": 1, {[\", \"b\": \"a: }\", \"c\\\\\": 1}",
        "{'a': 'x\"', \"b\": 1} /* \"a\": 1 **/ x: */ // : \n",
        "{ // \"b\": 1\n \"a\" /* : */ : 1, /**/ \"b\": 2 }",
    };
    struct moe_error err;
    const char      *dir = new_dir();
    char            *wide = malloc(400000), *p = wide;
    size_t           i;

    bad_config("{\"a\": 1,\n \"b\": 2, \"a\": 1}",
               "line 2: the key \"a\" is there twice", "a key twice");
    bad_config("{\"b\": [0, {\"x\": 1, \"c\": {}, \"x\": 2}], \"x\": 3}",
               "the key \"x\" is there twice", "deep inside");
    bad_config("{\"a\": 1, 'a': 2}", "the key \"a\"", "in other quotes");
    bad_config("{\"a\": null, \"a\": null}", "the key \"a\"", "both null");
    bad_config("{\"\": 1, \"\": 2}", "the key \"\"", "no letter long");
    bad_config("{\"a\": 1, \"\\u0061\": 2}", "escapes",
               "once with an escape");
    bad_config("{\"\\u001b[2J\": 1, \"b\x1b\": 1, \"b\x1b\": 1}",
               "the key \"b?\"", "with an escape character");
    for (i = 0; i < sizeof(once) / sizeof(once[0]); i++) {
        put_text(dir, "config.json", once[i]);
        put_header(dir, "model.safetensors", A, 8);
        is_int(open_status(dir, &err), MOE_OK, "once, text %zu: %s", i,
               err.text);
    }
    for (i = 0; i < 20000; i++)
        p += sprintf(p, "%s\"k%zu\": %zu", i == 0 ? "{" : ",\n", i, i);
    strcpy(p, ", \"k77\": 0, \"k78\": 0}");
    bad_config(wide, "line 20000: the key \"k77\" is there twice",
               "20,000 keys and two again");
    free(wide);
    drop_dir(dir);
}

static void
odd_files(void)
{
    const char *dir = new_dir();

    put_text(dir, "config.json", "{}");
    ok(mkfifo(in_dir(dir, "model.safetensors"), 0600) == 0, "a FIFO");
    refused(dir, MOE_E_IO, "model.safetensors", "not a regular file",
            "a FIFO for the weights");
    unlink(in_dir(dir, "model.safetensors"));
    put_header(dir, "model.safetensors", A, 8);
    if (geteuid() != 0) {
        chmod(in_dir(dir, "model.safetensors"), 0);
        refused(dir, MOE_E_IO, "model.safetensors", "Permission denied",
                "unreadable weights");
    }
    unlink(in_dir(dir, "model.safetensors"));
    ok(symlink("nowhere", in_dir(dir, "config2")) == 0, "a dangling link");
    put_text(dir, INDEX, "{\"weight_map\":{\"a\":\"config2\"}}");
    refused(dir, MOE_E_NOT_FOUND, "config2", "named by the index",
            "a shard that is a dangling link");
    drop_dir(dir);
}

static void
bad_index(const char *index, moe_status want, const char *file,
          const char *thing, const char *what)
{
    const char *dir = new_dir();

    put_text(dir, "config.json", "{}");
    put_header(dir, "one.safetensors", A, 8);
    put_header(dir, "two.safetensors", B, 8);
    put_text(dir, INDEX, index);
    refused(dir, want, file, thing, what);
    drop_dir(dir);
}

#define MAP(x) "{\"weight_map\":{" x "}}"

static void
indexes(void)
{
    bad_index("{", MOE_E_CORRUPT, INDEX, "not JSON", "cut index");
    bad_index("{}", MOE_E_CORRUPT, INDEX, "\"weight_map\" is missing",
              "no map");
    bad_index("{\"weight_map\":[]}", MOE_E_CORRUPT, INDEX,
              "an object expected, array found", "a list for the map");
    bad_index(MAP(""), MOE_E_CORRUPT, INDEX, "no tensors", "empty map");
    bad_index(MAP("\"a\":\"one.safetensors\",\"a\":\"two.safetensors\""),
              MOE_E_CORRUPT, INDEX, "the key \"a\" is there twice",
              "a tensor in two files");
    bad_index(MAP("\"a\":3"), MOE_E_CORRUPT, INDEX, "weight_map.a",
              "a number for a file");
    bad_index(MAP("\"a\":\"../one.safetensors\""), MOE_E_CORRUPT, INDEX,
              "\"../one.safetensors\" is no file name", "out of the folder");
    bad_index(MAP("\"a\":\"/etc/passwd\""), MOE_E_CORRUPT, INDEX,
              "no file name of this folder", "an absolute name");
    bad_index(MAP("\"a\":\"..\""), MOE_E_CORRUPT, INDEX, "no file name",
              "the folder above");
    bad_index(MAP("\"a\":\"\""), MOE_E_CORRUPT, INDEX, "no file name",
              "an empty name");
    bad_index(MAP("\"a\":\"one.safetensors\\u0000.x\""), MOE_E_CORRUPT, INDEX,
              "no file name", "a name with NUL");
    bad_index(MAP("\"a\":\"one.safetensors\",\"b\":\"three.safetensors\""),
              MOE_E_NOT_FOUND, "three.safetensors", "named by the index",
              "a missing shard");
    bad_index(MAP("\"a\":\"one.safetensors\",\"c\":\"two.safetensors\""),
              MOE_E_CORRUPT, INDEX,
              "tensor \"c\" should be in two.safetensors, but is not",
              "a tensor that is not there");
    bad_index(MAP("\"a\":\"two.safetensors\",\"b\":\"one.safetensors\""),
              MOE_E_CORRUPT, INDEX, "should be in two.safetensors, but is in "
                                    "one.safetensors",
              "tensors in each other's shard");
}

static void
two_shards(void)
{
    const char            *dir = new_dir();
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c = NULL;
    unsigned char          buf[8];

    put_text(dir, "config.json", "{}");
    put_header(dir, "one.safetensors", A, 8);
    put_header(dir, "two.safetensors", A, 8);
    put_text(dir, INDEX, MAP("\"a\":\"one.safetensors\","
                             "\"x\":\"two.safetensors\""));
    refused(dir, MOE_E_CORRUPT, "two.safetensors", "tensor \"a\" is in",
            "one name in two shards");
    put_header(dir, "two.safetensors", B, 7);
    put_text(dir, INDEX, MAP("\"b\":\"two.safetensors\","
                             "\"a\":\"one.safetensors\""));
    refused(dir, MOE_E_CORRUPT, "two.safetensors", "truncated",
            "a truncated shard");
    put_header(dir, "two.safetensors", B, 8);
    if (is_ok(moe_checkpoint_open(dir, &c, &err), &err)) {
        is_int(moe_checkpoint_files(c), 2, "two files");
        is_int(moe_checkpoint_count(c), 2, "two tensors");
        is_str(moe_checkpoint_dir(c), dir, "the folder");
        has_str(moe_checkpoint_file(c, moe_checkpoint_find(c, "b")->file),
                "two.safetensors", "b is in the second");
        is_int(moe_checkpoint_read(c, moe_checkpoint_find(c, "b"), 7, 1, buf,
                                   &err), MOE_OK, "read from it");
        is_int(buf[0], 7, "its last byte");
        ok(moe_checkpoint_generation(c) == NULL, "no generation_config");
        ok(json_object_is_type(moe_checkpoint_config(c), json_type_object),
           "the configuration");
        ok(moe_checkpoint_at(c, 2) == NULL && moe_checkpoint_file(c, 2) == NULL,
           "nothing past the end");
        moe_checkpoint_close(c);
    }
    /* the single file wins over an index, as it does elsewhere */
    put_header(dir, "model.safetensors", B, 8);
    put_text(dir, INDEX, "{");
    is_int(open_status(dir, &err), MOE_OK, "single file and index: %s",
           err.text);
    moe_checkpoint_close(NULL);
    drop_dir(dir);
}

static void
many_names(void)
{
    const char            *dir = new_dir();
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c = NULL;
    char                  *text = malloc(64 * 20001), name[32];
    size_t                 n = 0, i, wrong = 0;

    put_text(dir, "config.json", "{}");
    text[n++] = '{';
    for (i = 0; i < 20000; i++)
        n += (size_t) sprintf(text + n, "%s\"t%zu\":{\"dtype\":\"U8\","
                                        "\"shape\":[1],\"data_offsets\":[%zu,"
                                        "%zu]}",
                              i > 0 ? "," : "", i, i, i + 1);
    strcpy(text + n, "}");
    put_header(dir, "model.safetensors", text, 20000);
    free(text);
    if (is_ok(moe_checkpoint_open(dir, &c, &err), &err)) {
        for (i = 0; i < 20000; i++) {
            const struct moe_tensor_info *t;

            snprintf(name, sizeof(name), "t%zu", i);
            t = moe_checkpoint_find(c, name);
            wrong += t == NULL || t != moe_checkpoint_at(c, i);
        }
        is_int(wrong, 0, "20,000 names are found");
        ok(moe_checkpoint_find(c, "t20000") == NULL, "and no other");
        moe_checkpoint_close(c);
    }
    drop_dir(dir);
}

static void
long_path(void)
{
    const char      *dir = new_dir();
    char             path[4096];
    struct moe_error err;
    size_t           n;

    n = (size_t) snprintf(path, sizeof(path), "%s/", dir);
    memset(path + n, 'd', 250);
    strcpy(path + n + 250, "/config.json");
    is_int(open_status(path, &err), MOE_E_NOT_FOUND, "a long path");
    has_str(err.text, "no such checkpoint folder", "its reason is not cut");
    has_str(err.text, "/config.json", "nor its end");
    drop_dir(dir);
}

static void
shown(void)
{
    static const struct {
        const char *text, *want;
    } t[] = {
        { "plain", "plain" },
        { "\033[31mred\n", "?[31mred?" },
        { "caf\xc3\xa9 \xe2\x82\xac", "caf\xc3\xa9 \xe2\x82\xac" },
        { "\xc2\x9b" "31m", "?31m" },
        { "bad \xff\xc3", "bad ??" },
        { "cut \xe2\x82", "cut ??" },
    };
    char   buf[MOE_SHOW_MAX + 4], path[MOE_SHOW_PATH_MAX + 4], text[400];
    size_t i;

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        is_str(moe_show(t[i].text, buf), t[i].want, "shown text %zu", i);
        is_str(moe_show_path(t[i].text, path), t[i].want, "shown path %zu",
               i);
    }
    for (i = 0; i < 130; i++)
        memcpy(text + 3 * i, "\xe2\x82\xac", 3);
    text[390] = '\0';
    is_int(strlen(moe_show(text, buf)), 99, "a long text is cut");
    is_str(buf + 93, "\xe2\x82\xac...", "behind a whole character");
    is_int(strlen(moe_show_path(text, path)), 159, "a long path is cut");
    ok(strncmp(path, "...\xe2\x82\xac", 6) == 0,
       "before a whole character");
}

int
main(void)
{
    shown();
    no_folder();
    hints();
    configs();
    keys_twice();
    odd_files();
    indexes();
    two_shards();
    many_names();
    long_path();
    return tap_done();
}
