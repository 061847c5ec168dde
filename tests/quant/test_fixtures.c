/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What other programs wrote: tables of the small floats by torch, single
 * matrices by compressed-tensors.  fixtures/README.md says what they hold.
 */

#include <json.h>

#include "common/half.h"
#include "quant_test.h"

static struct json_object *
fixture_json(const char *name)
{
    char                path[512];
    struct json_object *j;

    snprintf(path, sizeof(path), "tests/quant/fixtures/%s", name);
    j = json_object_from_file(tap_src(path));
    if (j == NULL) {
        printf("Bail out! cannot read %s\n", path);
        exit(1);
    }
    return j;
}

static uint32_t
u32_at(struct json_object *a, size_t i)
{
    return (uint32_t) json_object_get_int64(json_object_array_get_idx(a, i));
}

/* --------------------------------------------------------- small floats -- */

static void
test_half_table(struct json_object *all, const char *name, int bf16)
{
    struct json_object *table;
    char                key[32], sum[32];
    uint64_t            h = 0xcbf29ce484222325u;
    uint32_t            code, u, j;
    size_t              i, n;
    int                 same = 1;

    for (code = 0; code < 65536; code++) {
        float f = bf16 ? moe_bf16_widen((uint16_t) code)
                       : moe_f16_widen((uint16_t) code);

        if (isnan(f))
            continue;
        for (u = moe_bits_of(f), j = 0; j < 4; j++, u >>= 8)
            h = (h ^ (u & 0xff)) * 0x100000001b3u;
    }
    snprintf(key, sizeof(key), "%s_all", name);
    snprintf(sum, sizeof(sum), "%016llx", (unsigned long long) h);
    is_str(sum, json_object_get_string(json_object_object_get(all, key)),
           "%s: all numbers are torch's", name);
    snprintf(key, sizeof(key), "%s_round", name);
    table = json_object_object_get(all, key);
    n = json_object_array_length(table);
    for (i = 0; i < n; i++) {
        struct json_object *row = json_object_array_get_idx(table, i);
        float               f = moe_float_of(u32_at(row, 0));

        same &= (bf16 ? moe_bf16_round(f) : moe_f16_round(f))
                == u32_at(row, 1);
    }
    ok(same && n > 100, "%s: %d roundings are torch's", name, (int) n);
}

static void
test_fp8_table(struct json_object *all, const struct moe_quantizer_ops *ops,
               const char *name, float top)
{
    const struct moe_format *f;
    struct json_object      *table = json_object_object_get(all, name), *v;
    struct qt_matrix        *m;
    char                     key[32];
    float                   *w, one = 1.0f;
    size_t                   i, n;
    int                      same = 1;

    snprintf(key, sizeof(key), "fp8-%s", name);
    f = qt_format(ops, key);
    m = qt_matrix(ops, f, 1, 256, MOE_F32);
    for (i = 0; i < 256; i++)
        qt_bytes(m, 0)[i] = (unsigned char) i;
    memcpy(qt_bytes(m, 1), &one, 4);
    w = qt_decode(ops, f, m);
    for (i = 0; i < 256; i++) {
        v = json_object_array_get_idx(table, i);
        same &= v == NULL ? isnan(w[i])
                          : moe_bits_of(w[i])
                                == (uint32_t) json_object_get_int64(v);
    }
    ok(same && json_object_array_length(table) == 256,
       "%s: the value of each code is torch's", name);
    free(w);
    qt_free(m);

    /* beside the largest number each row has scale 1 */
    snprintf(key, sizeof(key), "%s_round", name);
    table = json_object_object_get(all, key);
    n = json_object_array_length(table);
    w = malloc(2 * n * sizeof(*w));
    if (w == NULL)
        exit(1);
    for (i = 0; i < n; i++) {
        w[2 * i] = moe_float_of(u32_at(json_object_array_get_idx(table, i), 0));
        w[2 * i + 1] = top;
    }
    snprintf(key, sizeof(key), "fp8-%s-channel", name);
    m = qt_encode(ops, qt_format(ops, key), n, 2, MOE_F32, w);
    is_int(m->status, MOE_OK, "%s: encodes", name);
    for (same = 1, i = 0; i < n; i++)
        same &= qt_bytes(m, 0)[2 * i]
                == u32_at(json_object_array_get_idx(table, i), 1);
    ok(same && n > 100, "%s: %d roundings are torch's", name, (int) n);
    free(w);
    qt_free(m);
}

