/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantize.c - a checkpoint in other formats.
 *
 * Owns the stream: which tensors are written in which order, with a text's
 * help or without, and what is told about it.  Which matrix gets what is
 * plan.c's, a matrix on its way encode.c's, the folder folder.c's; what a text
 * says about the inputs of a matrix is calibrate.c's.
 */

#include <convert/calibrate.h>
#include <convert/feedback.h>
#include <convert/recode.h>

#include <checkpoint/json.h>
#include <engine/engine.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES (4u << 20)

/* A tensor's bytes as they are. */
static moe_status
copy_bytes(struct moe_recode_job *j, const struct moe_tensor_info *t,
           size_t out, struct moe_error *err)
{
    uint64_t   size = t->bytes < COPY_BYTES ? t->bytes : COPY_BYTES, at;
    moe_status status = moe_recode_need(j, &j->raw, size, err);

    for (at = 0; at < t->bytes && status == MOE_OK; at += size) {
        uint64_t n = t->bytes - at < size ? t->bytes - at : size;

        status = moe_checkpoint_read(j->c, t, at, n, j->raw.p, err);
        if (status == MOE_OK)
            status = moe_writer_put(j->w, out, at, n, j->raw.p, err);
        if (status == MOE_OK)
            status = moe_recode_report(j, n, t->name, err);
    }
    return status;
}

static moe_status
write_matrix(struct moe_recode_job *j, const struct moe_recode *r,
             const struct moe_factor *u, struct moe_error *err)
{
    uint32_t   i;
    moe_status status = MOE_OK;

    if (r->shape_out != SIZE_MAX) {
        unsigned char shape[16];

        for (i = 0; i < 16; i++)
            shape[i] = (unsigned char) ((i < 8 ? r->src.n : r->src.k)
                                        >> i % 8 * 8);
        status = moe_writer_put(j->w, r->shape_out, 0, sizeof(shape), shape,
                                err);
    }
    if (status != MOE_OK)
        return status;
    if (r->what == MOE_RECODE_ENCODE)
        return moe_recode_encode(j, r, u, err);
    for (i = 0; i < r->n_planes && status == MOE_OK; i++)
        status = copy_bytes(j, r->src.plane[i], r->out[i], err);
    return status;
}

static moe_status
write_tensors(struct moe_recode_job *j, struct moe_error *err)
{
    size_t     i, n = moe_checkpoint_count(j->c);
    moe_status status = MOE_OK;

    for (i = 0; i < n && status == MOE_OK; i++) {
        const struct moe_tensor_info *t = moe_checkpoint_at(j->c, i);
        const struct moe_recode      *r;

        if (j->plan.owner[i] == 0) {
            status = copy_bytes(j, t, j->plan.copy_out[i], err);
            continue;
        }
        r = &j->plan.at[j->plan.owner[i] - 1];
        if (r->src.plane[MOE_PLANE_ELEM] != t
            || (j->calibration != NULL && moe_calibrates(r)))
            continue;
        status = write_matrix(j, r, NULL, err);
    }
    return status;
}

/* ---------------------------------------------------------- calibration -- */

/* The matrices of a layer that are fed so, by expert; one H serves all that
 * are fed alike. */
static moe_status
write_fed(struct moe_recode_job *j, uint32_t layer, uint32_t feed,
          struct moe_error *err)
{
    struct moe_factor u;
    uint64_t          have = 0; /* k that u is for; experts begin anew */
    size_t            i;
    moe_status        st = MOE_OK;

    for (i = 0; i < j->plan.n && st == MOE_OK; i++) {
        const struct moe_recode *r = &j->plan.at[i];
        uint64_t                 k = r->src.k;

        if (r->layer != layer || moe_input_of(r->tensor) != feed
            || !moe_calibrates(r))
            continue;
        if (have != k || feed == MOE_INPUT_DOWN) {
            st = moe_recode_need(j, &j->h, (k * k + 1) * 8, err);
            if (st == MOE_OK)
                st = moe_recode_need(j, &j->u, k * k * 8, err);
            if (st == MOE_OK)
                st = moe_calibration_gram(j->calibration, layer, feed,
                                          r->expert, (uint32_t) k, j->h.p,
                                          err);
            if (st == MOE_OK) {
                st = moe_gram_factor(j->services.pool, MOE_CALIBRATE_DAMP,
                                     (uint32_t) k, j->h.p, j->u.p, &u);
                if (st != MOE_OK)
                    (void) moe_fail(err, st, 0,
                                    "calibration: layer %u computes numbers "
                                    "that are not finite", layer);
            }
            have = k;
        }
        if (st == MOE_OK)
            st = write_matrix(j, r, &u, err);
    }
    return st;
}

