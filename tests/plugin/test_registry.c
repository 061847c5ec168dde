/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_registry.c - every way a plugin is refused, and how one is found.
 *
 * The plugins are those of bad_plugin.c.  Each refusal must name the file,
 * both sides and a remedy; nothing may be left behind.
 */

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "tap.h"

static char              dir[256]; /* of this run, below TMPDIR */
static struct test_host  host;

static const char *
module(const char *name)
{
    char rel[128];

    snprintf(rel, sizeof(rel), "tests/plugin/.libs/%s.so", name);
    return test_built(rel);
}

/* Copies len bytes (all if 0) of a file to dir/name; returns that path. */
static const char *
copy_to(const char *from, const char *name, size_t len)
{
    static char path[512];
    char        buf[4096];
    size_t      n, done = 0;
    FILE       *in = fopen(from, "rb"), *out;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    out = fopen(path, "wb");
    while (in != NULL && out != NULL
           && (n = fread(buf, 1, sizeof(buf), in)) > 0) {
        if (len > 0 && n > len - done)
            n = len - done;
        fwrite(buf, 1, n, out);
        done += n;
        if (len > 0 && done == len)
            break;
    }
    if (in != NULL)
        fclose(in);
    if (out != NULL)
        fclose(out);
    return path;
}

static const char *
write_to(const char *name, const void *bytes, size_t len)
{
    static char path[512];
    FILE       *out;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    out = fopen(path, "wb");
    if (out != NULL) {
        fwrite(bytes, 1, len, out);
        fclose(out);
    }
    return path;
}

/* Asked for by name, path must be refused with status and all these parts. */
static void
refused(const char *path, moe_status status, const char *a, const char *b,
        const char *remedy, const char *what)
{
    struct moe_registry *r = NULL;
    struct moe_error     err = { .struct_size = sizeof(err) };
    const char          *name = strrchr(path, '/') + 1;
    moe_status got = moe_registry_open(&host.services, "", &path, 1, &r,
                                       &err);
    int good = got == status && err.status == status
               && strstr(err.text, name) != NULL && strstr(err.text, a) != NULL
               && strstr(err.text, b) != NULL
               && strstr(err.text, remedy) != NULL
               && strchr(err.text, '\n') == NULL && r == NULL;

    ok(good, "refused: %s", what);
    if (!good)
        tap_diag("status %d: %s", got, err.text);
    moe_registry_close(r);
}

static void
test_files(void)
{
    struct stat st;
    const char *path;
    char        folder[300];
    unsigned char head[64] = { 0x7f, 'E', 'L', 'F', 2, 1, 1 };

    refused("/nowhere/at_all.so", MOE_E_NOT_FOUND, "no such file", "",
            "moe-run plugins", "missing file");
    refused(write_to("text.so", "#!/bin/sh\necho no plugin\n", 26), MOE_E_ABI,
            "not a shared object", "ELF", "take it out", "text file");
    refused(write_to("empty.so", "", 0), MOE_E_ABI, "not a shared object",
            "ELF", "take it out", "empty file");
    head[16] = 3;   /* ET_DYN */
    head[18] = 0xb7 ; /* aarch64, or not x86-64 at least */
#if defined(__aarch64__)
    head[18] = 0x3e;
#endif
    refused(write_to("foreign.so", head, sizeof(head)), MOE_E_ABI,
            "built for", "this program for", "build it for this machine",
            "another machine's file");
    stat(module("sound"), &st);
    path = copy_to(module("sound"), "half.so", (size_t) st.st_size / 4);
    refused(path, MOE_E_ABI, "cut short", "bytes", "copy or build it again",
            "truncated file");
    path = copy_to(module("sound"), "head.so", 100);
    refused(path, MOE_E_ABI, "cut short", "program headers",
            "copy or build it again", "file cut within its headers");
    snprintf(folder, sizeof(folder), "%s/folder.so", dir);
    mkdir(folder, 0700);
    refused(folder, MOE_E_ABI, "not a regular file", "", "shared object",
            "a folder");
    path = copy_to(module("sound"), "secret.so", 0);
    chmod(path, 0);
    if (geteuid() != 0)
        refused(path, MOE_E_IO, "cannot be read", strerror(EACCES), "mode",
                "unreadable file");
    unlink(path);
}

