/* SPDX-License-Identifier: Apache-2.0 */
/*
 * synthetic.c - tensors of made-up bytes.
 *
 * Owns the generator.  A tensor's elements come from a table of 4096, which
 * is the quantile function of what they should look like; twelve bits of a
 * hash of the place choose among them, four elements a hash.  The hash is
 * splitmix64's, of a counter (Steele, Lea, Flood: Fast splittable pseudorandom
 * number generators, 2014).
 */
#include <checkpoint/synthetic.h>

#include <checkpoint/json.h>
#include <checkpoint/safetensors.h>
#include <support/half.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TABLE  4096u
#define LEVELS 64u    /* of a 4-bit code's quantiles */
#define GAMMA  0x9e3779b97f4a7c15u
#define NIBBLE_SIGMA 2.7 /* before rounding: codes reach from 1 to 15 */
#define E2M1_SIGMA   2.4 /* likewise: from -6 to 6 */
#define E4M3_SIGMA   112.0
#define E5M2_SIGMA   14336.0

/* What tensors with equal settings share. */
struct table {
    uint32_t fill, size; /* bytes of an element */
    char     dtype[16];
    double   value;
    uint8_t *at;   /* (TABLE, size) */
    double  *unit; /* (TABLE) of deviation 1; of MOE_MADE_ROUTER only */
};

struct entry {
    uint64_t          key;
    uint32_t          table, fill;
    double            value, skew;
    int               has_scheme;
    struct moe_scheme scheme;
};

struct moe_made {
    char                   *label;
    struct json_object     *config;
    uint64_t                seed;
    struct moe_tensor_info *info;  /* (n) */
    struct entry           *entry; /* (n) */
    size_t                  n, cap;
    uint64_t                offset;
    struct table           *tables;
    uint32_t                n_tables;
};

static uint64_t
mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --------------------------------------------------------------- tables -- */

/* z with P(N(0, 1) < z) = p, by bisection. */
static double
quantile(double p)
{
    double lo = -9, hi = 9;
    int    i;

    for (i = 0; i < 60; i++) {
        double z = (lo + hi) / 2;

        if (erfc(-z / sqrt(2.0)) / 2 < p)
            lo = z;
        else
            hi = z;
    }
    return (lo + hi) / 2;
}

static uint32_t
nibble(uint32_t level)
{
    long d = lround(NIBBLE_SIGMA * quantile((level + 0.5) / LEVELS));

    return (uint32_t) (8 + (d < -7 ? -7 : d > 7 ? 7 : d));
}

static const double e2m1[8] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 };

static uint32_t
e2m1_code(uint32_t level)
{
    double   z = E2M1_SIGMA * quantile((level + 0.5) / LEVELS);
    uint32_t code, best = 0;

    for (code = 1; code < 8; code++)
        if (fabs(e2m1[code] - fabs(z)) < fabs(e2m1[best] - fabs(z)))
            best = code;
    return best | (z < 0 ? 8u : 0);
}

/* The power of two below v, or that above it; which, says p of 0 to 1. */
static uint8_t
e8m0(double v, double p)
{
    int    e;
    double f = 2 * frexp(v, &e); /* v = f * 2^(e - 1), 1 <= f < 2 */

    return (uint8_t) (e - 1 + 127 + (p < (f * f - 1) / 3));
}

/* Magnitude of a code of an 8-bit float with `m` bits of mantissa. */
static double
fp8_value(uint32_t code, uint32_t m)
{
    uint32_t e = code >> m, f = code & ((1u << m) - 1);
    int      bias = m == 3 ? 7 : 15;

    return e == 0 ? ldexp(f, 1 - bias - (int) m)
                  : ldexp((1u << m) + f, (int) e - bias - (int) m);
}

/* The code nearest to v; never one that is no number. */
static uint8_t
fp8_code(double v, uint32_t m)
{
    uint32_t last = m == 3 ? 0x7e : 0x7b, code, best = 0;
    double   a = fabs(v);

    for (code = 0; code <= last; code++)
        if (fabs(fp8_value(code, m) - a) < fabs(fp8_value(best, m) - a))
            best = code;
    return (uint8_t) (best | (v < 0 ? 0x80u : 0));
}