static moe_status
write_calibrated(struct moe_recode_job *j, struct moe_error *err)
{
    uint32_t   first, count, l, feed;
    moe_status st = MOE_OK;

    for (first = 0; first < j->a.n_layers && st == MOE_OK; first += count) {
        st = moe_calibration_read(j->calibration, first, &count, err);
        for (l = first; st == MOE_OK && l < first + count; l++)
            for (feed = 1; st == MOE_OK && feed < MOE_INPUTS; feed++)
                st = write_fed(j, l, feed, err);
    }
    return st;
}

static moe_status
watch(void *ctx, const char *what, struct moe_error *err)
{
    return moe_recode_report(ctx, 0, what, err);
}

static moe_status
open_calibration(struct moe_recode_job *j, const char *in,
                 struct moe_error *err)
{
    struct moe_calibration_setup s = { &j->services, &j->plan, j->registry,
                                       in, j->budget, 0, watch, j };
    size_t                       i;
    uint64_t                     most = 0;
    int                          any = 0;

    if (moe_option_text(j->o, "quant.calibrate")[0] == '\0')
        return MOE_OK;
    for (i = 0; i < j->plan.n; i++) {
        const struct moe_recode *r = &j->plan.at[i];
        uint64_t                 bytes;
        int                      feed = moe_calibrates(r);

        if (r->what != MOE_RECODE_ENCODE)
            continue;
        any |= feed;
        if (moe_input_of(r->tensor) == MOE_INPUT_NONE)
            j->unfed++;
        else if (!feed && j->unfit++ == 0)
            snprintf(j->unfit_format, sizeof(j->unfit_format), "%.31s",
                     r->to.format->id);
        bytes = moe_recode_room(j, r, feed);
        most = bytes > most ? bytes : most;
    }
    if (!any)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "quant.calibrate has no effect: no matrix of a layer "
                        "gets a format that rounding can be calibrated for");
    if (j->unfed > 0)
        moe_options_log(j->o, MOE_LOG_WARN,
                        "quantize: %llu matrices are rounded to nearest, "
                        "since what they are multiplied with is not kept: "
                        "embedding or output head",
                        (unsigned long long) j->unfed);
    if (j->unfit > 0)
        moe_options_log(j->o, MOE_LOG_WARN,
                        "quantize: %llu matrices are rounded to nearest: %s "
                        "has no elements of at most 8 bits to choose among",
                        (unsigned long long) j->unfit, j->unfit_format);
    s.spare = most + COPY_BYTES + (1u << 20);
    return moe_calibration_open(&s, &j->calibration, err);
}

/* ----------------------------------------------------------------- main -- */

static moe_status
open_job(struct moe_recode_job *j, const char *in, struct moe_error *err)
{
    struct moe_limits m;
    uint64_t          asked, budget;
    const char       *why;
    double            percent;
    moe_status        status;

    j->services.options = j->o;
    status = moe_ledger_open(&j->services.ledger, err);
    if (status == MOE_OK)
        status = moe_pool_open((uint32_t) moe_option_int(j->o,
                                                         "engine.threads"),
                               &j->services.pool, err);
    if (status == MOE_OK)
        status = moe_services_registry(&j->services, &j->registry, err);
    if (status == MOE_OK)
        status = moe_checkpoint_open(in, &j->c, err);
    if (status == MOE_OK)
        status = moe_arch_read(j->c, &j->a, err);
    if (status == MOE_OK)
        status = moe_writer_open(MOE_WRITER_SHARD, &j->w, err);
    if (status == MOE_OK)
        status = moe_recode_make(j->c, &j->a, j->registry, j->o, j->w,
                                 &j->plan, err);
    if (status != MOE_OK)
        return status;

    asked = moe_option_size(j->o, "memory.budget");
    percent = moe_option_percent(j->o, "memory.budget");
    moe_limits_read(&m);
    if (percent > 0)
        asked = (uint64_t) ((double) moe_limits_budget(&m, 0, &why) * percent
                            / 100.0);
    budget = moe_limits_budget(&m, asked, &why);
    j->budget = budget;
    budget = budget > m.rss ? budget - m.rss : 0;
    /* f32 rows, their source and their result: below half of what there is */
    j->chunk_bytes = budget / 4 < MOE_RECODE_CHUNK ? budget / 4
                                                   : MOE_RECODE_CHUNK;
    return moe_ledger_limit(j->services.ledger, MOE_LEDGER_HOST, budget, err);
}

