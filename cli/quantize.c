/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantize.c - moe-run quantize IN OUT.
 */
#include "cli.h"

#include <string.h>

struct state {
    struct progress progress;
    uint64_t        total;
};

static int
on_progress(void *ctx, uint64_t done, uint64_t total, const char *what)
{
    struct state *s = ctx;

    s->total = total;
    progress_show(&s->progress, done, total, what);
    return signal_came() != 0;
}

int
run_quantize(struct cli *c)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    struct state     s;
    moe_status       status;
    char             a[32], b[32];
    double           seconds;

    if (c->n_operands < 2) {
        say("quantize needs two folders: the checkpoint to read and the one "
            "to write");
        return EXIT_USAGE;
    }
    memset(&s, 0, sizeof(s));
    /* a signal ends it through on_progress, so that nothing half-written
     * stays behind */
    signals_mode(ON_SIGNAL_NOTE, NULL);
    progress_start(&s.progress, NULL);
    status = moe_quantize(c->o, c->operands[0], c->operands[1], on_progress,
                          &s, &err);
    progress_end(&s.progress);
    signals_mode(ON_SIGNAL_EXIT, NULL);
    if (signal_came() != 0 && status == MOE_E_CANCELED) {
        say("stopped; %s was not written", c->operands[1]);
        return 128 + signal_came();
    }
    if (status != MOE_OK)
        return fail(&err);
    seconds = now_s() - s.progress.start;
    if (!c->quiet)
        say("%s written: %s of weights in %.1f s (%s/s)", c->operands[1],
            bytes_text(s.total, a, sizeof(a)), seconds,
            bytes_text((uint64_t) ((double) s.total
                                   / (seconds > 1e-3 ? seconds : 1e-3)),
                       b, sizeof(b)));
    return EXIT_OK;
}
