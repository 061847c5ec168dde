/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ini.c - options from an INI file.
 *
 * inih splits the lines; this file stands before and behind it, because inih
 * accepts in silence what a person did not mean: it cuts lines at its buffer
 * and section names at 49 bytes, takes an indented line as more of the value
 * above, drops what follows a ']', and lets " ;" begin a comment inside
 * quotes.  Each of these is an error here, with file and line.  The file is
 * read whole and checked line by line first, and inih gets those lines.
 */
#include "config/store.h"
#include "support/near.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE 1048576u /* bytes */
#define MAX_LINE 198u     /* bytes; inih's buffer is 200 */
#define MAX_NAME 49u      /* bytes, of a section or key; inih's too */
#define MAX_KEYS 4096u    /* of one file; they are searched in a row */

#define NAME_BYTES "abcdefghijklmnopqrstuvwxyz0123456789_-"

struct seen {
    char  *key; /* "section.name" */
    size_t line;
};

struct reader {
    moe_options      *o;
    const char       *path;
    uint32_t          rank;
    const char       *next; /* what inih has not got yet */
    size_t            left;
    size_t            line; /* that inih is at */
    struct seen      *seen;
    size_t            n_seen;
    moe_status        status;
    struct moe_error *err;
};

/* The whole of an open file, NUL-terminated; the caller frees *text. */
static moe_status
read_open(int fd, const char *path, char **text, size_t *len,
          struct moe_error *err)
{
    char  *buf = NULL, *grown;
    size_t n = 0, cap = 0;

    for (;;) {
        ssize_t got;

        if (n + 1 >= cap) {
            cap = cap == 0 ? 8192 : cap * 2;
            grown = realloc(buf, cap);
            if (grown == NULL) {
                free(buf);
                return moe_fail(err, MOE_E_NOMEM, errno,
                                "%.300s: out of memory", path);
            }
            buf = grown;
        }
        got = read(fd, buf + n, cap - n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int why = errno;

            free(buf);
            return moe_fail(err, MOE_E_IO, why, "%.300s: cannot be read: %s",
                            path, strerror(why));
        }
        if (got == 0)
            break;
        n += (size_t) got;
        if (n > MAX_FILE) {
            free(buf);
            return moe_fail(err, MOE_E_INVAL, 0,
                            "%.300s: more than 1 MiB; this is no moe.ini",
                            path);
        }
    }
    buf[n] = '\0';
    *text = buf;
    *len = n;
    return MOE_OK;
}

static moe_status
read_whole(const char *path, int missing_ok, char **text, size_t *len,
           struct moe_error *err)
{
    int         fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    moe_status  status;
    struct stat st;

    *text = NULL;
    *len = 0;
    if (fd < 0) {
        if (missing_ok && (errno == ENOENT || errno == ENOTDIR))
            return MOE_OK;
        return moe_fail(err, MOE_E_IO, errno, "%.300s: cannot be opened: %s",
                        path, strerror(errno));
    }
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        status = moe_fail(err, MOE_E_IO, EISDIR,
                          "%.300s: is a folder, not an INI file", path);
    else
        status = read_open(fd, path, text, len, err);
    close(fd);
    return status;
}

/* The first error of a file is the one that is told. */
#define FAIL(r, ...)                                                          \
    do {                                                                      \
        if ((r)->status == MOE_OK)                                            \
            (r)->status = moe_fail((r)->err, MOE_E_INVAL, 0, __VA_ARGS__);    \
    } while (0)

/* ------------------------------------------------ before inih: the lines -- */

static int
section_exists(const char *section)
{
    size_t len = strlen(section), i;

    if (moe_section_is_free(section))
        return 1;
    for (i = 0; i < moe_option_row_count; i++)
        if (strncmp(moe_option_rows[i].key, section, len) == 0
            && moe_option_rows[i].key[len] == '.')
            return 1;
    return 0;
}

static void
check_section(struct reader *r, const char *line, size_t len, size_t number)
{
    size_t             n = strspn(line + 1, NAME_BYTES "."), i;
    char               section[MAX_NAME + 1], known[32], best[32] = "";
    struct moe_nearest near = { section, NULL, 0 };

    if (line[1 + n] != ']') {
        FAIL(r, "%.300s:%zu: a section is [name], in small letters, digits, "
                "'.', '_' and '-'",
             r->path, number);
        return;
    }
    if (n > MAX_NAME || n == 0) {
        FAIL(r, "%.300s:%zu: a section's name has 1 to %u bytes", r->path,
             number, MAX_NAME);
        return;
    }
    for (i = n + 2; i < len && (line[i] == ' ' || line[i] == '\t'); i++)
        ;
    if (i < len && (line[i] != ';' || i == n + 2) && line[i] != '\r') {
        FAIL(r, "%.300s:%zu: text after a section's ']' would be ignored; "
                "put it on its own line",
             r->path, number);
        return;
    }
    memcpy(section, line + 1, n);
    section[n] = '\0';
    if (section_exists(section))
        return;
    for (i = 0; i < moe_option_row_count; i++) {
        snprintf(known, sizeof(known), "%.*s",
                 (int) strcspn(moe_option_rows[i].key, "."),
                 moe_option_rows[i].key);
        moe_nearest_try(&near, known);
        if (near.best == known) {
            memcpy(best, known, sizeof(best));
            near.best = best;
        }
    }
    if (near.best != NULL)
        FAIL(r, "%.300s:%zu: there is no section [%s]; did you mean [%s]?",
             r->path, number, section, near.best);
    else
        FAIL(r, "%.300s:%zu: there is no section [%s]; 'moe-run config "
                "--ini' prints a complete file",
             r->path, number, section);
}

