/* SPDX-License-Identifier: Apache-2.0 */
/*
 * validate.c - is this descriptor, this table, this device what it must be?
 *
 * Owns every rule a plugin is refused by, but for those of its file (load.c)
 * and those between two plugins (registry.c).  Rules about data come first
 * and run none of the plugin's code; promises that only code can show are
 * asked for after init.
 *
 * A plugin that states a newer minor than ours may set flags that we do not
 * know; one of our minor or older may not.
 */

#include "plugin/load.h"

#include <string.h>

#define NAME_MAX_LEN    31u
#define FORMATS_MAX     256u
#define DEVICES_MAX     1024u
#define CORE_ABI        MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR)
#define KNOWN_CAPS      (MOE_CAP_ASYNC | MOE_CAP_ADVISE | MOE_CAP_HOST_VIEW)
#define UNIVERSAL       (MOE_DTYPE_BIT(MOE_F32) | MOE_DTYPE_BIT(MOE_F16)      \
                         | MOE_DTYPE_BIT(MOE_BF16))

const char *
moe_plugin_kind_text(uint32_t kind)
{
    return kind == MOE_KIND_BACKEND     ? "backend"
           : kind == MOE_KIND_QUANTIZER ? "quantizer"
                                        : "?";
}

void
moe_plugin_clean_text(char *text, size_t size)
{
    size_t i;

    text[size - 1] = '\0';
    for (i = 0; text[i] != '\0'; i++)
        if ((unsigned char) text[i] < 0x20 || text[i] == 0x7f)
            text[i] = ' ';
    while (i > 0 && text[i - 1] == ' ')
        text[--i] = '\0';
}

/* Is s of [a-z0-9_-] (and '.', if dots), 1 .. NAME_MAX_LEN long? */
static int
is_name(const char *s, int dots)
{
    size_t i;

    for (i = 0; i <= NAME_MAX_LEN && s[i] != '\0'; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9')
              || s[i] == '_' || s[i] == '-' || (dots && s[i] == '.')))
            return 0;
    return i > 0 && i <= NAME_MAX_LEN;
}

static moe_status
check_version(const struct moe_plugin *p, uint64_t size,
              struct moe_error *err)
{
    /* Up to abi_oldest a descriptor is the same in every major. */
    if (size != 0 && size < offsetof(struct moe_plugin, kind))
        return moe_fail(err, MOE_E_ABI, 0,
                        "its moe_plugin has %llu bytes, a descriptor %llu; "
                        "define it with MOE_PLUGIN_DEFINE",
                        (unsigned long long) size,
                        (unsigned long long) sizeof(*p));
    if (p->magic != MOE_PLUGIN_MAGIC)
        return moe_fail(err, MOE_E_ABI, 0,
                        "its moe_plugin begins with 0x%08x, a descriptor "
                        "with 0x%08x; begin it with MOE_PLUGIN_HEADER",
                        p->magic, MOE_PLUGIN_MAGIC);
    if (MOE_ABI_MAJOR_OF(p->abi) != MOE_ABI_MAJOR)
        return moe_fail(err, MOE_E_ABI, 0,
                        "built for plugin ABI %u.%u, this moe-run has %u.%u; "
                        "build it with the headers of this moe-run, or "
                        "install the moe-run it was built for",
                        MOE_ABI_MAJOR_OF(p->abi), MOE_ABI_MINOR_OF(p->abi),
                        MOE_ABI_MAJOR, MOE_ABI_MINOR);
    if (p->abi_oldest > p->abi
        || MOE_ABI_MAJOR_OF(p->abi_oldest) != MOE_ABI_MAJOR)
        return moe_fail(err, MOE_E_ABI, 0,
                        "says abi_oldest %u.%u, which does not fit its abi "
                        "%u.%u; set it to %u.0, or to the minor it needs",
                        MOE_ABI_MAJOR_OF(p->abi_oldest),
                        MOE_ABI_MINOR_OF(p->abi_oldest),
                        MOE_ABI_MAJOR_OF(p->abi), MOE_ABI_MINOR_OF(p->abi),
                        MOE_ABI_MAJOR);
    if (p->abi_oldest > CORE_ABI)
        return moe_fail(err, MOE_E_ABI, 0,
                        "needs plugin ABI %u.%u or newer, this moe-run has "
                        "%u.%u; update moe-run, or use an older version of "
                        "the plugin",
                        MOE_ABI_MAJOR_OF(p->abi_oldest),
                        MOE_ABI_MINOR_OF(p->abi_oldest), MOE_ABI_MAJOR,
                        MOE_ABI_MINOR);
    if (p->struct_size < sizeof(*p) || (size != 0 && p->struct_size > size))
        return moe_fail(err, MOE_E_ABI, 0,
                        "its descriptor says %u bytes, has %llu and needs "
                        "%llu; begin it with MOE_PLUGIN_HEADER",
                        p->struct_size, (unsigned long long) size,
                        (unsigned long long) sizeof(*p));
    return MOE_OK;
}

