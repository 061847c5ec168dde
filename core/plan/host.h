/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.h - a step's time on a machine whose operations were measured.
 */
#ifndef MOE_CORE_PLAN_HOST_H
#define MOE_CORE_PLAN_HOST_H

#include "plan/shape.h"

/* One step, or several alike. */
struct moe_host_step {
    double rows;      /* tokens of the step */
    double logits;    /* rows whose logits are wanted */
    double scores;    /* operations of its attention's scores */
    int    alone;     /* each row is of another sequence */
};

/* Nonzero: every format of the model has been measured on the device. */
int moe_host_knows(const struct moe_sketch *m, const struct moe_formats *f,
                   const struct moe_plan_device *d);
/* Seconds. */
double moe_host_time(const struct moe_sketch *m, const struct moe_formats *f,
                     const struct moe_plan_device *d,
                     const struct moe_host_step *s);

#endif /* MOE_CORE_PLAN_HOST_H */
