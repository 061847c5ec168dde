/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect.c - moe-run inspect: what a checkpoint holds, without running it.
 */
#include "cli.h"

int
run_inspect(struct cli *c)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    int              status;

    if (c->n_operands > 0
        && moe_options_set(c->o, "model.path", c->operands[0], MOE_FROM_ARG,
                           &err)
               != MOE_OK)
        return fail(&err);
    status = model_choose(c, NULL);
    if (status != EXIT_OK)
        return status;
    if (moe_inspect(c->o, moe_options_get(c->o, "model.path"),
                    cli_has(c, "--json"), out_write, NULL, &err)
            != MOE_OK
        && !out_closed())
        return fail(&err);
    return EXIT_OK;
}
