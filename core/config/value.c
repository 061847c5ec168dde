/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value.c - the text of an option, read as its type.
 *
 * Owns the syntax of sizes, words and lists, and the sentences that say what
 * is wrong with one; what a number is says support/number.h.  The same syntax
 * holds in a file, a variable and on the command line.
 */
#include "config/value.h"
#include "support/near.h"
#include "support/number.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* "; range 1..4096" or nothing. */
static const char *
range_text(const struct moe_option_row *row, char *buf, size_t size)
{
    if (row->range[0] == '\0')
        return "";
    snprintf(buf, size, " (allowed: %s)", row->range);
    return buf;
}

static moe_status
bad(const struct moe_option_row *row, const char *text, const char *place,
    const char *what, struct moe_error *err)
{
    char range[64];

    return moe_fail(err, MOE_E_INVAL, 0, "%s: '%.80s' is %s%s", place, text,
                    what, range_text(row, range, sizeof(range)));
}

/* The ends of "lo..hi"; an end that is not there does not limit. */
static void
int_range(const char *range, int64_t *lo, int64_t *hi)
{
    const char *dots = strstr(range, "..");

    *lo = INT64_MIN;
    *hi = INT64_MAX;
    if (dots == NULL)
        return;
    if (dots > range)
        *lo = strtoll(range, NULL, 10);
    if (dots[2] != '\0')
        *hi = strtoll(dots + 2, NULL, 10);
}

static void
float_range(const char *range, locale_t c, double *lo, double *hi)
{
    const char *dots = strstr(range, "..");
    char        first[32];
    size_t      len;

    *lo = -HUGE_VAL;
    *hi = HUGE_VAL;
    if (dots == NULL)
        return;
    /* cut first: "0..1" would be read as "0." */
    len = (size_t) (dots - range);
    if (len > 0 && len < sizeof(first)) {
        memcpy(first, range, len);
        first[len] = '\0';
        *lo = strtod_l(first, NULL, c);
    }
    if (dots[2] != '\0')
        *hi = strtod_l(dots + 2, NULL, c);
}

static int
read_bool(const char *text, int64_t *out)
{
    static const char *const words[2][5]
        = { { "false", "no", "off", "0", NULL },
            { "true", "yes", "on", "1", NULL } };
    int v, i;

    for (v = 0; v < 2; v++)
        for (i = 0; words[v][i] != NULL; i++)
            if (strcasecmp(text, words[v][i]) == 0) {
                *out = v;
                return 1;
            }
    return 0;
}

/*
 * "4G", "1.5 GiB", "512MB", "1048576".  K, M, G, T alone and KiB ... TiB are
 * powers of 1024; KB ... TB are powers of 1000.
 */
static int
read_size(const char *text, locale_t c, uint64_t *out)
{
    static const char letters[] = "KMGTP";
    size_t            len = strspn(text, "0123456789.");
    const char       *unit = text + len;
    double            number, scale = 1;
    char              digits[32];
    int64_t           whole;

    if (len == 0 || len >= sizeof(digits))
        return 0;
    memcpy(digits, text, len);
    digits[len] = '\0';
    while (*unit == ' ')
        unit++;
    if (*unit != '\0' && strcasecmp(unit, "B") != 0) {
        const char *letter
            = strchr(letters, *unit >= 'a' && *unit <= 'z' ? *unit - 32
                                                           : *unit);
        double step;
        long   power;

        if (letter == NULL)
            return 0;
        if (unit[1] == '\0' || strcasecmp(unit + 1, "iB") == 0)
            step = 1024;
        else if (strcasecmp(unit + 1, "B") == 0)
            step = 1000;
        else
            return 0;
        for (power = letter - letters; power >= 0; power--)
            scale *= step;
    }
    if (scale == 1) { /* exact, and no half bytes */
        if (!moe_number_whole(digits, &whole))
            return 0;
        *out = (uint64_t) whole;
        return 1;
    }
    if (!moe_number_real(digits, c, &number))
        return 0;
    number *= scale;
    if (number >= 0x1p62)
        return 0;
    *out = (uint64_t) number;
    return 1;
}

