/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpus.c - how many threads compute, and on which processors.
 *
 * Owns the reading of the machine's topology and the choice; binding is the
 * pool's.  The few small files of /sys that it takes are read directly: a
 * topology library would read all of them and cost a start more than the
 * rest of it.
 */
#include "support/cpus.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A core slower than this share of the fastest computes nothing: static
 * shares of an operation would wait for it. */
#define SLOW_NUM 4u
#define SLOW_DEN 5u

struct cpu {
    uint32_t id;
    uint32_t core; /* lowest processor of its physical core */
    uint32_t node, socket;
    uint32_t speed; /* relative; 1024: the fastest, or unknown */
};

struct machine {
    const char *root;
    struct cpu *cpu; /* (n) */
    uint32_t    n;
    uint32_t    nodes; /* that the allowed processors lie on */
    int         hybrid;
};

/* First line of a file below the root; 0: cannot be read. */
static int
read_line(const char *root, const char *path, char *text, size_t size)
{
    char  full[4600];
    FILE *f;

    if (snprintf(full, sizeof(full), "%s%s", root, path)
        >= (int) sizeof(full))
        return 0;
    f = fopen(full, "re");
    if (f == NULL)
        return 0;
    if (fgets(text, (int) size, f) == NULL)
        text[0] = '\0';
    fclose(f);
    text[strcspn(text, "\n")] = '\0';
    return text[0] != '\0';
}

static int
read_list(const char *root, const char *path, cpu_set_t *set)
{
    char text[4096];

    CPU_ZERO(set);
    if (!read_line(root, path, text, sizeof(text)))
        return 0;
    moe_cpus_list(text, set);
    return CPU_COUNT(set) != 0;
}

static uint32_t
first_of(const cpu_set_t *set)
{
    uint32_t i = 0;

    while (i < CPU_SETSIZE && !CPU_ISSET(i, set))
        i++;
    return i;
}

/* ---------------------------------------------------------- the machine -- */

/* Which node each processor is on: 0 where nothing is said. */
static void
read_nodes(struct machine *m)
{
    cpu_set_t online, cpus;
    char      path[96];
    uint32_t  node, i, used;

    m->nodes = 1;
    if (!read_list(m->root, "/sys/devices/system/node/online", &online))
        return;
    m->nodes = 0;
    for (node = 0; node < CPU_SETSIZE; node++) {
        if (!CPU_ISSET(node, &online))
            continue;
        snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpulist",
                 node);
        if (!read_list(m->root, path, &cpus))
            continue; /* memory alone */
        used = 0;
        for (i = 0; i < m->n; i++)
            if (CPU_ISSET(m->cpu[i].id, &cpus)) {
                m->cpu[i].node = node;
                used = 1;
            }
        m->nodes += used;
    }
    if (m->nodes == 0)
        m->nodes = 1;
}

