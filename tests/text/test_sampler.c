/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler against its definition, written the slow way. */
#include <math.h>

#include "tap.h"
#include "text/sampler.h"

#define V 200

static struct moe_sampling
plain(void)
{
    struct moe_sampling s = {.struct_size = sizeof(s), .temperature = 1,
                             .top_p = 1, .repeat_penalty = 1, .seed = 7};

    return s;
}

static uint32_t
pick(const struct moe_sampling *sampling, const float *logits)
{
    struct moe_sampler *s;
    uint32_t            id = UINT32_MAX;

    if (moe_sampler_open(sampling, V, &s, NULL) != MOE_OK)
        return UINT32_MAX;
    (void) moe_sampler_pick(s, logits, &id, NULL);
    moe_sampler_close(s);
    return id;
}

/* Draws n times; counts by id, (V). */
static void
draw(const struct moe_sampling *sampling, const float *logits, int n,
     int *counts)
{
    struct moe_sampler *s;
    uint32_t            id = 0;

    memset(counts, 0, V * sizeof(*counts));
    if (moe_sampler_open(sampling, V, &s, NULL) != MOE_OK)
        return;
    while (n-- > 0 && moe_sampler_pick(s, logits, &id, NULL) == MOE_OK)
        counts[id]++;
    moe_sampler_close(s);
}

static int
distinct(const int *counts)
{
    int i, n = 0;

    for (i = 0; i < V; i++)
        n += counts[i] != 0;
    return n;
}

/* What top-k, top-p, min-p leave, by full sorting: how many of the likeliest. */
static int
kept_by_definition(const float *logits, const struct moe_sampling *s)
{
    static double p[V];
    double        total = 0, sum = 0, t;
    int           i, j, n;

    for (i = 0; i < V; i++)
        p[i] = exp((double) logits[i] / (double) s->temperature);
    for (i = 0; i < V; i++)
        for (j = i + 1; j < V; j++)
            if (p[j] > p[i]) {
                t = p[i];
                p[i] = p[j];
                p[j] = t;
            }
    n = s->top_k != 0 && s->top_k < V ? (int) s->top_k : V;
    for (i = 0; i < n; i++)
        total += p[i];
    if (s->top_p < 1)
        for (i = 0; i < n; i++) {
            if (i > 0 && sum >= (double) s->top_p * total)
                n = i;
            sum += p[i];
        }
    for (i = 0; i < n; i++)
        if (p[i] < (double) s->min_p * p[0])
            n = i;
    return n;
}

/* Greedy choice in vocabularies of every width around that of the vectors:
 * the largest in each place, before an equal one, and beside a NaN. */
static void
greedy(void)
{
    struct moe_sampling s = plain();
    float               l[23];
    uint32_t            n, i, j, id, wrong = 0, missed = 0;

    s.temperature = 0;
    for (n = 1; n <= 23; n++) {
        struct moe_sampler *h;

        if (!ok(moe_sampler_open(&s, n, &h, NULL) == MOE_OK, "%u ids", n))
            return;
        for (i = 0; i < n; i++) {
            for (j = 0; j < n; j++)
                l[j] = j < i ? -2 - (float) j : -1;
            id = UINT32_MAX;
            wrong += moe_sampler_pick(h, l, &id, NULL) != MOE_OK || id != i;
            l[i] = NAN;
            missed += moe_sampler_pick(h, l, &id, NULL) != MOE_E_DEVICE;
        }
        moe_sampler_close(h);
    }
    is_int(wrong, 0, "the first of the largest");
    is_int(missed, 0, "NaN anywhere is seen");
}

