/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.c - which matrix is written in which format.
 *
 * Owns the decision for every matrix and the list of tensors that follows
 * from it.  Nothing is read but headers, so the size of the result is known
 * to the byte before the first weight is touched.
 */

#include <convert/convert.h>

#include <checkpoint/json.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct target {
    struct moe_format_ref ref; /* format NULL: keep */
    const char           *key;
    uint64_t              n;   /* matrices of the class */
};

static moe_status
no_memory(struct moe_error *err)
{
    return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                    "quantize: no memory for the plan");
}

void
moe_recode_free(struct moe_recode_plan *plan)
{
    free(plan->at);
    free(plan->owner);
    free(plan->copy_out);
    memset(plan, 0, sizeof(*plan));
}

void
moe_recode_module(const struct moe_recode_plan *plan,
                  const struct moe_recode *r, char *buf, size_t size)
{
    size_t n;

    buf[0] = '\0';
    (void) moe_arch_name(plan->a, r->tensor, r->layer, r->expert, buf, size);
    n = strlen(buf);
    if (n > 7 && strcmp(buf + n - 7, ".weight") == 0)
        buf[n - 7] = '\0';
}

static moe_status
read_targets(const struct moe_registry *registry, const moe_options *o,
             struct target targets[MOE_CLASSES], struct moe_error *err)
{
    static const char *const keys[MOE_CLASSES] = {
        [MOE_CLASS_EMBED] = "quant.embeddings",
        [MOE_CLASS_ATTENTION] = "quant.attention",
        [MOE_CLASS_ROUTER] = "quant.router",
        [MOE_CLASS_EXPERT] = "quant.experts",
        [MOE_CLASS_SHARED] = "quant.shared",
        [MOE_CLASS_DENSE] = "quant.dense",
    };
    uint32_t   cls;
    moe_status status;

    memset(targets, 0, MOE_CLASSES * sizeof(*targets));
    for (cls = 0; cls < MOE_CLASSES; cls++) {
        const char *id;

        targets[cls].key = keys[cls];
        if (keys[cls] == NULL)
            continue;
        id = moe_option_text(o, keys[cls]);
        if (id[0] == '\0' || strcmp(id, "keep") == 0)
            continue;
        status = moe_registry_format(registry, id, &targets[cls].ref, err);
        if (status != MOE_OK)
            return status;
        if (!MOE_HAS(targets[cls].ref.ops, moe_quantizer_ops, encode)
            || targets[cls].ref.ops->encode == NULL)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "%s: plugin %s reads %s but cannot write it",
                            keys[cls], targets[cls].ref.plugin, id);
    }
    return MOE_OK;
}

/* An option that was given and moves nothing is a mistake of the caller. */
static moe_status
check_targets(const moe_options *o, const struct moe_arch *a,
              const struct target targets[MOE_CLASSES], struct moe_error *err)
{
    uint32_t cls, wanted = 0;

    for (cls = 0; cls < MOE_CLASSES; cls++) {
        if (targets[cls].ref.format == NULL)
            continue;
        wanted += targets[cls].n > 0;
        if (targets[cls].n == 0
            && moe_option_from(o, targets[cls].key) == MOE_FROM_ARG)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "%s = %s has no effect: this %s model has no "
                            "such weights", targets[cls].key,
                            targets[cls].ref.format->id, a->family);
    }
    if (wanted == 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "quantize: nothing to do: everything that this %s "
                        "model has is kept; set one of quant.*", a->family);
    return MOE_OK;
}

/* ------------------------------------------------------------- matrices -- */

/* The target's planes of an n x k matrix; which scale type it takes. */
static moe_status
target_planes(const struct moe_format_ref *to, uint64_t n, uint64_t k,
              uint32_t wish, struct moe_plane planes[MOE_PLANES_MAX],
              uint32_t *n_planes, uint32_t *scale_dtype, struct moe_error *err)
{
    uint32_t   tries[3], i;
    moe_status status = MOE_E_UNSUPPORTED;

    memset(planes, 0, MOE_PLANES_MAX * sizeof(*planes));
    for (i = 0; i < MOE_PLANES_MAX; i++)
        planes[i].struct_size = sizeof(planes[i]);
    tries[0] = to->format->scheme.storage == NULL ? 0 : wish;
    tries[1] = MOE_F32;
    tries[2] = 0;
    for (i = 0; i < 3 && status == MOE_E_UNSUPPORTED; i++) {
        *scale_dtype = tries[i];
        status = to->ops->planes(to->self, to->format, n, k, tries[i], planes,
                                 n_planes, i == 0 ? err : NULL);
    }
    return status;
}

