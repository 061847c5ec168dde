/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe/moe.h - the engine, for programs.
 *
 * Fill in options, open an engine, submit sequences, step until they are
 * done, read their text, close.  The library keeps no global state, writes
 * to no stream of its own, never exits and never aborts; messages go to the
 * log callback of the options.
 *
 * Threads: one engine is used by one thread at a time, except
 * moe_engine_cancel, which any thread or signal handler may call.  Different
 * engines are independent.  Options may be shared for reading.
 *
 * Errors: a function that can fail returns a moe_status (negative is
 * failure) and fills the caller's struct moe_error, if one is given, with
 * one line: what, where, remedy.  Results are set only on success.
 *
 * Structs start with struct_size; the caller sets it to sizeof before the
 * call, and a library newer or older than the caller fills what both know.
 */

#ifndef MOE_MOE_H
#define MOE_MOE_H

#include <moe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef MOE_API
#    define MOE_API __attribute__((__visibility__("default")))
#endif

typedef struct moe_options  moe_options;
typedef struct moe_engine   moe_engine;
typedef struct moe_sequence moe_sequence;
typedef struct moe_bench    moe_bench;

/* "0.1.0", of the library that is loaded. */
MOE_API const char *moe_version(void);
/* Plugin ABI of the library: major << 16 | minor. */
MOE_API uint32_t moe_plugin_abi(void);
/* "over budget", "corrupt", ...: a static string for any status. */
MOE_API const char *moe_status_text(moe_status status);
/* Frees what a function of this header allocated for the caller. */
MOE_API void moe_free(void *p);

/* Takes text that a function writes in pieces; len bytes, not terminated.
 * Nonzero return: stop, the function ends with MOE_E_IO. */
typedef int (*moe_write_fn)(void *ctx, const char *text, size_t len);
/* level: MOE_LOG_* of moe/plugin.h (0 error .. 4 trace); one line, no newline.
 * May be called from worker threads. */
typedef void (*moe_log_fn)(void *ctx, uint32_t level, const char *line);

/* ------------------------------------------------------------- options -- */

/* Where a value came from, weakest first. */
#define MOE_FROM_DEFAULT 0u
#define MOE_FROM_MODEL   1u /* the model's generation_config.json */
#define MOE_FROM_FILE    2u
#define MOE_FROM_ENV     3u
#define MOE_FROM_ARG     4u /* command line, or a program's own call */

MOE_API moe_status moe_options_new(moe_options **out, struct moe_error *err);
MOE_API void       moe_options_free(moe_options *o);

/* The system's and the user's moe.ini, then MOE_* variables. */
MOE_API moe_status moe_options_load_defaults(moe_options      *o,
                                             struct moe_error *err);
/* One INI file.  Unknown sections and keys, values out of range and lines
 * that the INI reader would cut are errors with file and line. */
MOE_API moe_status moe_options_load(moe_options *o, const char *path,
                                    struct moe_error *err);
/* key: "section.name", "memory.budget".  from: MOE_FROM_*; a weaker source
 * does not replace a stronger one's value. */
MOE_API moe_status moe_options_set(moe_options *o, const char *key,
                                   const char *value, uint32_t from,
                                   struct moe_error *err);
/* The value as text, NULL if the key is unknown.  Lives until it is set
 * again. */
MOE_API const char *moe_options_get(const moe_options *o, const char *key);
MOE_API void moe_options_set_log(moe_options *o, moe_log_fn fn, void *ctx);

/* One row of the option table, with the value it has now. */
struct moe_option {
    uint32_t    struct_size;
    uint32_t    from;       /* MOE_FROM_*                                     */
    const char *key;        /* "memory.budget"                                */
    const char *type;       /* "int", "float", "size", "bool", "string",
                               "list", or the allowed words "a|b|c"           */
    const char *flags;      /* "-t --threads", documented spelling first; ""
                               if it has none                                 */
    const char *env;        /* "MOE_THREADS"                                  */
    const char *fallback;   /* built-in value                                 */
    const char *range;      /* "1..4096", "" if any                           */
    const char *help;       /* one line                                       */
    const char *value;
    const char *where;      /* "moe.ini:12", "command line", "built-in"       */
};
/* i from 0; MOE_E_NOT_FOUND past the last row. */
MOE_API moe_status moe_options_at(const moe_options *o, size_t i,
                                  struct moe_option *out);
