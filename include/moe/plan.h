/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe/plan.h - what a deployment needs and costs, before it exists.
 *
 * A plan is made from a model's configuration alone: a preset's name, a
 * folder, a config.json.  It counts parameters, bytes and floating-point
 * operations exactly, and estimates times from a device's data sheet.
 *
 * Conventions: a GB is 1e9 bytes; a multiply-add is two operations; a
 * model's total is its text model without MTP layers, vision towers and
 * scales of formats; `active` leaves out the input table when it is not the
 * output's too (as DeepSeek and OpenAI publish), `active_table` has it (as
 * Qwen, Mistral and Meta do).
 *
 * Threads: a moe_planner is read-only once open and may be shared.  Calls take
 * microseconds, but for moe_plan_simulate, a setup with skew or a trace, and
 * the measured device "this".
 */
#ifndef MOE_PLAN_H
#define MOE_PLAN_H

#include <moe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef MOE_API
#    define MOE_API __attribute__((__visibility__("default")))
#endif

typedef struct moe_planner moe_planner;

/* The classes of weights. */
#define MOE_PLAN_EMBED     0u /* input table                                  */
#define MOE_PLAN_OUTPUT    1u /* output head, 0 if it is the input table      */
#define MOE_PLAN_ATTENTION 2u
#define MOE_PLAN_ROUTER    3u
#define MOE_PLAN_EXPERTS   4u /* routed                                       */
#define MOE_PLAN_SHARED    5u
#define MOE_PLAN_DENSE     6u /* feed-forward of dense layers                 */
#define MOE_PLAN_NORMS     7u
#define MOE_PLAN_CLASSES   8u

/* "experts"; "?" past the last. */
MOE_API const char *moe_plan_class_name(uint32_t cls);

struct moe_plan_model {
    uint32_t    struct_size;
    uint32_t    runnable;      /* moe-run itself knows the family             */
    const char *name;          /* these four live as long as the plan         */
    const char *family;
    const char *source;        /* of a preset; "" else                        */
    const char *format;        /* it is published in, as moe_plan_setup's     */
    uint32_t    hidden, n_layers, n_moe_layers, vocab;
    uint32_t    heads, kv_heads, head_dim, max_context;
    uint32_t    n_experts, top_k; /* 0: a dense model                         */
    uint32_t    latent;        /* width of a latent cache row, 0: none        */
    uint32_t    limited_layers;/* whose attention has a window or chunks      */
    uint64_t    params[MOE_PLAN_CLASSES];
    uint64_t    total, active, active_table, per_expert;
    uint64_t    published;     /* total as published, 0: unknown              */
    double      flop_token;    /* of a token, without attention scores        */
    uint64_t    file_lacks;    /* bytes of weights that a GGUF file tells of
                                  and lacks: it was cut; else 0               */
};
MOE_NO_TAIL(moe_plan_model, file_lacks);

/*
 * what: a preset's name, a folder with a config.json, such a file, or a GGUF
 * file, whose own formats are called "stored"; of one that ends within its
 * weights moe_plan_model tells how much is not there.
 * MOE_E_NOT_FOUND with the nearest names; MOE_E_UNSUPPORTED for an unknown
 * family; MOE_E_CORRUPT for a field that is missing or contradicts another.
 */
MOE_API moe_status moe_plan_open(const char *what, moe_planner **out,
                                 struct moe_error *err);
/*
 * A dense model with the attention, depth and vocabulary of another and a
 * feed-forward of the width that makes it as large as `params` in all, to
 * within one unit of width.  MOE_E_INVAL: too few for a width of one.
 */
MOE_API moe_status moe_plan_open_dense(const moe_planner *like, uint64_t params,
                                       const char *name, moe_planner **out,
                                       struct moe_error *err);
MOE_API void       moe_plan_close(moe_planner *p);
MOE_API moe_status moe_plan_model(const moe_planner *p,
                                  struct moe_plan_model *out);
/* The i-th preset's name in alphabetical order into buf; MOE_E_NOT_FOUND
 * past the last. */
