/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c - streams, events and transfers of the fake device: what is asked
 * for is checked and queued here; queue.c says when it runs.
 */

#include <stdlib.h>

#include "backend/fake/impl.h"

moe_status
fake_stream_create(moe_device *dev, int32_t priority, moe_stream **out,
                   struct moe_error *err)
{
    moe_stream *s;
    moe_status  status = fake_object_begin(dev, FAKE_STREAM, MOE_E_DEVICE, err);

    (void) priority;
    if (status != MOE_OK)
        return status;
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        fake_device_unref(dev);
        return moe_fail(err, MOE_E_NOMEM, 0, "fake: out of memory");
    }
    s->dev = dev;
    s->tail = &s->head;
    pthread_mutex_lock(&dev->lock);
    s->next = dev->streams;
    dev->streams = s;
    pthread_mutex_unlock(&dev->lock);
    *out = s;
    return MOE_OK;
}

void
fake_stream_destroy(moe_stream *s)
{
    moe_device  *dev;
    moe_stream **at;

    if (s == NULL)
        return;
    dev = s->dev;
    pthread_mutex_lock(&dev->lock);
    while (s->head != NULL && fake_run_one(dev))
        ;
    for (at = &dev->streams; *at != s; at = &(*at)->next)
        ;
    *at = s->next;
    pthread_mutex_unlock(&dev->lock);
    free(s);
    fake_device_unref(dev);
}

moe_status
fake_event_create(moe_device *dev, moe_event **out, struct moe_error *err)
{
    moe_event *ev;
    moe_status status = fake_object_begin(dev, FAKE_EVENT, MOE_E_DEVICE, err);

    if (status != MOE_OK)
        return status;
    ev = calloc(1, sizeof(*ev));
    if (ev == NULL) {
        fake_device_unref(dev);
        return moe_fail(err, MOE_E_NOMEM, 0, "fake: out of memory");
    }
    ev->dev = dev;
    *out = ev;
    return MOE_OK;
}

void
fake_event_destroy(moe_event *ev)
{
    moe_device *dev;

    if (ev == NULL)
        return;
    dev = ev->dev;
    pthread_mutex_lock(&dev->lock);
    while (ev->refs > 0 && fake_run_one(dev)) /* it may still be recorded */
        ;
    pthread_mutex_unlock(&dev->lock);
    free(ev);
    fake_device_unref(dev);
}

static moe_status
push_event(moe_stream *s, moe_event *ev, enum command_kind kind)
{
    moe_device     *dev = s->dev;
    struct command *c;
    moe_status      status;

    pthread_mutex_lock(&dev->lock);
    status = fake_fault_status(dev, NULL);
    if (status == MOE_OK && ev->dev != dev)
        status = MOE_E_INVAL;
    /* To wait for an event that was never recorded is to wait for nothing. */
    if (status == MOE_OK && !(kind == CMD_WAIT && ev->recorded == 0)) {
        c = calloc(1, sizeof(*c));
        if (c != NULL) {
            c->kind = kind;
            c->event = ev;
            c->gen = kind == CMD_RECORD ? ++ev->recorded : ev->recorded;
            ev->refs++;
            fake_push(s, c);
        } else {
            status = MOE_E_NOMEM;
        }
    }
    pthread_mutex_unlock(&dev->lock);
    return status;
}

moe_status
fake_event_record(moe_stream *s, moe_event *ev)
{
    return push_event(s, ev, CMD_RECORD);
}

moe_status
fake_stream_wait(moe_stream *s, moe_event *ev)
{
    return push_event(s, ev, CMD_WAIT);
}

/* With the lock: is it done, and if so the host has seen that. */
static int
event_done(moe_event *ev)
{
    if (ev->done < ev->recorded)
        return 0;
    if (ev->time_ns > ev->dev->host_ns)
        ev->dev->host_ns = ev->time_ns;
    return 1;
}

