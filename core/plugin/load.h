/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.h - from a file to a descriptor that may be trusted.
 *
 * The steps of loading one plugin, in the order registry.c takes them.  Error
 * texts name both sides and the remedy but not the file: the registry puts
 * its path in front.  Cold, one thread at a time.
 */
#ifndef MOE_CORE_PLUGIN_LOAD_H
#define MOE_CORE_PLUGIN_LOAD_H

#include <moe/backend.h>
#include <moe/plugin.h>
#include <moe/quantizer.h>

/* load.c ------------------------------------------------------------------ */

/* Is this a whole shared object for this machine?  Found out before dlopen,
 * which dies of SIGBUS on a file that was cut short. */
moe_status moe_plugin_check_file(const char *path, struct moe_error *err);

/* dlopen and the descriptor's address.  *size: bytes of the symbol, 0 if
 * unknown.  On failure nothing stays open. */
moe_status moe_plugin_map(const char *path, void **handle,
                          const struct moe_plugin **desc, uint64_t *size,
                          struct moe_error *err);
void       moe_plugin_unmap(void *handle);

/* validate.c -------------------------------------------------------------- */

/* Before any code of the plugin runs.  stem, stem2: the file's name without
 * ".so", as found and with links resolved; one of them must be its name. */
moe_status moe_plugin_check_descriptor(const struct moe_plugin *p,
                                       uint64_t size, const char *stem,
                                       const char       *stem2,
                                       struct moe_error *err);
/* The table of functions and, of a quantizer, its formats. */
moe_status moe_plugin_check_table(const struct moe_plugin *p,
                                  struct moe_error        *err);
/* After init: what only running code can show.  MOE_E_ABSENT: a backend
 * without a device. */
moe_status moe_plugin_check_promises(const struct moe_plugin *p, void *self,
                                     struct moe_error *err);

/* Would a checkpoint's description mean both? */
int moe_scheme_same(const struct moe_scheme *a, const struct moe_scheme *b);

/* A text that a plugin wrote: terminated, one line, printable. */
void moe_plugin_clean_text(char *text, size_t size);

const char *moe_plugin_kind_text(uint32_t kind); /* "backend", "quantizer" */

#endif /* MOE_CORE_PLUGIN_LOAD_H */
