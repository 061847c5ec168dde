/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.h - what the files of the CPU backend share.
 *
 *   cpu.c       the plugin: table, device, memory, streams
 *   isa.c       which instruction set is used, and whether it is right
 *   layout.c    query; how a format lies in a slot; slabs
 *   pack.c      planes of a file -> a slot
 *   generic.c   any affine format, by interpretation
 *   task.c      work split over the host's threads; checks of buffers
 *   gemm.c ffn.c attention.c rope.c route.c rows.c   the operations
 *   body.h lines.h lines_body.h kernels_*.c   the arithmetic, once for each
 *               instruction set
 *   tiles_body.h tiles_amx.h kernels_amx.c   and of integers by many rows on
 *               matrix tiles
 *
 * Weights lie in panels of 16 rows (outputs) so that one vector holds the
 * same column of 16 rows.  A kernel then walks k in order with one fused
 * multiply-add a column and never sums across lanes: a result does not
 * depend on how many rows of x it was computed with, nor on the thread.
 */
#ifndef MOE_PLUGINS_BACKEND_CPU_CPU_H
#define MOE_PLUGINS_BACKEND_CPU_CPU_H

#include <moe/ops.h>
#include <moe/plugin.h>

#include "common/half.h"

#define CPU_LANES  16u /* rows of a panel                                     */
#define CPU_NP     4u  /* most panels of one call of a kernel                 */
#define CPU_TOKENS 24u /* most rows of x of one call of a kernel              */
#define CPU_TILE_ROWS 64u /* the same, on matrix tiles                     */
#define CPU_HEADS  4u  /* most query heads of one call of an attention kernel */
#define CPU_ALIGN  64u

/* ------------------------------------------------------------- matrices -- */

/* How a matrix lies in a slot. */
#define CPU_F32     0u /* [panel][k][16] of the type                          */
#define CPU_F16     1u
#define CPU_BF16    2u
#define CPU_E4M3    3u /* [panel]{ [k / 2][16][2] bytes, [group]{ 1 or 16 f32
                          scales } }: two columns are one load, told apart
                          by even and odd bytes; a scale is NaN if a code that
                          it has is no finite number                          */
#define CPU_E5M2    4u
#define CPU_INT4    5u /* [panel][group]{ lines, scales, zero points }:       */
#define CPU_FP4     6u /* lines.h; the products are those of integers         */
#define CPU_INT8    7u
#define CPU_GENERIC 8u /* the planes as they are in the file                  */
#define CPU_KINDS   9u

#define CPU_RUN 32u /* activations in 8 bits: columns that share a scale      */

struct cpu_mat {
    const uint8_t *data;        /* panel 0; generic: plane 0 */
    uint64_t       panel_bytes; /* generic: 0 */
    uint64_t       bytes;       /* of the whole matrix */
    uint32_t       n, k, panels;
    uint32_t       kind;        /* CPU_F32.. */
    uint32_t       group;       /* columns that share a weight scale */
    uint32_t       scale;       /* lines: MOE_SCALE_*; fp8: scales of a panel
                                   and group, 1 or 16 */
    uint32_t       has_zero;    /* lines: a zero point for each group and row */
    int32_t        zero;        /* lines: what to add to it, or without: the
                                   same one everywhere */
    const struct moe_affine *affine; /* generic */
    uint64_t       plane_off[3];     /* generic: from data */
};

/* Activations of one row and 32 columns as the kernels of lines read them. */
struct cpu_q8 {
    int8_t  q[CPU_RUN];
    float   d;      /* x is about d * q */
    int16_t sum[2]; /* of q: columns 0, 1 of every four, and columns 2, 3 */
};
MOE_STATIC_ASSERT(sizeof(struct cpu_q8) == 40, "read as a record of 40 bytes");

