/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of threads and places on machines that are made up: a folder
 * with the files that /sys and /proc would have.
 */
#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/cpus.h"
#include "tap.h"

static char        root[64];
static const char *vars[8]; /* name, value, ..., NULL */

static const char *
env(const char *name)
{
    int i;

    for (i = 0; vars[i] != NULL; i += 2)
        if (strcmp(vars[i], name) == 0)
            return vars[i + 1];
    return NULL;
}

static void
setenvs(const char *a, const char *b, const char *c, const char *d)
{
    vars[0] = a;
    vars[1] = b;
    vars[2] = c;
    vars[3] = d;
    vars[4] = NULL;
}

static int
drop(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void) st;
    (void) flag;
    (void) ftw;
    return remove(path);
}

static void
fresh(void)
{
    if (root[0] != '\0')
        (void) nftw(root, drop, 16, FTW_DEPTH | FTW_PHYS);
    strcpy(root, "/tmp/moe-cpus-XXXXXX");
    if (mkdtemp(root) == NULL)
        root[0] = '\0';
    setenvs(NULL, NULL, NULL, NULL);
}

static void
put(const char *path, const char *text)
{
    char  full[400], *p;
    FILE *f;

    snprintf(full, sizeof(full), "%s%s", root, path);
    for (p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        (void) mkdir(full, 0777);
        *p = '/';
    }
    f = fopen(full, "we");
    if (f != NULL) {
        fprintf(f, "%s\n", text);
        fclose(f);
    }
}

static void
put_cpu(unsigned cpu, const char *siblings, unsigned socket,
        const char *capacity)
{
    char path[200], text[16];

    snprintf(path, sizeof(path),
             "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list",
             cpu);
    put(path, siblings);
    snprintf(path, sizeof(path),
             "/sys/devices/system/cpu/cpu%u/topology/physical_package_id",
             cpu);
    snprintf(text, sizeof(text), "%u", socket);
    put(path, text);
    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/cpu_capacity",
             cpu);
    if (capacity != NULL)
        put(path, capacity);
}

/* Chosen threads; the places as text: "0,4 1,5", "-" for anywhere. */
static uint32_t
choose(const char *allowed, uint32_t threads, enum moe_pin pin, char *places,
       char *why)
{
    static char          unused[96];
    struct moe_error     err = {.struct_size = sizeof(err)};
    cpu_set_t            set;
    struct moe_cpus_wish w = {threads, pin, root, &set, env};
    struct moe_cpus      c;
    uint32_t             i, k;
    size_t               at = 0;

    CPU_ZERO(&set);
    moe_cpus_list(allowed, &set);
    strcpy(places, "-");
    if (moe_cpus_choose(&w, &c, &err) != MOE_OK) {
        tap_diag("%s", err.text);
        return 0;
    }
    snprintf(why != NULL ? why : unused, 96, "%s", c.why);
    for (i = 0; c.place != NULL && i < c.threads; i++) {
        const char *comma = i == 0 ? "" : " ";

        for (k = 0; k < CPU_SETSIZE && at < 380; k++)
            if (CPU_ISSET(k, &c.place[i])) {
                at += (size_t) snprintf(places + at, 400 - at, "%s%u", comma,
                                        k);
                comma = ",";
            }
    }
    moe_cpus_free(&c);
    return c.threads;
}