static uint32_t
fp8_mantissa(const char *dtype)
{
    return strcmp(dtype, "F8_E4M3") == 0   ? 3
           : strcmp(dtype, "F8_E5M2") == 0 ? 2
                                           : 0;
}

double
moe_made_sigma(const char *dtype)
{
    double   sum = 0;
    uint32_t i;

    if (strcmp(dtype, "I32") == 0) {
        for (i = 0; i < LEVELS; i++)
            sum += pow((double) nibble(i) - 8, 2);
        return sqrt(sum / LEVELS);
    }
    if (strcmp(dtype, "U8") == 0) {
        for (i = 0; i < LEVELS; i++)
            sum += pow(e2m1[e2m1_code(i) & 7], 2);
        return sqrt(sum / LEVELS);
    }
    switch (fp8_mantissa(dtype)) {
    case 3:
        return E4M3_SIGMA;
    case 2:
        return E5M2_SIGMA;
    default:
        return strcmp(dtype, "F32") == 0 || strcmp(dtype, "F16") == 0
                       || strcmp(dtype, "BF16") == 0
                   ? 1 : 0;
    }
}

static void
put_float(uint8_t *to, const char *dtype, double v)
{
    float    f = (float) v;
    uint16_t h;

    if (dtype[0] == 'F' && strcmp(dtype, "F32") == 0) {
        memcpy(to, &f, sizeof(f));
        return;
    }
    h = dtype[0] == 'B' ? moe_f32_bf16(f) : moe_f32_f16(f);
    memcpy(to, &h, sizeof(h));
}

/* What entry i of a table is worth; i = 0 .. TABLE - 1 is equally likely. */
static void
fill_entry(struct table *t, uint32_t i)
{
    uint8_t *to = t->at + (size_t) i * t->size;
    double   z = 0, p = (i + 0.5) / TABLE;

    switch (t->fill) {
    case MOE_MADE_NIBBLES:
        *to = (uint8_t) (nibble(i % LEVELS) | nibble(i / LEVELS) << 4);
        return;
    case MOE_MADE_E2M1:
        *to = (uint8_t) (e2m1_code(i % LEVELS) | e2m1_code(i / LEVELS) << 4);
        return;
    case MOE_MADE_ZEROS:
        *to = 0x88;
        return;
    case MOE_MADE_BELL:
    case MOE_MADE_ROUTER:
        z = quantile(p);
        break;
    case MOE_MADE_SCALES:
        z = 0.75 + 0.5 * p;
        if (t->size == 1) {
            *to = e8m0(t->value, p);
            return;
        }
        break;
    default:
        z = 1;
        break;
    }
    if (fp8_mantissa(t->dtype) != 0)
        *to = fp8_code(z * moe_made_sigma(t->dtype), fp8_mantissa(t->dtype));
    else
        put_float(to, t->dtype, z * t->value);
}

/* Elements of such a dtype can be like that. */
static int
can_make(uint32_t fill, const char *dtype)
{
    switch (fill) {
    case MOE_MADE_NIBBLES:
    case MOE_MADE_ZEROS:
        return strcmp(dtype, "I32") == 0;
    case MOE_MADE_E2M1:
        return strcmp(dtype, "U8") == 0;
    case MOE_MADE_SCALES:
        if (strcmp(dtype, "U8") == 0)
            return 1;
        break;
    case MOE_MADE_BELL:
        if (fp8_mantissa(dtype) != 0)
            return 1;
        break;
    default:
        break;
    }
    return strcmp(dtype, "F32") == 0 || strcmp(dtype, "F16") == 0
           || strcmp(dtype, "BF16") == 0;
}

static moe_status
find_table(struct moe_made *m, const struct moe_made_tensor *w, uint32_t *out,
           struct moe_error *err)
{
    int           codes = w->fill == MOE_MADE_NIBBLES
                || w->fill == MOE_MADE_ZEROS || w->fill == MOE_MADE_E2M1;
    double        value = codes || fp8_mantissa(w->dtype) != 0 ? 0 : w->value;
    struct table *t;
    uint32_t      i;

