/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helper.c - the process that fills in chat templates, and the clock over it.
 *
 * Owns the process from its start to its end and the lines to and from it.
 * They go over one socket pair: a socket and not two pipes, for MSG_NOSIGNAL;
 * a library cannot set SIGPIPE aside for the whole program.  The process is
 * never trusted to answer, to read, or to send what was agreed.
 */
#include "text/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint/json.h"

/* How long it may take to start, and again for each answer. */
#define TIMEOUT_MS 10000
/* A text of 16 MiB, each byte of it escaped (\u0000), and its ranges. */
#define ANSWER_MAX (128u << 20)

struct moe_helper {
    char       *path;
    pid_t       pid; /* 0: not running */
    int         fd;  /* -1 then */
    char       *in;  /* what was read, `got` bytes of it */
    size_t      got, room;
    /* of the exchange under way: when it is over, and whose template it is */
    int64_t     until;
    const char *who;
};

static moe_status
no_memory(struct moe_error *err)
{
    return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                    "no memory for the chat template's helper; free some");
}

/* At once: it keeps nothing that would be lost. */
static void
helper_end(struct moe_helper *h)
{
    if (h->fd >= 0)
        close(h->fd);
    h->fd = -1;
    if (h->pid > 0) {
        kill(h->pid, SIGKILL);
        while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    h->pid = 0;
}

moe_status
moe_helper_open(const char *path, struct moe_helper **out,
                struct moe_error *err)
{
    struct moe_helper *h = calloc(1, sizeof(*h));

    *out = NULL;
    if (h != NULL) {
        h->fd = -1;
        h->path = strdup(path != NULL ? path : "");
    }
    if (h == NULL || h->path == NULL) {
        free(h);
        return no_memory(err);
    }
    *out = h;
    return MOE_OK;
}

void
moe_helper_close(struct moe_helper *h)
{
    if (h == NULL)
        return;
    helper_end(h);
    free(h->in);
    free(h->path);
    free(h);
}

static moe_status
cannot_start(const struct moe_helper *h, int e, struct moe_error *err)
{
    char shown[MOE_SHOW_PATH_MAX + 4];

    moe_show_path(h->path, shown);
    if (e == ENOENT && access(h->path, F_OK) == 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, e,
                        "%s: the Python that its first line names is not "
                        "here; chat templates need it: apt install python3 "
                        "python3-jinja2", shown);
    return moe_fail(err, MOE_E_UNSUPPORTED, e,
                    "%s: cannot be started: %s; install moe-template there "
                    "or set text.template_helper", shown, strerror(e));
}

static moe_status
helper_spawn(struct moe_helper *h, struct moe_error *err)
{
    char                       zone[256] = "";
    char                      *argv[] = { h->path, NULL };
    /* Nothing else: what the environment holds is not the template's. */
    char                      *envp[] = { (char[]) { "LC_ALL=C.UTF-8" },
                                          (char[]) { "PATH=/usr/bin:/bin" },
                                          NULL, NULL };
    const char                *tz = getenv("TZ");
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t          attr;
    sigset_t                   none, all;
    int                        sv[2], e;

    if (tz != NULL && strlen(tz) < sizeof(zone) - 4) {
        snprintf(zone, sizeof(zone), "TZ=%s", tz);
        envp[2] = zone;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0)
        return moe_fail(err, MOE_E_IO, errno,
                        "no socket pair for the chat template's helper: %s; "
                        "raise the limit of open files", strerror(errno));
    e = posix_spawn_file_actions_init(&fa);
    if (e != 0)
        goto close_pair;
    e = posix_spawnattr_init(&attr);
    if (e != 0)
        goto end_actions;
    /* dup2 clears close-on-exec, also where both numbers are the same. */
    e = posix_spawn_file_actions_adddup2(&fa, sv[1], 0);
    if (e == 0)
        e = posix_spawn_file_actions_adddup2(&fa, sv[1], 1);
    if (e == 0)
        e = posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY,
                                             0);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    /* what the program around us left open */
    if (e == 0)
        e = posix_spawn_file_actions_addclosefrom_np(&fa, 3);
#endif
    /* A group of its own: the terminal's Ctrl-C is not meant for it. */
    sigemptyset(&none);
    sigfillset(&all);
    if (e == 0)
        e = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP
                                                | POSIX_SPAWN_SETSIGMASK
                                                | POSIX_SPAWN_SETSIGDEF);
    if (e == 0)
        e = posix_spawnattr_setpgroup(&attr, 0);
    if (e == 0)
        e = posix_spawnattr_setsigmask(&attr, &none);
    if (e == 0)
        e = posix_spawnattr_setsigdefault(&attr, &all);
    if (e == 0)
        e = posix_spawn(&h->pid, h->path, &fa, &attr, argv, envp);
    posix_spawnattr_destroy(&attr);
