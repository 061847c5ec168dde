/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry.c - which plugins there are, and how each one's loading ended.
 *
 * Owns the list of files considered, the dlopen handles and each plugin's
 * moe_host.  Leaves the file to load.c and the rules to validate.c; the rules
 * between plugins (names, format ids, schemes) are here.
 *
 * A plugin whose init has run stays mapped for the life of the process, even
 * if it failed: it may have left threads, handlers or a driver's state behind
 * that point into its text.
 */

#include "plugin/registry.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "plugin/load.h"

struct item {
    struct moe_plugin_entry    entry;
    const struct moe_services *services;
    struct moe_host            host;
    void                      *handle; /* NULL: not mapped, or no more */
    const struct moe_plugin   *desc;   /* of a loaded one */
    void                      *self;
    uint32_t                   score;
    int                        asked; /* by name: its caller reports it */
    dev_t                      dev; /* file, links resolved */
    ino_t                      ino;
    char                      *path, *name, *version, *summary, *reason;
    char                       section[48]; /* "backend.cpu" */
};

struct moe_registry {
    struct moe_services services;
    struct item       **items;
    size_t              n, cap;
};

static const char out_of_memory[] = "out of memory";

/* ------------------------------------------------------- a plugin's host -- */

static void
host_log(void *ctx, uint32_t level, const char *line)
{
    const struct item *it = ctx;
    char               text[640];

    snprintf(text, sizeof(text), "%s: %s", it->entry.name,
             line != NULL ? line : "");
    moe_plugin_clean_text(text, sizeof(text));
    it->services->log(it->services->ctx, level, text);
}

static const char *
host_config(void *ctx, const char *key)
{
    const struct item *it = ctx;

    return key == NULL ? NULL
                       : it->services->config(it->services->ctx, it->section,
                                              key);
}

static void *
host_alloc(void *ctx, uint64_t bytes, uint64_t align)
{
    const struct item *it = ctx;

    return it->services->alloc(it->services->ctx, bytes, align);
}

static void
host_free(void *ctx, void *p)
{
    const struct item *it = ctx;

    if (p != NULL)
        it->services->free(it->services->ctx, p);
}

static moe_status
host_reserve(void *ctx, const char *domain, uint64_t bytes, const char *what,
             moe_grant **out)
{
    const struct item *it = ctx;

    return it->services->reserve(it->services->ctx, domain, bytes, what, out);
}

static void
host_release(void *ctx, moe_grant *grant)
{
    const struct item *it = ctx;

    if (grant != NULL)
        it->services->release(it->services->ctx, grant);
}

static void
host_parallel(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
              void *arg)
{
    const struct item *it = ctx;

    it->services->parallel(it->services->ctx, n, fn, arg);
}

static uint32_t
host_workers(void *ctx)
{
    const struct item *it = ctx;

    return it->services->workers(it->services->ctx);
}

static void
host_set(struct item *it, uint32_t kind, const char *name)
{
    struct moe_host *h = &it->host;

    snprintf(it->section, sizeof(it->section), "%s.%s",
             kind == MOE_KIND_BACKEND ? "backend" : "quant", name);
    h->struct_size = sizeof(*h);
    h->abi = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR);
    h->ctx = it;
    h->log = host_log;
    h->config = host_config;
    h->alloc = host_alloc;
    h->free = host_free;
    h->reserve = host_reserve;
    h->release = host_release;
    h->parallel = host_parallel;
    h->workers = host_workers;
}

/* --------------------------------------------------------------- entries -- */

static void
item_free(struct item *it)
{
    if (it == NULL)
        return;
    free(it->path);
    free(it->name);
    free(it->version);
    free(it->summary);
    free(it->reason);
    free(it);
}

/* "lib/cpu.so" -> "cpu"; malloc'ed. */
static char *
stem_of(const char *path)
{
    const char *base = strrchr(path, '/');
    size_t      len;

    base = base != NULL ? base + 1 : path;
    len = strlen(base);
    if (len > 3 && strcmp(base + len - 3, ".so") == 0)
        len -= 3;
    return strndup(base, len);
}

