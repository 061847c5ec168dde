/* SPDX-License-Identifier: Apache-2.0 */
/* Every way in which one safetensors file can be wrong, and what is right. */
#include "checkpoint/safetensors.h"

#include "folder.h"

#include <fcntl.h>

#define F "model.safetensors"

/* One file in a folder of its own. */
static void
bad(const char *header, size_t data, moe_status want, const char *thing,
    const char *what)
{
    const char *dir = new_dir();

    put_text(dir, "config.json", "{}");
    put_header(dir, F, header, data);
    refused(dir, want, F, thing, what);
    drop_dir(dir);
}

static void
bad_bytes(const void *bytes, size_t len, const char *thing, const char *what)
{
    const char *dir = new_dir();

    put_text(dir, "config.json", "{}");
    put_file(dir, F, bytes, len);
    refused(dir, MOE_E_CORRUPT, F, thing, what);
    drop_dir(dir);
}

static void
bad_length(const char *header, uint64_t said, const char *thing,
           const char *what)
{
    const char *dir = new_dir();

    put_text(dir, "config.json", "{}");
    put_raw(dir, F, header, said, 0);
    refused(dir, MOE_E_CORRUPT, F, thing, what);
    drop_dir(dir);
}

static void
lengths(void)
{
    unsigned char huge[8];

    memset(huge, 0xff, sizeof(huge));
    bad_bytes("", 0, "0 bytes are too few", "empty file");
    bad_bytes("1234567", 7, "7 bytes are too few", "seven bytes");
    bad_bytes(huge, 8, "this is no safetensors file", "length of all ones");
    bad_length("{}", 3, "truncated", "header longer than the file by one");
    bad_length("{}", 100000001, "at most 100000000", "header over 100 MB");
    bad_length("{}", 99999999, "truncated", "header under 100 MB, not there");
    bad_length(" ", 1, "byte 1: not JSON", "blank header");
}

static void
not_json(void)
{
    bad("hello", 0, MOE_E_CORRUPT, "not JSON", "a word");
    bad("[]", 0, MOE_E_CORRUPT, "an object is expected", "a list");
    bad("{\"a\"", 0, MOE_E_CORRUPT, "a colon is expected", "a lone name");
    bad("{\"a", 0, MOE_E_CORRUPT, "a string without an end", "open string");
    bad("{\"a\\", 0, MOE_E_CORRUPT, "a string without an end",
        "open escape");
    bad("{\"a\":1}", 0, MOE_E_CORRUPT, "an object is expected",
        "a number for an entry");
    bad("{\"a\":{\"dtype\":\"F32\"", 0, MOE_E_CORRUPT,
        "an object without an end", "open entry");
    bad("{\"a\":{\"dtype\":\"F32\",}}", 0, MOE_E_CORRUPT, "not JSON",
        "comma before the end, which a lenient reader takes");
    bad("{\"a\":{'dtype':\"F32\"}}", 0, MOE_E_CORRUPT, "not JSON",
        "single quotes, which a lenient reader takes");
    bad("{} x", 0, MOE_E_CORRUPT, "text after the end", "text behind");
    bad("{a:{}}", 0, MOE_E_CORRUPT, "a name in quotes", "bare name");
    bad("{\"\xff\":{}}", 0, MOE_E_CORRUPT, "not JSON",
        "a name that is no UTF-8");
    bad("{\"a\\u0000b\":{}}", 0, MOE_E_CORRUPT, "control character",
        "a name with NUL");
    bad("{\"a\\u001b[31m\":{}}", 0, MOE_E_CORRUPT, "control character",
        "a name that would colour a terminal");
    bad("{\"\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
        MOE_E_CORRUPT, "name of 0 bytes", "an empty name");
    bad("{\"__metadata__\":{\"format\":1}}", 0, MOE_E_CORRUPT,
        "strings only", "a number in __metadata__");
    bad("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, MOE_E_CORRUPT,
        "key twice", "a metadata key twice");
}

#define ENTRY(dtype, shape, range)                                            \
    "{\"w\":{\"dtype\":" dtype ",\"shape\":" shape                            \
    ",\"data_offsets\":" range "}}"

