/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c - order: who used what, after what, and what is known to be done.
 */

#include <string.h>

#include "backend/check/impl.h"

void
check_clock_join(struct check_clock *a, const struct check_clock *b)
{
    uint32_t i;

    for (i = 0; i < CHECK_STREAMS; i++)
        if (b->at[i] > a->at[i])
            a->at[i] = b->at[i];
}

/* ----------------------------------------------------------------- streams -- */

moe_status
check_stream_create(moe_device *dev, int32_t priority, moe_stream **out,
                    struct moe_error *err)
{
    const struct moe_backend_ops *ops = dev->check->ops;
    moe_stream                   *s, *inner = NULL;
    moe_status status = check_passed(
        dev, ops->stream_create(dev->inner, priority, &inner, err));

    if (status != MOE_OK)
        return status;
    s = check_object_new(dev, CHECK_STREAM, sizeof(*s));
    if (s == NULL) {
        ops->stream_destroy(inner);
        return moe_fail(err, MOE_E_NOMEM, 0, "check: out of memory");
    }
    s->inner = inner;
    pthread_mutex_lock(&dev->lock);
    /* Streams are never forgotten: a number is not used twice. */
    s->id = dev->n_streams < CHECK_STREAMS ? dev->n_streams
                                           : CHECK_STREAMS - 1;
    dev->n_streams++;
    pthread_mutex_unlock(&dev->lock);
    *out = s;
    return MOE_OK;
}

void
check_stream_destroy(moe_stream *s)
{
    if (s == NULL
        || check_alive(s, s->o.dev, CHECK_STREAM, "stream to destroy", NULL)
               != MOE_OK
        || check_enter(s, NULL) != MOE_OK)
        return;
    s->o.dev->check->ops->stream_destroy(s->inner);
    check_leave(s);
    check_object_dead(&s->o);
}

uint64_t
check_next(moe_stream *s)
{
    uint64_t seq = ++s->o.dev->seq[s->id];

    s->after.at[s->id] = seq;
    return seq;
}

/* A call on s that uses memory a and b, either of them NULL. */
static void
next_call(moe_stream *s, moe_mem *a, moe_mem *b)
{
    moe_device *dev = s->o.dev;
    uint64_t    seq;

    pthread_mutex_lock(&dev->lock);
    seq = check_next(s);
    if (a != NULL)
        a->used.at[s->id] = seq;
    if (b != NULL)
        b->used.at[s->id] = seq;
    pthread_mutex_unlock(&dev->lock);
}

/* ------------------------------------------------------------------ events -- */

moe_status
check_event_create(moe_device *dev, moe_event **out, struct moe_error *err)
{
    const struct moe_backend_ops *ops = dev->check->ops;
    moe_event                    *ev, *inner = NULL;
    moe_status status = check_passed(
        dev, ops->event_create(dev->inner, &inner, err));

    if (status != MOE_OK)
        return status;
    ev = check_object_new(dev, CHECK_EVENT, sizeof(*ev));
    if (ev == NULL) {
        ops->event_destroy(inner);
        return moe_fail(err, MOE_E_NOMEM, 0, "check: out of memory");
    }
    ev->inner = inner;
    *out = ev;
    return MOE_OK;
}

void
check_event_destroy(moe_event *ev)
{
    if (ev == NULL
        || check_alive(ev, ev->o.dev, CHECK_EVENT, "event to destroy", NULL)
               != MOE_OK)
        return;
    ev->o.dev->check->ops->event_destroy(ev->inner);
    check_object_dead(&ev->o);
}

/* Stream and event of one device, alive, and nobody else on the stream. */
static moe_status
enter_pair(moe_stream *s, moe_event *ev)
{
    moe_status status = check_alive(s, s->o.dev, CHECK_STREAM, "stream", NULL);

    if (status == MOE_OK)
        status = check_alive(ev, s->o.dev, CHECK_EVENT, "event", NULL);
    return status == MOE_OK ? check_enter(s, NULL) : status;
}

moe_status
check_event_record(moe_stream *s, moe_event *ev)
{
    moe_device *dev = s->o.dev;
    moe_status  status = enter_pair(s, ev);

    if (status != MOE_OK)
        return status;
    next_call(s, NULL, NULL);
    pthread_mutex_lock(&dev->lock);
    ev->clock = s->after;
    pthread_mutex_unlock(&dev->lock);
    status = check_passed(dev,
                          dev->check->ops->event_record(s->inner, ev->inner));
    check_leave(s);
    return status;
}

moe_status
check_stream_wait(moe_stream *s, moe_event *ev)
{
    moe_device *dev = s->o.dev;
    moe_status  status = enter_pair(s, ev);

    if (status != MOE_OK)
        return status;
    pthread_mutex_lock(&dev->lock);
    check_clock_join(&s->after, &ev->clock);
    pthread_mutex_unlock(&dev->lock);
    next_call(s, NULL, NULL);
    status = check_passed(dev,
                          dev->check->ops->stream_wait(s->inner, ev->inner));
    check_leave(s);
    return status;
}

