/* SPDX-License-Identifier: Apache-2.0 */
/*
 * str.c - a growing text.
 *
 * Owns its memory and nothing else.  An allocation that fails is remembered,
 * not reported at each call: the caller looks at `failed` once, at the end.
 */
#include "support/str.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
moe_str_room(struct moe_str *s, size_t more)
{
    size_t cap = s->cap != 0 ? s->cap : 128;
    char  *text;

    if (s->failed)
        return 0;
    if (more > SIZE_MAX / 2 - s->len - 1) {
        s->failed = 1;
        return 0;
    }
    if (s->len + more + 1 <= s->cap)
        return 1;
    while (cap < s->len + more + 1)
        cap *= 2;
    text = realloc(s->text, cap);
    if (text == NULL) {
        s->failed = 1;
        return 0;
    }
    s->text = text;
    s->cap = cap;
    return 1;
}

void
moe_str_add(struct moe_str *s, const char *text, size_t len)
{
    if (!moe_str_room(s, len))
        return;
    if (len != 0)
        memcpy(s->text + s->len, text, len);
    s->len += len;
    s->text[s->len] = '\0';
}

void
moe_str_addv(struct moe_str *s, const char *fmt, va_list args)
{
    va_list again;
    int     len;

    va_copy(again, args);
    len = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (len < 0 || !moe_str_room(s, (size_t) len)) {
        s->failed = 1;
        return;
    }
    vsnprintf(s->text + s->len, (size_t) len + 1, fmt, args);
    s->len += (size_t) len;
}

void
moe_str_addf(struct moe_str *s, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    moe_str_addv(s, fmt, args);
    va_end(args);
}

/* Bytes of the UTF-8 character at p (at most len), 0 if it is none. */
static size_t
moe_utf8_char(const unsigned char *p, size_t len)
{
    size_t   need, i;
    uint32_t c;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    need = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (need > len)
        return 0;
    c = p[0] & (0xffu >> (need + 1));
    for (i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if ((need == 3 && c < 0x800) || (need == 4 && c < 0x10000) || c > 0x10ffff
        || (c >= 0xd800 && c < 0xe000))
        return 0;
    return need;
}

void
moe_str_add_json(struct moe_str *s, const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *) text;
    size_t               i = 0;

    moe_str_add(s, "\"", 1);
    while (i < len) {
        size_t n = moe_utf8_char(p + i, len - i);

        if (n == 0) {
            moe_str_add(s, "\\ufffd", 6);
            i++;
        } else if (p[i] == '"' || p[i] == '\\') {
            moe_str_addf(s, "\\%c", p[i]);
            i++;
        } else if (p[i] == '\n') {
            moe_str_add(s, "\\n", 2);
            i++;
        } else if (p[i] < 0x20 || p[i] == 0x7f) {
            moe_str_addf(s, "\\u%04x", p[i]);
            i++;
        } else {
            moe_str_add(s, text + i, n);
            i += n;
        }
    }
    moe_str_add(s, "\"", 1);
}

void
moe_str_free(struct moe_str *s)
{
    free(s->text);
    memset(s, 0, sizeof(*s));
}

char *
moe_bytes_text(unsigned long long bytes, char *buf, size_t size)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double                   v = (double) bytes;
    size_t                   u = 0;

    while (v >= 1024.0 && u + 1 < sizeof(unit) / sizeof(unit[0])) {
        v /= 1024.0;
        u++;
    }
    if (u == 0)
        snprintf(buf, size, "%llu B", bytes);
    else
        snprintf(buf, size, "%.*f %s", v < 10 ? 2 : v < 100 ? 1 : 0, v,
                 unit[u]);
    return buf;
}
