/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conform.c - moe-conform: does a plugin keep its promises?
 *
 *   moe-conform [--json] [--load OTHER.so]... [--set KEY=VALUE]... PLUGIN.so
 *
 * The same program for us and for everybody who writes a plugin.  Loads it
 * as the engine does, with the engine's own checks, then runs it against the
 * rules of moe/backend.h or moe/quantizer.h.  Prints TAP, or JSON.
 *
 * Exit status: 0 all is well, 1 something is not, 2 usage, 77 the plugin says
 * that its hardware is not here.
 */

#include "conform/conform.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conform/quantizer.h"

/* --------------------------------------------------------------- results -- */

static void
print_json_text(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        unsigned char ch = (unsigned char) *text;

        if (ch == '"' || ch == '\\')
            printf("\\%c", ch);
        else if (ch < 0x20)
            printf("\\u%04x", ch);
        else
            putchar(ch);
    }
    putchar('"');
}

static void
print_result(struct conform *c, const char *result, const char *text,
             const char *why)
{
    c->n++;
    if (!c->json) {
        printf("%s %u - %s%s%s\n", strcmp(result, "fail") == 0 ? "not ok"
                                                                : "ok",
               c->n, text, why != NULL ? " # SKIP " : "",
               why != NULL ? why : "");
    } else {
        printf("%s\n  {\"n\": %u, \"result\": \"%s\", \"text\": ",
               c->n > 1 ? "," : "", c->n, result);
        print_json_text(text);
        if (why != NULL) {
            printf(", \"why\": ");
            print_json_text(why);
        }
        putchar('}');
    }
    fflush(stdout);
}

int
conform_ok(struct conform *c, int pass, const char *fmt, ...)
{
    char    text[400];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    c->failed += !pass;
    if (!pass || !c->quiet)
        print_result(c, pass ? "pass" : "fail", text, NULL);
    return pass;
}

void
conform_skip(struct conform *c, const char *what, const char *why)
{
    if (c->quiet)
        return;
    c->skipped++;
    print_result(c, "skip", what, why);
}

void
conform_note(struct conform *c, const char *fmt, ...)
{
    va_list args;
    FILE   *out = c->json ? stderr : stdout;

    fputs("# ", out);
    va_start(args, fmt);
    vfprintf(out, fmt, args);
    va_end(args);
    fputc('\n', out);
}

int
conform_status(struct conform *c, moe_status got, moe_status want,
               const struct moe_error *err, const char *what)
{
    int pass = conform_ok(c, got == want, "%s", what);

    if (!pass)
        conform_note(c, "status %d, %d expected%s%s", got, want,
                     err != NULL && err->text[0] != '\0' ? ": " : "",
                     err != NULL ? err->text : "");
    return pass;
}

/* ------------------------------------------------------------------- main -- */

static int
usage(FILE *out)
{
    fprintf(out,
            "Usage: moe-conform [OPTION]... PLUGIN.so\n"
            "Tests a moe-run plugin against the rules of its interface "
            "(ABI %u.%u).\n\n"
            "  --load FILE      load another plugin too: a quantizer whose "
            "formats\n"
            "                   a backend is tested with\n"
            "  --set KEY=VALUE  an entry of the plugin's configuration "
            "section\n"
            "  --json           print JSON instead of TAP\n"
            "  --help           print this\n\n"
            "Exit status: 0 all passed, 1 some failed, 2 usage, 77 hardware "
            "absent.\n",
            MOE_ABI_MAJOR, MOE_ABI_MINOR);
    return out == stdout ? 0 : 2;
}

/* KEY=VALUE: remembered as two strings; 0 if it is not. */
static int
add_setting(struct conform *c, char *text)
{
    char *value = strchr(text, '=');

    if (value == NULL || value == text
        || c->n_config + 2 > CONFORM_CONFIG)
        return 0;
    *value = '\0';
    c->config[c->n_config++] = text;
    c->config[c->n_config++] = value + 1;
    return 1;
}

static const struct moe_plugin_entry *
entry_of(const struct moe_registry *r, const char *path)
{
    const char *base = strrchr(path, '/');
    size_t      i;

    for (i = 0; i < moe_registry_count(r); i++) {
        const struct moe_plugin_entry *e = moe_registry_entry(r, i);
        const char                    *b = strrchr(e->path, '/');

        if (strcmp(b != NULL ? b + 1 : e->path, base != NULL ? base + 1 : path)
            == 0)
            return e;
    }
    return NULL;
}

