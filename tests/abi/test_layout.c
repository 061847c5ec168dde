/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_layout.c - the binary interface does not move.
 *
 * Compares the compiler's offsets with the frozen table, looks for padding
 * that a later field could fall into, and reads the headers for structs that
 * the table has forgotten.
 */

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <moe/moe.h>
#include <moe/ops.h>
#include <moe/plugin.h>

#include "tap.h"

struct layout {
    const char *name, *field; /* field NULL: the struct itself */
    size_t      offset, size;
    size_t      want_offset, want_size;
};

struct constant {
    const char *name;
    long long   value, want;
};

#define SIZE(s, n) { #s, NULL, 0, sizeof(struct s), 0, n }
#define FIELD(s, f, o, n)                                                     \
    { #s, #f, offsetof(struct s, f), sizeof(((struct s *) 0)->f), o, n }
#define CONST(c, v) { #c, (long long) (c), v }

#include "layout.h"

#define N_LAYOUT (sizeof(layout) / sizeof(*layout))

static void
test_table(void)
{
    size_t i, end = 0, wrong = 0, gaps = 0;

    for (i = 0; i < N_LAYOUT; i++) {
        const struct layout *l = &layout[i];

        if (l->offset != l->want_offset || l->size != l->want_size) {
            wrong++;
            tap_diag("%s.%s: at %zu of %zu bytes, frozen at %zu of %zu",
                     l->name, l->field != NULL ? l->field : "", l->offset,
                     l->size, l->want_offset, l->want_size);
        }
        /* A struct's fields follow it; each begins where the last ended. */
        if (l->field == NULL) {
            end = 0;
        } else {
            if (l->offset != end) {
                gaps++;
                tap_diag("%s: bytes %zu to %zu belong to no field", l->name,
                         end, l->offset);
            }
            end = l->offset + l->size;
            if ((i + 1 == N_LAYOUT || layout[i + 1].field == NULL)) {
                size_t k = i;

                while (layout[k].field != NULL)
                    k--;
                if (end != layout[k].size) {
                    gaps++;
                    tap_diag("%s: %zu bytes after its last field", l->name,
                             layout[k].size - end);
                }
            }
        }
    }
    is_int(wrong, 0, "every public field lies where it was frozen");
    is_int(gaps, 0, "no struct has padding");
}

static void
test_constants(void)
{
    size_t i, wrong = 0;

    for (i = 0; i < sizeof(constants) / sizeof(*constants); i++)
        if (constants[i].value != constants[i].want) {
            wrong++;
            tap_diag("%s is %lld, frozen as %lld", constants[i].name,
                     constants[i].value, constants[i].want);
        }
    is_int(wrong, 0, "every public number is what it was");
}

static int
in_table(const char *name)
{
    size_t i;

    for (i = 0; i < N_LAYOUT; i++)
        if (layout[i].field == NULL && strcmp(layout[i].name, name) == 0)
            return 1;
    return 0;
}

/* "struct moe_x {" at the start of a line, in every header. */
static void
test_complete(void)
{
    static const char *const headers[] = { "types", "plugin", "quantizer",
                                           "backend", "ops", "moe" };
    char   path[64], line[400], name[100];
    size_t i, found = 0, missing = 0;
    FILE  *f;

    for (i = 0; i < sizeof(headers) / sizeof(*headers); i++) {
        snprintf(path, sizeof(path), "include/moe/%s.h", headers[i]);
        f = fopen(tap_src(path), "r");
        if (!ok(f != NULL, "moe/%s.h is read", headers[i]))
            continue;
        while (fgets(line, sizeof(line), f) != NULL)
            if (sscanf(line, "struct %99[a-z_] {", name) == 1
                && strchr(line, '{') != NULL) {
                found++;
                if (!in_table(name)) {
                    missing++;
                    tap_diag("%s of moe/%s.h is not in layout.h", name,
                             headers[i]);
                }
            }
        fclose(f);
    }
    ok(found > 30, "%zu structs were found", found);
    is_int(missing, 0, "all of them are in the table");
}

int
main(void)
{
    test_table();
    test_constants();
    test_complete();
    return tap_done();
}