static moe_status
decide(struct moe_recode_plan *plan, struct moe_recode *r,
       const struct target *target, struct moe_error *err)
{
    struct moe_plane planes[MOE_PLANES_MAX];
    struct moe_error why;
    uint32_t         wish;
    moe_status       status;

    r->what = r->src.ref.format->scheme.storage != NULL ? MOE_RECODE_PLANES
                                                        : MOE_RECODE_KEEP;
    r->to = r->src.ref;
    r->scale_dtype = r->src.scale_dtype;
    r->n_planes = r->src.n_planes;
    if (target->ref.format == NULL
        || target->ref.format == r->src.ref.format)
        return MOE_OK;
    /* scales as wide as the weights were, as other engines expect */
    wish = r->src.scale_dtype != 0 ? r->src.scale_dtype
                                   : moe_dtype_of(r->src.plane[0]->dtype);
    memset(&why, 0, sizeof(why));
    why.struct_size = sizeof(why);
    status = target_planes(&target->ref, r->src.n, r->src.k, wish, planes,
                           &r->n_planes, &r->scale_dtype, &why);
    if (status == MOE_E_UNSUPPORTED) {
        if (plan->unfit++ == 0) {
            moe_recode_module(plan, r, plan->unfit_name,
                              sizeof(plan->unfit_name));
            snprintf(plan->unfit_why, sizeof(plan->unfit_why), "%.159s",
                     why.text);
        }
        r->scale_dtype = r->src.scale_dtype;
        r->n_planes = r->src.n_planes;
        return MOE_OK;
    }
    if (status != MOE_OK)
        return moe_fail(err, status, why.native, "%s", why.text);
    if (r->n_planes == 0 || r->n_planes > MOE_PLANES_MAX)
        return moe_fail(err, MOE_E_INTERNAL, 0,
                        "plugin %s: format %s says %u planes",
                        target->ref.plugin, target->ref.format->id,
                        r->n_planes);
    r->what = MOE_RECODE_ENCODE;
    r->to = target->ref;
    plan->encoded++;
    return MOE_OK;
}

static struct moe_recode *
add_recode(struct moe_recode_plan *plan)
{
    struct moe_recode *at = plan->at;

    if (plan->n == plan->cap) {
        size_t cap = plan->cap == 0 ? 256 : 2 * plan->cap;

        at = realloc(plan->at, cap * sizeof(*at));
        if (at == NULL)
            return NULL;
        plan->at = at;
        plan->cap = cap;
    }
    memset(&at[plan->n], 0, sizeof(*at));
    return &at[plan->n++];
}

/* Which tensors of the source the recode takes the place of. */
static void
own_tensors(struct moe_recode_plan *plan, size_t index)
{
    static const char *const others[] = { "weight_shape", "input_scale" };
    const struct moe_recode      *r = &plan->at[index];
    const struct moe_tensor_info *base = moe_checkpoint_at(plan->c, 0), *t;
    char                          module[256], name[300];
    size_t                        i;

    if (r->what == MOE_RECODE_KEEP)
        return;
    for (i = 0; i < r->src.n_planes; i++)
        plan->owner[r->src.plane[i] - base] = (uint32_t) index + 1;
    moe_recode_module(plan, r, module, sizeof(module));
    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        snprintf(name, sizeof(name), "%s.%s", module, others[i]);
        t = moe_checkpoint_find(plan->c, name);
        if (t != NULL)
            plan->owner[t - base] = (uint32_t) index + 1;
    }
}

static moe_status
add_matrices(struct moe_recode_plan *plan, const struct moe_registry *registry,
             struct target targets[MOE_CLASSES], struct moe_error *err)
{
    const struct moe_arch *a = plan->a;
    uint64_t               n, k;
    uint32_t               t, l, e;
    moe_status             status;

