/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.c - the corpus of a fuzzer as an ordinary test: every input that
 * was ever interesting, without the fuzzer.  MOE_FUZZ_NAME is its folder.
 */
#include <dirent.h>
#include <stdint.h>

#include "tap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
main(void)
{
    char           dir[1100], path[1400];
    struct dirent *d;
    DIR           *open_dir;
    unsigned       n = 0;

    snprintf(dir, sizeof(dir), "%s", tap_src("tests/fuzz/corpus/"
                                             MOE_FUZZ_NAME));
    open_dir = opendir(dir);
    if (!ok(open_dir != NULL, "corpus %s", MOE_FUZZ_NAME))
        return tap_done();
    while ((d = readdir(open_dir)) != NULL) {
        uint8_t *data;
        size_t   size;
        long     len;
        FILE    *f;

        if (d->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
        f = fopen(path, "rbe");
        if (f == NULL)
            continue;
        (void) fseek(f, 0, SEEK_END);
        len = ftell(f);
        rewind(f);
        data = malloc((size_t) len + 1);
        size = fread(data, 1, (size_t) len, f);
        fclose(f);
        (void) LLVMFuzzerTestOneInput(data, size);
        free(data);
        n++;
    }
    (void) closedir(open_dir);
    ok(n > 0, "%u inputs of %s end with a status", n, MOE_FUZZ_NAME);
    return tap_done();
}
