/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.c - planes of a file into the panels of a slot, and one row back.
 *
 * Owns the order of bytes in a slot (the kernels read what is written here).
 * Packing is exact: codes, scales and zero points keep their values.  Warm:
 * once for each load of an expert; no allocation, on all threads.
 */

#include <inttypes.h>
#include <math.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/lines.h"
#include "backend/cpu/simd.h"

struct packing {
    const struct cpu_layout *layout;
    uint8_t                 *slot;
    const struct moe_tensor *src[MOE_PARTS_MAX];
    uint32_t                 first[MOE_PARTS_MAX + 1]; /* item numbers */
};

/* ----------------------------------------------------------------- tiles -- */

/*
 * 64 bytes of each of 16 rows.  A tile is filled row by row, whole cache
 * lines at once, since rows that lie a power of two apart share a few lines
 * of the first cache; then it is transposed.
 */
#define TILE 64u
#define FETCH 512u /* bytes that rows are fetched ahead */

struct tile {
    _Alignas(64) uint8_t row[CPU_LANES][TILE];
};

typedef uint32_t u4 __attribute__((__vector_size__(16)));
typedef uint16_t h8 __attribute__((__vector_size__(16)));

/* Byte at of the rows on: 4 words of each, word after word. */
static void
weave_words(const struct tile *t, uint32_t at, uint8_t *dst)
{
    u4       a[4], b[4];
    uint32_t q, i;

    for (q = 0; q < CPU_LANES; q += 4) {
        for (i = 0; i < 4; i++)
            memcpy(&a[i], &t->row[q + i][at], 16);
        for (i = 0; i < 2; i++) {
            b[2 * i] = V_PICK(u4, a[i], a[i + 2], 0, 4, 1, 5);
            b[2 * i + 1] = V_PICK(u4, a[i], a[i + 2], 2, 6, 3, 7);
        }
        for (i = 0; i < 2; i++) {
            a[2 * i] = V_PICK(u4, b[i], b[i + 2], 0, 4, 1, 5);
            a[2 * i + 1] = V_PICK(u4, b[i], b[i + 2], 2, 6, 3, 7);
        }
        for (i = 0; i < 4; i++)
            memcpy(dst + i * 64 + q * 4, &a[i], 16);
    }
}

