/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.c - one safetensors file: what its header says, checked.
 *
 * Owns the header's parse and every check that needs one file alone.  The
 * object at the top is walked here and only its values are given to json-c,
 * one at a time: so a key that is given twice is seen (a DOM would keep the
 * last), and a header of 100 MB does not become a document of gigabytes.
 */

#include <checkpoint/safetensors.h>

#include <checkpoint/json.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENTRY_MAX    4096u          /* bytes of one tensor's entry */
#define NAME_MAX_LEN 1024u          /* bytes of a tensor's name */
#define METADATA_MAX (1u << 20)     /* bytes of __metadata__ */
#define NAME_BLOCK   (64u * 1024u)

struct moe_name_block {
    struct moe_name_block *next;
    size_t                 used, size;
    char                   text[];
};

static const struct {
    const char *word;
    uint32_t    bits;
} dtypes[] = {
    { "BF16", 16 },       { "F32", 32 },        { "F16", 16 },
    { "I32", 32 },        { "F8_E4M3", 8 },     { "F8_E5M2", 8 },
    { "U8", 8 },          { "I8", 8 },          { "I64", 64 },
    { "U64", 64 },        { "F64", 64 },        { "C64", 64 },
    { "U32", 32 },        { "I16", 16 },        { "U16", 16 },
    { "BOOL", 8 },        { "F8_E8M0", 8 },     { "F8_E4M3FNUZ", 8 },
    { "F8_E5M2FNUZ", 8 }, { "F6_E2M3", 6 },     { "F6_E3M2", 6 },
    { "F4", 4 },
};

uint32_t
moe_safetensors_bits(const char *dtype)
{
    size_t i;

    for (i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strcmp(dtypes[i].word, dtype) == 0)
            return dtypes[i].bits;
    return 0;
}

const char *
moe_safetensors_dtype(const char *dtype, size_t len)
{
    size_t i;

    for (i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strlen(dtypes[i].word) == len
            && memcmp(dtypes[i].word, dtype, len) == 0)
            return dtypes[i].word;
    return NULL;
}

int
moe_safetensors_size(const char *dtype, const uint64_t *dim, uint32_t n_dims,
                     uint64_t *bytes)
{
    uint64_t n = moe_safetensors_bits(dtype);
    uint32_t i;

    for (i = 0; i < n_dims; i++)
        if (__builtin_mul_overflow(n, dim[i], &n))
            return -1;
    if (n % 8 != 0)
        return -1;
    *bytes = n / 8;
    return 0;
}

void
moe_tensor_list_free(struct moe_tensor_list *list)
{
    struct moe_name_block *b = list->names;

    while (b != NULL) {
        struct moe_name_block *next = b->next;

        free(b);
        b = next;
    }
    free(list->at);
    memset(list, 0, sizeof(*list));
}

static char *
keep_name(struct moe_tensor_list *list, const char *name, size_t len)
{
    struct moe_name_block *b = list->names;
    char                  *p;

    if (b == NULL || b->size - b->used < len + 1) {
        b = malloc(sizeof(*b) + NAME_BLOCK);
        if (b == NULL)
            return NULL;
        b->next = list->names;
        b->used = 0;
        b->size = NAME_BLOCK;
        list->names = b;
    }
    p = b->text + b->used;
    memcpy(p, name, len);
    p[len] = '\0';
    b->used += len + 1;
    return p;
}

static struct moe_tensor_info *
add_tensor(struct moe_tensor_list *list)
{
    if (list->n == list->cap) {
        size_t                  cap = list->cap == 0 ? 256 : 2 * list->cap;
        struct moe_tensor_info *at = realloc(list->at, cap * sizeof(*at));

        if (at == NULL)
            return NULL;
        list->at = at;
        list->cap = cap;
    }
    memset(&list->at[list->n], 0, sizeof(list->at[0]));
    return &list->at[list->n++];
}