/* Every code with every scale; rounding beside numbers that want scale 1. */
static void
test_mxfp4_table(struct json_object *all, const struct moe_quantizer_ops *ops)
{
    const struct moe_format *f = qt_format(ops, "mxfp4");
    struct json_object      *e2m1 = json_object_object_get(all, "e2m1");
    struct json_object      *e8m0 = json_object_object_get(all, "e8m0");
    struct json_object      *table = json_object_object_get(all, "e2m1_round");
    struct qt_matrix        *m = qt_matrix(ops, f, 256, 32, 0);
    float                   *w, want;
    size_t                   i, n;
    int                      same = json_object_array_length(e8m0) == 256
               && json_object_array_length(e2m1) == 16;

    for (i = 0; i < 256 * 16; i++)
        qt_bytes(m, 0)[i] = (unsigned char) (i % 8 * 2 | (i % 8 * 2 + 1) << 4);
    for (i = 0; i < 256; i++)
        qt_bytes(m, 1)[i] = (unsigned char) i;
    w = qt_decode(ops, f, m);
    for (i = 0; i < 256 * 32 && same; i++) {
        struct json_object *s = json_object_array_get_idx(e8m0, i / 32);

        want = s == NULL
                   ? NAN
                   : moe_float_of((uint32_t) json_object_get_int64(s))
                         * moe_float_of(u32_at(e2m1, i % 16));
        same &= isnan(want) ? isnan(w[i])
                            : moe_bits_of(w[i]) == moe_bits_of(want);
        if (!same)
            tap_diag("scale %d, code %d: %a", (int) i / 32, (int) i % 16,
                     (double) w[i]);
    }
    ok(same, "mxfp4: each code with each scale is the reference's product");
    free(w);
    qt_free(m);

    n = json_object_array_length(table);
    w = malloc(n * 32 * sizeof(*w));
    if (w == NULL)
        exit(1);
    for (i = 0; i < n * 32; i++)
        w[i] = i % 32 == 1 ? 6.0f : 0.5f;
    for (i = 0; i < n; i++) /* + 0: to the package -0 is 0 */
        w[i * 32] = moe_float_of(u32_at(json_object_array_get_idx(table, i), 0))
                    + 0.0f;
    m = qt_encode(ops, f, n, 32, 0, w);
    is_int(m->status, MOE_OK, "mxfp4: encodes");
    for (same = 1, i = 0; i < n; i++)
        same &= (qt_bytes(m, 0)[i * 16] & 15)
                    == u32_at(json_object_array_get_idx(table, i), 1)
                && qt_bytes(m, 1)[i] == 127;
    ok(same && n > 50, "mxfp4: %d roundings are the package's", (int) n);
    free(w);
    qt_free(m);
}

/* ----------------------------------------------------------- safetensors -- */

struct file {
    unsigned char      *bytes;
    const unsigned char *data;
    struct json_object *head;
};

struct entry {
    const unsigned char *data;
    uint64_t             len, dim[2];
    uint32_t             n_dims;
    const char          *dtype;
};

static void
file_open(struct file *f, const char *name)
{
    char     path[512];
    FILE    *in;
    uint64_t head, size;

    snprintf(path, sizeof(path), "tests/quant/fixtures/%s.safetensors", name);
    in = fopen(tap_src(path), "rb");
    if (in == NULL || fseek(in, 0, SEEK_END) != 0)
        goto bad;
    size = (uint64_t) ftell(in);
    rewind(in);
    f->bytes = malloc(size + 1);
    if (f->bytes == NULL || fread(f->bytes, 1, size, in) != size || size < 8)
        goto bad;
    memcpy(&head, f->bytes, 8);
    if (head > size - 8)
        goto bad;
    f->data = f->bytes + 8 + head;
    {
        char *text = malloc(head + 1);

        if (text == NULL)
            goto bad;
        memcpy(text, f->bytes + 8, head);
        text[head] = '\0';
        f->head = json_tokener_parse(text);
        free(text);
    }
    fclose(in);
    if (f->head != NULL)
        return;
bad:
    printf("Bail out! cannot read %s\n", path);
    exit(1);
}

/* 0: there is no such tensor. */
static int
file_find(const struct file *f, const char *name, struct entry *e)
{
    struct json_object *t = json_object_object_get(f->head, name), *a;
    uint64_t            from;
    uint32_t            i;

    memset(e, 0, sizeof(*e));
    if (t == NULL)
        return 0;
    a = json_object_object_get(t, "data_offsets");
    from = (uint64_t) json_object_get_int64(json_object_array_get_idx(a, 0));
    e->len = (uint64_t) json_object_get_int64(json_object_array_get_idx(a, 1))
             - from;
    e->data = f->data + from;
    e->dtype = json_object_get_string(json_object_object_get(t, "dtype"));
    a = json_object_object_get(t, "shape");
    e->n_dims = (uint32_t) json_object_array_length(a);
    for (i = 0; i < e->n_dims && i < 2; i++)
        e->dim[i] = (uint64_t) json_object_get_int64(
            json_object_array_get_idx(a, i));
    return 1;
}

static uint32_t
dtype_of(const char *name)
{
    return strcmp(name, "F32") == 0    ? MOE_F32
           : strcmp(name, "F16") == 0  ? MOE_F16
           : strcmp(name, "BF16") == 0 ? MOE_BF16
                                       : 0;
}

