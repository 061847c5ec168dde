/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.c - bytes that a matrix takes in a number format.
 *
 * The sizes are those of files: elements, scales and zero points, rounded
 * where the file rounds.  Sources: the formats' own specifications (OCP MX
 * for mxfp4, ggml's block layouts for q8_0 and q4_0, compressed-tensors and
 * AutoGPTQ for the rest). What moe-run's own quantizers write goes by their
 * names too.
 */
#include "plan/shape.h"
#include "support/near.h"

#include <math.h>
#include <string.h>

static const struct moe_store formats[] = {
    { "bf16", 16, 0, 0, 0, MOE_RATE_16, 0, 0 },
    { "f16", 16, 0, 0, 0, MOE_RATE_16, 0, 0 },
    { "f32", 32, 0, 0, 0, MOE_RATE_32, 0, 0 },
    { "fp8", 8, 128, 128, 32, MOE_RATE_8, 0, 0 },   /* blocks of 128 x 128 */
    { "fp8-channel", 8, 0, 0, 16, MOE_RATE_8, 0, 0 },
    { "fp8-e4m3-channel", 8, 0, 0, 16, MOE_RATE_8, 0, 0 },
    { "fp8-e5m2-channel", 8, 0, 0, 16, MOE_RATE_8, 0, 0 },
    { "fp8-e4m3-block", 8, 128, 128, 16, MOE_RATE_8, 0, 0 },
    { "fp8-e5m2-block", 8, 128, 128, 16, MOE_RATE_8, 0, 0 },
    { "int8", 8, 0, 0, 16, MOE_RATE_16, 0, 0 },     /* one scale a row */
    { "int4", 4, 128, 0, 16, MOE_RATE_16, 0, 0 },   /* symmetric */
    { "int4-g32", 4, 32, 0, 16, MOE_RATE_16, 0, 0 },
    { "int4-g64", 4, 64, 0, 16, MOE_RATE_16, 0, 0 },
    { "int4-g128", 4, 128, 0, 16, MOE_RATE_16, 0, 0 },
    { "int4-g32z", 4, 32, 0, 20, MOE_RATE_16, 0, 0 },
    { "int4-g64z", 4, 64, 0, 20, MOE_RATE_16, 0, 0 },
    { "int4-g128z", 4, 128, 0, 20, MOE_RATE_16, 0, 0 },
    { "gptq", 4, 128, 0, 20, MOE_RATE_16, 0, 0 },   /* with 4-bit zero points */
    { "awq", 4, 128, 0, 20, MOE_RATE_16, 0, 0 },
    { "mxfp4", 4, 32, 0, 8, MOE_RATE_16, 0, 0 },
    { "nvfp4", 4, 16, 0, 8, MOE_RATE_4, 0, 0 },
    { "q8_0", 8, 32, 0, 16, MOE_RATE_16, 0, 0 },
    { "q4_0", 4, 32, 0, 16, MOE_RATE_16, 0, 0 },
    { "stored", 16, 0, 0, 0, MOE_RATE_16, 0, 1 },
    { "8bit", 8, 0, 0, 0, MOE_RATE_8, 1, 0 },
    { "4bit", 4, 0, 0, 0, MOE_RATE_16, 1, 0 },
};
#define N_FORMATS (sizeof(formats) / sizeof(formats[0]))

MOE_API const char *
moe_plan_formats(void)
{
    return "bf16 f16 f32 fp8 fp8-channel fp8-e4m3-channel fp8-e5m2-channel "
           "fp8-e4m3-block fp8-e5m2-block int8 int4 int4-g32 int4-g64 "
           "int4-g128 int4-g32z int4-g64z int4-g128z gptq awq mxfp4 nvfp4 "
           "q8_0 q4_0 stored 8bit 4bit";
}

MOE_API const char *
moe_plan_class_name(uint32_t cls)
{
    static const char *const names[MOE_PLAN_CLASSES] = {
        "embeddings", "output",  "attention", "router",
        "experts",    "shared",  "dense",     "norms",
    };

    return cls < MOE_PLAN_CLASSES ? names[cls] : "?";
}

static const struct moe_store *
format_of(const char *word, size_t len)
{
    size_t i;

    for (i = 0; i < N_FORMATS; i++)
        if (strlen(formats[i].word) == len
            && strncmp(formats[i].word, word, len) == 0)
            return &formats[i];
    return NULL;
}

/* Router, embeddings, output and norms stay as they are in a file that is
 * quantized. */
