/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.c - speed of an engine, beside the machine's ceilings.
 *
 * Owns what a test is and what is counted.  The work goes through the same
 * scheduler and runner as everybody's; only the tokens are not the model's
 * own but random ones, so that random weights cannot send a sequence in
 * circles, where it would use the same experts for ever.
 *
 * Before each repetition the ceilings are measured once more: on a shared
 * machine only ratios within the same second mean something.
 */
#include "bench/ceiling.h"
#include "bench/predict.h"
#include "bench/shape.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define REPETITIONS     5u
#define REPETITIONS_MAX 1000u
#define PASSES          7u
#define WARM_STEPS      2u /* of a generation */

struct moe_bench {
    moe_engine             *e;
    struct moe_ceiling     *ceiling;
    struct moe_prediction  *prediction; /* NULL: none can be made */
    uint32_t                flags, repetitions;
    uint64_t                seed;
    moe_sequence          **seqs; /* (n_seqs) of the repetition under way */
    uint32_t                n_seqs;
    uint32_t               *ids;   /* (longest n_prompt) for replace_tokens */
    uint64_t                peak;  /* of the ledger, before the buffer */
    /* (repetitions) each */
    double                 *tps, *step_s, *read, *arith, *slow[2];
    uint32_t                n_tps;
    struct moe_runner_probe probe; /* of the last test, a repetition */
    struct moe_load         mark, load; /* when the clock began; in all */
    uint64_t                steps;
};

/* What a repetition measured. */
struct lap {
    uint64_t tokens, steps;
    double   seconds;
};

static uint64_t
next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ------------------------------------------------------------------ life -- */

/* Steps that the prompts of a generation take: those that are ready go on
 * meanwhile. */
static uint64_t
warm_steps(const struct moe_bench_test *t, uint32_t rows)
{
    uint64_t all = (uint64_t) (t->depth != 0 ? t->depth : 1) * t->batch;

    return rows > t->batch ? all / (rows - t->batch) + 2 : all;
}

/* Tokens of the longest sequence of a test. */
static uint64_t
test_context(const struct moe_bench_test *t, uint32_t rows)
{
    if (t->n_prompt != 0)
        return (uint64_t) t->depth + t->n_prompt
               + (t->depth != 0 ? warm_steps(t, rows) + 1 : 0);
    return (uint64_t) (t->depth != 0 ? t->depth : 1) + t->n_gen
           + warm_steps(t, rows) + 1;
}

/* Room for the widest and the longest test, unless the options are set. */
static moe_status
make_room(moe_options *o, const struct moe_bench_setup *s,
          struct moe_error *err)
{
    uint32_t   rows = (uint32_t) moe_option_int(o, "engine.batch_rows");
    uint64_t   context = 1, batch = 1;
    char       text[32];
    uint32_t   i;
    moe_status st;

    for (i = 0; i < s->n_tests; i++) {
        uint64_t n = test_context(&s->tests[i], rows);

        /* for the token that comes out of a prompt, if the model knows so
         * many */
        n += s->tests[i].n_prompt != 0 && s->tests[i].depth == 0;
        if (n > context)
            context = n;
        if (s->tests[i].batch > batch)
            batch = s->tests[i].batch;
    }
    if (s->n_tests == 0)
        return MOE_OK;
    snprintf(text, sizeof(text), "%llu", (unsigned long long) context);
    st = moe_options_set(o, "model.context", text, MOE_FROM_DEFAULT, err);
    snprintf(text, sizeof(text), "%llu", (unsigned long long) batch);
    if (st == MOE_OK)
        st = moe_options_set(o, "engine.sequences", text, MOE_FROM_DEFAULT,
                             err);
    return st;
}

static moe_status
check_test(const moe_bench *b, const struct moe_bench_test *t,
           struct moe_error *err)
{
    uint64_t need;

