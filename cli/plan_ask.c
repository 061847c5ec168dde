/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_ask.c - what moe-run plan is asked: flags to a checked question.
 */
#include "plan.h"
#include "support/number.h"

#include <string.h>

/* A number that need not be whole. */
static int
value(const struct cli *c, const char *flag, double min, double max,
      double *out)
{
    const char *text = cli_value(c, flag);
    double      v;

    if (text == NULL)
        return EXIT_OK;
    if (!moe_number_real(text, (locale_t) 0, &v) || !(v >= min && v <= max)) {
        say("%s: '%.80s' is not a number from %g to %g", flag, text, min,
            max);
        return EXIT_USAGE;
    }
    *out = v;
    return EXIT_OK;
}

/* A whole number from 1 to max; of tokens with k for 1024 of them, or M. */
static int
whole_number(const char *flag, const char *text, double max, int tokens,
             double *out)
{
    char    digits[MOE_NUMBER_MAX + 1];
    size_t  len = strlen(text);
    int64_t v = 0;
    double  unit = 1;

    if (tokens && len > 1 && len < sizeof(digits)) {
        char last = text[len - 1];

        unit = last == 'k' || last == 'K' ? 1024 : last == 'M' ? 1048576 : 1;
        if (unit > 1) {
            memcpy(digits, text, len - 1);
            digits[len - 1] = '\0';
        }
    }
    if (!moe_number_whole(unit > 1 ? digits : text, &v) || v < 1
        || (double) v * unit > max) {
        say("%s: '%.80s' is not a whole number%s from 1 to %.0f", flag, text,
            tokens ? " of tokens, such as 8192 or 8k," : "", max);
        return EXIT_USAGE;
    }
    *out = (double) v * unit;
    return EXIT_OK;
}

static int
whole(const struct cli *c, const char *flag, double max, double *out)
{
    const char *text = cli_value(c, flag);

    return text == NULL ? EXIT_OK : whole_number(flag, text, max, 0, out);
}

static int
tokens(const struct cli *c, const char *flag, double *out)
{
    const char *text = cli_value(c, flag);

    return text == NULL ? EXIT_OK : whole_number(flag, text, 1e9, 1, out);
}

/* Whole numbers with commas between them. */
static int
numbers(const struct cli *c, const char *flag, double max, double *out,
        size_t *n)
{
    const char *text = cli_value(c, flag);
    char        word[MOE_NUMBER_MAX + 2];
    size_t      len;
    int         status;

    if (text == NULL)
        return EXIT_OK;
    for (*n = 0;; text += len + 1) {
        len = strcspn(text, ",");
        if (*n == LIST_MAX) {
            say("%s: at most %u numbers with commas between them", flag,
                LIST_MAX);
            return EXIT_USAGE;
        }
        /* one too long is no number either way */
        snprintf(word, sizeof(word), "%.*s",
                 len < sizeof(word) ? (int) len : (int) sizeof(word) - 1,
                 text);
        status = whole_number(flag, word, max, 0, &out[*n]);
        if (status != EXIT_OK)
            return status;
        (*n)++;
        if (text[len] == '\0')
            return EXIT_OK;
    }
}

/* Words with commas between them, or semicolons if one of them is mixed. */
static int
formats(const struct cli *c, struct question *q)
{
    const char *text = cli_value(c, "--formats");
    const char *between;
    char       *p, *end;

    if (text == NULL)
        return EXIT_OK;
    if (strlen(text) >= sizeof(q->format_text)) {
        say("--formats: more than %zu bytes", sizeof(q->format_text) - 1);
        return EXIT_USAGE;
    }
    between = strchr(text, '=') != NULL ? ";" : ",;";
    strcpy(q->format_text, text);
    for (p = q->format_text; p != NULL; p = end) {
        end = p + strcspn(p, between);
        if (end == p) {
            say("--formats: a format is wanted before and behind each of '%s' "
                "(%s)", between, moe_plan_formats());
            return EXIT_USAGE;
        }
        if (q->n_formats == LIST_MAX) {
            say("--formats: at most %u of them", LIST_MAX);
            return EXIT_USAGE;
        }
        q->formats[q->n_formats++] = p;
        if (*end == '\0')
            end = NULL;
        else
            *end++ = '\0';
    }
    return EXIT_OK;
}

