/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writer.c - a checkpoint's safetensors, written in a stream.
 *
 * Owns the layout of the files.  Tensors lie in the order in which they were
 * announced, so that the planes of a matrix, and the matrices of an expert,
 * can be read in one go.  The format has no padding between tensors: if that
 * order would leave one misaligned, the shard is laid out by falling element
 * size instead, as the reference library always does.
 */

#include <checkpoint/writer.h>

#include <checkpoint/json.h>
#include <checkpoint/safetensors.h>
#include <support/str.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct entry {
    char       *name;
    const char *dtype;
    uint64_t    dim[MOE_TENSOR_DIMS];
    uint64_t    bytes, offset, put; /* offset: of the shard's data */
    uint32_t    n_dims, shard;
    uint32_t    bits;
    uint32_t    together;
};

struct shard {
    int      fd;
    char    *path;
    char     shown[MOE_SHOW_PATH_MAX + 4];
    size_t  *order; /* entries by offset */
    size_t   n;
    uint64_t data, start; /* bytes of data; where it begins in the file */
    struct moe_str header;
};

struct moe_writer {
    struct entry *entries;
    size_t        n, cap;
    struct shard *shards;
    uint32_t      n_shards;
    uint64_t      shard_bytes;
    char         *dir;
};

static moe_status
no_memory(struct moe_error *err)
{
    return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                    "no memory for the list of tensors to write");
}

moe_status
moe_writer_open(uint64_t shard_bytes, struct moe_writer **out,
                struct moe_error *err)
{
    struct moe_writer *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return no_memory(err);
    w->shard_bytes = shard_bytes;
    *out = w;
    return MOE_OK;
}

static void
drop_shards(struct moe_writer *w)
{
    uint32_t i;

    for (i = 0; i < w->n_shards; i++) {
        if (w->shards[i].fd >= 0)
            close(w->shards[i].fd);
        free(w->shards[i].path);
        free(w->shards[i].order);
        moe_str_free(&w->shards[i].header);
    }
    free(w->shards);
    w->shards = NULL;
    w->n_shards = 0;
}

void
moe_writer_close(struct moe_writer *w)
{
    size_t i;

    if (w == NULL)
        return;
    drop_shards(w);
    for (i = 0; i < w->n; i++)
        free(w->entries[i].name);
    free(w->entries);
    free(w->dir);
    free(w);
}

moe_status
moe_writer_add(struct moe_writer *w, const char *name, const char *dtype,
               uint32_t n_dims, const uint64_t *dim, int together,
               size_t *index, struct moe_error *err)
{
    char          show[MOE_SHOW_MAX + 4];
    struct entry *e;
    uint32_t      i;

    if (w->n == w->cap) {
        size_t cap = w->cap == 0 ? 256 : 2 * w->cap;

        e = realloc(w->entries, cap * sizeof(*e));
        if (e == NULL)
            return no_memory(err);
        w->entries = e;
        w->cap = cap;
    }
    e = &w->entries[w->n];
    memset(e, 0, sizeof(*e));
    e->dtype = moe_safetensors_dtype(dtype, strlen(dtype));
    if (e->dtype == NULL || n_dims > MOE_TENSOR_DIMS
        || moe_safetensors_size(dtype, dim, n_dims, &e->bytes) != 0)
        return moe_fail(err, MOE_E_INTERNAL, 0,
                        "tensor \"%s\": %s of %u dimensions cannot be "
                        "written", moe_show(name, show), dtype, n_dims);
    e->bits = moe_safetensors_bits(dtype);
    e->n_dims = n_dims;
    for (i = 0; i < n_dims; i++)
        e->dim[i] = dim[i];
    e->together = together != 0;
    e->name = strdup(name);
    if (e->name == NULL)
        return no_memory(err);
    *index = w->n++;
    return MOE_OK;
}

/* --------------------------------------------------------------- layout -- */

/* Offsets in the order of s->order; 0 if all are aligned. */
static int
place(struct moe_writer *w, struct shard *s)
{
    uint64_t at = 0;
    size_t   i;
    int      bad = 0;

    for (i = 0; i < s->n; i++) {
        struct entry *e = &w->entries[s->order[i]];

        e->offset = at;
        if (e->bits > 8 && at % (e->bits / 8) != 0)
            bad = 1;
        at += e->bytes;
    }
    s->data = at;
    return bad;
}

/* Entries by falling element size, otherwise as they were: a stable sort
 * over the few sizes that there are. */