/* exact: encode() must give the package's own bytes. */
static void
test_matrix(const char *name, const char *plugin, const char *id, int exact)
{
    const struct moe_quantizer_ops *ops = qt_open(plugin);
    const struct moe_format        *f = qt_format(ops, id);
    struct file                     file;
    struct entry                    source, decoded, native, e;
    struct qt_matrix               *m, *m2;
    uint64_t                        n, k, i;
    uint32_t                        p, type;
    float                          *w, *src, theirs, ours;
    unsigned char                  *half;
    int                             shapes = 1;

    file_open(&file, name);
    if (!file_find(&file, "source", &source)
        || !file_find(&file, "decoded", &decoded)
        || !file_find(&file, "weight_scale", &e)) {
        printf("Bail out! %s is incomplete\n", name);
        exit(1);
    }
    n = source.dim[0];
    k = source.dim[1];
    type = dtype_of(e.dtype);
    m = qt_matrix(ops, f, n, k, type);
    for (p = 0; p < m->n_planes; p++) {
        if (!file_find(&file, m->plane[p].suffix, &e)) {
            ok(0, "%s: no %s in the file", name, m->plane[p].suffix);
            return;
        }
        shapes &= strcmp(e.dtype, m->plane[p].dtype) == 0
                  && e.n_dims == m->plane[p].n_dims
                  && e.dim[0] == m->plane[p].dim[0]
                  && e.dim[1] == m->plane[p].dim[1]
                  && e.len == m->plane[p].bytes;
        memcpy(qt_bytes(m, p), e.data, e.len);
    }
    ok(shapes, "%s: its planes are as the package has them", name);
    is_int(ops->check(NULL, f, &m->t, &m->err), MOE_OK, "%s: accepted", name);
    w = qt_decode(ops, f, m);
    ok(decoded.len == n * k * 4 && memcmp(w, decoded.data, decoded.len) == 0,
       "%s: decodes to the same bits", name);
    if (dtype_of(source.dtype) != MOE_F32) {
        half = malloc(n * k * 2);
        if (half == NULL || !file_find(&file, "decoded_native", &native))
            exit(1);
        ops->decode(NULL, f, &m->t, 0, n, dtype_of(native.dtype), half, k);
        ok(native.len == n * k * 2
               && memcmp(half, native.data, native.len) == 0,
           "%s: and so as %s", name, native.dtype);
        free(half);
    }
    ok(qt_affine_agrees(ops, f, m), "%s: the description as well", name);

    src = malloc(n * k * sizeof(*src));
    if (src == NULL)
        exit(1);
    if (dtype_of(source.dtype) == MOE_F32)
        memcpy(src, source.data, source.len);
    else if (dtype_of(source.dtype) == MOE_F16)
        moe_f16_widen_row(source.data, n * k, src);
    else
        moe_bf16_widen_row(source.data, n * k, src);
    /* the package adds a zero point of 0, so that -0 becomes 0 */
    for (i = 0; i < n * k; i++)
        src[i] += 0.0f;
    theirs = (float) qt_error(w, src, n * k);
    m2 = qt_encode(ops, f, n, k, type, src);
    free(w);
    w = qt_decode(ops, f, m2);
    ours = (float) qt_error(w, src, n * k);
    ok(ours <= theirs * 1.0001f, "%s: encoded here, error %.3f %% after %.3f",
       name, 100.0 * (double) ours, 100.0 * (double) theirs);
    if (exact)
        ok(qt_same_planes(m, m2, 0, 2), "%s: encoded here, the same bytes",
           name);
    for (i = 0; i < 4 && i < k; i++) /* row 1 begins with zeros */
        shapes &= w[k + i] == 0.0f;
    ok(shapes, "%s: zeros stay zeros", name);
    free(w);
    free(src);
    qt_free(m);
    qt_free(m2);
    json_object_put(file.head);
    free(file.bytes);
}

int
main(void)
{
    struct json_object *all = fixture_json("small-floats.json");

    test_half_table(all, "f16", 0);
    test_half_table(all, "bf16", 1);
    test_fp8_table(all, qt_open("fp8"), "e4m3", 448.0f);
    test_fp8_table(all, qt_open("fp8"), "e5m2", 57344.0f);
    test_mxfp4_table(all, qt_open("mxfp4"));
    json_object_put(all);

    test_matrix("int4-g32", "int4", "int4-g32", 0);
    test_matrix("int4-g64", "int4", "int4-g64", 0);
    test_matrix("int4-g128", "int4", "int4-g128", 0);
    test_matrix("int4-g32-asym", "int4", "int4-g32z", 0);
    test_matrix("int4-g64-asym", "int4", "int4-g64z", 0);
    test_matrix("int4-g128-asym", "int4", "int4-g128z", 0);
    test_matrix("fp8-tensor", "fp8", "fp8-e4m3", 0);
    test_matrix("fp8-channel", "fp8", "fp8-e4m3-channel", 1);
    test_matrix("fp8-channel-bf16", "fp8", "fp8-e4m3-channel", 0);
    test_matrix("fp8-block", "fp8", "fp8-e4m3-block", 0);
    test_matrix("mxfp4", "mxfp4", "mxfp4", 0);
    return tap_done();
}
