/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - the facts of devices, read from files or measured.
 */
#ifndef MOE_CORE_PLAN_DEVICE_H
#define MOE_CORE_PLAN_DEVICE_H

#include <moe/plan.h>

/* An INI file as in conf/hardware; keys that are unknown, numbers out of
 * range and a price without a date are named. */
moe_status moe_device_read(const char *path, const char *name,
                           struct moe_plan_device *out,
                           struct moe_error *err);
/* This machine: from the cache if it is of this machine, else measured;
 * anew: measured whatever there is. */
moe_status moe_device_this(int anew, struct moe_plan_device *out,
                           struct moe_error *err);

#endif /* MOE_CORE_PLAN_DEVICE_H */
