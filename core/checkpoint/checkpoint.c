/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint.c - a checkpoint folder: names, shapes and byte ranges.
 *
 * Owns the open files, the parsed configuration and the hash of tensors.
 * What one file's header says is checked in safetensors.c; here is what
 * needs several: the shards of an index, a name that two files give.  The
 * schemes of quantized modules are resolved once, at open, so that later
 * reads from many threads share only what no longer changes.
 */

#include <checkpoint/checkpoint.h>

#include <checkpoint/json.h>
#include <checkpoint/safetensors.h>
#include <checkpoint/scheme.h>
#include <checkpoint/synthetic.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_MAX (8u << 20)  /* bytes of config.json */
#define INDEX_MAX  (64u << 20) /* bytes of the index; 91,000 tensors take 9 */
#define SHARDS_MAX 65536u
#define GROUP_UNREAD (-3)

struct file {
    char    *path;
    char     shown[MOE_SHOW_PATH_MAX + 4];
    int      fd;
    uint64_t bytes;
};

struct moe_checkpoint {
    char                  *dir;
    char                  *config_path;
    char                   config_shown[MOE_SHOW_PATH_MAX + 4];
    char                   index_shown[MOE_SHOW_PATH_MAX + 4];
    struct json_object    *config, *generation;
    struct file           *files;
    size_t                 n_files, cap_files;
    struct moe_tensor_list list;
    uint32_t              *hash; /* tensor + 1; 0: free */
    size_t                 hash_mask;
    struct moe_schemes    *schemes; /* NULL: no quantization_config */
    int32_t               *group;   /* (list.n); of the element planes */
    struct moe_made       *made;    /* owns names and bytes; NULL: files */
};

static moe_status
no_memory(const char *dir, struct moe_error *err)
{
    char shown[MOE_SHOW_PATH_MAX + 4];

    return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                    "%s: no memory for the list of tensors",
                    moe_show_path(dir, shown));
}

/* DIR/NAME, or NULL. */
static char *
join(const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    char  *path = malloc(n + m + 2);

    if (path == NULL)
        return NULL;
    memcpy(path, dir, n);
    if (n == 0 || dir[n - 1] != '/')
        path[n++] = '/';
    memcpy(path + n, name, m + 1);
    return path;
}

/* ----------------------------------------------------------------- hash -- */

static uint64_t
hash_name(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    for (; *s != '\0'; s++)
        h = (h ^ (unsigned char) *s) * 0x100000001b3u;
    return h ^ h >> 29;
}

const struct moe_tensor_info *
moe_checkpoint_find(const struct moe_checkpoint *c, const char *name)
{
    size_t i;

    for (i = hash_name(name) & c->hash_mask; c->hash[i] != 0;
         i = (i + 1) & c->hash_mask) {
        const struct moe_tensor_info *t = &c->list.at[c->hash[i] - 1];

        if (strcmp(t->name, name) == 0)
            return t;
    }
    return NULL;
}

static moe_status
build_hash(struct moe_checkpoint *c, struct moe_error *err)
{
    char   show[MOE_SHOW_MAX + 4];
    size_t size = 16, i, j;

    if (c->list.n > UINT32_MAX / 4)
        return no_memory(c->dir, err);
    while (size < 2 * c->list.n)
        size *= 2;
    c->hash = calloc(size, sizeof(*c->hash));
    if (c->hash == NULL)
        return no_memory(c->dir, err);
    c->hash_mask = size - 1;
    for (i = 0; i < c->list.n; i++) {
        const struct moe_tensor_info *t = &c->list.at[i], *u;

        for (j = hash_name(t->name) & c->hash_mask; c->hash[j] != 0;
             j = (j + 1) & c->hash_mask) {
            u = &c->list.at[c->hash[j] - 1];
            if (strcmp(u->name, t->name) != 0)
                continue;
            if (u->file == t->file)
                return moe_fail(err, MOE_E_CORRUPT, 0,
                                "%s: tensor \"%s\" is there twice",
                                c->files[t->file].shown,
                                moe_show(t->name, show));
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: tensor \"%s\" is in %s too",
                            c->files[t->file].shown, moe_show(t->name, show),
                            c->files[u->file].shown);
        }
        c->hash[j] = (uint32_t) i + 1;
    }
    return MOE_OK;
}

