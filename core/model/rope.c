/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope.c - the frequencies of rotary position embedding.
 *
 * Owns inv_freq and the attention factor of the plain, linear, dynamic,
 * YaRN (arXiv 2309.00071) and Llama 3 variants.  All arithmetic rounds to
 * f32 where the reference implementation in PyTorch does, so that angles at
 * far positions agree: there, one bit of a frequency is a visible angle.
 *
 * "dynamic" stretches its base only beyond max_position_embeddings; since a
 * sequence here never passes max_context, it is the plain variant.
 */

#include <model/family.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct rope {
    struct moe_json p; /* rope_parameters or rope_scaling; may be empty */
    double          theta;
    double          original; /* context before scaling, in tokens */
    uint32_t        dim;
};

/* theta^(2i / dim), rounded as a vector of f32 rounds it. */
static float
wavelength(const struct rope *r, uint32_t i)
{
    float x = (float) (2 * i) / (float) r->dim;

    return (float) pow((double) (float) r->theta, (double) x);
}

static void
plain(const struct rope *r, struct moe_arch *a)
{
    uint32_t i;

    for (i = 0; i < a->n_inv_freq; i++)
        a->inv_freq[i] = 1.0f / wavelength(r, i);
}

static moe_status
read_linear(const struct rope *r, struct moe_arch *a, struct moe_error *err)
{
    double     factor;
    uint32_t   i;
    moe_status status = moe_json_float(&r->p, "factor", 1e-3, 1e6, &factor,
                                       err);

    if (status != MOE_OK)
        return status;
    plain(r, a);
    for (i = 0; i < a->n_inv_freq; i++)
        a->inv_freq[i] /= (float) factor;
    return MOE_OK;
}

static moe_status
read_llama3(const struct rope *r, struct moe_arch *a, struct moe_error *err)
{
    double     factor, low, high;
    float      old = (float) r->original, flow, fhigh, ffactor;
    uint32_t   i;
    moe_status status;

    status = moe_json_float(&r->p, "factor", 1e-3, 1e6, &factor, err);
    if (status == MOE_OK)
        status = moe_json_float(&r->p, "low_freq_factor", 1e-6, 1e6, &low,
                                err);
    if (status == MOE_OK)
        status = moe_json_float(&r->p, "high_freq_factor", 1e-6, 1e6, &high,
                                err);
    if (status != MOE_OK)
        return status;
    if (high <= low)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"%shigh_freq_factor\" %g must exceed "
                        "\"low_freq_factor\" %g", r->p.file, r->p.path, high,
                        low);
    flow = (float) low;
    fhigh = (float) (high - low);
    ffactor = (float) factor;
    plain(r, a);
    for (i = 0; i < a->n_inv_freq; i++) {
        float f = a->inv_freq[i];
        float wave = (float) (2 * M_PI) / f;

        if (wave > (float) (r->original / low)) {
            a->inv_freq[i] = f / ffactor;
        } else if (!(wave < (float) (r->original / high))) {
            float smooth = (old / wave - flow) / fhigh;

            a->inv_freq[i] = (1.0f - smooth) * f / ffactor + smooth * f;
        }
    }
    return MOE_OK;
}

/* Dimension at which a full context makes `rotations` turns. */
static double
correction_dim(const struct rope *r, double rotations)
{
    return (double) r->dim * log(r->original / (rotations * 2 * M_PI))
           / (2 * log(r->theta));
}

static double
mscale(double factor, double m)
{
    return factor <= 1 ? 1.0 : 0.1 * m * log(factor) + 1.0;
}

static moe_status
read_yarn(const struct rope *r, struct moe_arch *a, struct moe_error *err)
{
    double     factor, attention, m, m_all, fast, slow, low, high, context;
    uint32_t   truncate, i;
    moe_status status;

    status = moe_json_float_or(&r->p, "factor", 1e-3, 1e6,
                               (double) a->max_context / r->original,
                               &factor, err);
    if (status == MOE_OK)
        status = moe_json_float_or(&r->p, "mscale", 0, 1e6, 0, &m, err);
    if (status == MOE_OK)
        status = moe_json_float_or(&r->p, "mscale_all_dim", 0, 1e6, 0, &m_all,
                                   err);
    if (status == MOE_OK)
        status = moe_json_float_or(&r->p, "beta_fast", 0, 1e6, 0, &fast, err);
    if (status == MOE_OK)
        status = moe_json_float_or(&r->p, "beta_slow", 0, 1e6, 0, &slow, err);
    if (status == MOE_OK)
        status = moe_json_bool_or(&r->p, "truncate", 1, &truncate, err);
    if (status != MOE_OK)
        return status;
    attention = m != 0 && m_all != 0
                    ? mscale(factor, m) / mscale(factor, m_all)
                    : mscale(factor, 1);
    status = moe_json_float_or(&r->p, "attention_factor", 0, 1e6, attention,
                               &attention, err);
    if (status != MOE_OK)
        return status;
    if (fast == 0)
        fast = 32;
    if (slow == 0)
        slow = 1;

    low = correction_dim(r, fast);
    high = correction_dim(r, slow);
    if (truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double) r->dim - 1);
    if (low == high)
        high += 0.001;
    for (i = 0; i < a->n_inv_freq; i++) {
        float wave = wavelength(r, i);
        float ramp = ((float) i - (float) low) / (float) (high - low);
        float keep = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);

        a->inv_freq[i] = 1.0f / ((float) factor * wave) * (1.0f - keep)
                         + 1.0f / wave * keep;
    }
    a->rope_scale = (float) attention;
    /* max_position_embeddings may still be that of the time before */
    context = floor(r->original * factor);
    if (context > a->max_context)
        a->max_context = context < MOE_MAX_CONTEXT ? (uint32_t) context
                                                   : MOE_MAX_CONTEXT;
    return MOE_OK;
}

