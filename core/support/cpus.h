/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpus.h - how many threads compute, and on which processors.
 *
 * Reads the system's own tables (/sys, control groups, the affinity mask)
 * and the words of OpenMP that users know; starts no thread.
 */
#ifndef MOE_CORE_SUPPORT_CPUS_H
#define MOE_CORE_SUPPORT_CPUS_H

#include <sched.h>

#include <moe/types.h>

/* engine.pin */
enum moe_pin {
    MOE_PIN_AUTO,  /* bound only where it matters: see moe_cpus_choose */
    MOE_PIN_NONE,
    MOE_PIN_CLOSE, /* thread i on place i */
    MOE_PIN_SPREAD /* threads as far apart as there are places */
};

struct moe_cpus_wish {
    uint32_t         threads; /* 0: as many as are sensible */
    enum moe_pin     pin;
    /* The rest is for tests; NULL: what the system says. */
    const char      *root;    /* the folder that has sys/ and proc/ */
    const cpu_set_t *allowed;
    const char *(*env)(const char *name);
};

/* The first 1024 processors of a machine are known. */
struct moe_cpus {
    uint32_t   threads;
    uint32_t   usable;  /* processors this process may run on */
    uint32_t   quota;   /* of the control group, in processors; 0: none */
    uint32_t   nodes;   /* NUMA nodes that the threads are on */
    cpu_set_t *place;   /* (threads) where each may run; NULL: anywhere */
    char       why[96]; /* "2 cores of 4 processors; bound to nodes" */
};

/*
 * The count, unless asked for: OMP_NUM_THREADS (its first number), or one
 * thread for each physical core that the affinity mask allows, without those
 * slower than 4/5 of the fastest, at most the control group's quota rounded
 * down (a throttled thread holds up all others), at least 1.  OMP_THREAD_LIMIT
 * caps either of the two.
 *
 * The places, for close and spread: those of OMP_PLACES (threads, cores,
 * sockets, numa_domains, or lists such as {0:4},{4:4}), else cores.  With auto
 * OMP_PROC_BIND decides (true and close, spread, false); without it threads
 * are bound to the processors of their node if the cores lie on several,
 * kept off slow cores if there are some, and otherwise left to the system,
 * since two programs that bind alike would share cores while others idle.
 *
 * Words of OMP_* that are not understood are as if unset.  MOE_E_INVAL: more
 * threads than the pool has room for.  Free with moe_cpus_free.  Cold.
 */
moe_status moe_cpus_choose(const struct moe_cpus_wish *wish,
                           struct moe_cpus *out, struct moe_error *err);
void       moe_cpus_free(struct moe_cpus *c);

/* OMP_PLACES' explicit lists into at most `max` sets; 0: not understood. */
uint32_t moe_cpus_places(const char *text, cpu_set_t *sets, uint32_t max);
/* "0-3,8" as /sys has it; nothing is added for what is no list. */
void     moe_cpus_list(const char *text, cpu_set_t *out);

#define MOE_THREADS_MAX 1024u

#endif /* MOE_CORE_SUPPORT_CPUS_H */