static inline uint64_t
cpu_ceil(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static inline uint64_t
cpu_align(uint64_t a, uint64_t b)
{
    return cpu_ceil(a, b) * b;
}

/* Bytes of the elements of an FP8 panel; the scales lie behind them. */
static inline uint64_t
cpu_fp8_bytes(uint64_t k)
{
    return cpu_align(cpu_align(k, 2) * CPU_LANES, CPU_ALIGN);
}

/* Element of column c and a lane in an FP8 panel. */
static inline uint64_t
cpu_fp8_at(uint64_t c, uint32_t lane)
{
    return c / 2 * 2 * CPU_LANES + 2 * lane + c % 2;
}

/* Weights in lines, which take activations in 8 bits. */
static inline int
cpu_is_lines(uint32_t kind)
{
    return kind >= CPU_INT4 && kind <= CPU_INT8;
}

/* A scale of type E8M0: 2^(b - 127), 255 is NaN. */
static inline float
cpu_e8m0(uint8_t b)
{
    return moe_float_of(b == 255 ? 0x7fc00000u
                        : b == 0 ? 0x00400000u
                                 : (uint32_t) b << 23);
}

static inline uint64_t
cpu_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ------------------------------------------------- the arithmetic (isa.c) -- */

/*
 * x: nt pointers to rows of the activations: floats, or struct cpu_q8 for
 * weights in lines.  Sets out[t * ldo + 16 * p + r] for the panels [panel,
 * panel + np), np <= CPU_NP, nt <= CPU_TOKENS.
 */
typedef void cpu_dot_fn(const struct cpu_mat *m, uint32_t panel, uint32_t np,
                        const void *const *x, uint32_t nt, float *out,
                        uint32_t ldo);

struct cpu_isa {
    const char *name; /* as in `isa =` of the INI file */
    int (*usable)(void);

    cpu_dot_fn *dot[CPU_KINDS]; /* generic: NULL */

    /* acc[t][16] += w (k, 16) * x[t][0 .. k): a piece of a sum over k */
    void (*dot_more)(const float *w, uint32_t k, const float *const *x,
                     uint32_t nt, float *acc);
    /* ceil(k / 32) records; columns from k on count as 0 */
    void (*quantize)(const float *x, uint32_t k, struct cpu_q8 *out);

    /* y may be x; w, b may be NULL */
    void (*rms)(const float *x, const float *w, uint32_t n, float eps,
                float *y);
    void (*layer)(const float *x, const float *w, const float *b, uint32_t n,
                  float eps, float *y);
    /* y[i] = act(g[i]) * u[i]; y may be g or u */
    void (*gate)(uint32_t act, const float *g, const float *u, uint32_t n,
                 float *y);
    void (*axpy)(float a, const float *x, uint32_t n, float *y); /* y += a x */
    void (*scale)(float a, const float *x, uint32_t n, float *y);
    /* x[i] = exp(x[i] - max of x and floor); returns the sum, *top the max */
    float (*softmax)(float *x, uint32_t n, float floor, float *top);
    /* (a, b) = (a cos - b sin, b cos + a sin) * scale, n pairs */
    void (*rotate)(float *a, float *b, const float *c, const float *s,
                   uint32_t n, float scale);

    /* s[h][i] = q[h] . key i, by the type of the cache: index MOE_F32 - 1.. */
    void (*scores[3])(const float *const *q, uint32_t heads, const void *k,
                      uint32_t rows, uint32_t dim, float *const *s);
    /* acc[h][0 .. dim) += sum over i of p[h][i] * value i */
    void (*mix[3])(const float *const *p, uint32_t heads, const void *v,
                   uint32_t rows, uint32_t dim, float *const *acc);
    /* n floats to the cache's type */
    void (*store[3])(const float *x, uint32_t n, void *dst);
};

/*
 * Matrix tiles beside the vectors of an instruction set: the same products of
 * weights in lines for up to CPU_TILE_ROWS rows of x, with the same bits.
 */
struct cpu_tiles {
    const char *name;     /* as in `isa =` of the INI file */
    int (*usable)(void);  /* asks the system for them too */
    uint32_t    from;     /* rows from which on they are used; 0: measured */
    cpu_dot_fn *dot[3];   /* CPU_INT4 .. CPU_INT8 */
};

/* What a process computes with. */
struct cpu_choice {
    const struct cpu_isa   *isa;
    const struct cpu_tiles *tiles; /* or NULL */
    uint32_t                from;  /* rows from which on tiles are used */
};

extern const struct cpu_isa cpu_isa_portable;
#if defined(__x86_64__)
extern const struct cpu_isa cpu_isa_avx2;
extern const struct cpu_isa cpu_isa_avx512;
extern const struct cpu_isa cpu_isa_avx512vnni;
extern const struct cpu_isa cpu_isa_avxvnni;
cpu_dot_fn cpu_dot_int4_avxvnni, cpu_dot_fp4_avxvnni, cpu_dot_int8_avxvnni;
cpu_dot_fn cpu_dot_int4_vnni, cpu_dot_fp4_vnni, cpu_dot_int8_vnni;
extern const struct cpu_tiles cpu_tiles_amx;
#endif

/* want: NULL or "auto", or a name.  The best one that this processor has and
 * that passes its self-test against plain C; and tiles, if they are wanted,
 * there, right and faster. */
moe_status cpu_isa_choose(const struct moe_host *host, const char *want,
                          struct cpu_choice *out, struct moe_error *err);

/* --------------------------------------------------------------- objects -- */

struct cpu_self {
    const struct moe_host *host;
    struct cpu_choice      use;
};

struct moe_device {
    const struct moe_host *host;
    const struct cpu_isa  *isa; /* that of use */
    struct cpu_choice      use;
    uint32_t               workers;
};

/* Rows of the next call of cpu_dot() with weights of a kind. */
static inline uint32_t
cpu_rows_of_call(const moe_device *dev, uint32_t kind, uint32_t left)
{
    return (uint32_t) cpu_min(left, cpu_is_lines(kind)
                                            && dev->use.tiles != NULL
                                            && left >= dev->use.from
                                        ? CPU_TILE_ROWS
                                        : CPU_TOKENS);
}

struct moe_mem {
    moe_device *dev;
    uint8_t    *ptr;
    uint64_t    bytes;  /* asked for */
    uint64_t    mapped; /* granted and mapped */
    moe_grant  *grant;
};

struct moe_stream {
    moe_device *dev;
};

/* How the parts of a slot lie; what a layout token stands for. */
struct cpu_layout {
    uint32_t          n_parts;
    uint32_t          kind;
    uint64_t          token;
    uint64_t          slot_bytes;
    struct cpu_mat    part[MOE_PARTS_MAX]; /* data: the offset in the slot */
    struct moe_affine affine[MOE_PARTS_MAX];
};

struct moe_slab {
    moe_device       *dev;
    uint8_t          *base;
    uint64_t          mapped;
    uint32_t          n_slots;
    uint32_t          reserved;
    moe_grant        *grant;
    struct cpu_layout layout;
};

/* ----------------------------------------------------------------- cpu.c -- */

/* Anonymous memory, granted before it is mapped; zero; 2 MB pages if large. */
moe_status cpu_map(moe_device *dev, uint64_t bytes, const char *what,
                   uint8_t **ptr, uint64_t *mapped, moe_grant **grant,
                   struct moe_error *err);
void cpu_unmap(moe_device *dev, uint8_t *ptr, uint64_t mapped,
               moe_grant *grant);

/* -------------------------------------------------------------- layout.c -- */

/* Does w fit this backend, and how does it lie?  why: a short reason. */
moe_status cpu_layout_find(const struct moe_weights *w, struct cpu_layout *out,
                           char *why, size_t why_len, struct moe_error *err);
moe_status cpu_query(moe_device *dev, const struct moe_op *op,
                     const struct moe_weights *w, struct moe_plan *out,
                     struct moe_error *err);
moe_status cpu_slab_create(moe_device *dev, const struct moe_weights *w,
                           const struct moe_plan *plan, uint32_t n_slots,
                           moe_slab **out, struct moe_error *err);
void cpu_slab_destroy(moe_slab *slab);

/* The matrix that ref + part names; MOE_E_INVAL if there is none, or it is
 * not n x k (n 0: any). */
moe_status cpu_mat_of(const moe_device *dev, const struct moe_wref *ref,
                      uint32_t part, uint64_t n, uint64_t k, const char *what,
                      struct cpu_mat *out, struct moe_error *err);

/* ---------------------------------------------------------------- pack.c -- */

moe_status cpu_slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
                           const struct moe_weight_src *src,
                           struct moe_error *err);