V_FN void
weave_step(const h8 *a, h8 *b)
{
    V_UNROLL
    for (unsigned i = 0; i < 4; i++) {
        b[2 * i] = V_PICK(h8, a[i], a[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        b[2 * i + 1] = V_PICK(h8, a[i], a[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
}

/* The same of 8 units of 2 bytes. */
static void
weave_halves(const struct tile *t, uint32_t at, uint8_t *dst)
{
    h8       a[8], b[8];
    uint32_t q, i;

    for (q = 0; q < CPU_LANES; q += 8) {
        for (i = 0; i < 8; i++)
            memcpy(&a[i], &t->row[q + i][at], 16);
        weave_step(a, b);
        weave_step(b, a);
        weave_step(a, b);
        for (i = 0; i < 8; i++)
            memcpy(dst + i * 32 + q * 2, &b[i], 16);
    }
}

/* bytes of each row from src on, ld apart; the rest of the tile is 0. */
static void
fill(struct tile *t, const uint8_t *src, uint64_t ld, uint32_t rows,
     uint64_t bytes)
{
    uint32_t r;

    if (rows == CPU_LANES && bytes >= TILE) {
        for (r = 0; r < CPU_LANES; r++) {
            memcpy(t->row[r], src + r * ld, TILE);
            __builtin_prefetch(src + r * ld + FETCH);
        }
        return;
    }
    memset(t, 0, sizeof(*t));
    for (r = 0; r < rows; r++)
        memcpy(t->row[r], src + r * ld, cpu_min(bytes, TILE));
}

/* A panel's part of a plane of elements. */
struct source {
    const struct moe_affine *a; /* NULL: in one run */
    const uint8_t           *elem;
    uint64_t                 row0, k, ld; /* ld: bytes of a row */
    uint32_t                 rows, bits;  /* of an element */
    int                      in_runs;
};

static struct source
source_of(const struct cpu_mat *m, const struct moe_affine *a,
          const struct moe_tensor *t, uint32_t p, uint32_t bits)
{
    struct source s = { .a = a, .elem = t->plane[MOE_PLANE_ELEM],
                        .k = m->k, .bits = bits };

    s.row0 = (uint64_t) p * CPU_LANES;
    s.rows = (uint32_t) cpu_min(CPU_LANES, m->n - s.row0);
    s.ld = a != NULL ? a->elem_row : (uint64_t) m->k * bits / 8;
    s.in_runs = a == NULL || a->block_k >= m->k
                || a->elem_block * 8 == (uint64_t) a->block_k * bits;
    return s;
}

/* Byte `at` of the rows' elements on. */
static void
fill_from(const struct source *s, uint64_t at, struct tile *t)
{
    const uint64_t bytes = cpu_ceil(s->k * s->bits, 8) - at;
    uint64_t       c, c1;
    uint32_t       r;

    if (s->in_runs) {
        fill(t, s->elem + s->row0 * s->ld + at, s->ld, s->rows, bytes);
        return;
    }
    memset(t, 0, sizeof(*t)); /* a stranger's blocks, of 4 or 8 bits */
    c1 = cpu_min(s->k, (at + TILE) * 8 / s->bits);
    for (r = 0; r < s->rows; r++)
        for (c = at * 8 / s->bits; c < c1; c++) {
            const uint64_t bit = c * s->bits - at * 8;

            t->row[r][bit / 8] |= (uint8_t)
                (cpu_affine_code(s->a, s->elem, s->row0 + r, c) << bit % 8);
        }
}

/* ------------------------------------------------------ numbers, and FP8 -- */

/* Units of 2 or 4 bytes: [unit][16]. */
static void
pack_units(const struct source *s, uint32_t unit, uint8_t *dst)
{
    const uint64_t bytes = cpu_align(cpu_ceil(s->k * s->bits, 8), unit);
    uint8_t        last[CPU_LANES * TILE], *d;
    struct tile    t;
    uint64_t       at;
    uint32_t       i;

    for (at = 0; at < bytes; at += TILE, dst += CPU_LANES * TILE) {
        d = bytes - at >= TILE ? dst : last;
        fill_from(s, at, &t);
        for (i = 0; i < TILE; i += 16) {
            if (unit == 4)
                weave_words(&t, i, d + CPU_LANES * i);
            else
                weave_halves(&t, i, d + CPU_LANES * i);
        }
        if (d == last)
            memcpy(dst, last, CPU_LANES * (bytes - at));
    }
}

static void
pack_plain(const struct cpu_mat *m, const struct moe_tensor *t, uint32_t p,
           uint8_t *dst)
{
    const uint32_t      size = m->kind == CPU_F32 ? 4 : 2;
    const struct source s = source_of(m, NULL, t, p, 8 * size);

    pack_units(&s, size, dst);
}

/* Where the scales of 16 rows begin; rows that are not there: the last. */
static void
scale_rows(const struct source *s, const struct moe_affine *a,
           const uint8_t *scale, const uint8_t *at[CPU_LANES])
{
    uint32_t r;

    for (r = 0; r < CPU_LANES; r++)
        at[r] = scale
                + (s->row0 + cpu_min(r, s->rows - 1)) / a->group_n
                      * a->scale_row;
}

/* Codes that are no number, infinities too: the scale that they have becomes
 * NaN, so that products need not look for them.  f: (groups, m->scale). */
static void
mark_not_numbers(const struct cpu_mat *m, const uint8_t *panel, float *f)
{
    const uint64_t bytes = UINT64_C(0x0101010101010101);
    const uint64_t ones = m->kind == CPU_E4M3 ? 0x7f : 0x7c; /* if so */
    const uint64_t mask = ones * bytes, low = (ones & -ones) * bytes;
    uint64_t       k0, k1, i, eight;

    for (k0 = 0; k0 < m->k; k0 = k1, f += m->scale) {
        k1 = cpu_min(k0 + m->group, cpu_align(m->k, 2));
        for (i = k0 * CPU_LANES; i < k1 * CPU_LANES; i += 8) {
            memcpy(&eight, panel + i, 8);
            eight = ((eight & mask) + low) & (bytes << 7);
            for (; eight != 0; eight &= eight - 1)
                f[(i + (uint64_t) __builtin_ctzll(eight) / 8) / 2 % m->scale]
                    = NAN;
        }
    }
}

/* Rows that are not there, and the column that makes k even, are 0. */
static void
pack_fp8(const struct cpu_mat *m, const struct moe_affine *a,
         const struct moe_tensor *t, uint32_t p, uint8_t *dst)
{
    const struct source s = source_of(m, a, t, p, 8);
    const uint8_t      *at[CPU_LANES];
    float *const f = (float *) (void *) (dst + cpu_fp8_bytes(m->k));
    uint64_t     g;
    uint32_t     r;

    pack_units(&s, 2, dst);
    if (a->scale != MOE_SCALE_NONE)
        scale_rows(&s, a, t->plane[MOE_PLANE_SCALE], at);
    for (g = 0; g < cpu_ceil(m->k, m->group); g++)
        for (r = 0; r < m->scale; r++)
            f[g * m->scale + r]
                = a->scale == MOE_SCALE_NONE ? 1.0f
                  : r < s.rows ? cpu_scale(a->scale, at[r] + g * a->scale_group)
                               : 0.0f;
    mark_not_numbers(m, dst, f);
}

/* ---------------------------------------------------------------- lines -- */

/* Nibbles 0 .. 7 of each word to 0 4 1 5 2 6 3 7, by two exchanges; then
 * flipped: signed codes become unsigned. */
static void
order_nibbles(struct tile *t, uint32_t flip)
{
    uint32_t *w = (uint32_t *) (void *) t->row, x, y;
    uint32_t  i;

    for (i = 0; i < sizeof(t->row) / 4; i++) {
        x = w[i];
        y = (x ^ x >> 8) & 0x0000ff00u;
        x ^= y ^ y << 8;
        y = (x ^ x >> 4) & 0x00f000f0u;
        x ^= y ^ y << 4;
        w[i] = x ^ flip;
    }
}

/* Unsigned codes of 8 bits become signed. */
static void
flip_bytes(struct tile *t, uint32_t flip)
{
    uint32_t *w = (uint32_t *) (void *) t->row;
    uint32_t  i;

    for (i = 0; i < sizeof(t->row) / 4; i++)
        w[i] ^= flip;
}

/* Codes to lines; columns from k on may be anything, since the activations
 * are 0 there. */
static void
pack_codes(const struct cpu_mat *m, const struct source *s, uint8_t *dst)
{
    const uint32_t per_run = CPU_RUN * s->bits / 8; /* bytes of a row */
    const uint64_t run = lines_run_bytes(m->kind);
    const uint64_t runs = cpu_ceil(m->k, CPU_RUN), per = m->group / CPU_RUN;
    const uint64_t tail = lines_tail_bytes(m->kind, m->scale, m->has_zero);
    uint64_t       i, left = per;
    struct tile    t;
    uint32_t       at = TILE, j;

    for (i = 0; i < runs; i++, at += per_run, left--, dst += run) {
        if (left == 0) {
            left = per;
            dst += tail;
        }
        if (at == TILE) {
            at = 0;
            fill_from(s, i * per_run, &t);
            if (s->bits == 4)
                order_nibbles(&t, s->a->elem == MOE_ELEM_INT ? 0x88888888u : 0);
            else if (s->a->elem == MOE_ELEM_UINT)
                flip_bytes(&t, 0x80808080u);
        }
        for (j = 0; j < per_run; j += 16)
            weave_words(&t, at + j, dst + CPU_LANES * j);
    }
}

/* size bytes of each of 16 rows. */
static void
copy_scales(const uint8_t *const at[CPU_LANES], uint64_t off, uint32_t size,
            uint8_t *dst)
{
    uint32_t r;

    switch (size) {
    case 1:
        for (r = 0; r < CPU_LANES; r++)
            dst[r] = at[r][off];
        break;
    case 2:
        for (r = 0; r < CPU_LANES; r++)
            memcpy(dst + 2 * r, at[r] + off, 2);
        break;
    default:
        for (r = 0; r < CPU_LANES; r++)
            memcpy(dst + 4 * r, at[r] + off, 4);
        break;
    }
}

static void
pack_lines(const struct cpu_mat *m, const struct moe_affine *a,
           const struct moe_tensor *t, uint32_t p, uint8_t *dst)
{
    const struct source s = source_of(m, a, t, p, m->kind == CPU_INT8 ? 8 : 4);
    const uint64_t groups = cpu_ceil(m->k, m->group);
    const uint32_t size = cpu_scale_size(m->scale);
    const uint8_t *scale[CPU_LANES], *zero[CPU_LANES];
    uint64_t       bit[CPU_LANES], g;
    uint32_t       r, z[CPU_LANES];
    uint8_t       *d = dst;

    pack_codes(m, &s, dst);
    scale_rows(&s, a, t->plane[MOE_PLANE_SCALE], scale);
    for (r = 0; r < CPU_LANES && m->has_zero; r++) {
        const uint64_t i = (s.row0 + cpu_min(r, s.rows - 1)) / a->group_n;

        zero[r] = (const uint8_t *) t->plane[MOE_PLANE_ZERO]
                  + i / a->zero_block_n * a->zero_row;
        bit[r] = (uint64_t) a->zero_bits * (i % a->zero_block_n);
    }
    for (g = 0; g < groups; g++) {
        const uint64_t end = cpu_min((g + 1) * m->group, m->k);

        d = dst + lines_group_off(m, g)
            + lines_bytes(m->kind, end - g * m->group);
        copy_scales(scale, g * a->scale_group, size, d);
        d += lines_scale_bytes(m->scale);
        if (!m->has_zero)
            continue;
        for (r = 0; r < CPU_LANES; r++)
            z[r] = cpu_bits(zero[r] + g * a->zero_group, bit[r],
                            a->zero_bits);
        if (m->kind == CPU_INT8)
            for (r = 0; r < CPU_LANES; r++)
                *d++ = (uint8_t) z[r];
        else
            for (r = 0; r < CPU_LANES / 2; r++)
                *d++ = (uint8_t) (z[r] | z[r + 8] << 4);
    }
    memset(d, 0, (size_t) (dst + m->panel_bytes - d));
}

/* ------------------------------------------------------------- a slot --- */

static void
pack_item(void *arg, uint32_t i, uint32_t slot)
{
    const struct packing *k = arg;
    uint32_t              part = 0, p;
    const struct cpu_mat *m;
    uint8_t              *dst;

    (void) slot;
    while (i >= k->first[part + 1])
        part++;
    p = i - k->first[part];
    m = &k->layout->part[part];
    dst = k->slot + (uintptr_t) m->data;
    if (m->kind == CPU_GENERIC) { /* p: a plane */
        uint64_t bytes[3];

        cpu_affine_bytes(&k->layout->affine[part], m->n, m->k, bytes);
        if (bytes[p] != 0)
            memcpy(dst + m->plane_off[p], k->src[part]->plane[p], bytes[p]);
        return;
    }
    dst += p * m->panel_bytes;
    switch (m->kind) {
    case CPU_F32:
    case CPU_F16:
    case CPU_BF16:
        pack_plain(m, k->src[part], p, dst);
        break;
    case CPU_INT4:
    case CPU_FP4:
    case CPU_INT8:
        pack_lines(m, &k->layout->affine[part], k->src[part], p, dst);
        break;
    default:
        pack_fp8(m, &k->layout->affine[part], k->src[part], p, dst);
        break;
    }
}

/* The planes are there and long enough for what will be read. */
static moe_status
check_source(const struct cpu_layout *l, uint32_t part,
             const struct moe_tensor *t, struct moe_error *err)
{
    const struct cpu_mat *m = &l->part[part];
    uint64_t              bytes[3] = { 0, 0, 0 };
    uint32_t              i;

    if (t == NULL || t->n != m->n || t->k != m->k)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "cpu: part %u must be %u x %u, got %" PRIu64
                        " x %" PRIu64,
                        part, m->n, m->k, t != NULL ? t->n : 0,
                        t != NULL ? t->k : 0);
    if (m->kind <= CPU_BF16)
        bytes[0] = (uint64_t) m->n * m->k * (m->kind == CPU_F32 ? 4 : 2);
    else
        cpu_affine_bytes(&l->affine[part], m->n, m->k, bytes);
    for (i = 0; i < 3; i++)
        if (bytes[i] != 0 && (t->plane[i] == NULL || t->len[i] < bytes[i]))
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "cpu: plane %u of part %u has %" PRIu64
                            " bytes, %" PRIu64 " are needed",
                            i, part, t->plane[i] != NULL ? t->len[i] : 0,
                            bytes[i]);
    return MOE_OK;
}

moe_status
cpu_slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
                const struct moe_weight_src *src, struct moe_error *err)
{
    const struct cpu_layout *l;
    struct packing           k;
    uint32_t                 i, items = 0;
    moe_status               st;

    if (slab == NULL || slab->dev != s->dev || slot >= slab->n_slots)
        return moe_fail(err, MOE_E_INVAL, 0, "cpu: there is no slot %u",
                        slot);
    l = &slab->layout;
    k.layout = l;
    k.slot = slab->base + slot * l->slot_bytes;
    for (i = 0; i < l->n_parts; i++) {
        st = check_source(l, i, src->part[i], err);
        if (st != MOE_OK)
            return st;
        k.src[i] = src->part[i];
        k.first[i] = items;
        items += l->kind == CPU_GENERIC ? 3 : l->part[i].panels;
    }
    for (; i <= MOE_PARTS_MAX; i++)
        k.first[i] = items;
    cpu_run(s->dev, items, l->slot_bytes, pack_item, &k);
    return MOE_OK;
}

/* ---------------------------------------------------------- one row back -- */

/* Columns [c, c + cols) of a group, w its lines, before the scale. */
static void
lines_codes(const struct cpu_mat *m, const uint8_t *w, uint32_t lane,
            uint64_t cols, int32_t zero, float *y)
{
    uint64_t j;

    for (j = 0; j < cols; j++) {
        const uint8_t  b = m->kind == CPU_INT8
                               ? w[j / 4 * LINE + lane * 4 + j % 4]
                               : w[j / 8 * LINE + lane * 4 + j % 4];
        const uint32_t q = j % 8 < 4 ? b & 15u : b >> 4;

        y[j] = m->kind == CPU_INT8  ? (float) ((int8_t) b - zero)
               : m->kind == CPU_FP4 ? cpu_e2m1(q)
                                    : (float) ((int32_t) q - zero);
    }
}

static void
lines_row(const struct cpu_mat *m, uint32_t r, float *y)
{
    const uint32_t lane = r % CPU_LANES, size = cpu_scale_size(m->scale);
    const uint8_t *panel = m->data + r / CPU_LANES * m->panel_bytes;
    uint64_t       c, j;

    for (c = 0; c < m->k; c += m->group) {
        const uint64_t cols = cpu_min(m->group, m->k - c);
        const uint8_t *w = panel + lines_group_off(m, c / m->group);
        const uint8_t *tail = w + lines_bytes(m->kind, cols);
        const uint8_t *z = tail + lines_scale_bytes(m->scale);
        const float    s = cpu_scale(m->scale, tail + size * lane);
        int32_t        zero = m->zero;

        if (m->has_zero)
            zero += m->kind == CPU_INT8 ? z[lane]
                    : lane < 8          ? z[lane] & 15
                                        : z[lane - 8] >> 4;
        lines_codes(m, w, lane, cols, zero, y + c);
        for (j = 0; j < cols; j++)
            y[c + j] *= s;
    }
}

static void
fp8_row(const struct cpu_mat *m, uint32_t r, float *y)
{
    const uint32_t lane = r % CPU_LANES;
    const uint8_t *p = m->data + r / CPU_LANES * m->panel_bytes;
    const float   *s = (const float *) (const void *)
        (p + cpu_fp8_bytes(m->k));
    uint64_t c;

    for (c = 0; c < m->k; c++) {
        const uint32_t b = p[cpu_fp8_at(c, lane)];
        const float    f = s[c / m->group * m->scale
                          + (m->scale == 1 ? 0 : lane)];
        const uint32_t h = m->kind == CPU_E5M2
                               ? b << 8
                               : (b & 0x80u) << 8 | (b & 0x7fu) << 7;

        y[c] = f * (moe_f16_widen((uint16_t) h)
                    * (m->kind == CPU_E5M2 ? 1.0f : 256.0f));
    }
}

void
cpu_row(const struct cpu_mat *m, uint32_t r, float scale, float *y)
{
    const uint32_t lane = r % CPU_LANES;
    const uint8_t *p = m->data + r / CPU_LANES * m->panel_bytes;
    uint64_t       c;
    uint16_t       h;

    switch (m->kind) {
    case CPU_F32:
        for (c = 0; c < m->k; c++)
            memcpy(&y[c], p + (c * CPU_LANES + lane) * 4, 4);
        break;
    case CPU_F16:
    case CPU_BF16:
        for (c = 0; c < m->k; c++) {
            memcpy(&h, p + (c * CPU_LANES + lane) * 2, 2);
            y[c] = m->kind == CPU_F16 ? moe_f16_widen(h) : moe_bf16_widen(h);
        }
        break;
    case CPU_INT4:
    case CPU_FP4:
    case CPU_INT8:
        lines_row(m, r, y);
        break;
    case CPU_GENERIC:
        cpu_affine_row(m, r, y);
        break;
    default:
        fp8_row(m, r, y);
        break;
    }
    if (scale != 1.0f)
        for (c = 0; c < m->k; c++)
            y[c] *= scale;
}
