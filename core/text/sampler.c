/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sampler.c - logits to a token.
 *
 * Owns one sequence's penalties, random numbers and a list of candidates.
 * Candidates are selected, and only those that top-p looks at are sorted.
 * All sums are in double and in an order that the logits alone decide, so the
 * choice is the same on every machine whose exp is.
 */
#include "text/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct moe_candidate {
    float    logit;
    uint32_t id;
};

struct moe_sampler {
    struct moe_sampling   s;
    uint32_t              vocab;
    uint32_t              penalties; /* any that is on */
    uint16_t             *seen;      /* (vocab) bit 15: at all; low: output */
    struct moe_candidate *cand;      /* (vocab) */
    uint64_t              rng[2];
};

#define MOE_SEEN      0x8000u
#define MOE_SEEN_MOST 0x7fffu

/* ------------------------------------------------------ random numbers -- */

/* SplitMix64 (Steele, Lea, Flood 2014): spreads a seed. */
static uint64_t
moe_splitmix(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t
moe_rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* xoroshiro128+ (Blackman, Vigna 2018), top 53 bits: [0, 1). */
static double
moe_random(struct moe_sampler *s)
{
    uint64_t a = s->rng[0], b = s->rng[1], sum = a + b;

    b ^= a;
    s->rng[0] = moe_rotl(a, 24) ^ b ^ (b << 16);
    s->rng[1] = moe_rotl(b, 37);
    return (double) (sum >> 11) * 0x1p-53;
}

/* ----------------------------------------------------------------- life -- */

static moe_status
moe_sampling_check(const struct moe_sampling *s, struct moe_error *err)
{
    if (!(s->temperature >= 0) || !isfinite(s->temperature))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "temperature %g: 0 or more is expected",
                        (double) s->temperature);
    if (!(s->top_p >= 0 && s->top_p <= 1))
        return moe_fail(err, MOE_E_INVAL, 0, "top_p %g: 0 to 1 is expected",
                        (double) s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return moe_fail(err, MOE_E_INVAL, 0, "min_p %g: 0 to 1 is expected",
                        (double) s->min_p);
    if (!(s->repeat_penalty > 0) || !isfinite(s->repeat_penalty))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "repeat_penalty %g: more than 0 is expected",
                        (double) s->repeat_penalty);
    if (!isfinite(s->presence_penalty) || !isfinite(s->frequency_penalty))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "presence_penalty and frequency_penalty must be "
                        "numbers");
    return MOE_OK;
}

moe_status
moe_sampler_open(const struct moe_sampling *sampling, uint32_t vocab,
                 struct moe_sampler **out, struct moe_error *err)
{
    struct moe_sampler *s;
    uint64_t            x = sampling->seed;
    moe_status          st = moe_sampling_check(sampling, err);

    if (st != MOE_OK)
        return st;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "sampler: no memory");
    s->s = *sampling;
    s->vocab = vocab;
    s->penalties = sampling->repeat_penalty != 1
                   || sampling->presence_penalty != 0
                   || sampling->frequency_penalty != 0;
    s->rng[0] = moe_splitmix(&x);
    s->rng[1] = moe_splitmix(&x);
    if (s->penalties)
        s->seen = calloc((size_t) vocab + 1, sizeof(*s->seen));
    if (sampling->temperature > 0)
        s->cand = malloc(((size_t) vocab + 1) * sizeof(*s->cand));
    if ((s->penalties && s->seen == NULL)
        || (sampling->temperature > 0 && s->cand == NULL)) {
        moe_sampler_close(s);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "sampler: no memory");
    }
    *out = s;
    return MOE_OK;
}

void
moe_sampler_close(struct moe_sampler *s)
{
    if (s == NULL)
        return;
    free(s->seen);
    free(s->cand);
    free(s);
}

void
moe_sampler_accept(struct moe_sampler *s, uint32_t id, int output)
{
    if (s->seen == NULL || id >= s->vocab)
        return;
    if (output && (s->seen[id] & MOE_SEEN_MOST) < MOE_SEEN_MOST)
        s->seen[id]++;
    s->seen[id] |= MOE_SEEN;
}

/* --------------------------------------------------------------- choice -- */

static float
moe_penalized(const struct moe_sampler *s, float logit, uint32_t id)
{
    uint32_t seen = s->seen != NULL ? s->seen[id] : 0, n;

    if (seen == 0)
        return logit;
    logit = logit > 0 ? logit / s->s.repeat_penalty
                      : logit * s->s.repeat_penalty;
    n = seen & MOE_SEEN_MOST;
    if (n != 0)
        logit -= s->s.presence_penalty + s->s.frequency_penalty * (float) n;
    return logit;
}