static void
entries(void)
{
    bad("{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, MOE_E_CORRUPT,
        "\"w\": \"dtype\"", "no dtype");
    bad("{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4,
        MOE_E_CORRUPT, "\"w\": \"shape\"", "no shape");
    bad("{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, MOE_E_CORRUPT,
        "\"w\": \"data_offsets\"", "no offsets");
    bad(ENTRY("\"F33\"", "[1]", "[0,4]"), 4, MOE_E_UNSUPPORTED,
        "\"w\": unknown dtype \"F33\"", "unknown dtype");
    bad(ENTRY("32", "[1]", "[0,4]"), 4, MOE_E_CORRUPT, "\"dtype\"",
        "dtype a number");
    bad(ENTRY("\"F32\"", "1", "[0,4]"), 4, MOE_E_CORRUPT, "\"shape\"",
        "shape a number");
    bad(ENTRY("\"F32\"", "[1.0]", "[0,4]"), 4, MOE_E_CORRUPT, "no size",
        "shape with a fraction");
    bad(ENTRY("\"F32\"", "[-1]", "[0,4]"), 4, MOE_E_CORRUPT, "no size",
        "negative shape");
    bad(ENTRY("\"F32\"", "[null]", "[0,4]"), 4, MOE_E_CORRUPT, "no size",
        "null in shape");
    bad(ENTRY("\"F32\"", "[1]", "[0]"), 4, MOE_E_CORRUPT, "no pair",
        "one offset");
    bad(ENTRY("\"F32\"", "[1]", "[0,4,8]"), 4, MOE_E_CORRUPT, "no pair",
        "three offsets");
    bad(ENTRY("\"F32\"", "[1]", "[-4,0]"), 4, MOE_E_CORRUPT, "no offset",
        "negative offset");
    bad(ENTRY("\"F32\"", "[1]", "[4,0]"), 4, MOE_E_CORRUPT,
        "before it begins", "offsets the wrong way round");
    bad(ENTRY("\"F32\"", "[1]", "[0,8]"), 8, MOE_E_CORRUPT,
        "\"w\": shape and F32 need 4 bytes, data_offsets hold 8",
        "range larger than the shape");
    bad(ENTRY("\"F32\"", "[3]", "[0,8]"), 8, MOE_E_CORRUPT,
        "need 12 bytes", "range smaller than the shape");
    bad(ENTRY("\"F32\"", "[2]", "[0,8]"), 4, MOE_E_CORRUPT,
        "\"w\" ends at byte 8 of the data, the file has 4",
        "truncated data");
    bad(ENTRY("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0,
        MOE_E_CORRUPT, "no size", "2^64 elements, which overflow to 0");
    bad(ENTRY("\"U8\"", "[18446744073709551615]",
              "[0,18446744073709551615]"), 0, MOE_E_CORRUPT,
        "no size", "2^64 - 1 bytes, whose bits overflow");
    bad(ENTRY("\"F64\"", "[2305843009213693952]", "[0,0]"), 0,
        MOE_E_CORRUPT, "no size", "2^61 doubles");
    bad(ENTRY("\"U8\"", "[99999999999999999999999]", "[0,0]"), 0,
        MOE_E_CORRUPT, "\"w\"", "a size beyond 64 bits");
    bad(ENTRY("\"F4\"", "[3]", "[0,1]"), 1, MOE_E_CORRUPT, "no size",
        "three half bytes");
    bad(ENTRY("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, MOE_E_CORRUPT,
        "9 dimensions", "nine dimensions");
    bad("{\"w\":{\"dtype\":\"F32\",\"dtype\":\"I32\",\"shape\":[1],"
        "\"data_offsets\":[0,4]}}", 4, MOE_E_CORRUPT, "key twice",
        "dtype twice");
}

#define T(name, from, to)                                                     \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" from    \
    "," to "]}"

static void
ranges(void)
{
    bad("{" T("a", "0", "4") "," T("b", "0", "4") "}", 4, MOE_E_CORRUPT,
        "\"a\" and \"b\" overlap", "two tensors in one place");
    bad("{" T("a", "0", "4") "," T("b", "2", "6") "}", 6, MOE_E_CORRUPT,
        "overlap at byte 2", "half overlap");
    bad("{" T("a", "0", "4") "," T("b", "5", "9") "}", 9, MOE_E_CORRUPT,
        "1 bytes before tensor \"b\"", "a hole");
    bad("{" T("a", "1", "5") "}", 5, MOE_E_CORRUPT,
        "1 bytes before tensor \"a\"", "a hole at the start");
    bad("{" T("a", "0", "4") "}", 5, MOE_E_CORRUPT,
        "1 bytes after the last tensor", "data that nobody owns");
    bad("{" T("a", "0", "4") "," T("a", "4", "8") "}", 8, MOE_E_CORRUPT,
        "\"a\" is there twice", "a name twice");
    bad("{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}", 5,
        MOE_E_CORRUPT, "\"a\" is misaligned: F32", "misaligned float");
    bad("{}", 0, MOE_E_CORRUPT, "no tensors", "no tensor at all");
}

static void
odd_header(void)
{
    const char *dir = new_dir();

    /* 72 + 1 bytes of header: data of 4-byte elements begins at 81 */
    put_text(dir, "config.json", "{}");
    put_raw(dir, F,
            "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
            " ", 0, 4);
    refused(dir, MOE_E_CORRUPT, F, "misaligned", "header of odd length");
    drop_dir(dir);
}

static void
long_things(void)
{
    const char *dir = new_dir();
    char       *text = malloc(3u << 20);
    size_t      n;

    if (text == NULL)
        return;
    put_text(dir, "config.json", "{}");
    n = (size_t) sprintf(text, "{\"");
    memset(text + n, 'n', 1025);
    strcpy(text + n + 1025, "\":{\"dtype\":\"U8\",\"shape\":[1],"
                            "\"data_offsets\":[0,1]}}");
    put_header(dir, F, text, 1);
    refused(dir, MOE_E_CORRUPT, F, "name of 1025 bytes", "a long name");

    n = (size_t) sprintf(text, "{\"w\":{\"x\":\"");
    memset(text + n, 'x', 5000);
    strcpy(text + n + 5000, "\"}}");
    put_header(dir, F, text, 0);
    refused(dir, MOE_E_CORRUPT, F, "at most 4096", "a long entry");

    n = (size_t) sprintf(text, "{\"__metadata__\":{\"x\":\"");
    memset(text + n, 'x', 2u << 20);
    strcpy(text + n + (2u << 20), "\"}}");
    put_header(dir, F, text, 0);
    refused(dir, MOE_E_CORRUPT, F, "at most 1048576", "two MB of metadata");

    n = (size_t) sprintf(text, "{\"w\":");
    memset(text + n, '{', 100000);
    text[n + 100000] = '\0';
    put_header(dir, F, text, 0);
    refused(dir, MOE_E_CORRUPT, F, "without an end", "100,000 open braces");
    n = (size_t) sprintf(text, "{\"w\":{\"a\":");
    memset(text + n, '[', 1000);
    memset(text + n + 1000, ']', 1000);
    strcpy(text + n + 2000, "}}");
    put_header(dir, F, text, 0);
    refused(dir, MOE_E_CORRUPT, F, "not JSON", "a thousand nested lists");
    free(text);
    drop_dir(dir);
}

static void
valid(void)
{
    const char            *dir = new_dir();
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c = NULL;
    const struct moe_tensor_info *t;
    unsigned char          buf[8];

    put_text(dir, "config.json", "{}");
    /* header order is not data order; an empty tensor; escapes in a name */
    put_header(dir, F,
               "{\"__metadata__\":{\"format\":\"pt\"},"
               "\"b\\u00e9\\\"\":{\"dtype\":\"U8\",\"shape\":[2,2],"
               "\"data_offsets\":[4,8]},"
               "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]"
               "},\"e\":{\"dtype\":\"F32\",\"shape\":[0,5],"
               "\"data_offsets\":[4,4]},\"half\":{\"dtype\":\"F4\","
               "\"shape\":[2],\"data_offsets\":[8,9]}}", 9);
    if (!is_ok(moe_checkpoint_open(dir, &c, &err), &err))
        return;
    is_int(moe_checkpoint_count(c), 4, "four tensors");
    is_str(moe_checkpoint_at(c, 0)->name, "a", "in the order of the data");
    is_str(moe_checkpoint_at(c, 1)->name, "e", "an empty one first");
    t = moe_checkpoint_find(c, "b\xc3\xa9\"");
    ok(t != NULL && t->bytes == 4 && t->n_dims == 2 && t->dim[1] == 2,
       "a name with escapes is found");
    is_str(t->dtype, "U8", "its dtype");
    is_int(moe_checkpoint_read(c, t, 1, 3, buf, &err), MOE_OK, "read");
    ok(buf[0] == 5 && buf[1] == 6 && buf[2] == 7, "its bytes");
    is_int(moe_checkpoint_read(c, t, 4, 0, buf, &err), MOE_OK,
           "nothing at the end");
    is_int(moe_checkpoint_read(c, t, 2, 3, buf, &err), MOE_E_INVAL,
           "not past the end");
    is_int(moe_checkpoint_read(c, t, UINT64_MAX, 2, buf, &err), MOE_E_INVAL,
           "not by overflow");
    ok(moe_checkpoint_find(c, "c") == NULL, "an unknown name");

    /* the file is cut while it is open */
    ok(truncate(in_dir(dir, F), 100) == 0, "cut");
    t = moe_checkpoint_find(c, "half");
    is_int(moe_checkpoint_read(c, t, 0, 1, buf, &err), MOE_E_IO,
           "a read past the new end");
    has_str(err.text, F, "names the file");
    has_str(err.text, "cut since it was opened", "says why");
    moe_checkpoint_close(c);
    drop_dir(dir);
}

int
main(void)
{
    lengths();
    not_json();
    entries();
    ranges();
    odd_header();
    long_things();
    valid();
    return tap_done();
}