/* Four cores of two processors, one socket. */
static void
test_smt(void)
{
    char places[400], why[96];

    fresh();
    put_cpu(0, "0,4", 0, NULL);
    put_cpu(1, "1,5", 0, NULL);
    put_cpu(2, "2,6", 0, NULL);
    put_cpu(3, "3,7", 0, NULL);
    put_cpu(4, "0,4", 0, NULL);
    put_cpu(5, "1,5", 0, NULL);
    put_cpu(6, "2,6", 0, NULL);
    put_cpu(7, "3,7", 0, NULL);
    put("/sys/devices/system/node/online", "0");
    put("/sys/devices/system/node/node0/cpulist", "0-7");
    is_int(choose("0-7", 0, MOE_PIN_AUTO, places, why), 4,
           "one thread a core");
    is_str(places, "-", "one node of equal cores: not bound");
    is_str(why, "4 cores of 8 processors", "and why");
    is_int(choose("2,6,7", 0, MOE_PIN_AUTO, places, NULL), 2,
           "the affinity mask is heeded, siblings or not");
    is_int(choose("0-7", 0, MOE_PIN_CLOSE, places, NULL), 4, "close");
    is_str(places, "0,4 1,5 2,6 3,7", "each on its core");
    is_int(choose("0-7", 2, MOE_PIN_SPREAD, places, NULL), 2, "two, spread");
    is_str(places, "0,4 2,6", "far apart");
    is_int(choose("0-7", 8, MOE_PIN_CLOSE, places, NULL), 8, "eight");
    is_str(places, "0,4 0,4 1,5 1,5 2,6 2,6 3,7 3,7", "two a core");
    is_int(choose("0-7", 2000, MOE_PIN_CLOSE, places, NULL), 0,
           "2000 are refused");

    setenvs("OMP_NUM_THREADS", "3,2", "OMP_PROC_BIND", "spread,close");
    is_int(choose("0-7", 0, MOE_PIN_AUTO, places, NULL), 3,
           "OMP_NUM_THREADS, its first number");
    is_str(places, "0,4 1,5 2,6", "OMP_PROC_BIND, its first word");
    is_int(choose("0-7", 2, MOE_PIN_AUTO, places, NULL), 2,
           "engine.threads outranks it");
    is_int(choose("0-7", 0, MOE_PIN_NONE, places, NULL), 3, "engine.pin");
    is_str(places, "-", "too");
    setenvs("OMP_THREAD_LIMIT", "2", "OMP_NUM_THREADS", "6");
    is_int(choose("0-7", 0, MOE_PIN_AUTO, places, NULL), 2,
           "OMP_THREAD_LIMIT");
    setenvs("OMP_NUM_THREADS", "many", "OMP_PROC_BIND", "maybe");
    is_int(choose("0-7", 0, MOE_PIN_AUTO, places, NULL), 4, "no number");
    is_str(places, "-", "no word");
    setenvs("OMP_PLACES", "threads", "OMP_PROC_BIND", "TRUE");
    (void) choose("0-7", 0, MOE_PIN_AUTO, places, NULL);
    is_str(places, "0 4 1 5", "OMP_PLACES=threads");
    setenvs("OMP_PLACES", "{0:2},{2:2}", "OMP_PROC_BIND", "close");
    (void) choose("0-7", 0, MOE_PIN_AUTO, places, why);
    is_str(places, "0,1 0,1 2,3 2,3", "places by number");
    is_str(why, "4 cores of 8 processors; bound to OMP_PLACES", "and why");
    setenvs("OMP_PLACES", "{6}:3:1", "OMP_PROC_BIND", "close");
    (void) choose("0-7", 2, MOE_PIN_AUTO, places, NULL);
    is_str(places, "6 7", "places that do not exist are left out");
    setenvs("OMP_PLACES", "{9},{10}", "OMP_PROC_BIND", "close");
    (void) choose("0-7", 2, MOE_PIN_AUTO, places, NULL);
    is_str(places, "0,4 1,5", "if none is left: cores");
}

/* Two nodes of two cores. */
static void
test_numa(void)
{
    char places[400], why[96];

    fresh();
    put_cpu(0, "0", 0, NULL);
    put_cpu(1, "1", 1, NULL);
    put_cpu(2, "2", 0, NULL);
    put_cpu(3, "3", 1, NULL);
    put("/sys/devices/system/node/online", "0,2-3");
    put("/sys/devices/system/node/node0/cpulist", "0,2");
    put("/sys/devices/system/node/node2/cpulist", "1,3");
    put("/sys/devices/system/node/node3/cpulist", "");
    is_int(choose("0-3", 0, MOE_PIN_AUTO, places, why), 4, "four");
    is_str(places, "0,2 0,2 1,3 1,3", "each bound to its node");
    is_str(why, "4 cores of 4 processors; bound to nodes", "and why");
    (void) choose("0-3", 2, MOE_PIN_AUTO, places, NULL);
    is_str(places, "0,2 1,3", "two threads: one a node");
    (void) choose("0,2", 0, MOE_PIN_AUTO, places, NULL);
    is_str(places, "-", "all on one node: not bound");
    (void) choose("0-3", 7, MOE_PIN_AUTO, places, NULL);
    is_str(places, "-", "more threads than cores: not bound");
    (void) choose("0-3", 0, MOE_PIN_CLOSE, places, NULL);
    is_str(places, "0 2 1 3", "close goes node by node");
    setenvs("OMP_PLACES", "numa_domains", NULL, NULL);
    (void) choose("0-3", 2, MOE_PIN_SPREAD, places, NULL);
    is_str(places, "0,2 1,3", "OMP_PLACES=numa_domains");
    setenvs("OMP_PLACES", "sockets", NULL, NULL);
    (void) choose("0-3", 2, MOE_PIN_CLOSE, places, NULL);
    is_str(places, "0,2 1,3", "OMP_PLACES=sockets");
}