    if (!MOE_HAS(t, moe_bench_test, depth))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "moe_bench_test.struct_size is %u, too small",
                        t->struct_size);
    if ((t->n_prompt == 0) == (t->n_gen == 0))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "bench: a test has either a prompt or tokens to "
                        "generate");
    if (t->batch == 0 || t->batch > b->e->plan.sequences)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "bench: a batch of %u: the engine runs 1 to %u "
                        "sequences at once; raise engine.sequences",
                        t->batch, b->e->plan.sequences);
    if (t->batch >= b->e->plan.rows)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "bench: a batch of %u in steps of %u rows; raise "
                        "engine.batch_rows", t->batch, b->e->plan.rows);
    need = test_context(t, b->e->plan.rows);
    if (need > b->e->plan.context)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "bench: a test of %llu tokens: the context has %u; "
                        "raise model.context",
                        (unsigned long long) need, b->e->plan.context);
    need = (need + b->e->plan.page_rows - 1) / b->e->plan.page_rows
           * t->batch;
    if (need > b->e->plan.pages)
        return moe_fail(err, MOE_E_OVER_BUDGET, 0,
                        "bench: a batch of %u needs %llu pages of keys and "
                        "values, the memory budget left room for %u; raise "
                        "memory.budget or lower the batch, the depth or "
                        "model.context",
                        t->batch, (unsigned long long) need, b->e->plan.pages);
    return MOE_OK;
}

static moe_status
make_shape(void *ctx, const struct moe_registry *registry,
           struct moe_checkpoint **out, struct moe_error *err)
{
    return moe_bench_shape(registry, ctx, out, err);
}

moe_status
moe_bench_open(const moe_options *o, const struct moe_bench_setup *setup,
               moe_bench **out, struct moe_error *err)
{
    struct moe_shape_wish    wish;
    struct moe_ledger_domain d;
    moe_options             *own = NULL;
    moe_bench               *b;
    moe_status               st;
    size_t                   n;
    uint32_t                 i;

    if (!MOE_HAS(setup, moe_bench_setup, reserved))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "moe_bench_setup.struct_size is %u, too small",
                        setup->struct_size);
    if (setup->repetitions > REPETITIONS_MAX)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "bench: %u repetitions, at most %u are done",
                        setup->repetitions, REPETITIONS_MAX);
    b = calloc(1, sizeof(*b));
    if (b == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
    wish.name = setup->shape;
    wish.layers = setup->layers;
    wish.skew = setup->skew;
    wish.seed = setup->seed;
    wish.format = setup->format != NULL ? setup->format
                                        : moe_option_text(o, "quant.experts");
    b->flags = setup->flags;
    b->seed = setup->seed;
    b->repetitions = setup->repetitions != 0 ? setup->repetitions
                                             : REPETITIONS;
    n = b->repetitions;
    b->tps = calloc(6 * n, sizeof(*b->tps));
    if (b->tps == NULL) {
        moe_bench_close(b);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
    }
    b->step_s = b->tps + n;
    b->read = b->tps + 2 * n;
    b->arith = b->tps + 3 * n;
    b->slow[0] = b->tps + 4 * n;
    b->slow[1] = b->tps + 5 * n;
    st = moe_options_copy(o, &own, err);
    if (st == MOE_OK)
        st = make_room(own, setup, err);
    if (st == MOE_OK)
        st = moe_engine_open_made(own, wish.name != NULL ? make_shape : NULL,
                                  &wish, &b->e, err);
    for (i = 0; i < setup->n_tests && st == MOE_OK; i++)
        st = check_test(b, &setup->tests[i], err);
    if (st == MOE_OK) {
        moe_ledger_domain(b->e->ledger, MOE_LEDGER_HOST, &d);
        b->peak = d.peak;
    }
    if (st == MOE_OK && (b->flags & MOE_BENCH_NO_MACHINE) == 0)
        st = moe_ceiling_open(b->e->pool, b->e->ledger, &b->ceiling, err);
    if (st == MOE_OK && b->ceiling != NULL)
        b->prediction = moe_prediction_open(own, b->e, b->ceiling);
    moe_options_free(own);
    if (st == MOE_OK) {
        const struct moe_load *l = moe_runner_expert_load(b->e->runner);

        st = moe_load_open(l->n_layers, l->n_experts, l->top_k,
                           &b->mark, err);
        if (st == MOE_OK)
            st = moe_load_open(l->n_layers, l->n_experts, l->top_k,
                               &b->load, err);
    }
    if (st != MOE_OK) {
        moe_bench_close(b);
        return st;
    }
    *out = b;
    return MOE_OK;
}

