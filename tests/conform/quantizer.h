/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer.h - does a quantizer keep what moe/quantizer.h asks of it?
 *
 * Runs any quantizer, known or not, through its own formats; part of the
 * installed moe-conform, and of the tests of the quantizers in this tree.
 */
#ifndef MOE_TESTS_CONFORM_QUANTIZER_H
#define MOE_TESTS_CONFORM_QUANTIZER_H

#include <moe/quantizer.h>

/*
 * Calls report(ctx, pass, text) for each thing looked at; text is one line,
 * and says what was wrong and with which matrix if pass is 0.  Returns how
 * many failed; -1: out of memory.  Takes seconds; uses a second thread.  Call
 * it between init() and fini() of the plugin.
 */
int moe_conform_quantizer(const struct moe_quantizer_ops *ops, void *self,
                          void (*report)(void *ctx, int pass,
                                         const char *text),
                          void *ctx);

#endif /* MOE_TESTS_CONFORM_QUANTIZER_H */