static void
test_descriptors(void)
{
    char a[64], b[64];

    refused(module("bad_symbol"), MOE_E_ABI, "no symbol moe_plugin", "",
            "MOE_PLUGIN_DEFINE", "no descriptor");
    refused(module("bad_function"), MOE_E_ABI, "function", "not data",
            "MOE_PLUGIN_DEFINE", "moe_plugin is a function");
    refused(module("bad_small"), MOE_E_ABI, "has 4 bytes", "a descriptor",
            "MOE_PLUGIN_DEFINE", "moe_plugin is an integer");
    refused(module("bad_magic"), MOE_E_ABI, "0x12345678", "0x50454f4d",
            "MOE_PLUGIN_HEADER", "wrong magic");
    snprintf(a, sizeof(a), "built for plugin ABI %u.3", MOE_ABI_MAJOR + 6);
    snprintf(b, sizeof(b), "has %u.%u", MOE_ABI_MAJOR, MOE_ABI_MINOR);
    refused(module("bad_major"), MOE_E_ABI, a, b, "build it with the headers",
            "another ABI major");
    snprintf(a, sizeof(a), "needs plugin ABI %u.%u or newer", MOE_ABI_MAJOR,
             MOE_ABI_MINOR + 8);
    refused(module("bad_newer"), MOE_E_ABI, a, b, "update moe-run",
            "needs a newer core");
    refused(module("bad_oldest"), MOE_E_ABI, "abi_oldest", "does not fit",
            "set it to", "abi_oldest newer than abi");
    refused(module("bad_size"), MOE_E_ABI, "its descriptor says", "needs",
            "MOE_PLUGIN_HEADER", "struct_size beyond the symbol");
    refused(module("bad_kind"), MOE_E_ABI, "kind 9", "2 (quantizer)",
            "update moe-run", "unknown kind");
    refused(module("bad_flags"), MOE_E_ABI, "flags 0x4", "has none",
            "set them to 0", "flags of no meaning");
    refused(module("bad_name"), MOE_E_ABI, "Bad Name!", "a-z", "1 to 31",
            "name of the wrong letters");
    refused(module("bad_field"), MOE_E_ABI, "no license", "",
            "only probe may be NULL", "a field that is missing");
    refused(copy_to(module("sound"), "renamed.so", 0), MOE_E_ABI,
            "calls itself \"sound\"", "named \"renamed.so\"",
            "rename the file to sound.so", "name unlike the file's");
    refused(module("bad_undefined"), MOE_E_ABI, "undefined symbol",
            "moe_secret_of_the_core", "struct moe_host",
            "a symbol of the core");
}

static void
test_tables(void)
{
    refused(module("bad_table"), MOE_E_ABI, "no stream_wait", "required",
            "write it", "backend without a function");
    refused(module("bad_short"), MOE_E_ABI, "ends before launch",
            "struct_size", "sizeof", "backend table cut short");
    refused(module("odd_table"), MOE_E_ABI, "no decode", "required",
            "write it", "quantizer without a function");
    refused(module("odd_format"), MOE_E_ABI, "\"odd5\"", "a multiple of 0",
            "correct its row", "format with a bad row");
    refused(module("odd_twice"), MOE_E_ABI, "\"odd5\" twice", "",
            "another id", "one format twice");
}

static void
behaves(const char *behave, moe_status status, const char *a, const char *b,
        const char *remedy, int fini)
{
    const char *config[] = { "backend.sound.behave", NULL, NULL };

    config[1] = behave;
    host.config = config;
    host.log[0] = '\0';
    refused(module("sound"), status, a, b, remedy, behave);
    ok((strstr(host.log, "fini ran") != NULL) == fini, "  fini %s",
       fini ? "ran" : "did not run");
    host.config = NULL;
}

static void
test_behaviour(void)
{
    behaves("absent", MOE_E_ABSENT, "cannot run here",
            "no such card in this machine", "", 0);
    behaves("probe-error", MOE_E_IO, "the probe stumbled", "", "", 0);
    behaves("init-fail", MOE_E_DEVICE, "its init failed",
            "the driver is too old", "", 0);
    behaves("init-mute", MOE_E_DEVICE, "its init failed", "-40", "", 0);
    behaves("no-device", MOE_E_ABSENT, "has no device here", "", "", 1);
    behaves("many", MOE_E_ABI, "100000 devices", "1024", "", 1);
    behaves("lie-count", MOE_E_ABI, "device_count failed", "-40",
            "fail in init", 1);
    behaves("lie-info", MOE_E_ABI, "device_info(0)", "-40", "count only", 1);
    behaves("lie-advise", MOE_E_ABI, "MOE_CAP_ADVISE", "no slot_advise",
            "clear the bit", 1);
    behaves("lie-caps", MOE_E_ABI, "0x100000", "knows 0x7", "clear", 1);
    behaves("lie-dtypes", MOE_E_ABI, "weight types 0x4", "F32", "required",
            1);
    behaves("lie-preferred", MOE_E_ABI, "prefers weight type 3", "0x2",
            "prefer another", 1);
    behaves("lie-kv", MOE_E_ABI, "KV cache types 0x8", "F32", "required", 1);
    behaves("lie-domain", MOE_E_ABI, "domain", "does not end", "terminate",
            1);
    behaves("lie-align", MOE_E_ABI, "mem_align is 48", "", "power of two", 1);
}

