/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calibrate_text.h - the tokens that a calibration reads.
 */
#ifndef MOE_CORE_CONVERT_CALIBRATE_TEXT_H
#define MOE_CORE_CONVERT_CALIBRATE_TEXT_H

#include <moe/moe.h>

#define MOE_TEXT_WINDOW 512u /* tokens that are read in one go, at most */
#define MOE_TEXT_LEAST  256u /* fewer in all say nothing */

struct moe_text_windows {
    uint32_t *ids;   /* (n_tokens) */
    uint64_t *start; /* (n_windows + 1) */
    uint64_t  n_tokens, n_windows;
};

/*
 * About `tokens` tokens in windows of `window` at most: evenly from a file,
 * or, where source is "self", what the model writes at temperature 1 from
 * fixed seeds.  watch as in calibrate.h.  MOE_E_INVAL: the file is too short.
 */
moe_status moe_text_get(moe_engine *e, const char *source, uint64_t tokens,
                        uint32_t window,
                        moe_status (*watch)(void *ctx, const char *what,
                                            struct moe_error *err),
                        void *ctx, struct moe_text_windows *out,
                        struct moe_error *err);
void       moe_text_free(struct moe_text_windows *t);

#endif /* MOE_CORE_CONVERT_CALIBRATE_TEXT_H */
