/* SPDX-License-Identifier: Apache-2.0 */
/* INI files: what is read, and every trap of the format. */
#include "tap.h"

#include "ini_file.h"

#define NAME "test_ini.ini"

static struct moe_error err;

/* The file is refused with a message that begins with name:line and holds
 * `why`. */
static void
refuse(const char *title, const char *text, size_t len, int line,
       const char *why)
{
    moe_options *o;
    char         place[64];

    is_int(load_text(NAME, text, len, &o, &err), MOE_E_INVAL, "refused: %s",
           title);
    snprintf(place, sizeof(place), NAME ":%d: ", line);
    ok(strncmp(err.text, place, strlen(place)) == 0, "... at line %d", line);
    has_str(err.text, why, "... for the right reason");
    ok(strchr(err.text, '\n') == NULL, "... in one line");
    moe_options_free(o);
}

#define REFUSE(title, text, line, why)                                        \
    refuse(title, text, strlen(text), line, why)

static void
accept(const char *title, const char *text, const char *key,
       const char *value)
{
    moe_options *o;

    is_int(load_text(NAME, text, strlen(text), &o, &err), MOE_OK, "read: %s",
           title);
    if (err.text[0] != '\0')
        tap_diag("%s", err.text);
    is_str(moe_options_get(o, key), value, "... as %s", value);
    moe_options_free(o);
}

static void
test_good(void)
{
    moe_options      *o;
    struct moe_option row = { .struct_size = sizeof(row) };
    char              text[400];
    size_t            n;

    accept("a plain file", "[engine]\nthreads = 2\n", "engine.threads", "2");
    accept("no newline at the end", "[engine]\nthreads=2", "engine.threads",
           "2");
    accept("lines of other systems", "[engine]\r\nthreads = 2\r\n",
           "engine.threads", "2");
    accept("a byte order mark", "\xef\xbb\xbf[engine]\nthreads = 2\n",
           "engine.threads", "2");
    accept("comments", "; one\n# two\n  ; three\n[engine] ; four\n"
                       "threads = 2 ; five\n\n",
           "engine.threads", "2");
    accept("a section twice",
           "[engine]\nthreads = 2\n[model]\n[engine]\nsequences = 3\n",
           "engine.sequences", "3");
    accept("quotes around a value", "[model]\npath = \"/a # b\"\n",
           "model.path", "/a # b");
    accept("a quote in quotes", "[model]\npath = \"/a \\\"b\\\" \\\\c\"\n",
           "model.path", "/a \"b\" \\c");
    accept("a '#' in a word", "[model]\npath = /a#b\n", "model.path", "/a#b");
    accept("a ';' in a word", "[model]\npath = /a;b\n", "model.path", "/a;b");
    accept("an empty text", "[model]\npath =\n", "model.path", "");
    accept("characters of all kinds", "[model]\npath = /\xc3\xa4/\xe4\xb8\xad\n",
           "model.path", "/\xc3\xa4/\xe4\xb8\xad");
    accept("a plugin's keys", "[backend.cpu]\nisa = avx2\n",
           "backend.cpu.isa", "avx2");
    accept("an empty file", "", "engine.threads", "0");

    /* as long as a line may be: 198 bytes */
    n = (size_t) snprintf(text, sizeof(text), "[model]\npath = /");
    memset(text + n, 'x', 198 - strlen("path = /"));
    text[n + 198 - strlen("path = /")] = '\n';
    is_int(load_text(NAME, text, n + 199 - strlen("path = /"), &o, &err),
           MOE_OK, "a line of 198 bytes is read");
    is_int(strlen(moe_options_get(o, "model.path")),
           198 - strlen("path = "), "... whole");
    moe_options_free(o);

    load_text(NAME, "\n[engine]\nthreads = 2\n", 22, &o, &err);
    moe_options_flag(o, "-t", &row, &err);
    is_str(row.where, NAME ":3", "a value knows its file and line");
    is_int(row.from, MOE_FROM_FILE, "... and its source");
    moe_options_free(o);

    snprintf(text, sizeof(text), "[generate]\nstop = \"a,b\", c ; d\n");
    load_text(NAME, text, strlen(text), &o, &err);
    {
        const char *const *items = moe_option_list(o, "generate.stop", &n);

        is_int(n, 2, "a list is read");
        is_str(n == 2 ? items[0] : "", "a,b", "... with a comma in quotes");
        is_str(n == 2 ? items[1] : "", "c", "... and a comment behind");
    }
    moe_options_free(o);
}