static void
loads(const char *name)
{
    struct moe_registry *r = NULL;
    struct moe_error     err = { .struct_size = sizeof(err) };
    const char          *path = module(name);
    moe_status status = moe_registry_open(&host.services, NULL, &path, 1, &r,
                                          &err);

    is_int(status, MOE_OK, "%s is loaded", name);
    if (status != MOE_OK)
        tap_diag("%s", err.text);
    moe_registry_close(r);
}

/* Folders: order, shadows, links, and what is passed over. */
static void
test_search(void)
{
    struct moe_registry           *r = NULL;
    struct moe_error               err = { .struct_size = sizeof(err) };
    const struct moe_plugin_entry *e;
    const struct moe_backend_ops  *ops;
    const char *extra[1], *config[] = { "backend.sound.behave", "score",
                                        NULL };
    void       *self;
    const char *found;
    char        one[300], two[300], path[2048], name[400];

    snprintf(one, sizeof(one), "%s/one", dir);
    snprintf(two, sizeof(two), "%s/two", dir);
    mkdir(one, 0700);
    mkdir(two, 0700);
    copy_to(module("sound"), "one/sound.so", 0);
    copy_to(module("odd"), "one/odd.so", 0);
    copy_to(module("bad_magic"), "one/bad_magic.so", 0);
    copy_to(module("sound"), "one/.hidden.so", 0);
    copy_to(module("sound"), "one/sound.txt", 0);
    copy_to(module("sound"), "two/sound.so", 0);
    copy_to(module("old_tail"), "two/old_tail.so", 0);
    snprintf(name, sizeof(name), "%s/sound-1.2.so", one);
    if (symlink("sound.so", name) != 0)
        tap_diag("no symlink: %s", strerror(errno));
    host.config = config;
    host.log[0] = '\0';

    snprintf(path, sizeof(path), "/nowhere:%s::%s", one, two);
    is_int(moe_registry_open(&host.services, path, NULL, 0, &r, &err), MOE_OK,
           "folders with bad plugins and a missing one are opened");
    if (r == NULL) {
        tap_diag("%s", err.text);
        return;
    }
    is_int(moe_registry_count(r), 5, "five files were considered");
    e = moe_registry_entry(r, 0);
    is_str(e->name, "bad_magic", "in the order of their names");
    is_str(e->state, "refused", "bad_magic is refused");
    has_str(host.log, "1 ", "a refusal in a folder is a warning");
    e = moe_registry_entry(r, 1);
    is_str(e->state, "loaded", "odd is loaded");
    if (e->reason[0] != '\0')
        tap_diag("%s", e->reason);
    is_int(e->kind, MOE_KIND_QUANTIZER, "odd is a quantizer");
    e = moe_registry_entry(r, 2);
    is_str(e->name, "sound", "a link with another name is fine");
    is_str(e->state, "loaded", "sound is loaded, once");
    is_str(e->version, "1.2", "its version is known");
    is_str(e->reason, "", "and there is no reason");
    e = moe_registry_entry(r, 3);
    is_str(e->name, "old_tail", "a table without its optional tail");
    is_str(e->state, "loaded", "is loaded");
    e = moe_registry_entry(r, 4);
    is_str(e->state, "shadowed", "the second folder's sound is shadowed");
    has_str(e->reason, one, "by the file that is named");
    ok(moe_registry_entry(r, 5) == NULL, "no entry past the last");

    is_int(moe_registry_backend(r, "auto", &ops, &self, &found, &err), MOE_OK,
           "auto finds a backend");
    is_str(found, "sound", "the one with the highest score");
    is_int(moe_registry_backend(r, "old_tail", &ops, &self, &found, &err),
           MOE_OK, "a backend is found by name");
    is_str(found, "old_tail", "that one");
    is_int(moe_registry_backend(r, "cuda", &ops, &self, &found, &err),
           MOE_E_NOT_FOUND, "a backend that is not there");
    has_str(err.text, "cuda", "is named");
    has_str(err.text, "sound", "and what there is, too");
    is_int(moe_registry_backend(r, "bad_magic", &ops, &self, &found, &err),
           MOE_E_ABI, "a refused one gives its own status");
    has_str(err.text, "0x12345678", "and its own reason");
    moe_registry_close(r);

    /* An extra file comes first: it was asked for. */
    snprintf(name, sizeof(name), "%s/sound.so", two);
    extra[0] = name;
    is_int(moe_registry_open(&host.services, one, extra, 1, &r, &err), MOE_OK,
           "an extra file beside a folder");
    is_str(moe_registry_entry(r, 0)->path, name, "it is considered first");
    is_str(moe_registry_entry(r, 0)->state, "loaded", "and wins");
    moe_registry_close(r);
    host.config = NULL;
}

