/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe/plugin.h - how a plugin is declared, versioned, probed and refused.
 *
 * A plugin is one shared object that exports one DATA symbol, moe_plugin.
 * The core reads it before it calls any plugin code, so a wrong or too new
 * plugin is refused with a message that names both versions.
 *
 * A plugin has no undefined moe_* symbol: all it may call is in struct
 * moe_host.  It can therefore be opened RTLD_LOCAL by a host that was itself
 * opened by something else (a Python module, say), or be linked statically.
 *
 * Threads: probe, init and fini are called one at a time.  Functions in
 * moe_host may be called from any thread of the plugin until fini returns,
 * except where noted.  A plugin must not start threads before init, must not
 * use ELF constructors, must not abort() or exit(), and must not change
 * signal handlers, the locale, or the floating point environment.
 *
 * A plugin is never unloaded after init succeeded.
 */

#ifndef MOE_PLUGIN_H
#define MOE_PLUGIN_H

#include <moe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOE_ABI_MAJOR 1u /* anything else is refused                          */
#define MOE_ABI_MINOR 0u /* grows when a field or an op code is appended      */
#define MOE_ABI(major, minor) (((uint32_t) (major) << 16) | (uint32_t) (minor))
#define MOE_ABI_MAJOR_OF(v)   ((v) >> 16)
#define MOE_ABI_MINOR_OF(v)   ((v) & 0xffffu)

#define MOE_PLUGIN_MAGIC 0x50454f4du /* "MOEP" in the file                     */

#define MOE_KIND_BACKEND   1u
#define MOE_KIND_QUANTIZER 2u

#define MOE_LOG_ERROR 0u /* the program cannot go on as asked                 */
#define MOE_LOG_WARN  1u /* unexpected, but it goes on                        */
#define MOE_LOG_INFO  2u /* a few lines a run: what was loaded, what was not  */
#define MOE_LOG_DEBUG 3u /* in proportion to the number of objects            */
#define MOE_LOG_TRACE 4u /* in proportion to the number of operations         */

typedef struct moe_grant moe_grant; /* owned by the core                       */

/* What the core offers.  Valid from probe until fini returns. */
struct moe_host {
    uint32_t struct_size;
    uint32_t abi; /* MOE_ABI() of the core */
    void    *ctx; /* first argument of every function below */

    void (*log)(void *ctx, uint32_t level, const char *line);

    /* The plugin's own INI section, [backend.cuda] for example; NULL if the
     * key is not set.  The string lives as long as the host. */
    const char *(*config)(void *ctx, const char *key);

    /* Host memory, counted in the "host" domain.  free(NULL) is allowed. */
    void *(*alloc)(void *ctx, uint64_t bytes, uint64_t align);
    void (*free)(void *ctx, void *p);

    /*
     * The memory ledger.  A backend asks BEFORE each device allocation,
     * library workspaces included.  On MOE_E_OVER_BUDGET it must fail the
     * call it is in and leave nothing behind.  domain is the string the
     * backend gave in moe_device_info.  Never called with a plugin lock held
     * that alloc or log could need.
     */
    moe_status (*reserve)(void *ctx, const char *domain, uint64_t bytes,
                          const char *what, moe_grant **out);
    void (*release)(void *ctx, moe_grant *grant);

    /*
     * Run fn(arg, i) for i in [0, n), each once, in any order, on the core's
     * workers and the calling thread; returns when all are done.  A plugin
     * makes no threads of its own for compute, so a process has one pool.
     * Not from inside fn.  One call at a time for each calling thread; two
     * threads that call at once take turns.
     */
    void (*parallel)(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
                     void *arg);
    /* How many threads parallel() uses, the caller included: at least 1. */
    uint32_t (*workers)(void *ctx);
};
MOE_NO_TAIL(moe_host, workers);

struct moe_probe {
    uint32_t struct_size;
    uint32_t score; /* 0: cannot run here (say why); higher is preferred       */
    char     why[120];
};
MOE_NO_TAIL(moe_probe, why);

struct moe_plugin {
    uint32_t magic;
    uint32_t struct_size;
    uint32_t abi;        /* MOE_ABI() of the headers it was compiled with      */
    uint32_t abi_oldest; /* oldest core, same major, that it can work with     */
    uint32_t kind;       /* MOE_KIND_*                                         */
    uint32_t flags;      /* 0                                                  */

    const char *name;    /* "cuda"; same as in the file name                   */
    const char *version; /* of the plugin, free form                           */
    const char *license; /* SPDX expression                                    */
    const char *summary; /* one line for moe-run plugins                */

    /* struct moe_backend_ops or struct moe_quantizer_ops, by kind.  Static. */
    const void *ops;

    /* Cheap and without side effects: no device context, no large memory.
     * Optional; without it the plugin is assumed to be usable. */
    moe_status (*probe)(const struct moe_host *host, struct moe_probe *out,
                        struct moe_error *err);
    moe_status (*init)(const struct moe_host *host, void **self,
                       struct moe_error *err);
    void (*fini)(void *self);
};
MOE_NO_TAIL(moe_plugin, fini);

/*
 * In a plugin:  MOE_PLUGIN_DEFINE(cuda) = { MOE_PLUGIN_HEADER, ... };
 * With -DMOE_BUILTIN the symbol becomes moe_plugin_cuda, for static linking.
 */
#ifdef __cplusplus
#    define MOE_EXTERN extern "C"
#else
#    define MOE_EXTERN extern
#endif
#define MOE_EXPORT __attribute__((__visibility__("default")))
#ifdef MOE_BUILTIN
#    define MOE_PLUGIN_DEFINE(n)                                              \
        MOE_EXTERN MOE_EXPORT const struct moe_plugin moe_plugin_##n;         \
        const struct moe_plugin moe_plugin_##n
#else
#    define MOE_PLUGIN_DEFINE(n)                                              \
        MOE_EXTERN MOE_EXPORT const struct moe_plugin moe_plugin;             \
        const struct moe_plugin moe_plugin
#endif
#define MOE_PLUGIN_HEADER                                                     \
    .magic = MOE_PLUGIN_MAGIC, .struct_size = sizeof(struct moe_plugin),      \
    .abi = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR),                             \
    .abi_oldest = MOE_ABI(MOE_ABI_MAJOR, 0)

#ifdef __cplusplus
}
#endif
#endif /* MOE_PLUGIN_H */