static int
by_place(const void *a, const void *b)
{
    const struct cpu *x = a, *y = b;

    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    if (x->socket != y->socket)
        return x->socket < y->socket ? -1 : 1;
    if (x->core != y->core)
        return x->core < y->core ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static moe_status
read_machine(struct machine *m, const cpu_set_t *allowed,
             struct moe_error *err)
{
    cpu_set_t siblings, atom;
    char      path[128], text[64];
    uint32_t  i, fastest = 0;
    int       have_atom = read_list(m->root, "/sys/devices/cpu_atom/cpus",
                                    &atom);

    m->cpu = calloc((size_t) CPU_COUNT(allowed) + 1, sizeof(*m->cpu));
    if (m->cpu == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "processors: no memory");
    for (i = 0; i < CPU_SETSIZE; i++) {
        struct cpu *c = &m->cpu[m->n];
        int         len;

        if (!CPU_ISSET(i, allowed))
            continue;
        m->n++;
        c->id = c->core = i;
        c->speed = 1024;
        len = snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/",
                       i);
        strcpy(path + len, "topology/thread_siblings_list");
        if (read_list(m->root, path, &siblings) && CPU_ISSET(i, &siblings))
            c->core = first_of(&siblings);
        strcpy(path + len, "topology/physical_package_id");
        if (read_line(m->root, path, text, sizeof(text)))
            c->socket = (uint32_t) strtoul(text, NULL, 10);
        strcpy(path + len, "cpu_capacity");
        if (read_line(m->root, path, text, sizeof(text))
            && strtoul(text, NULL, 10) > 0 && strtoul(text, NULL, 10) <= 65536)
            c->speed = (uint32_t) strtoul(text, NULL, 10);
        else if (have_atom && CPU_ISSET(i, &atom))
            c->speed = 512;
        if (c->speed > fastest)
            fastest = c->speed;
    }
    for (i = 0; i < m->n; i++) {
        m->cpu[i].speed = m->cpu[i].speed * SLOW_DEN >= fastest * SLOW_NUM;
        m->hybrid |= !m->cpu[i].speed;
    }
    read_nodes(m);
    qsort(m->cpu, m->n, sizeof(*m->cpu), by_place);
    return MOE_OK;
}

/* Processors of one group and its parents, rounded down, the least of them;
 * 0: no limit. */