/* The row that a command-line flag ("-t", "--threads") sets. */
MOE_API moe_status moe_options_flag(const moe_options *o, const char *flag,
                                    struct moe_option *out,
                                    struct moe_error  *err);

/* -------------------------------------------------------------- engine -- */

/*
 * Opens the model of "model.path": finds plugins, reads the checkpoint's
 * headers, plans memory under the budget, loads what has a place.  A budget
 * that is too small is MOE_E_OVER_BUDGET; the text names the smallest that
 * works.
 */
MOE_API moe_status moe_engine_open(const moe_options *o, moe_engine **out,
                                   struct moe_error *err);
MOE_API void       moe_engine_close(moe_engine *e); /* sequences go with it */

/* What lies where and why, without loading a weight.  json: 0 a table for
 * people, 1 one object. */
MOE_API moe_status moe_explain(const moe_options *o, int json, moe_write_fn fn,
                               void *ctx, struct moe_error *err);

struct moe_engine_info {
    uint32_t    struct_size;
    uint32_t    vocab;
    uint32_t    max_context;     /* tokens a sequence may have                */
    uint32_t    n_layers;
    uint32_t    n_moe_layers;
    uint32_t    n_experts, top_k;
    uint32_t    threads;
    const char *model;           /* folder                                    */
    const char *family;
    const char *backend;
    uint64_t    params_total, params_active;
    uint64_t    weight_bytes;    /* in slots, if all experts were resident    */
    uint64_t    budget_bytes;    /* the ceiling in force                      */
    uint64_t    reserved_bytes;  /* of it, now                                */
    uint64_t    n_slots;         /* expert slots                              */
    uint64_t    n_expert_total;  /* experts in all layers                     */
};
MOE_API moe_status moe_engine_info(const moe_engine *e,
                                   struct moe_engine_info *out);

/* Text to token ids and back.  *ids and *text are freed with moe_free. */
#define MOE_ENCODE_BOS     1u /* what the tokenizer adds around a text        */
#define MOE_ENCODE_SPECIAL 2u /* special tokens written in the text count     */
MOE_API moe_status moe_engine_encode(const moe_engine *e, const char *text,
                                     size_t len, uint32_t flags,
                                     uint32_t **ids, size_t *n,
                                     struct moe_error *err);
#define MOE_DECODE_SPECIAL 1u /* special tokens appear in the text            */
MOE_API moe_status moe_engine_decode(const moe_engine *e, const uint32_t *ids,
                                     size_t n, uint32_t flags, char **text,
                                     size_t *len, struct moe_error *err);
/* Messages to a prompt by the model's chat template.  roles and contents:
 * n_messages strings.  MOE_E_NOT_FOUND: the model has no template. */
MOE_API moe_status moe_engine_chat_prompt(moe_engine *e, size_t n_messages,
                                          const char *const *roles,
                                          const char *const *contents,
                                          uint32_t **ids, size_t *n,
                                          struct moe_error *err);

/* ----------------------------------------------------------- sequences -- */

struct moe_sampling {
    uint32_t struct_size;
    uint32_t top_k;             /* 0: off                                     */
    float    temperature;       /* 0: greedy                                  */
    float    top_p;             /* 1: off                                     */
    float    min_p;             /* 0: off                                     */
    float    repeat_penalty;    /* 1: off                                     */
    float    presence_penalty;  /* 0: off                                     */
    float    frequency_penalty; /* 0: off                                     */
    uint64_t seed;
};
MOE_NO_TAIL(moe_sampling, seed);

/* The sampling that the options (generate.*) and the model ask for. */
MOE_API moe_status moe_engine_sampling(const moe_engine    *e,
                                       struct moe_sampling *out);

#define MOE_REQUEST_IGNORE_EOS 1u
#define MOE_REQUEST_SCORE      2u /* log-probability of each prompt token too */

