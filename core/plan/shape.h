/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shape.h - a model as a planner sees it: which matrices, how often.
 *
 * A family that the engine runs comes from core/model, so that a plan counts
 * what the engine loads; those it cannot run yet are read here, from the
 * same keys of config.json.  No tensor of a file is needed.
 */
#ifndef MOE_CORE_PLAN_SHAPE_H
#define MOE_CORE_PLAN_SHAPE_H

#include "checkpoint/json.h"
#include "model/arch.h"

#include <moe/plan.h>

/* Equal tensors of a model, all layers and experts together. */
struct moe_matrix {
    uint32_t cls;    /* MOE_PLAN_*, of its owner */
    uint32_t vector; /* a norm or a bias: always 16 bits, no product */
    uint64_t n, k;   /* (n, k); vectors: (n, 1) */
    uint64_t count;  /* in the model */
    uint64_t used;   /* for one token */
    double   bits;   /* of an element in the file, 0: not known */
};

#define MOE_SHAPE_MATRICES 96u

struct moe_sketch {
    char     name[64], family[32], source[240], format[160];
    uint32_t runnable; /* the engine knows the family */
    uint32_t hidden, n_layers, vocab, tied;
    uint32_t heads, kv_heads, head_dim, v_dim, max_context;
    uint32_t kv_lora, rope_dim, nope_dim; /* latent attention; kv_lora 0: no */
    uint32_t index_dim; /* of an indexer's cached key, 0: none */
    uint32_t n_experts, top_k, expert_width, shared_width, n_moe;
    uint64_t published;
    uint64_t file_lacks; /* bytes of weights, behind the end of a cut file */
    struct moe_layer *layers; /* (n_layers): ffn, width, window, chunk; owned */
    struct moe_matrix m[MOE_SHAPE_MATRICES];
    uint32_t          n_m;
};

/* Equal ones are added up.  0: the table is full. */
int moe_shape_add(struct moe_sketch *s, uint32_t cls, int vector, uint64_t n,
                  uint64_t k, uint64_t count, uint64_t used);
/* The same, with the bits an element has in the file. */
int moe_sketch_add_stored(struct moe_sketch *s, uint32_t cls, int vector,
                          uint64_t n, uint64_t k, uint64_t count,
                          uint64_t used, double bits);
/* From the header of a GGUF file (gguf.c). */
moe_status moe_sketch_gguf(const char *path, struct moe_sketch *out,
                           struct moe_error *err);
/* The object may be a whole config.json or one with "text_config". */
moe_status moe_shape_read(const struct moe_json *config, struct moe_sketch *out,
                          struct moe_error *err);
/* A preset's name, a folder or a file. */
moe_status moe_shape_open(const char *what, struct moe_sketch *out,
                          struct moe_error *err);
void       moe_shape_free(struct moe_sketch *s);

/* The families that only the planner knows (other.c).  Nonzero: it was one of
 * them, and *status tells how it went. */
int moe_shape_other(const char *type, const struct moe_json *config,
                    struct moe_sketch *s, moe_status *status,
                    struct moe_error *err);
const char *moe_shape_others(void); /* "a b c" */

/*
 * place.c: where the facts lie.  kind: "models" or "hardware"; the file of a
 * name into path, MOE_E_NOT_FOUND with the nearest names.
 */
moe_status moe_facts_find(const char *kind, const char *name, char *path,
                          size_t size, struct moe_error *err);
/* The i-th name in alphabetical order; 0: there are fewer. */
int moe_facts_at(const char *kind, size_t i, char *buf, size_t size);

struct moe_planner {
    struct moe_sketch s;
};

/* format.c: how a class of matrices is stored. */
struct moe_store {
    const char *word;
    double      bits;     /* of an element, without scales */
    uint32_t    group;    /* elements of a row under one scale; 0: none */
    uint32_t    block;    /* rows under one scale; 0: each row its own */
    double      extra;    /* bits of scale and zero point */
    uint32_t    rate;     /* MOE_RATE_*: the units that multiply it */
    uint32_t    flat;     /* for everything, vectors too, nothing else */
    uint32_t    stored;   /* as the file has it, if that is known */
};
#define MOE_RATE_16 0u
#define MOE_RATE_8  1u /* 8-bit floats where there are such units */
#define MOE_RATE_4  2u
#define MOE_RATE_32 3u

struct moe_formats {
    const struct moe_store *of[MOE_PLAN_CLASSES];
};
moe_status moe_formats_read(const char *text, struct moe_formats *out,
                            struct moe_error *err);
/* The same of a format that was asked for, or the model's own for NULL. */
moe_status moe_formats_of(const struct moe_sketch *m, const char *format,
                          struct moe_formats *out, struct moe_error *err);
double     moe_format_bytes(const struct moe_store *f,
                            const struct moe_matrix *m);

#endif /* MOE_CORE_PLAN_SHAPE_H */