moe_status
moe_file_read(int fd, const char *shown, uint64_t offset, uint64_t len,
              void *dst, struct moe_error *err)
{
    char    *p = dst;
    uint64_t got = 0;

    while (got < len) {
        /* Linux transfers at most 2 GiB - 4 KiB a call */
        uint64_t want = len - got > 0x40000000u ? 0x40000000u : len - got;
        ssize_t  r = pread(fd, p + got, (size_t) want, (off_t) (offset + got));

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return moe_fail(err, MOE_E_IO, errno,
                            "%s: read error at byte %llu: %s", shown,
                            (unsigned long long) (offset + got),
                            strerror(errno));
        if (r == 0)
            return moe_fail(err, MOE_E_IO, 0,
                            "%s: ends at byte %llu, %llu more were expected: "
                            "the file was cut since it was opened", shown,
                            (unsigned long long) (offset + got),
                            (unsigned long long) (len - got));
        got += (uint64_t) r;
    }
    return MOE_OK;
}

/* ------------------------------------------------------------ scanning -- */

struct scan {
    const char          *text;
    size_t               len, i;
    const char          *shown;
    struct json_tokener *tok;
    struct moe_error    *err;
};

static moe_status
not_json(const struct scan *s, const char *what)
{
    return moe_fail(s->err, MOE_E_CORRUPT, 0,
                    "%s: header, byte %zu: not JSON: %s", s->shown, s->i,
                    what);
}

static void
skip_space(struct scan *s)
{
    while (s->i < s->len
           && (s->text[s->i] == ' ' || s->text[s->i] == '\n'
               || s->text[s->i] == '\t' || s->text[s->i] == '\r'))
        s->i++;
}

/* s->i is at a quote: moves behind the closing one. */
static int
skip_string(struct scan *s)
{
    for (s->i++; s->i < s->len; s->i++) {
        if (s->text[s->i] == '"') {
            s->i++;
            return 0;
        }
        if (s->text[s->i] == '\\')
            s->i++;
    }
    s->i = s->len;
    return -1;
}

/* s->i is at '{': moves behind its '}'.  *keys: colons of its own level. */
static int
skip_object(struct scan *s, size_t *keys)
{
    size_t depth = 0;

    *keys = 0;
    while (s->i < s->len) {
        switch (s->text[s->i]) {
        case '"':
            if (skip_string(s) != 0)
                return -1;
            continue;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (--depth == 0) {
                s->i++;
                return 0;
            }
            break;
        case ':':
            *keys += depth == 1;
            break;
        case '\'': /* json-c takes it for a quote */
        case '/':  /* and this for a comment's start */
            return -1;
        default:
            break;
        }
        s->i++;
    }
    return -1;
}

/* text[from, to) by json-c, strictly.  NULL: *why says why not. */
static struct json_object *
parse_value(const struct scan *s, size_t from, size_t to, const char **why)
{
    struct json_object     *obj;
    enum json_tokener_error e;

    json_tokener_reset(s->tok);
    obj = json_tokener_parse_ex(s->tok, s->text + from, (int) (to - from));
    e = json_tokener_get_error(s->tok);
    if (e == json_tokener_success
        && json_tokener_get_parse_end(s->tok) == to - from)
        return obj;
    *why = e == json_tokener_success    ? "text after a value"
           : e == json_tokener_continue ? "a value without an end"
                                        : json_tokener_error_desc(e);
    json_object_put(obj);
    return NULL;
}

/* The key at [from, to), quotes included, as a checked name in the list. */
static moe_status
read_name(struct scan *s, struct moe_tensor_list *list, size_t from,
          size_t to, const char **name)
{
    struct json_object *str = NULL;
    const char         *p = s->text + from + 1, *why = "";
    size_t              len = to - from - 2, i;
    moe_status          status = MOE_OK;
    int                 plain = 1;

    for (i = 0; i < len; i++)
        if (p[i] == '\\' || (unsigned char) p[i] >= 0x80)
            plain = 0;
    s->i = from;
    if (!plain) {
        str = parse_value(s, from, to, &why);
        if (str == NULL)
            return not_json(s, why);
        p = json_object_get_string(str);
        len = (size_t) json_object_get_string_len(str);
    }
    for (i = 0; i < len; i++)
        if ((unsigned char) p[i] < 0x20 || p[i] == 0x7f) {
            status = moe_fail(s->err, MOE_E_CORRUPT, 0,
                              "%s: header, byte %zu: a tensor's name with a "
                              "control character", s->shown, from);
            goto out;
        }
    if (len == 0 || len > NAME_MAX_LEN) {
        status = moe_fail(s->err, MOE_E_CORRUPT, 0,
                          "%s: header, byte %zu: a tensor's name of %zu "
                          "bytes, 1 to %u are read", s->shown, from, len,
                          NAME_MAX_LEN);
        goto out;
    }
    *name = keep_name(list, p, len);
    if (*name == NULL)
        status = moe_fail(s->err, MOE_E_NOMEM, ENOMEM,
                          "%s: no memory for the names of its tensors",
                          s->shown);
out:
    json_object_put(str);
    return status;
}