/* Where the parameters lie: rope_scaling of older files comes first, as the
 * reference reads them. */
static moe_status
find_parameters(const struct moe_json *config, struct rope *r,
                struct moe_error *err)
{
    moe_status status;

    r->p.file = config->file;
    r->p.path = "rope_scaling.";
    status = moe_json_object_or(config, "rope_scaling", &r->p.obj, err);
    if (status != MOE_OK)
        return status;
    if (r->p.obj != NULL && json_object_object_length(r->p.obj) > 0)
        return MOE_OK;
    r->p.path = "rope_parameters.";
    status = moe_json_object_or(config, "rope_parameters", &r->p.obj, err);
    if (status != MOE_OK)
        return status;
    if (moe_json_get(&r->p, "full_attention") != NULL
        || moe_json_get(&r->p, "sliding_attention") != NULL)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: \"rope_parameters\" that differ by layer are "
                        "not supported", config->file);
    return MOE_OK;
}

moe_status
moe_rope_read(const struct moe_json *config, double default_theta,
              struct moe_arch *a, struct moe_error *err)
{
    struct rope            r = { 0 };
    const struct moe_json *where;
    const char            *type;
    char                   show[MOE_SHOW_MAX + 4];
    double                 partial;
    moe_status             status;
    uint32_t               i;

    status = find_parameters(config, &r, err);
    if (status != MOE_OK)
        return status;
    where = moe_json_get(&r.p, "rope_theta") != NULL ? &r.p : config;
    status = moe_json_float_or(where, "rope_theta", 1.0 + 1e-6, 1e30,
                               default_theta, &r.theta, err);
    if (status != MOE_OK)
        return status;
    where = moe_json_get(&r.p, "partial_rotary_factor") != NULL ? &r.p
                                                                 : config;
    status = moe_json_float_or(where, "partial_rotary_factor", 0, 1, 1,
                               &partial, err);
    if (status != MOE_OK)
        return status;
    if (partial != 1)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: \"partial_rotary_factor\" %g: heads of this "
                        "family are rotated whole", config->file, partial);
    where = moe_json_get(config, "original_max_position_embeddings") != NULL
                ? config
                : &r.p;
    status = moe_json_float_or(where, "original_max_position_embeddings", 1,
                               MOE_MAX_CONTEXT, (double) a->max_context,
                               &r.original, err);
    if (status != MOE_OK)
        return status;
    status = moe_json_text_or(&r.p, "type", "default", &type, err);
    if (status == MOE_OK)
        status = moe_json_text_or(&r.p, "rope_type", type, &type, err);
    if (status != MOE_OK)
        return status;

    r.dim = a->head_dim;
    a->rope_kind = MOE_ROPE_HALF;
    a->rope_scale = 1.0f;
    a->n_inv_freq = r.dim / 2;
    a->inv_freq = malloc(a->n_inv_freq * sizeof(*a->inv_freq));
    if (a->inv_freq == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "%s: no memory for %u rope frequencies",
                        config->file, a->n_inv_freq);
    if (strcmp(type, "default") == 0 || strcmp(type, "dynamic") == 0)
        plain(&r, a);
    else if (strcmp(type, "linear") == 0)
        status = read_linear(&r, a, err);
    else if (strcmp(type, "llama3") == 0)
        status = read_llama3(&r, a, err);
    else if (strcmp(type, "yarn") == 0)
        status = read_yarn(&r, a, err);
    else
        status = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                          "%s: \"%srope_type\": \"%s\" is not supported "
                          "(default, linear, dynamic, yarn and llama3 are)",
                          config->file, r.p.path, moe_show(type, show));
    for (i = 0; i < a->n_inv_freq && status == MOE_OK; i++)
        if (!isfinite(a->inv_freq[i]))
            status = moe_fail(err, MOE_E_CORRUPT, 0,
                              "%s: \"%s\": frequency %u is not finite",
                              config->file, "rope_theta", i);
    return status;
}
