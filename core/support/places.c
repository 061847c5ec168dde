/* SPDX-License-Identifier: Apache-2.0 */
/*
 * places.c - lists of processors as texts: those of /sys, and OMP_PLACES'.
 *
 * Grammar of the latter: OpenMP 5.2, 21.1.6, but for "!" (exclusion).
 */
#include "support/cpus.h"

#include <ctype.h>
#include <stdlib.h>

void
moe_cpus_list(const char *text, cpu_set_t *out)
{
    while (isdigit((unsigned char) *text)) {
        char         *end;
        unsigned long a = strtoul(text, &end, 10), b = a;

        if (*end == '-')
            b = strtoul(end + 1, &end, 10);
        for (; a <= b && a < CPU_SETSIZE; a++)
            CPU_SET(a, out);
        if (*end != ',')
            return;
        text = end + 1;
    }
}

static const char *
skip(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

/* A whole number, negative ones only if asked for; NULL: none here. */
static const char *
number(const char *p, int negative, long *out)
{
    char *end;

    p = skip(p);
    if (!isdigit((unsigned char) *p)
        && !(negative && *p == '-' && isdigit((unsigned char) p[1])))
        return NULL;
    *out = strtol(p, &end, 10);
    if (*out >= CPU_SETSIZE || *out <= -CPU_SETSIZE)
        return NULL;
    return skip(end);
}

/* ":count" and ":stride", if they are there. */
static const char *
repeat(const char *p, long *count, long *stride)
{
    *count = *stride = 1;
    if (*p != ':')
        return p;
    p = number(p + 1, 0, count);
    if (p == NULL || *count < 1)
        return NULL;
    return *p == ':' ? number(p + 1, 1, stride) : p;
}

/* "{0:4,8}" */
static const char *
one_place(const char *p, cpu_set_t *set)
{
    CPU_ZERO(set);
    p = skip(p);
    if (*p++ != '{')
        return NULL;
    for (;;) {
        long first, count, stride, i;

        p = number(p, 0, &first);
        if (p != NULL)
            p = repeat(p, &count, &stride);
        if (p == NULL)
            return NULL;
        for (i = 0; i < count; i++) {
            long cpu = first + i * stride;

            if (cpu < 0 || cpu >= CPU_SETSIZE)
                return NULL;
            CPU_SET((size_t) cpu, set);
        }
        if (*p == '}')
            return skip(p + 1);
        if (*p++ != ',')
            return NULL;
    }
}

uint32_t
moe_cpus_places(const char *text, cpu_set_t *sets, uint32_t max)
{
    const char *p = text;
    uint32_t    n = 0;

    for (;;) {
        cpu_set_t base;
        long      count, stride, i, cpu;

        p = one_place(p, &base);
        if (p != NULL)
            p = repeat(p, &count, &stride);
        if (p == NULL)
            return 0;
        for (i = 0; i < count && n < max; i++, n++) {
            CPU_ZERO(&sets[n]);
            for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
                long to = cpu + i * stride;

                if (CPU_ISSET((size_t) cpu, &base) && to >= 0
                    && to < CPU_SETSIZE)
                    CPU_SET((size_t) to, &sets[n]);
            }
        }
        if (*p == '\0')
            return n;
        if (*p++ != ',')
            return 0;
    }
}
