/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h - the moe-run program's own parts.
 *
 * The program sees the library through <moe/moe.h> alone.  What it adds:
 * the command line, the terminal, signals, and the words on the screen.
 *
 * Streams: generated text and JSON go to standard output, everything else to
 * standard error.
 */
#ifndef MOE_CLI_H
#define MOE_CLI_H

#include <moe/moe.h>

#include <signal.h>
#include <stdio.h>

/* Exit statuses, as in moe-run(1). */
#define EXIT_OK          0
#define EXIT_RUN         1 /* failed at run time                              */
#define EXIT_USAGE       2 /* command line, option, configuration or prompt   */
#define EXIT_BUDGET      3 /* does not fit the memory budget                  */
#define EXIT_UNSUPPORTED 4 /* model or format that is not supported           */
#define EXIT_CORRUPT     5 /* a file that is damaged                          */
#define EXIT_PLUGIN      6 /* plugin missing or refused                       */

#define SCHEMA_VERSION 1 /* of everything that --json prints                  */

/* A flag that is the command's own; those of the option table come from the
 * library. */
struct flag {
    const char *names; /* "-p --prompt", separated by blanks                  */
    const char *arg;   /* "TEXT"; NULL: a switch                              */
    const char *help;
};

struct cli;

struct command {
    const char        *name;
    const char        *aliases;  /* separated by blanks                       */
    const char        *summary;  /* one line                                  */
    const char        *operands; /* "IN OUT"; "": none                        */
    int                n_operands; /* at most                                 */
    const char        *reads;    /* sections or keys of the option table      */
    const struct flag *flags;    /* ends with names == NULL                   */
    int (*run)(struct cli *c);   /* the exit status                           */
};

extern const struct command commands[]; /* ends with name == NULL             */
extern const struct flag    common_flags[];

/* One use of a flag, in the order of the command line. */
struct use {
    const struct flag *flag;
    const char        *value; /* NULL: a switch                               */
};

struct cli {
    const struct command *command;
    moe_options          *o;
    struct use           *uses; /* own flags                                  */
    size_t                n_uses;
    const char          **operands;
    size_t                n_operands;
    int                   quiet;
};

/* ------------------------------------------------------------- args.c -- */

/* Reads the command line into c; the exit status, or -1 to go on. */
int  cli_parse(struct cli *c, int argc, char **argv);
void cli_free(struct cli *c);

/* The last value of an own flag by any of its names; NULL: not used.  A
 * switch that is used gives "". */
const char *cli_value(const struct cli *c, const char *name);
int         cli_has(const struct cli *c, const char *name);

const struct command *command_find(const char *name);
/* Whether the option with that key has an effect on the command. */
int                   command_reads(const struct command *k, const char *key);
int                   word_in(const char *words, const char *word);

/* --------------------------------------------------------------- help.c -- */

void print_help(const struct cli *c, const struct command *command);
void print_version(void);
void print_completion(const struct cli *c);
void print_man_options(const struct cli *c);
void print_man_ini(const struct cli *c);

/* ---------------------------------------------------------------- out.c -- */

/* "moe-run: ..." on standard error, one line; control characters that a
 * file's name may hold become '?'. */
void say(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2)));
/* Says err's text and gives the exit status that goes with it. */
int fail(const struct moe_error *err);
/* As fail, but a name that is not known is a wrong command line. */
int fail_name(const struct moe_error *err);
int exit_status(moe_status status);

/* Standard output.  Nonzero: nobody reads it any more, or it is full. */
int out_write(void *ctx, const char *text, size_t len); /* a moe_write_fn */
int out_text(const char *text);
/* What a model wrote: on a terminal without control characters, which could
 * do anything to it. */
int out_model(const char *text, size_t len);
int out_format(const char *fmt, ...)
    __attribute__((__format__(__printf__, 1, 2)));
int out_json(const char *text, size_t len); /* a JSON string with quotes */
int out_number(double v);                   /* never NaN or infinity */
int out_flush(void);
int out_closed(void);
/* At the end: `status`, or EXIT_RUN with a message if a write failed.  A
 * reader that went away is no failure. */
