/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.h - messages to a prompt, by the model's own chat template.
 *
 * The template (Jinja, in tokenizer_config.json or chat_template.jinja) is
 * rendered by a helper process, so that no interpreter lies in this address
 * space and a hostile template cannot hang it.  What users wrote comes back
 * marked, so that it cannot become special tokens.
 *
 * Threads: one at a time for each object.
 */
#ifndef MOE_CORE_TEXT_TEMPLATE_H
#define MOE_CORE_TEXT_TEMPLATE_H

#include "text/tokenizer.h"

struct moe_template;

/* dir: the model's folder; helper: path of moe-template, started at first
 * use.  MOE_E_NOT_FOUND: the model has no template. */
moe_status moe_template_open(const char *dir, const char *helper,
                             struct moe_template **out,
                             struct moe_error *err);
void       moe_template_close(struct moe_template *t); /* NULL is fine */

/*
 * n messages of roles and contents, with the generation prompt at the end.
 * *pieces: n_pieces of them, for moe_tokenizer_encode_pieces; they live until
 * the next call.  MOE_E_INVAL: the template refused (its own words),
 * MOE_E_TIMEOUT, MOE_E_UNSUPPORTED: the helper cannot run, with the remedy.
 */
moe_status moe_template_render(struct moe_template *t, size_t n,
                               const char *const *roles,
                               const char *const *contents,
                               const struct moe_text_piece **pieces,
                               size_t *n_pieces, struct moe_error *err);

#endif /* MOE_CORE_TEXT_TEMPLATE_H */