moe_status
moe_plugin_check_descriptor(const struct moe_plugin *p, uint64_t size,
                            const char *stem, const char *stem2,
                            struct moe_error *err)
{
    const char *missing = NULL;
    moe_status  status = check_version(p, size, err);

    if (status != MOE_OK)
        return status;
    if (p->kind != MOE_KIND_BACKEND && p->kind != MOE_KIND_QUANTIZER)
        return moe_fail(err, MOE_E_ABI, 0,
                        "is of kind %u, this moe-run knows %u (backend) and "
                        "%u (quantizer); update moe-run, or correct its "
                        "kind",
                        p->kind, MOE_KIND_BACKEND, MOE_KIND_QUANTIZER);
    if (p->flags != 0 && p->abi <= CORE_ABI)
        return moe_fail(err, MOE_E_ABI, 0,
                        "sets flags 0x%x, ABI %u.%u has none; set them to 0",
                        p->flags, MOE_ABI_MAJOR_OF(p->abi),
                        MOE_ABI_MINOR_OF(p->abi));
    missing = p->name == NULL      ? "name"
              : p->version == NULL ? "version"
              : p->license == NULL ? "license"
              : p->summary == NULL ? "summary"
              : p->ops == NULL     ? "ops"
              : p->init == NULL    ? "init"
              : p->fini == NULL    ? "fini"
                                   : NULL;
    if (missing != NULL)
        return moe_fail(err, MOE_E_ABI, 0,
                        "its descriptor has no %s; only probe may be NULL",
                        missing);
    if (!is_name(p->name, 0))
        return moe_fail(err, MOE_E_ABI, 0,
                        "calls itself \"%.40s\"; a name is 1 to %u of a-z, "
                        "0-9, _ and -",
                        p->name, NAME_MAX_LEN);
    if (strcmp(p->name, stem) != 0 && strcmp(p->name, stem2) != 0)
        return moe_fail(err, MOE_E_ABI, 0,
                        "calls itself \"%s\", its file is named "
                        "\"%.100s.so\"; rename the file to %s.so",
                        p->name, stem, p->name);
    return MOE_OK;
}

/* ---------------------------------------------------------------- tables -- */

struct slot {
    const char *name;
    size_t      off;
};

#define BACKEND_FN(f)   { #f, offsetof(struct moe_backend_ops, f) }
#define QUANTIZER_FN(f) { #f, offsetof(struct moe_quantizer_ops, f) }

static const struct slot backend_slots[] = {
    BACKEND_FN(device_count),  BACKEND_FN(device_info),
    BACKEND_FN(device_open),   BACKEND_FN(device_close),
    BACKEND_FN(mem_alloc),     BACKEND_FN(mem_free),
    BACKEND_FN(mem_host_ptr),  BACKEND_FN(stream_create),
    BACKEND_FN(stream_destroy), BACKEND_FN(event_create),
    BACKEND_FN(event_destroy), BACKEND_FN(event_record),
    BACKEND_FN(stream_wait),   BACKEND_FN(event_query),
    BACKEND_FN(event_wait),    BACKEND_FN(upload),
    BACKEND_FN(download),      BACKEND_FN(copy),
    BACKEND_FN(query),         BACKEND_FN(slab_create),
    BACKEND_FN(slab_destroy),  BACKEND_FN(slot_upload),
    BACKEND_FN(launch),
};

static const struct slot quantizer_slots[] = {
    QUANTIZER_FN(planes),
    QUANTIZER_FN(check),
    QUANTIZER_FN(decode),
};

/* Every function of slots lies within size bytes of the table and is set. */
static moe_status
check_slots(const void *table, uint32_t size, const struct slot *slots,
            size_t n_slots, const char *what, struct moe_error *err)
{
    size_t i;
    void  *fn;

    for (i = 0; i < n_slots; i++) {
        if (size < slots[i].off + sizeof(fn))
            return moe_fail(err, MOE_E_ABI, 0,
                            "its %s ends before %s (struct_size %u, that "
                            "function ends at byte %llu); set struct_size "
                            "to sizeof",
                            what, slots[i].name, size,
                            (unsigned long long) (slots[i].off + sizeof(fn)));
        memcpy(&fn, (const char *) table + slots[i].off, sizeof(fn));
        if (fn == NULL)
            return moe_fail(err, MOE_E_ABI, 0,
                            "its %s has no %s, which is required; write it",
                            what, slots[i].name);
    }
    return MOE_OK;
}