static int
cache_format(const struct cli *c, struct question *q)
{
    const char *text = cli_value(c, "--kv");

    if (text == NULL)
        return EXIT_OK;
    if (strcmp(text, "f32") == 0)
        q->setup.kv_elem = 4;
    else if (strcmp(text, "bf16") == 0 || strcmp(text, "f16") == 0)
        q->setup.kv_elem = 2;
    else if (strcmp(text, "fp8") == 0)
        q->setup.kv_elem = 1;
    else {
        say("--kv: there is no cache format '%s' (known: f32 bf16 f16 fp8)",
            text);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

int
question_useless(const struct cli *c)
{
    static const char *const kinds[]
        = { "--models", "--devices", "--articles", "--compare" };
    static const char *const prints[] = { "--csv", "--json", "--svg",
                                          "--chart" };
    static const struct {
        const char *flag, *needs;
    } pairs[] = {
        { "--gpus", "--hardware" },        { "--api-price", "--hardware" },
        { "--utilization", "--hardware" }, { "--dark", "--svg" },
    };
    static const char *const sweeps[] = { "--batches", "--formats",
                                          "--counts" };
    static const char *const alone[] = { "--trace", "--ttft", "--tpot" };
    const char *kind = NULL, *print = NULL;
    size_t      i;

    for (i = 0; i < 4; i++)
        if (cli_has(c, kinds[i])) {
            if (kind != NULL) {
                say("%s and %s: one of them", kind, kinds[i]);
                return EXIT_USAGE;
            }
            kind = kinds[i];
        }
    if (kind == NULL && cli_has(c, "--sweep"))
        kind = "--sweep";
    for (i = 0; i < 4; i++)
        if (cli_has(c, prints[i])) {
            if (print != NULL) {
                say("%s and %s: one of them", print, prints[i]);
                return EXIT_USAGE;
            }
            print = prints[i];
            if (kind != NULL && strcmp(kind, "--sweep") != 0
                && (strcmp(kind, "--compare") != 0
                    || strcmp(print, "--json") != 0)) {
                say("%s has no effect with %s", print, kind);
                return EXIT_USAGE;
            }
        }
    if (kind != NULL && strcmp(kind, "--compare") != 0
        && strcmp(kind, "--sweep") != 0 && c->n_operands > 0) {
        say("%s takes no model: '%s' has no effect", kind, c->operands[0]);
        return EXIT_USAGE;
    }
    for (i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (cli_has(c, pairs[i].flag) && !cli_has(c, pairs[i].needs)) {
            say("%s has no effect without %s", pairs[i].flag, pairs[i].needs);
            return EXIT_USAGE;
        }
    for (i = 0; i < 3; i++)
        if (cli_has(c, sweeps[i])
            && ((kind != NULL && strcmp(kind, "--sweep") != 0)
                || (kind == NULL
                    && (print == NULL || strcmp(print, "--json") == 0)))) {
            say("%s has no effect without --sweep", sweeps[i]);
            return EXIT_USAGE;
        }
    if (cli_has(c, "--skew") && cli_has(c, "--trace")) {
        say("--skew and --trace: one of them");
        return EXIT_USAGE;
    }
    for (i = 0; i < 3; i++)
        if (cli_has(c, alone[i])
            && (kind != NULL || print != NULL)
            && ((i == 0 && (kind != NULL || !cli_has(c, "--hardware")))
                || (kind != NULL && strcmp(kind, "--compare") != 0)
                || (kind == NULL && strcmp(print, "--json") != 0))) {
            say("%s has no effect with %s", alone[i],
                kind != NULL ? kind : print);
            return EXIT_USAGE;
        }
    return EXIT_OK;
}

int
question_read(const struct cli *c, struct question *q)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    double           v[5] = { 1, 0, 0, 0, 0 }, ms[2] = { 0, 0 };
    const char      *name = cli_value(c, "--hardware");
    int              status;

    memset(q, 0, sizeof(*q));
    q->device.struct_size = sizeof(q->device);
    q->setup.struct_size = sizeof(q->setup);
    q->setup.format = cli_value(c, "--format");
    q->setup.batch = 1;
    q->setup.input = 1024;
    q->setup.output = 256;
    q->trace = cli_value(c, "--trace");
    q->has_count = cli_has(c, "--gpus");
    q->has_load = cli_has(c, "--concurrency");
    q->has_context = cli_has(c, "--context");
    status = whole(c, "--gpus", 65536, &v[0]);
    if (status == EXIT_OK)
        status = whole(c, "--tp", 65536, &v[1]);
    if (status == EXIT_OK)
        status = whole(c, "--ep", 65536, &v[2]);
    if (status == EXIT_OK)
        status = whole(c, "--pp", 65536, &v[3]);
    if (status == EXIT_OK)
        status = whole(c, "--replicas", 65536, &v[4]);
    if (status == EXIT_OK)
        status = whole(c, "--concurrency", 1e7, &q->setup.batch);
    if (status == EXIT_OK)
        status = tokens(c, "--input", &q->setup.input);
    if (status == EXIT_OK)
        status = tokens(c, "--output", &q->setup.output);
    if (status == EXIT_OK)
        status = tokens(c, "--context", &q->setup.context);
    if (status == EXIT_OK)
        status = value(c, "--utilization", 1e-6, 1,
                       &q->setup.utilization);
    if (status == EXIT_OK)
        status = value(c, "--price", 1e-6, 1e6, &q->setup.price);
    if (status == EXIT_OK)
        status = value(c, "--api-price", 1e-6, 1e6, &q->api_price);
    if (status == EXIT_OK)
        status = value(c, "--skew", 0, 20, &q->setup.skew);
    if (status == EXIT_OK)
        status = value(c, "--ttft", 1e-3, 1e9, &ms[0]);
    if (status == EXIT_OK)
        status = value(c, "--tpot", 1e-3, 1e9, &ms[1]);
    if (status == EXIT_OK)
        status = numbers(c, "--batches", 1e7, q->batches, &q->n_batches);
    if (status == EXIT_OK)
        status = numbers(c, "--counts", 65536, q->counts, &q->n_counts);
    if (status == EXIT_OK)
        status = formats(c, q);
    if (status == EXIT_OK)
        status = cache_format(c, q);
    if (status != EXIT_OK)
        return status;
    /* a context given alone is that of the requests */
    if (q->setup.context > 0 && !cli_has(c, "--input")
        && q->setup.context > q->setup.output)
        q->setup.input = q->setup.context - q->setup.output;
    q->setup.devices = (uint32_t) v[0];
    q->setup.tp = (uint32_t) v[1];
    q->setup.ep = (uint32_t) v[2];
    q->setup.pp = (uint32_t) v[3];
    q->setup.replicas = (uint32_t) v[4];
    q->max_ttft = ms[0] / 1e3;
    q->max_tpot = ms[1] / 1e3;
    if (cli_has(c, "--ideal"))
        q->setup.flags |= MOE_PLAN_IDEAL;
    if (name == NULL)
        return EXIT_OK;
    if (moe_plan_device(name, &q->device, &err) != MOE_OK)
        return fail_name(&err);
    q->has_device = 1;
    q->setup.device = &q->device;
    return EXIT_OK;
}