MOE_API moe_status moe_plan_preset_at(size_t i, char *buf, size_t size);

/*
 * Bytes of all weights.  format: one word for every matrix, "fp8", or words
 * for classes, "experts=mxfp4,attention=fp8,rest=bf16"; NULL: as published.
 * A word for all leaves router, embeddings, norms and biases in 16 bits;
 * "8bit" and "4bit" are plain widths for everything, without scales.
 * by_class: (MOE_PLAN_CLASSES) or NULL.  MOE_E_INVAL names the words known.
 */
MOE_API moe_status moe_plan_weights(const moe_planner *p, const char *format,
                                    uint64_t *total, uint64_t *by_class,
                                    struct moe_error *err);
/* "bf16 fp8 ...": the words of formats. */
MOE_API const char *moe_plan_formats(void);

/* Bytes of one sequence's cache at so many tokens, elem bytes an element
 * (2: 16 bits).  Windows and chunks bound what their layers keep. */
MOE_API double moe_plan_kv_bytes(const moe_planner *p, double tokens,
                                 double elem);
/* What one more token adds once windows and chunks are full. */
MOE_API uint64_t moe_plan_kv_growth(const moe_planner *p, uint32_t elem);
/* Operations of one token that attends to `context` tokens (a latent cache
 * in its absorbed form). */
MOE_API double moe_plan_decode_flop(const moe_planner *p, double context);
/* Operations of a causal prefill (a latent cache expanded), with the logits
 * of the last token or of all. */
MOE_API double moe_plan_prefill_flop(const moe_planner *p, double tokens,
                                     int all_logits);

/* ---------------------------------------------------------------- load -- */

/* Expected distinct experts of a layer in a step of B tokens:
 * E (1 - (1 - k/E)^B); exact if every expert is equally likely. */
MOE_API double moe_plan_distinct(uint32_t n_experts, uint32_t top_k,
                                 double batch);
/*
 * Expected load of the fullest of `ranks` equal parts of the experts (ranks
 * == n_experts: of the fullest expert), in (token, expert) pairs, for
 * uniform routing: the larger of the product of binomial tails and of the
 * normal order statistic, the former spread by sqrt(G/(G-1)) because loads
 * add up to a constant.  Of the fullest expert and up to 32 tokens: binomials
 * under that sum.  Within 2 % of a simulation; of parts from a batch of 16 on.
 */
MOE_API double moe_plan_max_load(uint32_t n_experts, uint32_t top_k,
                                 double batch, uint32_t ranks);
/* Ranks besides its own that a token is sent to, one copy a rank:
 * (G-1)(1 - C(E-E/G, k) / C(E, k)). */
MOE_API double moe_plan_remote_ranks(uint32_t n_experts, uint32_t top_k,
                                     uint32_t ranks);

struct moe_plan_draw {
    uint32_t       struct_size;
    uint32_t       n_experts, top_k, batch, ranks;
    uint32_t       trials;
    double         skew;      /* spread of log-popularity; 0: uniform         */
    uint64_t       seed;
    const uint8_t *trace;     /* (trace_rows, top_k) expert ids, or NULL      */
    uint64_t       trace_rows;
    uint64_t       trace_step;/* rows of one token: its layers                */
};
MOE_NO_TAIL(moe_plan_draw, trace_step);
struct moe_plan_spread {
    uint32_t struct_size;
    uint32_t pad;
    double   max_load;  /* mean over trials of the fullest expert             */
    double   max_rank;  /* ... of the fullest rank                            */
    double   distinct;  /* mean experts with any work                         */
    double   p99;       /* 99th percentile of the fullest expert              */
};
MOE_NO_TAIL(moe_plan_spread, p99);
/* Draws batches: Plackett-Luce with log-weights N(0, skew^2), drawn anew for
 * each trial, or rows of a trace.  The same seed gives the same figures. */
MOE_API moe_status moe_plan_simulate(const struct moe_plan_draw *d,
                                     struct moe_plan_spread     *out,
                                     struct moe_error           *err);

/* -------------------------------------------------------------- device -- */

