/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c - how a batch spreads over experts, in closed form.
 *
 * Routing is taken as uniform: each token picks k of E experts without
 * replacement, tokens are independent.  Real routers are not uniform; what
 * they do is simulated or read from a trace (simulate.c).
 */
#include <moe/plan.h>

#include <math.h>

MOE_API double
moe_plan_distinct(uint32_t n_experts, uint32_t top_k, double batch)
{
    double E = n_experts, k = top_k;

    if (n_experts == 0 || batch <= 0)
        return 0;
    return k >= E ? E : E * -expm1(batch * log1p(-k / E));
}

/* Mean of the largest of n standard normals: the integral of
 * x d(Phi(x)^n), by Simpson's rule. */
static double
normal_max(double n)
{
    const int    steps = 400; /* error below 1e-6 for n <= 65536 */
    const double lo = -9, hi = 9, h = (hi - lo) / steps;
    double       sum = 0;
    int          i;

    if (n <= 1)
        return 0;
    for (i = 0; i <= steps; i++) {
        double x = lo + h * i;
        double density = exp(-x * x / 2) * 0.3989422804014327;
        double below = 0.5 * erfc(-x * 0.7071067811865476);
        double f = x * n * density * pow(below, n - 1);

        sum += f * (i == 0 || i == steps ? 1 : i % 2 == 1 ? 4 : 2);
    }
    return sum * h / 3;
}

/* Mean of the largest of `count` binomials (n, p) as if independent:
 * the sum over m of 1 - F(m)^count. */
static double
binomial_max(double n, double p, double count)
{
    double mean = n * p, spread = sqrt(n * p * (1 - p));
    double from = floor(mean - 12 * spread - 2), to, m, term, below = 0;
    double sum;

    if (from < 0)
        from = 0;
    to = ceil(mean + 40 * spread + 60);
    if (to > n)
        to = n;
    /* the least m with any weight, then the recurrence of the terms */
    term = exp(lgamma(n + 1) - lgamma(from + 1) - lgamma(n - from + 1)
               + from * log(p) + (n - from) * log1p(-p));
    sum = from;
    for (m = from; m < to; m++) {
        double left;

        below += term;
        left = 1 - below;
        if (left < 1e-12)
            break;
        /* 1 - (1 - left)^count without cancellation */
        sum += -expm1(count * log1p(-left));
        term *= (n - m) / (m + 1) * p / (1 - p);
    }
    return sum;
}

#define FEW_TOKENS 32 /* up to which the loads' sum is worth its cost */
#define FEW_PAIRS  512

/* Coefficient of x^n in (a[0] + ... + a[m] x^m)^E, by the recurrence of the
 * powers of a series; q: (n + 1) scratch. */
static double
power_at(const double *a, uint32_t m, double E, uint32_t n, double *q)
{
    uint32_t i, j;

    q[0] = pow(a[0], E);
    for (i = 1; i <= n; i++) {
        double sum = 0;

        for (j = 1; j <= m && j <= i; j++)
            sum += (j * (E + 1) - i) * a[j] * q[i - j];
        q[i] = sum / (i * a[0]);
    }
    return q[n];
}

/*
 * Mean of the fullest of E experts for few tokens, where neither form above
 * sees that loads are whole and add up to batch * k: generalised binomials
 * C(N, j) under that sum.  N is such that one load has the variance that it
 * has in truth, batch k/E (1 - k/E), which makes one token exact, and k = 1
 * (N infinite: Poisson) for any batch.
 */
static double
few_max(double E, double k, uint32_t batch)
{
    double   a[FEW_TOKENS + 1], q[FEW_PAIRS + 1], all, mean = 0, sum = 0;
    double   p = k / E;
    double   N = k > 1 ? ((E - 1) * batch * k - (E - k)) / (E * (k - 1)) : 0;
    uint32_t n = (uint32_t) (batch * k), j, m;

    a[0] = 1;
    for (j = 1; j <= batch; j++)
        a[j] = a[j - 1] * (k > 1 ? (N - j + 1) * p / (1 - p) : batch * p) / j;
    for (j = 0; j <= batch; j++)
        sum += a[j];
    for (j = 0; j <= batch; j++)
        a[j] /= sum; /* a distribution: powers of it stay in range */
    all = power_at(a, batch, E, n, q);
    for (m = 0; m < batch; m++)
        mean += E * m < n ? 1 : 1 - power_at(a, m, E, n, q) / all;
    return mean;
}

MOE_API double
moe_plan_max_load(uint32_t n_experts, uint32_t top_k, double batch,
                  uint32_t ranks)
{
    double E = n_experts, k = top_k, G = ranks, pairs = batch * k;
    double mean, variance, normal, tails, spread, most;

    if (n_experts == 0 || ranks == 0 || batch <= 0)
        return 0;
    mean = pairs / G;
    if (ranks == 1 || top_k >= n_experts || n_experts == 1)
        return mean;
    if (ranks == n_experts && batch <= FEW_TOKENS && pairs <= FEW_PAIRS
        && floor(batch) == batch)
        return few_max(E, k, (uint32_t) batch);
    /* each token's picks are a hypergeometric sample of the parts */
    variance = pairs * (1 / G) * (1 - 1 / G) * (E - k) / (E - 1);
    normal = mean
             + normal_max(G) * sqrt(variance * G / (G - 1));
    tails = ranks == n_experts
                ? binomial_max(batch, k / E, G)
                : binomial_max(pairs, 1 / G, G);
    /* Loads add up to a constant: they repel each other, which spreads the
     * order statistics of independent ones by this factor.  The binomial of
     * a rank lets a token pick an expert twice: that is taken back. */
    spread = G / (G - 1);
    if (ranks != n_experts)
        spread *= (E - k) / (E - 1);
    tails = mean + (tails - mean) * sqrt(spread);
    most = batch * (k < E / G ? k : ceil(E / G));
    if (tails < normal)
        tails = normal;
    if (tails < ceil(mean) && floor(batch) == batch)
        tails = ceil(mean);
    return tails < most ? tails : most;
}

MOE_API double
moe_plan_remote_ranks(uint32_t n_experts, uint32_t top_k, uint32_t ranks)
{
    double   none = 1, E = n_experts, other;
    uint32_t i;

    if (ranks < 2 || n_experts == 0)
        return 0;
    other = E - E / ranks; /* experts elsewhere than on one rank */
    for (i = 0; i < top_k; i++)
        none *= other - i > 0 ? (other - i) / (E - i) : 0;
    return (ranks - 1.0) * (1 - none);
}
