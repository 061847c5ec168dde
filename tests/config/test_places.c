/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where options come from: the system's and the user's files, the MOE_*
 * variables, and who wins.  Built with the system's folder at ./etc.
 */
#include "tap.h"

#include <sys/stat.h>

#include "config/store.h"
#include "ini_file.h"

static struct moe_error err;
static moe_options     *o;

static moe_status
load(void)
{
    moe_status status;

    moe_options_free(o);
    o = NULL;
    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    status = moe_options_new(&o, &err);
    return status == MOE_OK ? moe_options_load_defaults(o, &err) : status;
}

static void
put(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

static void
test_files(const char *top)
{
    char path[1200];

    is_int(load(), MOE_OK, "no file at all is fine");
    mkdir("etc", 0700);
    mkdir("etc/moe-run", 0700);
    put("etc/moe-run/moe.ini",
        "[engine]\nthreads = 1\nsequences = 1\nbatch_rows = 1\n"
        "[memory]\npage_rows = 1\n");
    is_int(load(), MOE_OK, "the system's file is read");
    is_int(moe_option_int(o, "engine.threads"), 1, "... with its values");
    mkdir("etc/moe-run/conf.d", 0700);
    put("etc/moe-run/conf.d/20-b.ini", "[engine]\nsequences = 20\n");
    put("etc/moe-run/conf.d/10-a.ini",
        "[engine]\nsequences = 10\nthreads = 10\n");
    put("etc/moe-run/conf.d/readme.txt", "not read\n");
    put("etc/moe-run/conf.d/.hidden.ini", "not read\n");
    put("etc/moe-run/conf.d/30.ini~", "not read\n");
    is_int(load(), MOE_OK, "conf.d/*.ini is read and nothing else");
    is_int(moe_option_int(o, "engine.threads"), 10,
           "... over the system's file");
    is_int(moe_option_int(o, "engine.sequences"), 20,
           "... in the order of names");
    is_int(moe_option_int(o, "engine.batch_rows"), 1,
           "... leaving what it does not set");

    mkdir("xdg", 0700);
    mkdir("xdg/moe-run", 0700);
    put("xdg/moe-run/moe.ini", "[engine]\nthreads = 30\nbatch_rows = 30\n");
    is_int(load(), MOE_OK, "without a place the user's file is not looked for");
    is_int(moe_option_int(o, "engine.threads"), 10, "... nor read");
    setenv("XDG_CONFIG_HOME", "xdg", 1);
    load();
    is_int(moe_option_int(o, "engine.threads"), 10,
           "a relative XDG_CONFIG_HOME is ignored");
    snprintf(path, sizeof(path), "%s/xdg", top);
    setenv("XDG_CONFIG_HOME", path, 1);
    is_int(load(), MOE_OK, "the user's file is read");
    is_int(moe_option_int(o, "engine.threads"), 30, "... over the system's");

    put("named.ini", "[engine]\nbatch_rows = 40\n");
    moe_options_free(o);
    moe_options_new(&o, &err);
    is_int(moe_options_load(o, "named.ini", &err), MOE_OK,
           "a named file is read first");
    moe_options_load_defaults(o, &err);
    is_int(moe_option_int(o, "engine.batch_rows"), 40,
           "... and is stronger all the same");
    is_int(moe_option_int(o, "engine.threads"), 30, "... in what it sets");

    unsetenv("XDG_CONFIG_HOME");
    snprintf(path, sizeof(path), "%s/home", top);
    mkdir("home", 0700);
    mkdir("home/.config", 0700);
    mkdir("home/.config/moe-run", 0700);
    put("home/.config/moe-run/moe.ini", "[engine]\nthreads = 50\n");
    setenv("HOME", path, 1);
    load();
    is_int(moe_option_int(o, "engine.threads"), 50,
           "without XDG_CONFIG_HOME it is ~/.config");

    put("home/.config/moe-run/moe.ini", "[engine]\nthreads = x\n");
    is_int(load(), MOE_E_INVAL, "a wrong file is an error");
    has_str(err.text, "home/.config/moe-run/moe.ini:2: ",
            "... with file and line");
    put("home/.config/moe-run/moe.ini", "[engine]\nthreads = 50\n");
    if (geteuid() != 0) {
        chmod("home/.config/moe-run/moe.ini", 0);
        is_int(load(), MOE_E_IO, "a file that cannot be read is an error");
        chmod("home/.config/moe-run/moe.ini", 0600);
    } else {
        unlink("home/.config/moe-run/moe.ini");
        mkdir("home/.config/moe-run/moe.ini", 0700);
        is_int(load(), MOE_E_IO, "a folder in a file's place is an error");
        rmdir("home/.config/moe-run/moe.ini");
    }
}

/* The variables alone, without the files of the test before. */
static moe_status
from_env(const char *entry)
{
    char *environment[] = { (char *) "PATH=/bin", (char *) entry, NULL };

    moe_options_free(o);
    memset(&err, 0, sizeof(err));
    moe_options_new(&o, &err);
    return moe_env_load(o, environment, &err);
}

static void
test_env(void)
{
    struct moe_option row = { .struct_size = sizeof(row) };

    is_int(from_env("MOE_THREADS=4"), MOE_OK, "a variable is read");
    is_int(moe_option_int(o, "engine.threads"), 4, "... with its value");
    moe_options_flag(o, "-t", &row, &err);
    is_str(row.where, "MOE_THREADS", "... and its name as the source");
    moe_options_set(o, "engine.threads", "5", MOE_FROM_FILE, &err);
    is_int(moe_option_int(o, "engine.threads"), 4, "... over a file");
    moe_options_set(o, "engine.threads", "6", MOE_FROM_ARG, &err);
    is_int(moe_option_int(o, "engine.threads"), 6, "... under the command "
                                                   "line");
    is_int(from_env("MOE_THREADS="), MOE_OK, "an empty one is not set");
    is_int(moe_option_int(o, "engine.threads"), 0, "... so nothing changes");
    is_int(from_env("MOE_STOP=a,\"b c\""), MOE_OK, "a list is read");
    is_int(from_env("MOE_PLUGIN_PATH=/x:"), MOE_OK,
           "the plugin path is a variable like others");
    is_str(moe_option_text(o, "plugin.path"), "/x:/plugins",
           "... that can keep the installed folder");
    is_int(from_env("MOE_TEST_ANYTHING=1"), MOE_OK,
           "MOE_TEST_* is left to tests");
    is_int(from_env("MOEX=1"), MOE_OK, "other variables are not ours");
    is_int(from_env("MOE_THREADS=x"), MOE_E_INVAL, "a wrong value");
    has_str(err.text, "MOE_THREADS: 'x' is not", "... names the variable");
    is_int(from_env("MOE_THREDS=4"), MOE_E_INVAL, "an unknown variable");
    has_str(err.text, "did you mean MOE_THREADS?", "... gets a hint");
    is_int(from_env("MOE_CTX_SIZE=4"), MOE_E_INVAL, "an alias's variable");
    has_str(err.text, "did you mean MOE_CONTEXT?", "... gets the right one");
    is_int(from_env("MOE_ZZZZZZZZ=4"), MOE_E_INVAL, "one far from all");
    has_str(err.text, "no variable MOE_ZZZZZZZZ", "... is named");
    is_int(from_env("MOE_=4"), MOE_E_INVAL, "one without a name");
    is_int(from_env("MOE_THREADS"), MOE_OK, "one without '=' is passed by");

    setenv("MOE_THREADS", "7", 1);
    is_int(load(), MOE_OK, "load_defaults reads the environment");
    is_int(moe_option_int(o, "engine.threads"), 7, "... last");
}

int
main(void)
{
    char  folder[1024] = "test_places.XXXXXX", top[1024], command[1100];
    char *name, **e;

    /* whatever the environment says, it is not this test's */
    for (e = environ; *e != NULL;) {
        if (strncmp(*e, "MOE_", 4) != 0) {
            e++;
            continue;
        }
        name = strndup(*e, strcspn(*e, "="));
        unsetenv(name);
        free(name);
        e = environ;
    }
    unsetenv("XDG_CONFIG_HOME");
    unsetenv("HOME");
    if (mkdtemp(folder) == NULL || chdir(folder) != 0
        || getcwd(top, sizeof(top)) == NULL) {
        printf("Bail out! no folder to work in\n");
        return 1;
    }
    test_files(top);
    test_env();
    moe_options_free(o);
    if (chdir("..") == 0) {
        snprintf(command, sizeof(command), "rm -rf '%s'", folder);
        if (system(command) != 0)
            tap_diag("%s stays", folder);
    }
    return tap_done();
}
