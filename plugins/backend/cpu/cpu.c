/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.c - the CPU backend: its table, its one device, memory and streams.
 *
 * Everything runs before the call returns: a stream is a name, an event is
 * always complete.  Memory is anonymous and mapped page by page, so what is
 * not touched is not resident; each mapping is granted in full before it is
 * made.  Weights and operations live in the files beside this one.
 */

#include <errno.h>
#include <inttypes.h>

#include <sys/mman.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"

#define HUGE_PAGE (UINT64_C(2) << 20)

/* ---------------------------------------------------------------- memory -- */

moe_status
cpu_map(moe_device *dev, uint64_t bytes, const char *what, uint8_t **ptr,
        uint64_t *mapped, moe_grant **grant, struct moe_error *err)
{
    const struct moe_host *host = dev->host;
    const uint64_t         page = (uint64_t) sysconf(_SC_PAGESIZE);
    moe_grant             *g = NULL;
    uint64_t               size, slack = 0;
    uint8_t               *p, *at;
    moe_status             st;

    if (bytes > (uint64_t) INT64_MAX / 2)
        return moe_fail(err, MOE_E_NOMEM, 0, "%s: %" PRIu64 " bytes do not "
                        "fit this machine's addresses", what, bytes);
    size = cpu_align(bytes != 0 ? bytes : 1, page);
    if (size >= 2 * HUGE_PAGE)
        slack = HUGE_PAGE; /* of addresses, given back below */
    st = host->reserve(host->ctx, "host", size, what, &g);
    if (st != MOE_OK)
        return moe_fail(err, st, 0, "%s: the ledger has no %" PRIu64 " bytes "
                        "left in host memory", what, size);
    p = mmap(NULL, size + slack, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        const int e = errno;

        host->release(host->ctx, g);
        return moe_fail(err, MOE_E_NOMEM, e, "%s: cannot map %" PRIu64
                        " bytes: %s", what, size, strerror(e));
    }
    at = p;
    if (slack != 0) {
        at = (uint8_t *) (uintptr_t) cpu_align((uintptr_t) p, HUGE_PAGE);
        if (at > p)
            munmap(p, (size_t) (at - p));
        if (p + size + slack > at + size)
            munmap(at + size, (size_t) (p + slack - at));
        /* not the last, partial one: it would be more than was granted */
        madvise(at, size / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    }
    *ptr = at;
    *mapped = size;
    *grant = g;
    return MOE_OK;
}

void
cpu_unmap(moe_device *dev, uint8_t *ptr, uint64_t mapped, moe_grant *grant)
{
    munmap(ptr, mapped);
    dev->host->release(dev->host->ctx, grant);
}

static moe_status
mem_alloc(moe_device *dev, uint64_t bytes, uint32_t use, moe_mem **out,
          struct moe_error *err)
{
    const struct moe_host *host = dev->host;
    const char            *what;
    moe_mem               *mem;
    moe_status             st;

    switch (use) {
    case MOE_USE_ACT:
        what = "activations";
        break;
    case MOE_USE_SCRATCH:
        what = "scratch";
        break;
    case MOE_USE_STAGING:
        what = "staging";
        break;
    default:
        return moe_fail(err, MOE_E_INVAL, 0, "memory for use %u is unknown",
                        use);
    }
    mem = host->alloc(host->ctx, sizeof(*mem), 16);
    if (mem == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "no memory for a buffer");
    memset(mem, 0, sizeof(*mem));
    mem->dev = dev;
    mem->bytes = bytes;
    st = cpu_map(dev, bytes, what, &mem->ptr, &mem->mapped, &mem->grant, err);
    if (st != MOE_OK) {
        host->free(host->ctx, mem);
        return st;
    }
    *out = mem;
    return MOE_OK;
}

static void
mem_free(moe_mem *mem)
{
    const struct moe_host *host;

    if (mem == NULL)
        return;
    host = mem->dev->host;
    cpu_unmap(mem->dev, mem->ptr, mem->mapped, mem->grant);
    host->free(host->ctx, mem);
}

static void *
mem_host_ptr(moe_mem *mem)
{
    return mem->ptr;
}

/* --------------------------------------------------------------- devices -- */

static moe_status
device_count(void *self, uint32_t *out)
{
    (void) self;
    *out = 1;
    return MOE_OK;
}

static void
cpu_model_name(char *out, size_t len)
{
    char  line[256], *p;
    FILE *f = fopen("/proc/cpuinfo", "re");

    snprintf(out, len, "CPU");
    if (f == NULL)
        return;
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "model name", 10) != 0
            || (p = strchr(line, ':')) == NULL)
            continue;
        p += strspn(p, ": \t");
        p[strcspn(p, "\n")] = '\0';
        snprintf(out, len, "%s", p);
        break;
    }
    fclose(f);
}

