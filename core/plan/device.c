/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.c - a device's facts, from its INI file.
 *
 * Owns the keys of conf/hardware/NAME.ini and the shape of a device's
 * record.  What the machine itself can do is measured in machine.c, which
 * writes such a file too.
 */
#include "plan/device.h"
#include "plan/shape.h"
#include "support/number.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE 65536

struct reader {
    struct moe_plan_device *d;
    const char             *file;
    locale_t                c;
    moe_status              status;
    struct moe_error       *err;
    unsigned                seen; /* bits: memory, bandwidth */
};

struct number {
    const char *section, *key;
    size_t      at;
    double      unit, max;
};
#define NUMBER(section, key, field, unit, max)                                \
    { section, key, offsetof(struct moe_plan_device, field), unit, max }

static const struct number numbers[] = {
    NUMBER("device", "memory_bytes", memory, 1, 1e16),
    NUMBER("device", "bandwidth_gbs", bandwidth, 1e9, 1e7),
    NUMBER("device", "link_gbs", link_rate, 1e9, 1e7),
    NUMBER("device", "host_link_gbs", host_rate, 1e9, 1e7),
    NUMBER("device", "power_w", power, 1, 1e6),
    NUMBER("host", "memory_bytes", host_memory, 1, 1e16),
    NUMBER("host", "disk_gbs", disk_rate, 1e9, 1e6),
    NUMBER("tflops", "fp32", fp32, 1e12, 1e7),
    NUMBER("tflops", "fp16", fp16, 1e12, 1e7),
    NUMBER("tflops", "bf16", bf16, 1e12, 1e7),
    NUMBER("tflops", "fp8", fp8, 1e12, 1e7),
    NUMBER("tflops", "int8", int8, 1e12, 1e7),
    NUMBER("tflops", "fp4", fp4, 1e12, 1e7),
    NUMBER("price", "usd_per_hour", price, 1, 1e6),
    NUMBER("price", "usd_per_hour_low", price_low, 1, 1e6),
    NUMBER("price", "usd_per_hour_high", price_high, 1, 1e6),
    NUMBER("efficiency", "memory", eff_memory, 1, 1),
    NUMBER("efficiency", "prefill", eff_prefill, 1, 1),
    NUMBER("efficiency", "decode", eff_decode, 1, 1),
    NUMBER("efficiency", "link", eff_link, 1, 1),
    NUMBER("efficiency", "collective_us", latency, 1e-6, 1e6),
    NUMBER("efficiency", "layer_us", launch, 1e-6, 1e6),
};

struct word {
    const char *section, *key;
    size_t      at, size;
};
#define WORD(section, key, field)                                             \
    { section, key, offsetof(struct moe_plan_device, field),                  \
      sizeof(((struct moe_plan_device *) 0)->field) }

static const struct word words[] = {
    WORD("device", "vendor", vendor),
    WORD("device", "link", link),
    WORD("price", "as_of", price_date),
    WORD("price", "source", price_source),
    WORD("source", "as_of", source_date),
    WORD("source", "confidence", confidence),
    WORD("source", "text", source),
};

static int
set_number(struct reader *r, const struct number *n, const char *value)
{
    double v;

    if (!moe_number_real(value, r->c, &v) || !(v > 0) || v > n->max) {
        char shown[MOE_SHOW_MAX + 4];

        r->status = moe_fail(r->err, MOE_E_INVAL, 0,
                             "%s: [%s] %s: a number above 0 and up to %g is "
                             "wanted, not '%s'", r->file, n->section, n->key,
                             n->max, moe_show(value, shown));
        return 0;
    }
    *(double *) (void *) ((char *) r->d + n->at) = v * n->unit;
    return 1;
}

/* A key that comes again goes on with its text. */
static void
add_word(struct reader *r, const struct word *w, const char *value)
{
    char  *text = (char *) r->d + w->at, shown[MOE_SHOW_MAX + 4];
    size_t n = strlen(text);

    snprintf(text + n, w->size - n, "%s%s", n > 0 ? " " : "",
             moe_show(value, shown));
}

static int
entry(void *ctx, const char *section, const char *key, const char *value)
{
    struct reader *r = ctx;
    size_t         i;
    char           a[MOE_SHOW_MAX + 4], b[MOE_SHOW_MAX + 4];

    if (r->status != MOE_OK)
        return 0;
    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (strcmp(numbers[i].section, section) == 0
            && strcmp(numbers[i].key, key) == 0)
            return set_number(r, &numbers[i], value);
    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(words[i].section, section) == 0
            && strcmp(words[i].key, key) == 0) {
            add_word(r, &words[i], value);
            return 1;
        }
    r->status = moe_fail(r->err, MOE_E_INVAL, 0,
                         "%s: there is no key [%s] %s", r->file,
                         moe_show(section, a), moe_show(key, b));
    return 0;
}