static void
drop_sequences(moe_bench *b)
{
    uint32_t i;

    for (i = 0; i < b->n_seqs; i++)
        if (b->seqs[i] != NULL)
            moe_sched_remove(b->seqs[i]);
    free(b->seqs);
    b->seqs = NULL;
    b->n_seqs = 0;
}

void
moe_bench_close(moe_bench *b)
{
    if (b == NULL)
        return;
    drop_sequences(b);
    moe_load_close(&b->mark);
    moe_load_close(&b->load);
    moe_prediction_close(b->prediction);
    moe_ceiling_close(b->ceiling);
    moe_engine_close(b->e);
    free(b->ids);
    free(b->tps);
    free(b);
}

moe_engine *
moe_bench_engine(moe_bench *b)
{
    return b->e;
}

/* Copies what both sides know of a struct that starts with struct_size. */
static void
copy_out(void *out, const void *from, uint32_t size)
{
    uint32_t have;

    memcpy(&have, out, sizeof(have));
    if (have > size)
        have = size;
    if (have > sizeof(have))
        memcpy((uint8_t *) out + sizeof(have),
               (const uint8_t *) from + sizeof(have), have - sizeof(have));
}

moe_status
moe_bench_machine(moe_bench *b, struct moe_bench_machine *out,
                  struct moe_error *err)
{
    struct moe_bench_machine m;

    if (b->ceiling == NULL)
        return moe_fail(err, MOE_E_NOT_FOUND, 0,
                        "bench: opened without the machine's ceilings");
    moe_ceiling_measure(b->ceiling, PASSES, &m);
    copy_out(out, &m, sizeof(m));
    return MOE_OK;
}

/* ----------------------------------------------------------------- a test -- */

/* The test's sequences, with random prompts of n tokens. */
static moe_status
submit(moe_bench *b, const struct moe_bench_test *t, uint32_t n,
       uint32_t max_tokens, uint64_t *random, struct moe_error *err)
{
    struct moe_sampling greedy = {.struct_size = sizeof(greedy), .top_p = 1,
                                  .repeat_penalty = 1};
    struct moe_request  req = {.struct_size = sizeof(req),
                               .flags = MOE_REQUEST_IGNORE_EOS,
                               .n_prompt = n, .max_tokens = max_tokens,
                               .sampling = &greedy};
    uint32_t           *prompt = calloc(n, sizeof(*prompt)), i, j;
    moe_status          st = MOE_OK;

    b->seqs = calloc(t->batch, sizeof(*b->seqs));
    if (prompt == NULL || b->seqs == NULL) {
        free(prompt);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
    }
    b->n_seqs = t->batch;
    req.prompt = prompt;
    for (i = 0; i < t->batch && st == MOE_OK; i++) {
        for (j = 0; j < n; j++)
            prompt[j] = (uint32_t) (next_random(random) % b->e->arch.vocab);
        st = moe_engine_submit(b->e, &req, &b->seqs[i], err);
    }
    free(prompt);
    return st;
}

/* Steps until every sequence has generated a token; all: until every one has
 * ended. */
