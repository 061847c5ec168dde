/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promise about memory, from outside: the program itself, 64 tokens of
 * the default model at budgets from more than the weights down to the least,
 * the same text each time, and a peak of resident memory below the budget.
 * Once more inside a control group, where this process may make one.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SANITIZED 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define SANITIZED 1
#    endif
#endif
#ifndef SANITIZED
#    define SANITIZED 0
#endif

static const char *group; /* control group to enter, or NULL */

struct result {
    int  status; /* exit status, 128 + signal */
    long peak;   /* bytes resident at most */
    char out[16384], err[16384];
};

static void
slurp(int fd, char *buf, size_t size)
{
    size_t  len = 0;
    ssize_t n;

    while ((n = pread(fd, buf + len, size - 1 - len, (off_t) len)) > 0)
        len += (size_t) n;
    buf[len] = '\0';
}

static void
run(const char *budget, struct result *r)
{
    char          model[1024], out[] = "/tmp/moe-out-XXXXXX",
                 err[] = "/tmp/moe-err-XXXXXX";
    int           o = mkstemp(out), e = mkstemp(err), status = 0;
    struct rusage u;
    pid_t         pid;

    (void) unlink(out);
    (void) unlink(err);
    snprintf(model, sizeof(model), "%s", tap_src("conf/model/stories"));
    memset(&u, 0, sizeof(u));
    pid = fork();
    if (pid == 0) {
        if (group != NULL) {
            char  path[300];
            FILE *f;

            snprintf(path, sizeof(path), "%s/cgroup.procs", group);
            f = fopen(path, "we");
            if (f != NULL) {
                fprintf(f, "%d\n", (int) getpid());
                fclose(f);
            }
        }
        (void) dup2(o, 1);
        (void) dup2(e, 2);
        execl(getenv("MOE_TEST_RUN"), "moe-run", "generate", "-m", model, "-p",
              "Once upon a time", "-n", "64", "--temp", "0", "--ignore-eos",
              budget != NULL ? "--budget" : NULL, budget, (char *) NULL);
        _exit(127);
    }
    while (wait4(pid, &status, 0, &u) < 0 && errno == EINTR)
        ;
    r->status = WIFEXITED(status) ? WEXITSTATUS(status)
                                  : 128 + WTERMSIG(status);
    r->peak = u.ru_maxrss * 1024L;
    slurp(o, r->out, sizeof(r->out));
    slurp(e, r->err, sizeof(r->err));
    (void) close(o);
    (void) close(e);
}

/* A control group with this limit, or NULL with the reason. */
static const char *
make_group(long limit, char *path, size_t size)
{
    static const char *const base[] = {"/sys/fs/cgroup/memory",
                                       "/sys/fs/cgroup"};
    static const char *const file[] = {"memory.limit_in_bytes", "memory.max"};
    char                     f[400];
    struct stat              st;
    FILE                    *w;
    int                      i;

    for (i = 0; i < 2; i++) {
        snprintf(path, size, "%s/moe-test-%d", base[i], (int) getpid());
        if (stat(base[i], &st) != 0 || mkdir(path, 0755) != 0)
            continue;
        snprintf(f, sizeof(f), "%s/%s", path, file[i]);
        w = fopen(f, "r+e");
        if (w != NULL) {
            int good = fprintf(w, "%ld\n", limit) > 0;

            good = fclose(w) == 0 && good;
            if (good)
                return path;
        }
        (void) rmdir(path);
    }
    return NULL;
}

int
main(void)
{
    static struct result r, whole;
    char                 budget[32], path[300];
    const char          *p;
    long                 least, mib;
    int                  i;

    if (getenv("MOE_TEST_RUN") == NULL || access(getenv("MOE_TEST_RUN"), X_OK) != 0)
        tap_skip_all("MOE_TEST_RUN does not name the program");
    run(NULL, &whole);
    is_int(whole.status, 0, "without a budget");
    ok(strlen(whole.out) > 100, "64 tokens of text");
    if (whole.status != 0)
        tap_diag("%s", whole.err);

    run("1M", &r);
    is_int(r.status, 3, "one MiB is refused with status 3");
    p = strstr(r.err, "smallest that works is ");
    if (!ok(p != NULL, "the refusal names the figure that works"))
        tap_diag("%s", r.err);
    least = p != NULL ? strtol(p + strlen("smallest that works is "), NULL, 10)
                      : 64;
    tap_diag("smallest budget: %ld MiB", least);
    if (SANITIZED || tap_every(2) > 1) {
        tap_diag("the memory of a sanitizer or of valgrind is no part of "
                 "the budget");
        return tap_done();
    }
    ok(least < 20, "it is less than the weights");

    for (i = 0; i <= 5; i++) {
        mib = least + (24 - least) * i / 4; /* past the weights at the end */
        snprintf(budget, sizeof(budget), "%ldM", mib);
        run(budget, &r);
        is_int(r.status, 0, "budget %s works", budget);
        is_str(r.out, whole.out, "budget %s: the same text", budget);
        ok(r.peak <= mib << 20, "budget %s: peak %ld KiB resident", budget,
           r.peak >> 10);
        if (r.status != 0)
            tap_diag("%s", r.err);
    }
    snprintf(budget, sizeof(budget), "%ldM", least - 6);
    run(budget, &r);
    is_int(r.status, 3, "a little less is refused");

    mib = least + 2;
    group = make_group(mib << 20, path, sizeof(path));
    if (group == NULL) {
        ok(1, "control group # SKIP this process may not make one");
        return tap_done();
    }
    run(NULL, &r);
    is_int(r.status, 0, "control group of %ld MiB, no budget given", mib);
    is_str(r.out, whole.out, "control group: the same text");
    ok(r.peak <= mib << 20, "control group: peak %ld KiB", r.peak >> 10);
    if (r.status != 0)
        tap_diag("%s", r.err);
    (void) rmdir(group);
    return tap_done();
}