/* ---------------------------------------------------------------- files -- */

/* Opens DIR/NAME and reads its header. */
static moe_status
open_file(struct moe_checkpoint *c, const char *name, struct moe_error *err)
{
    struct file *f;
    struct stat  st;

    if (c->n_files == c->cap_files) {
        size_t cap = c->cap_files == 0 ? 8 : 2 * c->cap_files;

        f = realloc(c->files, cap * sizeof(*f));
        if (f == NULL)
            return no_memory(c->dir, err);
        c->files = f;
        c->cap_files = cap;
    }
    f = &c->files[c->n_files];
    memset(f, 0, sizeof(*f));
    f->path = join(c->dir, name);
    if (f->path == NULL)
        return no_memory(c->dir, err);
    moe_show_path(f->path, f->shown);
    /* O_NONBLOCK: a FIFO in the folder must not hang us */
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    c->n_files++; /* close releases what is there */
    if (f->fd < 0 && errno == ENOENT)
        return moe_fail(err, MOE_E_NOT_FOUND, errno,
                        "%s: missing, but named by the index: fetch it",
                        f->shown);
    if (f->fd < 0)
        return moe_fail(err, MOE_E_IO, errno, "%s: cannot open: %s", f->shown,
                        strerror(errno));
    if (fstat(f->fd, &st) != 0)
        return moe_fail(err, MOE_E_IO, errno, "%s: %s", f->shown,
                        strerror(errno));
    if (!S_ISREG(st.st_mode))
        return moe_fail(err, MOE_E_IO, 0, "%s: not a regular file", f->shown);
    f->bytes = (uint64_t) st.st_size;
    return moe_safetensors_read(f->fd, f->bytes, f->shown,
                                (uint32_t) (c->n_files - 1), &c->list, err);
}

/* A shard is a file of this folder: no way out of it. */
static int
is_plain_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL
           && strcmp(name, ".") != 0 && strcmp(name, "..") != 0
           && strlen(name) < 256;
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* The distinct shard names of a weight_map, sorted; the caller frees the
 * list, the strings are the document's. */
static moe_status
shard_names(struct json_object *map, const char *shown, const char ***out,
            size_t *n_out, struct moe_error *err)
{
    char         show[MOE_SHOW_MAX + 4], name_show[MOE_SHOW_MAX + 4];
    size_t       n = (size_t) json_object_object_length(map), i = 0, j = 0;
    const char **names = malloc((n + 1) * sizeof(*names));

    if (names == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "%s: no memory", shown);
    {
        json_object_object_foreach(map, tensor, v)
        {
            const char *s;

            if (!json_object_is_type(v, json_type_string)) {
                free(names);
                return moe_fail(err, MOE_E_CORRUPT, 0,
                                "%s: \"weight_map.%s\": a file name expected",
                                shown, moe_show(tensor, show));
            }
            s = json_object_get_string(v);
            if (strlen(s) != (size_t) json_object_get_string_len(v)
                || !is_plain_name(s)) {
                moe_fail(err, MOE_E_CORRUPT, 0,
                         "%s: \"weight_map.%s\": \"%s\" is no file name of "
                         "this folder", shown, moe_show(tensor, show),
                         moe_show(s, name_show));
                free(names);
                return MOE_E_CORRUPT;
            }
            names[i++] = s;
        }
    }
    if (n > 1)
        qsort(names, n, sizeof(*names), by_name);
    for (i = 0; i < n; i++)
        if (j == 0 || strcmp(names[j - 1], names[i]) != 0)
            names[j++] = names[i];
    *out = names;
    *n_out = j;
    return MOE_OK;
}