/* line: (len) bytes without the newline. */
static void
check_line(struct reader *r, const char *line, size_t len, size_t number,
           int in_section)
{
    size_t n, blanks, valid;

    if (memchr(line, '\0', len) != NULL) {
        FAIL(r, "%.300s:%zu: holds a NUL byte; this is no text file", r->path,
             number);
        return;
    }
    if (len > MAX_LINE) {
        FAIL(r, "%.300s:%zu: has %zu bytes, more than the %u that the INI "
                "reader takes; shorten it",
             r->path, number, len, MAX_LINE);
        return;
    }
    if (len > 0 && line[len - 1] == '\r')
        len--;
    valid = moe_text_valid(line, len);
    if (valid < len) {
        FAIL(r, "%.300s:%zu: byte %zu (0x%02x) is a control character or not "
                "UTF-8",
             r->path, number, valid + 1, (unsigned char) line[valid]);
        return;
    }
    blanks = 0;
    while (blanks < len && (line[blanks] == ' ' || line[blanks] == '\t'))
        blanks++;
    if (blanks == len || line[blanks] == ';' || line[blanks] == '#')
        return;
    if (blanks > 0) {
        FAIL(r, "%.300s:%zu: is indented, which makes it part of the value "
                "above; remove the blanks",
             r->path, number);
        return;
    }
    if (line[0] == '[') {
        check_section(r, line, len, number);
        return;
    }
    n = strspn(line, NAME_BYTES);
    while (n + blanks < len
           && (line[n + blanks] == ' ' || line[n + blanks] == '\t'))
        blanks++;
    if (n == 0 || n + blanks >= len || line[n + blanks] != '=') {
        FAIL(r, "%.300s:%zu: '%.*s' is neither [section], nor name = value, "
                "nor a comment",
             r->path, number, (int) (len < 60 ? len : 60), line);
        return;
    }
    if (n > MAX_NAME) {
        FAIL(r, "%.300s:%zu: a name has at most %u bytes", r->path, number,
             MAX_NAME);
        return;
    }
    if (!in_section)
        FAIL(r, "%.300s:%zu: '%.*s' stands before the first [section]",
             r->path, number, (int) n, line);
}

static void
check_lines(struct reader *r, const char *text, size_t len)
{
    size_t number = 1, at = 0;
    int    in_section = 0;

    while (at < len && r->status == MOE_OK) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t      n = end != NULL ? (size_t) (end - (text + at)) : len - at;

        check_line(r, text + at, n, number, in_section);
        in_section |= text[at] == '[';
        at += n + 1;
        number++;
    }
}

/* ---------------------------------------------- behind inih: the values -- */

/* fgets for inih, from memory. */
static char *
next_line(char *to, int size, void *ctx)
{
    struct reader *r = ctx;
    const char    *end;
    size_t         n;

    if (r->left == 0 || size < 2)
        return NULL;
    r->line++;
    end = memchr(r->next, '\n', r->left);
    n = end != NULL ? (size_t) (end - r->next) + 1 : r->left;
    if (n > (size_t) size - 1) {
        /* an inih that was built or set up with a shorter buffer */
        FAIL(r, "%.300s:%zu: is longer than the %d bytes that the installed "
                "INI reader takes",
             r->path, r->line, size - 2);
        return NULL;
    }
    memcpy(to, r->next, n);
    to[n] = '\0';
    r->next += n;
    r->left -= n;
    return to;
}

static int
is_open_quote(const char *value)
{
    int open = 0;

    for (; *value != '\0'; value++) {
        if (*value == '\\' && value[1] != '\0' && open)
            value++;
        else if (*value == '"')
            open = !open;
    }
    return open;
}

/* Whether '#' follows a blank outside quotes: it was meant as a comment. */
static int
has_hash(const char *value)
{
    int  open = 0;
    char before = ' ';

    for (; *value != '\0'; before = *value++) {
        if (*value == '\\' && value[1] != '\0' && open)
            value++;
        else if (*value == '"')
            open = !open;
        else if (*value == '#' && !open && (before == ' ' || before == '\t'))
            return 1;
    }
    return 0;
}

/* `"a b"` to `a b`, in place; nonzero if the quotes are not around it all. */
static int
unquote(char *value)
{
    char *from, *to = value;

    if (value[0] != '"')
        return strchr(value, '"') != NULL;
    for (from = value + 1; *from != '"'; from++) {
        if (*from == '\\' && (from[1] == '"' || from[1] == '\\'))
            from++;
        *to++ = *from;
    }
    *to = '\0';
    return from[1] != '\0';
}

