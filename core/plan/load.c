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
