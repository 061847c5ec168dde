/* SPDX-License-Identifier: Apache-2.0 */
/*
 * with_plugins.h - options of a test that needs the plugins just built.
 */
#ifndef MOE_TESTS_CONFIG_WITH_PLUGINS_H
#define MOE_TESTS_CONFIG_WITH_PLUGINS_H

#include "config/options.h"

#include "tap.h"

/* With the test's plugins; "key=value" each, NULL last. */
static moe_options *
test_options(const char *const *set)
{
    struct moe_error e = {.struct_size = sizeof(e)};
    moe_options     *o = NULL;
    const char      *path = getenv("MOE_PLUGIN_PATH"), *value;
    char             key[64];

    if (moe_options_new(&o, &e) != MOE_OK
        || moe_options_set(o, "plugin.path", path, MOE_FROM_ARG, &e) != MOE_OK)
        exit(1);
    for (; set != NULL && *set != NULL; set++) {
        value = strchr(*set, '=');
        snprintf(key, sizeof(key), "%.*s", (int) (value - *set), *set);
        if (moe_options_set(o, key, value + 1, MOE_FROM_ARG, &e) != MOE_OK) {
            printf("Bail out! %s: %s\n", *set, e.text);
            exit(1);
        }
    }
    return o;
}

#endif /* MOE_TESTS_CONFIG_WITH_PLUGINS_H */