/* A new entry in state "refused", for a file named path. */
static struct item *
item_add(struct moe_registry *r, const char *path)
{
    struct item *it;

    if (r->n == r->cap) {
        size_t        cap = r->cap != 0 ? 2 * r->cap : 16;
        struct item **items = realloc(r->items, cap * sizeof(*items));

        if (items == NULL)
            return NULL;
        r->items = items;
        r->cap = cap;
    }
    it = calloc(1, sizeof(*it));
    if (it == NULL)
        return NULL;
    it->path = strdup(path);
    it->name = stem_of(path);
    if (it->path == NULL || it->name == NULL) {
        item_free(it);
        return NULL;
    }
    it->services = &r->services;
    it->entry.path = it->path;
    it->entry.name = it->name;
    it->entry.version = it->entry.summary = it->entry.reason = "";
    it->entry.state = "refused";
    it->entry.status = MOE_E_ABI;
    r->items[r->n++] = it;
    return it;
}

/* What the descriptor says, copied: a refused plugin is unmapped. */
static moe_status
item_describe(struct item *it, const struct moe_plugin *p,
              struct moe_error *err)
{
    char *name = strdup(p->name);
    char *version = strdup(p->version), *summary = strdup(p->summary);

    if (name == NULL || version == NULL || summary == NULL) {
        free(name);
        free(version);
        free(summary);
        return moe_fail(err, MOE_E_NOMEM, 0, "%s", out_of_memory);
    }
    moe_plugin_clean_text(version, strlen(version) + 1);
    moe_plugin_clean_text(summary, strlen(summary) + 1);
    free(it->name);
    it->entry.name = it->name = name;
    it->entry.version = it->version = version;
    it->entry.summary = it->summary = summary;
    it->entry.kind = p->kind;
    it->entry.abi = p->abi;
    return MOE_OK;
}

/* The end of a path that fits a message. */
static const char *
short_path(const char *path, const char **dots)
{
    size_t len = strlen(path);

    *dots = len > 200 ? "..." : "";
    return len > 200 ? path + len - 200 : path;
}

/* Log how an item ended and keep the reason, the path in front. */
static moe_status
item_end(struct item *it, const char *state, moe_status status,
         struct moe_error *err)
{
    struct moe_error full = { .struct_size = sizeof(full) };
    const char      *dots, *path = short_path(it->path, &dots);

    it->entry.state = status == MOE_OK ? "loaded" : state;
    it->entry.status = status;
    if (status == MOE_OK) {
        char text[400];

        snprintf(text, sizeof(text), "loaded %s %s %.40s (%s%s)",
                 moe_plugin_kind_text(it->entry.kind), it->entry.name,
                 it->entry.version, dots, path);
        it->services->log(it->services->ctx, MOE_LOG_INFO, text);
        return MOE_OK;
    }
    moe_plugin_clean_text(err->text, sizeof(err->text));
    moe_fail(&full, status, err->native, "%s%s: %.*s", dots, path,
             (int) sizeof(err->text), err->text);
    it->reason = strdup(full.text);
    it->entry.reason = it->reason != NULL ? it->reason : out_of_memory;
    it->services->log(it->services->ctx,
                      it->asked                       ? MOE_LOG_DEBUG
                      : strcmp(state, "refused") == 0 ? MOE_LOG_WARN
                                                      : MOE_LOG_INFO,
                      full.text);
    return status;
}

/* --------------------------------------------------------------- loading -- */

static int
is_loaded(const struct item *it)
{
    return it->entry.status == MOE_OK;
}

/* Rules between p and the plugins loaded before. */
static moe_status
check_others(const struct moe_registry *r, const struct moe_plugin *p,
             const char **state, struct moe_error *err)
{
    const struct moe_quantizer_ops *a = p->ops, *b;
    uint32_t                        k, m;
    size_t                          i;

    for (i = 0; i < r->n; i++) {
        const struct item *o = r->items[i];

        if (!is_loaded(o) || o->entry.kind != p->kind)
            continue;
        if (strcmp(o->entry.name, p->name) == 0) {
            *state = "shadowed";
            return moe_fail(err, MOE_E_ABI, 0,
                            "another %s \"%s\" was found first: %.150s; "
                            "remove one of them",
                            moe_plugin_kind_text(p->kind), p->name, o->path);
        }
        if (p->kind != MOE_KIND_QUANTIZER)
            continue;
        b = o->desc->ops;
        for (k = 0; k < a->n_formats; k++)
            for (m = 0; m < b->n_formats; m++) {
                const struct moe_format *x = a->formats[k];
                const struct moe_format *y = b->formats[m];

                if (strcmp(x->id, y->id) == 0)
                    return moe_fail(err, MOE_E_ABI, 0,
                                    "offers format \"%s\", which quantizer "
                                    "\"%s\" offers already; give it another "
                                    "id, or remove one of them",
                                    x->id, o->entry.name);
                if (moe_scheme_same(&x->scheme, &y->scheme))
                    return moe_fail(err, MOE_E_ABI, 0,
                                    "its format \"%s\" has the scheme of "
                                    "\"%s\" of quantizer \"%s\", so a file "
                                    "could mean either; remove one of them",
                                    x->id, y->id, o->entry.name);
            }
    }
    return MOE_OK;
}