static moe_status
step_on(moe_bench *b, int all, struct moe_error *err)
{
    struct moe_sequence_info info = {.struct_size = sizeof(info)};
    uint32_t                 active = 1, i = 0;
    moe_status               st = MOE_OK;

    while (st == MOE_OK && active != 0) {
        for (; !all && i < b->n_seqs; i++)
            if (moe_sequence_info(b->seqs[i], &info) != MOE_OK
                || info.n_output == 0)
                break;
        if (!all && i == b->n_seqs)
            break;
        st = moe_engine_step(b->e, &active, err);
    }
    return st;
}

/* n random tokens for each sequence in place of the one it chose. */
static moe_status
replace_tokens(moe_bench *b, uint32_t n, int last, uint64_t *random,
               struct moe_error *err)
{
    uint32_t   i, j, *ids = b->ids;
    moe_status st = MOE_OK;

    for (i = 0; i < b->n_seqs && st == MOE_OK; i++) {
        for (j = 0; j < n; j++)
            ids[j] = (uint32_t) (next_random(random) % b->e->arch.vocab);
        st = moe_sched_replace(b->seqs[i], ids, n, last);
    }
    if (st != MOE_OK)
        (void) moe_fail(err, st, 0, "bench: a sequence ended too early");
    return st;
}

/* The clock starts: what was counted before is no part of the test. */
static double
clock_start(moe_bench *b)
{
    const struct moe_load *now = moe_runner_expert_load(b->e->runner);
    int                    timed = b->probe.timed;

    memset(&b->probe, 0, sizeof(b->probe));
    b->probe.timed = timed;
    memcpy(b->mark.counts, now->counts,
           (size_t) now->n_layers * now->n_experts * sizeof(*now->counts));
    b->mark.visits = now->visits;
    b->mark.distinct = now->distinct;
    b->mark.even = now->even;
    return moe_now();
}

/* The clock stops: seconds since start; what the experts got meanwhile is
 * added to the test's. */
static double
clock_stop(moe_bench *b, double start)
{
    const struct moe_load *now = moe_runner_expert_load(b->e->runner);
    double                 s = moe_now() - start;
    size_t                 i;

    for (i = 0; i < (size_t) now->n_layers * now->n_experts; i++)
        b->load.counts[i] += now->counts[i] - b->mark.counts[i];
    b->load.visits += now->visits - b->mark.visits;
    b->load.distinct += now->distinct - b->mark.distinct;
    b->load.even += now->even - b->mark.even;
    return s;
}

/* Prompts: the clock runs for the tokens behind those of the depth. */
static moe_status
lap_prompt(moe_bench *b, const struct moe_bench_test *t, uint64_t *random,
           struct lap *lap, struct moe_error *err)
{
    uint64_t   steps;
    double     start;
    moe_status st;

    lap->tokens = (uint64_t) t->batch * t->n_prompt;
    if (t->depth == 0) {
        /* One token comes out of it, if the context has room: a prompt is
         * worth nothing without. */
        st = submit(b, t, t->n_prompt, t->n_prompt < b->e->plan.context,
                    random, err);
    } else {
        st = submit(b, t, t->depth,
                    t->n_prompt + 1
                        + (uint32_t) warm_steps(t, b->e->plan.rows),
                    random, err);
        if (st == MOE_OK)
            st = step_on(b, 0, err);
        if (st == MOE_OK)
            st = replace_tokens(b, t->n_prompt, 1, random, err);
    }
    steps = b->e->stats.steps;
    start = clock_start(b);
    if (st == MOE_OK)
        st = step_on(b, 1, err);
    lap->seconds = clock_stop(b, start);
    lap->steps = b->e->stats.steps - steps;
    return st;
}