/* y[0..k) = scale * row r of any kind of matrix. */
void cpu_row(const struct cpu_mat *m, uint32_t r, float scale, float *y);

/* ------------------------------------------------------------- generic.c -- */

/* Columns [c0, c0 + n) of 16 rows from r0 on, f32: w[c - c0][16].  Rows from
 * m->n on are 0. */
void cpu_affine_tile(const struct cpu_mat *m, uint32_t r0, uint32_t c0,
                     uint32_t n, float *w);
void cpu_affine_row(const struct cpu_mat *m, uint32_t r, float *y);
/* Element (r, c) as stored, a raw code; elem is the plane of a file. */
uint32_t cpu_affine_code(const struct moe_affine *a, const uint8_t *elem,
                         uint64_t r, uint64_t c);
/* n bits, at most 32, from bit `at` of p on, least significant bit first. */
uint32_t cpu_bits(const uint8_t *p, uint64_t at, uint32_t n);
/* A scale of type MOE_SCALE_F32 .. E8M0, and how many bytes it has. */
float    cpu_scale(uint32_t type, const uint8_t *p);
uint32_t cpu_scale_size(uint32_t type);
float    cpu_e2m1(uint32_t code);
/* Bytes of each plane that an n x k matrix reads; 0 where none.  False: a
 * description that cannot be followed. */