    for (i = 0; i < m->n_tables; i++) {
        t = &m->tables[i];
        if (t->fill == w->fill && t->value == value
            && strcmp(t->dtype, w->dtype) == 0) {
            *out = i;
            return MOE_OK;
        }
    }
    if (!can_make(w->fill, w->dtype))
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: no random bytes can be made for \"%s\" of %s",
                        m->label, w->name, w->dtype);
    t = realloc(m->tables, (m->n_tables + 1) * sizeof(*t));
    if (t == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "%s: no memory", m->label);
    m->tables = t;
    t += m->n_tables;
    memset(t, 0, sizeof(*t));
    t->fill = w->fill;
    t->value = value;
    snprintf(t->dtype, sizeof(t->dtype), "%s", w->dtype);
    t->size = codes ? 1 : moe_safetensors_bits(w->dtype) / 8;
    t->at = malloc((size_t) TABLE * t->size);
    if (t->at == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "%s: no memory", m->label);
    for (i = 0; i < TABLE; i++)
        fill_entry(t, i);
    *out = m->n_tables++;
    if (w->fill != MOE_MADE_ROUTER)
        return MOE_OK;
    t->unit = malloc(TABLE * sizeof(*t->unit));
    if (t->unit == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "%s: no memory", m->label);
    for (i = 0; i < TABLE; i++)
        t->unit[i] = quantile((i + 0.5) / TABLE);
    return MOE_OK;
}

/* ----------------------------------------------------------------- list -- */

moe_status
moe_made_new(const char *label, struct json_object *config, uint64_t seed,
             struct moe_made **out, struct moe_error *err)
{
    struct moe_made *m = calloc(1, sizeof(*m));

    if (m != NULL)
        m->label = strdup(label);
    if (m == NULL || m->label == NULL) {
        free(m);
        json_object_put(config);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "%s: no memory", label);
    }
    m->config = config;
    m->seed = seed;
    *out = m;
    return MOE_OK;
}

void
moe_made_free(struct moe_made *m)
{
    size_t i;

    if (m == NULL)
        return;
    for (i = 0; i < m->n; i++)
        free((char *) (uintptr_t) m->info[i].name);
    for (i = 0; i < m->n_tables; i++) {
        free(m->tables[i].at);
        free(m->tables[i].unit);
    }
    free(m->tables);
    free(m->info);
    free(m->entry);
    json_object_put(m->config);
    free(m->label);
    free(m);
}

moe_status
moe_made_add(struct moe_made *m, const struct moe_made_tensor *w,
             struct moe_error *err)
{
    struct moe_tensor_info *t;
    struct entry           *e;
    uint64_t                bytes;
    uint32_t                table = 0;
    const char             *p;
    moe_status              st;

    if (moe_safetensors_dtype(w->dtype, strlen(w->dtype)) == NULL
        || w->n_dims > MOE_TENSOR_DIMS
        || moe_safetensors_size(w->dtype, w->dim, w->n_dims, &bytes) != 0)
        return moe_fail(err, MOE_E_INVAL, 0, "%s: tensor \"%s\": %u "
                        "dimensions of %s are no size", m->label, w->name,
                        w->n_dims, w->dtype);
    st = find_table(m, w, &table, err);
    if (st != MOE_OK)
        return st;
    if (m->n == m->cap) {
        size_t cap = m->cap == 0 ? 256 : 2 * m->cap;

        t = realloc(m->info, cap * sizeof(*t));
        if (t != NULL)
            m->info = t;
        e = realloc(m->entry, cap * sizeof(*e));
        if (e != NULL)
            m->entry = e;
        if (t == NULL || e == NULL)
            return moe_fail(err, MOE_E_NOMEM, ENOMEM, "%s: no memory",
                            m->label);
        m->cap = cap;
    }
    t = &m->info[m->n];
    e = &m->entry[m->n];
    memset(t, 0, sizeof(*t));
    memset(e, 0, sizeof(*e));
    t->name = strdup(w->name);
    if (t->name == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "%s: no memory", m->label);
    t->dtype = moe_safetensors_dtype(w->dtype, strlen(w->dtype));
    t->n_dims = w->n_dims;
    memcpy(t->dim, w->dim, sizeof(t->dim));
    t->offset = m->offset;
    t->bytes = bytes;
    m->offset += bytes;
    for (e->key = m->seed, p = w->name; *p != '\0'; p++)
        e->key = mix(e->key + (unsigned char) *p) + GAMMA;
    e->table = table;
    e->fill = w->fill;
    e->value = w->value;
    e->skew = w->skew;
    e->has_scheme = w->scheme != NULL;
    if (w->scheme != NULL)
        e->scheme = *w->scheme;
    m->n++;
    return MOE_OK;
}

