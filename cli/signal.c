/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signal.c - Ctrl-C and termination.
 *
 * The first signal lets the work end by itself, so that what there is gets
 * printed and files are cleaned up; the second one ends the program at once.
 * SIGPIPE is ignored: a write says EPIPE.
 */
#include "cli.h"

#include <unistd.h>

static volatile sig_atomic_t came;
static volatile sig_atomic_t mode;
static moe_engine *volatile  target;

static void
on_signal(int number)
{
    if (came != 0 || mode == ON_SIGNAL_EXIT)
        _exit(128 + number);
    came = number;
    if (mode == ON_SIGNAL_CANCEL && target != NULL)
        moe_engine_cancel(target);
}

void
signals_start(void)
{
    struct sigaction action = { .sa_handler = on_signal };

    /* no SA_RESTART: a read from the terminal has to return */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

void
signals_mode(int new_mode, moe_engine *engine)
{
    sigset_t both, before;

    /* mode and target change together */
    sigemptyset(&both);
    sigaddset(&both, SIGINT);
    sigaddset(&both, SIGTERM);
    sigprocmask(SIG_BLOCK, &both, &before);
    mode = new_mode;
    target = engine;
    sigprocmask(SIG_SETMASK, &before, NULL);
}

int
signal_came(void)
{
    return came;
}

void
signal_forget(void)
{
    came = 0;
}