static void
test_traps(void)
{
    char   text[700];
    size_t n;

    n = (size_t) snprintf(text, sizeof(text), "[model]\npath = /");
    memset(text + n, 'x', 400);
    text[n + 400] = '\n';
    refuse("a line that would be cut", text, n + 401, 2, "more than the 198");
    memset(text, 'x', 199);
    text[0] = ';';
    refuse("a long comment too", text, 199, 1, "has 199 bytes");
    REFUSE("a comment inside quotes", "[generate]\nstop = \"a ; b\"\n", 2,
           "a quote is not closed");
    REFUSE("an open quote", "[model]\npath = \"/x\n", 2,
           "a quote is not closed");
    REFUSE("a quote in the middle", "[model]\npath = /x\"y\"\n", 2,
           "a quote inside a value");
    REFUSE("text after the quotes", "[model]\npath = \"/x\" y\n", 2,
           "a quote inside a value");
    REFUSE("an indented key", "[model]\npath = /x\n  context = 5\n", 3,
           "is indented");
    REFUSE("an indented first key", "[model]\n\tcontext = 5\n", 2,
           "is indented");
    REFUSE("an indented section", " [model]\n", 1, "is indented");
    REFUSE("text behind a section", "[engine] threads = 2\n", 1,
           "would be ignored");
    REFUSE("an open section", "[engine\nthreads = 2\n", 1, "a section is");
    REFUSE("an empty section", "[]\n", 1, "1 to 49 bytes");
    REFUSE("a section in capitals", "[Engine]\n", 1, "a section is");
    REFUSE("a section that inih would cut",
           "[backend.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]\n", 1,
           "1 to 49 bytes");
    REFUSE("a name that inih would cut",
           "[backend.x]\n"
           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa = 1\n",
           2, "at most 49 bytes");
    REFUSE("a colon for '='", "[engine]\nthreads: 2\n", 2, "is neither");
    REFUSE("a word alone", "[engine]\nthreads\n", 2, "is neither");
    REFUSE("a value alone", "[engine]\n= 2\n", 2, "is neither");
    REFUSE("a name in capitals", "[engine]\nThreads = 2\n", 2, "is neither");
    REFUSE("a key before any section", "threads = 2\n", 1,
           "before the first [section]");
    REFUSE("a '#' meant as a comment", "[engine]\nthreads = 2 # two\n", 2,
           "begins no comment");
    REFUSE("the same key twice",
           "[engine]\nthreads = 2\n[model]\n[engine]\nthreads = 2\n", 5,
           "already set in line 2");
    REFUSE("a plugin's key twice", "[quant.x]\na = 2\na = 3\n", 3,
           "already set in line 2");
    REFUSE("bytes that are not UTF-8", "[model]\npath = /\xff\n", 2,
           "byte 9 (0xff)");
    REFUSE("UTF-8 that is too long", "; \xc0\xaf\n", 1, "not UTF-8");
    REFUSE("half a surrogate pair", "; \xed\xa0\x80\n", 1, "not UTF-8");
    REFUSE("a character that is cut", "; \xe4\xb8", 1, "not UTF-8");
    REFUSE("beyond Unicode", "; \xf4\x90\x80\x80\n", 1, "not UTF-8");
    REFUSE("a control character", "[model]\npath = /\033[31m\n", 2,
           "control character");
    REFUSE("a carriage return inside", "[engine]\rthreads = 2\n", 1,
           "control character");
    refuse("a NUL byte", "[model]\npath = /\0x\n", 19, 2, "NUL byte");
}

