/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bad_plugin.c - plugins with one thing wrong each, for test_registry.
 *
 * Compiled once for each -DBAD_...; without one it is sound, and what it
 * does at run time is set by `behave` in its section: "absent",
 * "probe-error", "init-fail", "lie-advise", "lie-dtypes", "lie-preferred",
 * "lie-kv", "lie-domain", "lie-align", "lie-caps", "no-device", "many",
 * "lie-count", "lie-info", "score".  It does no work: every other function
 * says MOE_E_UNSUPPORTED.
 */

#include <moe/plugin.h>

#ifdef AS_QUANTIZER
#    include <moe/quantizer.h>
#else
#    include <moe/backend.h>
#endif

#include <stdio.h>
#include <string.h>

#define TEXT2(x) #x
#define TEXT(x)  TEXT2(x)

#if defined(BAD_SYMBOL)

/* No descriptor at all. */
MOE_EXPORT extern const int moe_plug;
const int                   moe_plug = 1;

#elif defined(BAD_FUNCTION)

MOE_EXPORT int moe_plugin(void);
int
moe_plugin(void)
{
    return 0;
}

#elif defined(BAD_SMALL)

MOE_EXPORT extern const uint32_t moe_plugin;
const uint32_t                   moe_plugin = MOE_PLUGIN_MAGIC;

#else

static const struct moe_host *the_host;
static const char             lives[] = "fini ran";

#    ifdef BAD_UNDEFINED
/* The core's own functions are not for plugins. */
int moe_secret_of_the_core(void);
#    endif

static const char *
behave(void)
{
    const char *b = the_host->config(the_host->ctx, "behave");

    return b != NULL ? b : "";
}

static int
is(const char *what)
{
    return strcmp(behave(), what) == 0;
}

static moe_status
probe(const struct moe_host *host, struct moe_probe *out,
      struct moe_error *err)
{
    the_host = host;
    out->score = is("score") ? 77 : 50;
    if (is("absent")) {
        out->score = 0;
        snprintf(out->why, sizeof(out->why), "no such\ncard in this machine");
    }
    if (is("probe-error"))
        return moe_fail(err, MOE_E_IO, 5, "the probe stumbled");
    return MOE_OK;
}

static moe_status
init(const struct moe_host *host, void **self, struct moe_error *err)
{
    the_host = host;
#    ifdef BAD_UNDEFINED
    moe_secret_of_the_core();
#    endif
    if (is("init-fail"))
        return moe_fail(err, MOE_E_DEVICE, 3, "the driver is\ntoo old");
    if (is("init-mute"))
        return MOE_E_DEVICE;
    *self = (void *) host;
    return MOE_OK;
}

static void
fini(void *self)
{
    const struct moe_host *host = self;

    host->log(host->ctx, MOE_LOG_INFO, lives);
}

#    ifdef AS_QUANTIZER

static moe_status
planes(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
       uint32_t scale_dtype, struct moe_plane out[MOE_PLANES_MAX],
       uint32_t *n_planes, struct moe_error *err)
{
    (void) self, (void) f, (void) n, (void) k, (void) scale_dtype;
    (void) out, (void) n_planes;
    return moe_fail(err, MOE_E_UNSUPPORTED, 0, "none");
}

static moe_status
check(void *self, const struct moe_format *f, const struct moe_tensor *t,
      struct moe_error *err)
{
    (void) self, (void) f, (void) t;
    return moe_fail(err, MOE_E_UNSUPPORTED, 0, "none");
}

#        ifndef BAD_TABLE
static moe_status
decode(void *self, const struct moe_format *f, const struct moe_tensor *t,
       uint64_t row0, uint64_t rows, uint32_t dtype, void *dst, uint64_t ld)
{
    (void) self, (void) f, (void) t, (void) row0, (void) rows;
    (void) dtype, (void) dst, (void) ld;
    return MOE_E_UNSUPPORTED;
}
#        endif

#        ifndef FORMAT_ID
#            define FORMAT_ID "odd5"
#        endif
#        ifndef FORMAT_BITS
#            define FORMAT_BITS 5
#        endif

static const struct moe_format format = {
    .struct_size = sizeof(format),
    .revision = 1,
    .id = FORMAT_ID,
    .summary = "five bits",
    .k_multiple = 1,
#        ifndef BAD_FORMAT
    .n_multiple = 1,
#        endif
    .bits_x1000 = 5000,
    .scheme = { .struct_size = sizeof(struct moe_scheme),
                .num_bits = FORMAT_BITS,
                .symmetric = 1,
                .storage = "odd",
                .type = "int",
                .strategy = "tensor" },
};

#        ifdef BAD_TWICE
static const struct moe_format *const formats[] = { &format, &format };
#        else
static const struct moe_format *const formats[] = { &format };
#        endif

static const struct moe_quantizer_ops table = {
    .struct_size = sizeof(table),
    .n_formats = sizeof(formats) / sizeof(*formats),
    .formats = formats,
    .planes = planes,
    .check = check,
#        ifndef BAD_TABLE
    .decode = decode,
#        endif
};
#        define THE_KIND MOE_KIND_QUANTIZER