end_actions:
    posix_spawn_file_actions_destroy(&fa);
close_pair:
    close(sv[1]);
    if (e != 0) {
        close(sv[0]);
        h->pid = 0;
        return cannot_start(h, e, err);
    }
    h->fd = sv[0];
    h->got = 0;
    return MOE_OK;
}

static int64_t
now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* 1: one of events (or an end), 0: the time is over, -1: errno */
static int
wait_for(int fd, short events, int64_t until)
{
    struct pollfd p = { .fd = fd, .events = events };

    for (;;) {
        int64_t left = until - now_ms();
        int     r;

        if (left <= 0)
            return 0;
        r = poll(&p, 1, left > INT_MAX ? INT_MAX : (int) left);
        if (r > 0)
            return 1;
        if (r < 0 && errno != EINTR)
            return -1;
    }
}

/* What became of a helper that hung up; it has ended after this. */
static moe_status
helper_gone(struct moe_helper *h, const char *when, struct moe_error *err)
{
    char          shown[MOE_SHOW_PATH_MAX + 4], how[64] = "";
    struct pollfd nothing = { .fd = -1 };
    int           w = -1;
    pid_t         r = 0;

    /* It hung up, so it is about to end; its own status says more than the
     * SIGKILL that follows. */
    for (int i = 0; i < 20 && r == 0; i++) {
        r = waitpid(h->pid, &w, WNOHANG);
        if (r == 0)
            (void) poll(&nothing, 1, 5);
    }
    if (r != 0)
        h->pid = 0;
    helper_end(h);
    if (r > 0 && WIFSIGNALED(w))
        snprintf(how, sizeof(how), " (signal %d)", WTERMSIG(w));
    else if (r > 0)
        snprintf(how, sizeof(how), " (status %d)", WEXITSTATUS(w));
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "%s: ended %s%s; try it by hand, and apt install python3 "
                    "python3-jinja2 if they are missing",
                    moe_show_path(h->path, shown), when, how);
}

static moe_status
helper_slow(struct moe_helper *h, const char *what, struct moe_error *err)
{
    helper_end(h);
    return moe_fail(err, MOE_E_TIMEOUT, 0,
                    "%s: %s took over %g s and was ended; use a model with "
                    "another chat template, or look at the machine's load",
                    h->who, what, TIMEOUT_MS / 1e3);
}

moe_status
moe_helper_nonsense(struct moe_helper *h, const char *why,
                    struct moe_error *err)
{
    char shown[MOE_SHOW_PATH_MAX + 4];

    helper_end(h);
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "%s: its answer is not moe-template's: %s; install the "
                    "one of this version or set text.template_helper",
                    moe_show_path(h->path, shown), why);
}

static moe_status
helper_broken(struct moe_helper *h, struct moe_error *err)
{
    int e = errno;

    helper_end(h);
    return moe_fail(err, MOE_E_IO, e, "the chat template's helper: %s; try "
                    "again", strerror(e));
}

/* Sends all of it.  *gone: nobody is there, and err is not filled. */
static moe_status
helper_send(struct moe_helper *h, const char *text, size_t len,
            int *gone, struct moe_error *err)
{
    while (len > 0) {
        ssize_t n = send(h->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0) {
            text += n;
            len -= (size_t) n;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            *gone = 1;
            return MOE_OK;
        } else if (errno == EAGAIN) {
            int r = wait_for(h->fd, POLLOUT, h->until);

            if (r < 0)
                return helper_broken(h, err);
            if (r == 0)
                return helper_slow(h, "taking in the messages", err);
        } else if (errno != EINTR) {
            return helper_broken(h, err);
        }
    }
    return MOE_OK;
}