/* The i-th word of "a|b|c" is text[0, *len); NULL past the last. */
static const char *
word_at(const char *words, size_t i, size_t *len)
{
    while (i-- > 0) {
        words = strchr(words, '|');
        if (words == NULL)
            return NULL;
        words++;
    }
    *len = strcspn(words, "|");
    return words;
}

static moe_status
parse_word(const struct moe_option_row *row, const char *text,
           const char *place, int64_t *out, struct moe_error *err)
{
    struct moe_nearest near = { text, NULL, 0 };
    char               words[8][24];
    const char        *word;
    size_t             i, len = 0;

    for (i = 0; (word = word_at(row->type, i, &len)) != NULL; i++) {
        if (strlen(text) == len && strncmp(text, word, len) == 0) {
            *out = (int64_t) i;
            return MOE_OK;
        }
        if (i < 8 && len < sizeof(words[0])) {
            memcpy(words[i], word, len);
            words[i][len] = '\0';
            moe_nearest_try(&near, words[i]);
        }
    }
    if (near.best != NULL)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: '%.80s' is not one of %s; did you mean '%s'?",
                        place, text, row->type, near.best);
    return moe_fail(err, MOE_E_INVAL, 0, "%s: '%.80s' is not one of %s", place,
                    text, row->type);
}

static int
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/*
 * One item of a list from *p on into *to: quoted, with \n \t \r \" \\, or
 * plain up to the next comma, less the blanks around it.  NULL: fine; else
 * what is wrong.
 */
static const char *
list_item(const char **p, char **to)
{
    const char *s = *p;
    char       *d = *to;

    while (is_blank(*s))
        s++;
    if (*s == '"') {
        for (s++; *s != '"'; s++) {
            if (*s == '\0')
                return "a list with an open quote";
            if (*s != '\\') {
                *d++ = *s;
                continue;
            }
            switch (*++s) {
            case 'n':
                *d++ = '\n';
                break;
            case 't':
                *d++ = '\t';
                break;
            case 'r':
                *d++ = '\r';
                break;
            case '"':
            case '\\':
                *d++ = *s;
                break;
            default:
                return "a list with an unknown escape (\\n \\t \\r \\\" "
                       "\\\\ exist)";
            }
        }
        s++;
        while (is_blank(*s))
            s++;
        if (*s != '\0' && *s != ',')
            return "a list with text after a closing quote";
    } else {
        while (*s != '\0' && *s != ',') {
            if (*s == '"')
                return "a list with a quote inside an item; put the whole "
                       "item in quotes, and \\\" for the quote";
            *d++ = *s++;
        }
        while (d > *to && is_blank(d[-1]))
            d--;
    }
    if (d == *to)
        return "a list with an empty item";
    *d++ = '\0';
    *to = d;
    *p = s;
    return NULL;
}

static moe_status
parse_list(const struct moe_option_row *row, const char *text,
           const char *place, struct moe_value *out, struct moe_error *err)
{
    size_t      n_max = 1, n = 0, table;
    const char *p, *wrong;
    char       *block, *to;

    out->items = NULL;
    out->n_items = 0;
    for (p = text; is_blank(*p); p++)
        ;
    if (*p == '\0')
        return MOE_OK;
    for (p = text; *p != '\0'; p++)
        n_max += *p == ',';
    /* an item needs at most its own bytes and a terminator, which takes the
     * place of its comma */
    table = n_max * sizeof(char *);
    block = malloc(table + strlen(text) + 1);
    if (block == NULL)
        return moe_fail(err, MOE_E_NOMEM, errno, "%s: out of memory", place);
    to = block + table;
    for (p = text;; p++) {
        ((char **) (void *) block)[n++] = to;
        wrong = list_item(&p, &to);
        if (wrong != NULL) {
            free(block);
            return bad(row, text, place, wrong, err);
        }
        if (*p == '\0')
            break;
    }
    out->items = (char **) (void *) block;
    out->n_items = n;
    return MOE_OK;
}