/* ------------------------------------------------------------- entries -- */

static moe_status
bad_entry(const struct scan *s, const char *name, const char *what)
{
    char show[MOE_SHOW_MAX + 4];

    return moe_fail(s->err, MOE_E_CORRUPT, 0, "%s: tensor \"%s\": %s",
                    s->shown, moe_show(name, show), what);
}

/* An element of shape or data_offsets. */
static int
whole_number(const struct json_object *v, uint64_t *out)
{
    if (!json_object_is_type(v, json_type_int)
        || json_object_get_int64(v) < 0)
        return -1;
    *out = json_object_get_uint64(v);
    return 0;
}

/* obj: one tensor's entry.  data_bytes: what lies behind the header. */
static moe_status
read_entry(const struct scan *s, const struct json_object *obj,
           uint64_t data_bytes, struct moe_tensor_info *t)
{
    struct json_object *dtype, *shape, *range;
    char                show[MOE_SHOW_MAX + 4];
    uint64_t            begin, end, bytes;
    size_t              i, n;

    if (!json_object_object_get_ex(obj, "dtype", &dtype)
        || !json_object_is_type(dtype, json_type_string))
        return bad_entry(s, t->name, "\"dtype\" is missing or no string");
    if (!json_object_object_get_ex(obj, "shape", &shape)
        || !json_object_is_type(shape, json_type_array))
        return bad_entry(s, t->name, "\"shape\" is missing or no list");
    if (!json_object_object_get_ex(obj, "data_offsets", &range)
        || !json_object_is_type(range, json_type_array)
        || json_object_array_length(range) != 2)
        return bad_entry(s, t->name,
                         "\"data_offsets\" is missing or no pair");

    t->dtype = moe_safetensors_dtype(
        json_object_get_string(dtype),
        (size_t) json_object_get_string_len(dtype));
    if (t->dtype == NULL) {
        char word[MOE_SHOW_MAX + 4];

        return moe_fail(s->err, MOE_E_UNSUPPORTED, 0,
                        "%s: tensor \"%s\": unknown dtype \"%s\"", s->shown,
                        moe_show(t->name, show),
                        moe_show(json_object_get_string(dtype), word));
    }

    n = json_object_array_length(shape);
    if (n > MOE_TENSOR_DIMS)
        return moe_fail(s->err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\": %zu dimensions, at most %u are "
                        "read", s->shown, moe_show(t->name, show), n,
                        MOE_TENSOR_DIMS);
    t->n_dims = (uint32_t) n;
    for (i = 0; i < n; i++)
        if (whole_number(json_object_array_get_idx(shape, i), &t->dim[i]) != 0)
            return bad_entry(s, t->name,
                             "\"shape\" holds something that is no size");
    if (whole_number(json_object_array_get_idx(range, 0), &begin) != 0
        || whole_number(json_object_array_get_idx(range, 1), &end) != 0)
        return bad_entry(s, t->name,
                         "\"data_offsets\" holds something that is no "
                         "offset");

    if (moe_safetensors_size(t->dtype, t->dim, t->n_dims, &bytes) != 0)
        return bad_entry(s, t->name,
                         "its shape and dtype give no size in bytes");
    if (begin > end)
        return moe_fail(s->err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\": its data ends at %llu, before it "
                        "begins at %llu", s->shown, moe_show(t->name, show),
                        (unsigned long long) end,
                        (unsigned long long) begin);
    if (end - begin != bytes)
        return moe_fail(s->err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\": shape and %s need %llu bytes, "
                        "data_offsets hold %llu", s->shown,
                        moe_show(t->name, show), t->dtype,
                        (unsigned long long) bytes,
                        (unsigned long long) (end - begin));
    if (end > data_bytes)
        return moe_fail(s->err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\" ends at byte %llu of the data, "
                        "the file has %llu: it is truncated, fetch it again",
                        s->shown, moe_show(t->name, show),
                        (unsigned long long) end,
                        (unsigned long long) data_bytes);
    t->offset = begin; /* of the data, until all are sorted */
    t->bytes = bytes;
    return MOE_OK;
}

