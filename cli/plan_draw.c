/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_draw.c - a sweep as a picture.
 *
 * SVG in one of three kinds: tokens a second over the batch with the bare
 * roofline behind it, dollars over the batch, memory of one device by owner;
 * and a chart of characters for a terminal.  A picture has a viewBox and no
 * size of its own, so that it fills whatever it is put into.
 */
#include "plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define W      960.0
#define H      560.0
#define LEFT   88.0
#define RIGHT  690.0 /* the legend is to the right of it */
#define TOP    74.0
#define BOTTOM 486.0
#define LINES  10u

/* Told apart by most readers, on white and on black. */
static const char *const colors[2][LINES] = {
    { "#1f6fb4", "#d1600a", "#1d8a4e", "#b3261e", "#7a4fb5", "#00838a",
      "#a8631a", "#c2377e", "#5b6b00", "#555f6b" },
    { "#6db3f2", "#ffa55c", "#63d297", "#ff8a80", "#bfa0f0", "#4fd0d8",
      "#dba56a", "#f590c2", "#c0d04a", "#aab4c0" },
};

struct theme {
    const char *back, *text, *weak, *grid;
    int         dark;
};

static const struct theme themes[2] = {
    { "#ffffff", "#1a1d21", "#5c6670", "#dfe3e8", 0 },
    { "#14171a", "#eceff2", "#9aa5b0", "#333a41", 1 },
};

/* A series: the points of one format and count. */
struct series {
    size_t first, n;
};

static size_t
series_of(const struct grid *g, struct series *out, size_t max)
{
    size_t i, n = 0;

    for (i = 0; i < g->n; i++) {
        if (i > 0 && g->points[i].devices == g->points[i - 1].devices
            && strcmp(g->points[i].format, g->points[i - 1].format) == 0) {
            out[n - 1].n++;
            continue;
        }
        if (n == max)
            break;
        out[n].first = i;
        out[n++].n = 1;
    }
    return n;
}

static void
escape(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text == '&')
            out_text("&amp;");
        else if (*text == '<')
            out_text("&lt;");
        else if (*text == '"')
            out_text("&quot;");
        else
            out_format("%c", *text);
}

static void
label(double x, double y, const char *anchor, int size, const char *color,
      const char *text)
{
    out_format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" "
               "font-size=\"%d\" fill=\"%s\">", x, y, anchor, size, color);
    escape(text);
    out_text("</text>\n");
}

static void
line(double x1, double y1, double x2, double y2, const char *color,
     double width, const char *dash)
{
    out_format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
               "stroke=\"%s\" stroke-width=\"%.1f\"%s%s%s/>\n", x1, y1, x2,
               y2, color, width, dash[0] != '\0' ? " stroke-dasharray=\"" : "",
               dash, dash[0] != '\0' ? "\"" : "");
}

static void
head(const struct grid *g, const struct theme *t, const char *title)
{
    char text[256];

    out_format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f "
               "%.0f\" font-family=\"sans-serif\" role=\"img\">\n<title>",
               W, H);
    snprintf(text, sizeof(text), "%s: %s on %s", title, g->model,
             g->q->device.name);
    escape(text);
    out_format("</title>\n<rect width=\"%.0f\" height=\"%.0f\" "
               "fill=\"%s\"/>\n", W, H, t->back);
    snprintf(text, sizeof(text), "%s on %s", g->model, g->q->device.name);
    label(LEFT, 32, "start", 22, t->text, text);
    snprintf(text, sizeof(text), "%s; context of %.0f tokens", title,
             g->context);
    if (g->q->setup.replicas > 1)
        snprintf(text + strlen(text), sizeof(text) - strlen(text),
                 "; %u copies", g->q->setup.replicas);
    label(LEFT, 54, "start", 16, t->weak, text);
}

static const char *
tick(double v, char *buf)
{
    if (v >= 1e6)
        snprintf(buf, 32, "%gM", v / 1e6);
    else if (v >= 1e4)
        snprintf(buf, 32, "%gk", v / 1e3);
    else
        snprintf(buf, 32, "%g", v);
    return buf;
}