static int
same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

int
moe_scheme_same(const struct moe_scheme *a, const struct moe_scheme *b)
{
    if (!same_text(a->storage, b->storage))
        return 0;
    if (a->storage == NULL)
        return same_text(a->elem, b->elem);
    /* A config does not say elem, the file's element plane does.  E4M3 and
     * E5M2 differ in nothing else, so it counts when both sides know it. */
    if (a->elem != NULL && b->elem != NULL && strcmp(a->elem, b->elem) != 0)
        return 0;
    return same_text(a->type, b->type) && same_text(a->strategy, b->strategy)
           && a->num_bits == b->num_bits && a->group_size == b->group_size
           && a->block_n == b->block_n && a->block_k == b->block_k
           && a->symmetric == b->symmetric;
}

static moe_status
check_format(const struct moe_format *f, uint32_t i, struct moe_error *err)
{
    const struct moe_scheme *s;
    const char              *bad = NULL;

    if (f == NULL)
        return moe_fail(err, MOE_E_ABI, 0,
                        "its format %u is NULL; correct n_formats", i);
    if (f->struct_size < sizeof(*f))
        return moe_fail(err, MOE_E_ABI, 0,
                        "its format %u says %u bytes and needs %llu; set "
                        "struct_size to sizeof",
                        i, f->struct_size, (unsigned long long) sizeof(*f));
    if (f->id == NULL || !is_name(f->id, 1))
        return moe_fail(err, MOE_E_ABI, 0,
                        "its format %u is called \"%.40s\"; an id is 1 to %u "
                        "of a-z, 0-9, _, - and .",
                        i, f->id != NULL ? f->id : "(null)", NAME_MAX_LEN);
    s = &f->scheme;
    if (f->summary == NULL)
        bad = "no summary";
    else if (f->revision == 0)
        bad = "revision 0 (they begin with 1)";
    else if (f->k_multiple == 0 || f->n_multiple == 0)
        bad = "a multiple of 0 (1: any size)";
    else if (f->bits_x1000 == 0)
        bad = "bits_x1000 0";
    else if (s->struct_size < sizeof(*s))
        bad = "a scheme whose struct_size is too small";
    else if (s->storage == NULL && s->elem == NULL)
        bad = "a scheme with neither storage nor elem";
    else if (s->storage != NULL && (s->type == NULL || s->strategy == NULL))
        bad = "a scheme with storage but no type or no strategy";
    else if (s->storage != NULL && (s->num_bits == 0 || s->num_bits > 32))
        bad = "a scheme of 0 or more than 32 bits";
    else if (s->storage != NULL && strcmp(s->strategy, "group") == 0
             && s->group_size == 0)
        bad = "strategy \"group\" and group_size 0";
    else if (s->storage != NULL && strcmp(s->strategy, "block") == 0
             && (s->block_n == 0 || s->block_k == 0))
        bad = "strategy \"block\" and a block of 0";
    if (bad != NULL)
        return moe_fail(err, MOE_E_ABI, 0,
                        "its format \"%s\" has %s; correct its row", f->id,
                        bad);
    return MOE_OK;
}

static moe_status
check_quantizer(const struct moe_quantizer_ops *ops, struct moe_error *err)
{
    uint32_t   i, j;
    moe_status status;

    status = check_slots(ops, ops->struct_size, quantizer_slots,
                         sizeof(quantizer_slots) / sizeof(*quantizer_slots),
                         "moe_quantizer_ops", err);
    if (status != MOE_OK)
        return status;
    if (ops->n_formats == 0 || ops->n_formats > FORMATS_MAX
        || ops->formats == NULL)
        return moe_fail(err, MOE_E_ABI, 0,
                        "offers %u formats; a quantizer has 1 to %u",
                        ops->formats == NULL ? 0 : ops->n_formats,
                        FORMATS_MAX);
    for (i = 0; i < ops->n_formats; i++) {
        status = check_format(ops->formats[i], i, err);
        if (status != MOE_OK)
            return status;
        for (j = 0; j < i; j++) {
            if (strcmp(ops->formats[i]->id, ops->formats[j]->id) == 0)
                return moe_fail(err, MOE_E_ABI, 0,
                                "offers format \"%s\" twice; give one "
                                "another id",
                                ops->formats[i]->id);
            if (moe_scheme_same(&ops->formats[i]->scheme,
                                &ops->formats[j]->scheme))
                return moe_fail(err, MOE_E_ABI, 0,
                                "its formats \"%s\" and \"%s\" have one "
                                "scheme, so a file could mean either; make "
                                "the schemes differ",
                                ops->formats[j]->id, ops->formats[i]->id);
        }
    }
    return MOE_OK;
}

