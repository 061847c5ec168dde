/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.c - one line on a terminal: how far, how fast, how long yet.
 *
 * Nothing at all when standard error is not a terminal.
 */
#include "cli.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

double
now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

void
progress_start(struct progress *p, const char *unit)
{
    memset(p, 0, sizeof(*p));
    p->unit = unit;
    p->start = now_s();
    p->on = is_terminal(STDERR_FILENO);
}

static const char *
amount_text(const struct progress *p, uint64_t n, char *buf, size_t size)
{
    if (p->unit == NULL)
        return bytes_text(n, buf, size);
    snprintf(buf, size, "%llu %s", (unsigned long long) n, p->unit);
    return buf;
}

void
progress_show(struct progress *p, uint64_t done, uint64_t total,
              const char *what)
{
    double now = now_s(), rate, left;
    char   numbers[160], a[32], b[32], r[32], eta[32] = "";
    int    width, cells, filled, percent;

    /* ten times a second is enough for an eye */
    if (!p->on || (p->drawn && done < total && now - p->shown < 0.1))
        return;
    p->shown = now;
    p->drawn = 1;
    rate = now > p->start ? (double) done / (now - p->start) : 0;
    if (rate > 0 && done < total) {
        left = (double) (total - done) / rate;
        snprintf(eta, sizeof(eta), "  %d:%02d left", (int) (left / 60) % 10000,
                 (int) left % 60);
    }
    percent = total > 0 ? (int) (100.0 * (double) done / (double) total) : 100;
    snprintf(numbers, sizeof(numbers), "%3d %%  %s of %s  %s/s%s", percent,
             amount_text(p, done, a, sizeof(a)),
             amount_text(p, total, b, sizeof(b)),
             amount_text(p, (uint64_t) rate, r, sizeof(r)), eta);
    width = terminal_width(STDERR_FILENO) - 1;
    cells = 20;
    filled = cells * percent / 100;
    fprintf(stderr, "\r[%.*s%*s] ", filled, "####################",
            cells - filled, "");
    width -= cells + 3;
    if (width > 0)
        width -= fprintf(stderr, "%.*s", width, numbers);
    if (width > 3 && what != NULL) {
        fputs("  ", stderr);
        for (width -= 2; width > 0 && *what != '\0'; width--, what++)
            fputc(*what > ' ' && *what <= '~' ? *what : '?', stderr);
    }
    fprintf(stderr, "\033[K");
    fflush(stderr);
}

void
progress_end(struct progress *p)
{
    if (p->drawn)
        fprintf(stderr, "\r\033[K");
    p->drawn = 0;
}
