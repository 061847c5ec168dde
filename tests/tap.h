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

#define ok(cond, ...) tap_ok((cond) != 0, __FILE__, __LINE__, __VA_ARGS__)

/* Two integers are equal; prints both when they are not. */
#define is_int(got, want, ...)                                                \
    do {                                                                      \
        long long tap_g_ = (long long) (got), tap_w_ = (long long) (want);    \
        if (!tap_ok(tap_g_ == tap_w_, __FILE__, __LINE__, __VA_ARGS__))       \
            printf("# got %lld, want %lld\n", tap_g_, tap_w_);                \
    } while (0)

/* Two strings are equal (NULL is printed as such and equals only NULL). */
#define is_str(got, want, ...)                                                \
    do {                                                                      \
        const char *tap_g_ = (got), *tap_w_ = (want);                         \
        int tap_e_ = tap_g_ == tap_w_                                         \
                     || (tap_g_ != NULL && tap_w_ != NULL                     \
                         && strcmp(tap_g_, tap_w_) == 0);                     \
        if (!tap_ok(tap_e_, __FILE__, __LINE__, __VA_ARGS__))                 \
            printf("# got  '%s'\n# want '%s'\n",                              \
                   tap_g_ != NULL ? tap_g_ : "(null)",                        \
                   tap_w_ != NULL ? tap_w_ : "(null)");                       \
    } while (0)

/* A text contains a part; prints the text when it does not. */
#define has_str(text, part, ...)                                              \
    do {                                                                      \
        const char *tap_t_ = (text), *tap_p_ = (part);                        \
        if (!tap_ok(tap_t_ != NULL && strstr(tap_t_, tap_p_) != NULL,         \
                    __FILE__, __LINE__, __VA_ARGS__))                         \
            printf("# '%s' not found in '%s'\n", tap_p_,                      \
                   tap_t_ != NULL ? tap_t_ : "(null)");                       \
    } while (0)

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