/* Two fast cores of two processors, four slow ones. */
static void
test_hybrid(void)
{
    char places[400], why[96];

    fresh();
    put_cpu(0, "0-1", 0, "1024");
    put_cpu(1, "0-1", 0, "1024");
    put_cpu(2, "2-3", 0, "1009");
    put_cpu(3, "2-3", 0, "1009");
    put_cpu(4, "4", 0, "640");
    put_cpu(5, "5", 0, "640");
    put_cpu(6, "6", 0, "640");
    put_cpu(7, "7", 0, "640");
    is_int(choose("0-7", 0, MOE_PIN_AUTO, places, why), 2, "fast cores alone");
    is_str(places, "0,1,2,3 0,1,2,3", "kept on them");
    is_str(why, "2 fast cores of 8 processors; bound to fast cores", "why");
    is_int(choose("4-7", 0, MOE_PIN_AUTO, places, NULL), 4,
           "where only slow ones are allowed they are the fast ones");
    is_str(places, "-", "and nothing is bound");
    is_int(choose("0-7", 6, MOE_PIN_AUTO, places, NULL), 6,
           "asked for, all compute");
    is_str(places, "-", "anywhere");

    fresh();
    put("/sys/devices/cpu_core/cpus", "0-1");
    put("/sys/devices/cpu_atom/cpus", "2-5");
    is_int(choose("0-5", 0, MOE_PIN_AUTO, places, NULL), 2,
           "by cpu_atom where there is no capacity");
}

static void
test_quota(void)
{
    char places[400];

    fresh();
    is_int(choose("0-5", 0, MOE_PIN_AUTO, places, NULL), 6,
           "nothing known: every processor is a core");
    put("/proc/self/cgroup", "0::/a/b");
    put("/sys/fs/cgroup/a/cpu.max", "350000 100000");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000");
    is_int(choose("0-5", 0, MOE_PIN_AUTO, places, NULL), 3,
           "a parent's quota of 3.5");
    put("/sys/fs/cgroup/a/b/cpu.max", "50000 100000");
    is_int(choose("0-5", 0, MOE_PIN_AUTO, places, NULL), 1,
           "half a processor is one thread");
    is_int(choose("0-5", 4, MOE_PIN_AUTO, places, NULL), 4,
           "what is asked for is not cut");
    put("/sys/fs/cgroup/a/b/cpu.max", "rubbish");
    put("/sys/fs/cgroup/cpu.max", "200000 100000");
    is_int(choose("0-5", 0, MOE_PIN_AUTO, places, NULL), 2,
           "the mount is the group");
    fresh();
    put("/proc/self/cgroup", "12:cpuset:/x\n4:cpu,cpuacct:/c");
    put("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "400000");
    put("/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000");
    is_int(choose("0-5", 0, MOE_PIN_AUTO, places, NULL), 4, "version 1");
    put("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1");
    is_int(choose("0-5", 0, MOE_PIN_AUTO, places, NULL), 6, "no limit");
}

static void
test_texts(void)
{
    static const char *const bad[] = {
        "", "{", "{}", "{0", "{0,}", "{0:}", "{0:0}", "{-1}", "{0}:", "{0},",
        "{0}{1}", "{4000}", "{0:2000}", "{1:3:-1}", "cores", "!{0}",
        "{0:999999999999999999999}"};
    cpu_set_t *sets = calloc(CPU_SETSIZE, sizeof(*sets)), set;
    uint32_t   i;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        is_int(moe_cpus_places(bad[i], sets, CPU_SETSIZE), 0,
               "'%s' is no list of places", bad[i]);
    is_int(moe_cpus_places("{0:4}:4:4", sets, CPU_SETSIZE), 4, "a sequence");
    ok(CPU_COUNT(&sets[3]) == 4 && CPU_ISSET(12, &sets[3])
           && CPU_ISSET(15, &sets[3]),
       "its last place");
    is_int(moe_cpus_places(" { 0 , 3:2:2 } , {9} ", sets, CPU_SETSIZE), 2,
           "spaces");
    ok(CPU_COUNT(&sets[0]) == 3 && CPU_ISSET(0, &sets[0])
           && CPU_ISSET(3, &sets[0]) && CPU_ISSET(5, &sets[0]),
       "a stride");
    is_int(moe_cpus_places("{0}:1000:1,{1}:1000:0", sets, CPU_SETSIZE),
           CPU_SETSIZE, "no more than there is room for");
    CPU_ZERO(&set);
    moe_cpus_list("0-2,5,7-6,x", &set);
    is_int(CPU_COUNT(&set), 4, "a list of the system's");
    CPU_ZERO(&set);
    moe_cpus_list("1020-99999999999", &set);
    is_int(CPU_COUNT(&set), 4, "processors beyond the 1024th");
    free(sets);
}

int
main(void)
{
    test_smt();
    test_numa();
    test_hybrid();
    test_quota();
    test_texts();
    (void) nftw(root, drop, 16, FTW_DEPTH | FTW_PHYS);
    return tap_done();
}