static moe_status
run_probe(struct item *it, const struct moe_plugin *p, const char **state,
          struct moe_error *err)
{
    struct moe_probe probe = { .struct_size = sizeof(probe), .score = 1 };
    moe_status       status;

    it->score = 1;
    if (p->probe == NULL)
        return MOE_OK;
    probe.score = 0;
    status = p->probe(&it->host, &probe, err);
    moe_plugin_clean_text(probe.why, sizeof(probe.why));
    moe_plugin_clean_text(err->text, sizeof(err->text));
    if (status == MOE_OK && probe.score > 0) {
        it->score = probe.score;
        return MOE_OK;
    }
    if (status == MOE_OK || status == MOE_E_ABSENT) {
        char why[sizeof(probe.why)];

        snprintf(why, sizeof(why), "%.*s", (int) sizeof(why) - 1,
                 probe.why[0] != '\0' ? probe.why
                 : err->text[0] != '\0'
                     ? err->text
                     : "its probe gave no reason");
        *state = "absent";
        return moe_fail(err, MOE_E_ABSENT, err->native,
                        "cannot run here: %s", why);
    }
    if (err->text[0] == '\0')
        moe_fail(err, status, 0, "its probe failed with status %d", status);
    return status < 0 ? status : MOE_E_INTERNAL;
}

static moe_status
run_init(struct item *it, const struct moe_plugin *p, const char **state,
         struct moe_error *err)
{
    char       text[sizeof(err->text)];
    moe_status status = p->init(&it->host, &it->self, err);

    if (status != MOE_OK) {
        moe_plugin_clean_text(err->text, sizeof(err->text));
        memcpy(text, err->text, sizeof(text));
        moe_fail(err, status, err->native, "its init failed: %.440s",
                 text[0] != '\0' ? text : "it gave no reason");
        if (text[0] == '\0')
            moe_fail(err, status, 0, "its init failed with status %d",
                     status);
        if (status == MOE_E_ABSENT)
            *state = "absent";
        return status < 0 ? status : MOE_E_INTERNAL;
    }
    status = moe_plugin_check_promises(p, it->self, err);
    if (status != MOE_OK) {
        p->fini(it->self);
        if (status == MOE_E_ABSENT)
            *state = "absent";
    }
    return status;
}

/* All steps for one file; the item's entry says how it ended. */
static moe_status
item_load(struct moe_registry *r, struct item *it, const char *stem2)
{
    struct moe_error         err = { .struct_size = sizeof(err) };
    const struct moe_plugin *p = NULL;
    const char              *state = "refused";
    uint64_t                 size = 0;
    moe_status               status;

    status = moe_plugin_check_file(it->path, &err);
    if (status == MOE_OK)
        status = moe_plugin_map(it->path, &it->handle, &p, &size, &err);
    if (status == MOE_OK)
        status = moe_plugin_check_descriptor(p, size, it->name, stem2, &err);
    if (status == MOE_OK)
        status = item_describe(it, p, &err);
    if (status == MOE_OK)
        status = moe_plugin_check_table(p, &err);
    if (status == MOE_OK)
        status = check_others(r, p, &state, &err);
    if (status == MOE_OK) {
        host_set(it, p->kind, p->name);
        status = run_probe(it, p, &state, &err);
    }
    if (status != MOE_OK) {
        moe_plugin_unmap(it->handle);
        it->handle = NULL;
        return item_end(it, state, status, &err);
    }
    it->desc = p;
    status = run_init(it, p, &state, &err);
    return item_end(it, state, status, &err);
}

/* Considers one file; *out: its entry, or the one of the same file. */
static moe_status
consider(struct moe_registry *r, const char *path, int asked,
         struct item **out)
{
    struct stat st;
    char       *real, *stem2;
    size_t      i;
    int         have = stat(path, &st) == 0;