int
main(void)
{
    static float        logits[V];
    static int          counts[V];
    struct moe_error    err = {.struct_size = sizeof(err)};
    struct moe_sampling s = plain();
    struct moe_sampler *h;
    uint32_t            i, id, a, b, rng = 1;
    double              sum = 0, worst = 0;

    for (i = 0; i < V; i++) {
        rng = rng * 1664525u + 1013904223u;
        logits[i] = (float) (rng >> 8) / 16177216.0f * 8.0f - 4.0f;
    }
    logits[123] = 6.0f;
    logits[177] = 6.0f;

    greedy();
    s.temperature = 0;
    is_int(pick(&s, logits), 123, "greedy, the lower id in a tie");
    s = plain();
    s.top_k = 1;
    is_int(pick(&s, logits), 123, "top-k 1 is greedy");
    s = plain();
    a = pick(&s, logits);
    b = pick(&s, logits);
    is_int(a, b, "the same seed, the same token");

    /* frequencies are those of the softmax */
    s = plain();
    draw(&s, logits, 20000, counts);
    for (i = 0; i < V; i++) {
        double want = exp(moe_logprob(logits, V, i)) * 20000;
        double z = fabs(counts[i] - want) / sqrt(want + 1);

        sum += exp(moe_logprob(logits, V, i));
        if (z > worst)
            worst = z;
    }
    ok(fabs(sum - 1) < 1e-12, "log-probabilities are a distribution");
    ok(worst < 5, "20000 draws follow it (largest z %.2f)", worst);

    s.top_k = 40;
    draw(&s, logits, 10000, counts);
    is_int(distinct(counts), 40, "top-k 40");
    s = plain();
    s.top_p = 0.5f;
    draw(&s, logits, 20000, counts);
    is_int(distinct(counts), kept_by_definition(logits, &s), "top-p 0.5");
    s.top_p = 0.97f;
    s.temperature = 3;
    draw(&s, logits, 40000, counts);
    is_int(distinct(counts), kept_by_definition(logits, &s),
           "top-p 0.97 of a flat distribution");
    s = plain();
    s.min_p = 0.1f;
    draw(&s, logits, 10000, counts);
    is_int(distinct(counts), kept_by_definition(logits, &s), "min-p 0.1");
    s.top_k = 100;
    s.top_p = 0.9f;
    s.min_p = 0.05f;
    draw(&s, logits, 20000, counts);
    is_int(distinct(counts), kept_by_definition(logits, &s), "all three");

    /* penalties */
    s = plain();
    s.temperature = 0;
    s.repeat_penalty = 2;
    ok(moe_sampler_open(&s, V, &h, &err) == MOE_OK, "open");
    moe_sampler_accept(h, 123, 0);
    (void) moe_sampler_pick(h, logits, &id, &err);
    is_int(id, 177, "a repeated token of the prompt is penalized");
    moe_sampler_accept(h, 177, 1);
    moe_sampler_accept(h, 5000000, 1);
    (void) moe_sampler_pick(h, logits, &id, &err);
    ok(id != 123 && id != 177, "then the next one");
    moe_sampler_close(h);
    s.repeat_penalty = 1;
    s.frequency_penalty = 1.5f;
    ok(moe_sampler_open(&s, V, &h, &err) == MOE_OK, "open");
    moe_sampler_accept(h, 123, 0);
    (void) moe_sampler_pick(h, logits, &id, &err);
    is_int(id, 123, "frequency counts the output only");
    moe_sampler_accept(h, 123, 1);
    (void) moe_sampler_pick(h, logits, &id, &err);
    is_int(id, 177, "and there it counts");
    moe_sampler_close(h);

    /* what cannot be right */
    s = plain();
    s.temperature = -1;
    is_int(moe_sampler_open(&s, V, &h, &err), MOE_E_INVAL, "temperature -1");
    has_str(err.text, "temperature", "is named");
    s = plain();
    s.top_p = NAN;
    is_int(moe_sampler_open(&s, V, &h, &err), MOE_E_INVAL, "top_p NaN");
    s = plain();
    s.repeat_penalty = 0;
    is_int(moe_sampler_open(&s, V, &h, &err), MOE_E_INVAL, "repeat 0");
    s = plain();
    ok(moe_sampler_open(&s, V, &h, &err) == MOE_OK, "open");
    logits[50] = NAN;
    is_int(moe_sampler_pick(h, logits, &id, &err), MOE_E_DEVICE,
           "NaN among the logits");
    for (i = 0; i < V; i++)
        logits[i] = -INFINITY;
    is_int(moe_sampler_pick(h, logits, &id, &err), MOE_E_DEVICE,
           "no logit above minus infinity");
    logits[9] = -3;
    is_int(moe_sampler_pick(h, logits, &id, &err), MOE_OK, "one is enough");
    is_int(id, 9, "and it is taken");
    moe_sampler_close(h);
    return tap_done();
}
