/* SPDX-License-Identifier: Apache-2.0 */
/* What the writer writes is what the reader reads: layout, shards, errors. */
#include "checkpoint/writer.h"

#include "folder.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

static struct moe_error err;

static size_t
add(struct moe_writer *w, const char *name, const char *dtype, uint64_t n,
    uint64_t k, int together)
{
    uint64_t dim[2] = { n, k };
    size_t   index = 0;

    if (moe_writer_add(w, name, dtype, 2, dim, together, &index, &err)
        != MOE_OK)
        printf("# %s\n", err.text);
    return index;
}

static void
fill(struct moe_writer *w, size_t index, size_t bytes, unsigned char first)
{
    unsigned char buf[256];
    size_t        i;

    for (i = 0; i < bytes; i++)
        buf[i] = (unsigned char) (first + i);
    /* in two pieces, the second first */
    is_int(moe_writer_put(w, index, bytes / 2, bytes - bytes / 2,
                          buf + bytes / 2, &err), MOE_OK, "put");
    is_int(moe_writer_put(w, index, 0, bytes / 2, buf, &err), MOE_OK, "put");
}

static void
holds(const struct moe_checkpoint *c, const char *name, size_t bytes,
      unsigned char first)
{
    const struct moe_tensor_info *t = moe_checkpoint_find(c, name);
    unsigned char                 buf[256];
    size_t                        i, wrong = 0;

    if (!ok(t != NULL && t->bytes == bytes, "%s has %zu bytes", name, bytes))
        return;
    is_int(moe_checkpoint_read(c, t, 0, bytes, buf, &err), MOE_OK, "read");
    for (i = 0; i < bytes; i++)
        wrong += buf[i] != (unsigned char) (first + i);
    is_int(wrong, 0, "%s: its bytes", name);
}

static void
one_file(void)
{
    const char            *dir = new_dir();
    struct moe_writer     *w = NULL;
    struct moe_checkpoint *c = NULL;
    struct stat            st;
    uint64_t               bytes = 0;
    size_t                 a, b, e;

    is_int(moe_writer_open(MOE_WRITER_SHARD, &w, &err), MOE_OK, "open");
    a = add(w, "a \"quoted\"", "BF16", 3, 4, 0);
    b = add(w, "b", "F32", 2, 1, 0);
    e = add(w, "empty", "F32", 0, 3, 0);
    is_int(moe_writer_plan(w, &bytes, &err), MOE_OK, "plan");
    is_int(moe_writer_begin(w, dir, &err), MOE_OK, "begin");
    fill(w, a, 24, 1);
    fill(w, b, 8, 99);
    (void) e;
    is_int(moe_writer_put(w, b, 8, 1, "", &err), MOE_E_INTERNAL,
           "not past the end");
    is_int(moe_writer_finish(w, &err), MOE_OK, "finish");
    moe_writer_close(w);
    ok(stat(in_dir(dir, "model.safetensors"), &st) == 0
           && (uint64_t) st.st_size == bytes,
       "as large as planned");
    put_text(dir, "config.json", "{}");
    if (is_ok(moe_checkpoint_open(dir, &c, &err), &err)) {
        holds(c, "a \"quoted\"", 24, 1);
        holds(c, "b", 8, 99);
        is_str(moe_checkpoint_at(c, 0)->name, "a \"quoted\"",
               "in the order given");
        is_int(moe_checkpoint_at(c, 0)->offset % 8, 0, "data at 8 bytes");
        moe_checkpoint_close(c);
    }
    drop_dir(dir);
}

/* An order that would leave floats at odd bytes is changed. */
static void
alignment(void)
{
    const char            *dir = new_dir();
    struct moe_writer     *w = NULL;
    struct moe_checkpoint *c = NULL;
    uint64_t               bytes = 0;
    size_t                 i[4];

    is_int(moe_writer_open(MOE_WRITER_SHARD, &w, &err), MOE_OK, "open");
    i[0] = add(w, "u8", "U8", 3, 1, 0);
    i[1] = add(w, "f32", "F32", 1, 1, 0);
    i[2] = add(w, "bf16", "BF16", 3, 1, 0);
    i[3] = add(w, "i64", "I64", 2, 1, 0);
    is_int(moe_writer_plan(w, &bytes, &err), MOE_OK, "plan");
    is_int(moe_writer_begin(w, dir, &err), MOE_OK, "begin");
    fill(w, i[0], 3, 1);
    fill(w, i[1], 4, 11);
    fill(w, i[2], 6, 21);
    fill(w, i[3], 16, 31);
    is_int(moe_writer_finish(w, &err), MOE_OK, "finish");
    moe_writer_close(w);
    put_text(dir, "config.json", "{}");
    if (is_ok(moe_checkpoint_open(dir, &c, &err), &err)) {
        is_str(moe_checkpoint_at(c, 0)->name, "i64", "the widest first");
        holds(c, "u8", 3, 1);
        holds(c, "f32", 4, 11);
        holds(c, "bf16", 6, 21);
        holds(c, "i64", 16, 31);
        moe_checkpoint_close(c);
    }
    drop_dir(dir);
}

