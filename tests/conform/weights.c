/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights.c - random weights in a format, on the device and as numbers.
 *
 * The numbers that the oracle uses are what the format's decode() says, so a
 * case tests the backend and not how well a format can hold random numbers.
 */

#include "conform/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNIVERSAL(name, bits, letters, error)                                 \
    { .struct_size = sizeof(struct moe_format), .revision = 1, .id = name,    \
      .summary = "plain numbers", .k_multiple = 1, .n_multiple = 1,           \
      .bits_x1000 = bits * 1000, .nmse_x1e9 = error,                          \
      .scheme = { .struct_size = sizeof(struct moe_scheme),                   \
                  .num_bits = bits, .symmetric = 1, .type = "float",          \
                  .elem = letters } }

/* A backend may round activations to a 16-bit type of weights. */
static const struct moe_format universal[] = {
    UNIVERSAL("f32", 32, "F32", 0),
    UNIVERSAL("f16", 16, "F16", 1000),
    UNIVERSAL("bf16", 16, "BF16", 20000),
};

struct cformat
weights_universal(uint32_t dtype)
{
    struct cformat f = { NULL, NULL, NULL, dtype, 0 };

    f.format = &universal[dtype == MOE_F32 ? 0 : dtype == MOE_F16 ? 1 : 2];
    return f;
}

/* One matrix: memory for its planes, random numbers, and what they are. */
struct source {
    struct moe_tensor tensor;
    void             *plane[MOE_PLANES_MAX];
};

static void
source_free(struct source *s)
{
    uint32_t i;

    for (i = 0; i < MOE_PLANES_MAX; i++)
        free(s->plane[i]);
}

static int
source_make(struct ccase *k, const struct cformat *f, uint64_t n, uint64_t kk,
            float *value, struct source *s)
{
    struct moe_plane plane[MOE_PLANES_MAX];
    uint64_t         i, count = n * kk;
    uint32_t         p, n_planes = 1;
    float            scale = 1.0f / sqrtf((float) kk);

    memset(s, 0, sizeof(*s));
    s->tensor.struct_size = sizeof(s->tensor);
    s->tensor.n = n;
    s->tensor.k = kk;
    s->tensor.scale_dtype = f->scale_dtype;
    for (i = 0; i < count; i++)
        value[i] = scale * crandom_float(k->d);
    if (f->ops == NULL) {
        s->tensor.len[0] = count * moe_dtype_size(f->dtype);
        s->plane[0] = malloc(s->tensor.len[0]);
        if (s->plane[0] == NULL)
            return 0;
        for (i = 0; i < count; i++) {
            moe_ref_put(s->plane[0], f->dtype, i, (double) value[i]);
            value[i] = (float) moe_ref_get(s->plane[0], f->dtype, i);
        }
        s->tensor.plane[0] = s->plane[0];
        return 1;
    }
    memset(plane, 0, sizeof(plane));
    for (p = 0; p < MOE_PLANES_MAX; p++)
        plane[p].struct_size = sizeof(plane[p]);
    if (f->ops->planes(f->self, f->format, n, kk, f->scale_dtype, plane,
                       &n_planes, &k->d->err)
        != MOE_OK)
        return 0;
    for (p = 0; p < n_planes && p < MOE_PLANES_MAX; p++) {
        s->tensor.len[p] = plane[p].bytes;
        s->tensor.plane[p] = s->plane[p] = calloc(1, plane[p].bytes + 1);
        if (s->plane[p] == NULL)
            return 0;
    }
    return f->ops->encode(f->self, f->format, value, kk, NULL, &s->tensor,
                          &k->d->err)
               == MOE_OK
           && f->ops->check(f->self, f->format, &s->tensor, &k->d->err)
                  == MOE_OK
           && f->ops->decode(f->self, f->format, &s->tensor, 0, n, MOE_F32,
                             value, kk)
                  == MOE_OK;
}

/* Fills a slot; the planes are freed when the device has them. */
static int
fill_slot(struct ccase *k, const struct cformat *f, struct cweights *w,
          uint32_t slot)
{
    struct source         s[MOE_PARTS_MAX];
    struct moe_weight_src src = { .struct_size = sizeof(src) };
    float   *value = w->value + slot * w->slot_values;
    uint32_t p, made;
    int      good = 1;

    for (made = 0; made < w->shape.n_parts && good; made++) {
        good = source_make(k, f, w->shape.n[made], w->shape.k[made],
                           value + w->part_at[made], &s[made]);
        src.part[made] = &s[made].tensor;
    }
    if (good)
        good = k->d->ops->slot_upload(k->d->s, w->slab, slot, &src,
                                      &k->d->err)
               == MOE_OK;
    /* Only the planes must live on: the structs were read by the call. */
    for (p = 0; p < made; p++)
        memset(&s[p].tensor, 0xff, sizeof(s[p].tensor));
    memset(&src, 0xff, sizeof(src));
    if (good)
        good = cdevice_sync(k->d) == MOE_OK;
    for (p = 0; p < made; p++)
        source_free(&s[p]);
    return good;
}

