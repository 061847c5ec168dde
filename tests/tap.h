/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap.h - the smallest TAP producer that the tests need.
 *
 * A test program calls ok() and friends and ends with `return tap_done();`.
 * One process, no fork: a crash is seen by the driver as a missing plan.
 */
#ifndef MOE_TESTS_TAP_H
#define MOE_TESTS_TAP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_n, tap_failed;

__attribute__((__format__(__printf__, 4, 5), __unused__)) static int
tap_ok(int pass, const char *file, int line, const char *fmt, ...)
{
    va_list args;

    printf("%s %d - ", pass ? "ok" : "not ok", ++tap_n);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n");
    if (!pass) {
        tap_failed++;
        printf("# at %s:%d\n", file, line);
    }
    fflush(stdout);
    return pass;
}

/* The step of a loop over many cases of a kind: n where the tests run much
 * slower than they should (valgrind), else 1. */
__attribute__((__unused__)) static size_t
tap_every(size_t n)
{
    return getenv("MOE_TEST_QUICK") != NULL ? n : 1;
}

/* The condition comes first: what it works out may be among the arguments. */
__attribute__((__unused__)) static int tap_passed;
#define ok(cond, ...) \
    (tap_passed = (cond) != 0, \
     tap_ok(tap_passed, __FILE__, __LINE__, __VA_ARGS__))

__attribute__((__format__(__printf__, 5, 6), __unused__)) static int
tap_is_int(long long got, long long want, const char *file, int line,
           const char *fmt, ...)
{
    char    text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (tap_ok(got == want, file, line, "%s", text))
        return 1;
    printf("# got %lld, want %lld\n", got, want);
    return 0;
}

/* part: want is to be found within got, else the two are to be equal; NULL
 * is printed as such and equals only NULL. */
__attribute__((__format__(__printf__, 6, 7), __unused__)) static int
tap_is_str(const char *got, const char *want, int part, const char *file,
           int line, const char *fmt, ...)
{
    char    text[512];
    va_list args;
    int     pass = got == want;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (got != NULL && want != NULL)
        pass = part ? strstr(got, want) != NULL : strcmp(got, want) == 0;
    if (tap_ok(pass, file, line, "%s", text))
        return 1;
    printf("# got  '%s'\n# want %s'%s'\n", got != NULL ? got : "(null)",
           part ? "within it " : "", want != NULL ? want : "(null)");
    return 0;
}

/* Two integers are equal. */
#define is_int(got, want, ...)                                                \
    tap_is_int((long long) (got), (long long) (want), __FILE__, __LINE__,     \
               __VA_ARGS__)
/* Two strings are equal. */
#define is_str(got, want, ...)                                                \
    tap_is_str((got), (want), 0, __FILE__, __LINE__, __VA_ARGS__)
/* A text contains a part. */
#define has_str(text, part, ...)                                              \
    tap_is_str((text), (part), 1, __FILE__, __LINE__, __VA_ARGS__)

#define tap_skip_all(why)                                                     \
    do {                                                                      \
        printf("1..0 # SKIP %s\n", why);                                      \
        return 0;                                                             \
    } while (0)

#define tap_diag(...)                                                         \
    do {                                                                      \
        printf("# " __VA_ARGS__);                                             \
        printf("\n");                                                         \
    } while (0)

/* A path below the source tree's top: tests find fixtures in VPATH builds. */
__attribute__((__unused__)) static const char *
tap_src(const char *rel)
{
    static char  buf[4][1024];
    static int   i;
    const char  *top = getenv("MOE_TEST_SRCDIR");

    i = (i + 1) % 4;
    snprintf(buf[i], sizeof(buf[i]), "%s/%s", top != NULL ? top : ".", rel);
    return buf[i];
}

__attribute__((__unused__)) static int
tap_done(void)
{
    printf("1..%d\n", tap_n);
    return tap_failed != 0;
}

#endif /* MOE_TESTS_TAP_H */