static void
shards(void)
{
    const char            *dir = new_dir();
    struct moe_writer     *w = NULL;
    struct moe_checkpoint *c = NULL;
    uint64_t               bytes = 0;
    size_t                 i[5];

    is_int(moe_writer_open(100, &w, &err), MOE_OK, "shards of 100 bytes");
    i[0] = add(w, "a", "U8", 60, 1, 0);
    i[1] = add(w, "b.shape", "I64", 2, 1, 0);
    i[2] = add(w, "b.packed", "U8", 40, 1, 1);
    i[3] = add(w, "c", "U8", 44, 1, 0);
    i[4] = add(w, "d", "U8", 200, 1, 0);
    is_int(moe_writer_plan(w, &bytes, &err), MOE_OK, "plan");
    is_int(moe_writer_begin(w, dir, &err), MOE_OK, "begin");
    fill(w, i[0], 60, 1);
    fill(w, i[1], 16, 61);
    fill(w, i[2], 40, 77);
    fill(w, i[3], 44, 117);
    fill(w, i[4], 200, 161);
    is_int(moe_writer_finish(w, &err), MOE_OK, "finish");
    moe_writer_close(w);
    put_text(dir, "config.json", "{}");
    if (is_ok(moe_checkpoint_open(dir, &c, &err), &err)) {
        is_int(moe_checkpoint_files(c), 3, "three files");
        has_str(moe_checkpoint_file(c, 0), "model-00001-of-00003.safetensors",
                "their names");
        ok(moe_checkpoint_find(c, "b.shape")->file
               == moe_checkpoint_find(c, "b.packed")->file,
           "what belongs together stays together");
        ok(moe_checkpoint_find(c, "c")->file
               == moe_checkpoint_find(c, "b.packed")->file,
           "as much as fits");
        holds(c, "a", 60, 1);
        holds(c, "b.packed", 40, 77);
        holds(c, "c", 44, 117);
        holds(c, "d", 200, 161);
        moe_checkpoint_close(c);
    }
    drop_dir(dir);
}

static void
mistakes(void)
{
    const char        *dir = new_dir();
    struct moe_writer *w = NULL;
    uint64_t           bytes = 0, dim[2] = { UINT64_MAX, 2 };
    size_t             i;

    is_int(moe_writer_open(100, &w, &err), MOE_OK, "open");
    is_int(moe_writer_add(w, "x", "F32", 2, dim, 0, &i, &err), MOE_E_INTERNAL,
           "a size that overflows");
    is_int(moe_writer_add(w, "x", "F33", 1, dim, 0, &i, &err), MOE_E_INTERNAL,
           "an unknown dtype");
    i = add(w, "half", "U8", 10, 1, 0);
    is_int(moe_writer_plan(w, &bytes, &err), MOE_OK, "plan");
    is_int(moe_writer_begin(w, dir, &err), MOE_OK, "begin");
    is_int(moe_writer_put(w, i, 0, 9, "123456789", &err), MOE_OK, "put");
    is_int(moe_writer_finish(w, &err), MOE_E_INTERNAL, "a byte is missing");
    has_str(err.text, "\"half\": 9 of 10", "named");
    moe_writer_close(w);

    is_int(moe_writer_open(100, &w, &err), MOE_OK, "open");
    add(w, "x", "U8", 10, 1, 0);
    is_int(moe_writer_plan(w, &bytes, &err), MOE_OK, "plan");
    is_int(moe_writer_begin(w, dir, &err), MOE_E_IO, "a file is there");
    has_str(err.text, "model.safetensors: cannot create", "named");
    moe_writer_close(w);
    drop_dir(dir);
}

/* A limit on file sizes stands for a disk that is full. */
static void
no_space(void)
{
    const char        *dir = new_dir();
    struct moe_writer *w = NULL;
    struct rlimit      old, now;
    uint64_t           bytes = 0;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    now = old;
    now.rlim_cur = 4096;
    is_int(moe_writer_open(1u << 20, &w, &err), MOE_OK, "open");
    add(w, "x", "U8", 100000, 1, 0);
    is_int(moe_writer_plan(w, &bytes, &err), MOE_OK, "plan");
    setrlimit(RLIMIT_FSIZE, &now);
    is_int(moe_writer_begin(w, dir, &err), MOE_E_IO,
           "no room for the file is seen at once");
    setrlimit(RLIMIT_FSIZE, &old);
    has_str(err.text, "no room for", "says so");
    has_str(err.text, "model.safetensors", "named");
    moe_writer_close(w);
    drop_dir(dir);
}

int
main(void)
{
    err.struct_size = sizeof(err);
    one_file();
    alignment();
    shards();
    mistakes();
    no_space();
    return tap_done();
}