static void
close_job(struct moe_recode_job *j)
{
    size_t i;

    if (j->services.ledger != NULL) {
        moe_recode_drop(j, &j->raw);
        moe_recode_drop(j, &j->rows);
        moe_recode_drop(j, &j->h);
        moe_recode_drop(j, &j->u);
        moe_recode_drop(j, &j->wide);
        for (i = 0; i < MOE_PLANES_MAX; i++)
            moe_recode_drop(j, &j->dst[i]);
        moe_calibration_close(j->calibration);
    }
    moe_writer_close(j->w);
    moe_folder_abandon(&j->folder);
    moe_recode_free(&j->plan);
    moe_arch_free(&j->a);
    moe_checkpoint_close(j->c);
    moe_registry_close(j->registry);
    moe_pool_close(j->services.pool);
    if (j->services.ledger != NULL)
        (void) moe_ledger_close(j->services.ledger);
}

static void
say_unfit(const struct moe_recode_job *j)
{
    if (j->plan.unfit > 0)
        moe_options_log(j->o, MOE_LOG_WARN,
                        "quantize: %llu matrices stay as they are, since the "
                        "format does not fit them; one is %s: %s",
                        (unsigned long long) j->plan.unfit,
                        j->plan.unfit_name, j->plan.unfit_why);
}

static moe_status
write_config(struct moe_recode_job *j, struct moe_error *err)
{
    char      *text = NULL, *path;
    moe_status status = moe_recode_config(&j->plan, &text, err);

    if (status != MOE_OK)
        return status;
    path = malloc(strlen(j->folder.partial) + 32);
    if (path == NULL) {
        status = moe_fail(err, MOE_E_NOMEM, ENOMEM, "quantize: no memory");
    } else {
        sprintf(path, "%s/config.json", j->folder.partial);
        status = moe_file_write(path, text, strlen(text), err);
    }
    free(path);
    free(text);
    return status;
}

static void
tell(const struct moe_recode_job *j, struct moe_quantize_info *info)
{
    struct moe_quantize_info i;
    uint32_t                 size = info->struct_size;

    memset(&i, 0, sizeof(i));
    i.source_bytes = j->total;
    i.matrices = j->plan.encoded;
    i.calibrated = j->calibrated;
    if (j->calibration != NULL)
        moe_calibration_count(j->calibration, &i.tokens, &i.expert_least,
                              &i.expert_most, &i.expert_few);
    i.few = MOE_CALIBRATE_FEW;
    if (j->calibrated != 0)
        i.error = j->error / (double) j->calibrated;
    i.struct_size = size;
    memcpy(info, &i, size < sizeof(i) ? size : sizeof(i));
}

MOE_API moe_status
moe_quantize(const moe_options *o, const char *in, const char *out,
             moe_progress_fn fn, void *ctx, struct moe_quantize_info *info,
             struct moe_error *err)
{
    struct moe_recode_job j;
    size_t     i;
    moe_status status;

    memset(&j, 0, sizeof(j));
    j.folder.lock = -1;
    j.o = o;
    j.fn = fn;
    j.ctx = ctx;
    status = moe_folder_open(out, &j.folder, err);
    if (status == MOE_OK)
        status = open_job(&j, in, err);
    if (status == MOE_OK && j.plan.encoded == 0)
        status = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                          "quantize: nothing can be converted; %s: %s",
                          j.plan.unfit_name,
                          j.plan.unfit > 0 ? j.plan.unfit_why
                                           : "it has that format already");
    if (status == MOE_OK) {
        say_unfit(&j);
        status = moe_folder_space(j.folder.out,
                                  j.plan.out_bytes
                                      + moe_folder_small_bytes(in)
                                      + (1u << 20), err);
    }
    for (i = 0; status == MOE_OK && i < moe_checkpoint_count(j.c); i++)
        j.total += moe_checkpoint_at(j.c, i)->bytes;
    if (status == MOE_OK)
        status = open_calibration(&j, in, err);
    if (status == MOE_OK)
        status = moe_writer_begin(j.w, j.folder.partial, err);
    if (status == MOE_OK)
        status = moe_recode_report(&j, 0, "", err);
    if (status == MOE_OK)
        status = write_tensors(&j, err);
    if (status == MOE_OK && j.calibration != NULL)
        status = write_calibrated(&j, err);
    if (status == MOE_OK)
        status = moe_writer_finish(j.w, err);
    if (status == MOE_OK)
        status = write_config(&j, err);
    if (status == MOE_OK)
        status = moe_folder_copy_small(in, &j.folder, err);
    if (status == MOE_OK)
        status = moe_folder_commit(&j.folder, err);
    if (status == MOE_OK && info != NULL)
        tell(&j, info);
    close_job(&j);
    return status;
}
