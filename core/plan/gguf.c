/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf.c - a GGUF file's header as a planner needs it: sizes and types.
 *
 * Reads metadata and the table of tensors, never a weight.  The layout is
 * that of the ggml project's specification of GGUF 2 and 3: little-endian,
 * strings with a 64-bit length, values tagged with their type.  A file's
 * lengths are not believed: what is skipped is bounded by the file's size.
 * A plan needs no more, so a file that ends within its weights can be planned;
 * how much it lacks is told.
 */
#include "plan/shape.h"

#include "model/family.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TENSORS_MAX 200000u
#define ROWS_MAX    (1ull << 32) /* far beyond any; products stay in range */
#define PARAMS_MAX  1e16
#define DATA_MAX    1e17 /* bytes */
#define ALIGN_MAX   (1u << 20)

/* The numbers that are wanted, by the end of their key. */
enum {
    K_HIDDEN, K_LAYERS, K_CONTEXT, K_HEADS, K_KV_HEADS, K_KEY, K_VALUE,
    K_EXPERTS, K_USED, K_WIDTH, K_WINDOW, K_KV_LORA, K_ROPE, K_KEY_MLA,
    K_VALUE_MLA, K_ALIGN, K_COUNT
};

static const char *const keys[K_COUNT] = {
    ".embedding_length", ".block_count", ".context_length",
    ".attention.head_count", ".attention.head_count_kv",
    ".attention.key_length", ".attention.value_length", ".expert_count",
    ".expert_used_count", ".expert_feed_forward_length",
    ".attention.sliding_window", ".attention.kv_lora_rank",
    ".rope.dimension_count", ".attention.key_length_mla",
    ".attention.value_length_mla",
    ".alignment", /* of "general": of the data behind the header */
};

struct file {
    FILE             *f;
    const char       *name; /* as messages show it */
    uint64_t          size, left; /* bytes */
    uint64_t          data; /* bytes of tensors that the header tells of */
    uint64_t          value[K_COUNT];
    uint32_t          have; /* bits of value */
    char              arch[32];
    struct moe_error *err;
};

static moe_status
cut(const struct file *f)
{
    return moe_fail(f->err, MOE_E_CORRUPT, 0,
                    "%s: ends within its header, or a length in it is wrong",
                    f->name);
}

static moe_status
take(struct file *f, void *to, uint64_t n)
{
    if (n > f->left || fread(to, 1, n, f->f) != n)
        return cut(f);
    f->left -= n;
    return MOE_OK;
}

static moe_status
skip(struct file *f, uint64_t n)
{
    if (n > f->left || fseeko(f->f, (off_t) n, SEEK_CUR) != 0)
        return cut(f);
    f->left -= n;
    return MOE_OK;
}

/* A string's first bytes, the rest passed over. */
static moe_status
text(struct file *f, char *buf, size_t size)
{
    uint64_t   n, keep;
    moe_status st = take(f, &n, 8);

    if (st != MOE_OK)
        return st;
    keep = n < size - 1 ? n : size - 1;
    st = take(f, buf, keep);
    buf[keep] = '\0';
    return st == MOE_OK ? skip(f, n - keep) : st;
}

/* Bytes of a value by its type; 0: a string, an array or unknown. */
static uint32_t
width(uint32_t type)
{
    static const uint8_t bytes[13] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

    return type < 13 ? bytes[type] : 0;
}

static moe_status
skip_array(struct file *f)
{
    char       word[8];
    uint32_t   type;
    uint64_t   n, i;
    moe_status st = take(f, &type, 4);

    if (st == MOE_OK)
        st = take(f, &n, 8);
    if (st != MOE_OK)
        return st;
    if (width(type) != 0)
        return n > f->left ? cut(f) : skip(f, n * width(type));
    if (type != 8)
        return moe_fail(f->err, MOE_E_UNSUPPORTED, 0,
                        "%s: an array of arrays in its metadata", f->name);
    for (i = 0; i < n && st == MOE_OK; i++)
        st = text(f, word, sizeof(word));
    return st;
}