static int
follows(uint32_t cls)
{
    return cls == MOE_PLAN_ATTENTION || cls == MOE_PLAN_EXPERTS
           || cls == MOE_PLAN_SHARED || cls == MOE_PLAN_DENSE;
}

static void
set_all(struct moe_formats *out, const struct moe_store *f, int only_unset)
{
    uint32_t c;

    for (c = 0; c < MOE_PLAN_CLASSES; c++)
        if (!only_unset || out->of[c] == NULL)
            out->of[c] = f->bits >= 16 || f->flat || follows(c) ? f
                                                                : &formats[0];
}

static moe_status
bad_word(const char *word, size_t len, const char *what, const char *known,
         struct moe_error *err)
{
    char text[64], near[128];

    snprintf(text, sizeof(text), "%.*s", (int) (len < 60 ? len : 60), word);
    moe_words_near(text, known, near, sizeof(near));
    moe_show(text, text);
    return moe_fail(err, MOE_E_INVAL, 0,
                    "there is no %s '%s'%s%s (known: %s)", what, text,
                    near[0] != '\0' ? "; did you mean " : "", near, known);
}

static moe_status
twice(const char *cls, struct moe_error *err)
{
    return moe_fail(err, MOE_E_INVAL, 0,
                    "a mixed format says '%s' twice; which is meant?", cls);
}

moe_status
moe_formats_of(const struct moe_sketch *m, const char *format,
               struct moe_formats *out, struct moe_error *err)
{
    if (format == NULL && m->format[0] == '\0')
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: how its weights are stored cannot be told from "
                        "its quantization_config; name a format (known: %s)",
                        m->name, moe_plan_formats());
    return moe_formats_read(format != NULL ? format : m->format, out, err);
}

moe_status
moe_formats_read(const char *text, struct moe_formats *out,
                 struct moe_error *err)
{
    const struct moe_store *f, *rest = NULL;
    size_t                   n, eq;
    uint32_t                 c;

    memset(out, 0, sizeof(*out));
    f = format_of(text, strlen(text));
    if (f != NULL) {
        set_all(out, f, 0);
        return MOE_OK;
    }
    if (strchr(text, '=') == NULL)
        return bad_word(text, strlen(text), "format", moe_plan_formats(),
                        err);
    for (; *text != '\0'; text += n + (text[n] == ',')) {
        n = strcspn(text, ",");
        eq = strcspn(text, "=");
        if (eq >= n || (text[n] == ',' && text[n + 1] == '\0'))
            return moe_fail(err, MOE_E_INVAL, 0,
                            "a mixed format is CLASS=FORMAT,... such as "
                            "experts=mxfp4,rest=bf16");
        f = format_of(text + eq + 1, n - eq - 1);
        if (f == NULL)
            return bad_word(text + eq + 1, n - eq - 1, "format",
                            moe_plan_formats(), err);
        if (eq == 4 && strncmp(text, "rest", 4) == 0) {
            if (rest != NULL)
                return twice("rest", err);
            rest = f;
            continue;
        }
        for (c = 0; c < MOE_PLAN_CLASSES; c++)
            if (strlen(moe_plan_class_name(c)) == eq
                && strncmp(moe_plan_class_name(c), text, eq) == 0)
                break;
        if (c == MOE_PLAN_CLASSES)
            return bad_word(text, eq, "class of weights",
                            "embeddings output attention router experts "
                            "shared dense norms rest", err);
        if (out->of[c] != NULL)
            return twice(moe_plan_class_name(c), err);
        out->of[c] = f;
    }
    set_all(out, rest != NULL ? rest : &formats[0], 1);
    return MOE_OK;
}

/* Of all copies of a matrix. */
double
moe_format_bytes(const struct moe_store *f, const struct moe_matrix *m)
{
    double n = (double) m->n, k = (double) m->k, count = (double) m->count;
    double groups, rows;

    if (f->stored && m->bits > 0)
        return count * n * k * m->bits / 8;
    if (f->flat)
        return count * n * k * f->bits / 8;
    if (m->vector)
        return count * n * (f->bits > 16 ? 4 : 2);
    if (m->n == 1 && f->bits < 16) /* a shared expert's gate: as a router */
        return count * k * 2;
    groups = f->group != 0 ? ceil(k / f->group) : 1;
    rows = f->block != 0 ? ceil(n / f->block) : n;
    return count
           * (n * ceil(k * f->bits / 8) + ceil(rows * groups * f->extra / 8));
}