struct moe_request {
    uint32_t                   struct_size;
    uint32_t                   flags;
    const uint32_t            *prompt; /* (n_prompt) token ids; copied        */
    size_t                     n_prompt;
    uint32_t                   max_tokens; /* 0: only the prompt              */
    uint32_t                   n_stop;
    const char *const         *stop; /* texts that end it, not in the output  */
    const struct moe_sampling *sampling; /* NULL: moe_engine_sampling         */
    /* Optional: the logits after prompt token or output token `position`,
     * (vocab) f32, during step.  Every position of the prompt if
     * MOE_REQUEST_SCORE, else only those that are sampled from. */
    void (*on_logits)(void *ctx, uint32_t position, const float *logits,
                      uint32_t vocab);
    void *ctx;
};

/* Queues a sequence.  MOE_E_INVAL: empty prompt, id out of range, longer
 * than the context (both figures are named). */
MOE_API moe_status moe_engine_submit(moe_engine               *e,
                                     const struct moe_request *r,
                                     moe_sequence            **out,
                                     struct moe_error         *err);
/* One step over the batch.  *active: sequences not yet finished.  A failure
 * of one sequence is that sequence's; a failure returned here is the
 * engine's: close it. */
MOE_API moe_status moe_engine_step(moe_engine *e, uint32_t *active,
                                   struct moe_error *err);
/* Ends the step under way, and every later one, with MOE_E_CANCELED. */
MOE_API void moe_engine_cancel(moe_engine *e);

#define MOE_FINISH_NONE   0u
#define MOE_FINISH_STOP   1u /* end token or stop text                        */
#define MOE_FINISH_LENGTH 2u /* max_tokens, or the context is full            */
#define MOE_FINISH_ERROR  3u

struct moe_sequence_info {
    uint32_t struct_size;
    uint32_t finish;          /* MOE_FINISH_*                                 */
    uint32_t n_prompt;
    uint32_t n_output;        /* tokens generated, the end token included     */
    moe_status status;        /* of MOE_FINISH_ERROR                          */
    uint32_t reserved;
    double   ttft_s;          /* submit to first token, seconds; 0 if none    */
    double   total_s;         /* submit to last token                         */
};
MOE_API moe_status moe_sequence_info(const moe_sequence       *s,
                                     struct moe_sequence_info *out);
/* The output's text so far, from byte `from` on: whole UTF-8 characters,
 * stop texts held back.  *text lives until the next step. */
MOE_API moe_status moe_sequence_text(const moe_sequence *s, size_t from,
                                     const char **text, size_t *len);
MOE_API moe_status moe_sequence_tokens(const moe_sequence *s,
                                       const uint32_t **ids, size_t *n);
/* Natural log-probabilities: MOE_REQUEST_SCORE; (n_prompt), the first is 0. */
MOE_API moe_status moe_sequence_scores(const moe_sequence *s,
                                       const double **logprob, size_t *n);
/* Why MOE_FINISH_ERROR; "" otherwise. */
MOE_API const char *moe_sequence_error(const moe_sequence *s);
/* Ends it if it runs, and frees it. */
MOE_API void moe_sequence_free(moe_sequence *s);

/* ---------------------------------------------------------- statistics -- */

struct moe_stats {
    uint32_t struct_size;
    uint32_t n_moe_layers;
    uint64_t prefill_tokens, decode_tokens; /* rows computed                  */
    double   prefill_s, decode_s;  /* time of steps with and without prefill  */
    uint64_t steps;
    uint64_t expert_hits, expert_loads; /* residency, once a layer and step   */
    uint64_t bytes_read;           /* from the checkpoint, by expert loads    */
    uint64_t reserved_bytes, peak_bytes, budget_bytes; /* the ledger          */
    double   imbalance;            /* max / mean load, mean over layers by    */
    double   entropy;              /* their tokens; of load, 1 is even        */
    double   distinct;             /* mean distinct experts a layer and step  */
    double   open_s;               /* time moe_engine_open took               */
};
MOE_API moe_status moe_engine_stats(const moe_engine *e,
                                    struct moe_stats *out);
/* Tokens each expert of the i-th MoE layer got: (n_experts) into counts;
 * *layer: its number in the model.  The last layer of the model computes its
 * feed-forward for those rows alone whose logits are wanted, so of a prompt it
 * counts the last token. */
MOE_API moe_status moe_engine_expert_load(const moe_engine *e, uint32_t i,
                                          uint32_t *layer, uint64_t *counts);

