/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantize.c - moe-run quantize IN OUT.
 */
#include "cli.h"

#include <string.h>


static int
on_progress(void *ctx, uint64_t done, uint64_t total, const char *what)
{
    progress_show(ctx, done, total, what);
    return signal_came() != 0;
}

/* What a calibration came to. */
static void
say_calibration(const struct moe_quantize_info *i)
{
    if (i->calibrated == 0)
        return;
    say("calibrated: %llu of %llu matrices, %llu tokens; error of their "
        "outputs %.2f of rounding to nearest",
        (unsigned long long) i->calibrated, (unsigned long long) i->matrices,
        (unsigned long long) i->tokens, i->error);
    if (i->expert_most != 0)
        say("an expert saw %llu to %llu tokens; fewer than %u: %llu experts",
            (unsigned long long) i->expert_least,
            (unsigned long long) i->expert_most, i->few,
            (unsigned long long) i->expert_few);
}

int
run_quantize(struct cli *c)
{
    struct moe_error         err = { .struct_size = sizeof(err) };
    struct moe_quantize_info info = { .struct_size = sizeof(info) };
    struct progress          progress;
    moe_status               status;
    char                     a[32], b[32];
    double                   seconds;

    if (c->n_operands < 2) {
        say("quantize needs two folders: the checkpoint to read and the one "
            "to write");
        return EXIT_USAGE;
    }
    memset(&progress, 0, sizeof(progress));
    /* a signal ends it through on_progress, so that nothing half-written
     * stays behind */
    signals_mode(ON_SIGNAL_NOTE, NULL);
    progress_start(&progress, NULL);
    status = moe_quantize(c->o, c->operands[0], c->operands[1], on_progress,
                          &progress, &info, &err);
    progress_end(&progress);
    signals_mode(ON_SIGNAL_EXIT, NULL);
    if (signal_came() != 0 && status == MOE_E_CANCELED) {
        say("stopped; %s was not written", c->operands[1]);
        return 128 + signal_came();
    }
    if (status != MOE_OK)
        return fail(&err);
    seconds = now_s() - progress.start;
    if (c->quiet)
        return EXIT_OK;
    say_calibration(&info);
    say("%s written: %s of weights in %.1f s (%s/s)", c->operands[1],
        bytes_text(info.source_bytes, a, sizeof(a)), seconds,
        bytes_text((uint64_t) ((double) info.source_bytes
                               / (seconds > 1e-3 ? seconds : 1e-3)),
                   b, sizeof(b)));
    return EXIT_OK;
}
