/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights.c - the bytes and the format of one of a decoder's tensors.
 *
 * Owns the step from "layer 3's query matrix" to planes of known format and
 * place.  The quantizer says what planes a matrix has; that the checkpoint
 * has exactly those is checked here, so nobody after this computes with a
 * size that came from a file.
 */

#include <model/weights.h>

#include <checkpoint/json.h>
#include <support/half.h>

#include <math.h>
#include <string.h>

uint32_t
moe_dtype_of(const char *dtype)
{
    return strcmp(dtype, "BF16") == 0  ? MOE_BF16
           : strcmp(dtype, "F16") == 0 ? MOE_F16
           : strcmp(dtype, "F32") == 0 ? MOE_F32
                                       : 0;
}

/* MODULE.SUFFIX in the checkpoint; NULL if it is not there. */
static const struct moe_tensor_info *
find_plane(const struct moe_checkpoint *c, const char *module,
           const char *suffix, char *name, size_t size)
{
    const struct moe_tensor_info *t;

    snprintf(name, size, "%s.%.31s", module, suffix);
    t = moe_checkpoint_find(c, name);
    if (t == NULL && strcmp(suffix, "weight_scale") == 0) {
        /* what method "fp8" calls it; it multiplies all the same */
        char other[1100];

        snprintf(other, sizeof(other), "%s.weight_scale_inv", module);
        t = moe_checkpoint_find(c, other);
    }
    return t;
}

/* Equal but for dimensions of 1: (n, 1) is stored as (n) by some. */
static int
same_dims(const struct moe_tensor_info *t, const struct moe_plane *p)
{
    uint32_t i = 0, j = 0;

    for (;;) {
        while (i < t->n_dims && t->dim[i] == 1)
            i++;
        while (j < p->n_dims && p->dim[j] == 1)
            j++;
        if (i == t->n_dims || j == p->n_dims)
            return i == t->n_dims && j == p->n_dims;
        if (t->dim[i++] != p->dim[j++])
            return 0;
    }
}

static const char *
dims_text(const uint64_t *dim, uint32_t n_dims, char *buf, size_t size)
{
    size_t   n = 0;
    uint32_t i;

    if (n_dims == 0)
        return "a single number";
    for (i = 0; i < n_dims && n < size; i++)
        n += (size_t) snprintf(buf + n, size - n, "%s%llu", i > 0 ? "x" : "",
                               (unsigned long long) dim[i]);
    return buf;
}

static moe_status
check_plane(const struct moe_checkpoint *c, const struct moe_tensor_info *t,
            const struct moe_plane *p, const char *format,
            struct moe_error *err)
{
    char        show[MOE_SHOW_MAX + 4], want[64], found[200];
    const char *file = moe_checkpoint_file_name(c, t->file);

    if (strncmp(t->dtype, p->dtype, sizeof(p->dtype)) != 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\": %.15s expected for %s, %s found",
                        file, moe_show(t->name, show), p->dtype, format,
                        t->dtype);
    if (same_dims(t, p) && t->bytes == p->bytes)
        return MOE_OK;
    return moe_fail(err, MOE_E_CORRUPT, 0,
                    "%s: tensor \"%s\": %s expected for %s, %s found", file,
                    moe_show(t->name, show),
                    dims_text(p->dim, p->n_dims, want, sizeof(want)), format,
                    dims_text(t->dim, t->n_dims, found, sizeof(found)));
}