/* The clock is that of the record which was current before the question. */
static moe_status
fired(moe_event *ev, moe_status status, const struct check_clock *clock)
{
    moe_device *dev = ev->o.dev;

    if (status == MOE_OK) {
        pthread_mutex_lock(&dev->lock);
        check_clock_join(&dev->done, clock);
        pthread_mutex_unlock(&dev->lock);
    }
    return check_passed(dev, status);
}

static void
read_clock(moe_event *ev, struct check_clock *clock)
{
    pthread_mutex_lock(&ev->o.dev->lock);
    *clock = ev->clock;
    pthread_mutex_unlock(&ev->o.dev->lock);
}

moe_status
check_event_query(moe_event *ev, struct moe_error *err)
{
    moe_device        *dev = ev->o.dev;
    struct check_clock clock;
    moe_status status = check_alive(ev, dev, CHECK_EVENT, "event", err);

    if (status != MOE_OK)
        return status;
    read_clock(ev, &clock);
    return fired(ev, dev->check->ops->event_query(ev->inner, err), &clock);
}

moe_status
check_event_wait(moe_event *ev, uint64_t timeout_ns, struct moe_error *err)
{
    moe_device        *dev = ev->o.dev;
    struct check_clock clock;
    moe_status status = check_alive(ev, dev, CHECK_EVENT, "event", err);

    if (status != MOE_OK)
        return status;
    read_clock(ev, &clock);
    return fired(ev, dev->check->ops->event_wait(ev->inner, timeout_ns, err),
                 &clock);
}

/* --------------------------------------------------------------- transfers -- */

static moe_status
in_range(moe_device *dev, struct moe_buf b, uint64_t bytes, const char *what)
{
    moe_status status = check_alive(b.mem, dev, CHECK_MEM, what, NULL);

    if (status != MOE_OK)
        return status;
    if (b.off > b.mem->bytes || bytes > b.mem->bytes - b.off)
        return check_broken(dev, NULL,
                            "%s: %llu bytes from %llu on, of memory of %llu",
                            what, (unsigned long long) bytes,
                            (unsigned long long) b.off,
                            (unsigned long long) b.mem->bytes);
    return MOE_OK;
}

/* No work for a device that has failed.  It is passed on all the same: the
 * one inside must say MOE_E_DEVICE. */
void
check_not_failed(moe_device *dev, const char *what)
{
    moe_status fault;

    pthread_mutex_lock(&dev->lock);
    fault = dev->fault;
    pthread_mutex_unlock(&dev->lock);
    if (fault != MOE_OK)
        check_broken(dev, NULL, "%s on a device that has failed; close it",
                     what);
}

moe_status
check_upload(moe_stream *s, struct moe_buf dst, const void *src,
             uint64_t bytes)
{
    moe_device    *dev = s->o.dev;
    struct moe_buf inner = dst;
    moe_status status = check_alive(s, dev, CHECK_STREAM, "stream", NULL);

    if (status == MOE_OK)
        status = in_range(dev, dst, bytes, "upload");
    if (status == MOE_OK && src == NULL && bytes > 0)
        status = check_broken(dev, NULL, "upload from NULL");
    if (status == MOE_OK)
        status = check_enter(s, NULL);
    if (status != MOE_OK)
        return status;
    check_not_failed(dev, "upload");
    inner.mem = dst.mem->inner;
    next_call(s, dst.mem, NULL);
    status = check_passed(dev,
                          dev->check->ops->upload(s->inner, inner, src,
                                                  bytes));
    check_leave(s);
    return status;
}

moe_status
check_download(moe_stream *s, void *dst, struct moe_buf src, uint64_t bytes)
{
    moe_device    *dev = s->o.dev;
    struct moe_buf inner = src;
    moe_status status = check_alive(s, dev, CHECK_STREAM, "stream", NULL);

    if (status == MOE_OK)
        status = in_range(dev, src, bytes, "download");
    if (status == MOE_OK && dst == NULL && bytes > 0)
        status = check_broken(dev, NULL, "download to NULL");
    if (status == MOE_OK)
        status = check_enter(s, NULL);
    if (status != MOE_OK)
        return status;
    check_not_failed(dev, "download");
    inner.mem = src.mem->inner;
    next_call(s, src.mem, NULL);
    status = check_passed(dev,
                          dev->check->ops->download(s->inner, dst, inner,
                                                    bytes));
    check_leave(s);
    return status;
}

moe_status
check_copy(moe_stream *s, struct moe_buf dst, struct moe_buf src,
           uint64_t bytes)
{
    moe_device    *dev = s->o.dev;
    struct moe_buf to = dst, from = src;
    moe_status status = check_alive(s, dev, CHECK_STREAM, "stream", NULL);

    if (status == MOE_OK)
        status = in_range(dev, dst, bytes, "copy to");
    if (status == MOE_OK)
        status = in_range(dev, src, bytes, "copy from");
    if (status == MOE_OK)
        status = check_enter(s, NULL);
    if (status != MOE_OK)
        return status;
    check_not_failed(dev, "copy");
    to.mem = dst.mem->inner;
    from.mem = src.mem->inner;
    next_call(s, dst.mem, src.mem);
    status = check_passed(dev,
                          dev->check->ops->copy(s->inner, to, from, bytes));
    check_leave(s);
    return status;
}
