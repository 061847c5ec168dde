/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helper.h - the process that fills in chat templates, and the clock over it.
 *
 * Requests and answers are lines of JSON.  The process is started at first
 * use, ended when it does not answer in time or answers nonsense, and started
 * again by the next request.  What the lines mean is template.c's matter.
 *
 * Threads: one at a time for each object.
 */
#ifndef MOE_CORE_TEXT_HELPER_H
#define MOE_CORE_TEXT_HELPER_H

#include <moe/types.h>

#include <json-c/json.h>

struct moe_helper;

/* path: the program; NULL or one that is not there fails at first use. */
moe_status moe_helper_open(const char *path, struct moe_helper **out,
                           struct moe_error *err);
void       moe_helper_close(struct moe_helper *h); /* NULL is fine */

/*
 * line: len bytes without a newline in them.  who: whose template it is, for
 * messages.  *answer: an object, the caller puts it.  MOE_E_TIMEOUT;
 * MOE_E_UNSUPPORTED: it cannot run, or is not moe-template; MOE_E_IO.
 */
moe_status moe_helper_ask(struct moe_helper *h, const char *line, size_t len,
                          const char *who, struct json_object **answer,
                          struct moe_error *err);
/* An answer that cannot be meant: ends the process.  MOE_E_UNSUPPORTED. */
moe_status moe_helper_nonsense(struct moe_helper *h, const char *why,
                               struct moe_error *err);

#endif /* MOE_CORE_TEXT_HELPER_H */