/* ----------------------------------------------------------- benchmark -- */

/*
 * Speed beside what the machine could do at best, measured in the same
 * process on the same threads.  Open, run tests, close; one thread at a
 * time, as with an engine.
 */
#define MOE_BENCH_NO_MACHINE 1u /* measure no ceilings: shares are 0          */
#define MOE_BENCH_OPS        2u /* after a test, once more with a clock around
                                   each operation                             */

/* One of n_prompt and n_gen is 0. */
struct moe_bench_test {
    uint32_t struct_size;
    uint32_t n_prompt; /* tokens of each prompt, computed as fast as it goes  */
    uint32_t n_gen;    /* tokens that each sequence generates, one a step     */
    uint32_t batch;    /* sequences at once, at least 1                       */
    uint32_t depth;    /* tokens each has before the clock starts             */
};
MOE_NO_TAIL(moe_bench_test, depth);

struct moe_bench_setup {
    uint32_t                     struct_size;
    uint32_t                     flags;       /* MOE_BENCH_*                  */
    uint32_t                     repetitions; /* of a test; 0: 5              */
    uint32_t                     n_tests;
    /* What will be run: room is made for the longest and the widest, unless
     * model.context and engine.sequences are set. */
    const struct moe_bench_test *tests;
    uint64_t                     seed;        /* of tokens and random weights */
    /*
     * NULL: the model of model.path.  Else a shape with random weights that
     * are made in memory: a preset's name or the beginning of it, a folder
     * or a config.json.  format: of the weights, "int4-g32" or "experts=
     * fp8-e4m3,rest=bf16"; NULL: what moe_quantize gives experts.  skew: how
     * unlike the router's rows are, 0: routing is nearly even.
     */
    const char *shape, *format;
    double      skew;
    uint32_t    layers; /* of the shape, the first; 0: all                    */
    uint32_t    reserved;
};
MOE_NO_TAIL(moe_bench_setup, reserved);

/* What the machine can do at best, all threads together. */
struct moe_bench_machine {
    uint32_t    struct_size;
    uint32_t    threads;
    uint64_t    buffer_bytes;     /* that were read                           */
    double      read_4k;          /* bytes/s, 4 KiB pages, front to back      */
    double      read_4k_streams;  /* four streams and prefetch                */
    double      read_2m;          /* 2 MiB pages where the system gives them  */
    double      read_2m_streams;
    double      f32_ops;          /* operations/s in registers; a product and
                                     its sum are two                          */
    double      int8_ops;         /* 0: no instructions for it                */
    const char *f32_by, *int8_by; /* "AVX2 FMA", "AVX2 maddubs"               */
};
MOE_NO_TAIL(moe_bench_machine, int8_by);

struct moe_bench_result {
    uint32_t struct_size;
    uint32_t repetitions;
    uint64_t tokens, steps;     /* of one repetition                          */
    double   tps, tps_min, tps_max; /* tokens/s: median, least, most          */
    double   step_s;            /* median of a repetition over its steps      */
    /* Of one step, on average.  weight_bytes: slots that must be read, each
     * once: attention, router, head, shared and those experts that got a
     * row.  kv_bytes: cached keys and values.  ops: two for each of these
     * weights and row. */
    double   weight_bytes, kv_bytes, ops;
    /* Ceilings while the test ran, medians; 0: not measured. */
    double   read_ceiling;      /* bytes/s                                    */
    double   arith_ceiling;     /* ops/s, the better of f32 and int8          */
    double   read_share;        /* weight_bytes / step_s / read_ceiling       */
    double   arith_share;       /* ops / step_s / arith_ceiling               */
    double   imbalance, entropy, distinct; /* as in moe_stats, of this test   */
    double   expected_distinct; /* mean E (1 - (1 - k/E)^rows), were all even */
    double   rest_s;            /* MOE_BENCH_OPS: of a step, in no operation  */
    uint64_t peak_bytes, budget_bytes; /* the engine in the ledger, host      */
    /* What moe_plan_run says of this test on this machine, whose operations
     * were measured one by one when the bench was opened; 0: not known. */
    double   predicted_tps;
};
MOE_NO_TAIL(moe_bench_result, predicted_tps);