static moe_status
pair(struct file *f)
{
    char       key[128], word[32];
    uint32_t   type, i;
    uint64_t   v = 0;
    size_t     n, tail;
    moe_status st = text(f, key, sizeof(key));

    if (st == MOE_OK)
        st = take(f, &type, 4);
    if (st != MOE_OK)
        return st;
    if (type == 8) {
        st = text(f, word, sizeof(word));
        if (st == MOE_OK && strcmp(key, "general.architecture") == 0)
            snprintf(f->arch, sizeof(f->arch), "%s", word);
        return st;
    }
    n = strlen(key);
    for (i = 0; i < K_COUNT; i++) {
        tail = strlen(keys[i]);
        /* ARCH.key: nothing but the name before it */
        if (n > tail && strcmp(key + n - tail, keys[i]) == 0
            && strchr(key, '.') == key + n - tail)
            break;
    }
    if (type == 9) {
        char shown[MOE_SHOW_MAX + 4];

        if (i < K_COUNT)
            return moe_fail(f->err, MOE_E_UNSUPPORTED, 0,
                            "%s: %s differs from layer to layer", f->name,
                            moe_show(key, shown));
        return skip_array(f);
    }
    if (width(type) == 0)
        return moe_fail(f->err, MOE_E_CORRUPT, 0,
                        "%s: a value of type %u, which does not exist",
                        f->name, type);
    if (i == K_COUNT || type == 6 || type == 12 || type == 7)
        return skip(f, width(type));
    st = take(f, &v, width(type));
    f->value[i] = v;
    f->have |= 1u << i;
    return st;
}

/* Bits of an element of a ggml type, 0: not known. */
static double
bits_of(uint32_t type)
{
    static const struct {
        uint32_t type;
        double   bits;
    } known[] = {
        { 0, 32 },      { 1, 16 },      { 2, 4.5 },    { 3, 5 },
        { 6, 5.5 },     { 7, 6 },       { 8, 8.5 },    { 9, 9 },
        { 10, 2.625 },  { 11, 3.4375 }, { 12, 4.5 },   { 13, 5.5 },
        { 14, 6.5625 }, { 15, 9.125 },  { 16, 2.0625 }, { 17, 2.3125 },
        { 18, 3.0625 }, { 19, 1.5625 }, { 20, 4.5 },   { 21, 3.4375 },
        { 22, 2.5625 }, { 23, 4.25 },   { 24, 8 },     { 25, 16 },
        { 26, 32 },     { 27, 64 },     { 28, 64 },    { 29, 1.75 },
        { 30, 16 },     { 34, 1.6875 }, { 35, 2.0625 }, { 39, 4.25 },
    };
    size_t i;

    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].type == type)
            return known[i].bits;
    return 0;
}

static int
class_of(const char *name)
{
    const char *part = strchr(name, '.');

    if (strcmp(name, "token_embd.weight") == 0)
        return (int) MOE_PLAN_EMBED;
    if (strcmp(name, "output.weight") == 0)
        return (int) MOE_PLAN_OUTPUT;
    if (strstr(name, "norm") != NULL)
        return MOE_PLAN_NORMS;
    if (strncmp(name, "blk.", 4) != 0)
        return -1;
    part = strchr(part + 1, '.');
    if (part == NULL)
        return -1;
    part++;
    if (strncmp(part, "attn_", 5) == 0)
        return MOE_PLAN_ATTENTION;
    if (strncmp(part, "ffn_", 4) == 0 && strstr(part, "shexp") != NULL)
        return MOE_PLAN_SHARED;
    if (strncmp(part, "ffn_gate_inp", 12) == 0
        || strncmp(part, "exp_probs_b", 11) == 0)
        return MOE_PLAN_ROUTER;
    if (strncmp(part, "ffn_", 4) == 0 && strstr(part, "_exps") != NULL)
        return MOE_PLAN_EXPERTS;
    return strncmp(part, "ffn_", 4) == 0 ? (int) MOE_PLAN_DENSE : -1;
}

