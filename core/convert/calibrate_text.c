/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calibrate_text.c - the tokens that a calibration reads.
 *
 * Owns where they come from: a file, from which windows are taken evenly so
 * that it may be as large as it likes, or the model's own words, for those
 * who have no text.  Either is the same tokens every time.
 */

#include <convert/calibrate_text.h>

#include <checkpoint/json.h>
#include <engine/engine.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN_BYTES 16u /* more than a token of any prose takes */

void
moe_text_free(struct moe_text_windows *t)
{
    free(t->ids);
    free(t->start);
    memset(t, 0, sizeof(*t));
}

static moe_status
no_memory(struct moe_error *err)
{
    return moe_fail(err, MOE_E_NOMEM, ENOMEM, "calibration: no memory");
}

/* ----------------------------------------------------------------- file -- */

/* bytes from `from` on, without the parts of characters at both ends. */
static moe_status
read_part(int fd, const char *path, uint64_t from, uint64_t bytes, char *to,
          size_t *len, struct moe_error *err)
{
    char   shown[MOE_SHOW_PATH_MAX + 4];
    size_t got = 0, skip = 0, back;

    while (got < bytes) {
        ssize_t r = pread(fd, to + got, (size_t) bytes - got,
                          (off_t) (from + got));

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return moe_fail(err, MOE_E_IO, errno, "%s: read error: %s",
                            moe_show_path(path, shown), strerror(errno));
        if (r == 0)
            break;
        got += (size_t) r;
    }
    while (from != 0 && skip < got && skip < 3
           && ((unsigned char) to[skip] & 0xc0) == 0x80)
        skip++;
    for (back = 1; back <= 3 && back <= got - skip; back++) {
        unsigned char b = (unsigned char) to[got - back];

        if ((b & 0xc0) == 0x80)
            continue;
        if (b >= 0xc0 && back < (b >= 0xf0 ? 4u : b >= 0xe0 ? 3u : 2u))
            got -= back;
        break;
    }
    memmove(to, to + skip, got - skip);
    *len = got - skip;
    return MOE_OK;
}

static void
add_window(struct moe_text_windows *t, const uint32_t *ids, uint64_t n)
{
    memcpy(t->ids + t->n_tokens, ids, n * sizeof(*ids));
    t->n_tokens += n;
    t->start[++t->n_windows] = t->n_tokens;
}

static moe_status
from_file(moe_engine *e, const char *path, uint64_t tokens, uint32_t window,
          uint64_t most, struct moe_text_windows *t, struct moe_error *err)
{
    uint32_t    flags = MOE_ENCODE_BOS | MOE_ENCODE_SPECIAL;
    char        shown[MOE_SHOW_PATH_MAX + 4], *text = NULL;
    uint32_t   *ids = NULL;
    struct stat sb;
    uint64_t    size, bytes, i, parts;
    size_t      n = 0, len = 0;
    int         fd;
    moe_status  st = MOE_OK;

    moe_show_path(path, shown);
    if (e->tokenizer == NULL)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "quant.calibrate: the model has no tokenizer.json to "
                        "read %s with; add it, or say self", shown);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &sb) != 0) {
        st = moe_fail(err, errno == ENOENT ? MOE_E_NOT_FOUND : MOE_E_IO,
                      errno, "%s: %s", shown, strerror(errno));
        if (fd >= 0)
            close(fd);
        return st;
    }
    if (!S_ISREG(sb.st_mode)) {
        close(fd);
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: a file of text is needed to calibrate with",
                        shown);
    }
    size = (uint64_t) sb.st_size;
    /* a short text whole, of a long one as many parts as there are windows */
    parts = size <= tokens * TOKEN_BYTES ? 1 : most;
    bytes = parts == 1 ? size : (uint64_t) window * TOKEN_BYTES;
    text = malloc(bytes + 1);
    if (text == NULL)
        st = no_memory(err);
    for (i = 0; i < parts && st == MOE_OK; i++) {
        uint64_t w, windows, step;

        st = read_part(fd, path, size / parts * i, bytes, text, &len, err);
        if (st == MOE_OK)
            st = moe_engine_encode(e, text, len, flags, &ids, &n, err);
        if (st != MOE_OK)
            break;
        windows = parts > 1 ? 1 : (n + window - 1) / window;
        step = window;
        if (windows > most) {
            windows = most;
            step = n / most;
        }
        for (w = 0; w < windows && n > 0; w++)
            add_window(t, ids + w * step,
                       n - w * step < window ? n - w * step : window);
        moe_free(ids);
    }
    close(fd);
    free(text);
    if (st == MOE_OK && t->n_tokens < MOE_TEXT_LEAST)
        st = moe_fail(err, MOE_E_INVAL, 0,
                      "%s: %llu tokens are too few to calibrate with; give "
                      "at least %u, better %llu, or say self", shown,
                      (unsigned long long) t->n_tokens, MOE_TEXT_LEAST,
                      (unsigned long long) tokens);
    return st;
}

