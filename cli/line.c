/* SPDX-License-Identifier: Apache-2.0 */
/*
 * line.c - lines from a person: editing and history by libedit on a
 * terminal, plain reading otherwise.
 *
 * libedit restarts a read that a signal interrupted, so reading a character
 * is done here, where the signal is seen.
 */
#ifdef HAVE_CONFIG_H
#    include "config.h"
#endif
#include "line.h"

#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#ifdef HAVE_LIBEDIT
#    include <histedit.h>

struct line_reader {
    EditLine   *el;
    History    *history;
    const char *prompt;
    char        path[1024]; /* of the history; "": none */
    char       *plain;
    size_t      cap;
};
#else
struct line_reader {
    const char *prompt;
    char       *plain;
    size_t      cap;
};
#endif

#ifdef HAVE_LIBEDIT

static char *
give_prompt(EditLine *el)
{
    struct line_reader *r = NULL;

    el_get(el, EL_CLIENTDATA, &r);
    return (char *) r->prompt;
}

/* One character of the terminal; 0: no more, a signal among the reasons. */
static int
read_character(EditLine *el, wchar_t *out)
{
    mbstate_t state;
    char      byte;
    size_t    n;
    ssize_t   got;

    (void) el;
    memset(&state, 0, sizeof(state));
    for (;;) {
        got = read(STDIN_FILENO, &byte, 1);
        if (got < 0 && errno == EINTR && signal_came() == 0)
            continue; /* the window's size, or back in the foreground */
        if (got <= 0)
            return 0;
        n = mbrtowc(out, &byte, 1, &state);
        if (n == (size_t) -2)
            continue;
        if (n == (size_t) -1) { /* not of this locale: leave it out */
            memset(&state, 0, sizeof(state));
            continue;
        }
        return 1;
    }
}

/* $XDG_STATE_HOME/moe-run/history, with its folders. */
static void
find_history(char *path, size_t size)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char       *slash;
    int         n = -1;

    if (state != NULL && state[0] == '/')
        n = snprintf(path, size, "%s/moe-run/history", state);
    else if (home != NULL && home[0] == '/')
        n = snprintf(path, size, "%s/.local/state/moe-run/history", home);
    if (n <= 0 || (size_t) n >= size) {
        path[0] = '\0';
        return;
    }
    for (slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(path, 0700); /* one that is there stays as it is */
        *slash = '/';
    }
}

static void
start_editor(struct line_reader *r)
{
    HistEvent event;

    r->el = el_init("moe-run", stdin, stderr, stderr);
    if (r->el == NULL)
        return;
    el_set(r->el, EL_CLIENTDATA, r);
    el_set(r->el, EL_PROMPT, give_prompt);
    el_set(r->el, EL_EDITOR, "emacs");
    el_set(r->el, EL_SIGNAL, 0);
    el_set(r->el, EL_GETCFN, read_character);
    el_source(r->el, NULL); /* ~/.editrc */
    r->history = history_init();
    if (r->history == NULL)
        return;
    history(r->history, &event, H_SETSIZE, 1000);
    history(r->history, &event, H_SETUNIQUE, 1);
    el_set(r->el, EL_HIST, history, r->history);
    find_history(r->path, sizeof(r->path));
    if (r->path[0] != '\0')
        history(r->history, &event, H_LOAD, r->path);
}

static const char *
edit_line(struct line_reader *r, int *interrupted)
{
    HistEvent   event;
    int         count = 0;
    const char *text = el_gets(r->el, &count);
    char       *end;

    if (signal_came() != 0) {
        const LineInfo *info = el_line(r->el);

        *interrupted = info->lastchar > info->buffer ? 1 : 2;
        fputc('\n', stderr);
        el_reset(r->el);
        return NULL;
    }
    if (text == NULL || count <= 0)
        return NULL;
    if (r->history != NULL && strspn(text, " \t\n") < strlen(text)) {
        history(r->history, &event, H_ENTER, text);
        if (r->path[0] != '\0') {
            mode_t mask = umask(077);

            history(r->history, &event, H_SAVE, r->path);
            umask(mask);
        }
    }
    /* libedit's buffer is const */
    free(r->plain);
    r->plain = strdup(text);
    if (r->plain == NULL)
        return NULL;
    end = strchr(r->plain, '\n');
    if (end != NULL)
        *end = '\0';
    return r->plain;
}

#endif /* HAVE_LIBEDIT */

struct line_reader *
line_open(void)
{
    struct line_reader *r = calloc(1, sizeof(*r));

#ifdef HAVE_LIBEDIT
    if (r != NULL && isatty(STDIN_FILENO) && is_terminal(STDERR_FILENO))
        start_editor(r);
#endif
    return r;
}

static const char *
plain_line(struct line_reader *r, const char *prompt, int *interrupted)
{
    ssize_t len;

    if (isatty(STDIN_FILENO)) {
        fputs(prompt, stderr);
        fflush(stderr);
    }
    errno = 0;
    len = getline(&r->plain, &r->cap, stdin);
    if (len < 0) {
        if (signal_came() != 0)
            *interrupted = 2;
        return NULL;
    }
    while (len > 0
           && (r->plain[len - 1] == '\n' || r->plain[len - 1] == '\r'))
        r->plain[--len] = '\0';
    return r->plain;
}

const char *
line_read(struct line_reader *r, const char *prompt, int *interrupted)
{
    const char *line;

    *interrupted = 0;
    r->prompt = prompt;
    signals_interrupt(1);
#ifdef HAVE_LIBEDIT
    line = r->el != NULL ? edit_line(r, interrupted)
                         : plain_line(r, prompt, interrupted);
#else
    line = plain_line(r, prompt, interrupted);
#endif
    signals_interrupt(0);
    return line;
}

void
line_close(struct line_reader *r)
{
    if (r == NULL)
        return;
#ifdef HAVE_LIBEDIT
    if (r->history != NULL)
        history_end(r->history);
    if (r->el != NULL)
        el_end(r->el);
#endif
    free(r->plain);
    free(r);
}