/*
 * What the operations of a backend take, measured one by one with weights
 * that are no model's: of the device "this" alone.  A weight's time depends
 * on the rows that meet it (1 to 8, 10, 12, 16, 24, 32, 64 or 128 of them), on
 * how many weights a call has and on whether the caches still have them.
 */
#define MOE_PLAN_KINDS 4u /* f32, 16-bit floats, 8 bits, 4 bits */
#define MOE_PLAN_ROWS  15u
#define MOE_PLAN_NEAR_SMALL 0u /* small matrices, in the caches */
#define MOE_PLAN_FAR_SMALL  1u
#define MOE_PLAN_FAR_LARGE  2u
#define MOE_PLAN_EMBEDDING  0u /* units: rows * hidden                        */
#define MOE_PLAN_NORM       1u /* rows * hidden                               */
#define MOE_PLAN_ROPE       2u /* rows * width of q, k and v                  */
#define MOE_PLAN_ROUTE      3u /* rows * (experts + chosen)                   */
#define MOE_PLAN_COMBINE    4u /* rows * chosen * hidden                      */
#define MOE_PLAN_PICK       5u /* rows * vocabulary; the choice of a token    */
#define MOE_PLAN_SMALL_OPS  6u
struct moe_plan_rates {
    uint32_t struct_size;
    uint32_t kinds;     /* a bit for each kind that was measured              */
    double   step_rows; /* of a step, at most                                 */
    double   head_rows; /* whose logits are computed at once                  */
    /* seconds a weight: [where][0 a product, 1 a feed-forward][kind][rows] */
    double   weight[3][2][MOE_PLAN_KINDS][MOE_PLAN_ROWS];
    double   size[2][2]; /* weights of a call: [small, large][product, ffn]   */
    double   call[MOE_PLAN_SMALL_OPS], unit[MOE_PLAN_SMALL_OPS]; /* seconds   */
    /* attention: seconds a row and head, seconds an operation of the scores;
     * [0]: rows of different sequences, [1]: of one */
    double   attend_row[2], attend_op[2];
    double   step;      /* seconds of a step outside of operations            */
    double   read[5];   /* seconds a byte, of 1, 4, 16, 64 and 256 MiB        */
    double   bandwidth; /* bytes a second while this was measured             */
    /* How much longer than then what waits for the memory takes, and what
     * computes; 0: alike. */
    double   slow[2];
};
MOE_NO_TAIL(moe_plan_rates, slow);

struct moe_plan_device {
    uint32_t struct_size;
    uint32_t is_host;        /* a CPU: the memory is the machine's            */
    char     name[48];
    char     vendor[16];
    char     link[80];
    char     price_date[32]; /* "" if there is no price                       */
    char     price_source[240];
    char     source_date[32];
    char     source[400];
    char     confidence[16];
    double   memory;         /* bytes                                         */
    double   bandwidth;      /* bytes a second                                */
    double   fp32, fp16, bf16, fp8, int8, fp4; /* FLOP/s, 0: no such units    */
    double   link_rate;      /* bytes a second, one direction; 0: none        */
    double   host_rate;      /* from the host's memory                        */
    double   price, price_low, price_high; /* USD an hour, 0: unknown         */
    double   power;          /* watts                                         */
    double   eff_memory, eff_prefill, eff_decode, eff_link; /* of the peaks   */
    double   latency;        /* of a collective, seconds                      */
    double   launch;         /* of a layer, seconds                           */
    struct moe_plan_rates rates; /* of "this"; kinds 0: not measured          */
    double   host_memory;    /* bytes of the machine around them, 0: unknown  */
    double   disk_rate;      /* bytes a second, 0: unknown                    */
};
MOE_NO_TAIL(moe_plan_device, disk_rate);
/* A name from conf/hardware, the beginning of one that fits no other, a path
 * of such a file, or "this": the machine, measured (a second) and then kept in
 * $XDG_CACHE_HOME/moe-run/this.ini for the same processor and threads; what
 * does not read as such a file is measured again, and "this-anew" measures
 * whatever there is. */