static moe_status
device_info(void *self, uint32_t i, struct moe_device_info *out)
{
    const struct cpu_self *cpu = self;
    const uint64_t page = (uint64_t) sysconf(_SC_PAGESIZE);
    char           model[40];
    const uint32_t types = MOE_DTYPE_BIT(MOE_F32) | MOE_DTYPE_BIT(MOE_F16)
                           | MOE_DTYPE_BIT(MOE_BF16);

    if (i != 0)
        return MOE_E_NOT_FOUND;
    memset(out, 0, sizeof(*out));
    out->struct_size = sizeof(*out);
    out->caps = MOE_CAP_HOST_VIEW;
    out->dtypes = types;
    out->preferred = MOE_F16;
    out->kv_dtypes = types;
    out->mem_total = (uint64_t) sysconf(_SC_PHYS_PAGES) * page;
    out->mem_free = (uint64_t) sysconf(_SC_AVPHYS_PAGES) * page;
    out->mem_align = (uint32_t) sysconf(_SC_PAGESIZE);
    snprintf(out->domain, sizeof(out->domain), "host");
    snprintf(out->uid, sizeof(out->uid), "cpu");
    cpu_model_name(model, sizeof(model));
    snprintf(out->name, sizeof(out->name), "%s (%s%s%s)", model,
             cpu->use.isa->name, cpu->use.tiles != NULL ? ", " : "",
             cpu->use.tiles != NULL ? cpu->use.tiles->name : "");
    return MOE_OK;
}

static moe_status
device_open(void *self, uint32_t i, moe_device **out, struct moe_error *err)
{
    const struct cpu_self *cpu = self;
    const struct moe_host *host = cpu->host;
    moe_device            *dev;

    if (i != 0)
        return moe_fail(err, MOE_E_NOT_FOUND, 0,
                        "cpu device %u: there is only device 0", i);
    dev = host->alloc(host->ctx, sizeof(*dev), 16);
    if (dev == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "no memory for a device");
    memset(dev, 0, sizeof(*dev));
    dev->host = host;
    dev->use = cpu->use;
    dev->isa = dev->use.isa;
    dev->workers = host->workers(host->ctx);
    if (dev->workers == 0)
        dev->workers = 1;
    *out = dev;
    return MOE_OK;
}

static void
device_close(moe_device *dev)
{
    if (dev != NULL)
        dev->host->free(dev->host->ctx, dev);
}

/* ----------------------------------------------------- streams and events -- */

static moe_status
stream_create(moe_device *dev, int32_t priority, moe_stream **out,
              struct moe_error *err)
{
    moe_stream *s = dev->host->alloc(dev->host->ctx, sizeof(*s), 16);

    (void) priority;
    if (s == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "no memory for a stream");
    s->dev = dev;
    *out = s;
    return MOE_OK;
}

static void
stream_destroy(moe_stream *s)
{
    if (s != NULL)
        s->dev->host->free(s->dev->host->ctx, s);
}

struct moe_event {
    moe_device *dev;
};

static moe_status
event_create(moe_device *dev, moe_event **out, struct moe_error *err)
{
    moe_event *ev = dev->host->alloc(dev->host->ctx, sizeof(*ev), 16);

    if (ev == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "no memory for an event");
    ev->dev = dev;
    *out = ev;
    return MOE_OK;
}

static void
event_destroy(moe_event *ev)
{
    if (ev != NULL)
        ev->dev->host->free(ev->dev->host->ctx, ev);
}

static moe_status
event_record(moe_stream *s, moe_event *ev)
{
    return s != NULL && ev != NULL ? MOE_OK : MOE_E_INVAL;
}

static moe_status
stream_wait(moe_stream *s, moe_event *ev)
{
    return s != NULL && ev != NULL ? MOE_OK : MOE_E_INVAL;
}

static moe_status
event_query(moe_event *ev, struct moe_error *err)
{
    (void) ev;
    (void) err;
    return MOE_OK;
}

static moe_status
event_wait(moe_event *ev, uint64_t timeout_ns, struct moe_error *err)
{
    (void) ev;
    (void) timeout_ns;
    (void) err;
    return MOE_OK;
}

/* ---------------------------------------------------------------- copies -- */

/* bytes at b, or NULL. */
static uint8_t *
inside(const moe_device *dev, struct moe_buf b, uint64_t bytes)
{
    if (b.mem == NULL || b.mem->dev != dev || b.off > b.mem->bytes
        || bytes > b.mem->bytes - b.off)
        return NULL;
    return b.mem->ptr + b.off;
}

static moe_status
upload(moe_stream *s, struct moe_buf dst, const void *src, uint64_t bytes)
{
    uint8_t *d = inside(s->dev, dst, bytes);

    if (d == NULL || (src == NULL && bytes != 0))
        return MOE_E_INVAL;
    if (bytes != 0)
        memmove(d, src, bytes);
    return MOE_OK;
}