#    else /* a backend */

static moe_status
device_count(void *self, uint32_t *out)
{
    (void) self;
    *out = is("no-device") ? 0 : is("many") ? 100000 : 1;
    return is("lie-count") ? MOE_E_DEVICE : MOE_OK;
}

static moe_status
device_info(void *self, uint32_t i, struct moe_device_info *out)
{
    (void) self, (void) i;
    out->caps = is("lie-advise") ? MOE_CAP_ADVISE : 0;
    if (is("lie-caps"))
        out->caps = 1u << 20;
    out->dtypes = MOE_DTYPE_BIT(is("lie-dtypes") ? MOE_F16 : MOE_F32);
    out->preferred = is("lie-preferred") ? MOE_BF16 : MOE_F32;
    if (is("lie-dtypes"))
        out->preferred = MOE_F16;
    out->kv_dtypes = MOE_DTYPE_BIT(is("lie-kv") ? MOE_BF16 : MOE_F32);
    out->mem_align = is("lie-align") ? 48 : 64;
    if (is("lie-domain"))
        memset(out->domain, 'x', sizeof(out->domain));
    else
        snprintf(out->domain, sizeof(out->domain), "bad");
    return is("lie-info") ? MOE_E_DEVICE : MOE_OK;
}

/* Never called: the registry stops before it would be. */
static moe_status
no(void)
{
    return MOE_E_UNSUPPORTED;
}
#        define NO(field)                                                     \
            .field = (__typeof__(((struct moe_backend_ops *) 0)->field))      \
                (void (*)(void)) no

static const struct moe_backend_ops table = {
#        ifdef BAD_SHORT
    .struct_size = offsetof(struct moe_backend_ops, launch),
#        elif defined(OLD_TAIL)
    .struct_size = offsetof(struct moe_backend_ops, slot_advise),
#        else
    .struct_size = sizeof(table),
#        endif
    .device_count = device_count,
    .device_info = device_info,
    NO(device_open),
    NO(device_close),
    NO(mem_alloc),
    NO(mem_free),
    NO(mem_host_ptr),
    NO(stream_create),
    NO(stream_destroy),
    NO(event_create),
    NO(event_destroy),
    NO(event_record),
#        ifndef BAD_TABLE
    NO(stream_wait),
#        endif
    NO(event_query),
    NO(event_wait),
    NO(upload),
    NO(download),
    NO(copy),
    NO(query),
    NO(slab_create),
    NO(slab_destroy),
    NO(slot_upload),
    NO(launch),
};
#        define THE_KIND MOE_KIND_BACKEND
#    endif

#    ifdef FUTURE
/* Built with newer headers that say they suit our core: a longer
 * descriptor, a flag and a kind of field that we do not know. */
struct future_plugin {
    struct moe_plugin now;
    void             *later;
};
MOE_EXPORT extern const struct future_plugin moe_plugin;
const struct future_plugin                   moe_plugin = { {
#    else
MOE_PLUGIN_DEFINE(bad) = {
#    endif
#    ifdef BAD_MAGIC
    .magic = 0x12345678u,
#    else
    .magic = MOE_PLUGIN_MAGIC,
#    endif
#    ifdef BAD_SIZE
    .struct_size = sizeof(struct moe_plugin) + 4096,
#    elif defined(FUTURE)
    .struct_size = sizeof(struct future_plugin),
#    else
    .struct_size = sizeof(struct moe_plugin),
#    endif
#    ifdef BAD_MAJOR
    .abi = MOE_ABI(MOE_ABI_MAJOR + 6, 3),
    .abi_oldest = MOE_ABI(MOE_ABI_MAJOR + 6, 0),
#    elif defined(BAD_NEWER)
    .abi = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR + 9),
    .abi_oldest = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR + 8),
#    elif defined(BAD_OLDEST)
    .abi = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR),
    .abi_oldest = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR + 1),
#    elif defined(FUTURE)
    .abi = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR + 9),
    .abi_oldest = MOE_ABI(MOE_ABI_MAJOR, 0),
    .flags = 8,
#    else
    .abi = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR),
    .abi_oldest = MOE_ABI(MOE_ABI_MAJOR, 0),
#    endif
#    ifdef BAD_FLAGS
    .flags = 4,
#    endif
#    ifdef BAD_KIND
    .kind = 9,
#    else
    .kind = THE_KIND,
#    endif
#    ifdef BAD_NAME
    .name = "Bad Name!",
#    else
    .name = TEXT(NAME),
#    endif
    .version = "1.2",
#    ifndef BAD_FIELD
    .license = "Apache-2.0",
#    endif
    .summary = "a plugin for tests",
    .ops = &table,
    .probe = probe,
    .init = init,
    .fini = fini,
#    ifdef FUTURE
}, NULL };
#    else
};
#    endif
#endif
