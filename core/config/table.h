/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - one row for each option; the inside of core/config.
 *
 * Everything that names an option is generated from the rows: the INI
 * example, the man pages' option lists, --help and the shell completion.
 */
#ifndef MOE_CORE_CONFIG_TABLE_H
#define MOE_CORE_CONFIG_TABLE_H

#include <moe/moe.h>

/* What a size may be besides bytes. */
#define MOE_ROW_AUTO    1u /* "auto"                                          */
#define MOE_ROW_PERCENT 2u /* "80%"                                           */
/* Directories "a:b:c"; an empty one stands for the built-in value. */
#define MOE_ROW_SEARCH  4u
/* File names: in an INI file they are absolute, because nobody can say from
 * which folder the program will be started. */
#define MOE_ROW_FILES   8u

struct moe_option_row {
    const char *key;      /* "section.name"                                   */
    const char *type;     /* as in struct moe_option                          */
    const char *flags;    /* separated by blanks, the documented ones first   */
    const char *env;      /* "MOE_" + the first long flag                     */
    const char *fallback;
    const char *range;    /* numbers: "lo..hi", either end may be empty       */
    const char *help;
    const char *reader;   /* the part that acts on it                         */
    uint32_t    bits;     /* MOE_ROW_*                                        */
};

extern const struct moe_option_row moe_option_rows[];
extern const size_t                moe_option_row_count;

/* Row number of a key, or of a row found by something else; -1: none. */
long moe_row_find(const char *key);
long moe_row_by_flag(const char *flag);
long moe_row_by_env(const char *env);

/* Whether flags holds flag as a word of its own. */
int moe_row_has_flag(const struct moe_option_row *row, const char *flag);

/* "backend.NAME" or "quant.NAME": a section whose keys belong to a plugin. */
int moe_section_is_free(const char *section);

#endif /* MOE_CORE_CONFIG_TABLE_H */
