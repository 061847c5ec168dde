/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry.h - the plugins of one engine: found, checked, loaded or refused.
 *
 * Owns every dlopen handle and the moe_host each plugin was given.  Who asks
 * for a backend or a format by name gets it here; the core knows no plugin's
 * name.
 */
#ifndef MOE_CORE_PLUGIN_REGISTRY_H
#define MOE_CORE_PLUGIN_REGISTRY_H

#include <moe/backend.h>
#include <moe/moe.h>
#include <moe/plugin.h>
#include <moe/quantizer.h>

struct moe_registry;

/* What the plugins may call; the owner of the registry fills it.  Functions
 * as in struct moe_host, but config gets the section too. */
struct moe_services {
    void *ctx;
    void (*log)(void *ctx, uint32_t level, const char *line);
    /* section: "backend.cpu", "quant.int4"; NULL: not set */
    const char *(*config)(void *ctx, const char *section, const char *key);
    moe_status (*reserve)(void *ctx, const char *domain, uint64_t bytes,
                          const char *what, moe_grant **out);
    void (*release)(void *ctx, moe_grant *grant);
    void *(*alloc)(void *ctx, uint64_t bytes, uint64_t align);
    void (*free)(void *ctx, void *p);
    void (*parallel)(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
                     void *arg);
    uint32_t (*workers)(void *ctx);
};

/* One file that was considered, in the order found. */
struct moe_plugin_entry {
    const char *path;    /* as opened */
    const char *name;    /* from the descriptor, or the file's stem */
    const char *version; /* "" if unread */
    const char *summary;
    uint32_t    kind;    /* MOE_KIND_*, 0 if unread */
    uint32_t    abi;     /* of the descriptor, 0 if unread */
    const char *state;   /* "loaded", "refused", "absent", "shadowed" */
    moe_status  status;  /* MOE_OK, or why not */
    const char *reason;  /* one line; "" when loaded */
};

/*
 * Consider the extra files, which were asked for by name, then every *.so of
 * the directories of path ("a:b:c") in the order of their names.  Of two
 * plugins of one kind and name that would load, the first wins and the other
 * is "shadowed".  An extra file that does not load is the error of this call;
 * any other refusal is only an entry and a line in the log.  A folder that is
 * not there is no error; a link to a file that was considered already is
 * passed over.  All functions of *services must be set; it is copied.  Cold.
 */
moe_status moe_registry_open(const struct moe_services *services,
                             const char *path, const char *const *extra,
                             size_t n_extra, struct moe_registry **out,
                             struct moe_error *err);
void moe_registry_close(struct moe_registry *r); /* fini of each, NULL is fine */

size_t moe_registry_count(const struct moe_registry *r);
const struct moe_plugin_entry *moe_registry_entry(const struct moe_registry *r,
                                                  size_t i);

/* A loaded backend by name; "auto": the one with the highest probe score.
 * MOE_E_NOT_FOUND / the refusal's own status, with the reason and a remedy. */
moe_status moe_registry_backend(const struct moe_registry *r, const char *name,
                                const struct moe_backend_ops **ops, void **self,
                                const char **found_name,
                                struct moe_error *err);

/* A format of some loaded quantizer, found by id or by scheme. */
struct moe_format_ref {
    const struct moe_format        *format;
    const struct moe_quantizer_ops *ops;
    void                           *self;
    const char                     *plugin; /* name, for messages */
};

/* MOE_E_UNSUPPORTED: nobody offers it. */
moe_status moe_registry_format(const struct moe_registry *r, const char *id,
                               struct moe_format_ref *out,
                               struct moe_error *err);
/* Compares storage, type, strategy, num_bits, group_size, block and symmetric,
 * and elem where both sides set it (storage NULL: elem alone).
 * MOE_E_NOT_FOUND without a text: the caller knows the file and names it. */
moe_status moe_registry_scheme(const struct moe_registry *r,
                               const struct moe_scheme *scheme,
                               struct moe_format_ref *out);
/* The i-th format of all loaded quantizers; MOE_E_NOT_FOUND past the end. */
moe_status moe_registry_format_at(const struct moe_registry *r, size_t i,
                                  struct moe_format_ref *out);

/* print.c: every entry with its state and reason, and every format.  json: 0
 * a table for people, 1 one object.  MOE_E_IO: fn asked to stop. */
moe_status moe_registry_print(const struct moe_registry *r, int json,
                              moe_write_fn fn, void *ctx);

#endif /* MOE_CORE_PLUGIN_REGISTRY_H */