MOE_API moe_status moe_plan_device(const char             *name,
                                   struct moe_plan_device *out,
                                   struct moe_error       *err);
MOE_API moe_status moe_plan_device_at(size_t i, char *buf, size_t size);

/* ------------------------------------------------------------ the plan -- */

#define MOE_PLAN_IDEAL 1u /* peaks, no communication: the bare roofline       */

struct moe_plan_setup {
    uint32_t                      struct_size;
    uint32_t                      flags;
    const struct moe_plan_device *device;
    const char                   *format;  /* NULL: as published              */
    uint32_t devices; /* in all                                               */
    uint32_t tp;      /* devices that share a sequence's attention; 0: choose */
    uint32_t ep;      /* parts the experts are dealt out to; 0: choose        */
    uint32_t pp;      /* stages of layers; 0: 1                               */
    double   kv_elem; /* bytes; 0: 2                                          */
    double   batch;   /* sequences at once                                    */
    double   input, output; /* tokens of a request                            */
    double   context; /* tokens a sequence may have; 0: input + output        */
    double   utilization; /* of the rented hours, 0..1]; 0: 1                 */
    double   price;   /* USD an hour and device; 0: the device's              */
    double   skew;    /* of the experts' popularity, as moe_plan_draw's       */
    double   imbalance; /* of the fullest rank, if known; 0: estimate         */
    uint32_t replicas;  /* copies of the model, each on devices / replicas of
                           them with its part of the batch; 0: 1              */
    uint32_t pad;
    /* recorded routes in place of uniform ones, as moe_plan_draw's; or NULL */
    const uint8_t *trace;
    uint64_t trace_rows, trace_step;
};
MOE_NO_TAIL(moe_plan_setup, trace_step);

#define MOE_PLAN_BOUND_MEMORY  0u
#define MOE_PLAN_BOUND_COMPUTE 1u
#define MOE_PLAN_BOUND_LINK    2u

struct moe_plan_result {
    uint32_t struct_size;
    uint32_t fits;
    uint32_t tp, ep, pp, dp; /* dp: groups that hold different sequences      */
    uint32_t bound;          /* of a decode step, MOE_PLAN_BOUND_*            */
    uint32_t prefill_bound;
    /* bytes of one device */
    double experts, rest, kv, activations, needed, limit;
    /* all devices together; distinct experts a layer and step, of one copy */
    double weights, step_bytes, step_flop, distinct;
    double imbalance;        /* fullest rank over the mean, 1 if there is one */
    double layer_traffic;    /* bytes sent by a device in a layer's exchange  */
    /* seconds of a decode step */
    double t_memory, t_compute, t_link, t_launch, step, roofline_step;
    double tokens_s;         /* decode, all sequences                         */
    double ttft, roofline_ttft, prefill_tokens_s;
    double served_tokens_s;  /* output tokens, prefills in between            */
    double usd_input, usd_output; /* a million tokens; 0: no price            */
    double usd_hour, usd_idle;    /* of an hour; of it for idleness           */
    double max_batch, max_context;/* that fit; 0: none                        */
    double critical_batch;   /* tokens a step from which arithmetic binds     */
    uint32_t replicas;       /* copies; the parts above are those of one      */
    uint32_t pad;
};
MOE_NO_TAIL(moe_plan_result, pad);
/*
 * MOE_E_INVAL: a figure out of range, or a layout that does not divide heads
 * or experts, with those that do.  A deployment that does not fit is no
 * error: fits is 0 and the times are those it would have.
 */
MOE_API moe_status moe_plan_run(const moe_planner *p,
                                const struct moe_plan_setup *s,
                                struct moe_plan_result *out,
                                struct moe_error *err);