static moe_status
unknown_scheme(const struct moe_checkpoint *c, const char *module,
               const struct moe_scheme *s, struct moe_error *err)
{
    char show[MOE_SHOW_MAX + 4], type[32], strategy[32], storage[48];

    moe_show(module, show);
    if (s->storage == NULL)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: \"%s.weight\" is %s, and no quantizer that is "
                        "loaded reads that (see `moe-run plugins')",
                        moe_checkpoint_config_name(c), show, s->elem);
    snprintf(type, sizeof(type), "%.31s", s->type);
    snprintf(strategy, sizeof(strategy), "%.31s", s->strategy);
    snprintf(storage, sizeof(storage), "%.47s", s->storage);
    if (s->group_size != 0)
        snprintf(strategy, sizeof(strategy), "%.15s of %u", s->strategy,
                 s->group_size);
    else if (s->block_n != 0)
        snprintf(strategy, sizeof(strategy), "%.12s %ux%u", s->strategy,
                 s->block_n, s->block_k);
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "%s: \"%s\" is %s: %s%u, %s, %ssymmetric, %s elements; no "
                    "quantizer that is loaded reads that (see `moe-run "
                    "plugins')", moe_checkpoint_config_name(c), show, storage,
                    type, s->num_bits, strategy, s->symmetric ? "" : "a",
                    s->elem);
}

/* The planes of the format, with the scale type that the file has. */
static moe_status
ask_planes(const struct moe_checkpoint *c, const char *module,
           struct moe_weight *w, struct moe_plane planes[MOE_PLANES_MAX],
           struct moe_error *err)
{
    static const uint32_t guesses[] = { MOE_BF16, MOE_F16, MOE_F32, 0 };
    const struct moe_format_ref  *r = &w->ref;
    const struct moe_tensor_info *t;
    char                          name[1100], show[MOE_SHOW_MAX + 4];
    uint32_t                      dtype;
    moe_status                    status = MOE_E_UNSUPPORTED;
    size_t                        i;

    w->scale_dtype = 0;
    if (r->format->scheme.storage == NULL)
        return r->ops->planes(r->self, r->format, w->n, w->k, 0, planes,
                              &w->n_planes, err);
    for (i = 0; i < 4 && status == MOE_E_UNSUPPORTED; i++) {
        w->scale_dtype = guesses[i];
        status = r->ops->planes(r->self, r->format, w->n, w->k, guesses[i],
                                planes, &w->n_planes, err);
    }
    if (status != MOE_OK || w->n_planes <= MOE_PLANE_SCALE
        || w->n_planes > MOE_PLANES_MAX)
        return status;
    t = find_plane(c, module, planes[MOE_PLANE_SCALE].suffix, name,
                   sizeof(name));
    if (t == NULL)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\" is missing (%s)",
                        moe_checkpoint_index_name(c), moe_show(name, show),
                        r->format->id);
    dtype = moe_dtype_of(t->dtype);
    if (dtype == 0 || dtype == w->scale_dtype)
        return MOE_OK; /* a wrong dtype is found with the other planes */
    w->scale_dtype = dtype;
    return r->ops->planes(r->self, r->format, w->n, w->k, dtype, planes,
                          &w->n_planes, err);
}

/* Warm. */
moe_status
moe_weight_module(const struct moe_checkpoint *c,
                  const struct moe_registry *registry, const char *module,
                  uint64_t n, uint64_t k, struct moe_weight *out,
                  struct moe_error *err)
{
    struct moe_plane  planes[MOE_PLANES_MAX];
    struct moe_scheme scheme;
    struct moe_weight w;
    char              name[1100], show[MOE_SHOW_MAX + 4];
    moe_status        status;
    uint32_t          i;

    memset(&w, 0, sizeof(w));
    memset(planes, 0, sizeof(planes));
    for (i = 0; i < MOE_PLANES_MAX; i++)
        planes[i].struct_size = sizeof(planes[i]);
    status = moe_checkpoint_scheme(c, module, &scheme, err);
    if (status != MOE_OK)
        return status;
    if (moe_registry_scheme(registry, &scheme, &w.ref) != MOE_OK)
        return unknown_scheme(c, module, &scheme, err);
    w.n = n;
    w.k = k;
    status = ask_planes(c, module, &w, planes, err);
    if (status != MOE_OK)
        return status;
    if (w.n_planes == 0 || w.n_planes > MOE_PLANES_MAX)
        return moe_fail(err, MOE_E_INTERNAL, 0,
                        "plugin %s: format %s says %u planes", w.ref.plugin,
                        w.ref.format->id, w.n_planes);
    for (i = 0; i < w.n_planes; i++) {
        w.plane[i] = find_plane(c, module, planes[i].suffix, name,
                                sizeof(name));
        if (w.plane[i] == NULL)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: tensor \"%s\" is missing (%s)",
                            moe_checkpoint_index_name(c),
                            moe_show(name, show), w.ref.format->id);
        status = check_plane(c, w.plane[i], &planes[i], w.ref.format->id,
                             err);
        if (status != MOE_OK)
            return status;
        w.bytes += w.plane[i]->bytes;
    }
    if (scheme.storage != NULL) {
        snprintf(name, sizeof(name), "%s.weight_g_idx", module);
        if (moe_checkpoint_find(c, name) != NULL)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "%s: \"%s\": columns in another order "
                            "(weight_g_idx) are not supported",
                            moe_checkpoint_config_name(c),
                            moe_show(module, show));
    }
    *out = w;
    return MOE_OK;
}

