/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - from the command line to a command, and its exit status.
 */
#include "cli.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

int
main(int argc, char **argv)
{
    struct cli       c;
    struct moe_error err = { .struct_size = sizeof(err) };
    int              status;

    memset(&c, 0, sizeof(c));
    /* characters only: numbers are read and printed the same everywhere;
     * what is typed is UTF-8 even where no locale is set */
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    signals_start();
    if (moe_options_new(&c.o, &err) != MOE_OK)
        return fail(&err);
    use_log(&c);
    status = cli_parse(&c, argc, argv);
    if (status < 0)
        status = c.command->run(&c);
    cli_free(&c);
    return out_finish(status);
}
