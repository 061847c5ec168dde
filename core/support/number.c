/* SPDX-License-Identifier: Apache-2.0 */
/*
 * number.c - texts that are numbers; the rule is in number.h.
 */
#include "support/number.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char digits[] = "0123456789";

/* Behind the sign, if there is one; NULL: longer than any number. */
static const char *
begin(const char *text)
{
    if (strnlen(text, MOE_NUMBER_MAX + 1) > MOE_NUMBER_MAX)
        return NULL;
    return text + (*text == '-' || *text == '+');
}

int
moe_number_whole(const char *text, int64_t *out)
{
    const char *p = begin(text);
    long long   v;

    if (p == NULL || *p == '\0' || p[strspn(p, digits)] != '\0')
        return 0;
    errno = 0;
    v = strtoll(text, NULL, 10);
    if (errno != 0)
        return 0;
    *out = v;
    return 1;
}

int
moe_number_real(const char *text, locale_t c, double *out)
{
    const char *p = begin(text);
    char       *end;
    double      v;

    /* the characters first: strtod knows more than decimal numbers */
    if (p == NULL || *p == '\0' || p[strspn(p, "0123456789+-.eE")] != '\0')
        return 0;
    v = c != (locale_t) 0 ? strtod_l(text, &end, c) : strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v))
        return 0;
    *out = v;
    return 1;
}