/* A deployment that does not fit, with experts elsewhere. */
struct moe_plan_tiers {
    uint32_t struct_size;
    uint32_t pad;
    double   device_share;   /* of the experts that have room on the devices  */
    double   host, disk;     /* bytes of the others, all devices together     */
    double   wait;           /* seconds that a step waits for them            */
    double   step;           /* seconds of a step with that                   */
    double   device_hits;    /* of a step's experts, those found there        */
    double   kept_hits;      /* ... if those used most of late stay, as the
                                engine has it; without skew or trace: equal   */
};
MOE_NO_TAIL(moe_plan_tiers, kept_hits);
/*
 * r: of moe_plan_run with the same s.  With s->skew or s->trace the experts
 * that are used most are on the device and those used least on the disk.  A
 * host whose memory is not known is taken to have enough.  MOE_E_UNSUPPORTED:
 * a dense model.  MOE_E_OVER_BUDGET: what is no expert has no room, or
 * something is left for a disk of unknown pace.
 */
MOE_API moe_status moe_plan_tiers(const moe_planner *p,
                                  const struct moe_plan_setup  *s,
                                  const struct moe_plan_result *r,
                                  struct moe_plan_tiers *out,
                                  struct moe_error *err);
/* Fewest devices (1, 2, 4, 8, ... times what pp, tp, ep and replicas ask for)
 * on which the setup fits; 0: none up to `most`. */
MOE_API uint32_t moe_plan_devices(const moe_planner *p,
                                  const struct moe_plan_setup *s,
                                  uint32_t most);
/* USD a million tokens: devices * price * 1e6 / (3600 * tokens_s *
 * utilization); price: of a device and hour. */
MOE_API double moe_plan_usd(double devices, double price, double tokens_s,
                            double utilization);
/* Batch at which the model reads as many weights a step as a dense one that
 * reads `dense` parameters, both in one format: ln(1-x)/ln(1-k/E); infinity:
 * never, 0: always more. */
MOE_API double moe_plan_traffic_batch(const moe_planner *p, double dense);

/* ---------------------------------------------------------- the engine -- */

struct moe_options;

/*
 * What moe-run itself would hold for a model on this machine, to the byte:
 * the plan that an engine with these options follows, by the owners that its
 * ledger has.
 */
struct moe_plan_engine {
    uint32_t struct_size;
    uint32_t rows;        /* of a step, at most                               */
    uint32_t context, sequences;
    uint32_t pages, page_rows; /* of the KV cache; tokens in one              */
    uint64_t files;       /* as moe_plan_weights                              */
    uint64_t layout;      /* all matrices as the backend lays them out: with
                             its padding, expanded if it cannot do else       */
    uint64_t slots, n_experts; /* experts that have room at once, in all      */
    uint64_t dense;       /* matrices that always stay                        */
    uint64_t experts;     /* the slots                                        */
    uint64_t kv;          /* whole pages                                      */
    uint64_t activations; /* and norms, biases, scratch of the operations     */
    uint64_t staging;     /* the largest set of weights on its way from files */
    uint64_t process;     /* code, heap, tokenizer, thread stacks: measured,
                             the only figure that another run may not have    */
    uint64_t total, budget; /* of the host, or of the device that has memory
                             of its own                                       */
};
MOE_NO_TAIL(moe_plan_engine, budget);
/*
 * o: of an engine (model.path is not heeded).  what: as moe_plan_open's; of a
 * folder with weights their headers are read, of anything else the shape is
 * enough.  format: NULL for those of the files (of a preset: as published);
 * other words say what it would be after moe_quantize.  No weight is read.
 * MOE_E_UNSUPPORTED: a family that moe-run cannot run, or a format that none
 * of its quantizers writes; MOE_E_OVER_BUDGET as moe_engine_open.  A tenth of
 * a second, for the largest models some.
 */
MOE_API moe_status moe_plan_engine(const struct moe_options *o,
                                   const char *what, const char *format,
                                   struct moe_plan_engine *out,
                                   struct moe_error *err);
/* The same as the table or the JSON object of moe_explain (moe/moe.h). */
MOE_API moe_status moe_plan_explain(const struct moe_options *o,
                                    const char *what, const char *format,
                                    int json,
                                    int (*fn)(void *ctx, const char *text,
                                              size_t len),
                                    void *ctx, struct moe_error *err);

#ifdef __cplusplus
}
#endif
#endif /* MOE_PLAN_H */
