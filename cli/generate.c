/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate.c - moe-run generate: texts in, their continuations out.
 *
 * Several prompts run as one batch; their texts are printed in the order of
 * the prompts, the first one as it comes.
 */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the default model begins with when nobody says anything. */
static const char opening[] = "Once upon a time";

struct job {
    char         *prompt;
    size_t        len;
    uint32_t     *ids; /* (n_ids) */
    size_t        n_ids;
    moe_sequence *seq;
    size_t        printed; /* bytes of its text */
    int           begun, ended;
};

struct batch {
    struct cli *c;
    moe_engine *e;
    struct job *jobs;
    size_t      n;
    size_t      at; /* the job that is being printed */
    int         json, jsonl, echo;
    char        last; /* byte on standard output */
};

/* -------------------------------------------------------------- prompts -- */

/* Takes over text. */
static int
add_job(struct batch *b, const char *what, char *text, size_t len)
{
    struct job *grown;
    int         status = text_check(what, text, len);

    if (status == EXIT_OK) {
        grown = realloc(b->jobs, (b->n + 1) * sizeof(*grown));
        if (grown != NULL) {
            b->jobs = grown;
            memset(&grown[b->n], 0, sizeof(*grown));
            grown[b->n].prompt = text;
            grown[b->n].len = len;
            b->n++;
            return EXIT_OK;
        }
        say("out of memory");
        status = EXIT_RUN;
    }
    free(text);
    return status;
}

static int
add_text(struct batch *b, const char *what, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL) {
        say("out of memory");
        return EXIT_RUN;
    }
    return add_job(b, what, copy, strlen(text));
}