/* Generation: the clock runs once each sequence has its first token. */
static moe_status
lap_generate(moe_bench *b, const struct moe_bench_test *t, uint32_t n_gen,
             uint64_t *random, struct lap *lap, struct moe_error *err)
{
    uint32_t   prompt = t->depth != 0 ? t->depth : 1, i, active;
    uint32_t   warm = (uint32_t) warm_steps(t, b->e->plan.rows);
    double     start;
    moe_status st;

    /* those that begin first go on while the others' prompts are computed */
    st = submit(b, t, prompt, n_gen + warm + 1, random, err);
    if (st == MOE_OK)
        st = step_on(b, 0, err);
    lap->tokens = (uint64_t) n_gen * t->batch;
    lap->steps = n_gen;
    start = clock_start(b);
    for (i = 0; i < n_gen && st == MOE_OK; i++) {
        st = replace_tokens(b, 1, 0, random, err);
        if (st == MOE_OK)
            st = moe_engine_step(b->e, &active, err);
    }
    lap->seconds = clock_stop(b, start);
    return st;
}

static moe_status
run_lap(moe_bench *b, const struct moe_bench_test *t, uint32_t n_gen,
        uint64_t *random, struct lap *lap, struct moe_error *err)
{
    moe_status st;

    memset(lap, 0, sizeof(*lap));
    moe_runner_probe(b->e->runner, &b->probe);
    st = t->n_prompt != 0 ? lap_prompt(b, t, random, lap, err)
                          : lap_generate(b, t, n_gen, random, lap, err);
    moe_runner_probe(b->e->runner, NULL);
    drop_sequences(b);
    return st;
}

static void
add_up(moe_bench *b, const struct lap *lap, struct moe_bench_result *r)
{
    struct moe_ledger_domain  d;
    double                    steps = (double) lap->steps;
    uint32_t                  i;

    for (i = 0; i < MOE_AT_COUNT; i++) {
        if (i != MOE_AT_ATTENTION)
            r->weight_bytes += (double) b->probe.bytes[i] / steps;
        r->ops += b->probe.ops[i] / steps;
    }
    r->kv_bytes = (double) b->probe.bytes[MOE_AT_ATTENTION] / steps;
    r->tokens = lap->tokens;
    r->steps = lap->steps;
    r->imbalance = moe_load_imbalance(&b->load);
    r->entropy = moe_load_entropy(&b->load);
    r->distinct = moe_load_distinct(&b->load);
    r->expected_distinct = moe_load_even(&b->load);
    moe_ledger_domain(b->e->ledger, MOE_LEDGER_HOST, &d);
    r->peak_bytes = b->peak; /* the engine takes all it needs at once */
    r->budget_bytes = d.limit;
}

static void
summarize(moe_bench *b, struct moe_bench_result *r)
{
    double  *sorted = b->step_s; /* of no use for anything else later */
    uint32_t n = b->n_tps;

    r->step_s = moe_median(b->step_s, n);
    memcpy(sorted, b->tps, n * sizeof(*sorted));
    r->tps = moe_median(sorted, n);
    r->tps_min = sorted[0];
    r->tps_max = sorted[n - 1];
    if (b->ceiling == NULL)
        return;
    r->read_ceiling = moe_median(b->read, n);
    r->arith_ceiling = moe_median(b->arith, n);
    if (r->step_s > 0 && r->read_ceiling > 0)
        r->read_share = r->weight_bytes / r->step_s / r->read_ceiling;
    if (r->step_s > 0 && r->arith_ceiling > 0)
        r->arith_share = r->ops / r->step_s / r->arith_ceiling;
}

/* Once more with the clock around each operation. */
static moe_status
time_ops(moe_bench *b, const struct moe_bench_test *t, uint64_t *random,
         struct moe_bench_result *r, struct moe_error *err)
{
    struct lap lap;
    double     sum = 0;
    uint32_t   i;
    moe_status st;

    b->probe.timed = 1;
    st = run_lap(b, t, t->n_gen, random, &lap, err);
    b->probe.timed = 0;
    if (st != MOE_OK)
        return st;
    for (i = 0; i < MOE_AT_COUNT; i++)
        sum += b->probe.seconds[i];
    r->rest_s = (lap.seconds - sum) / (double) lap.steps;
    return MOE_OK;
}

