/* SPDX-License-Identifier: Apache-2.0 */
/* story.c - a program that generates text with libmoerun:
 *     cc story.c $(pkg-config --cflags --libs libmoerun) -o story
 *     ./story [MODEL-FOLDER [PROMPT]]                                       */
#include <moe/moe.h>
#include <string.h>

int
main(int argc, char **argv)
{
    const char        *prompt = argc > 2 ? argv[2] : "Once upon a time";
    struct moe_error   err = {.struct_size = sizeof(err)};
    struct moe_request req = {.struct_size = sizeof(req), .max_tokens = 64};
    moe_options       *o = NULL;
    moe_engine        *e = NULL;
    moe_sequence      *s = NULL;
    uint32_t          *ids = NULL, active = 1;
    const char        *text;
    size_t             n, len, shown = 0;

    if (moe_options_new(&o, &err) < 0
        || moe_options_load_defaults(o, &err) < 0
        || (argc > 1 && moe_options_set(o, "model.path", argv[1],
                                        MOE_FROM_ARG, &err) < 0)
        || moe_engine_open(o, &e, &err) < 0
        || moe_engine_encode(e, prompt, strlen(prompt), MOE_ENCODE_BOS, &ids,
                             &n, &err) < 0)
        goto out;
    req.prompt = ids;
    req.n_prompt = n;
    if (moe_engine_submit(e, &req, &s, &err) < 0)
        goto out;
    fputs(prompt, stdout);
    while (active != 0 && moe_engine_step(e, &active, &err) == MOE_OK)
        if (moe_sequence_text(s, shown, &text, &len) == MOE_OK)
            shown += fwrite(text, 1, len, stdout);
    putchar('\n');
out:
    if (err.status < 0)
        fprintf(stderr, "story: %s\n", err.text);
    moe_free(ids);
    moe_engine_close(e);
    moe_options_free(o);
    return err.status < 0;
}