static int
check_duplicate(struct reader *r, const char *key)
{
    struct seen *grown;
    size_t       i;

    for (i = 0; i < r->n_seen; i++)
        if (strcmp(r->seen[i].key, key) == 0) {
            FAIL(r, "%.300s:%zu: %s is already set in line %zu; remove one",
                 r->path, r->line, key, r->seen[i].line);
            return 0;
        }
    if (r->n_seen == MAX_KEYS) {
        FAIL(r, "%.300s:%zu: more than %u values; this is no moe.ini",
             r->path, r->line, MAX_KEYS);
        return 0;
    }
    grown = realloc(r->seen, (r->n_seen + 1) * sizeof(*grown));
    if (grown != NULL) {
        r->seen = grown;
        grown[r->n_seen].line = r->line;
        grown[r->n_seen].key = strdup(key);
        if (grown[r->n_seen].key != NULL) {
            r->n_seen++;
            return 1;
        }
    }
    r->status = moe_fail(r->err, MOE_E_NOMEM, errno, "%.300s: out of memory",
                         r->path);
    return 0;
}

/* A name that is another spelling: "ctx-size" in [model] is context. */
static moe_status
unknown_name(struct reader *r, const char *section, const char *name)
{
    struct moe_nearest near = { name, NULL, 0 };
    size_t             len = strlen(section), i;
    char               flag[64];

    snprintf(flag, sizeof(flag), "--%s", name);
    for (i = 0; flag[i] != '\0'; i++)
        if (flag[i] == '_')
            flag[i] = '-';
    for (i = 0; i < moe_option_row_count; i++) {
        const struct moe_option_row *row = &moe_option_rows[i];

        if (moe_row_has_flag(row, flag)) {
            FAIL(r, "%.300s:%zu: there is no '%s' in [%s]; did you mean '%s' "
                    "in [%.*s]?",
                 r->path, r->line, name, section, strchr(row->key, '.') + 1,
                 (int) strcspn(row->key, "."), row->key);
            return r->status;
        }
    }
    for (i = 0; i < moe_option_row_count; i++) {
        const char *key = moe_option_rows[i].key;

        if (strncmp(key, section, len) == 0 && key[len] == '.')
            moe_nearest_try(&near, key + len + 1);
    }
    if (near.best != NULL)
        FAIL(r, "%.300s:%zu: there is no '%s' in [%s]; did you mean '%s'?",
             r->path, r->line, name, section, near.best);
    return r->status;
}

static int
take_value(void *ctx, const char *section, const char *name,
           const char *raw)
{
    struct reader *r = ctx;
    char           key[2 * MAX_NAME + 4], value[256], place[512], where[400];
    long           row;

    if (r->status != MOE_OK)
        return 0;
    snprintf(key, sizeof(key), "%s.%s", section, name);
    snprintf(value, sizeof(value), "%s", raw);
    row = moe_row_find(key);
    if (is_open_quote(value)) {
        FAIL(r, "%.300s:%zu: %s: a quote is not closed (' ;' begins a "
                "comment even inside quotes)",
             r->path, r->line, key);
        return 0;
    }
    if (has_hash(value)) {
        FAIL(r, "%.300s:%zu: %s: ' #' begins no comment after a value; "
                "use ' ;', or put the value in quotes",
             r->path, r->line, key);
        return 0;
    }
    /* a list's items have quotes of their own */
    if (!(row >= 0 && strcmp(moe_option_rows[row].type, "list") == 0)
        && unquote(value)) {
        FAIL(r, "%.300s:%zu: %s: a quote inside a value; put the whole value "
                "in quotes, and \\\" for the quote",
             r->path, r->line, key);
        return 0;
    }
    if (!check_duplicate(r, key))
        return 0;
    if (row < 0 && !moe_section_is_free(section)
        && unknown_name(r, section, name) != MOE_OK)
        return 0;
    snprintf(where, sizeof(where), "%.300s:%zu", r->path, r->line);
    snprintf(place, sizeof(place), "%s: %s", where, name);
    r->status = moe_options_put(r->o, key, value, r->rank,
                                row < 0 ? where : place, where, r->err);
    return r->status == MOE_OK;
}

moe_status
moe_ini_load(moe_options *o, const char *path, uint32_t rank, int missing_ok,
             struct moe_error *err)
{
    struct reader r = { .o = o, .path = path, .rank = rank, .err = err };
    char         *text;
    size_t        len, bom = 0, i;
    int           rc;
    moe_status    status = read_whole(path, missing_ok, &text, &len, err);

    if (status != MOE_OK || text == NULL)
        return status;
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        bom = 3;
    r.next = text + bom;
    r.left = len - bom;
    check_lines(&r, r.next, r.left);
    if (r.status == MOE_OK) {
        rc = ini_parse_stream(next_line, &r, take_value, &r);
        if (rc != 0)
            FAIL(&r, "%.300s:%d: is neither [section] nor name = value", path,
                 rc > 0 ? rc : 0);
    }
    for (i = 0; i < r.n_seen; i++)
        free(r.seen[i].key);
    free(r.seen);
    free(text);
    return r.status;
}