static int
collect(void *ctx, const char *text, size_t len)
{
    struct { char text[8192]; size_t len; } *c = ctx;

    if (len >= sizeof(c->text))
        return 1;
    memcpy(c->text, text, len);
    c->text[len] = '\0';
    c->len = len;
    return 0;
}

static int
refuse_text(void *ctx, const char *text, size_t len)
{
    (void) ctx, (void) text, (void) len;
    return 1;
}

static void
test_formats(void)
{
    struct moe_registry  *r = NULL;
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_format_ref ref;
    struct moe_scheme     scheme;
    struct { char text[8192]; size_t len; } out;
    const char *extra[2];
    char        name[400];

    snprintf(name, sizeof(name), "%s/one", dir);
    is_int(moe_registry_open(&host.services, name, NULL, 0, &r, &err), MOE_OK,
           "a folder with a quantizer");
    is_int(moe_registry_format(r, "odd5", &ref, &err), MOE_OK,
           "a format by id");
    is_str(ref.plugin, "odd", "and its quantizer");
    scheme = ref.format->scheme;
    is_int(moe_registry_scheme(r, &scheme, &ref), MOE_OK,
           "a format by scheme");
    scheme.elem = "I32";
    is_int(moe_registry_scheme(r, &scheme, &ref), MOE_OK,
           "elem counts only where both know it");
    scheme.num_bits = 3;
    is_int(moe_registry_scheme(r, &scheme, &ref), MOE_E_NOT_FOUND,
           "another number of bits is another format");
    is_int(moe_registry_format(r, "int9", &ref, &err), MOE_E_UNSUPPORTED,
           "a format that nobody offers");
    has_str(err.text, "int9", "is named");
    has_str(err.text, "odd5", "and what there is, too");
    is_int(moe_registry_format_at(r, 1, &ref), MOE_E_NOT_FOUND,
           "no format past the last");

    is_int(moe_registry_print(r, 0, collect, &out), MOE_OK, "a table");
    has_str(out.text, "sound", "names a plugin");
    has_str(out.text, "0x12345678", "says why one was refused");
    has_str(out.text, "odd5", "lists the formats");
    is_int(moe_registry_print(r, 1, collect, &out), MOE_OK, "as JSON");
    has_str(out.text, "\"state\": \"refused\"", "with states");
    has_str(out.text, "\"id\": \"odd5\"", "and formats");
    is_int(moe_registry_print(r, 0, refuse_text, NULL), MOE_E_IO,
           "a reader that stops is heard");
    moe_registry_close(r);

    extra[0] = module("odd");
    extra[1] = module("odd_same_id");
    is_int(moe_registry_open(&host.services, "", extra, 2, &r, &err),
           MOE_E_ABI, "two quantizers with one format id");
    has_str(err.text, "odd5", "the format is named");
    has_str(err.text, "\"odd\"", "and who has it");
    extra[1] = module("odd_same_scheme");
    is_int(moe_registry_open(&host.services, "", extra, 2, &r, &err),
           MOE_E_ABI, "two formats with one scheme");
    has_str(err.text, "odd6", "the new one is named");
    has_str(err.text, "odd5", "and the old one");
}

static void
test_services(void)
{
    struct moe_services  none = host.services;
    struct moe_registry *r = NULL;
    struct moe_error     err = { .struct_size = sizeof(err) };
    const struct moe_backend_ops *ops;
    void       *self;
    const char *found;

    none.reserve = NULL;
    is_int(moe_registry_open(&none, "", NULL, 0, &r, &err), MOE_E_INVAL,
           "a service that is missing");
    is_int(moe_registry_open(&host.services, "", NULL, 0, &r, &err), MOE_OK,
           "no folder at all");
    is_int(moe_registry_count(r), 0, "holds nothing");
    is_int(moe_registry_backend(r, "auto", &ops, &self, &found, &err),
           MOE_E_NOT_FOUND, "auto finds nothing there");
    has_str(err.text, "moe-run plugins", "and says where to look");
    moe_registry_close(r);
    moe_registry_close(NULL);
}

static void
remove_all(void)
{
    char cmd[300];

    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    if (system(cmd) != 0)
        tap_diag("left behind: %s", dir);
}

int
main(void)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, sizeof(dir), "%.200s/moe-registry-XXXXXX",
             tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL)
        tap_skip_all("no temporary folder");
    test_host_init(&host, NULL);
    test_files();
    test_descriptors();
    test_tables();
    test_behaviour();
    loads("sound");
    loads("old_tail");
    loads("future");
    loads("odd");
    test_search();
    test_formats();
    test_services();
    is_int(host.blocks, 0, "no host memory is left");
    is_int(host.held, 0, "the ledger is at zero");
    remove_all();
    return tap_done();
}