struct axes {
    double lo_x, hi_x, lo_y, hi_y; /* of values, all logarithmic */
};

static double
at_x(const struct axes *a, double v)
{
    return LEFT + (RIGHT - LEFT) * log(v / a->lo_x) / log(a->hi_x / a->lo_x);
}

static double
at_y(const struct axes *a, double v)
{
    return BOTTOM - (BOTTOM - TOP) * log(v / a->lo_y)
                        / log(a->hi_y / a->lo_y);
}

/* The largest of 1, 2, 5, 10, ... that is not above v. */
static double
step_below(double v)
{
    double ten = pow(10, floor(log10(v) + 1e-9));

    return v >= 5 * ten ? 5 * ten : v >= 2 * ten ? 2 * ten : ten;
}

static void
draw_axes(const struct axes *a, const struct theme *t, const char *y_name)
{
    double v;
    char   text[64];

    for (v = a->lo_y; v <= a->hi_y * 1.001; v = step_below(v * 2.6)) {
        line(LEFT, at_y(a, v), RIGHT, at_y(a, v), t->grid, 1, "");
        label(LEFT - 10, at_y(a, v) + 5, "end", 16, t->weak, tick(v, text));
    }
    for (v = 1; v <= a->hi_x * 1.001; v *= a->hi_x > 600 ? 4 : 2) {
        if (v < a->lo_x * 0.999)
            continue;
        line(at_x(a, v), TOP, at_x(a, v), BOTTOM, t->grid, 1, "");
        label(at_x(a, v), BOTTOM + 22, "middle", 16, t->weak, tick(v, text));
    }
    line(LEFT, BOTTOM, RIGHT, BOTTOM, t->weak, 1.5, "");
    label((LEFT + RIGHT) / 2, BOTTOM + 48, "middle", 16, t->text,
          "sequences at once");
    out_format("<text transform=\"translate(24 %.1f) rotate(-90)\" "
               "text-anchor=\"middle\" font-size=\"16\" fill=\"%s\">%s"
               "</text>\n", (TOP + BOTTOM) / 2, t->text, y_name);
}

static double
value_of(const struct point *x, int cost)
{
    if (!x->good || !x->r.fits)
        return 0;
    return cost ? x->r.usd_output : x->r.tokens_s;
}

/* A format has a color, a count of devices a mark: four shapes, then the same
 * ones hollow. */
struct look {
    const char *color, *fill;
    uint32_t    mark;
};

static struct look
look_of(const struct grid *g, const struct series *s, int dark)
{
    const struct question *q = g->q;
    const struct point    *x = &g->points[s->first];
    struct look            l = { colors[dark][0], NULL, 0 };
    size_t                 i, count = 0;

    for (i = 0; i < q->n_formats; i++)
        if (strcmp(q->formats[i], x->format) == 0)
            l.color = colors[dark][i % LINES];
    for (i = 0; i < q->n_counts; i++)
        if (q->counts[i] == x->devices)
            count = i;
    l.mark = (uint32_t) count % 4;
    l.fill = count % 8 < 4 ? l.color : themes[dark].back;
    return l;
}

static void
mark(double x, double y, const struct look *l)
{
    switch (l->mark) {
    case 0:
        out_format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\"", x, y);
        break;
    case 1:
        out_format("<rect x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\"",
                   x - 4, y - 4);
        break;
    case 2:
        out_format("<path d=\"M%.1f %.1fl5.5 9.5h-11z\"", x, y - 6);
        break;
    default:
        out_format("<path d=\"M%.1f %.1fl6 6l-6 6l-6 -6z\"", x, y - 6);
        break;
    }
    out_format(" fill=\"%s\" stroke=\"%s\"/>\n", l->fill, l->color);
}

/* A format in few characters: of a mixed one its words, "int4/fp8/bf16". */
static char *
format_short(const char *format, char *buf, size_t size)
{
    size_t n = 0, len;

    buf[0] = '\0';
    for (; *format != '\0' && n + 1 < size; format += len) {
        const char *equal = strchr(format, '=');

        len = strcspn(format, ",");
        if (equal != NULL && equal < format + len) {
            len -= (size_t) (equal + 1 - format);
            format = equal + 1;
        }
        n += (size_t) snprintf(buf + n, size - n, "%s%.*s", n > 0 ? "/" : "",
                               (int) len, format);
        len += format[len] == ',';
    }
    return buf;
}