/* Every tensor of the index lies in the shard that it names. */
static moe_status
check_map(const struct moe_checkpoint *c, struct json_object *map,
          const char *shown, struct moe_error *err)
{
    char show[MOE_SHOW_MAX + 4];

    json_object_object_foreach(map, name, v)
    {
        const struct moe_tensor_info *t = moe_checkpoint_find(c, name);
        const char                   *shard = json_object_get_string(v);
        const char                   *path, *base;
        char                          shard_show[MOE_SHOW_MAX + 4];

        moe_show(shard, shard_show);
        if (t == NULL)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: tensor \"%s\" should be in %s, but is not",
                            shown, moe_show(name, show), shard_show);
        path = c->files[t->file].path;
        base = strrchr(path, '/');
        base = base != NULL ? base + 1 : path;
        if (strcmp(base, shard) != 0)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: tensor \"%s\" should be in %s, but is in "
                            "%.100s", shown, moe_show(name, show), shard_show,
                            base);
    }
    return MOE_OK;
}

static moe_status
open_shards(struct moe_checkpoint *c, const char *index,
            struct moe_error *err)
{
    char                shown[MOE_SHOW_PATH_MAX + 4];
    struct json_object *doc = NULL, *map;
    struct moe_json     j = { NULL, shown, "" };
    const char        **names = NULL;
    size_t              n = 0, i;
    moe_status          status;

    moe_show_path(index, shown);
    status = moe_json_file(index, INDEX_MAX, &doc, err);
    if (status != MOE_OK)
        return status;
    j.obj = doc;
    status = moe_json_object_or(&j, "weight_map", &map, err);
    if (status == MOE_OK && map == NULL)
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: \"weight_map\" is missing", shown);
    if (status == MOE_OK)
        status = shard_names(map, shown, &names, &n, err);
    if (status == MOE_OK && n > SHARDS_MAX)
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: %zu shards, at most %u are read", shown, n,
                          SHARDS_MAX);
    for (i = 0; i < n && status == MOE_OK; i++)
        status = open_file(c, names[i], err);
    if (status == MOE_OK)
        status = build_hash(c, err);
    if (status == MOE_OK)
        status = check_map(c, map, shown, err);
    free(names);
    json_object_put(doc);
    return status;
}

/* ----------------------------------------------------------------- open -- */

static int
ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

/* What the folder holds instead of what we read, as a remedy; "" if we see
 * nothing that we know. */
static const char *
hint(const char *dir)
{
    int            gguf = 0, torch = 0, loose = 0, spm = 0;
    DIR           *d = opendir(dir);
    struct dirent *e;

    if (d == NULL)
        return "";
    while ((e = readdir(d)) != NULL) {
        const char *s = e->d_name;

        gguf |= ends_with(s, ".gguf");
        torch |= (strncmp(s, "pytorch_model", 13) == 0
                  && ends_with(s, ".bin"))
                 || ends_with(s, ".pth") || ends_with(s, ".pt");
        loose |= ends_with(s, ".safetensors");
        spm |= strcmp(s, "tokenizer.model") == 0;
    }
    closedir(d);
    if (gguf)
        return "; there are GGUF files, which are not read";
    if (loose)
        return "; there are other *.safetensors: their index is missing";
    if (torch)
        return "; there are PyTorch pickles: save the model as safetensors";
    if (spm)
        return "; there is only a tokenizer: fetch the weights as well";
    return "";
}

static int
exists(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 || errno != ENOENT;
}

