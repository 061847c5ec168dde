/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.c - lazy streams: when and in which order queued work runs.
 *
 * Nothing runs when it is queued.  When an event is asked for, commands of
 * all streams run in an order drawn by the seed, held back only by the order
 * of each stream and by stream_wait.  Code that forgot a wait therefore reads
 * memory too early under some seed, and that memory is NaN.
 */

#include <stdio.h>
#include <stdlib.h>

#include "backend/fake/impl.h"

uint64_t
fake_random(moe_device *dev)
{
    uint64_t z = dev->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

moe_status
fake_fault_status(const moe_device *dev, struct moe_error *err)
{
    if (dev->fault == MOE_OK)
        return MOE_OK;
    return moe_fail(err, dev->fault, 0, "fake device %u: %s", dev->index,
                    dev->fault_text);
}

void
fake_push(moe_stream *s, struct command *c)
{
    c->next = NULL;
    c->ready_ns = s->dev->host_ns;
    *s->tail = c;
    s->tail = &c->next;
    s->dev->pending++;
}

static struct command *
pop(moe_stream *s)
{
    struct command *c = s->head;

    s->head = c->next;
    if (s->head == NULL)
        s->tail = &s->head;
    s->dev->pending--;
    return c;
}

static int
can_run(const moe_stream *s)
{
    const struct command *c = s->head;

    return c != NULL && !(c->kind == CMD_WAIT && c->event->done < c->gen);
}

void
fake_drop_all(moe_device *dev)
{
    moe_stream *s;

    for (s = dev->streams; s != NULL; s = s->next)
        while (s->head != NULL)
            fake_command_free(pop(s));
}

/* The stream's clock after c; transfers take turns on the link. */
static void
advance(moe_stream *s, const struct command *c)
{
    moe_device        *dev = s->dev;
    const struct fake *f = dev->fake;
    uint64_t           at = s->clock_ns > c->ready_ns ? s->clock_ns
                                                      : c->ready_ns;

    if (c->kind == CMD_WAIT && c->event->time_ns > at)
        at = c->event->time_ns;
    if (c->bytes > 0 && f->bandwidth > 0) {
        double   want = (double) c->bytes * 1e9 / (double) f->bandwidth;
        uint64_t ns = want < 1e18 ? (uint64_t) want : (uint64_t) 1e18;

        at = (dev->link_at > at ? dev->link_at : at) + ns;
        dev->link_at = at;
        dev->link_ns += ns;
    }
    if (c->kind == CMD_LAUNCH)
        at += f->launch_ns;
    s->clock_ns = at;
    if (c->kind == CMD_RECORD && c->gen > c->event->done) {
        c->event->done = c->gen;
        c->event->time_ns = at;
    }
}

int
fake_run_one(moe_device *dev)
{
    moe_stream     *s;
    struct command *c;
    const char     *bad;
    uint64_t        n = 0, pick;

    for (s = dev->streams; s != NULL; s = s->next)
        n += (uint64_t) can_run(s);
    if (n == 0)
        return 0;
    pick = fake_random(dev) % n;
    for (s = dev->streams; s != NULL; s = s->next)
        if (can_run(s) && pick-- == 0)
            break;
    c = pop(s);
    advance(s, c);
    bad = fake_execute(dev, c);
    dev->executed++;
    fake_command_free(c);
    if (bad != NULL) {
        dev->fault = MOE_E_DEVICE;
        snprintf(dev->fault_text, sizeof(dev->fault_text),
                 "%s; close the device", bad);
        fake_drop_all(dev);
    }
    return 1;
}