/* A poly-line of one series, marks on its points. */
static void
draw_series(const struct grid *g, const struct series *s, const struct axes *a,
            int cost, const struct look *look)
{
    const char *color = look->color;
    size_t i;
    int    open = 0;

    for (i = s->first; i < s->first + s->n; i++) {
        double v = value_of(&g->points[i], cost);

        if (v <= 0)
            continue;
        if (!open)
            out_format("<polyline fill=\"none\" stroke=\"%s\" "
                       "stroke-width=\"2.5\" points=\"", color);
        open = 1;
        out_format("%.1f,%.1f ", at_x(a, g->points[i].batch), at_y(a, v));
    }
    if (open)
        out_text("\"/>\n");
    for (i = s->first; i < s->first + s->n; i++) {
        double v = value_of(&g->points[i], cost);

        if (v > 0)
            mark(at_x(a, g->points[i].batch), at_y(a, v), look);
    }
    if (cost)
        return;
    for (i = s->first, open = 0; i < s->first + s->n; i++) {
        const struct point *x = &g->points[i];

        if (!x->good || !x->r.fits)
            continue;
        if (!open)
            out_format("<polyline fill=\"none\" stroke=\"%s\" opacity=\"0.6\" "
                       "stroke-width=\"1.5\" stroke-dasharray=\"6 5\" "
                       "points=\"", color);
        open = 1;
        out_format("%.1f,%.1f ", at_x(a, x->batch),
                   at_y(a, x->batch / x->r.roofline_step));
    }
    if (open)
        out_text("\"/>\n");
}

static void
legend(const struct grid *g, const struct series *s, size_t n,
       const struct theme *t, const int *drawn, int cost)
{
    double y = TOP + 10;
    char   text[96], format[64];
    size_t i;

    for (i = 0; i < n; i++) {
        const struct point *x = &g->points[s[i].first];
        struct look         l = look_of(g, &s[i], t->dark);

        snprintf(text, sizeof(text), "%u x %.*s%s", x->devices,
                 drawn[i] ? 20 : 11,
                 format_short(x->format, format, sizeof(format)),
                 drawn[i] ? "" : ": no room");
        if (drawn[i]) {
            line(RIGHT + 22, y - 5, RIGHT + 52, y - 5, l.color, 2.5, "");
            mark(RIGHT + 37, y - 5, &l);
        }
        label(RIGHT + 60, y, "start", 16, drawn[i] ? t->text : t->weak, text);
        y += 24;
    }
    if (cost)
        return;
    line(RIGHT + 26, y + 7, RIGHT + 52, y + 7, t->weak, 1.5, "6 5");
    label(RIGHT + 60, y + 12, "start", 16, t->weak, "bare roofline");
}

/* More than a picture has room for. */
static int
too_many(size_t n, size_t most)
{
    if (n <= most)
        return 0;
    say("--svg: a picture has room for %zu formats and counts of devices "
        "together, not for more; name fewer with --formats and --counts",
        most);
    return 1;
}

