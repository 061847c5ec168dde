/* SPDX-License-Identifier: Apache-2.0 */
/*
 * out.c - the two streams.
 *
 * Owns standard output (text, tables, JSON) and the one-line messages on
 * standard error.  Every write is checked: a reader that went away ends the
 * work quietly, a full disk is an error.
 */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int failed; /* the errno of the first write that failed */

/* ------------------------------------------------------- standard error -- */

void
say(const char *fmt, ...)
{
    char           line[2048];
    va_list        args;
    unsigned char *p;

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    for (p = (unsigned char *) line; *p != '\0'; p++)
        if (*p < 0x20 || *p == 0x7f
            || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)) /* C1 */
            *p = '?';
    fprintf(stderr, "moe-run: %s\n", line);
}

int
exit_status(moe_status status)
{
    switch (status) {
    case MOE_OK:
        return EXIT_OK;
    case MOE_E_INVAL:
        return EXIT_USAGE;
    case MOE_E_UNSUPPORTED:
        return EXIT_UNSUPPORTED;
    case MOE_E_CORRUPT:
        return EXIT_CORRUPT;
    case MOE_E_OVER_BUDGET:
        return EXIT_BUDGET;
    case MOE_E_CANCELED:
        return signal_came() != 0 ? 128 + signal_came() : EXIT_RUN;
    default:
        return status <= MOE_E_ABI && status > MOE_E_INTERNAL ? EXIT_PLUGIN
                                                              : EXIT_RUN;
    }
}

int
fail(const struct moe_error *err)
{
    say("%s", err->text[0] != '\0' ? err->text : moe_status_text(err->status));
    return exit_status(err->status);
}

int
fail_name(const struct moe_error *err)
{
    int status = fail(err);

    return err->status == MOE_E_NOT_FOUND ? EXIT_USAGE : status;
}

static void
print_log(void *ctx, uint32_t level, const char *line)
{
    static const char *const words[]
        = { "error: ", "warning: ", "", "debug: ", "trace: " };

    (void) ctx;
    say("%s%s", words[level < 5 ? level : 4], line);
}

void
use_log(struct cli *c)
{
    moe_options_set_log(c->o, print_log, NULL);
}

/* ------------------------------------------------------ standard output -- */

static int
wrote(int good)
{
    if (!good && failed == 0)
        failed = errno != 0 ? errno : EIO;
    return failed != 0;
}

int
out_write(void *ctx, const char *text, size_t len)
{
    (void) ctx;
    if (failed != 0)
        return 1;
    return wrote(fwrite(text, 1, len, stdout) == len);
}

int
out_model(const char *text, size_t len)
{
    static int tty = -1;
    size_t     i, start = 0;

    if (tty < 0)
        tty = isatty(STDOUT_FILENO);
    for (i = 0; tty && i < len; i++) {
        unsigned char c = (unsigned char) text[i];

        if ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t')
            continue;
        out_write(NULL, text + start, i - start);
        out_write(NULL, "?", 1);
        start = i + 1;
    }
    return out_write(NULL, text + start, len - start);
}

int
out_text(const char *text)
{
    return out_write(NULL, text, strlen(text));
}

int
out_format(const char *fmt, ...)
{
    va_list args;
    int     n;

    if (failed != 0)
        return 1;
    va_start(args, fmt);
    n = vprintf(fmt, args);
    va_end(args);
    return wrote(n >= 0);
}

/* Bytes of the well-formed UTF-8 character at s, 0 if there is none. */
static size_t
character(const unsigned char *s, size_t len)
{
    size_t n, i;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        n = 2;
    else if ((s[0] & 0xf0) == 0xe0)
        n = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        n = 4;
    else
        return 0;
    if (n > len)
        return 0;
    for (i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f)
        || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

int
out_json(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *) text;
    size_t               i, n;

    out_text("\"");
    for (i = 0; i < len; i += n) {
        n = 1;
        if (s[i] == '"' || s[i] == '\\')
            out_format("\\%c", s[i]);
        else if (s[i] == '\n')
            out_text("\\n");
        else if (s[i] == '\t')
            out_text("\\t");
        else if (s[i] < 0x20 || s[i] == 0x7f)
            out_format("\\u%04x", s[i]);
        else if ((n = character(s + i, len - i)) > 0)
            out_write(NULL, text + i, n);
        else
            out_text("\xef\xbf\xbd"), n = 1;
    }
    return out_text("\"");
}

int
out_number(double v)
{
    if (isnan(v))
        v = 0;
    if (isinf(v))
        v = v > 0 ? 1e308 : -1e308;
    return out_format("%.9g", v);
}

int
out_flush(void)
{
    if (failed != 0)
        return 1;
    return wrote(fflush(stdout) == 0);
}

int
out_closed(void)
{
    return failed != 0;
}

int
out_finish(int status)
{
    out_flush();
    if (failed != 0 && failed != EPIPE) {
        say("standard output: %s", strerror(failed));
        if (status == EXIT_OK)
            status = EXIT_RUN;
    }
    return status;
}

/* ------------------------------------------------------------- terminal -- */

int
is_terminal(int fd)
{
    const char *term = getenv("TERM");

    return isatty(fd) && !(term != NULL && strcmp(term, "dumb") == 0);
}

int
terminal_width(int fd)
{
    const char    *columns = getenv("COLUMNS");
    struct winsize w;
    long           n = columns != NULL ? strtol(columns, NULL, 10) : 0;

    if (n <= 0 && ioctl(fd, TIOCGWINSZ, &w) == 0)
        n = w.ws_col;
    if (n <= 0)
        n = 80;
    return n < 40 ? 40 : n > 160 ? 160 : (int) n;
}

int
use_color(int fd)
{
    const char *off = getenv("NO_COLOR");
    const char *force = getenv("CLICOLOR_FORCE");

    if (off != NULL && off[0] != '\0')
        return 0;
    if (force != NULL && force[0] != '\0' && strcmp(force, "0") != 0)
        return 1;
    return is_terminal(fd);
}

size_t
text_width(const char *text, size_t len)
{
    size_t i, n = 0;

    for (i = 0; i < len; i++)
        n += ((unsigned char) text[i] & 0xc0) != 0x80;
    return n;
}

void
print_wrapped(FILE *to, const char *text, int at, int indent, int width)
{
    int first = 1;

    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        int    n = (int) text_width(text, len);

        if (!first && at + 1 + n > width) {
            fprintf(to, "\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            at += fprintf(to, " ");
        }
        fprintf(to, "%.*s", (int) len, text);
        at += n;
        first = 0;
        text += len;
        while (*text == ' ')
            text++;
    }
    fputc('\n', to);
}

char *
bytes_text(uint64_t bytes, char *buf, size_t size)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double                   v = (double) bytes;
    size_t                   i = 0;

    while (v >= 1024 && i + 1 < sizeof(units) / sizeof(units[0])) {
        v /= 1024;
        i++;
    }
    snprintf(buf, size, i == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v,
             units[i]);
    return buf;
}