moe_status
moe_bench_run(moe_bench *b, const struct moe_bench_test *t,
              struct moe_bench_result *out, struct moe_error *err)
{
    struct moe_bench_result r;
    struct lap              lap;
    double                  slow[2];
    uint64_t                random = b->seed;
    uint32_t                i;
    moe_status              st = check_test(b, t, err);

    if (st != MOE_OK)
        return st;
    memset(&r, 0, sizeof(r));
    free(b->ids);
    b->ids = calloc(t->n_prompt + 1u, sizeof(*b->ids));
    if (b->ids == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
    b->n_tps = 0;
    b->steps = 0;
    st = run_lap(b, t, t->n_gen < WARM_STEPS ? t->n_gen : WARM_STEPS, &random,
                 &lap, err);
    if (st != MOE_OK)
        return st;
    memset(b->load.counts, 0,
           (size_t) b->load.n_layers * b->load.n_experts
               * sizeof(*b->load.counts));
    b->load.visits = b->load.distinct = 0;
    b->load.even = 0;
    st = moe_prediction_pace(b->prediction, slow, err);
    for (i = 0; i < b->repetitions && st == MOE_OK; i++) {
        b->slow[0][i] = slow[0] / 2;
        b->slow[1][i] = slow[1] / 2;
        if (b->ceiling != NULL)
            moe_ceiling_now(b->ceiling, &b->read[i], &b->arith[i]);
        st = run_lap(b, t, t->n_gen, &random, &lap, err);
        if (st != MOE_OK)
            break;
        b->tps[i] = (double) lap.tokens / lap.seconds;
        b->step_s[i] = lap.seconds / (double) lap.steps;
        b->n_tps++;
        /* the mean of before and after, because it may change meanwhile */
        st = moe_prediction_pace(b->prediction, slow, err);
        b->slow[0][i] += slow[0] / 2;
        b->slow[1][i] += slow[1] / 2;
    }
    b->steps = lap.steps;
    if (st == MOE_OK)
        add_up(b, &lap, &r);
    if (st == MOE_OK && (b->flags & MOE_BENCH_OPS) != 0)
        st = time_ops(b, t, &random, &r, err);
    if (st != MOE_OK) {
        b->n_tps = 0;
        return st;
    }
    summarize(b, &r);
    for (i = 0; i < 2; i++)
        slow[i] = moe_median(b->slow[i], b->n_tps);
    r.predicted_tps = moe_prediction_tps(
        b->prediction, t, warm_steps(t, b->e->plan.rows), slow);
    r.repetitions = b->n_tps;
    copy_out(out, &r, sizeof(r));
    return MOE_OK;
}

moe_status
moe_bench_sample(const moe_bench *b, uint32_t i, double *tps)
{
    if (i >= b->n_tps)
        return MOE_E_NOT_FOUND;
    *tps = b->tps[i];
    return MOE_OK;
}

moe_status
moe_bench_op_at(const moe_bench *b, uint32_t i, struct moe_bench_op *out)
{
    struct moe_bench_op op;
    uint32_t            at, seen = 0;

    for (at = 0; at < MOE_AT_COUNT; at++)
        if (b->probe.calls[at] != 0 && seen++ == i)
            break;
    if (at == MOE_AT_COUNT || b->n_tps == 0)
        return MOE_E_NOT_FOUND;
    memset(&op, 0, sizeof(op));
    op.name = moe_runner_at_name(at);
    op.calls = (double) b->probe.calls[at] / (double) b->steps;
    op.seconds = b->probe.seconds[at] / (double) b->steps;
    op.bytes = (double) b->probe.bytes[at] / (double) b->steps;
    op.ops = b->probe.ops[at] / (double) b->steps;
    copy_out(out, &op, sizeof(op));
    return MOE_OK;
}