/* The data reach as far as this tensor does, at least. */
static void
behind(struct file *f, const uint64_t *dim, double bits, uint64_t offset)
{
    double end = (double) offset
                 + (double) dim[0] * (double) dim[1] * (double) dim[2]
                       * (double) dim[3] * bits / 8;

    if (end > DATA_MAX)
        end = DATA_MAX;
    if ((uint64_t) end > f->data)
        f->data = (uint64_t) end;
}

/* Bytes of the data that the file lacks: a download that was broken off. */
static uint64_t
lacks(const struct file *f)
{
    uint64_t head = f->size - f->left, align = 32;

    if (f->have >> K_ALIGN & 1 && f->value[K_ALIGN] > 0
        && f->value[K_ALIGN] <= ALIGN_MAX)
        align = f->value[K_ALIGN];
    head = (head + align - 1) / align * align + f->data;
    return head > f->size ? head - f->size : 0;
}

static moe_status
tensor(struct file *f, struct moe_sketch *s)
{
    char       name[128], shown[MOE_SHOW_MAX + 4];
    uint32_t   dims, type, i, layer = UINT32_MAX;
    uint64_t   dim[4] = { 1, 1, 1, 1 }, offset, count = 1, used = 1;
    uint64_t   rows;
    double     bits;
    int        cls, vector;
    moe_status st = text(f, name, sizeof(name));

    if (st == MOE_OK)
        st = take(f, &dims, 4);
    if (st == MOE_OK && (dims == 0 || dims > 4))
        return cut(f);
    for (i = 0; st == MOE_OK && i < dims; i++)
        st = take(f, &dim[i], 8);
    if (st == MOE_OK)
        st = take(f, &type, 4);
    if (st == MOE_OK)
        st = take(f, &offset, 8);
    if (st != MOE_OK)
        return st;
    for (i = 0; i < 4; i++)
        if (dim[i] == 0 || dim[i] > MOE_MAX_VOCAB)
            return cut(f);
    bits = bits_of(type);
    behind(f, dim, bits, offset);
    if (strncmp(name, "rope_", 5) == 0 || strstr(name, ".rope_") != NULL)
        return MOE_OK; /* a table, no parameter */
    cls = class_of(name);
    if (cls < 0)
        return moe_fail(f->err, MOE_E_UNSUPPORTED, 0,
                        "%s: tensor %s: what it is for is not known", f->name,
                        moe_show(name, shown));
    if (bits <= 0)
        return moe_fail(f->err, MOE_E_UNSUPPORTED, 0,
                        "%s: tensor %s: ggml's type %u is not known",
                        f->name, moe_show(name, shown), type);
    if (strncmp(name, "blk.", 4) == 0
        && (sscanf(name, "blk.%9u.", &layer) != 1 || layer >= s->n_layers))
        return moe_fail(f->err, MOE_E_CORRUPT, 0,
                        "%s: tensor %s: there are %u layers", f->name,
                        moe_show(name, shown), s->n_layers);
    vector = dims == 1 || cls == MOE_PLAN_NORMS
             || strstr(name, ".bias") != NULL;
    if (cls == MOE_PLAN_EXPERTS) {
        count = vector ? dim[1] : dim[2];
        used = s->top_k;
        if (count != s->n_experts)
            return moe_fail(f->err, MOE_E_CORRUPT, 0,
                            "%s: tensor %s: %llu experts, but expert_count "
                            "is %u", f->name, moe_show(name, shown),
                            (unsigned long long) count, s->n_experts);
        s->layers[layer].ffn = MOE_FFN_MOE;
        if (!vector && strstr(name, "_up") != NULL)
            s->expert_width = (uint32_t) dim[1];
        dim[vector ? 1 : 2] = 1;
    } else if (cls == MOE_PLAN_SHARED && strstr(name, "_up") != NULL) {
        s->shared_width = (uint32_t) dim[1];
    } else if (cls == MOE_PLAN_DENSE && strstr(name, "_up.") != NULL) {
        s->layers[layer].ffn_width = (uint32_t) dim[1];
    } else if (cls == MOE_PLAN_EMBED) {
        s->vocab = (uint32_t) dim[1];
        used = 0;
    } else if (cls == MOE_PLAN_OUTPUT) {
        s->tied = 0;
    }
    /* ggml names the row's length first; a third dimension (heads of a
     * latent cache) is so many matrices */
    rows = dim[1] * dim[2];
    if (rows > ROWS_MAX || rows * dim[3] > ROWS_MAX)
        return cut(f);
    rows *= dim[3];
    if (vector) {
        rows *= dim[0];
        dim[0] = 1;
    }
    if (!moe_sketch_add_stored(s, (uint32_t) cls, vector, rows, dim[0], count,
                               used, bits))
        return moe_fail(f->err, MOE_E_UNSUPPORTED, 0,
                        "%s: more than %u kinds of matrices", f->name,
                        MOE_SHAPE_MATRICES);
    return MOE_OK;
}

