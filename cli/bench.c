/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.c - moe-run bench: speed, and its share of what the machine can do.
 *
 * Tests are named as people paste them: pp512 computes a prompt of 512
 * tokens, tg128 generates 128, "b4" does so for four sequences at once, "@
 * d1024" with 1024 tokens before.  Figures are the library's; here are the
 * lists, the table, CSV and JSON.
 */
#include "cli.h"
#include "support/number.h"

#include <stdlib.h>
#include <string.h>

#define LIST_MAX   64
#define TESTS_MAX  4096
#define NUMBER_MAX (1ull << 24)

struct list {
    uint32_t at[LIST_MAX];
    size_t   n;
};

enum format { MD, CSV, JSON };

struct run {
    struct cli              *c;
    moe_bench               *b;
    enum format              format;
    int                      ops;
    struct moe_bench_test   *tests; /* (n_tests) */
    size_t                   n_tests, n_done;
    struct moe_bench_machine machine; /* threads 0: not measured */
    struct moe_engine_info   info;
    const char              *name; /* of the model */
};

/* ---------------------------------------------------------------- lists -- */

/* Digits at *p, which moves behind them. */
static int
number(const char **p, uint64_t *out)
{
    const char *start = *p;

    for (*out = 0; **p >= '0' && **p <= '9'; (*p)++) {
        *out = *out * 10 + (uint64_t) (**p - '0');
        if (*out > NUMBER_MAX)
            return 0;
    }
    return *p != start;
}

/* "8", "1,2,4", "1-4", "0-512+128", "1-32*2" and any of them with commas. */
static int
read_list(const char *text, struct list *out)
{
    const char *p = text;

    out->n = 0;
    for (;;) {
        uint64_t from, to, step = 1;
        char     how = '+';

        if (!number(&p, &from))
            return 0;
        to = from;
        if (*p == '-') {
            p++;
            if (!number(&p, &to) || to < from)
                return 0;
            if (*p == '+' || *p == '*') {
                how = *p++;
                if (!number(&p, &step) || step < (how == '*' ? 2u : 1u)
                    || (how == '*' && from == 0))
                    return 0;
            }
        }
        for (; from <= to; from = how == '*' ? from * step : from + step) {
            if (out->n == LIST_MAX)
                return 0;
            out->at[out->n++] = (uint32_t) from;
        }
        if (*p == '\0')
            return 1;
        if (*p++ != ',')
            return 0;
    }
}

static int
take_list(const struct cli *c, const char *flag, const char *fallback,
          uint32_t least, struct list *out)
{
    const char *value = cli_value(c, flag);
    size_t      i;

    if (!read_list(value != NULL ? value : fallback, out)) {
        say("%s: '%s' is no list of up to %d numbers, such as 512 or 1,2,4 or "
            "1-32*2",
            flag, value, LIST_MAX);
        return EXIT_USAGE;
    }
    for (i = 0; i < out->n; i++)
        if (out->at[i] < least) {
            say("%s: %u is too few", flag, out->at[i]);
            return EXIT_USAGE;
        }
    return EXIT_OK;
}

static void
add_test(struct run *r, uint32_t prompt, uint32_t gen, uint32_t batch,
         uint32_t depth)
{
    struct moe_bench_test *t = &r->tests[r->n_tests++];

    t->struct_size = sizeof(*t);
    t->n_prompt = prompt;
    t->n_gen = gen;
    t->batch = batch;
    t->depth = depth;
}