    *out = NULL;
    for (i = 0; have && i < r->n; i++)
        if (r->items[i]->dev == st.st_dev && r->items[i]->ino == st.st_ino) {
            *out = r->items[i];
            return MOE_OK;
        }
    *out = item_add(r, path);
    if (*out == NULL)
        return MOE_E_NOMEM;
    (*out)->asked = asked;
    if (have) {
        (*out)->dev = st.st_dev;
        (*out)->ino = st.st_ino;
    }
    real = realpath(path, NULL);
    stem2 = stem_of(real != NULL ? real : path);
    free(real);
    if (stem2 == NULL)
        return MOE_E_NOMEM;
    item_load(r, *out, stem2);
    free(stem2);
    return MOE_OK;
}

static int
is_so(const struct dirent *d)
{
    size_t len = strlen(d->d_name);

    return d->d_name[0] != '.' && len > 3
           && strcmp(d->d_name + len - 3, ".so") == 0;
}

/* By bytes: alphasort would ask the locale. */
static int
by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static moe_status
scan_dir(struct moe_registry *r, const char *dir)
{
    struct dirent **list = NULL;
    struct item    *it;
    moe_status      status = MOE_OK;
    char            path[PATH_MAX], text[400];
    int             i, n = scandir(dir, &list, is_so, by_name);

    if (n < 0) {
        if (errno == ENOMEM)
            return MOE_E_NOMEM;
        if (errno != ENOENT && errno != ENOTDIR) {
            snprintf(text, sizeof(text),
                     "%.200s: cannot be searched for plugins: %s", dir,
                     strerror(errno));
            r->services.log(r->services.ctx, MOE_LOG_WARN, text);
        }
        return MOE_OK;
    }
    for (i = 0; i < n; i++) {
        int len = snprintf(path, sizeof(path), "%s/%s", dir,
                           list[i]->d_name);

        if (status == MOE_OK && len > 0 && (size_t) len < sizeof(path))
            status = consider(r, path, 0, &it);
        free(list[i]);
    }
    free(list);
    return status;
}

static moe_status
load_extra(struct moe_registry *r, const char *file, struct moe_error *err)
{
    struct item *it;
    moe_status   status;
    char        *path = NULL;

    /* dlopen looks a bare name up in the system's libraries. */
    if (strchr(file, '/') == NULL) {
        path = malloc(strlen(file) + 3);
        if (path == NULL)
            return moe_fail(err, MOE_E_NOMEM, 0, "%s", out_of_memory);
        sprintf(path, "./%s", file);
    }
    status = consider(r, path != NULL ? path : file, 1, &it);
    free(path);
    if (status != MOE_OK)
        return moe_fail(err, status, 0, "%s", out_of_memory);
    if (!is_loaded(it))
        return moe_fail(err, it->entry.status, 0, "%s", it->entry.reason);
    return MOE_OK;
}

moe_status
moe_registry_open(const struct moe_services *services, const char *path,
                  const char *const *extra, size_t n_extra,
                  struct moe_registry **out, struct moe_error *err)
{
    struct moe_registry *r;
    moe_status           status = MOE_OK;
    char                *copy, *dir, *save = NULL;
    size_t               i;

    if (services == NULL || services->log == NULL || services->config == NULL
        || services->reserve == NULL || services->release == NULL
        || services->alloc == NULL || services->free == NULL
        || services->parallel == NULL || services->workers == NULL)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "moe_registry_open: a service is missing; set all");
    r = calloc(1, sizeof(*r));
    copy = strdup(path != NULL ? path : "");
    if (r == NULL || copy == NULL) {
        free(r);
        free(copy);
        return moe_fail(err, MOE_E_NOMEM, 0, "%s", out_of_memory);
    }
    r->services = *services;
    for (i = 0; i < n_extra && status == MOE_OK; i++)
        status = load_extra(r, extra[i], err);
    for (dir = strtok_r(copy, ":", &save); dir != NULL && status == MOE_OK;
         dir = strtok_r(NULL, ":", &save)) {
        status = scan_dir(r, dir);
        if (status != MOE_OK)
            moe_fail(err, status, 0, "%s", out_of_memory);
    }
    free(copy);
    if (status != MOE_OK) {
        moe_registry_close(r);
        return status;
    }
    *out = r;
    return MOE_OK;
}

void
moe_registry_close(struct moe_registry *r)
{
    if (r == NULL)
        return;
    while (r->n > 0) {
        struct item *it = r->items[--r->n];

        if (is_loaded(it))
            it->desc->fini(it->self);
        item_free(it);
    }
    free(r->items);
    free(r);
}