moe_status
fake_event_query(moe_event *ev, struct moe_error *err)
{
    moe_device *dev = ev->dev;
    moe_status  status;
    uint64_t    steps;

    pthread_mutex_lock(&dev->lock);
    /* Each look lets a little happen, so that polling comes to an end. */
    steps = ev->done < ev->recorded ? 1 + fake_random(dev) % 4 : 0;
    while (steps-- > 0 && fake_run_one(dev))
        ;
    status = fake_fault_status(dev, err);
    if (status == MOE_OK)
        status = event_done(ev) ? MOE_OK : MOE_PENDING;
    pthread_mutex_unlock(&dev->lock);
    return status;
}

moe_status
fake_event_wait(moe_event *ev, uint64_t timeout_ns, struct moe_error *err)
{
    moe_device *dev = ev->dev;
    moe_status  status;

    if (timeout_ns == 0) {
        status = fake_event_query(ev, err);
        return status == MOE_PENDING
                   ? moe_fail(err, MOE_E_TIMEOUT, 0,
                              "fake: the event has not fired")
                   : status;
    }
    pthread_mutex_lock(&dev->lock);
    while (dev->fault == MOE_OK && ev->done < ev->recorded
           && fake_run_one(dev))
        ;
    status = fake_fault_status(dev, err);
    if (status == MOE_OK && !event_done(ev))
        status = moe_fail(err, MOE_E_TIMEOUT, 0,
                          "fake: nothing that is queued can make the event "
                          "fire");
    pthread_mutex_unlock(&dev->lock);
    return status;
}

/* -------------------------------------------------------------- transfers -- */

static int
in_range(const moe_stream *s, struct moe_buf b, uint64_t bytes)
{
    return b.mem != NULL && b.mem->dev == s->dev && !b.mem->dead
           && b.off <= b.mem->bytes && bytes <= b.mem->bytes - b.off;
}

/* a: the device side; b: the source of a device copy, else mem NULL */
static moe_status
transfer(moe_stream *s, enum command_kind kind, enum fake_call call,
         struct moe_buf a, struct moe_buf b, const void *src, void *dst,
         uint64_t bytes)
{
    moe_device     *dev = s->dev;
    struct command *c = NULL;
    int             fail = fake_count(dev->fake, call);
    moe_status      status;

    pthread_mutex_lock(&dev->lock);
    status = fake_fault_status(dev, NULL);
    if (status == MOE_OK
        && (!in_range(s, a, bytes)
            || (kind == CMD_COPY && !in_range(s, b, bytes))
            || (kind == CMD_UPLOAD && src == NULL && bytes > 0)
            || (kind == CMD_DOWNLOAD && dst == NULL && bytes > 0)))
        status = MOE_E_INVAL;
    if (status == MOE_OK) {
        c = calloc(1, sizeof(*c));
        if (c == NULL)
            status = MOE_E_NOMEM;
    }
    if (c != NULL) {
        c->kind = kind;
        c->fail = (uint32_t) fail;
        c->bytes = kind == CMD_COPY ? 0 : bytes; /* not over the link */
        c->gen = bytes;
        c->src = src;
        c->dst = dst;
        c->mem[0] = a.mem;
        c->off[0] = a.off;
        a.mem->refs++;
        if (kind == CMD_COPY) {
            c->mem[1] = b.mem;
            c->off[1] = b.off;
            b.mem->refs++;
        }
        fake_push(s, c);
    }
    pthread_mutex_unlock(&dev->lock);
    return status;
}

moe_status
fake_upload(moe_stream *s, struct moe_buf dst, const void *src,
            uint64_t bytes)
{
    struct moe_buf none = { NULL, 0 };

    return transfer(s, CMD_UPLOAD, FAKE_UPLOAD, dst, none, src, NULL, bytes);
}

moe_status
fake_download(moe_stream *s, void *dst, struct moe_buf src, uint64_t bytes)
{
    struct moe_buf none = { NULL, 0 };

    return transfer(s, CMD_DOWNLOAD, FAKE_DOWNLOAD, src, none, NULL, dst,
                    bytes);
}

moe_status
fake_copy(moe_stream *s, struct moe_buf dst, struct moe_buf src,
          uint64_t bytes)
{
    return transfer(s, CMD_COPY, FAKE_COPY, dst, src, NULL, NULL, bytes);
}