moe_status
moe_weight_find(const struct moe_checkpoint *c,
                const struct moe_registry *registry, const struct moe_arch *a,
                uint32_t tensor, uint32_t layer, uint32_t expert,
                struct moe_weight *out, struct moe_error *err)
{
    char       name[256];
    uint64_t   n, k;
    size_t     len;
    moe_status status;

    moe_arch_shape(a, tensor, layer, &n, &k);
    status = n == 0 ? MOE_E_NOT_FOUND
                    : moe_arch_name(a, tensor, layer, expert, name,
                                    sizeof(name));
    if (status != MOE_OK || moe_arch_class(tensor) == MOE_CLASS_NORM)
        return moe_fail(err, status != MOE_OK ? status : MOE_E_INVAL, 0,
                        "%s: layer %u has no matrix %u", a->family, layer,
                        tensor);
    len = strlen(name);
    if (len > 7 && strcmp(name + len - 7, ".weight") == 0)
        name[len - 7] = '\0';
    return moe_weight_module(c, registry, name, n, k, out, err);
}

moe_status
moe_vector_read(const struct moe_checkpoint *c, const struct moe_arch *a,
                uint32_t tensor, uint32_t layer, float *dst,
                struct moe_error *err)
{
    const struct moe_tensor_info *t;
    char                          name[256];
    unsigned char                 buf[4096];
    uint64_t                      n, k, i, j, per;
    uint32_t                      dtype, size;
    moe_status                    status;

    moe_arch_shape(a, tensor, layer, &n, &k);
    if (n == 0 || k != 1
        || moe_arch_name(a, tensor, layer, 0, name, sizeof(name)) != MOE_OK)
        return moe_fail(err, MOE_E_NOT_FOUND, 0,
                        "%s: layer %u has no vector %u", a->family, layer,
                        tensor);
    t = moe_checkpoint_find(c, name);
    if (t == NULL)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\" is missing",
                        moe_checkpoint_index_name(c), name);
    dtype = moe_dtype_of(t->dtype);
    size = moe_dtype_size(dtype);
    if (size == 0 || t->bytes != n * size)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: tensor \"%s\": %llu floats expected",
                        moe_checkpoint_file_name(c, t->file), name,
                        (unsigned long long) n);
    per = sizeof(buf) / size;
    for (i = 0; i < n; i += per) {
        uint64_t m = n - i < per ? n - i : per;

        status = moe_checkpoint_read(c, t, i * size, m * size, buf, err);
        if (status != MOE_OK)
            return status;
        for (j = 0; j < m; j++) {
            uint16_t h;
            float    f;

            if (dtype == MOE_F32) {
                memcpy(&f, buf + 4 * j, sizeof(f));
            } else {
                memcpy(&h, buf + 2 * j, sizeof(h));
                f = dtype == MOE_F16 ? moe_f16_f32(h) : moe_bf16_f32(h);
            }
            if (!isfinite(f))
                return moe_fail(err, MOE_E_CORRUPT, 0,
                                "%s: tensor \"%s\": element %llu is %s",
                                moe_checkpoint_file_name(c, t->file), name,
                                (unsigned long long) (i + j),
                                isnan(f) ? "NaN" : "infinite");
            dst[i + j] = f;
        }
    }
    return MOE_OK;
}