/* -------------------------------------------------------------- look-ups -- */

size_t
moe_registry_count(const struct moe_registry *r)
{
    return r->n;
}

const struct moe_plugin_entry *
moe_registry_entry(const struct moe_registry *r, size_t i)
{
    return i < r->n ? &r->items[i]->entry : NULL;
}

/* Appends ", text" (or "text") to the list in buf, as far as it fits. */
static void
list_add(char *buf, size_t size, const char *text)
{
    size_t len = strlen(buf);

    if (len < size)
        snprintf(buf + len, size - len, "%s%s", len != 0 ? ", " : "", text);
}

moe_status
moe_registry_backend(const struct moe_registry *r, const char *name,
                     const struct moe_backend_ops **ops, void **self,
                     const char **found_name, struct moe_error *err)
{
    const struct item *best = NULL, *refused = NULL;
    int                any = strcmp(name, "auto") == 0;
    char               found[200] = "";
    size_t             i, n_refused = 0;

    for (i = 0; i < r->n; i++) {
        const struct item *it = r->items[i];

        if (!is_loaded(it)) {
            n_refused++;
            if (refused == NULL && strcmp(it->entry.name, name) == 0
                && it->entry.kind != MOE_KIND_QUANTIZER)
                refused = it;
            continue;
        }
        if (it->entry.kind != MOE_KIND_BACKEND)
            continue;
        list_add(found, sizeof(found), it->entry.name);
        if (any ? best == NULL || it->score > best->score
                : strcmp(it->entry.name, name) == 0)
            best = it;
    }
    if (best != NULL) {
        *ops = best->desc->ops;
        *self = best->self;
        *found_name = best->entry.name;
        return MOE_OK;
    }
    if (refused != NULL)
        return moe_fail(err, refused->entry.status, 0, "%s",
                        refused->entry.reason);
    if (any)
        return moe_fail(err, MOE_E_NOT_FOUND, 0,
                        "no backend could be loaded (%llu plugin files "
                        "found, %llu not usable); install one, or see "
                        "`moe-run plugins` for the reasons",
                        (unsigned long long) r->n,
                        (unsigned long long) n_refused);
    return moe_fail(err, MOE_E_NOT_FOUND, 0,
                    "no backend \"%.40s\" (found: %s); choose one of these, "
                    "or name its file with --plugin",
                    name, found[0] != '\0' ? found : "none");
}

static void
format_ref(const struct item *it, uint32_t i, struct moe_format_ref *out)
{
    const struct moe_quantizer_ops *ops = it->desc->ops;

    out->format = ops->formats[i];
    out->ops = ops;
    out->self = it->self;
    out->plugin = it->entry.name;
}

moe_status
moe_registry_format_at(const struct moe_registry *r, size_t i,
                       struct moe_format_ref *out)
{
    size_t k;

    for (k = 0; k < r->n; k++) {
        const struct item              *it = r->items[k];
        const struct moe_quantizer_ops *ops;

        if (!is_loaded(it) || it->entry.kind != MOE_KIND_QUANTIZER)
            continue;
        ops = it->desc->ops;
        if (i < ops->n_formats) {
            format_ref(it, (uint32_t) i, out);
            return MOE_OK;
        }
        i -= ops->n_formats;
    }
    return MOE_E_NOT_FOUND;
}

moe_status
moe_registry_format(const struct moe_registry *r, const char *id,
                    struct moe_format_ref *out, struct moe_error *err)
{
    struct moe_format_ref ref;
    char                  found[300] = "";
    size_t                i;

    for (i = 0; moe_registry_format_at(r, i, &ref) == MOE_OK; i++) {
        if (strcmp(ref.format->id, id) == 0) {
            *out = ref;
            return MOE_OK;
        }
        list_add(found, sizeof(found), ref.format->id);
    }
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "no plugin offers format \"%.40s\" (found: %s); choose "
                    "one of these, or install its quantizer",
                    id, found[0] != '\0' ? found : "none");
}

moe_status
moe_registry_scheme(const struct moe_registry *r,
                    const struct moe_scheme *scheme,
                    struct moe_format_ref *out)
{
    struct moe_format_ref ref;
    size_t                i;

    for (i = 0; moe_registry_format_at(r, i, &ref) == MOE_OK; i++)
        if (moe_scheme_same(&ref.format->scheme, scheme)) {
            *out = ref;
            return MOE_OK;
        }
    return MOE_E_NOT_FOUND;
}