/* One line into h->in, without its end.  *gone as above. */
static moe_status
helper_line(struct moe_helper *h, const char *what, size_t *len, int *gone,
            struct moe_error *err)
{
    h->got = 0;
    for (;;) {
        ssize_t n;
        char   *end;
        int     r = wait_for(h->fd, POLLIN, h->until);

        if (r < 0)
            return helper_broken(h, err);
        if (r == 0)
            return helper_slow(h, what, err);
        if (h->room - h->got < 4096) {
            size_t room = h->room != 0 ? 2 * h->room : 65536;
            char  *in;

            if (h->got > ANSWER_MAX)
                return moe_helper_nonsense(h, "a line without an end", err);
            in = realloc(h->in, room);
            if (in == NULL) {
                helper_end(h);
                return no_memory(err);
            }
            h->in = in;
            h->room = room;
        }
        n = recv(h->fd, h->in + h->got, h->room - h->got, MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0 && errno != ECONNRESET)
            return helper_broken(h, err);
        if (n <= 0) {
            *gone = 1;
            return MOE_OK;
        }
        end = memchr(h->in + h->got, '\n', (size_t) n);
        h->got += (size_t) n;
        if (end == NULL)
            continue;
        /* It speaks when it is asked, so nothing may follow. */
        if (end != h->in + h->got - 1)
            return moe_helper_nonsense(h, "more than one line", err);
        *len = h->got - 1;
        return MOE_OK;
    }
}

/* The line as an object; the caller puts it. */
static moe_status
helper_parse(struct moe_helper *h, size_t len, struct json_object **out,
             struct moe_error *err)
{
    struct json_tokener *tok = json_tokener_new_ex(8);
    struct json_object  *obj;
    int                  whole;

    if (tok == NULL)
        return no_memory(err);
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT
                                    | JSON_TOKENER_VALIDATE_UTF8);
    obj = json_tokener_parse_ex(tok, h->in, (int) len);
    whole = json_tokener_get_error(tok) == json_tokener_success
            && json_tokener_get_parse_end(tok) == len;
    json_tokener_free(tok);
    if (!whole || !json_object_is_type(obj, json_type_object)) {
        json_object_put(obj);
        return moe_helper_nonsense(h, "no JSON object", err);
    }
    *out = obj;
    return MOE_OK;
}

/* Running, and waiting for a request. */
static moe_status
helper_start(struct moe_helper *h, struct moe_error *err)
{
    struct json_object *hello = NULL;
    moe_status          status = helper_spawn(h, err);
    size_t              len = 0;
    int                 gone = 0;

    h->until = now_ms() + TIMEOUT_MS;
    if (status == MOE_OK)
        status = helper_line(h, "the start of moe-template", &len, &gone,
                             err);
    if (gone)
        return helper_gone(h, "before it was ready", err);
    if (status == MOE_OK)
        status = helper_parse(h, len, &hello, err);
    if (status != MOE_OK)
        return status;
    if (json_object_object_get_ex(hello, "missing", NULL)) {
        helper_end(h);
        status = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                          "chat templates need Jinja for the system's "
                          "Python, which is not here: apt install "
                          "python3-jinja2");
    } else if (!json_object_object_get_ex(hello, "ready", NULL)) {
        status = moe_helper_nonsense(h, "no \"ready\"", err);
    }
    json_object_put(hello);
    return status;
}

static moe_status
ask(struct moe_helper *h, const char *line, size_t len,
    struct json_object **answer, int *gone, struct moe_error *err)
{
    size_t     got = 0;
    moe_status status;

    h->until = now_ms() + TIMEOUT_MS;
    status = helper_send(h, line, len, gone, err);
    if (status == MOE_OK && !*gone)
        status = helper_send(h, "\n", 1, gone, err);
    if (status == MOE_OK && !*gone)
        status = helper_line(h, "the chat template", &got, gone, err);
    if (status == MOE_OK && !*gone)
        status = helper_parse(h, got, answer, err);
    return status;
}

moe_status
moe_helper_ask(struct moe_helper *h, const char *line, size_t len,
               const char *who, struct json_object **answer,
               struct moe_error *err)
{
    moe_status status = MOE_OK;
    int        gone = 0, old = h->pid != 0;

    *answer = NULL;
    h->who = who;
    if (!old)
        status = helper_start(h, err);
    if (status == MOE_OK)
        status = ask(h, line, len, answer, &gone, err);
    if (status == MOE_OK && gone && old) {
        /* It may have ended long ago, by no fault of this request. */
        helper_end(h);
        gone = 0;
        status = helper_start(h, err);
        if (status == MOE_OK)
            status = ask(h, line, len, answer, &gone, err);
    }
    if (status == MOE_OK && gone)
        status = helper_gone(h, "over a chat template", err);
    return status;
}