int
weights_make(struct ccase *k, const struct moe_op *op, const struct cformat *f,
             const struct moe_shape *shape, uint32_t n_slots,
             struct cweights *w)
{
    struct conform *c = k->d->c;
    char            text[700];
    moe_status      status;
    uint64_t        held;
    uint32_t        i, p;

    memset(w, 0, sizeof(*w));
    if (k->bad)
        return 0;
    w->shape = *shape;
    w->n_slots = n_slots;
    for (p = 0; p < shape->n_parts; p++) {
        w->part_at[p] = w->slot_values;
        w->slot_values += shape->n[p] * shape->k[p];
    }
    w->about.struct_size = sizeof(w->about);
    w->about.scale_dtype = f->scale_dtype;
    w->about.format = f->format;
    w->about.shape = &w->shape;
    for (p = 0; f->ops != NULL && p < shape->n_parts; p++) {
        w->affine[p].struct_size = sizeof(w->affine[p]);
        if (MOE_HAS(f->ops, moe_quantizer_ops, affine)
            && f->ops->affine != NULL
            && f->ops->affine(f->self, f->format, shape->n[p], shape->k[p],
                              f->scale_dtype, &w->affine[p])
                   == MOE_OK)
            w->about.affine[p] = &w->affine[p];
    }
    w->plan.struct_size = sizeof(w->plan);
    status = k->d->ops->query(k->d->dev, op, &w->about, &w->plan, &k->d->err);
    if (status == MOE_E_UNSUPPORTED && f->ops != NULL) {
        snprintf(text, sizeof(text), "expanded by the core: %s",
                 k->d->err.text);
        conform_skip(c, k->name, text);
        return 0;
    }
    if (!conform_status(c, status, MOE_OK, &k->d->err, k->name))
        return 0;
    held = conform_held(c, k->d->info.domain);
    status = k->d->ops->slab_create(k->d->dev, &w->about, &w->plan, n_slots,
                                    &w->slab, &k->d->err);
    snprintf(text, sizeof(text), "%s: a slab of %u slots", k->name, n_slots);
    if (!conform_status(c, status, MOE_OK, &k->d->err, text)) {
        w->slab = NULL;
        return 0;
    }
    held = conform_held(c, k->d->info.domain) - held;
    {
        uint64_t granule = k->d->info.mem_align;
        uint64_t want = w->plan.slot_bytes * n_slots;

        want = (want + granule - 1) / granule * granule;
        if (held != want)
            conform_ok(c, 0,
                       "%s: a slab reserves n_slots * slot_bytes, rounded up "
                       "to mem_align: %llu, not %llu",
                       k->name, (unsigned long long) want,
                       (unsigned long long) held);
    }
    w->value = malloc(n_slots * w->slot_values * sizeof(float));
    for (i = 0; w->value != NULL && i < n_slots; i++)
        if (!fill_slot(k, f, w, n_slots - 1 - i)) {
            conform_ok(c, 0, "%s: its slots can be filled", k->name);
            conform_note(c, "%s", k->d->err.text);
            weights_free(k, w);
            return 0;
        }
    /* A slot may be filled again once nothing uses it. */
    if (w->value != NULL)
        fill_slot(k, f, w, 0);
    return w->value != NULL;
}

void
weights_free(struct ccase *k, struct cweights *w)
{
    if (w->slab != NULL)
        k->d->ops->slab_destroy(w->slab);
    free(w->value);
    w->slab = NULL;
    w->value = NULL;
}

static const float *
value_row(void *ctx, uint32_t group, uint32_t part, uint64_t r,
          float *scratch)
{
    const struct cweights *w = ctx;

    (void) scratch;
    return w->value + w->refs[group].slot * w->slot_values + w->part_at[part]
           + r * w->shape.k[part];
}

struct moe_ref_weights
weights_ref(struct cweights *w)
{
    struct moe_ref_weights ref = { w, value_row, &w->shape };

    return ref;
}