moe_status
moe_plugin_check_table(const struct moe_plugin *p, struct moe_error *err)
{
    const struct moe_backend_ops *ops;

    if (p->kind == MOE_KIND_QUANTIZER)
        return check_quantizer(p->ops, err);
    ops = p->ops;
    return check_slots(ops, ops->struct_size, backend_slots,
                       sizeof(backend_slots) / sizeof(*backend_slots),
                       "moe_backend_ops", err);
}

/* -------------------------------------------------------------- promises -- */

static int
is_terminated(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static moe_status
check_device(const struct moe_plugin *p, const struct moe_backend_ops *ops,
             const struct moe_device_info *d, uint32_t i,
             struct moe_error *err)
{
    if (!is_terminated(d->domain, sizeof(d->domain)) || d->domain[0] == '\0'
        || !is_terminated(d->uid, sizeof(d->uid))
        || !is_terminated(d->name, sizeof(d->name)))
        return moe_fail(err, MOE_E_ABI, 0,
                        "device %u: domain is empty, or domain, uid or name "
                        "does not end within its field; terminate them",
                        i);
    if ((d->caps & MOE_CAP_ADVISE) != 0
        && (!MOE_HAS(ops, moe_backend_ops, slot_advise)
            || ops->slot_advise == NULL))
        return moe_fail(err, MOE_E_ABI, 0,
                        "device %u promises MOE_CAP_ADVISE but its table has "
                        "no slot_advise; write it, or clear the bit",
                        i);
    if ((d->caps & ~KNOWN_CAPS) != 0 && p->abi <= CORE_ABI)
        return moe_fail(err, MOE_E_ABI, 0,
                        "device %u promises capabilities 0x%x, ABI %u.%u "
                        "knows 0x%x; clear the others",
                        i, d->caps, MOE_ABI_MAJOR_OF(p->abi),
                        MOE_ABI_MINOR_OF(p->abi), KNOWN_CAPS);
    if ((d->dtypes & MOE_DTYPE_BIT(MOE_F32)) == 0
        || (d->dtypes & ~UNIVERSAL) != 0)
        return moe_fail(err, MOE_E_ABI, 0,
                        "device %u takes weight types 0x%x; F32 (0x%x) is "
                        "required and F16 and BF16 (of 0x%x) are allowed",
                        i, d->dtypes, MOE_DTYPE_BIT(MOE_F32), UNIVERSAL);
    if (d->preferred > 31
        || (d->dtypes & MOE_DTYPE_BIT(d->preferred)) == 0)
        return moe_fail(err, MOE_E_ABI, 0,
                        "device %u prefers weight type %u, which is not in "
                        "its dtypes 0x%x; add it, or prefer another",
                        i, d->preferred, d->dtypes);
    if ((d->kv_dtypes & MOE_DTYPE_BIT(MOE_F32)) == 0)
        return moe_fail(err, MOE_E_ABI, 0,
                        "device %u takes KV cache types 0x%x; F32 (0x%x) is "
                        "required",
                        i, d->kv_dtypes, MOE_DTYPE_BIT(MOE_F32));
    if (d->mem_align == 0 || (d->mem_align & (d->mem_align - 1)) != 0)
        return moe_fail(err, MOE_E_ABI, 0,
                        "device %u: mem_align is %u; it must be a power of "
                        "two",
                        i, d->mem_align);
    return MOE_OK;
}

moe_status
moe_plugin_check_promises(const struct moe_plugin *p, void *self,
                          struct moe_error *err)
{
    const struct moe_backend_ops *ops = p->ops;
    struct moe_device_info        info;
    moe_status                    status;
    uint32_t                      i, n = 0;

    if (p->kind != MOE_KIND_BACKEND)
        return MOE_OK;
    status = ops->device_count(self, &n);
    if (status != MOE_OK)
        return moe_fail(err, MOE_E_ABI, status,
                        "device_count failed with status %d after init "
                        "succeeded; fail in init instead",
                        status);
    if (n == 0)
        return moe_fail(err, MOE_E_ABSENT, 0, "has no device here");
    if (n > DEVICES_MAX)
        return moe_fail(err, MOE_E_ABI, 0,
                        "says it has %u devices; at most %u are believed", n,
                        DEVICES_MAX);
    for (i = 0; i < n; i++) {
        memset(&info, 0, sizeof(info));
        info.struct_size = sizeof(info);
        status = ops->device_info(self, i, &info);
        if (status != MOE_OK)
            return moe_fail(err, MOE_E_ABI, status,
                            "device_info(%u) of %u failed with status %d; "
                            "count only devices that answer",
                            i, n, status);
        status = check_device(p, ops, &info, i, err);
        if (status != MOE_OK)
            return status;
    }
    return MOE_OK;
}