int cpu_affine_bytes(const struct moe_affine *a, uint64_t n, uint64_t k,
                     uint64_t bytes[3]);
/* The product of any kind of matrix: matrix tiles, isa->dot, or piece by
 * piece.  nt <= cpu_rows_of_call(). */
void cpu_dot(const moe_device *dev, const struct cpu_mat *m, uint32_t panel,
             uint32_t np, const void *const *x, uint32_t nt, float *out,
             uint32_t ldo);
/* ---------------------------------------------------------------- task.c -- */

/* fn(arg, i, slot) for i in [0, n); slot < dev->workers is the same for
 * calls that never overlap.  cost: about how long all takes on one thread, in
 * nanoseconds; a short job stays on the calling thread. */
void cpu_run(const moe_device *dev, uint32_t n, uint64_t cost,
             void (*fn)(void *arg, uint32_t i, uint32_t slot), void *arg);

/* Pointer to rows x n elements of 4 bytes, ld apart, or of rows * n bytes for
 * cpu_bytes; NULL and *err if they do not lie inside the buffer. */
void *cpu_rows(const moe_device *dev, struct moe_buf b, uint64_t rows,
               uint64_t n, uint64_t ld, const char *what,
               struct moe_error *err);
void *cpu_bytes(const moe_device *dev, struct moe_buf b, uint64_t bytes,
                const char *what, struct moe_error *err);

/* About how long a product takes on one thread, in nanoseconds. */
uint64_t cpu_cost(uint64_t weight_bytes, uint64_t macs);

/* ------------------------------------------------------------ operations -- */

/* Scratch in bytes for the sizes in op; kind is that of its weights. */
uint64_t cpu_gemm_work(const struct moe_op_grouped_gemm *op, uint32_t kind);
uint64_t cpu_ffn_work(const struct moe_op_grouped_ffn *op, uint32_t kind);
uint64_t cpu_attention_work(const moe_device                *dev,
                            const struct moe_op_attention *op);

/* A cache that can be addressed; where it lies, and its whole pages. */
moe_status cpu_kv_check(const struct moe_kv *kv, const char *what,
                        struct moe_error *err);
moe_status cpu_kv_open(const moe_device *dev, const struct moe_kv *kv,
                       const char *what, uint8_t **k, uint8_t **v,
                       uint64_t *n_pages, struct moe_error *err);

moe_status cpu_embed(moe_device *dev, const struct moe_op_embed *op,
                     struct moe_error *err);
moe_status cpu_norm(moe_device *dev, const struct moe_op_norm *op,
                    struct moe_error *err);
moe_status cpu_combine(moe_device *dev, const struct moe_op_combine *op,
                       struct moe_error *err);
moe_status cpu_gather(moe_device *dev, const struct moe_op_gather *op,
                      struct moe_error *err);
moe_status cpu_gemm(moe_device *dev, const struct moe_op_grouped_gemm *op,
                    struct moe_error *err);
moe_status cpu_ffn(moe_device *dev, const struct moe_op_grouped_ffn *op,
                   struct moe_error *err);
moe_status cpu_rope(moe_device *dev, const struct moe_op_rope_kv *op,
                    struct moe_error *err);
moe_status cpu_attention(moe_device *dev, const struct moe_op_attention *op,
                         struct moe_error *err);
/* Sizes that this backend can route; in query() upper bounds. */
moe_status cpu_route_check(const struct moe_op_route *op,
                           struct moe_error          *err);
moe_status cpu_route(moe_device *dev, const struct moe_op_route *op,
                     struct moe_error *err);

#endif /* MOE_PLUGINS_BACKEND_CPU_CPU_H */