/* __metadata__: strings by name; nothing in it is used. */
static moe_status
check_metadata(struct scan *s, const struct json_object *obj)
{
    struct json_object_iterator i = json_object_iter_begin(
        (struct json_object *) (uintptr_t) obj);
    struct json_object_iterator end = json_object_iter_end(
        (struct json_object *) (uintptr_t) obj);

    for (; !json_object_iter_equal(&i, &end); json_object_iter_next(&i))
        if (!json_object_is_type(json_object_iter_peek_value(&i),
                                 json_type_string))
            return not_json(s, "__metadata__ may hold strings only");
    return MOE_OK;
}

/* One NAME: {...} of the header. */
static moe_status
read_pair(struct scan *s, uint32_t file, uint64_t data_bytes,
          struct moe_tensor_list *list)
{
    static const char   metadata[] = "\"__metadata__\"";
    struct json_object *obj;
    const char         *name = NULL, *why = "";
    size_t              from, to, keys, max;
    moe_status          status;
    int                 is_metadata;

    skip_space(s);
    if (s->i >= s->len || s->text[s->i] != '"')
        return not_json(s, "a name in quotes is expected");
    from = s->i;
    if (skip_string(s) != 0)
        return not_json(s, "a string without an end");
    to = s->i;
    is_metadata = to - from == sizeof(metadata) - 1
                  && memcmp(s->text + from, metadata, to - from) == 0;
    if (!is_metadata) {
        status = read_name(s, list, from, to, &name);
        if (status != MOE_OK)
            return status;
    }
    s->i = to;
    skip_space(s);
    if (s->i >= s->len || s->text[s->i] != ':')
        return not_json(s, "a colon is expected");
    s->i++;
    skip_space(s);
    if (s->i >= s->len || s->text[s->i] != '{')
        return not_json(s, "an object is expected");
    from = s->i;
    if (skip_object(s, &keys) != 0)
        return not_json(s, s->i < s->len ? "a stray character"
                                         : "an object without an end");
    to = s->i;

    max = is_metadata ? METADATA_MAX : ENTRY_MAX;
    if (to - from > max) {
        s->i = from;
        return moe_fail(s->err, MOE_E_CORRUPT, 0,
                        "%s: header, byte %zu: an entry of %zu bytes, at "
                        "most %zu are read", s->shown, from, to - from, max);
    }
    obj = parse_value(s, from, to, &why);
    if (obj == NULL) {
        s->i = from;
        return not_json(s, why);
    }
    if ((size_t) json_object_object_length(obj) != keys) {
        s->i = from;
        status = not_json(s, "an entry that gives a key twice");
    } else if (is_metadata) {
        status = check_metadata(s, obj);
    } else {
        struct moe_tensor_info *t = add_tensor(list);

        if (t == NULL) {
            status = moe_fail(s->err, MOE_E_NOMEM, ENOMEM,
                              "%s: no memory for its list of tensors",
                              s->shown);
        } else {
            t->name = name;
            t->file = file;
            status = read_entry(s, obj, data_bytes, t);
        }
    }
    json_object_put(obj);
    return status;
}

static moe_status
read_header(struct scan *s, uint32_t file, uint64_t data_bytes,
            struct moe_tensor_list *list)
{
    moe_status status;

    skip_space(s);
    if (s->i >= s->len || s->text[s->i] != '{')
        return not_json(s, "an object is expected");
    s->i++;
    skip_space(s);
    if (s->i < s->len && s->text[s->i] == '}') {
        s->i++;
    } else {
        for (;;) {
            status = read_pair(s, file, data_bytes, list);
            if (status != MOE_OK)
                return status;
            skip_space(s);
            if (s->i < s->len && s->text[s->i] == ',') {
                s->i++;
                continue;
            }
            if (s->i < s->len && s->text[s->i] == '}') {
                s->i++;
                break;
            }
            return not_json(s, "a comma or the end of the object is "
                               "expected");
        }
    }
    skip_space(s);
    if (s->i < s->len)
        return not_json(s, "text after the end of the object");
    return MOE_OK;
}

