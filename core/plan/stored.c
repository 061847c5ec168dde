/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stored.c - how a checkpoint's weights are stored, from its config.json.
 *
 * Owns the way from quantization_config to bits of each matrix and to the
 * words of formats that say the same for a class.  The groups, targets and
 * ignore list are matched by checkpoint/scheme.c, as when the engine opens
 * the files; what a scheme's planes take is worked out here, because no
 * plugin need be there to plan.  Scales are as wide as the model's dtype, as
 * moe-run and compressed-tensors write them, those of "fp8" f32.
 */
#include "plan/stored.h"

#include "checkpoint/scheme.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct moe_stored {
    struct moe_schemes    *schemes;
    const struct moe_arch *a;
    double                 scale; /* bytes of a scale */
    /* a format's word that may say it, of the first matrix of each class */
    const char *word[MOE_PLAN_CLASSES];
    uint32_t    seen[MOE_PLAN_CLASSES]; /* bits: 1 plain, 2 quantized */
};

/* Bytes of one n x k matrix; 0: they cannot be told. */
static double
scheme_bytes(const struct moe_scheme *s, double scale, double n, double k)
{
    double groups = 1, rows = n, zeros = 0, elements;

    if (strcmp(s->strategy, "group") == 0)
        groups = ceil(k / s->group_size);
    else if (strcmp(s->strategy, "block") == 0) {
        groups = ceil(k / s->block_k);
        rows = ceil(n / s->block_n);
    } else if (strcmp(s->strategy, "tensor") == 0)
        rows = 1;
    else if (strcmp(s->strategy, "channel") != 0)
        return 0;
    if (strcmp(s->storage, "pack-quantized") == 0) {
        if (32 % s->num_bits != 0)
            return 0;
        elements = n * ceil(k * s->num_bits / 32) * 4;
        if (!s->symmetric) /* packed down the rows */
            zeros = ceil(rows * s->num_bits / 32) * 4 * groups;
    } else if (strcmp(s->storage, "mxfp4-pack-quantized") == 0
               && s->num_bits == 4 && s->symmetric) {
        elements = n * ceil(k / 2);
        scale = 1;
    } else if (strcmp(s->storage, "float-quantized") == 0
               || strcmp(s->storage, "int-quantized") == 0) {
        if (s->num_bits != 8)
            return 0;
        elements = n * k;
        if (!s->symmetric)
            zeros = rows * groups;
    } else {
        return 0;
    }
    return elements + rows * groups * scale + zeros;
}

/* The word of a format that this may be; NULL: none. */
static const char *
scheme_word(const struct moe_scheme *s, double scale)
{
    static const struct {
        uint32_t    group;
        const char *even, *odd;
    } four[] = { { 32, "int4-g32", "int4-g32z" },
                 { 64, "int4-g64", "int4-g64z" },
                 { 128, "int4-g128", "int4-g128z" } };
    size_t i;

    if (strcmp(s->storage, "pack-quantized") == 0 && s->num_bits == 4) {
        for (i = 0; i < 3; i++)
            if (s->group_size == four[i].group)
                return s->symmetric ? four[i].even : four[i].odd;
        return NULL;
    }
    if (strcmp(s->storage, "mxfp4-pack-quantized") == 0 && s->num_bits == 4
        && s->group_size == 32 && s->symmetric)
        return "mxfp4";
    if (s->num_bits != 8 || !s->symmetric)
        return NULL;
    if (strcmp(s->strategy, "channel") == 0)
        return strcmp(s->storage, "float-quantized") == 0 ? "fp8-channel"
                                                          : "int8";
    if (strcmp(s->strategy, "block") == 0
        && strcmp(s->storage, "float-quantized") == 0)
        return scale > 2 ? "fp8" : "fp8-e4m3-block";
    return NULL;
}

moe_status
moe_stored_open(const struct moe_json *config, const struct moe_arch *a,
                struct moe_stored **out, struct moe_error *err)
{
    struct moe_schemes *schemes = NULL;
    struct moe_json     q = { NULL, config->file, "quantization_config." };
    const char         *method = "";
    struct moe_stored  *s;
    moe_status          status;

    *out = NULL;
    status = moe_schemes_parse(config, &schemes, err);
    if (status != MOE_OK || schemes == NULL)
        return status;
    /* a method of other engines: its word is guessed from its name */
    if (moe_schemes_unsupported(schemes) != NULL) {
        moe_schemes_free(schemes);
        return MOE_OK;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        moe_schemes_free(schemes);
        return moe_fail(err, MOE_E_NOMEM, 0, "no memory for a plan");
    }
    s->schemes = schemes;
    s->a = a;
    (void) moe_json_object_or(config, "quantization_config", &q.obj, NULL);
    if (q.obj != NULL)
        (void) moe_json_text_or(&q, "quant_method", "", &method, NULL);
    s->scale = strcmp(method, "fp8") == 0
                       || strcmp(moe_stored_dtype(config), "f32") == 0
                   ? 4 : 2;
    *out = s;
    return MOE_OK;
}