static int
add_file(struct batch *b, const char *path, int may_be_empty)
{
    char  *text;
    size_t len;
    int    status = text_read(path, &text, &len);

    if (status != EXIT_OK)
        return status;
    /* an editor puts a newline at the end, the writer did not mean one */
    if (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    if (len == 0 && may_be_empty) {
        free(text);
        return EXIT_OK;
    }
    return add_job(b, strcmp(path, "-") == 0 ? "standard input" : path, text,
                   len);
}

/* -p and -f, in their order; else standard input unless it is a terminal. */
static int
collect(struct batch *b)
{
    const struct cli *c = b->c;
    size_t            i;
    int               status = EXIT_OK;

    for (i = 0; i < c->n_uses && status == EXIT_OK; i++) {
        if (word_in(c->uses[i].flag->names, "--prompt"))
            status = add_text(b, "--prompt", c->uses[i].value);
        else if (word_in(c->uses[i].flag->names, "--file"))
            status = add_file(b, c->uses[i].value, 0);
    }
    if (status == EXIT_OK && b->n == 0 && !isatty(STDIN_FILENO))
        status = add_file(b, "-", 1);
    return status;
}

static int
ask(struct batch *b)
{
    char   *line = NULL;
    size_t  cap = 0;
    ssize_t len;
    int     status;

    fprintf(stderr, "prompt> ");
    signals_mode(ON_SIGNAL_EXIT, NULL);
    len = getline(&line, &cap, stdin);
    signals_mode(ON_SIGNAL_CANCEL, b->e);
    if (len > 0 && line[len - 1] == '\n')
        line[--len] = '\0';
    if (len <= 0) {
        free(line);
        say("no prompt: give -p TEXT, -f FILE, or text on standard input");
        return EXIT_USAGE;
    }
    status = add_job(b, "standard input", line, (size_t) len);
    return status;
}

/* ------------------------------------------------------------- printing -- */

static void
begin_text(struct batch *b, struct job *j)
{
    size_t show = j->len < 48 ? j->len : 48;

    j->begun = 1;
    if (b->jsonl)
        return;
    if (b->n > 1 && !b->c->quiet) {
        while (show > 0 && show < j->len
               && ((unsigned char) j->prompt[show] & 0xc0) == 0x80)
            show--;
        out_flush();
        say("prompt %zu of %zu: %.*s%s", (size_t) (j - b->jobs) + 1, b->n,
            (int) show, j->prompt, show < j->len ? "..." : "");
    }
    if (b->echo && j->len > 0) {
        out_model(j->prompt, j->len);
        b->last = j->prompt[j->len - 1];
    }
}

static void
print_piece(struct batch *b, struct job *j)
{
    const char *text;
    size_t      len;

    if (moe_sequence_text(j->seq, j->printed, &text, &len) != MOE_OK
        || len == 0)
        return;
    if (b->jsonl) {
        out_format("{\"schema_version\":%d,\"type\":\"text\",\"index\":%zu,"
                   "\"text\":",
                   SCHEMA_VERSION, (size_t) (j - b->jobs));
        out_json(text, len);
        out_text("}\n");
    } else {
        out_model(text, len);
        b->last = text[len - 1];
    }
    out_flush();
    j->printed += len;
}

/* "index":0,...,"finish":"stop" of a job. */
static void
out_job(const struct batch *b, const struct job *j)
{
    struct moe_sequence_info info = { .struct_size = sizeof(info) };

    moe_sequence_info(j->seq, &info);
    out_format("\"index\":%zu,\"finish\":\"%s\",\"n_prompt\":%u,"
               "\"n_output\":%u,\"ttft_s\":",
               (size_t) (j - b->jobs), finish_text(info.finish),
               info.n_prompt, info.n_output);
    out_number(info.ttft_s);
    out_text(",\"total_s\":");
    out_number(info.total_s);
    if (info.finish == MOE_FINISH_ERROR) {
        const char *why = moe_sequence_error(j->seq);

        out_text(",\"error\":");
        out_json(why, strlen(why));
    }
}

static void
end_text(struct batch *b, struct job *j)
{
    j->ended = 1;
    if (b->jsonl) {
        out_format("{\"schema_version\":%d,\"type\":\"end\",",
                   SCHEMA_VERSION);
        out_job(b, j);
        out_text("}\n");
    } else if (b->last != '\n') {
        out_text("\n");
        b->last = '\n';
    }
    out_flush();
}

/* What the last step brought. */
static void
print_news(struct batch *b, int all_done)
{
    size_t i;

    if (b->json)
        return;
    for (i = b->at; i < b->n; i++) {
        struct moe_sequence_info info = { .struct_size = sizeof(info) };
        struct job              *j = &b->jobs[i];

        if (j->ended)
            continue;
        if (!j->begun)
            begin_text(b, j);
        print_piece(b, j);
        moe_sequence_info(j->seq, &info);
        if (info.finish != MOE_FINISH_NONE || all_done)
            end_text(b, j);
        /* lines of JSON carry an index, plain texts wait for their turn */
        if (!j->ended && !b->jsonl)
            break;
        if (j->ended && i == b->at)
            b->at++;
    }
}

static void
out_object(struct batch *b)
{
    struct moe_engine_info info = { .struct_size = sizeof(info) };
    size_t                 i, k, n;

    out_format("{\"schema_version\":%d,\"moe_run\":\"%s\"", SCHEMA_VERSION,
               moe_version());
    if (moe_engine_info(b->e, &info) == MOE_OK) {
        out_text(",\"model\":");
        out_json(info.model, strlen(info.model));
        out_text(",\"backend\":");
        out_json(info.backend, strlen(info.backend));
    }
    out_text(",\"sequences\":[");
    for (i = 0; i < b->n; i++) {
        struct job     *j = &b->jobs[i];
        const uint32_t *ids;
        const char     *text;

        out_text(i == 0 ? "\n{" : ",\n{");
        out_job(b, j);
        out_text(",\"prompt\":");
        out_json(j->prompt, j->len);
        if (moe_sequence_text(j->seq, 0, &text, &n) == MOE_OK) {
            out_text(",\"text\":");
            out_json(text, n);
        }
        out_text(",\"prompt_tokens\":[");
        for (k = 0; k < j->n_ids; k++)
            out_format("%s%u", k == 0 ? "" : ",", j->ids[k]);
        out_text("],\"tokens\":[");
        if (moe_sequence_tokens(j->seq, &ids, &n) == MOE_OK)
            for (k = 0; k < n; k++)
                out_format("%s%u", k == 0 ? "" : ",", ids[k]);
        out_text("]}");
    }
    out_text("\n],\"stats\":");
    out_stats(b->e);
    out_text("}\n");
}

/* -------------------------------------------------------------- running -- */

static int
start_jobs(struct batch *b, const struct settings *s)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    size_t           i;
    int              status = EXIT_OK;

    for (i = 0; i < b->n && status == EXIT_OK; i++) {
        struct job *j = &b->jobs[i];

        /* who writes a prompt for a bare model writes its special tokens
         * too */
        if (moe_engine_encode(b->e, j->prompt, j->len,
                              MOE_ENCODE_BOS | MOE_ENCODE_SPECIAL, &j->ids,
                              &j->n_ids, &err)
            != MOE_OK)
            return fail(&err);
        status = submit(b->e, s, j->ids, j->n_ids, &j->seq);
    }
    return status;
}