static uint32_t
group_quota(const char *root, const char *mount, char *group, int v2)
{
    char     path[4300], text[64], more[64];
    uint32_t least = 0;

    for (;;) {
        long  quota = 0, period = 0;
        char *slash;

        snprintf(path, sizeof(path), "%s%s/%s", mount, group,
                 v2 ? "cpu.max" : "cpu.cfs_quota_us");
        if (read_line(root, path, text, sizeof(text))) {
            quota = strtol(text, NULL, 10);
            if (v2 && strchr(text, ' ') != NULL)
                period = strtol(strchr(text, ' '), NULL, 10);
            snprintf(path, sizeof(path), "%s%s/cpu.cfs_period_us", mount,
                     group);
            if (!v2 && read_line(root, path, more, sizeof(more)))
                period = strtol(more, NULL, 10);
        }
        if (quota > 0 && period > 0) {
            long     n = quota / period;
            uint32_t cpus = n < 1 ? 1 : n > 65536 ? 65536 : (uint32_t) n;

            if (least == 0 || cpus < least)
                least = cpus;
        }
        slash = strrchr(group, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

static uint32_t
read_quota(const char *root)
{
    char     line[4096], path[4600], group[4096];
    uint32_t least = 0, q;
    FILE    *f;

    /* inside a container the mount itself may be the group */
    group[0] = '\0';
    least = group_quota(root, "/sys/fs/cgroup", group, 1);
    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    f = fopen(path, "re");
    if (f == NULL)
        return least;
    while (fgets(line, sizeof(line), f) != NULL) {
        char *names = strchr(line, ':');
        char *at = names != NULL ? strchr(names + 1, ':') : NULL;

        if (at == NULL)
            continue;
        *at++ = '\0';
        names++;
        at[strcspn(at, "\n")] = '\0';
        memcpy(group, at, strlen(at) + 1);
        if (strcmp(group, "/") == 0)
            group[0] = '\0';
        q = 0;
        if (*names == '\0')
            q = group_quota(root, "/sys/fs/cgroup", group, 1);
        else if (strcmp(names, "cpu") == 0 || strstr(names, "cpu,") == names
                 || strstr(names, ",cpu") != NULL)
            q = group_quota(root, "/sys/fs/cgroup/cpu", group, 0);
        if (q != 0 && (least == 0 || q < least))
            least = q;
    }
    fclose(f);
    return least;
}

/* ----------------------------------------------------------- the choice -- */

static const char *
from_env(const char *name)
{
    return getenv(name);
}

/* The first number of OMP_NUM_THREADS=8,2 and the like; 0: none. */
static uint32_t
env_number(const struct moe_cpus_wish *w, const char *name)
{
    const char *text = w->env(name);
    char       *end;
    long        n;

    if (text == NULL)
        return 0;
    n = strtol(text, &end, 10);
    while (*end == ' ')
        end++;
    return end != text && (*end == '\0' || *end == ',') && n >= 1
                   && n <= (long) MOE_THREADS_MAX
               ? (uint32_t) n : 0;
}

static int
env_is(const char *text, const char *word)
{
    size_t i, n = strlen(word);

    while (*text == ' ')
        text++;
    for (i = 0; i < n; i++)
        if (tolower((unsigned char) text[i]) != word[i])
            return 0;
    /* "spread,close" is for nested regions: the first counts */
    return text[n] == '\0' || text[n] == ' ' || text[n] == ','
           || text[n] == '(';
}

/* One set for each different value of a processor's key; their number. */
static uint32_t
group_by(const struct machine *m, uint32_t (*key)(const struct cpu *c),
         int fast, cpu_set_t *sets)
{
    uint32_t i, n = 0, last = 0;

    for (i = 0; i < m->n; i++) {
        if (fast && !m->cpu[i].speed)
            continue;
        if (n == 0 || key(&m->cpu[i]) != last) {
            CPU_ZERO(&sets[n++]);
            last = key(&m->cpu[i]);
        }
        CPU_SET(m->cpu[i].id, &sets[n - 1]);
    }
    return n;
}

static uint32_t
key_cpu(const struct cpu *c)
{
    return c->id;
}

static uint32_t
key_core(const struct cpu *c)
{
    return c->core;
}

static uint32_t
key_node(const struct cpu *c)
{
    return c->node;
}

static uint32_t
key_socket(const struct cpu *c)
{
    return c->socket;
}

/* The places of close and spread into sets (m->n at least, of CPU_SETSIZE at
 * most); their number. */
static uint32_t
find_places(const struct machine *m, const struct moe_cpus_wish *w,
            const cpu_set_t *allowed, cpu_set_t *sets, const char **what)
{
    const char *text = w->env("OMP_PLACES");
    uint32_t    n, i, kept = 0;

    *what = "cores";
    if (text == NULL)
        return group_by(m, key_core, 1, sets);
    if (env_is(text, "threads")) {
        *what = "processors";
        return group_by(m, key_cpu, 0, sets);
    }
    if (env_is(text, "sockets")) {
        *what = "sockets";
        return group_by(m, key_socket, 0, sets);
    }
    if (env_is(text, "numa_domains")) {
        *what = "nodes";
        return group_by(m, key_node, 0, sets);
    }
    if (env_is(text, "cores"))
        return group_by(m, key_core, 0, sets);
    n = moe_cpus_places(text, sets, CPU_SETSIZE);
    for (i = 0; i < n; i++) {
        CPU_AND(&sets[kept], &sets[i], allowed);
        kept += CPU_COUNT(&sets[kept]) != 0;
    }
    if (kept == 0)
        return group_by(m, key_core, 1, sets);
    *what = "OMP_PLACES";
    return kept;
}

/* Thread i of T on place i of P, or as far apart as P allows; with fewer
 * places than threads, blocks of threads share one. */
static void
deal(cpu_set_t *place, uint32_t T, const cpu_set_t *sets, uint32_t P,
     int spread)
{
    uint32_t i;

    for (i = 0; i < T; i++)
        place[i] = sets[spread || T > P ? (uint64_t) i * P / T : i];
}

static moe_status
choose_places(const struct machine *m, const struct moe_cpus_wish *w,
              const cpu_set_t *allowed, uint32_t cores, struct moe_cpus *out,
              struct moe_error *err)
{
    const char  *bind = w->env("OMP_PROC_BIND"), *what = "";
    enum moe_pin pin = w->pin;
    cpu_set_t   *sets;
    uint32_t     n = 0;
    size_t       len = strlen(out->why);

    if (pin == MOE_PIN_AUTO && bind != NULL)
        pin = env_is(bind, "false")    ? MOE_PIN_NONE
              : env_is(bind, "spread") ? MOE_PIN_SPREAD
              : env_is(bind, "true") || env_is(bind, "close")
                  ? MOE_PIN_CLOSE : MOE_PIN_AUTO;
    /* more threads than cores: wherever the system finds room */
    if (pin == MOE_PIN_NONE
        || (pin == MOE_PIN_AUTO
            && (out->threads > cores || (m->nodes == 1 && !m->hybrid))))
        return MOE_OK;

    sets = calloc(CPU_SETSIZE, sizeof(*sets));
    out->place = calloc(out->threads, sizeof(*out->place));
    if (sets == NULL || out->place == NULL) {
        free(sets);
        moe_cpus_free(out);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "processors: no memory");
    }
    if (pin != MOE_PIN_AUTO) {
        n = find_places(m, w, allowed, sets, &what);
        deal(out->place, out->threads, sets, n, pin == MOE_PIN_SPREAD);
    } else {
        n = group_by(m, key_node, 1, sets);
        what = m->nodes > 1 ? "nodes" : "fast cores";
        deal(out->place, out->threads, sets, n, 1);
    }
    if (m->nodes > 1)
        out->nodes = group_by(m, key_node, 0, sets);
    snprintf(out->why + len, sizeof(out->why) - len, "; bound to %s%s", what,
             pin == MOE_PIN_SPREAD ? ", spread" : "");
    free(sets);
    return MOE_OK;
}

moe_status
moe_cpus_choose(const struct moe_cpus_wish *wish, struct moe_cpus *out,
                struct moe_error *err)
{
    struct moe_cpus_wish w = *wish;
    struct machine       m = {0};
    cpu_set_t            allowed;
    uint32_t             i, cores = 0, last = UINT32_MAX, limit;
    moe_status           st;

    memset(out, 0, sizeof(*out));
    if (w.threads > MOE_THREADS_MAX)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "engine.threads: %u asked for, at most %u work",
                        w.threads, MOE_THREADS_MAX);
    if (w.env == NULL)
        w.env = from_env;
    m.root = w.root != NULL ? w.root : "";
    if (w.allowed != NULL) {
        allowed = *w.allowed;
    } else if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);

        CPU_ZERO(&allowed);
        for (i = 0; i < CPU_SETSIZE && (long) i < n; i++)
            CPU_SET(i, &allowed);
    }
    if (CPU_COUNT(&allowed) == 0)
        CPU_SET(0, &allowed);
    st = read_machine(&m, &allowed, err);
    if (st != MOE_OK)
        return st;
    for (i = 0; i < m.n; i++)
        if (m.cpu[i].speed && m.cpu[i].core != last) {
            cores++;
            last = m.cpu[i].core;
        }
    out->usable = m.n;
    out->nodes = 1;
    out->quota = read_quota(m.root);
    out->threads = w.threads;
    if (out->threads == 0) {
        out->threads = env_number(&w, "OMP_NUM_THREADS");
        if (out->threads == 0) {
            out->threads = cores;
            if (out->quota != 0 && out->quota < cores)
                out->threads = out->quota;
        }
        limit = env_number(&w, "OMP_THREAD_LIMIT");
        if (limit != 0 && limit < out->threads)
            out->threads = limit;
        if (out->threads > MOE_THREADS_MAX)
            out->threads = MOE_THREADS_MAX;
    }
    snprintf(out->why, sizeof(out->why), "%u %score%s of %u processor%s",
             cores, m.hybrid ? "fast " : "", cores == 1 ? "" : "s", m.n,
             m.n == 1 ? "" : "s");
    st = choose_places(&m, &w, &allowed, cores, out, err);
    free(m.cpu);
    return st;
}

void
moe_cpus_free(struct moe_cpus *c)
{
    free(c->place);
    c->place = NULL;
}