static int
draw_lines(const struct grid *g, const struct theme *t, int cost)
{
    struct series s[LIST_MAX * 2];
    struct axes   a = { 1e300, 0, 1e300, 0 };
    int           drawn[LIST_MAX * 2];
    size_t        n = series_of(g, s, LIST_MAX * 2), i, j;

    if (too_many(n, 18))
        return EXIT_USAGE;
    for (i = 0; i < n; i++) {
        drawn[i] = 0;
        for (j = s[i].first; j < s[i].first + s[i].n; j++) {
            const struct point *x = &g->points[j];
            double              v = value_of(x, cost), top = v;

            if (v <= 0)
                continue;
            drawn[i] = 1;
            if (!cost)
                top = x->batch / x->r.roofline_step;
            a.lo_x = fmin(a.lo_x, x->batch);
            a.hi_x = fmax(a.hi_x, x->batch);
            a.lo_y = fmin(a.lo_y, fmin(v, top));
            a.hi_y = fmax(a.hi_y, fmax(v, top));
        }
    }
    if (a.hi_x <= 0) {
        say(cost ? "no point of the sweep fits and has a price (--price gives "
                   "one); nothing is drawn"
                 : "no point of the sweep fits; nothing is drawn");
        return EXIT_BUDGET;
    }
    if (a.hi_x <= a.lo_x)
        a.hi_x = a.lo_x * 2;
    a.lo_y = step_below(a.lo_y);
    a.hi_y *= 1.25;
    if (a.hi_y < a.lo_y * 10)
        a.hi_y = a.lo_y * 10;
    head(g, t, cost ? "US dollars a million output tokens, all hours used"
                    : "output tokens a second");
    draw_axes(&a, t, cost ? "$ a million tokens" : "tokens a second");
    for (i = 0; i < n; i++)
        if (drawn[i]) {
            struct look l = look_of(g, &s[i], t->dark);

            draw_series(g, &s[i], &a, cost, &l);
        }
    legend(g, s, n, t, drawn, cost);
    out_text("</svg>\n");
    return EXIT_OK;
}

/* Bars of one device's memory, the largest batch of each series. */
static int
draw_memory(const struct grid *g, const struct theme *t)
{
    static const char *const owners[] = { "experts", "other weights",
                                          "cache", "activations" };
    struct series s[LIST_MAX * 2];
    size_t        n = series_of(g, s, LIST_MAX * 2), i, k;
    double        most = 0, wide, x0, v;
    char          text[96], a[32], format[64];

    if (too_many(n, 16))
        return EXIT_USAGE;
    for (i = 0; i < n; i++) {
        const struct point *x = &g->points[s[i].first + s[i].n - 1];

        most = fmax(most, x->good ? fmax(x->r.needed, x->r.limit) : 0);
    }
    most *= 1.08;
    snprintf(text, sizeof(text), "memory of one device at a batch of %.0f",
             n > 0 ? g->points[s[0].first + s[0].n - 1].batch : 0);
    head(g, t, text);
    wide = (RIGHT - LEFT) / (double) n;
    for (v = 0; v <= most; v += step_below(most / 4)) {
        double y = BOTTOM - (BOTTOM - TOP) * v / most;

        line(LEFT, y, RIGHT, y, t->grid, 1, "");
        snprintf(a, sizeof(a), "%g GB", v / 1e9);
        label(LEFT - 10, y + 5, "end", 16, t->weak, a);
    }
    for (i = 0; i < n; i++) {
        const struct point *x = &g->points[s[i].first + s[i].n - 1];
        double part[4] = { x->r.experts, x->r.rest, x->r.kv,
                           x->r.activations }, y = BOTTOM;

        x0 = LEFT + wide * (double) i + wide * 0.18;
        for (k = 0; k < 4 && x->good; k++) {
            double h = (BOTTOM - TOP) * part[k] / most;

            y -= h;
            out_format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                       "height=\"%.2f\" fill=\"%s\"/>\n", x0, y, wide * 0.64,
                       h, colors[t->dark][k]);
        }
        if (x->good) {
            double top = BOTTOM - (BOTTOM - TOP) * x->r.limit / most;

            line(x0 - wide * 0.1, top, x0 + wide * 0.74, top, t->text, 2,
                 "5 4");
            if (!x->r.fits)
                label(x0 + wide * 0.32, y - 8, "middle", 14, t->text,
                      "too much");
        }
        snprintf(text, sizeof(text), "%u x", x->devices);
        label(x0 + wide * 0.32, BOTTOM + 18, "middle", 14, t->text, text);
        snprintf(text, sizeof(text), "%.*s",
                 n > 8 ? 6 : n > 5 ? 13 : 16,
                 format_short(x->format, format, sizeof(format)));
        label(x0 + wide * 0.32, BOTTOM + 38, "middle", 14, t->weak, text);
    }
    line(LEFT, BOTTOM, RIGHT, BOTTOM, t->weak, 1.5, "");
    for (k = 0; k < 4; k++) {
        double y = TOP + 10 + 24 * (double) (3 - k);

        out_format("<rect x=\"%.1f\" y=\"%.1f\" width=\"22\" height=\"14\" "
                   "fill=\"%s\"/>\n", RIGHT + 28, y - 12, colors[t->dark][k]);
        label(RIGHT + 60, y, "start", 16, t->text, owners[k]);
    }
    line(RIGHT + 26, TOP + 112, RIGHT + 52, TOP + 112, t->text, 2, "5 4");
    label(RIGHT + 60, TOP + 117, "start", 16, t->text, "usable (90 %)");
    out_text("</svg>\n");
    return EXIT_OK;
}