/* One kind of operation of the test run last, of one step on average. */
struct moe_bench_op {
    uint32_t    struct_size;
    uint32_t    reserved;
    const char *name;
    double      calls, seconds; /* seconds 0 without MOE_BENCH_OPS            */
    double      bytes, ops;     /* as in moe_bench_result                     */
};
MOE_NO_TAIL(moe_bench_op, ops);

/* Opens the engine of the options and, if asked for, takes a buffer to
 * measure the machine with.  Both count against memory.budget. */
MOE_API moe_status  moe_bench_open(const moe_options            *o,
                                   const struct moe_bench_setup *setup,
                                   moe_bench **out, struct moe_error *err);
MOE_API void        moe_bench_close(moe_bench *b);
/* The engine, for questions and moe_engine_cancel; it closes with b. */
MOE_API moe_engine *moe_bench_engine(moe_bench *b);
/* MOE_E_NOT_FOUND: MOE_BENCH_NO_MACHINE.  About two seconds. */
MOE_API moe_status  moe_bench_machine(moe_bench                *b,
                                      struct moe_bench_machine *out,
                                      struct moe_error         *err);
/* A warm-up, then the repetitions.  MOE_E_INVAL: the test does not fit the
 * context or the sequences of the engine; the figures are named. */
MOE_API moe_status  moe_bench_run(moe_bench *b, const struct moe_bench_test *t,
                                  struct moe_bench_result *out,
                                  struct moe_error        *err);
/* Of the last run.  MOE_E_NOT_FOUND past the end: tokens/s of the i-th
 * repetition; the i-th kind of operation that the model has. */
MOE_API moe_status  moe_bench_sample(const moe_bench *b, uint32_t i,
                                     double *tps);
MOE_API moe_status  moe_bench_op_at(const moe_bench *b, uint32_t i,
                                    struct moe_bench_op *out);

/* --------------------------------------------------------------- tools -- */

/* The plugins that the options find: file, state, reason. */
MOE_API moe_status moe_plugins_print(const moe_options *o, int json,
                                     moe_write_fn fn, void *ctx,
                                     struct moe_error *err);
/* A checkpoint folder: family, shape, parameters, formats, tensors. */
MOE_API moe_status moe_inspect(const moe_options *o, const char *path,
                               int json, moe_write_fn fn, void *ctx,
                               struct moe_error *err);
/* done and total in bytes of the source; nonzero return cancels. */
typedef int (*moe_progress_fn)(void *ctx, uint64_t done, uint64_t total,
                               const char *what);
/* What moe_quantize did. */
struct moe_quantize_info {
    uint32_t struct_size;
    uint32_t few;          /* tokens: an expert that saw fewer had help from
                              its layer's mean                              */
    uint64_t source_bytes; /* weights read                                  */
    uint64_t matrices;     /* written in a new format                       */
    uint64_t calibrated;   /* of them with quant.calibrate; 0: not asked for */
    uint64_t tokens;       /* that were read for it                         */
    uint64_t expert_least, expert_most; /* tokens that an expert saw; 0 if
                                           none was calibrated              */
    uint64_t expert_few;   /* experts that saw less than `few`              */
    double   error;        /* mean over calibrated matrices of the squared
                              error of their outputs, over that of rounding
                              to nearest                                    */
};
MOE_NO_TAIL(moe_quantize_info, error);

/* Writes checkpoint `in` to the new folder `out` in the formats of quant.*;
 * `out` appears whole or not at all.  With quant.calibrate the model reads a
 * text first, on the best backend, and columns make up for the rounding of
 * those before them.  The bytes do not depend on threads or budget.  info:
 * may be NULL. */
MOE_API moe_status moe_quantize(const moe_options *o, const char *in,
                                const char *out, moe_progress_fn fn,
                                void *ctx, struct moe_quantize_info *info,
                                struct moe_error *err);
/* The folder of the model that ships with the library; MOE_E_NOT_FOUND with
 * the places looked at. */
MOE_API moe_status moe_default_model(const moe_options *o, char *buf,
                                     size_t size, struct moe_error *err);

#ifdef __cplusplus
}
#endif
#endif /* MOE_MOE_H */