static moe_status
read_config(struct moe_checkpoint *c, struct moe_error *err)
{
    char       shown[MOE_SHOW_PATH_MAX + 4];
    char      *path;
    moe_status status;

    c->config_path = join(c->dir, "config.json");
    if (c->config_path == NULL)
        return no_memory(c->dir, err);
    moe_show_path(c->config_path, c->config_shown);
    if (!exists(c->config_path))
        return moe_fail(err, MOE_E_NOT_FOUND, ENOENT,
                        "%s: no config.json: not a checkpoint folder%s",
                        moe_show_path(c->dir, shown), hint(c->dir));
    status = moe_json_file(c->config_path, CONFIG_MAX, &c->config, err);
    if (status != MOE_OK)
        return status;

    path = join(c->dir, "generation_config.json");
    if (path == NULL)
        return no_memory(c->dir, err);
    if (exists(path))
        status = moe_json_file(path, CONFIG_MAX, &c->generation, err);
    free(path);
    return status;
}

static moe_status
read_tensors(struct moe_checkpoint *c, struct moe_error *err)
{
    char       shown[MOE_SHOW_PATH_MAX + 4];
    char      *single = join(c->dir, "model.safetensors");
    char      *index = join(c->dir, "model.safetensors.index.json");
    moe_status status;

    if (single == NULL || index == NULL) {
        status = no_memory(c->dir, err);
    } else if (exists(single)) {
        moe_show_path(single, c->index_shown);
        status = open_file(c, "model.safetensors", err);
        if (status == MOE_OK)
            status = build_hash(c, err);
    } else if (exists(index)) {
        moe_show_path(index, c->index_shown);
        status = open_shards(c, index, err);
    } else {
        status = moe_fail(err, MOE_E_NOT_FOUND, ENOENT,
                          "%s: no model.safetensors and no "
                          "model.safetensors.index.json%s",
                          moe_show_path(c->dir, shown), hint(c->dir));
    }
    free(single);
    free(index);
    if (status == MOE_OK && c->list.n == 0)
        status = moe_fail(err, MOE_E_CORRUPT, 0, "%s: no tensors in it",
                          c->index_shown);
    return status;
}

/* A float of a kind that is used as it is. */
static int
is_plain(const char *dtype)
{
    return strcmp(dtype, "BF16") == 0 || strcmp(dtype, "F16") == 0
           || strcmp(dtype, "F32") == 0 || strcmp(dtype, "F64") == 0;
}

/* Which group covers each module that is stored quantized. */
static moe_status
resolve_groups(struct moe_checkpoint *c, struct moe_error *err)
{
    struct moe_json j = { c->config, c->config_shown, "" };
    char            module[1025];
    moe_status      status;
    size_t          i;

    status = moe_schemes_parse(&j, &c->schemes, err);
    if (status != MOE_OK || c->schemes == NULL)
        return status;
    c->group = malloc(c->list.n * sizeof(*c->group));
    if (c->group == NULL)
        return no_memory(c->dir, err);
    for (i = 0; i < c->list.n; i++) {
        const struct moe_tensor_info *t = &c->list.at[i];
        size_t                        len = strlen(t->name);

        c->group[i] = GROUP_UNREAD;
        if (ends_with(t->name, ".weight_packed"))
            len -= strlen(".weight_packed");
        else if (ends_with(t->name, ".weight") && !is_plain(t->dtype))
            len -= strlen(".weight");
        else
            continue;
        if (len >= sizeof(module) || len == 0)
            continue;
        memcpy(module, t->name, len);
        module[len] = '\0';
        status = moe_schemes_match(c->schemes, module, &c->group[i], err);
        if (status != MOE_OK)
            return status;
    }
    return MOE_OK;
}

moe_status
moe_checkpoint_open(const char *dir, struct moe_checkpoint **out,
                    struct moe_error *err)
{
    char                   shown[MOE_SHOW_PATH_MAX + 4];
    struct moe_checkpoint *c;
    struct stat            st;
    moe_status             status;