int out_finish(int status);

int  is_terminal(int fd);
int  terminal_width(int fd);
int  use_color(int fd);
void use_log(struct cli *c);

/* Columns that a UTF-8 text takes, counting characters. */
size_t text_width(const char *text, size_t len);
/* Blanks and words of text from column `at` on, broken before `width`;
 * further lines are indented by `indent`. */
void print_wrapped(FILE *to, const char *text, int at, int indent, int width);

char *bytes_text(uint64_t bytes, char *buf, size_t size); /* "1.5 GiB" */

/* --------------------------------------------------------------- text.c -- */

/* A file, or standard input for "-", NUL-terminated; free() it.  The exit
 * status after a message, or 0. */
int text_read(const char *path, char **text, size_t *len);
/* Says where text is not UTF-8; what: "--prompt", a file's name. */
int text_check(const char *what, const char *text, size_t len);
/* The items of a list option's value, in one block to free(); NULL: none. */
char **list_split(const char *value, size_t *n);
/* *list grows by item, quoted as list_split reads it; nonzero: no memory. */
int list_append(char **list, const char *item);

/* -------------------------------------------------------------- signal.c -- */

/* What the first SIGINT or SIGTERM does; the second one always ends the
 * program at once. */
#define ON_SIGNAL_EXIT   0 /* end the program                                 */
#define ON_SIGNAL_CANCEL 1 /* cancel the engine                               */
#define ON_SIGNAL_NOTE   2 /* only note it: the loop at work looks            */
void signals_start(void);
void signals_mode(int mode, moe_engine *engine);
/* Whether a signal ends a system call that waits, such as for a line. */
void signals_interrupt(int on);
/* The signal that came, or 0. */
int  signal_came(void);
void signal_forget(void);

/* ----------------------------------------------------------------- run.c -- */

/* The model: as asked, or the one that ships with moe-run, then opened.  The
 * exit status after a message, or 0. */
int model_choose(struct cli *c, int *is_default);
int engine_open(struct cli *c, moe_engine **out);

/* What a request needs besides its prompt. */
struct settings {
    struct moe_sampling sampling;
    int64_t             max_tokens; /* -1: all that the context holds         */
    uint32_t            flags;      /* MOE_REQUEST_*                          */
    char              **stop;
    size_t              n_stop;
};
int  settings_read(const struct cli *c, const moe_engine *e,
                   struct settings *out);
void settings_clear(struct settings *s);
/* The exit status after a message, or 0. */
int submit(moe_engine *e, const struct settings *s, const uint32_t *ids,
           size_t n, moe_sequence **out);

const char *finish_text(uint32_t finish);
/* Speeds, memory and expert load, on standard error.  ttft_s: 0 if there is
 * none; seed: NULL to leave it out. */
void print_summary(const moe_engine *e, double ttft_s, const uint64_t *seed);
/* {...} with the same figures and each expert's load. */
int out_stats(const moe_engine *e);

/* ------------------------------------------------------------ progress.c -- */

struct progress {
    double      start, shown; /* seconds of a steady clock                    */
    const char *unit;         /* NULL: bytes                                  */
    int         on, drawn;
};
void   progress_start(struct progress *p, const char *unit);
void   progress_show(struct progress *p, uint64_t done, uint64_t total,
                     const char *what);
void   progress_end(struct progress *p);
double now_s(void);

/* ---------------------------------------------------- one file, one command */

int run_generate(struct cli *c);
int run_chat(struct cli *c);
int chat_with(struct cli *c, moe_engine *e);
/* Whether the model has a chat template. */
int chat_possible(moe_engine *e);
int run_inspect(struct cli *c);
int run_quantize(struct cli *c);
int run_plugins(struct cli *c);
int run_config(struct cli *c);
int run_perplexity(struct cli *c);
int run_bench(struct cli *c);
int run_plan(struct cli *c);
int run_help(struct cli *c);

#endif /* MOE_CLI_H */