static moe_status
download(moe_stream *s, void *dst, struct moe_buf src, uint64_t bytes)
{
    const uint8_t *p = inside(s->dev, src, bytes);

    if (p == NULL || (dst == NULL && bytes != 0))
        return MOE_E_INVAL;
    if (bytes != 0)
        memmove(dst, p, bytes);
    return MOE_OK;
}

static moe_status
copy(moe_stream *s, struct moe_buf dst, struct moe_buf src, uint64_t bytes)
{
    uint8_t       *d = inside(s->dev, dst, bytes);
    const uint8_t *p = inside(s->dev, src, bytes);

    if (d == NULL || p == NULL)
        return MOE_E_INVAL;
    memmove(d, p, bytes);
    return MOE_OK;
}

/* ------------------------------------------------------------ operations -- */

/* Hot: no allocation, no lock; *err is touched only on failure. */
static moe_status
launch(moe_stream *s, const struct moe_op *op, struct moe_error *err)
{
    moe_device *dev = s->dev;

#define OP(code_, type, fn)                                                   \
    case code_:                                                               \
        if (op->struct_size < sizeof(struct type))                            \
            break;                                                            \
        return fn(dev, (const struct type *) (const void *) op, err)
    switch (op->code) {
        OP(MOE_OP_GROUPED_GEMM, moe_op_grouped_gemm, cpu_gemm);
        OP(MOE_OP_GROUPED_FFN, moe_op_grouped_ffn, cpu_ffn);
        OP(MOE_OP_ROUTE, moe_op_route, cpu_route);
        OP(MOE_OP_COMBINE, moe_op_combine, cpu_combine);
        OP(MOE_OP_EMBED, moe_op_embed, cpu_embed);
        OP(MOE_OP_NORM, moe_op_norm, cpu_norm);
        OP(MOE_OP_ROPE_KV, moe_op_rope_kv, cpu_rope);
        OP(MOE_OP_ATTENTION, moe_op_attention, cpu_attention);
        OP(MOE_OP_GATHER, moe_op_gather, cpu_gather);
    default:
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "cpu: operation %u is unknown", op->code);
    }
#undef OP
    return moe_fail(err, MOE_E_INVAL, 0,
                    "cpu: operation %u of %u bytes is too short", op->code,
                    op->struct_size);
}

static const struct moe_backend_ops ops = {
    .struct_size = sizeof(struct moe_backend_ops),
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_host_ptr = mem_host_ptr,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .stream_wait = stream_wait,
    .event_query = event_query,
    .event_wait = event_wait,
    .upload = upload,
    .download = download,
    .copy = copy,
    .query = cpu_query,
    .slab_create = cpu_slab_create,
    .slab_destroy = cpu_slab_destroy,
    .slot_upload = cpu_slot_upload,
    .launch = launch,
};

/* ---------------------------------------------------------------- plugin -- */

static moe_status
probe(const struct moe_host *host, struct moe_probe *out,
      struct moe_error *err)
{
    (void) host;
    (void) err;
    out->score = 10; /* any accelerator is preferred */
    snprintf(out->why, sizeof(out->why), "a processor is always there");
    return MOE_OK;
}

static moe_status
init(const struct moe_host *host, void **self, struct moe_error *err)
{
    struct cpu_self *cpu;
    moe_status       st;
    char             line[80];

    cpu = host->alloc(host->ctx, sizeof(*cpu), 16);
    if (cpu == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "no memory for the CPU backend");
    cpu->host = host;
    st = cpu_isa_choose(host, host->config(host->ctx, "isa"), &cpu->use, err);
    if (st != MOE_OK) {
        host->free(host->ctx, cpu);
        return st;
    }
    snprintf(line, sizeof(line), "cpu: instruction set %s, %u threads",
             cpu->use.isa->name, host->workers(host->ctx));
    host->log(host->ctx, MOE_LOG_DEBUG, line);
    if (cpu->use.tiles != NULL) {
        snprintf(line, sizeof(line), "cpu: %s for integers from %u rows on",
                 cpu->use.tiles->name, cpu->use.from);
        host->log(host->ctx, MOE_LOG_DEBUG, line);
    }
    *self = cpu;
    return MOE_OK;
}

static void
fini(void *self)
{
    struct cpu_self *cpu = self;

    cpu->host->free(cpu->host->ctx, cpu);
}

MOE_PLUGIN_DEFINE(cpu) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_BACKEND,
    .name = "cpu",
    .version = "0.1.0",
    .license = "Apache-2.0",
    .summary = "any x86-64 processor, AVX2 and AVX-512; plain C elsewhere",
    .ops = &ops,
    .probe = probe,
    .init = init,
    .fini = fini,
};