/* ------------------------------------------------------------------ self -- */

/* What the model's texts begin with. */
static uint32_t
first_token(moe_engine *e)
{
    uint32_t *ids = NULL, id = e->n_end != 0 ? e->end_ids[0] : 0;
    size_t    n = 0;

    if (e->tokenizer != NULL
        && moe_engine_encode(e, "", 0, MOE_ENCODE_BOS, &ids, &n, NULL)
               == MOE_OK) {
        if (n != 0)
            id = ids[0];
        moe_free(ids);
    }
    return id < e->arch.vocab ? id : 0;
}

static moe_status
from_self(moe_engine *e, uint64_t tokens, uint32_t window, uint64_t most,
          moe_status (*watch)(void *ctx, const char *what,
                              struct moe_error *err),
          void *ctx, struct moe_text_windows *t, struct moe_error *err)
{
    struct moe_sampling sampling = { .struct_size = sizeof(sampling),
                                     .temperature = 1, .top_p = 1,
                                     .repeat_penalty = 1 };
    uint32_t            first = first_token(e), active = 1;
    struct moe_request  req = { .struct_size = sizeof(req),
                                .flags = MOE_REQUEST_IGNORE_EOS,
                                .prompt = &first, .n_prompt = 1,
                                .sampling = &sampling };
    moe_sequence      **q = calloc(most, sizeof(*q));
    const uint32_t     *ids;
    char                what[64];
    uint64_t            i, left = tokens;
    size_t              n;
    moe_status          st = q != NULL ? MOE_OK : no_memory(err);

    for (i = 0; i < most && st == MOE_OK && left > 1; i++) {
        uint64_t len = left < window ? left : window;

        sampling.seed = i + 1;
        req.max_tokens = (uint32_t) len - 1;
        left -= len;
        st = moe_engine_submit(e, &req, &q[i], err);
    }
    while (st == MOE_OK && active != 0) {
        struct moe_stats stats = { .struct_size = sizeof(stats) };

        st = moe_engine_step(e, &active, err);
        if (st == MOE_OK)
            st = moe_engine_stats(e, &stats);
        snprintf(what, sizeof(what), "writing: %llu of %llu tokens",
                 (unsigned long long) stats.decode_tokens,
                 (unsigned long long) tokens);
        if (st == MOE_OK)
            st = watch(ctx, what, err);
    }
    for (i = 0; q != NULL && i < most && q[i] != NULL; i++) {
        struct moe_sequence_info info = { .struct_size = sizeof(info) };

        if (st == MOE_OK && moe_sequence_info(q[i], &info) == MOE_OK
            && info.finish == MOE_FINISH_ERROR)
            st = moe_fail(err, info.status, 0, "calibration: %s",
                          moe_sequence_error(q[i]));
        if (st == MOE_OK)
            st = moe_sequence_tokens(q[i], &ids, &n);
        if (st == MOE_OK) {
            t->ids[t->n_tokens++] = first;
            add_window(t, ids, n);
        }
        moe_sequence_free(q[i]);
    }
    free(q);
    return st;
}

moe_status
moe_text_get(moe_engine *e, const char *source, uint64_t tokens,
             uint32_t window,
             moe_status (*watch)(void *ctx, const char *what,
                                 struct moe_error *err),
             void *ctx, struct moe_text_windows *out, struct moe_error *err)
{
    struct moe_text_windows t;
    uint64_t                most = (tokens + window - 1) / window;
    moe_status              st;

    memset(&t, 0, sizeof(t));
    t.ids = calloc(most * window, sizeof(*t.ids));
    t.start = calloc(most + 1, sizeof(*t.start));
    if (t.ids == NULL || t.start == NULL)
        st = no_memory(err);
    else if (strcmp(source, "self") == 0)
        st = from_self(e, tokens, window, most, watch, ctx, &t, err);
    else
        st = from_file(e, source, tokens, window, most, &t, err);
    if (st != MOE_OK)
        moe_text_free(&t);
    else
        *out = t;
    return st;
}
