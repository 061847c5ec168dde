/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - how a set of options is kept; the inside of core/config.
 */
#ifndef MOE_CORE_CONFIG_STORE_H
#define MOE_CORE_CONFIG_STORE_H

#include "config/value.h"

/*
 * A stronger source wins, whichever is read first; of equals the later one.
 * MOE_FROM_FILE has an inner order: the system's moe.ini, its conf.d, the
 * user's moe.ini, a file named with --config.
 */
#define MOE_RANK(from, inner) ((from) * 8u + (inner))
#define MOE_FILE_SYSTEM 0u
#define MOE_FILE_CONFD  1u
#define MOE_FILE_USER   2u
#define MOE_FILE_NAMED  3u

/* The value of one row. */
struct moe_slot {
    char            *text;
    char            *where;
    uint32_t         rank;
    struct moe_value value;
};

/* A key of a plugin's section. */
struct moe_extra {
    char    *key;     /* "backend.cpu.isa"                                    */
    size_t   section; /* length of "backend.cpu" in it                        */
    char    *text;
    char    *where;
    uint32_t rank;
    int      used;    /* read and written by __atomic only: options are const
                         to the many engines that may read them               */
};

struct moe_options {
    locale_t          c;
    moe_log_fn        log;
    void             *log_ctx;
    struct moe_slot  *slots; /* (moe_option_row_count) */
    struct moe_extra *extra;
    size_t            n_extra;
};

/*
 * Set `key` unless a stronger source has.  place begins the text of an error
 * about the value, where says where the value came from.
 */
moe_status moe_options_put(moe_options *o, const char *key, const char *value,
                           uint32_t rank, const char *place, const char *where,
                           struct moe_error *err);

/* MOE_OK too if there is no such file and missing_ok. */
moe_status moe_ini_load(moe_options *o, const char *path, uint32_t rank,
                        int missing_ok, struct moe_error *err);

/* The MOE_* of a list such as environ. */
moe_status moe_env_load(moe_options *o, char *const *environment,
                        struct moe_error *err);

#endif /* MOE_CORE_CONFIG_STORE_H */
