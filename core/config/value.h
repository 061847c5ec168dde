/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value.h - the text of an option, read as its type.
 */
#ifndef MOE_CORE_CONFIG_VALUE_H
#define MOE_CORE_CONFIG_VALUE_H

#include <locale.h>

#include "config/table.h"

/* Only the fields of the row's type mean something; the rest is 0. */
struct moe_value {
    int64_t  i;       /* int, bool, index of the word                         */
    double   f;       /* float                                                */
    uint64_t bytes;   /* size; 0: auto or a percentage                        */
    double   percent; /* size                                                 */
    char   **items;   /* list (n_items); one allocation with the texts        */
    size_t   n_items;
};

/*
 * place: what to blame, "moe.ini:12: threads" or "--threads"; the error's
 * text begins with it.  c: a C locale, so that a program's own locale does
 * not change what 0.5 means.
 */
moe_status moe_value_parse(const struct moe_option_row *row, const char *text,
                           const char *place, locale_t c,
                           struct moe_value *out, struct moe_error *err);
void       moe_value_clear(struct moe_value *v);

/* Length of the well-formed UTF-8 without control characters (tab allowed)
 * that text begins with: len if all of it is. */
size_t moe_text_valid(const char *text, size_t len);

#endif /* MOE_CORE_CONFIG_VALUE_H */