int
draw_svg(const struct grid *g, const char *kind, int dark)
{
    const struct theme *t = &themes[dark != 0];

    if (strcmp(kind, "roofline") == 0)
        return draw_lines(g, t, 0);
    if (strcmp(kind, "cost") == 0)
        return draw_lines(g, t, 1);
    if (strcmp(kind, "memory") == 0)
        return draw_memory(g, t);
    say("--svg: there is no picture '%s' (known: roofline cost memory)", kind);
    return EXIT_USAGE;
}

/* Tokens a second over the batch, a letter for each series. */
void
draw_chart(const struct grid *g)
{
    struct series s[LIST_MAX * 2];
    char          rows[20][160], text[32];
    size_t        n = series_of(g, s, LIST_MAX * 2), i, j, r;
    int           width = terminal_width(1) - 14, cols = width > 120 ? 120
                                                                  : width;
    double        lo_x = 1e300, hi_x = 0, lo = 1e300, hi = 0;

    memset(rows, ' ', sizeof(rows));
    if (n > 26)
        n = 26;
    for (i = 0; i < g->n; i++) {
        double v = value_of(&g->points[i], 0);

        if (v <= 0)
            continue;
        lo_x = fmin(lo_x, g->points[i].batch);
        hi_x = fmax(hi_x, g->points[i].batch);
        lo = fmin(lo, v);
        hi = fmax(hi, v);
    }
    out_format("%s on %s: output tokens a second over sequences at once, "
               "context %.0f\n", g->model, g->q->device.name, g->context);
    if (hi <= 0) {
        out_text("no point fits\n");
        return;
    }
    if (hi_x <= lo_x)
        hi_x = lo_x * 2;
    if (hi <= lo)
        hi = lo * 2;
    for (i = 0; i < n; i++)
        for (j = s[i].first; j < s[i].first + s[i].n; j++) {
            double v = value_of(&g->points[j], 0);
            int    x, y;

            if (v <= 0)
                continue;
            x = (int) lround(log(g->points[j].batch / lo_x)
                             / log(hi_x / lo_x) * (cols - 1));
            y = (int) lround(log(v / lo) / log(hi / lo) * 19);
            rows[19 - y][x] = (char) ('a' + i);
        }
    for (r = 0; r < 20; r++) {
        double v = lo * pow(hi / lo, (double) (19 - r) / 19);
        int    end = cols;

        while (end > 0 && rows[r][end - 1] == ' ')
            end--;
        out_format("%10s |%.*s\n",
                   r % 3 == 1 || r == 0 || r == 19 ? whole_text(floor(v),
                                                                text)
                                                   : "",
                   end, rows[r]);
    }
    out_format("%10s +", "");
    for (i = 0; i < (size_t) cols; i++)
        out_text("-");
    out_format("\n%10s  %-8g%*g\n", "batch", lo_x, cols - 8, hi_x);
    for (i = 0; i < n; i++) {
        const struct point *x = &g->points[s[i].first];
        int                 any = 0;

        for (j = s[i].first; j < s[i].first + s[i].n; j++)
            any |= value_of(&g->points[j], 0) > 0;
        out_format("  %c  %u x %s%s\n", (char) ('a' + i), x->devices,
                   x->format, any ? "" : " (no room)");
    }
}
