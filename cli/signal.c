/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signal.c - Ctrl-C and termination.
 *
 * The first signal lets the work end by itself, so that what there is gets
 * printed and files are cleaned up; the second one ends the program at once.
 * SIGPIPE and SIGXFSZ are ignored: a write says EPIPE or EFBIG.
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

/* flags: 0, a system call that waits returns; SA_RESTART, it goes on. */
static void
install(int flags)
{
    static const int numbers[] = { SIGINT, SIGTERM };
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
    struct sigaction before;
    size_t           i;

    sigemptyset(&action.sa_mask);
    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        /* a shell starts what runs in the background with SIGINT ignored:
         * the Ctrl-C is not meant for it */
        sigaction(numbers[i], NULL, &before);
        if (before.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    }
}

void
signals_start(void)
{
    struct sigaction action = { .sa_handler = SIG_IGN };

    sigemptyset(&action.sa_mask);
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
    install(SA_RESTART); /* no write is cut in the middle */
}

void
signals_interrupt(int on)
{
    install(on ? 0 : SA_RESTART);
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