/* -------------------------------------------------------------- ranges -- */

static int
by_offset(const void *a, const void *b)
{
    const struct moe_tensor_info *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    /* an empty tensor comes before the one that begins where it lies */
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The tensors t[0, n) cover the data exactly; makes offsets absolute. */
static moe_status
check_ranges(struct moe_tensor_info *t, size_t n, uint64_t data_start,
             uint64_t data_bytes, const char *shown, struct moe_error *err)
{
    char     show[MOE_SHOW_MAX + 4], other[MOE_SHOW_MAX + 4];
    uint64_t at = 0;
    size_t   i;

    if (n > 1)
        qsort(t, n, sizeof(*t), by_offset);
    for (i = 0; i < n; i++) {
        uint32_t bits = moe_safetensors_bits(t[i].dtype);

        if (t[i].offset < at)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: tensors \"%s\" and \"%s\" overlap at byte "
                            "%llu of the data", shown,
                            moe_show(t[i - 1].name, other),
                            moe_show(t[i].name, show),
                            (unsigned long long) t[i].offset);
        if (t[i].offset > at)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: %llu bytes before tensor \"%s\" belong to "
                            "no tensor", shown,
                            (unsigned long long) (t[i].offset - at),
                            moe_show(t[i].name, show));
        at += t[i].bytes;
        t[i].offset += data_start;
        if (bits > 8 && t[i].offset % (bits / 8) != 0)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: tensor \"%s\" is misaligned: %s at byte "
                            "%llu; save the file again with a current "
                            "safetensors", shown, moe_show(t[i].name, show),
                            t[i].dtype, (unsigned long long) t[i].offset);
    }
    if (at != data_bytes)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: %llu bytes after the last tensor belong to no "
                        "tensor", shown,
                        (unsigned long long) (data_bytes - at));
    return MOE_OK;
}

moe_status
moe_safetensors_read(int fd, uint64_t file_bytes, const char *shown,
                     uint32_t file, struct moe_tensor_list *list,
                     struct moe_error *err)
{
    struct scan   s = { 0 };
    unsigned char head[8];
    uint64_t      len = 0, data_start, data_bytes;
    size_t        first = list->n;
    moe_status    status;
    char         *text = NULL;
    int           i;

    if (file_bytes < sizeof(head))
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: %llu bytes are too few for a safetensors file",
                        shown, (unsigned long long) file_bytes);
    status = moe_file_read(fd, shown, 0, sizeof(head), head, err);
    if (status != MOE_OK)
        return status;
    for (i = 7; i >= 0; i--)
        len = len << 8 | head[i];
    if (len > MOE_SAFETENSORS_HEADER_MAX)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: a header of %llu bytes, at most %u are read: "
                        "this is no safetensors file", shown,
                        (unsigned long long) len, MOE_SAFETENSORS_HEADER_MAX);
    if (len > file_bytes - sizeof(head))
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: a header of %llu bytes in a file of %llu: it is "
                        "truncated, fetch it again", shown,
                        (unsigned long long) len,
                        (unsigned long long) file_bytes);
    data_start = sizeof(head) + len;
    data_bytes = file_bytes - data_start;

    text = malloc((size_t) len + 1);
    s.tok = json_tokener_new_ex(8);
    if (text == NULL || s.tok == NULL) {
        status = moe_fail(err, MOE_E_NOMEM, ENOMEM,
                          "%s: no memory for its header of %llu bytes", shown,
                          (unsigned long long) len);
        goto out;
    }
    json_tokener_set_flags(s.tok,
                           JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    status = moe_file_read(fd, shown, sizeof(head), len, text, err);
    if (status != MOE_OK)
        goto out;
    s.text = text;
    s.len = (size_t) len;
    s.shown = shown;
    s.err = err;
    status = read_header(&s, file, data_bytes, list);
    if (status == MOE_OK)
        status = check_ranges(list->at + first, list->n - first, data_start,
                              data_bytes, shown, err);
out:
    if (s.tok != NULL)
        json_tokener_free(s.tok);
    free(text);
    return status;
}