void
moe_stored_close(struct moe_stored *s)
{
    if (s == NULL)
        return;
    moe_schemes_free(s->schemes);
    free(s);
}

/* Bits an element of a matrix, 0: plain, as the model's dtype says. */
moe_status
moe_stored_bits(struct moe_stored *s, uint32_t cls, uint32_t tensor,
                uint32_t layer, uint32_t expert, uint64_t n, uint64_t k,
                double *bits, struct moe_error *err)
{
    struct moe_scheme scheme;
    char              name[1024];
    const char       *word;
    size_t            len;
    int32_t           group;
    double            bytes;
    moe_status        status;

    *bits = 0;
    status = moe_arch_name(s->a, tensor, layer, expert, name, sizeof(name));
    if (status != MOE_OK)
        return moe_fail(err, MOE_E_INTERNAL, 0, "%s: no name for tensor %u",
                        s->a->family, tensor);
    len = strlen(name);
    if (len > 7 && strcmp(name + len - 7, ".weight") == 0)
        name[len - 7] = '\0';
    status = moe_schemes_match(s->schemes, name, &group, err);
    if (status != MOE_OK)
        return status;
    if (group < 0) {
        if (n > 1) /* a shared expert's gate: plain by every word */
            s->seen[cls] |= 1;
        return MOE_OK;
    }
    status = moe_schemes_get(s->schemes, group, name, "", &scheme, err);
    if (status != MOE_OK)
        return status;
    bytes = scheme_bytes(&scheme, s->scale, (double) n, (double) k);
    if (bytes <= 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "quantization_config: what \"%s\" takes, stored as "
                        "%s by %s in %u bits, cannot be told", name,
                        scheme.storage, scheme.strategy, scheme.num_bits);
    *bits = 8 * bytes / ((double) n * (double) k);
    word = scheme_word(&scheme, s->scale);
    if ((s->seen[cls] & 2) == 0)
        s->word[cls] = word;
    else if (word == NULL || s->word[cls] == NULL
             || strcmp(word, s->word[cls]) != 0)
        s->word[cls] = NULL;
    s->seen[cls] |= 2;
    return MOE_OK;
}

/* "f32", "f16" or "bf16", by the name that transformers gives it now or gave
 * it before; what is not said is bf16, as of every family here. */
const char *
moe_stored_dtype(const struct moe_json *config)
{
    const char *dtype = "";

    (void) moe_json_text_or(config, "dtype", "", &dtype, NULL);
    if (dtype[0] == '\0')
        (void) moe_json_text_or(config, "torch_dtype", "bfloat16", &dtype,
                                NULL);
    return strcmp(dtype, "float32") == 0   ? "f32"
           : strcmp(dtype, "float16") == 0 ? "f16"
                                           : "bf16";
}

/* Whether the format gives every matrix of a class the bytes it has. */
static int
says_it(const struct moe_sketch *m, uint32_t cls, const char *word)
{
    struct moe_formats f;
    uint32_t           i;

    if (moe_formats_read(word, &f, NULL) != MOE_OK)
        return 0;
    for (i = 0; i < m->n_m; i++) {
        struct moe_matrix x = m->m[i];

        /* attention follows every word for all */
        if (x.cls == cls && !x.vector
            && (x.bits <= 0
                || fabs(moe_format_bytes(f.of[MOE_PLAN_ATTENTION], &x)
                        - (double) x.n * (double) x.k * (double) x.count
                              * x.bits / 8) > 0.01))
            return 0;
    }
    return 1;
}

void
moe_stored_words(const struct moe_stored *s, const struct moe_json *config,
                 struct moe_sketch *m)
{
    const char *plain = moe_stored_dtype(config), *word;
    size_t      at = 0;
    uint32_t    c, i;

    /* whatever is plain, has its bits too: a class may be partly so */
    for (i = 0; i < m->n_m; i++)
        if (m->m[i].bits <= 0 && !m->m[i].vector)
            m->m[i].bits = strcmp(plain, "f32") == 0 ? 32 : 16;
    for (c = 0; c < MOE_PLAN_CLASSES; c++) {
        if ((s->seen[c] & 2) == 0)
            continue;
        word = s->seen[c] == 2 && s->word[c] != NULL
                       && says_it(m, c, s->word[c])
                   ? s->word[c] : "stored";
        at += (size_t) snprintf(m->format + at, sizeof(m->format) - at,
                                "%s=%s,", moe_plan_class_name(c), word);
        if (at >= sizeof(m->format))
            break;
    }
    if (at < sizeof(m->format))
        at += (size_t) snprintf(m->format + at, sizeof(m->format) - at, "%s%s",
                                at > 0 ? "rest=" : "", plain);
    if (at >= sizeof(m->format))
        snprintf(m->format, sizeof(m->format), "stored");
}