/* Larger logit first, then lower id. */
static int
moe_candidate_order(const void *a, const void *b)
{
    const struct moe_candidate *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Puts the k first of n candidates (in the order above) into c[0..k), in any
 * order among themselves: Hoare's selection, the middle of three as pivot. */
static void
moe_select(struct moe_candidate *c, uint32_t n, uint32_t k)
{
    int64_t lo = 0, hi = (int64_t) n - 1, want = (int64_t) k - 1;

    while (lo < hi) {
        int64_t              mid = lo + (hi - lo) / 2, i = lo, j = hi;
        struct moe_candidate a = c[lo], b = c[mid], d = c[hi], pivot, t;

        if (moe_candidate_order(&a, &b) > 0) {
            t = a;
            a = b;
            b = t;
        }
        pivot = moe_candidate_order(&d, &a) < 0   ? a
                : moe_candidate_order(&d, &b) > 0 ? b : d;
        while (i <= j) {
            while (moe_candidate_order(&c[i], &pivot) < 0)
                i++;
            while (moe_candidate_order(&c[j], &pivot) > 0)
                j--;
            if (i <= j) {
                t = c[i];
                c[i++] = c[j];
                c[j--] = t;
            }
        }
        if (want <= j)
            hi = j;
        else if (want >= i)
            lo = i;
        else
            break;
    }
}

/*
 * Of the first n candidates those that top-p and min-p leave, at least one,
 * moved to the front; *sum: of their exp(logit), the largest being 0.
 */
static uint32_t
moe_nucleus(const struct moe_sampler *s, uint32_t n, double *sum)
{
    struct moe_candidate *c = s->cand;
    double                total = 0, kept = 0;
    uint32_t              i, k, left = 0;

    if (s->s.top_p < 1) {
        for (i = 0; i < n; i++)
            total += exp((double) c[i].logit);
        /* Few hold most of the probability: sort a few, more if need be. */
        for (k = n < 128 ? n : 128;; k = k < n / 4 ? k * 4 : n) {
            moe_select(c, n, k);
            qsort(c, k, sizeof(*c), moe_candidate_order);
            kept = exp((double) c[0].logit);
            for (i = 1; i < k && kept < (double) s->s.top_p * total; i++)
                kept += exp((double) c[i].logit);
            if (i < k || k == n)
                break;
        }
        n = i;
    }
    *sum = 0;
    for (i = 0; i < n; i++) {
        double p = exp((double) c[i].logit);

        if (p < (double) s->s.min_p)
            continue;
        *sum += p;
        c[left++] = c[i];
    }
    return left;
}

typedef float   moe_f32x4 __attribute__((__vector_size__(16)));
typedef int32_t moe_i32x4 __attribute__((__vector_size__(16)));

/* The first of the largest logits, and whether any is not a number. Columns go
 * side by side: a vocabulary is 50,000 to 200,000 numbers, and all other
 * threads wait meanwhile. */
static float
moe_largest(const float *logits, uint32_t n, uint32_t *best, int *bad)
{
    moe_f32x4 top[2], l;
    moe_i32x4 nan = { 0 }, more;
    float     most = -INFINITY;
    uint32_t  i, j;

    top[0] = top[1] = (moe_f32x4) { most, most, most, most };
    for (i = 0; i + 8 <= n; i += 8)
        for (j = 0; j < 2; j++) {
            memcpy(&l, logits + i + j * 4, sizeof(l));
            nan |= l != l;
            more = l > top[j];
            top[j] = (moe_f32x4) ((more & (moe_i32x4) l)
                                  | (~more & (moe_i32x4) top[j]));
        }
    for (j = 0; j < 8; j++) {
        *bad |= nan[j % 4] != 0;
        most = top[j / 4][j % 4] > most ? top[j / 4][j % 4] : most;
    }
    for (; i < n; i++) {
        *bad |= isnan(logits[i]);
        most = logits[i] > most ? logits[i] : most;
    }
    for (i = 0; i + 1 < n && logits[i] != most; i++)
        ;
    *best = i;
    return most;
}

moe_status
moe_sampler_pick(struct moe_sampler *s, const float *logits, uint32_t *id,
                 struct moe_error *err)
{
    uint32_t i, n = s->vocab, best = 0;
    float    top = -INFINITY;
    double   sum, r;
    int      bad = 0, greedy = s->s.temperature == 0;

    if (greedy && s->seen == NULL)
        top = moe_largest(logits, s->vocab, &best, &bad);
    for (i = greedy && s->seen == NULL ? n : 0; i < n; i++) {
        float l = moe_penalized(s, logits[i], i);

        bad |= isnan(l);
        if (!greedy) {
            s->cand[i].logit = l;
            s->cand[i].id = i;
        }
        if (l > top) {
            top = l;
            best = i;
        }
    }
    if (bad || !isfinite(top))
        return moe_fail(err, MOE_E_DEVICE, 0,
                        "the logits hold no usable number: the weights or "
                        "the device's arithmetic are broken");
    if (greedy) {
        *id = best;
        return MOE_OK;
    }
    for (i = 0; i < n; i++)
        s->cand[i].logit = (s->cand[i].logit - top) / s->s.temperature;
    if (s->s.top_k != 0 && s->s.top_k < n) {
        moe_select(s->cand, n, s->s.top_k);
        n = s->s.top_k;
    }
    n = moe_nucleus(s, n, &sum);
    r = moe_random(s) * sum;
    for (i = 0; i + 1 < n; i++) {
        r -= exp((double) s->cand[i].logit);
        if (r < 0)
            break;
    }
    *id = s->cand[i].id;
    return MOE_OK;
}

double
moe_logprob(const float *logits, uint32_t vocab, uint32_t id)
{
    double   sum = 0, top = -INFINITY;
    uint32_t i;

    for (i = 0; i < vocab; i++)
        if ((double) logits[i] > top)
            top = (double) logits[i];
    for (i = 0; i < vocab; i++)
        sum += exp((double) logits[i] - top);
    return (double) logits[id] - top - log(sum);
}
