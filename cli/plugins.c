/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plugins.c - moe-run plugins: each file that was considered, and why it is
 * used or not.
 */
#include "cli.h"

int
run_plugins(struct cli *c)
{
    struct moe_error err = { .struct_size = sizeof(err) };

    if (moe_plugins_print(c->o, cli_has(c, "--json"), out_write, NULL, &err)
            != MOE_OK
        && !out_closed())
        return fail(&err);
    return EXIT_OK;
}
