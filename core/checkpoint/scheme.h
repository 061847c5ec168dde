/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scheme.h - the words of quantization_config, matched with modules.
 */
#ifndef MOE_CORE_CHECKPOINT_SCHEME_H
#define MOE_CORE_CHECKPOINT_SCHEME_H

#include <checkpoint/json.h>

#include <moe/quantizer.h>

struct moe_schemes;

#define MOE_SCHEME_NONE    (-1) /* no group covers the module */
#define MOE_SCHEME_IGNORED (-2) /* it is on the ignore list */

/*
 * Reads quantization_config of config.json.  *out is NULL if there is none.
 * What is malformed fails here; what is only unknown to us fails when a
 * module needs it.  Strings of *out live as long as config.
 */
moe_status moe_schemes_parse(const struct moe_json *config,
                             struct moe_schemes **out, struct moe_error *err);
void moe_schemes_free(struct moe_schemes *s);

/* The number of the group that covers a module, or MOE_SCHEME_*.  Not for
 * several threads at once. */
moe_status moe_schemes_match(struct moe_schemes *s, const char *module,
                             int32_t *group, struct moe_error *err);

/* The scheme of a group for a module whose elements are elem. */
moe_status moe_schemes_get(const struct moe_schemes *s, int32_t group,
                           const char *module, const char *elem,
                           struct moe_scheme *out, struct moe_error *err);

/* Why nothing of this quantization can be read (a method that is unknown),
 * NULL if it can. */
const char *moe_schemes_unsupported(const struct moe_schemes *s);

#endif /* MOE_CORE_CHECKPOINT_SCHEME_H */
