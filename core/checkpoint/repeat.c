/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repeat.c - keys that an object of a JSON text gives twice.
 *
 * json-c keeps the last value of such a key, as most readers do and as no
 * standard promises: of a file that was merged by hand nobody can tell which
 * one was meant.  A tree that holds fewer keys than its text has colons tells
 * at once; only then the keys are looked at.  The text has been parsed, so it
 * is walked here by json-c's own words, its comments and its single quotes
 * among them.
 */

#include <checkpoint/json.h>

#include <stdlib.h>
#include <string.h>

struct key {
    const char *text; /* between its quotes, escapes not undone */
    size_t      len;
    uint64_t    object; /* a number of its object */
};

/* Keys in obj and all that it holds; its depth is the parser's at most. */
static size_t
held(struct json_object *obj)
{
    size_t n = 0, i;

    if (json_object_is_type(obj, json_type_array)) {
        for (i = 0; i < json_object_array_length(obj); i++)
            n += held(json_object_array_get_idx(obj, i));
    } else if (json_object_is_type(obj, json_type_object)) {
        json_object_object_foreach(obj, name, value)
        {
            (void) name;
            n += 1 + held(value);
        }
    }
    return n;
}

/* Behind a string that begins at p, quotes included. */
static const char *
behind_string(const char *p, const char *end)
{
    char quote = *p++;

    while (p < end && *p != quote)
        p += *p == '\\' && end - p > 1 ? 2 : 1;
    return p < end ? p + 1 : end;
}

/* Behind a comment that begins at p.  Of "**" and a slash json-c takes the
 * two stars together. */
static const char *
behind_comment(const char *p, const char *end)
{
    int line = end - p > 1 && p[1] == '/';

    for (p += end - p > 1 ? 2 : 1; p < end; p++) {
        if (line && *p == '\n')
            return p;
        if (!line && *p == '*' && ++p < end && *p == '/')
            return p + 1;
    }
    return end;
}

/* Keys of a text; the first `max` into out. */
static size_t
keys_of(const char *text, size_t len, struct key *out, size_t max)
{
    const char *p = text, *end = text + len, *from = text, *to = text;
    uint64_t    inside[MOE_JSON_DEPTH + 2] = { 0 }, objects = 0;
    size_t      n = 0, depth = 0;

    while (p < end) {
        if (*p == '"' || *p == '\'') {
            from = p + 1;
            p = behind_string(p, end);
            to = p - 1;
            continue;
        }
        if (*p == '/') {
            p = behind_comment(p, end);
            continue;
        }
        if (*p == '{' || *p == '[') {
            if (depth <= MOE_JSON_DEPTH)
                inside[++depth] = ++objects;
        } else if (*p == '}' || *p == ']') {
            depth -= depth > 0;
        } else if (*p == ':') {
            if (n < max && to >= from)
                out[n] = (struct key){ from, (size_t) (to - from),
                                       inside[depth] };
            n++;
        }
        p++;
    }
    return n;
}

static int
same(const struct key *a, const struct key *b)
{
    return a->object == b->object && a->len == b->len
           && memcmp(a->text, b->text, a->len) == 0;
}

static int
order(const void *pa, const void *pb)
{
    const struct key *a = pa, *b = pb;
    int               c;

    if (a->object != b->object)
        return a->object < b->object ? -1 : 1;
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    c = memcmp(a->text, b->text, a->len);
    return c != 0 ? c : a->text < b->text ? -1 : a->text > b->text;
}

int
moe_json_repeats(const char *text, size_t len, struct json_object *obj,
                 struct moe_json_repeat *out)
{
    size_t      n = keys_of(text, len, NULL, 0), i;
    const char *at = NULL;
    struct key *keys;

    if (n == held(obj))
        return 0;
    out->line = 0;
    snprintf(out->key, sizeof(out->key), "that has escapes");
    keys = calloc(n, sizeof(*keys));
    if (keys == NULL)
        return 1;
    n = keys_of(text, len, keys, n);
    qsort(keys, n, sizeof(*keys), order);
    for (i = 1; i < n; i++)
        if (same(&keys[i - 1], &keys[i])
            && (at == NULL || keys[i].text < at)) {
            char   word[MOE_SHOW_MAX + 2], shown[MOE_SHOW_MAX + 4];
            size_t keep = keys[i].len < sizeof(word) - 1 ? keys[i].len
                                                         : sizeof(word) - 1;

            at = keys[i].text;
            memcpy(word, at, keep);
            word[keep] = '\0';
            snprintf(out->key, sizeof(out->key), "\"%s\"",
                     moe_show(word, shown));
        }
    free(keys);
    if (at != NULL) {
        out->line = 1;
        while (at-- > text)
            out->line += *at == '\n';
    }
    return 1;
}