const char *
moe_made_label(const struct moe_made *m)
{
    return m->label;
}

struct json_object *
moe_made_config(struct moe_made *m)
{
    struct json_object *config = m->config;

    m->config = NULL;
    return config;
}

const struct moe_tensor_info *
moe_made_list(const struct moe_made *m, size_t *n)
{
    *n = m->n;
    return m->info;
}

const struct moe_scheme *
moe_made_scheme(const struct moe_made *m, size_t i)
{
    return m->entry[i].has_scheme ? &m->entry[i].scheme : NULL;
}

/* ----------------------------------------------------------------- read -- */

/* Elements of four places [word, words) of a table's size, hot. */
#define MAKE(type)                                                            \
    do {                                                                      \
        const type *from = (const type *) (const void *) t->at;               \
        type       *to = (type *) dst;                                        \
                                                                              \
        for (; word < end; word++, to += 4) {                                 \
            uint64_t r = mix(key + word * GAMMA);                             \
            type     v[4] = {from[r & 4095], from[r >> 12 & 4095],            \
                             from[r >> 24 & 4095], from[r >> 36 & 4095]};     \
                                                                              \
            memcpy(to, v, sizeof(v));                                         \
        }                                                                     \
    } while (0)

static void
make_words(const struct table *t, uint64_t key, uint64_t word, uint64_t end,
           void *dst)
{
    if (t->size == 1)
        MAKE(uint8_t);
    else if (t->size == 2)
        MAKE(uint16_t);
    else
        MAKE(uint32_t);
}

/* A router's numbers, whose rows differ: element by element. */
static void
make_router(const struct moe_tensor_info *t, const struct entry *e,
            const struct table *table, uint64_t word, uint64_t end,
            uint8_t *dst)
{
    uint64_t cols = t->n_dims > 1 ? t->dim[1] : 1, i;
    int      j;

    for (; word < end; word++) {
        uint64_t r = mix(e->key + word * GAMMA);

        for (j = 0; j < 4; j++, dst += table->size) {
            uint64_t row = (word * 4 + (uint64_t) j) / cols;
            double   z = 0, v = table->unit[r >> (12 * j) & 4095];

            /* twelve uniform numbers: nearly bell-shaped, and symmetric */
            for (i = 0; i < 12; i++)
                z += (double) (mix(e->key ^ (row * 12 + i + 1) * GAMMA) >> 11)
                         * 0x1p-53
                     - 0.5;
            put_float(dst, table->dtype, v * e->value * exp(e->skew * z));
        }
    }
}

void
moe_made_read(const struct moe_made *m, size_t i, uint64_t from,
              uint64_t bytes, void *dst)
{
    const struct entry *e = &m->entry[i];
    const struct table *t = &m->tables[e->table];
    uint64_t            unit = 4 * (uint64_t) t->size, word = from / unit;
    uint8_t            *to = dst, part[16];

    while (bytes > 0) {
        uint64_t skip = from % unit, n = bytes / unit;
        int      whole = skip == 0 && n > 0 && (uintptr_t) to % t->size == 0;
        uint8_t *at = whole ? to : part;

        if (!whole)
            n = 1;
        if (e->fill == MOE_MADE_ROUTER && e->skew != 0)
            make_router(&m->info[i], e, t, word, word + n, at);
        else
            make_words(t, e->key, word, word + n, at);
        if (whole) {
            n *= unit;
        } else {
            n = unit - skip < bytes ? unit - skip : bytes;
            memcpy(to, part + skip, n);
        }
        to += n;
        from += n;
        bytes -= n;
        word = from / unit;
    }
}
