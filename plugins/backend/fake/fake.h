/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake.h - what a test may ask a fake device: extension("moe.fake.time").
 *
 * Virtual time: nothing sleeps.  A transfer takes bytes / bandwidth on the
 * one link of the device, a launch takes launch-ns on its stream; the host's
 * clock moves only when it waits for an event, to the event's time.
 */
#ifndef MOE_PLUGINS_BACKEND_FAKE_H
#define MOE_PLUGINS_BACKEND_FAKE_H

#include <moe/backend.h>

#define MOE_FAKE_TIME "moe.fake.time"

struct moe_fake_time {
    uint32_t struct_size;
    uint32_t reserved;
    /* The host's clock; the sum of all transfers; both in virtual ns. */
    uint64_t (*now_ns)(moe_device *dev);
    uint64_t (*link_ns)(moe_device *dev);
    /* Commands queued and not run yet; commands run. */
    uint64_t (*pending)(moe_device *dev);
    uint64_t (*executed)(moe_device *dev);
};

#endif /* MOE_PLUGINS_BACKEND_FAKE_H */
