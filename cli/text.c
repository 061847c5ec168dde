/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.c - texts that come from outside: prompt files, standard input, and
 * lists as the options write them.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_TEXT (1u << 30) /* bytes; no context holds this much */

int
text_read(const char *path, char **text, size_t *len)
{
    int         from_stdin = strcmp(path, "-") == 0;
    const char *name = from_stdin ? "standard input" : path;
    int         fd = from_stdin ? STDIN_FILENO
                                : open(path, O_RDONLY | O_CLOEXEC);
    size_t      n = 0, cap = 0;
    char       *buf = NULL, *grown;
    ssize_t     got = 1;

    if (fd < 0) {
        say("%s: cannot be opened: %s", name, strerror(errno));
        return EXIT_RUN;
    }
    while (got > 0) {
        if (n + 1 >= cap) {
            cap = cap == 0 ? 65536 : cap * 2;
            grown = cap <= 2 * (size_t) MAX_TEXT ? realloc(buf, cap) : NULL;
            if (grown == NULL) {
                say("%s: too long, or out of memory", name);
                goto drop;
            }
            buf = grown;
        }
        got = read(fd, buf + n, cap - n - 1);
        if (got < 0 && errno == EINTR && signal_came() == 0) {
            got = 1;
            continue;
        }
        if (got < 0) {
            say("%s: cannot be read: %s", name, strerror(errno));
            goto drop;
        }
        n += (size_t) got;
    }
    if (!from_stdin)
        close(fd);
    buf[n] = '\0';
    *text = buf;
    *len = n;
    return EXIT_OK;

drop:
    free(buf);
    if (!from_stdin)
        close(fd);
    return EXIT_RUN;
}

int
text_check(const char *what, const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *) text;
    size_t               i = 0, line = 1, n, k;
    uint32_t             code;

    while (i < len) {
        if (s[i] < 0x80) {
            line += s[i++] == '\n';
            continue;
        }
        if (s[i] >= 0xc2 && s[i] <= 0xdf)
            n = 1, code = s[i] & 0x1fu;
        else if ((s[i] & 0xf0) == 0xe0)
            n = 2, code = s[i] & 0x0fu;
        else if (s[i] >= 0xf0 && s[i] <= 0xf4)
            n = 3, code = s[i] & 0x07u;
        else
            break;
        for (k = 1; k <= n && i + k < len && (s[i + k] & 0xc0) == 0x80; k++)
            code = code << 6 | (s[i + k] & 0x3fu);
        if (k <= n
            || (n == 2 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)))
            || (n == 3 && (code < 0x10000 || code > 0x10ffff)))
            break;
        i += n + 1;
    }
    if (i == len)
        return EXIT_OK;
    say("%s: line %zu, byte %zu (0x%02x) is not UTF-8; convert it first, for "
        "example with iconv",
        what, line, i + 1, s[i]);
    return EXIT_USAGE;
}

static int
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The library has checked the value, so there is nothing to refuse here. */
char **
list_split(const char *value, size_t *n)
{
    size_t      max = 1, table;
    const char *p;
    char      **items, *to;

    *n = 0;
    for (p = value; *p != '\0'; p++)
        max += *p == ',';
    table = max * sizeof(*items);
    items = malloc(table + strlen(value) + 1);
    if (items == NULL)
        return NULL;
    to = (char *) items + table;
    for (p = value;;) {
        char *start = to;

        while (is_blank(*p))
            p++;
        if (*p == '"') {
            for (p++; *p != '"' && *p != '\0'; p++) {
                if (*p == '\\' && p[1] != '\0') {
                    p++;
                    *to++ = *p == 'n'   ? '\n'
                            : *p == 't' ? '\t'
                            : *p == 'r' ? '\r'
                                        : *p;
                } else {
                    *to++ = *p;
                }
            }
            p += strcspn(p, ",");
        } else {
            while (*p != '\0' && *p != ',')
                *to++ = *p++;
            while (to > start && is_blank(to[-1]))
                to--;
        }
        if (to > start) {
            *to++ = '\0';
            items[(*n)++] = start;
        }
        if (*p == '\0')
            break;
        p++;
    }
    return items;
}

int
list_append(char **list, const char *item)
{
    size_t old = *list != NULL ? strlen(*list) : 0;
    char  *grown = realloc(*list, old + 2 * strlen(item) + 4), *to;

    if (grown == NULL)
        return 1;
    *list = grown;
    to = grown + old;
    if (old > 0)
        *to++ = ',';
    *to++ = '"';
    for (; *item != '\0'; item++) {
        if (*item == '"' || *item == '\\') {
            *to++ = '\\';
            *to++ = *item;
        } else if (*item == '\n') {
            *to++ = '\\';
            *to++ = 'n';
        } else {
            *to++ = *item;
        }
    }
    *to++ = '"';
    *to = '\0';
    return 0;
}