static void
report(void *ctx, int pass, const char *text)
{
    conform_ok(ctx, pass, "%s", text);
}

/* Whatever the plugin is, tested; the registry stays open. */
static void
test_plugin(struct conform *c, const struct moe_registry *r,
            const struct moe_plugin_entry *e)
{
    const struct moe_backend_ops *ops;
    struct moe_error              err = { .struct_size = sizeof(err) };
    struct moe_format_ref         ref;
    const char                   *found;
    void                         *self;
    size_t                        i;

    conform_ok(c, 1, "the descriptor and its table are sound");
    if (!c->quiet)
        conform_note(c, "%s %s: %s", e->name, e->version, e->summary);
    if (e->kind == MOE_KIND_BACKEND) {
        if (conform_status(c, moe_registry_backend(r, e->name, &ops, &self,
                                                   &found, &err),
                           MOE_OK, &err, "the backend is found by its name"))
            conform_backend(c, r, ops, self, c->quiet);
        return;
    }
    for (i = 0; moe_registry_format_at(r, i, &ref) == MOE_OK; i++)
        if (strcmp(ref.plugin, e->name) == 0) {
            if (moe_conform_quantizer(ref.ops, ref.self, report, c) < 0)
                conform_ok(c, 0, "enough memory for the tests");
            return;
        }
}

/* A backend, loaded anew in a host of one worker: the same bits. */
static void
test_again(struct conform *c, const char *const *files, size_t n_files,
           const char *plugin)
{
    struct moe_registry *r = NULL;
    struct moe_error     err = { .struct_size = sizeof(err) };
    unsigned             failed = c->failed;

    c->workers = 1;
    c->quiet = 1;
    if (conform_status(c, moe_registry_open(&c->services, NULL, files,
                                            n_files, &r, &err),
                       MOE_OK, &err, "the plugin is loaded a second time")) {
        test_plugin(c, r, entry_of(r, plugin));
        moe_registry_close(r);
    }
    c->quiet = 0;
    conform_ok(c, c->failed == failed,
               "loaded again, with 1 worker and not 3: the same bits");
}

int
main(int argc, char **argv)
{
    struct conform       c;
    const char          *files[32], *plugin = NULL;
    struct moe_registry *r = NULL;
    struct moe_error     err = { .struct_size = sizeof(err) };
    moe_status           status;
    size_t               n_files = 0;
    int                  i, absent = 0;

    memset(&c, 0, sizeof(c));
    conform_host_init(&c);
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            return usage(stdout);
        if (strcmp(argv[i], "--json") == 0)
            c.json = 1;
        else if (strcmp(argv[i], "--load") == 0 && i + 1 < argc
                 && n_files < 31)
            files[n_files++] = argv[++i];
        else if (strcmp(argv[i], "--set") == 0 && i + 1 < argc
                 && add_setting(&c, argv[i + 1]))
            i++;
        else if (argv[i][0] == '-' || plugin != NULL)
            return usage(stderr);
        else
            plugin = argv[i];
    }
    if (plugin == NULL)
        return usage(stderr);
    files[n_files++] = plugin;
    if (c.json) {
        printf("{\"plugin\": ");
        print_json_text(plugin);
        printf(", \"tests\": [");
    }
    status = moe_registry_open(&c.services, NULL, files, n_files, &r, &err);
    if (status == MOE_E_ABSENT) {
        absent = 1;
        conform_skip(&c, "the plugin", err.text);
    } else if (conform_status(&c, status, MOE_OK, &err,
                              "the plugin is loaded")) {
        unsigned kind = entry_of(r, plugin)->kind;

        conform_elf(&c, plugin);
        test_plugin(&c, r, entry_of(r, plugin));
        moe_registry_close(r);
        if (kind == MOE_KIND_BACKEND)
            test_again(&c, files, n_files, plugin);
        conform_ok(&c, conform_host_empty(&c),
                   "after fini nothing is held: %llu bytes in %llu grants, "
                   "%lld host blocks",
                   (unsigned long long) c.held, (unsigned long long) c.grants,
                   (long long) c.blocks);
    }
    if (c.json)
        printf("],\n \"passed\": %u, \"failed\": %u, \"skipped\": %u}\n",
               c.n - c.failed - c.skipped, c.failed, c.skipped);
    else
        printf("1..%u\n", c.n);
    return absent ? 77 : c.failed > 0;
}