static uint32_t
get(const struct file *f, uint32_t key, uint32_t fallback)
{
    return f->have >> key & 1 ? (uint32_t) f->value[key] : fallback;
}

/* Metadata to the sketch's sizes. */
static moe_status
sizes(struct file *f, struct moe_sketch *s)
{
    static const struct {
        uint32_t key;
        uint64_t max;
        int      must;
    } limits[] = {
        { K_HIDDEN, MOE_MAX_HIDDEN, 1 }, { K_LAYERS, MOE_MAX_LAYERS, 1 },
        { K_CONTEXT, MOE_MAX_CONTEXT, 1 }, { K_HEADS, 65536, 1 },
        { K_KV_HEADS, 65536, 0 }, { K_KEY, 65536, 0 }, { K_VALUE, 65536, 0 },
        { K_EXPERTS, MOE_MAX_EXPERTS, 0 }, { K_KV_LORA, 65536, 0 },
        { K_ROPE, 65536, 0 }, { K_KEY_MLA, 65536, 0 },
        { K_VALUE_MLA, 65536, 0 },
    };
    uint32_t l, window;
    size_t   i;

    for (i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        uint32_t k = limits[i].key;

        if ((f->have >> k & 1) == 0 && !limits[i].must)
            continue;
        if ((f->have >> k & 1) == 0)
            return moe_fail(f->err, MOE_E_CORRUPT, 0, "%s: ARCH%s is missing",
                            f->name, keys[k]);
        if (f->value[k] > limits[i].max || (limits[i].must
                                            && f->value[k] == 0))
            return moe_fail(f->err, MOE_E_CORRUPT, 0,
                            "%s: ARCH%s: %llu is out of range", f->name,
                            keys[k], (unsigned long long) f->value[k]);
    }
    snprintf(s->family, sizeof(s->family), "%.31s", f->arch);
    s->hidden = get(f, K_HIDDEN, 0);
    s->n_layers = get(f, K_LAYERS, 0);
    s->max_context = get(f, K_CONTEXT, 0);
    s->heads = get(f, K_HEADS, 0);
    s->kv_heads = get(f, K_KV_HEADS, s->heads);
    s->n_experts = get(f, K_EXPERTS, 0);
    s->top_k = get(f, K_USED, 0);
    s->head_dim = get(f, K_KEY, s->hidden / s->heads);
    s->v_dim = get(f, K_VALUE, s->head_dim);
    s->kv_lora = get(f, K_KV_LORA, 0);
    s->tied = 1; /* until there is an output.weight */
    if (s->n_experts > 0
        && (s->top_k == 0 || s->top_k > s->n_experts))
        return moe_fail(f->err, MOE_E_CORRUPT, 0,
                        "%s: expert_used_count %u of %u experts", f->name,
                        s->top_k, s->n_experts);
    if (s->kv_heads == 0 || s->head_dim == 0)
        return moe_fail(f->err, MOE_E_CORRUPT, 0,
                        "%s: heads of width 0, or none for keys", f->name);
    if (s->kv_lora != 0) {
        s->rope_dim = get(f, K_ROPE, 0);
        s->head_dim = get(f, K_KEY_MLA, s->head_dim);
        s->v_dim = get(f, K_VALUE_MLA, s->v_dim);
        if (s->rope_dim == 0 || s->rope_dim >= s->head_dim)
            return moe_fail(f->err, MOE_E_CORRUPT, 0,
                            "%s: rope.dimension_count %u of a head of %u",
                            f->name, s->rope_dim, s->head_dim);
        s->nope_dim = s->head_dim - s->rope_dim;
        s->kv_heads = s->heads;
    }
    s->layers = calloc(s->n_layers, sizeof(*s->layers));
    if (s->layers == NULL)
        return moe_fail(f->err, MOE_E_NOMEM, ENOMEM,
                        "%s: no memory for %u layers", f->name, s->n_layers);
    /* gpt-oss slides in every other layer; the file does not say so */
    window = get(f, K_WINDOW, 0);
    for (l = 0; l < s->n_layers; l++)
        s->layers[l].window
            = strcmp(f->arch, "gpt-oss") == 0 && l % 2 != 0 ? 0 : window;
    return MOE_OK;
}