/* Every depth with every batch: the prompts, then the generations. */
static int
make_tests(struct run *r)
{
    struct list p, n, b, d;
    size_t      i, j, k;
    int         status = take_list(r->c, "--n-prompt", "512", 0, &p);

    if (status == EXIT_OK)
        status = take_list(r->c, "--n-gen", "128", 0, &n);
    if (status == EXIT_OK)
        status = take_list(r->c, "--batch", "1", 1, &b);
    if (status == EXIT_OK)
        status = take_list(r->c, "--depth", "0", 0, &d);
    if (status != EXIT_OK)
        return status;
    if ((p.n + n.n) * b.n * d.n > TESTS_MAX) {
        say("the lists make %zu tests, at most %d are run",
            (p.n + n.n) * b.n * d.n, TESTS_MAX);
        return EXIT_USAGE;
    }
    r->tests = calloc((p.n + n.n) * b.n * d.n, sizeof(*r->tests));
    if (r->tests == NULL) {
        say("out of memory");
        return EXIT_RUN;
    }
    for (i = 0; i < d.n; i++)
        for (j = 0; j < b.n; j++) {
            for (k = 0; k < p.n; k++)
                if (p.at[k] != 0)
                    add_test(r, p.at[k], 0, b.at[j], d.at[i]);
            for (k = 0; k < n.n; k++)
                if (n.at[k] != 0)
                    add_test(r, 0, n.at[k], b.at[j], d.at[i]);
        }
    if (r->n_tests == 0) {
        say("nothing to time: -p and -n are 0");
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

static int
take_words(struct run *r, uint32_t *repetitions)
{
    static const char *const words[] = { "md", "csv", "json" };
    const char              *value = cli_value(r->c, "--output");
    struct list              l;
    size_t                   i;

    for (i = 0; value != NULL && i < 3; i++)
        if (strcmp(value, words[i]) == 0)
            break;
    if (value != NULL && i == 3) {
        say("--output: '%s' is none of md, csv, json", value);
        return EXIT_USAGE;
    }
    r->format = value != NULL ? (enum format) i : MD;
    r->ops = cli_has(r->c, "--ops");
    value = cli_value(r->c, "--repetitions");
    *repetitions = 0;
    if (value == NULL)
        return EXIT_OK;
    if (!read_list(value, &l) || l.n != 1 || l.at[0] < 1 || l.at[0] > 1000) {
        say("--repetitions: '%s' is no number from 1 to 1000", value);
        return EXIT_USAGE;
    }
    *repetitions = l.at[0];
    return EXIT_OK;
}

/* --------------------------------------------------------------- output -- */

static char *
test_name(const struct moe_bench_test *t, char *buf, size_t size)
{
    size_t n = (size_t) snprintf(buf, size, "%s%u",
                                 t->n_prompt != 0 ? "pp" : "tg",
                                 t->n_prompt != 0 ? t->n_prompt : t->n_gen);

    if (t->batch > 1)
        n += (size_t) snprintf(buf + n, size - n, " b%u", t->batch);
    if (t->depth > 0)
        snprintf(buf + n, size - n, " @ d%u", t->depth);
    return buf;
}

static char *
count_text(uint64_t n, char *buf, size_t size)
{
    snprintf(buf, size, n >= 1000000000 ? "%.2f B" : "%.2f M",
             (double) n / (n >= 1000000000 ? 1e9 : 1e6));
    return buf;
}

/* "83 %", "-" without a ceiling. */
static char *
share_text(double share, char *buf, size_t size)
{
    if (share > 0)
        snprintf(buf, size, "%.1f %%", 100 * share);
    else
        snprintf(buf, size, "-");
    return buf;
}

static void
md_machine(const struct run *r)
{
    const struct moe_bench_machine *m = &r->machine;

    if (m->threads == 0)
        return;
    out_format("| machine, %u threads | 4 KiB pages | 2 MiB pages | 2 MiB, 4 "
               "streams | f32 (%s) | int8 (%s) |\n"
               "| --- | ---: | ---: | ---: | ---: | ---: |\n"
               "| read GB/s; Gop/s | %.1f | %.1f | %.1f | %.0f | %.0f |\n\n",
               m->threads, m->f32_by, m->int8_by, m->read_4k / 1e9,
               m->read_2m / 1e9, m->read_2m_streams / 1e9, m->f32_ops / 1e9,
               m->int8_ops / 1e9);
}

static void
md_head(void)
{
    out_text("| model | size | params | backend | threads | test | t/s | ± | "
             "plan | ratio | ms/step | GB/step | read | arithmetic | experts "
             "|\n"
             "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | "
             "---: | ---: | ---: | ---: | ---: | ---: |\n");
}

static void
md_row(const struct run *r, const struct moe_bench_test *t,
       const struct moe_bench_result *x)
{
    char name[64], size[32], params[32], read[16], arith[16], experts[32];
    char plan[32], ratio[16];

    snprintf(plan, sizeof(plan), "-");
    snprintf(ratio, sizeof(ratio), "-");
    if (x->predicted_tps > 0) {
        snprintf(plan, sizeof(plan), "%.2f", x->predicted_tps);
        snprintf(ratio, sizeof(ratio), "%.2f", x->predicted_tps / x->tps);
    }
    snprintf(experts, sizeof(experts), "-");
    if (r->info.n_moe_layers > 0)
        snprintf(experts, sizeof(experts), "%.1f of %.1f", x->distinct,
                 x->expected_distinct);
    out_format("| %s | %s | %s | %s | %u | %s | %.2f | %.2f | %s | %s | %.3f "
               "| %.3f | %s | %s | %s |\n",
               r->name, bytes_text(r->info.weight_bytes, size, sizeof(size)),
               count_text(r->info.params_total, params, sizeof(params)),
               r->info.backend, r->info.threads,
               test_name(t, name, sizeof(name)), x->tps,
               (x->tps_max - x->tps_min) / 2, plan, ratio, 1e3 * x->step_s,
               x->weight_bytes / 1e9,
               share_text(x->read_share, read, sizeof(read)),
               share_text(x->arith_share, arith, sizeof(arith)), experts);
}

/* Where the time goes, after the row of the test. */
static void
md_ops(const struct run *r, const struct moe_bench_test *t,
       const struct moe_bench_result *x)
{
    struct moe_bench_op op = { .struct_size = sizeof(op) };
    char                name[64], read[16], arith[16];
    double              total = x->rest_s;
    uint32_t            i;

    for (i = 0; moe_bench_op_at(r->b, i, &op) == MOE_OK; i++)
        total += op.seconds;
    out_format("\n| %s, a step | calls | ms | of the time | MB | read | "
               "arithmetic |\n"
               "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
               test_name(t, name, sizeof(name)));
    for (i = 0; moe_bench_op_at(r->b, i, &op) == MOE_OK; i++)
        out_format("| %s | %.0f | %.3f | %.1f %% | %.1f | %s | %s |\n",
                   op.name, op.calls, 1e3 * op.seconds,
                   total > 0 ? 100 * op.seconds / total : 0, op.bytes / 1e6,
                   share_text(op.seconds > 0 && x->read_ceiling > 0
                                  ? op.bytes / op.seconds / x->read_ceiling
                                  : 0,
                              read, sizeof(read)),
                   share_text(op.seconds > 0 && x->arith_ceiling > 0
                                  ? op.ops / op.seconds / x->arith_ceiling
                                  : 0,
                              arith, sizeof(arith)));
    out_format("| the rest | | %.3f | %.1f %% | | | |\n\n", 1e3 * x->rest_s,
               total > 0 ? 100 * x->rest_s / total : 0);
}

/* One column of CSV and member of JSON. */
struct field {
    const char *name;
    double      value;
};

static size_t
fields(const struct run *r, const struct moe_bench_test *t,
       const struct moe_bench_result *x, struct field out[40])
{
    const struct field all[] = {
        { "n_prompt", t->n_prompt },
        { "n_gen", t->n_gen },
        { "batch", t->batch },
        { "depth", t->depth },
        { "repetitions", x->repetitions },
        { "tokens", (double) x->tokens },
        { "steps", (double) x->steps },
        { "tokens_per_s", x->tps },
        { "tokens_per_s_min", x->tps_min },
        { "tokens_per_s_max", x->tps_max },
        { "step_s", x->step_s },
        { "weight_bytes", x->weight_bytes },
        { "kv_bytes", x->kv_bytes },
        { "ops", x->ops },
        { "read_ceiling", x->read_ceiling },
        { "arith_ceiling", x->arith_ceiling },
        { "read_share", x->read_share },
        { "arith_share", x->arith_share },
        { "distinct", x->distinct },
        { "expected_distinct", x->expected_distinct },
        { "imbalance", x->imbalance },
        { "entropy", x->entropy },
        { "threads", r->info.threads },
        { "peak_bytes", (double) x->peak_bytes },
        { "budget_bytes", (double) x->budget_bytes },
        { "predicted_tokens_per_s", x->predicted_tps },
        { "predicted_ratio", x->predicted_tps > 0 ? x->predicted_tps / x->tps
                                                  : 0 },
    };

    memcpy(out, all, sizeof(all));
    return sizeof(all) / sizeof(all[0]);
}

/* A field of CSV: quoted, quotes doubled. */
static void
csv_text(const char *text)
{
    out_text("\"");
    for (; *text != '\0'; text++)
        out_format(*text == '"' ? "\"%c" : "%c", *text);
    out_text("\"");
}

static void
csv_row(const struct run *r, const struct moe_bench_test *t,
        const struct moe_bench_result *x)
{
    struct field f[40];
    char         name[64];
    size_t       n = fields(r, t, x, f), i;

    if (r->n_done == 0) {
        out_text("model,backend,test");
        for (i = 0; i < n; i++)
            out_format(",%s", f[i].name);
        out_text("\n");
    }
    csv_text(r->name);
    out_text(",");
    csv_text(r->info.backend);
    out_text(",");
    csv_text(test_name(t, name, sizeof(name)));
    for (i = 0; i < n; i++) {
        out_text(",");
        out_number(f[i].value);
    }
    out_text("\n");
}

static void
json_head(const struct run *r)
{
    const struct moe_bench_machine *m = &r->machine;
    const struct field              f[] = {
                     { "threads", m->threads },
                     { "buffer_bytes", (double) m->buffer_bytes },
                     { "read_4k", m->read_4k },
                     { "read_4k_streams", m->read_4k_streams },
                     { "read_2m", m->read_2m },
                     { "read_2m_streams", m->read_2m_streams },
                     { "f32_ops", m->f32_ops },
                     { "int8_ops", m->int8_ops },
    };
    size_t i;

    out_format("{\"schema_version\":%d,\"model\":", SCHEMA_VERSION);
    out_json(r->name, strlen(r->name));
    out_format(",\"family\":\"%s\",\"backend\":\"%s\",\"threads\":%u,"
               "\"weight_bytes\":%llu,\"params_total\":%llu,"
               "\"params_active\":%llu,\"n_experts\":%u,\"top_k\":%u",
               r->info.family, r->info.backend, r->info.threads,
               (unsigned long long) r->info.weight_bytes,
               (unsigned long long) r->info.params_total,
               (unsigned long long) r->info.params_active, r->info.n_experts,
               r->info.top_k);
    if (m->threads != 0) {
        out_format(",\n\"machine\":{\"f32_by\":\"%s\",\"int8_by\":\"%s\"",
                   m->f32_by, m->int8_by);
        for (i = 0; i < sizeof(f) / sizeof(f[0]); i++) {
            out_format(",\"%s\":", f[i].name);
            out_number(f[i].value);
        }
        out_text("}");
    }
    out_text(",\n\"results\":[");
}

static void
json_row(const struct run *r, const struct moe_bench_test *t,
         const struct moe_bench_result *x)
{
    struct moe_bench_op op = { .struct_size = sizeof(op) };
    struct field        f[40];
    char                name[64];
    size_t              n = fields(r, t, x, f), k;
    uint32_t            i;
    double              tps;

    out_format("%s\n{\"test\":\"%s\"", r->n_done == 0 ? "" : ",",
               test_name(t, name, sizeof(name)));
    for (k = 0; k < n; k++) {
        out_format(",\"%s\":", f[k].name);
        out_number(f[k].value);
    }
    out_text(",\"samples\":[");
    for (i = 0; moe_bench_sample(r->b, i, &tps) == MOE_OK; i++) {
        out_text(i == 0 ? "" : ",");
        out_number(tps);
    }
    out_text("],\"operations\":[");
    for (i = 0; moe_bench_op_at(r->b, i, &op) == MOE_OK; i++) {
        out_format("%s\n{\"name\":\"%s\",\"calls\":", i == 0 ? "" : ",",
                   op.name);
        out_number(op.calls);
        out_text(",\"seconds\":");
        out_number(op.seconds);
        out_text(",\"bytes\":");
        out_number(op.bytes);
        out_text(",\"ops\":");
        out_number(op.ops);
        out_text("}");
    }
    out_text("]");
    if (r->ops) {
        out_text(",\"rest_s\":");
        out_number(x->rest_s);
    }
    out_text("}");
}

/* ------------------------------------------------------------------ run -- */

static void
print_head(const struct run *r)
{
    if (r->format == MD) {
        md_machine(r);
        md_head();
    } else if (r->format == JSON) {
        json_head(r);
    }
}

static void
print_result(struct run *r, const struct moe_bench_test *t,
             const struct moe_bench_result *x)
{
    if (r->format == CSV) {
        csv_row(r, t, x);
    } else if (r->format == JSON) {
        json_row(r, t, x);
    } else {
        if (r->ops && r->n_done > 0)
            md_head();
        md_row(r, t, x);
        if (r->ops)
            md_ops(r, t, x);
    }
    r->n_done++;
    out_flush();
}

static int
measure(struct run *r)
{
    struct moe_error         err = { .struct_size = sizeof(err) };
    struct moe_bench_result  x = { .struct_size = sizeof(x) };
    struct moe_bench_machine m = { .struct_size = sizeof(m) };
    struct progress          progress;
    moe_status               status = MOE_OK;
    char                     name[64], a[32], b[32];
    size_t                   i;

    if (!cli_has(r->c, "--no-machine"))
        status = moe_bench_machine(r->b, &m, &err);
    if (status != MOE_OK)
        return fail(&err);
    r->machine = m;
    print_head(r);
    progress_start(&progress, "tests");
    for (i = 0; i < r->n_tests && status == MOE_OK && !out_closed(); i++) {
        status = moe_bench_run(r->b, &r->tests[i], &x, &err);
        progress_end(&progress);
        if (status == MOE_OK)
            print_result(r, &r->tests[i], &x);
        if (i + 1 < r->n_tests)
            progress_show(&progress, i + 1, r->n_tests,
                          test_name(&r->tests[i + 1], name, sizeof(name)));
    }
    progress_end(&progress);
    if (r->format == JSON)
        out_text("]}\n");
    if (status == MOE_E_CANCELED)
        return exit_status(status);
    if (status != MOE_OK)
        return fail(&err);
    out_flush();
    if (!r->c->quiet && r->format == MD && r->n_done > 0) {
        fprintf(stderr, "\n  %-12s %s of a budget of %s at most\n", "memory",
                bytes_text(x.peak_bytes, a, sizeof(a)),
                bytes_text(x.budget_bytes, b, sizeof(b)));
        if (r->info.n_moe_layers > 0)
            fprintf(stderr,
                    "  %-12s load max/mean %.2f, entropy %.3f in the last "
                    "test\n",
                    "experts", x.imbalance, x.entropy);
    }
    return EXIT_OK;
}

/* The last part of a folder's path. */
static const char *
base_name(const char *path)
{
    const char *p = strrchr(path, '/');

    return p != NULL && p[1] != '\0' ? p + 1 : path;
}

/* The shape, if one is asked for. */
static int
take_shape(const struct cli *c, struct moe_bench_setup *setup)
{
    static const char *const only[] = { "--layers", "--format", "--skew" };
    const char              *value;
    struct list              l;
    size_t                   i;

    setup->shape = cli_value(c, "--shape");
    for (i = 0; setup->shape == NULL && i < 3; i++)
        if (cli_has(c, only[i])) {
            say("%s has no effect without --shape", only[i]);
            return EXIT_USAGE;
        }
    if (setup->shape == NULL)
        return EXIT_OK;
    if (moe_options_get(c->o, "model.path")[0] != '\0') {
        say("--shape and a model: one of them");
        return EXIT_USAGE;
    }
    setup->format = cli_value(c, "--format");
    value = cli_value(c, "--layers");
    if (value != NULL
        && (!read_list(value, &l) || l.n != 1 || l.at[0] == 0)) {
        say("--layers: '%s' is no number of layers", value);
        return EXIT_USAGE;
    }
    setup->layers = value != NULL ? l.at[0] : 0;
    value = cli_value(c, "--skew");
    if (value != NULL) {
        if (!moe_number_real(value, (locale_t) 0, &setup->skew)
            || !(setup->skew >= 0 && setup->skew <= 10)) {
            say("--skew: '%s' is no number from 0 to 10", value);
            return EXIT_USAGE;
        }
    }
    return EXIT_OK;
}

int
run_bench(struct cli *c)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_bench_setup setup = { .struct_size = sizeof(setup) };
    struct run             r;
    int                    status;

    memset(&r, 0, sizeof(r));
    r.c = c;
    status = take_words(&r, &setup.repetitions);
    if (status == EXIT_OK)
        status = make_tests(&r);
    if (status == EXIT_OK)
        status = take_shape(c, &setup);
    if (status == EXIT_OK && setup.shape == NULL)
        status = model_choose(c, NULL);
    if (status == EXIT_OK) {
        setup.tests = r.tests;
        setup.n_tests = (uint32_t) r.n_tests;
        setup.flags = (r.ops ? MOE_BENCH_OPS : 0)
                      | (cli_has(c, "--no-machine") ? MOE_BENCH_NO_MACHINE
                                                    : 0);
        if (moe_bench_open(c->o, &setup, &r.b, &err) != MOE_OK)
            status = setup.shape != NULL ? fail_name(&err) : fail(&err);
    }
    if (status == EXIT_OK) {
        signals_mode(ON_SIGNAL_CANCEL, moe_bench_engine(r.b));
        r.info.struct_size = sizeof(r.info);
        moe_engine_info(moe_bench_engine(r.b), &r.info);
        r.name = base_name(r.info.model);
        status = measure(&r);
        signals_mode(ON_SIGNAL_EXIT, NULL);
    }
    moe_bench_close(r.b);
    free(r.tests);
    return status;
}
