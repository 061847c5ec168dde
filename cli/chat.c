/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat.c - moe-run chat: turn by turn with a model.
 *
 * With a chat template the whole conversation is laid out by it for every
 * turn.  A model without one gets plain text that grows: what was said, and
 * what it went on with.
 */
#include "cli.h"
#include "line.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat {
    struct cli     *c;
    moe_engine     *e;
    struct settings settings;
    char          **roles; /* (n), static strings */
    char          **texts; /* (n) */
    size_t          n;
    int             plain; /* no template */
    double          ttft_s;
};

static int
no_memory(void)
{
    say("out of memory");
    return EXIT_RUN;
}

static int
add_message(struct chat *k, const char *role, const char *text, size_t len)
{
    char **roles = realloc(k->roles, (k->n + 1) * sizeof(*roles)), **texts;

    if (roles == NULL)
        return no_memory();
    k->roles = roles;
    texts = realloc(k->texts, (k->n + 1) * sizeof(*texts));
    if (texts == NULL)
        return no_memory();
    k->texts = texts;
    texts[k->n] = strndup(text, len);
    if (texts[k->n] == NULL)
        return no_memory();
    roles[k->n] = (char *) role;
    k->n++;
    return EXIT_OK;
}

static void
drop_messages(struct chat *k, size_t keep)
{
    while (k->n > keep)
        free(k->texts[--k->n]);
}

/* ---------------------------------------------------------------- prompt -- */

/* Everything so far as one text; free() it. */
static char *
plain_text(const struct chat *k)
{
    size_t len = 1, i;
    char  *text, *to;

    for (i = 0; i < k->n; i++)
        len += strlen(k->texts[i]) + 1;
    text = malloc(len);
    if (text == NULL)
        return NULL;
    for (to = text, i = 0; i < k->n; i++) {
        /* a person's line follows what the model wrote */
        if (to > text && to[-1] != '\n' && to[-1] != ' '
            && strcmp(k->roles[i], "assistant") != 0)
            *to++ = ' ';
        to = stpcpy(to, k->texts[i]);
    }
    *to = '\0';
    return text;
}

static int
lay_out(struct chat *k, uint32_t **ids, size_t *n)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    moe_status       status;
    char            *text;

    if (!k->plain) {
        status = moe_engine_chat_prompt(k->e, k->n,
                                        (const char *const *) k->roles,
                                        (const char *const *) k->texts, ids, n,
                                        &err);
        if (status == MOE_OK)
            return EXIT_OK;
        if (status != MOE_E_NOT_FOUND)
            return fail(&err);
        k->plain = 1;
        if (!k->c->quiet)
            say("this model has no chat template; it goes on with the text "
                "as it is");
    }
    text = plain_text(k);
    if (text == NULL)
        return no_memory();
    status = moe_engine_encode(k->e, text, strlen(text), MOE_ENCODE_BOS, ids,
                               n, &err);
    free(text);
    return status == MOE_OK ? EXIT_OK : fail(&err);
}

int
chat_possible(moe_engine *e)
{
    const char *role = "user", *text = "Hello";
    uint32_t   *ids;
    size_t      n;
    moe_status  status
        = moe_engine_chat_prompt(e, 1, &role, &text, &ids, &n, NULL);

    if (status == MOE_OK)
        moe_free(ids);
    /* a template that fails is one: the chat says what is wrong with it */
    return status != MOE_E_NOT_FOUND;
}

/* ---------------------------------------------------------------- answer -- */

/* Prints the answer as it comes and keeps it.  Ctrl-C ends the answer, not
 * the chat. */
static int
answer(struct chat *k)
{
    struct moe_error         err = { .struct_size = sizeof(err) };
    struct moe_sequence_info info = { .struct_size = sizeof(info) };
    moe_sequence            *seq = NULL;
    moe_status               status = MOE_OK;
    uint32_t                *ids = NULL, active = 1;
    size_t                   n = 0, printed = 0, len;
    const char              *text;
    int                      rc = lay_out(k, &ids, &n);

    if (rc == EXIT_OK)
        rc = submit(k->e, &k->settings, ids, n, &seq);
    moe_free(ids);
    if (rc != EXIT_OK)
        return rc;
    while (status == MOE_OK && active > 0 && signal_came() == 0
           && !out_closed()) {
        status = moe_engine_step(k->e, &active, &err);
        if (moe_sequence_text(seq, printed, &text, &len) == MOE_OK
            && len > 0) {
            out_model(text, len);
            out_flush();
            printed += len;
        }
    }
    out_text("\n");
    out_flush();
    moe_sequence_info(seq, &info);
    k->ttft_s = info.ttft_s;
    if (status != MOE_OK) {
        rc = fail(&err);
    } else if (info.finish == MOE_FINISH_ERROR) {
        say("%s", moe_sequence_error(seq));
        rc = exit_status(info.status);
    } else if (moe_sequence_text(seq, 0, &text, &len) == MOE_OK) {
        rc = add_message(k, "assistant", text, len);
        if (info.finish == MOE_FINISH_LENGTH && !k->c->quiet)
            say("cut at %u tokens; --max-tokens sets the limit, /reset makes "
                "room",
                info.n_output);
    }
    moe_sequence_free(seq);
    if (status != MOE_OK) /* the engine's own failure */
        return rc != EXIT_OK ? rc : EXIT_RUN;
    if (rc == EXIT_OK && signal_came() == SIGINT)
        signal_forget();
    return rc;
}

