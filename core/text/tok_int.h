/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tok_int.h - what the files of the tokenizer share and nobody else sees.
 *
 *   tokfile.c tokload.c tokset.c tokcfg.c
 *                tokenizer.json -> the structures below
 *   tokenizer.c  encode: added tokens, then the stages in order
 *   vocab.c      tokens, merges, in flat tables
 *   added.c      added tokens found in a text
 *   normal.c pretok.c bpe.c decode.c   one stage each
 */
#ifndef MOE_CORE_TEXT_TOK_INT_H
#define MOE_CORE_TEXT_TOK_INT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/regex.h"
#include "text/tokenizer.h"

struct json_object;

/* --- a growing buffer; add returns 0 when memory is out ----------------- */

struct moe_buf {
    char  *p;
    size_t n, cap;
};

int moe_buf_room(struct moe_buf *b, size_t more);

static inline int
moe_buf_add(struct moe_buf *b, const char *text, size_t n)
{
    if (b->cap - b->n < n && !moe_buf_room(b, n))
        return 0;
    if (n != 0)
        memcpy(b->p + b->n, text, n);
    b->n += n;
    return 1;
}

/* Drop the first n bytes. */
static inline void
moe_buf_drop(struct moe_buf *b, size_t n)
{
    if (n != 0)
        memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

static inline void
moe_buf_free(struct moe_buf *b)
{
    free(b->p);
    b->p = NULL;
    b->n = b->cap = 0;
}

/* --- the vocabulary ------------------------------------------------------ */

#define MOE_TOKEN_MODEL   1u  /* the BPE model knows it                    */
#define MOE_TOKEN_ADDED   2u
#define MOE_TOKEN_SPECIAL 4u
#define MOE_TOKEN_ALIAS   8u  /* decodes as its normalised form            */
#define MOE_TOKEN_SKIP    16u /* a decode without special tokens drops it  */

struct moe_token {
    uint32_t off, len; /* in the arena; off MOE_NO_TOKEN: a hole */
};
#define MOE_NO_TOKEN 0xffffffffu

/* A slot of the hash by text; the tag saves looking at most other tokens. */
struct moe_slot {
    uint32_t id; /* MOE_NO_TOKEN: empty */
    uint32_t tag;
};

struct moe_merge {
    uint32_t left, right; /* left MOE_NO_TOKEN: an empty slot */
    uint32_t rank, id;
};

struct moe_vocab {
    char             *arena;
    size_t            arena_n, arena_cap;
    struct moe_token *token; /* (n_ids) */
    uint8_t          *flags; /* (n_ids) MOE_TOKEN_... */
    uint32_t          n_ids;
    struct moe_slot  *slot; /* (n_slots) open addressing */
    uint32_t          n_slots;
    struct moe_merge *merge;   /* (n_merges) likewise, by pair */
    uint32_t          n_merges;
    uint32_t         *rank_id; /* (n_ranks) the id that a rank makes */
    uint32_t          n_ranks;
    uint64_t          seed;
};

/* All tables at their final size.  0 when memory is out. */
int  moe_vocab_init(struct moe_vocab *v, uint32_t n_ids, uint32_t n_tokens,
                    size_t arena, uint32_t n_ranks);
void moe_vocab_free(struct moe_vocab *v);
/* 1, or 0 if the text or the id is taken already. */
int  moe_vocab_add(struct moe_vocab *v, const char *text, size_t len,
                   uint32_t id, uint8_t flags);
/* 1 and *id; must: flags that the token needs to have. */
int  moe_vocab_find(const struct moe_vocab *v, const char *text, size_t len,
                    uint8_t must, uint32_t *id);
/* A later merge of the same pair replaces the earlier one. */
void moe_vocab_add_merge(struct moe_vocab *v, uint32_t left, uint32_t right,
                         uint32_t rank, uint32_t id);
const struct moe_merge *moe_vocab_find_merge(const struct moe_vocab *v,
                                             uint32_t left, uint32_t right);
uint64_t moe_vocab_bytes(const struct moe_vocab *v);

/* --- stages ------------------------------------------------------------- */

enum moe_behavior {
    MOE_SPLIT_REMOVED,
    MOE_SPLIT_ISOLATED,
    MOE_SPLIT_PREVIOUS,
    MOE_SPLIT_NEXT,
    MOE_SPLIT_CONTIGUOUS
};

enum moe_stage_kind {
    /* normalizers */
    MOE_NORM_NFC,
    MOE_NORM_NFD,
    MOE_NORM_NFKC,
    MOE_NORM_NFKD,
    MOE_NORM_LOWER,
    MOE_NORM_STRIP,
    MOE_NORM_ACCENTS,
    MOE_NORM_REPLACE,
    MOE_NORM_PREPEND,
    MOE_NORM_BYTES,
    /* pre-tokenizers */
    MOE_PRE_BYTES,
    MOE_PRE_SPLIT,
    MOE_PRE_DIGITS,
    MOE_PRE_META,
    MOE_PRE_WORDS,
    MOE_PRE_WHITE,
    MOE_PRE_PUNCT,
    /* decoders */
    MOE_DEC_BYTES,
    MOE_DEC_META,
    MOE_DEC_REPLACE,
    MOE_DEC_FALLBACK,
    MOE_DEC_FUSE,
    MOE_DEC_STRIP,
    MOE_DEC_SUFFIX
};

/* One step of a chain; which fields count depends on kind. */
struct moe_stage {
    enum moe_stage_kind kind;
    struct moe_regex   *rx;      /* a pattern, or NULL: find is literal      */
    char               *find;    /* literal pattern, prefix, suffix          */
    size_t              find_n;
    char               *content; /* what replaces it                         */
    size_t              content_n;
    enum moe_behavior   behavior;
    int                 invert;
    int                 left, right; /* Strip: which side (normalizer), how
                                        many characters (decoder)            */
    int                 prefix;  /* ByteLevel: a leading space; Metaspace:
                                    0 never, 1 first, 2 always               */
    int                 split;   /* Metaspace, Digits: each one alone        */
};

struct moe_chain {
    struct moe_stage *stage;
    size_t            n, cap;
};

void     moe_chain_free(struct moe_chain *c);
uint64_t moe_chain_bytes(const struct moe_chain *c);

/* --- reading settings (tokcfg.c) ----------------------------------------- */

struct moe_tokcfg {
    const char       *file; /* for messages */
    uint32_t          flags;
    struct moe_error *err;
};

/* A file's own words for a message: controls replaced, cut to MOE_TOK_SHOW
 * bytes at a character's end.  buf: at least MOE_TOK_SHOW + 4; returns it. */
#define MOE_TOK_SHOW 120
const char *moe_tok_show(const char *text, size_t n, char *buf);
/* A new, zeroed stage at the chain's end; NULL when memory is out. */
struct moe_stage *moe_chain_add(struct moe_chain *c,
                                enum moe_stage_kind kind);
moe_status moe_cfg_corrupt(const struct moe_tokcfg *cfg, const char *part,
                           const char *why);
moe_status moe_cfg_unsupported(const struct moe_tokcfg *cfg, const char *part,
                               const char *what);
moe_status moe_cfg_nomem(const struct moe_tokcfg *cfg);
/* The "type" of a settings object. */
moe_status moe_cfg_type(const struct moe_tokcfg *cfg, const char *part,
                        struct json_object *o, const char **type);
/* dflt < 0: the key must be there. */
moe_status moe_cfg_bool(const struct moe_tokcfg *cfg, const char *part,
                        struct json_object *o, const char *key, int dflt,
                        int *out);
moe_status moe_cfg_int(const struct moe_tokcfg *cfg, const char *part,
                       struct json_object *o, const char *key, int *out);
/* A malloc'd copy, NUL-terminated.  chars > 0: exactly that many. */
moe_status moe_cfg_string(const struct moe_tokcfg *cfg, const char *part,
                          struct json_object *o, const char *key, int chars,
                          char **out, size_t *n);
/* {"String": ...} or {"Regex": ...} into st->find or st->rx. */
moe_status moe_cfg_pattern(const struct moe_tokcfg *cfg, const char *part,
                           struct json_object *o, struct moe_stage *st);
/* Metaspace, as a pre-tokenizer and as a decoder. */
moe_status moe_cfg_meta(const struct moe_tokcfg *cfg, const char *part,
                        struct json_object *o, struct moe_stage *st);
/* Calls one() for o, or for each member of the list under key if o is a
 * "Sequence", in order and at any depth. */
moe_status moe_cfg_each(const struct moe_tokcfg *cfg, const char *part,
                        struct json_object *o, const char *key,
                        moe_status (*one)(const struct moe_tokcfg *cfg,
                                          struct json_object *o,
                                          const char *type,
                                          struct moe_chain *chain),
                        struct moe_chain *chain);

moe_status moe_normal_load(const struct moe_tokcfg *cfg,
                           struct json_object *o, const char *type,
                           struct moe_chain *chain);
moe_status moe_pretok_load(const struct moe_tokcfg *cfg,
                           struct json_object *o, const char *type,
                           struct moe_chain *chain);
moe_status moe_decode_load(const struct moe_tokcfg *cfg,
                           struct json_object *o, const char *type,
                           struct moe_chain *chain);

/* tokset.c */
struct moe_tokenizer;
moe_status moe_set_model(const struct moe_tokcfg *cfg,
                         struct json_object *root, struct moe_tokenizer *t);
moe_status moe_set_chains(const struct moe_tokcfg *cfg,
                          struct json_object *root, struct moe_tokenizer *t);
moe_status moe_set_post(const struct moe_tokcfg *cfg,
                        struct json_object *root, struct moe_tokenizer *t);

/* --- added tokens --------------------------------------------------------- */

#define MOE_ADDED_WORD    1u /* single_word */
#define MOE_ADDED_LSTRIP  2u
#define MOE_ADDED_RSTRIP  4u
#define MOE_ADDED_NORMAL  8u /* matched in the normalised text */
#define MOE_ADDED_SPECIAL 16u

struct moe_added {
    const char *text; /* what is matched; the arena's or added_text's */
    size_t      len;
    uint32_t    id, flags;
};

/* Patterns of one pass: n_match of them sorted by their bytes, then those
 * that cannot match (empty, or the same text as one with a lower id). */
struct moe_added_set {
    struct moe_added *item;
    uint32_t          n, n_match;
    uint32_t          first[257]; /* items that begin with byte b:
                                     [first[b], first[b + 1]) */
};

/* Sorts set->item and fills n_match and first; 0 when memory is out. */
int moe_added_sort(struct moe_added_set *set);
int moe_added_by_id(const void *a, const void *b); /* for qsort, bsearch */
/* The leftmost match at or behind at, the longest there; 0 if none. */
int moe_added_find(const struct moe_added_set *set, const char *text,
                   size_t len, size_t at, size_t *start,
                   const struct moe_added **hit);

/* --- the tokenizer -------------------------------------------------------- */

struct moe_post {
    uint32_t *id; /* ids, MOE_NO_TOKEN stands for the text */
    size_t    n, texts;
};

struct moe_tokenizer {
    struct moe_vocab     vocab;
    struct moe_chain     normal, pre, decode;
    int                  has_decoder, has_template;
    struct moe_added_set raw, normalised; /* matched before and after */
    struct moe_added    *alias; /* (n_alias) those whose form differs, by
                                   id */
    uint32_t             n_alias;
    char                *added_text; /* normalised forms */
    size_t               added_text_n;
    struct moe_post      post, plain; /* with and without special tokens */
    /* the BPE model */
    char    *unk, *sub_prefix, *word_suffix; /* NULL: none */
    size_t   unk_n, sub_prefix_n, word_suffix_n;
    uint32_t unk_id; /* MOE_NO_TOKEN: unk is not in the vocabulary */
    int      fuse_unk, byte_fallback, ignore_merges;
    int      exact;          /* settings hold characters of moe_uni_gap */
    uint32_t char_id[512];   /* model's id of a one-character token     */
    uint32_t fallback[256];  /* id of <0xXX>                            */
};

/* Heap entry of a merge: rank << 32 | position, a min-heap. */
struct moe_bpe_symbol {
    uint32_t id;
    int32_t  prev, next; /* -1: none */
    uint32_t gone;
};

/* One encode call's memory. */
struct moe_encode {
    const struct moe_tokenizer *tok;
    struct moe_error           *err;
    uint32_t                    flags;
    int                         exact;
    size_t                      limit; /* bytes that a stage may make */
    uint32_t                   *ids;
    size_t                      n_ids, cap_ids;
    struct moe_rxwork           rx;
    struct moe_buf              norm[2];
    struct moe_buf             *stage; /* two for each pre-tokenizer */
    struct moe_buf              chars; /* normal forms' work         */
    struct moe_bpe_symbol      *sym;
    uint64_t                   *heap;
    size_t                      cap_sym, cap_heap;
    struct moe_buf              word; /* bpe: a symbol with prefix or suffix */
};

/* A stage may make this much of n bytes; the worst character of Unicode
 * grows elevenfold, so more is a file that wants to fill memory. */
#define MOE_GROWTH(n) (64 * (n) + 65536)

moe_status moe_encode_nomem(const struct moe_encode *e);
moe_status moe_encode_too_long(const struct moe_encode *e);
moe_status moe_encode_id(struct moe_encode *e, uint32_t id);

/*
 * What the chain of normalizers makes of text.  The result lies in text or in
 * one of e->norm.  *zero: how many of its first bytes come from the very
 * start of the whole input (Metaspace's "first" asks for that); at_start: the
 * text itself begins there.
 */
moe_status moe_normal_run(struct moe_encode *e, const char *text, size_t n,
                          int at_start, const char **out, size_t *out_n,
                          size_t *zero);
/* Pre-tokenizers from stage i on, then BPE, for one piece. */
moe_status moe_pretok_run(struct moe_encode *e, size_t i, const char *text,
                          size_t n, size_t zero);
moe_status moe_bpe_word(struct moe_encode *e, const char *text, size_t n);

/* Next match of a stage's pattern, literal or not; see moe_regex_next. */
moe_status moe_stage_next(const struct moe_stage *st, struct moe_rxwork *rx,
                          const char *text, size_t n, int exact,
                          struct moe_rxiter *it, int *found, size_t *start,
                          size_t *end, struct moe_error *err);

/* Bytes that a token decodes to before the decoder's chain. */
const char *moe_token_form(const struct moe_tokenizer *tok, uint32_t id,
                           size_t *len);

#endif /* MOE_CORE_TEXT_TOK_INT_H */