    if (stat(dir, &st) != 0)
        return moe_fail(err, errno == ENOENT || errno == ENOTDIR
                                 ? MOE_E_NOT_FOUND
                                 : MOE_E_IO,
                        errno, "%s: no such checkpoint folder: %s",
                        moe_show_path(dir, shown), strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: a file; give the folder with config.json and "
                        "model.safetensors%s", moe_show_path(dir, shown),
                        ends_with(dir, ".gguf") ? " (GGUF is not read)" : "");
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return no_memory(dir, err);
    c->dir = strdup(dir);
    if (c->dir == NULL)
        status = no_memory(dir, err);
    else
        status = read_config(c, err);
    if (status == MOE_OK)
        status = read_tensors(c, err);
    if (status == MOE_OK)
        status = resolve_groups(c, err);
    if (status != MOE_OK) {
        moe_checkpoint_close(c);
        return status;
    }
    *out = c;
    return MOE_OK;
}

moe_status
moe_checkpoint_made(struct moe_made *m, struct moe_checkpoint **out,
                    struct moe_error *err)
{
    const struct moe_tensor_info *list;
    struct moe_checkpoint        *c = calloc(1, sizeof(*c));
    const char                   *label = moe_made_label(m);
    moe_status                    status = MOE_OK;
    size_t                        n;

    if (c == NULL) {
        moe_made_free(m);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "checkpoint: no memory");
    }
    c->made = m;
    list = moe_made_list(m, &n);
    c->config = moe_made_config(m);
    c->dir = strdup(label);
    c->list.at = malloc((n + 1) * sizeof(*c->list.at));
    c->files = calloc(1, sizeof(*c->files));
    if (c->dir == NULL || c->list.at == NULL || c->files == NULL) {
        status = no_memory(label, err);
        goto fail;
    }
    moe_show_path(label, c->config_shown);
    moe_show_path(label, c->index_shown);
    c->files[0].fd = -1;
    c->files[0].path = strdup(label);
    moe_show_path(label, c->files[0].shown);
    c->n_files = 1;
    memcpy(c->list.at, list, n * sizeof(*list));
    c->list.n = n;
    if (n > 0)
        c->files[0].bytes = list[n - 1].offset + list[n - 1].bytes;
    status = c->files[0].path == NULL ? no_memory(label, err)
                                      : build_hash(c, err);
    if (status != MOE_OK)
        goto fail;
    *out = c;
    return MOE_OK;

fail:
    moe_checkpoint_close(c);
    return status;
}

void
moe_checkpoint_close(struct moe_checkpoint *c)
{
    size_t i;

    if (c == NULL)
        return;
    for (i = 0; i < c->n_files; i++) {
        if (c->files[i].fd >= 0)
            close(c->files[i].fd);
        free(c->files[i].path);
    }
    free(c->files);
    moe_tensor_list_free(&c->list);
    moe_made_free(c->made);
    free(c->hash);
    free(c->group);
    moe_schemes_free(c->schemes);
    json_object_put(c->config);
    json_object_put(c->generation);
    free(c->config_path);
    free(c->dir);
    free(c);
}

/* --------------------------------------------------------------- access -- */

const char *
moe_checkpoint_dir(const struct moe_checkpoint *c)
{
    return c->dir;
}

struct json_object *
moe_checkpoint_config(const struct moe_checkpoint *c)
{
    return c->config;
}

struct json_object *
moe_checkpoint_generation(const struct moe_checkpoint *c)
{
    return c->generation;
}

const char *
moe_checkpoint_config_name(const struct moe_checkpoint *c)
{
    return c->config_shown;
}

size_t
moe_checkpoint_count(const struct moe_checkpoint *c)
{
    return c->list.n;
}

const struct moe_tensor_info *
moe_checkpoint_at(const struct moe_checkpoint *c, size_t i)
{
    return i < c->list.n ? &c->list.at[i] : NULL;
}

size_t
moe_checkpoint_files(const struct moe_checkpoint *c)
{
    return c->n_files;
}

const char *
moe_checkpoint_file(const struct moe_checkpoint *c, size_t i)
{
    return i < c->n_files ? c->files[i].path : NULL;
}

const char *
moe_checkpoint_file_name(const struct moe_checkpoint *c, size_t i)
{
    return i < c->n_files ? c->files[i].shown : "";
}