/* The exit status of sequences that failed by themselves. */
static int
failures(struct batch *b)
{
    size_t i;
    int    status = EXIT_OK;

    for (i = 0; i < b->n; i++) {
        struct moe_sequence_info info = { .struct_size = sizeof(info) };

        if (moe_sequence_info(b->jobs[i].seq, &info) != MOE_OK
            || info.finish != MOE_FINISH_ERROR)
            continue;
        if (b->n > 1)
            say("prompt %zu: %s", i + 1, moe_sequence_error(b->jobs[i].seq));
        else
            say("%s", moe_sequence_error(b->jobs[i].seq));
        if (status == EXIT_OK)
            status = exit_status(info.status);
    }
    return status;
}

static double
mean_ttft(const struct batch *b)
{
    double sum = 0;
    size_t i, n = 0;

    for (i = 0; i < b->n; i++) {
        struct moe_sequence_info info = { .struct_size = sizeof(info) };

        if (moe_sequence_info(b->jobs[i].seq, &info) == MOE_OK
            && info.ttft_s > 0) {
            sum += info.ttft_s;
            n++;
        }
    }
    return n > 0 ? sum / (double) n : 0;
}

static int
run_jobs(struct batch *b, const struct settings *s)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    moe_status       status = MOE_OK;
    uint32_t         active = 1;
    int              rc = start_jobs(b, s);

    if (rc != EXIT_OK)
        return rc;
    while (status == MOE_OK && active > 0 && !out_closed()) {
        status = moe_engine_step(b->e, &active, &err);
        print_news(b, status != MOE_OK || active == 0);
    }
    if (out_closed()) /* whoever read it has enough */
        return EXIT_OK;
    if (b->json)
        out_object(b);
    if (b->jsonl) {
        out_format("{\"schema_version\":%d,\"type\":\"stats\",\"stats\":",
                   SCHEMA_VERSION);
        out_stats(b->e);
        out_text("}\n");
    }
    out_flush();
    if (status != MOE_OK && status != MOE_E_CANCELED)
        return fail(&err);
    if (!b->c->quiet && !b->json && !b->jsonl)
        print_summary(b->e, mean_ttft(b), &s->sampling.seed);
    if (status == MOE_E_CANCELED)
        return exit_status(status);
    return failures(b);
}

static int
run_explain(struct cli *c)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    int              status = model_choose(c, NULL);

    if (status != EXIT_OK)
        return status;
    if (moe_explain(c->o, cli_has(c, "--json"), out_write, NULL, &err)
            != MOE_OK
        && !out_closed())
        return fail(&err);
    return EXIT_OK;
}

int
run_generate(struct cli *c)
{
    struct batch    b = { .c = c, .last = '\n' };
    struct settings s = { 0 };
    int             is_default = 0, status;
    size_t          i;

    if (cli_has(c, "--list-plugins"))
        return run_plugins(c);
    if (cli_has(c, "--print-config"))
        return run_config(c);
    if (cli_has(c, "--explain"))
        return run_explain(c);
    if (cli_has(c, "--conversation"))
        return run_chat(c);
    b.json = cli_has(c, "--json");
    b.jsonl = cli_has(c, "--jsonl");
    b.echo = cli_has(c, "--echo");
    if (b.json && b.jsonl) {
        say("--json and --jsonl exclude each other");
        return EXIT_USAGE;
    }
    status = collect(&b);
    if (status == EXIT_OK)
        status = model_choose(c, &is_default);
    if (status == EXIT_OK && b.n == 0 && is_default) {
        b.echo = 1;
        status = add_text(&b, "opening", opening);
    }
    if (status == EXIT_OK && b.n == 0
        && (b.json || b.jsonl || !isatty(STDIN_FILENO))) {
        say("no prompt: give -p TEXT, -f FILE, or text on standard input");
        status = EXIT_USAGE;
    }
    if (status == EXIT_OK)
        status = engine_open(c, &b.e);
    if (status == EXIT_OK && b.n == 0 && chat_possible(b.e)) {
        status = chat_with(c, b.e);
        goto close_engine;
    }
    if (status == EXIT_OK && b.n == 0)
        status = ask(&b);
    if (status == EXIT_OK)
        status = settings_read(c, b.e, &s);
    if (status == EXIT_OK)
        status = run_jobs(&b, &s);

close_engine:
    for (i = 0; i < b.n; i++) {
        if (b.jobs[i].seq != NULL)
            moe_sequence_free(b.jobs[i].seq);
        moe_free(b.jobs[i].ids);
        free(b.jobs[i].prompt);
    }
    free(b.jobs);
    settings_clear(&s);
    signals_mode(ON_SIGNAL_EXIT, NULL);
    if (b.e != NULL)
        moe_engine_close(b.e);
    return status;
}