    for (t = 0; t < MOE_T_COUNT; t++) {
        uint32_t cls = moe_arch_class(t);

        if (cls == MOE_CLASS_NORM)
            continue;
        for (l = 0; l < (moe_arch_per_layer(t) ? a->n_layers : 1); l++) {
            moe_arch_shape(a, t, l, &n, &k);
            for (e = 0;
                 n != 0 && e < (moe_arch_per_expert(t) ? a->n_experts : 1);
                 e++) {
                struct moe_recode *r = add_recode(plan);

                if (r == NULL)
                    return no_memory(err);
                r->tensor = t;
                r->layer = l;
                r->expert = e;
                r->shape_out = SIZE_MAX;
                status = moe_weight_find(plan->c, registry, a, t, l, e,
                                         &r->src, err);
                if (status == MOE_OK)
                    status = decide(plan, r, &targets[cls], err);
                if (status != MOE_OK)
                    return status;
                targets[cls].n++;
            }
        }
    }
    return MOE_OK;
}

/* -------------------------------------------------------------- tensors -- */

static moe_status
announce(struct moe_recode_plan *plan, struct moe_recode *r,
         struct moe_writer *w, struct moe_error *err)
{
    struct moe_plane planes[MOE_PLANES_MAX];
    char             module[256], name[300];
    uint32_t         n_planes, scale, i;
    int              together = 0;
    moe_status       status;

    moe_recode_module(plan, r, module, sizeof(module));
    status = target_planes(&r->to, r->src.n, r->src.k, r->scale_dtype, planes,
                           &n_planes, &scale, err);
    if (status != MOE_OK)
        return status;
    if (r->to.format->scheme.storage != NULL
        && strcmp(r->to.format->scheme.storage, "pack-quantized") == 0) {
        uint64_t two = 2;

        snprintf(name, sizeof(name), "%s.weight_shape", module);
        status = moe_writer_add(w, name, "I64", 1, &two, 0, &r->shape_out,
                                err);
        if (status != MOE_OK)
            return status;
        together = 1;
    }
    for (i = 0; i < n_planes; i++) {
        snprintf(name, sizeof(name), "%s.%.31s", module, planes[i].suffix);
        planes[i].dtype[sizeof(planes[i].dtype) - 1] = '\0';
        status = moe_writer_add(w, name, planes[i].dtype, planes[i].n_dims,
                                planes[i].dim, together, &r->out[i], err);
        if (status != MOE_OK)
            return status;
        together = 1;
    }
    return MOE_OK;
}

moe_status
moe_recode_make(const struct moe_checkpoint *c, const struct moe_arch *a,
                const struct moe_registry *registry, const moe_options *o,
                struct moe_writer *w, struct moe_recode_plan *plan,
                struct moe_error *err)
{
    struct target targets[MOE_CLASSES];
    size_t        count = moe_checkpoint_count(c), i;
    moe_status    status;

    memset(plan, 0, sizeof(*plan));
    plan->c = c;
    plan->a = a;
    status = read_targets(registry, o, targets, err);
    if (status == MOE_OK)
        status = add_matrices(plan, registry, targets, err);
    if (status == MOE_OK)
        status = check_targets(o, a, targets, err);
    if (status != MOE_OK)
        return status;
    plan->owner = calloc(count, sizeof(*plan->owner));
    plan->copy_out = calloc(count, sizeof(*plan->copy_out));
    if (plan->owner == NULL || plan->copy_out == NULL)
        return no_memory(err);
    for (i = 0; i < plan->n; i++)
        own_tensors(plan, i);

    /* in the order of the source, so that it is read from front to back */
    for (i = 0; i < count && status == MOE_OK; i++) {
        const struct moe_tensor_info *t = moe_checkpoint_at(c, i);
        struct moe_recode            *r;

        if (plan->owner[i] == 0) {
            status = moe_writer_add(w, t->name, t->dtype, t->n_dims, t->dim,
                                    0, &plan->copy_out[i], err);
            continue;
        }
        r = &plan->at[plan->owner[i] - 1];
        if (r->src.plane[MOE_PLANE_ELEM] == t)
            status = announce(plan, r, w, err);
    }
    if (status == MOE_OK)
        status = moe_writer_plan(w, &plan->out_bytes, err);
    return status;
}
