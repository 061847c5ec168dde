/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.h - the option table, for the rooms of the core.
 *
 * The public face is moe_options_* of moe/moe.h.  Here are typed reads.  A
 * key that the table does not have is our own mistake: the getters then
 * return 0 / "" and a test that walks every use fails.
 */
#ifndef MOE_CORE_CONFIG_OPTIONS_H
#define MOE_CORE_CONFIG_OPTIONS_H

#include <moe/moe.h>

int64_t     moe_option_int(const moe_options *o, const char *key);
double      moe_option_float(const moe_options *o, const char *key);
int         moe_option_bool(const moe_options *o, const char *key);
const char *moe_option_text(const moe_options *o, const char *key);
uint32_t    moe_option_from(const moe_options *o, const char *key);

/* Bytes; 0 if the value is "auto" or a percentage. */
uint64_t moe_option_size(const moe_options *o, const char *key);
/* 80.0 for "80%"; 0 if the value is not a percentage. */
double moe_option_percent(const moe_options *o, const char *key);

/* The items of a list, unquoted; *n of them.  They live until the key is set
 * again.  NULL and 0 if the list is empty. */
const char *const *moe_option_list(const moe_options *o, const char *key,
                                   size_t *n);

/* An engine keeps its own copy, so that the model's defaults
 * (MOE_FROM_MODEL) do not leak into the caller's options. */
moe_status moe_options_copy(const moe_options *o, moe_options **out,
                            struct moe_error *err);

/*
 * Keys of plugin sections ([backend.cpu], [quant.int4]) are not in the
 * table: they are kept as they are, and the plugin asks for them.  The read
 * marks a key as used; moe_options_unused finds one that nobody asked for,
 * which is an error once all plugins of that section are loaded.  `section`
 * is "backend.cpu"; NULL in moe_options_unused: any section.
 */
const char *moe_options_plugin(const moe_options *o, const char *section,
                               const char *key);
/* MOE_E_NOT_FOUND: none.  MOE_OK: *where ("moe.ini:12"), *key of one in
 * `section` (of NULL: "backend.cpu.isa", in full). */
moe_status moe_options_unused(const moe_options *o, const char *section,
                              const char **key, const char **where);

/* The log of these options; does nothing when none is set, or when log.level
 * asks for less.  One line, no newline; any thread. */
void moe_options_log(const moe_options *o, uint32_t level, const char *fmt,
                     ...) __attribute__((__format__(__printf__, 3, 4)));

#endif /* MOE_CORE_CONFIG_OPTIONS_H */