/* -------------------------------------------------------------- commands -- */

/* Nonzero: the line was one; *end: it was the last. */
static int
command(struct chat *k, const char *line, size_t n_system, int *end)
{
    if (line[0] != '/')
        return 0;
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0
        || strcmp(line, "/bye") == 0) {
        *end = 1;
    } else if (strcmp(line, "/reset") == 0 || strcmp(line, "/clear") == 0) {
        drop_messages(k, n_system);
        say("forgotten; a new conversation begins");
    } else if (strcmp(line, "/stats") == 0) {
        print_summary(k->e, k->ttft_s, &k->settings.sampling.seed);
    } else if (strcmp(line, "/help") == 0 || strcmp(line, "/?") == 0) {
        fputs("  /reset  forget the conversation\n"
              "  /stats  speeds, memory and expert load so far\n"
              "  /exit   end (so does Ctrl-D)\n"
              "  /help   this list\n"
              "Ctrl-C ends an answer.  A line that ends with '\\' goes on in "
              "the next one.\n",
              stderr);
    } else {
        say("there is no command '%.40s'; /help lists them", line);
    }
    return 1;
}

/* A message of one or more lines; NULL: no more.  free() it. */
static char *
read_message(struct line_reader *r, int *interrupted)
{
    char       *all = NULL, *grown;
    size_t      len = 0, n;
    const char *line, *prompt = "> ";

    while ((line = line_read(r, prompt, interrupted)) != NULL) {
        n = strlen(line);
        grown = realloc(all, len + n + 2);
        if (grown == NULL)
            break;
        all = grown;
        memcpy(all + len, line, n + 1);
        len += n;
        if (n == 0 || line[n - 1] != '\\')
            return all;
        all[len - 1] = '\n';
        prompt = ". ";
    }
    if (all != NULL && *interrupted == 0) /* the file ends with a '\' */
        return all;
    free(all);
    return NULL;
}

static int
turn(struct chat *k, const char *text)
{
    size_t before = k->n;
    int    status = text_check("message", text, strlen(text));

    if (status == EXIT_OK)
        status = add_message(k, "user", text, strlen(text));
    if (status == EXIT_OK)
        status = answer(k);
    if (status != EXIT_OK)
        drop_messages(k, before); /* as if it had not been said */
    return status;
}

static int
converse(struct chat *k, int once)
{
    struct line_reader *r = line_open();
    size_t              n_system = k->n;
    const char         *first = cli_value(k->c, "--prompt");
    char               *text;
    int                 status = EXIT_OK, end = 0, interrupted = 0;
    int                 typed = isatty(STDIN_FILENO);

    if (r == NULL)
        return no_memory();
    if (typed && !once && !k->c->quiet)
        fputs("Ctrl-D ends, /help lists the commands.\n", stderr);
    if (first != NULL)
        status = turn(k, first);
    while (!end && !once && !out_closed()
           && (status == EXIT_OK || (typed && status == EXIT_USAGE))
           && signal_came() == 0) {
        text = read_message(r, &interrupted);
        if (text == NULL && interrupted == 1 && signal_came() == SIGINT) {
            signal_forget(); /* the line is gone, the chat goes on */
            continue;
        }
        if (text == NULL)
            break;
        if (!command(k, text, n_system, &end)
            && text[strspn(text, " \t\n")] != '\0')
            status = turn(k, text);
        free(text);
    }
    line_close(r);
    if (signal_came() != 0)
        return 128 + signal_came();
    return typed && status == EXIT_USAGE ? EXIT_OK : status;
}

int
chat_with(struct cli *c, moe_engine *e)
{
    struct chat k = { .c = c, .e = e };
    const char *prompt = cli_value(c, "--system");
    int         once = cli_has(c, "--single-turn"), status;

    /* the engine is not cancelled: it has to be there for the next turn */
    signals_mode(ON_SIGNAL_NOTE, e);
    status = settings_read(c, e, &k.settings);
    if (status == EXIT_OK && prompt != NULL) {
        status = text_check("--system", prompt, strlen(prompt));
        if (status == EXIT_OK)
            status = add_message(&k, "system", prompt, strlen(prompt));
    }
    if (status == EXIT_OK)
        status = converse(&k, once);
    if (status == EXIT_OK && !c->quiet && !out_closed())
        print_summary(e, k.ttft_s, &k.settings.sampling.seed);
    drop_messages(&k, 0);
    free(k.roles);
    free(k.texts);
    settings_clear(&k.settings);
    return status;
}

int
run_chat(struct cli *c)
{
    moe_engine *e;
    int         status;

    if (cli_has(c, "--single-turn") && cli_value(c, "--prompt") == NULL) {
        say("--single-turn needs -p TEXT");
        return EXIT_USAGE;
    }
    status = engine_open(c, &e);
    if (status != EXIT_OK)
        return status;
    status = chat_with(c, e);
    signals_mode(ON_SIGNAL_EXIT, NULL);
    moe_engine_close(e);
    return status;
}