static void
test_names_and_values(void)
{
    REFUSE("an unknown section", "[engin]\n", 1, "did you mean [engine]?");
    REFUSE("a section far from all", "[zzzzzzzz]\n", 1,
           "there is no section");
    REFUSE("a plugin section without a name", "[backend.]\n", 1,
           "there is no section");
    REFUSE("an unknown name", "[engine]\nthreds = 2\n", 2,
           "did you mean 'threads'?");
    REFUSE("a name of another section", "[model]\nthreads = 2\n", 2,
           "did you mean 'threads' in [engine]?");
    REFUSE("a flag's spelling", "[engine]\nctx-size = 2\n", 2,
           "did you mean 'context' in [model]?");
    REFUSE("a name far from all", "[engine]\nzzzzzzzz = 2\n", 2,
           "there is no option 'engine.zzzzzzzz'");
    REFUSE("a wrong int", "[engine]\nthreads = two\n", 2,
           "threads: 'two' is not a whole number");
    REFUSE("an int out of range", "[engine]\nthreads = 5000\n", 2,
           "0..4096");
    REFUSE("a wrong float", "[generate]\ntop_p = 2\n", 2, "out of range");
    REFUSE("a wrong bool", "[generate]\nignore_eos = maybe\n", 2,
           "neither true nor false");
    REFUSE("a wrong size", "[memory]\nbudget = lots\n", 2, "not a size");
    REFUSE("a wrong word", "[log]\nlevel = wran\n", 2,
           "did you mean 'warn'?");
    REFUSE("a wrong list", "[generate]\nstop = a,,b\n", 2, "empty item");
    REFUSE("a wrong list of files", "[plugin]\nload = /a, b\n", 2,
           "'b' does not start with '/'");
    REFUSE("an empty number", "[engine]\nthreads =\n", 2,
           "not a whole number");
    REFUSE("a relative path", "[model]\npath = models/x\n", 2,
           "does not start with '/'");
    REFUSE("a relative folder in a search path",
           "[plugin]\npath = /a:b\n", 2, "'b' does not start with '/'");
}

static void
test_files(void)
{
    moe_options *o;
    char        *big;
    size_t       n = 0, i;

    memset(&err, 0, sizeof(err));
    moe_options_new(&o, &err);
    is_int(moe_options_load(o, "no-such.ini", &err), MOE_E_IO,
           "a named file has to be there");
    has_str(err.text, "no-such.ini", "... and is named");
    is_int(moe_options_load(o, ".", &err), MOE_E_IO, "a folder is none");
    has_str(err.text, "is a folder", "... and that is said");
    moe_options_free(o);

    big = malloc(1200000);
    memset(big, '\n', 1200000);
    is_int(load_text(NAME, big, 1048576, &o, &err), MOE_OK,
           "a file of 1 MiB is read");
    moe_options_free(o);
    is_int(load_text(NAME, big, 1048577, &o, &err), MOE_E_INVAL,
           "a larger one is refused");
    has_str(err.text, "more than 1 MiB", "... for its size");
    moe_options_free(o);
    n = (size_t) sprintf(big, "[backend.x]\n");
    for (i = 0; i < 4097; i++)
        n += (size_t) sprintf(big + n, "k%zu=1\n", i);
    is_int(load_text(NAME, big, n, &o, &err), MOE_E_INVAL,
           "a file of thousands of keys is refused");
    has_str(err.text, "more than 4096 values", "... for their number");
    moe_options_free(o);
    free(big);
}

int
main(void)
{
    test_good();
    test_traps();
    test_names_and_values();
    test_files();
    return tap_done();
}