moe_status
moe_sketch_gguf(const char *path, struct moe_sketch *out,
                struct moe_error *err)
{
    char              shown[MOE_SHOW_PATH_MAX + 4];
    struct file       f = { .name = moe_show_path(path, shown), .err = err };
    struct moe_sketch s = { 0 };
    struct stat       st;
    char              magic[4];
    uint32_t          version, i;
    uint64_t          tensors = 0, pairs = 0, n;
    double            sum = 0;
    moe_status        status;

    f.f = fopen(path, "re");
    if (f.f == NULL || fstat(fileno(f.f), &st) != 0) {
        int why = errno;

        if (f.f != NULL)
            fclose(f.f);
        return moe_fail(err, MOE_E_IO, why, "%s: %s", f.name, strerror(why));
    }
    f.left = f.size = S_ISREG(st.st_mode) ? (uint64_t) st.st_size : 0;
    status = take(&f, magic, 4);
    if (status == MOE_OK && memcmp(magic, "GGUF", 4) != 0)
        status = moe_fail(err, MOE_E_CORRUPT, 0, "%s: no GGUF file", f.name);
    if (status == MOE_OK)
        status = take(&f, &version, 4);
    if (status == MOE_OK && version != 2 && version != 3)
        status = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                          "%s: GGUF of version %u; 2 and 3 are known",
                          f.name, version);
    if (status == MOE_OK)
        status = take(&f, &tensors, 8);
    if (status == MOE_OK)
        status = take(&f, &pairs, 8);
    if (status == MOE_OK && (tensors > TENSORS_MAX || pairs > f.left))
        status = cut(&f);
    for (n = 0; status == MOE_OK && n < pairs; n++)
        status = pair(&f);
    if (status == MOE_OK)
        status = sizes(&f, &s);
    for (n = 0; status == MOE_OK && n < tensors; n++)
        status = tensor(&f, &s);
    fclose(f.f);
    if (status == MOE_OK && s.vocab == 0)
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: tensor token_embd.weight is missing; is it "
                          "the first part of several?", f.name);
    for (i = 0; i < s.n_m; i++)
        sum += (double) s.m[i].n * (double) s.m[i].k * (double) s.m[i].count;
    if (status == MOE_OK && sum > PARAMS_MAX)
        status = cut(&f);
    if (status != MOE_OK) {
        moe_shape_free(&s);
        return status;
    }
    for (i = 0; i < s.n_m && s.tied; i++)
        if (s.m[i].cls == MOE_PLAN_EMBED)
            s.m[i].used = s.m[i].count;
    for (i = 0; i < s.n_layers; i++)
        s.n_moe += s.layers[i].ffn == MOE_FFN_MOE;
    if (s.n_moe == 0)
        s.n_experts = s.top_k = 0;
    snprintf(s.format, sizeof(s.format), "stored");
    s.file_lacks = lacks(&f);
    *out = s;
    return MOE_OK;
}