static void
order_by_size(const struct moe_writer *w, struct shard *s, size_t first)
{
    static const uint32_t bits[] = { 64, 32, 16, 8, 6, 4 };
    size_t                i, j, n = 0;

    for (i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        for (j = first; j < first + s->n; j++)
            if (w->entries[j].bits == bits[i])
                s->order[n++] = j;
}

static void
header_text(const struct moe_writer *w, struct shard *s)
{
    struct moe_str *h = &s->header;
    size_t          i;
    uint32_t        d;

    moe_str_addf(h, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (i = 0; i < s->n; i++) {
        const struct entry *e = &w->entries[s->order[i]];

        moe_str_add(h, ",", 1);
        moe_str_add_json(h, e->name, strlen(e->name));
        moe_str_addf(h, ":{\"dtype\":\"%s\",\"shape\":[", e->dtype);
        for (d = 0; d < e->n_dims; d++)
            moe_str_addf(h, "%s%llu", d > 0 ? "," : "",
                         (unsigned long long) e->dim[d]);
        moe_str_addf(h, "],\"data_offsets\":[%llu,%llu]}",
                     (unsigned long long) e->offset,
                     (unsigned long long) (e->offset + e->bytes));
    }
    moe_str_add(h, "}", 1);
    while (!h->failed && h->len % 8 != 0)
        moe_str_add(h, " ", 1);
    s->start = 8 + h->len;
}

moe_status
moe_writer_plan(struct moe_writer *w, uint64_t *bytes, struct moe_error *err)
{
    uint64_t in_shard = 0, total = 0;
    uint32_t shard = 0;
    size_t   i, first = 0;

    drop_shards(w);
    for (i = 0; i < w->n; i++) {
        struct entry *e = &w->entries[i];
        uint64_t      run = e->bytes;
        size_t        j;

        /* a run that belongs together moves as one */
        if (!e->together)
            for (j = i + 1; j < w->n && w->entries[j].together; j++)
                run += w->entries[j].bytes;
        if (!e->together && in_shard > 0
            && in_shard + run > w->shard_bytes) {
            shard++;
            in_shard = 0;
        }
        e->shard = shard;
        in_shard += e->bytes;
    }
    w->shards = calloc((size_t) shard + 1, sizeof(*w->shards));
    if (w->shards == NULL)
        return no_memory(err);
    w->n_shards = shard + 1;
    for (shard = 0; shard < w->n_shards; shard++)
        w->shards[shard].fd = -1;
    for (shard = 0; shard < w->n_shards; shard++, first += i) {
        struct shard *s = &w->shards[shard];

        for (i = 0; first + i < w->n && w->entries[first + i].shard == shard;
             i++)
            ;
        s->n = i;
        s->order = malloc((i + 1) * sizeof(*s->order));
        if (s->order == NULL)
            return no_memory(err);
        for (i = 0; i < s->n; i++)
            s->order[i] = first + i;
        if (place(w, s)) {
            order_by_size(w, s, first);
            place(w, s);
        }
        header_text(w, s);
        if (s->header.failed)
            return no_memory(err);
        if (s->header.len > MOE_SAFETENSORS_HEADER_MAX)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "%zu tensors give a header of %zu bytes, at most "
                            "%u can be written", s->n, s->header.len,
                            MOE_SAFETENSORS_HEADER_MAX);
        total += s->start + s->data;
    }
    *bytes = total;
    return MOE_OK;
}

/* --------------------------------------------------------------- output -- */

static moe_status
write_all(int fd, const char *shown, uint64_t offset, uint64_t len,
          const void *src, struct moe_error *err)
{
    const char *p = src;
    uint64_t    done = 0;

    while (done < len) {
        uint64_t want = len - done > 0x40000000u ? 0x40000000u : len - done;
        ssize_t  r = pwrite(fd, p + done, (size_t) want,
                            (off_t) (offset + done));

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return moe_fail(err, MOE_E_IO, r < 0 ? errno : ENOSPC,
                            "%s: write error at byte %llu: %s", shown,
                            (unsigned long long) (offset + done),
                            strerror(r < 0 ? errno : ENOSPC));
        done += (uint64_t) r;
    }
    return MOE_OK;
}

static moe_status
create_file(const char *path, const char *shown, int *fd,
            struct moe_error *err)
{
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (*fd < 0)
        return moe_fail(err, MOE_E_IO, errno, "%s: cannot create: %s", shown,
                        strerror(errno));
    return MOE_OK;
}

moe_status
moe_file_write(const char *path, const void *text, size_t len,
               struct moe_error *err)
{
    char       shown[MOE_SHOW_PATH_MAX + 4];
    int        fd;
    moe_status status;

    moe_show_path(path, shown);
    status = create_file(path, shown, &fd, err);
    if (status != MOE_OK)
        return status;
    status = write_all(fd, shown, 0, len, text, err);
    if (status == MOE_OK && fsync(fd) != 0)
        status = moe_fail(err, MOE_E_IO, errno, "%s: %s", shown,
                          strerror(errno));
    if (close(fd) != 0 && status == MOE_OK)
        status = moe_fail(err, MOE_E_IO, errno, "%s: %s", shown,
                          strerror(errno));
    return status;
}

static void
shard_name(const struct moe_writer *w, uint32_t i, char *buf, size_t size)
{
    if (w->n_shards == 1)
        snprintf(buf, size, "model.safetensors");
    else
        snprintf(buf, size, "model-%05u-of-%05u.safetensors", i + 1,
                 w->n_shards);
}

moe_status
moe_writer_begin(struct moe_writer *w, const char *dir, struct moe_error *err)
{
    char       name[64];
    uint32_t   i;
    int        b;
    moe_status status;

    w->dir = strdup(dir);
    if (w->dir == NULL)
        return no_memory(err);
    for (i = 0; i < w->n_shards; i++) {
        struct shard *s = &w->shards[i];
        unsigned char head[8];

        shard_name(w, i, name, sizeof(name));
        s->path = malloc(strlen(dir) + strlen(name) + 2);
        if (s->path == NULL)
            return no_memory(err);
        sprintf(s->path, "%s/%s", dir, name);
        moe_show_path(s->path, s->shown);
        status = create_file(s->path, s->shown, &s->fd, err);
        if (status != MOE_OK)
            return status;
        /* ask for the space now rather than find it missing in an hour */
        if (fallocate(s->fd, 0, 0, (off_t) (s->start + s->data)) != 0
            && (errno == ENOSPC || errno == EFBIG || errno == EDQUOT))
            return moe_fail(err, MOE_E_IO, errno,
                            "%s: no room for %llu bytes: %s", s->shown,
                            (unsigned long long) (s->start + s->data),
                            strerror(errno));
        for (b = 0; b < 8; b++)
            head[b] = (unsigned char) ((uint64_t) s->header.len >> 8 * b);
        status = write_all(s->fd, s->shown, 0, sizeof(head), head, err);
        if (status == MOE_OK)
            status = write_all(s->fd, s->shown, sizeof(head), s->header.len,
                               s->header.text, err);
        if (status != MOE_OK)
            return status;
        moe_str_free(&s->header);
    }
    return MOE_OK;
}

moe_status
moe_writer_put(struct moe_writer *w, size_t index, uint64_t from,
               uint64_t bytes, const void *src, struct moe_error *err)
{
    struct entry *e = &w->entries[index];
    struct shard *s = &w->shards[e->shard];
    moe_status    status;

    if (from > e->bytes || bytes > e->bytes - from)
        return moe_fail(err, MOE_E_INTERNAL, 0,
                        "%s: tensor \"%s\": bytes past its end", s->shown,
                        e->name);
    status = write_all(s->fd, s->shown, s->start + e->offset + from, bytes,
                       src, err);
    if (status == MOE_OK)
        e->put += bytes;
    return status;
}

static moe_status
write_index(const struct moe_writer *w, struct moe_error *err)
{
    struct moe_str s = { 0 };
    char           name[64], *path;
    uint64_t       total = 0;
    size_t         i;
    moe_status     status;

    for (i = 0; i < w->n; i++)
        total += w->entries[i].bytes;
    moe_str_addf(&s, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n"
                     "  \"weight_map\": {",
                 (unsigned long long) total);
    for (i = 0; i < w->n; i++) {
        shard_name(w, w->entries[i].shard, name, sizeof(name));
        moe_str_addf(&s, "%s\n    ", i > 0 ? "," : "");
        moe_str_add_json(&s, w->entries[i].name, strlen(w->entries[i].name));
        moe_str_addf(&s, ": \"%s\"", name);
    }
    moe_str_addf(&s, "\n  }\n}\n");
    path = malloc(strlen(w->dir) + 64);
    if (path == NULL || s.failed) {
        status = no_memory(err);
    } else {
        sprintf(path, "%s/model.safetensors.index.json", w->dir);
        status = moe_file_write(path, s.text, s.len, err);
    }
    free(path);
    moe_str_free(&s);
    return status;
}

moe_status
moe_writer_finish(struct moe_writer *w, struct moe_error *err)
{
    uint32_t i;
    size_t   j;

    for (j = 0; j < w->n; j++)
        if (w->entries[j].put != w->entries[j].bytes)
            return moe_fail(err, MOE_E_INTERNAL, 0,
                            "tensor \"%s\": %llu of %llu bytes were written",
                            w->entries[j].name,
                            (unsigned long long) w->entries[j].put,
                            (unsigned long long) w->entries[j].bytes);
    for (i = 0; i < w->n_shards; i++) {
        struct shard *s = &w->shards[i];
        int           fd = s->fd, bad = fsync(fd) != 0, why = errno;

        s->fd = -1;
        if (close(fd) != 0 && !bad) {
            bad = 1;
            why = errno;
        }
        if (bad)
            return moe_fail(err, MOE_E_IO, why, "%s: %s", s->shown,
                            strerror(why));
    }
    return w->n_shards > 1 ? write_index(w, err) : MOE_OK;
}