/* Figures seen in public planners; a file may have its own. */
static void
defaults(struct moe_plan_device *d)
{
    d->eff_memory = 0.8;
    d->eff_prefill = 0.5;
    d->eff_decode = 0.4;
    d->eff_link = 0.75;
    d->latency = 10e-6;
    d->launch = 5e-6;
}

static moe_status
missing(const char *file, const char *what, struct moe_error *err)
{
    return moe_fail(err, MOE_E_INVAL, 0, "%s: %s is missing", file, what);
}

moe_status
moe_device_read(const char *path, const char *name,
                struct moe_plan_device *out, struct moe_error *err)
{
    struct moe_plan_device d = { .struct_size = sizeof(d) };
    char                   shown[MOE_SHOW_PATH_MAX + 4];
    struct reader r = { &d, moe_show_path(path, shown), (locale_t) 0, MOE_OK,
                        err, 0 };
    struct stat st;
    /* a pipe that nobody writes to is not waited for */
    int   fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), line;
    FILE *f = fd < 0 ? NULL : fdopen(fd, "r");

    if (f == NULL || fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)
        || st.st_size > MAX_FILE) {
        int why = f == NULL ? errno : EINVAL;

        if (f != NULL)
            fclose(f);
        else if (fd >= 0)
            close(fd);
        return moe_fail(err, why == ENOENT ? MOE_E_NOT_FOUND : MOE_E_IO, why,
                        "%s: %s", r.file,
                        why == EINVAL ? "no INI file of a device"
                                      : strerror(why));
    }
    r.c = newlocale(LC_ALL_MASK, "C", (locale_t) 0);
    defaults(&d);
    line = ini_parse_file(f, entry, &r);
    fclose(f);
    if (r.c != (locale_t) 0)
        freelocale(r.c);
    if (r.status != MOE_OK)
        return r.status;
    if (line != 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s:%d: this line is no KEY = VALUE", r.file, line);
    if (d.memory <= 0)
        return missing(r.file, "[device] memory_bytes", err);
    if (d.bandwidth <= 0)
        return missing(r.file, "[device] bandwidth_gbs", err);
    if (d.fp32 <= 0 && d.fp16 <= 0 && d.bf16 <= 0)
        return missing(r.file, "[tflops] bf16, fp16 or fp32", err);
    if (d.price > 0 && d.price_date[0] == '\0')
        return missing(r.file, "[price] as_of: a price without a date is "
                               "worth nothing, and it", err);
    snprintf(d.name, sizeof(d.name), "%.40s", name);
    d.is_host = strncmp(name, "cpu-", 4) == 0 || strcmp(name, "this") == 0;
    *out = d;
    return MOE_OK;
}

MOE_API moe_status
moe_plan_device(const char *name, struct moe_plan_device *out,
                struct moe_error *err)
{
    char        path[4200], own[48];
    const char *base = strrchr(name, '/');
    size_t      len = strlen(name);
    moe_status  status;

    if (strcmp(name, "this") == 0)
        return moe_device_this(0, out, err);
    if (strcmp(name, "this-anew") == 0)
        return moe_device_this(1, out, err);
    if (len == 0 || len > 4000)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "a device's name of %zu bytes: give one that moe-run "
                        "plan --devices lists, or a file", len);
    if (base != NULL || (len > 4 && strcmp(name + len - 4, ".ini") == 0)) {
        base = base != NULL ? base + 1 : name;
        snprintf(own, sizeof(own), "%.*s", (int) (strcspn(base, ".") < 40
                                                      ? strcspn(base, ".")
                                                      : 40), base);
        return moe_device_read(name, own, out, err);
    }
    status = moe_facts_find("hardware", name, path, sizeof(path), err);
    if (status != MOE_OK)
        return status;
    base = strrchr(path, '/') + 1;
    snprintf(own, sizeof(own), "%.*s", (int) strlen(base) - 4, base);
    return moe_device_read(path, own, out, err);
}

MOE_API moe_status
moe_plan_device_at(size_t i, char *buf, size_t size)
{
    return moe_facts_at("hardware", i, buf, size) ? MOE_OK : MOE_E_NOT_FOUND;
}