static moe_status
parse_size(const struct moe_option_row *row, const char *text,
           const char *place, locale_t c, struct moe_value *out,
           struct moe_error *err)
{
    size_t len = strlen(text);
    char   digits[16];

    if ((row->bits & MOE_ROW_AUTO) != 0 && strcmp(text, "auto") == 0)
        return MOE_OK;
    if ((row->bits & MOE_ROW_PERCENT) != 0 && len > 1 && len < sizeof(digits)
        && text[len - 1] == '%') {
        memcpy(digits, text, len - 1);
        digits[len - 1] = '\0';
        if (moe_number_real(digits, c, &out->percent) && out->percent >= 1
            && out->percent <= 100)
            return MOE_OK;
        out->percent = 0;
        return bad(row, text, place, "not a percentage of what is free", err);
    }
    if (!read_size(text, c, &out->bytes) || out->bytes == 0) {
        out->bytes = 0;
        return bad(row, text, place, "not a size such as 512M, 4G or 1.5GiB",
                   err);
    }
    return MOE_OK;
}

moe_status
moe_value_parse(const struct moe_option_row *row, const char *text,
                const char *place, locale_t c, struct moe_value *out,
                struct moe_error *err)
{
    int64_t lo, hi;
    double  flo, fhi;

    memset(out, 0, sizeof(*out));
    if (strcmp(row->type, "int") == 0) {
        if (!moe_number_whole(text, &out->i))
            return bad(row, text, place, "not a whole number", err);
        int_range(row->range, &lo, &hi);
        if (out->i < lo || out->i > hi)
            return bad(row, text, place, "out of range", err);
        return MOE_OK;
    }
    if (strcmp(row->type, "float") == 0) {
        if (!moe_number_real(text, c, &out->f))
            return bad(row, text, place, "not a number", err);
        float_range(row->range, c, &flo, &fhi);
        if (!(out->f >= flo && out->f <= fhi))
            return bad(row, text, place, "out of range", err);
        return MOE_OK;
    }
    if (strcmp(row->type, "bool") == 0) {
        if (!read_bool(text, &out->i))
            return bad(row, text, place, "neither true nor false", err);
        return MOE_OK;
    }
    if (strcmp(row->type, "size") == 0)
        return parse_size(row, text, place, c, out, err);
    if (strcmp(row->type, "list") == 0)
        return parse_list(row, text, place, out, err);
    if (strchr(row->type, '|') != NULL)
        return parse_word(row, text, place, &out->i, err);
    return MOE_OK; /* string */
}

void
moe_value_clear(struct moe_value *v)
{
    free(v->items);
    memset(v, 0, sizeof(*v));
}

size_t
moe_text_valid(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *) text;
    size_t               i = 0, k, n;
    uint32_t             cp;

    while (i < len) {
        if (s[i] < 0x80) {
            if ((s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
                return i;
            i++;
            continue;
        }
        if (s[i] >= 0xc2 && s[i] <= 0xdf)
            n = 1, cp = s[i] & 0x1fu;
        else if ((s[i] & 0xf0) == 0xe0)
            n = 2, cp = s[i] & 0x0fu;
        else if (s[i] >= 0xf0 && s[i] <= 0xf4)
            n = 3, cp = s[i] & 0x07u;
        else
            return i;
        if (len - i <= n)
            return i;
        for (k = 1; k <= n; k++) {
            if ((s[i + k] & 0xc0) != 0x80)
                return i;
            cp = cp << 6 | (s[i + k] & 0x3fu);
        }
        if ((n == 2 && (cp < 0x800 || (cp >= 0xd800 && cp <= 0xdfff)))
            || (n == 3 && (cp < 0x10000 || cp > 0x10ffff))
            || (cp >= 0x80 && cp < 0xa0)) /* C1 controls */
            return i;
        i += n + 1;
    }
    return len;
}
