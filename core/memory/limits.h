/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.h - what the system lets this process have, and what it holds.
 */
#ifndef MOE_CORE_MEMORY_LIMITS_H
#define MOE_CORE_MEMORY_LIMITS_H

#include <moe/types.h>

struct moe_limits {
    uint64_t rss;       /* bytes this process has in memory now */
    uint64_t rss_peak;  /* the most it ever had */
    uint64_t available; /* what the system says can still be had */
    uint64_t cgroup;    /* limit of the control group, UINT64_MAX: none */
    uint64_t cgroup_used; /* by its processes, page cache not counted */
};

/* Reads /proc and /sys/fs/cgroup (version 1 and 2, parents included).  What
 * cannot be read is as if unlimited.  Cold. */
void moe_limits_read(struct moe_limits *out);

/*
 * The ceiling of this process in bytes: asked for (0: nothing was), the
 * control group's limit less what others in it use, and what is free plus
 * what we hold, whichever is least.  *why: "memory.budget", "control group",
 * "free memory".
 */
uint64_t moe_limits_budget(const struct moe_limits *m, uint64_t asked,
                           const char **why);

#endif /* MOE_CORE_MEMORY_LIMITS_H */
