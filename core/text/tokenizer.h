/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.h - text to token ids and back.
 *
 * Reads Hugging Face's tokenizer.json with a BPE model (byte-level or
 * SentencePiece-style) and gives the ids that the Rust tokenizers library
 * gives, bit for bit.  A tokenizer is immutable once open: any number of
 * threads may encode and decode with it.
 *
 * Not read: "truncation" and "padding" (a caller's matter), the type ids of
 * post-processors, training options.
 */
#ifndef MOE_CORE_TEXT_TOKENIZER_H
#define MOE_CORE_TEXT_TOKENIZER_H

#include <moe/types.h>

struct moe_tokenizer;
struct moe_detok;

/* encode */
#define MOE_TOK_SPECIAL       1u /* the post-processor's tokens (BOS...)     */
#define MOE_TOK_PARSE_SPECIAL 2u /* special tokens in the text are tokens,
                                    not letters; without it as the reference's
                                    encode_special_tokens = True: added tokens
                                    that are not special stay tokens         */
/* decode */
#define MOE_TOK_SKIP_SPECIAL  4u
/* open */
#define MOE_TOK_NO_JIT        8u

/* A part of a text.  user: nothing in it becomes a special token. */
struct moe_text_piece {
    const char *text; /* UTF-8, len bytes */
    size_t      len;
    uint32_t    user;
    uint32_t    reserved;
};

/*
 * path: a tokenizer.json, or the folder that holds one.  MOE_E_NOT_FOUND,
 * MOE_E_UNSUPPORTED (something in the file that moe-run does not do, by name;
 * a folder with SentencePiece's or tiktoken's file alone), MOE_E_CORRUPT,
 * MOE_E_IO, MOE_E_NOMEM.
 */
moe_status moe_tokenizer_open(const char *path, struct moe_tokenizer **out,
                              struct moe_error *err);
/* The same from memory; name is for messages.  json need not outlive it. */
moe_status moe_tokenizer_parse(const char *json, size_t len, const char *name,
                               uint32_t flags, struct moe_tokenizer **out,
                               struct moe_error *err);
void       moe_tokenizer_close(struct moe_tokenizer *tok);

/*
 * Bytes of heap that an open tokenizer holds, and a bound of the heap that
 * opening a file of that size takes at its peak (the file's bytes and the
 * finished tables are in it).
 */
uint64_t moe_tokenizer_bytes(const struct moe_tokenizer *tok);
uint64_t moe_tokenizer_load_peak(uint64_t file_size);
/* Likewise what encoding a text of len bytes takes at its peak, the ids
 * included: the case of one endless word; ordinary text takes a third. */
uint64_t moe_tokenizer_encode_peak(uint64_t len);

/*
 * text: len bytes of UTF-8 (NUL is a character).  *ids: malloc'd, NULL if
 * there are none.  MOE_E_INVAL: not UTF-8 (names the byte offset), or a text
 * that the split pattern cannot take; MOE_E_NOMEM.
 */
moe_status moe_tokenizer_encode(const struct moe_tokenizer *tok,
                                const char *text, size_t len, uint32_t flags,
                                uint32_t **ids, size_t *n,
                                struct moe_error *err);
/*
 * One text in pieces, as a chat template leaves it.  The ids are those of the
 * joined text, except that no special token touches a user piece.  Each piece
 * must be UTF-8 by itself.
 */
moe_status moe_tokenizer_encode_pieces(const struct moe_tokenizer *tok,
                                       const struct moe_text_piece *pieces,
                                       size_t n_pieces, uint32_t flags,
                                       uint32_t **ids, size_t *n,
                                       struct moe_error *err);

/*
 * *text: malloc'd, NUL-terminated behind *len bytes; valid UTF-8 (bytes that
 * form none become U+FFFD).  Ids that the vocabulary lacks give nothing, as
 * in the reference.
 */
moe_status moe_tokenizer_decode(const struct moe_tokenizer *tok,
                                const uint32_t *ids, size_t n, uint32_t flags,
                                char **text, size_t *len,
                                struct moe_error *err);

/*
 * Decoding as the ids come.  Bytes appear as soon as nothing that follows can
 * change them; all outputs joined, flush included, are what
 * moe_tokenizer_decode gives.  *text stays the detokenizer's own, until the
 * next call.  A few decoders (a regular expression over the joined text)
 * cannot be streamed: then everything comes with flush.
 */
moe_status moe_detok_open(const struct moe_tokenizer *tok, uint32_t flags,
                          struct moe_detok **out, struct moe_error *err);
moe_status moe_detok_push(struct moe_detok *d, uint32_t id, const char **text,
                          size_t *len, struct moe_error *err);
moe_status moe_detok_flush(struct moe_detok *d, const char **text,
                           size_t *len, struct moe_error *err);
void       moe_detok_close(struct moe_detok *d);

/* Largest id + 1; the ids need not be without holes. */
uint32_t moe_tokenizer_vocab_size(const struct moe_tokenizer *tok);
/* 1 and *id, or 0. */
int moe_tokenizer_token_id(const struct moe_tokenizer *tok, const char *text,
                           size_t len, uint32_t *id);
/* The token as the file spells it (not decoded, not NUL-terminated); NULL
 * for a hole. */
const char *moe_tokenizer_token_text(const struct moe_tokenizer *tok,
                                     uint32_t id, size_t *len);
int         moe_tokenizer_is_special(const struct moe_tokenizer *tok,
                                     uint32_t id);

#endif /* MOE_CORE_TEXT_TOKENIZER_H */