const char *
moe_checkpoint_index_name(const struct moe_checkpoint *c)
{
    return c->index_shown;
}

uint64_t
moe_checkpoint_file_bytes(const struct moe_checkpoint *c, size_t i)
{
    return i < c->n_files ? c->files[i].bytes : 0;
}

/* Hot: one system call. */
moe_status
moe_checkpoint_read(const struct moe_checkpoint *c,
                    const struct moe_tensor_info *t, uint64_t from,
                    uint64_t bytes, void *dst, struct moe_error *err)
{
    const struct file *f = &c->files[t->file];
    char               show[MOE_SHOW_MAX + 4];

    if (from > t->bytes || bytes > t->bytes - from)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: tensor \"%s\": bytes %llu + %llu of %llu asked "
                        "for", f->shown, moe_show(t->name, show),
                        (unsigned long long) from, (unsigned long long) bytes,
                        (unsigned long long) t->bytes);
    if (c->made != NULL) {
        moe_made_read(c->made, (size_t) (t - c->list.at), from, bytes, dst);
        return MOE_OK;
    }
    return moe_file_read(f->fd, f->shown, t->offset + from, bytes, dst, err);
}

/* Advice: where the system does not take it, the read does the work. */
static void
advise(const struct moe_checkpoint *c, size_t i, uint64_t from,
       uint64_t bytes, int advice)
{
    if (c->made == NULL && i < c->n_files && bytes != 0)
        (void) posix_fadvise(c->files[i].fd, (off_t) from, (off_t) bytes,
                             advice);
}

/* Hot: one system call. */
void
moe_checkpoint_want(const struct moe_checkpoint  *c,
                    const struct moe_tensor_info *t, uint64_t from,
                    uint64_t bytes)
{
    advise(c, t->file, t->offset + from, bytes, POSIX_FADV_WILLNEED);
}

void
moe_checkpoint_drop(const struct moe_checkpoint *c, size_t i, uint64_t from,
                    uint64_t bytes)
{
    advise(c, i, from, bytes, POSIX_FADV_DONTNEED);
}

moe_status
moe_checkpoint_scheme(const struct moe_checkpoint *c, const char *module,
                      struct moe_scheme *scheme, struct moe_error *err)
{
    static const char *const     suffix[] = { ".weight", ".weight_packed" };
    const struct moe_tensor_info *t = NULL;
    char                          name[1100], show[MOE_SHOW_MAX + 4];
    size_t                        n = strlen(module), i;

    if (n > 1024)
        return moe_fail(err, MOE_E_INVAL, 0, "%s: the module name is too long",
                        moe_show(module, show));
    memcpy(name, module, n);
    for (i = 0; i < 2 && t == NULL; i++) {
        strcpy(name + n, suffix[i]);
        t = moe_checkpoint_find(c, name);
    }
    if (t == NULL) {
        if (c->schemes != NULL && moe_schemes_unsupported(c->schemes) != NULL)
            return moe_schemes_get(c->schemes, MOE_SCHEME_NONE, module, "",
                                   scheme, err);
        return moe_fail(err, MOE_E_NOT_FOUND, 0,
                        "%s: tensor \"%s.weight\" is missing",
                        c->index_shown, moe_show(module, show));
    }
    if (i == 1 && is_plain(t->dtype)) {
        memset(scheme, 0, sizeof(*scheme));
        scheme->struct_size = sizeof(*scheme);
        scheme->elem = t->dtype;
        return MOE_OK;
    }
    if (c->made != NULL
        && moe_made_scheme(c->made, (size_t) (t - c->list.at)) != NULL) {
        *scheme = *moe_made_scheme(c->made, (size_t) (t - c->list.at));
        return MOE_OK;
    }
    if (c->schemes == NULL)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\" is %s, but there is no "
                        "quantization_config that says what it means",
                        c->config_shown, moe_show(t->name, show), t->dtype);
    return moe_schemes_get(c->schemes, c->group[t - c->list.at], module,
                           t->dtype, scheme, err);
}
