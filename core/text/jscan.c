/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jscan.c - see jscan.h.
 */
#include "text/jscan.h"

#include <string.h>

#include "text/unicode.h"

#define MAX_DEPTH 64

void
moe_jscan_space(struct moe_jscan *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n'
                              || *j->at == '\r' || *j->at == '\t'))
        j->at++;
}

int
moe_jscan_peek(struct moe_jscan *j, char c)
{
    moe_jscan_space(j);
    return j->at < j->end && *j->at == c;
}

int
moe_jscan_char(struct moe_jscan *j, char c)
{
    if (!moe_jscan_peek(j, c))
        return 0;
    j->at++;
    return 1;
}

int
moe_jscan_end(struct moe_jscan *j)
{
    moe_jscan_space(j);
    return j->at == j->end;
}

int
moe_jscan_string(struct moe_jscan *j, struct moe_jstr *s)
{
    const char *p;

    if (!moe_jscan_peek(j, '"'))
        return 0;
    s->text = p = j->at + 1;
    s->escaped = 0;
    for (; p < j->end && *p != '"'; p++) {
        if ((uint8_t) *p < 0x20)
            break;
        if (*p == '\\') {
            s->escaped = 1;
            if (++p == j->end)
                break;
        }
    }
    if (p >= j->end || *p != '"') {
        j->at = p < j->end ? p : j->end;
        return 0;
    }
    s->len = (size_t) (p - s->text);
    j->at = p + 1;
    return 1;
}

int
moe_jscan_uint(struct moe_jscan *j, uint64_t *v)
{
    const char *p;

    moe_jscan_space(j);
    p = j->at;
    *v = 0;
    while (p < j->end && *p >= '0' && *p <= '9') {
        if (*v > UINT64_MAX / 10 - 1)
            return 0;
        *v = *v * 10 + (uint64_t) (*p++ - '0');
    }
    if (p == j->at || (p - j->at > 1 && *j->at == '0')
        || (p < j->end && (*p == '.' || *p == 'e' || *p == 'E')))
        return 0;
    j->at = p;
    return 1;
}

/* A number or a name; what exactly is json-c's matter. */
static int
skip_scalar(struct moe_jscan *j)
{
    const char *from = j->at;

    while (j->at < j->end
           && ((*j->at >= '0' && *j->at <= '9')
               || ((*j->at | 32) >= 'a' && (*j->at | 32) <= 'z')
               || *j->at == '-' || *j->at == '+' || *j->at == '.'))
        j->at++;
    return j->at != from;
}

int
moe_jscan_skip(struct moe_jscan *j)
{
    char            close[MAX_DEPTH];
    int             depth = 0;
    struct moe_jstr s;

    for (;;) {
        moe_jscan_space(j);
        if (j->at == j->end)
            return 0;
        if (*j->at == '{' || *j->at == '[') {
            if (depth == MAX_DEPTH)
                return 0;
            close[depth++] = *j->at == '{' ? '}' : ']';
            j->at++;
            if (!moe_jscan_peek(j, close[depth - 1])) {
                if (close[depth - 1] == '}'
                    && (!moe_jscan_string(j, &s) || !moe_jscan_char(j, ':')))
                    return 0;
                continue;
            }
        } else if (*j->at == '"' ? !moe_jscan_string(j, &s)
                                 : !skip_scalar(j)) {
            return 0;
        }
        /* behind a value: close what ends here, or go on behind a comma */
        while (depth > 0 && moe_jscan_char(j, close[depth - 1]))
            depth--;
        if (depth == 0)
            return 1;
        if (!moe_jscan_char(j, ','))
            return 0;
        if (close[depth - 1] == '}'
            && (!moe_jscan_string(j, &s) || !moe_jscan_char(j, ':')))
            return 0;
    }
}

static int
four_hex(const char *p, const char *end, uint32_t *v)
{
    *v = 0;
    if (end - p < 4)
        return 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];

        if (c >= '0' && c <= '9')
            *v = *v * 16 + (uint32_t) (c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            *v = *v * 16 + (uint32_t) ((c | 32) - 'a' + 10);
        else
            return 0;
    }
    return 1;
}

int
moe_jstr_decode(const struct moe_jstr *s, char *out, size_t *len)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char       *p = s->text, *end = p + s->len, *k;
    size_t            n = 0;
    uint32_t          cp, low;

    if (!s->escaped) {
        if (s->len != 0)
            memcpy(out, p, s->len);
        *len = s->len;
        return 1;
    }
    while (p < end) {
        if (*p != '\\') {
            out[n++] = *p++;
            continue;
        }
        p++;
        if (p < end && *p == 'u') {
            if (!four_hex(p + 1, end, &cp) || (cp >= 0xdc00 && cp < 0xe000))
                return 0;
            p += 5;
            if (cp >= 0xd800 && cp < 0xdc00) {
                if (end - p < 6 || p[0] != '\\' || p[1] != 'u'
                    || !four_hex(p + 2, end, &low) || low < 0xdc00
                    || low > 0xdfff)
                    return 0;
                cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
                p += 6;
            }
            n += moe_utf8_put(cp, out + n); /* shorter than its escape */
            continue;
        }
        if (p >= end || *p == '\0' || (k = strchr(from, *p)) == NULL)
            return 0;
        out[n++] = to[k - from];
        p++;
    }
    *len = n;
    return 1;
}

int
moe_jstr_is(const struct moe_jstr *s, const char *text)
{
    return s->len == strlen(text) && memcmp(s->text, text, s->len) == 0;
}
