/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h - a model folder's JSON files, read with suspicion.
 *
 * Typed reads that name the file and the key when a value is missing, of
 * another type or out of range.  Nothing here knows what a key means.  A
 * null counts as missing, as it does for Python's readers.
 */
#ifndef MOE_CORE_CHECKPOINT_JSON_H
#define MOE_CORE_CHECKPOINT_JSON_H

#include <moe/types.h>

#include <json-c/json.h>

/* An object, and how to speak of it. */
struct moe_json {
    struct json_object *obj;  /* NULL: as an empty object */
    const char         *file; /* "model/config.json" */
    const char         *path; /* before a key: "" or "rope_scaling." */
};

/* At most this much of a file's own words enters a message. */
#define MOE_SHOW_MAX 96
/* text with control bytes replaced and cut to what a message can bear, into
 * buf (at least MOE_SHOW_MAX + 4 bytes); returns buf. */
char *moe_show(const char *text, char *buf);
/* The same for a path, whose end matters more than its start. */
#define MOE_SHOW_PATH_MAX 160
char *moe_show_path(const char *path, char *buf);

#define MOE_JSON_DEPTH 64 /* how deep values may be nested */

/*
 * Parses a whole file whose top must be an object, leniently (config files
 * carry NaN and Infinity), nested at most MOE_JSON_DEPTH deep, at most
 * max_bytes long.  A key that an object gives twice is MOE_E_CORRUPT.
 * MOE_E_NOT_FOUND: no such file.  The caller puts *out.
 */
moe_status moe_json_file(const char *path, uint64_t max_bytes,
                         struct json_object **out, struct moe_error *err);

/* Where an object gives a key for the second time; line 0: not known. */
struct moe_json_repeat {
    size_t line;
    char   key[MOE_SHOW_MAX + 8]; /* in quotes; or what can be said of it */
};
/* Nonzero: an object in the text (len bytes, which json-c made obj of) gives
 * a key twice.  *out tells the first such, and is set only then. */
int moe_json_repeats(const char *text, size_t len, struct json_object *obj,
                     struct moe_json_repeat *out);

/* NULL if the key is missing or null. */
struct json_object *moe_json_get(const struct moe_json *j, const char *key);

/* Reads; the _or forms take `fallback` when the key is missing or null.
 * A whole number may be written 4096 or 4096.0; a float may be a whole
 * number; NaN and infinities are out of range. */
moe_status moe_json_uint(const struct moe_json *j, const char *key,
                         uint64_t min, uint64_t max, uint64_t *out,
                         struct moe_error *err);
moe_status moe_json_u32(const struct moe_json *j, const char *key,
                        uint32_t min, uint32_t max, uint32_t *out,
                        struct moe_error *err);
moe_status moe_json_u32_or(const struct moe_json *j, const char *key,
                           uint32_t min, uint32_t max, uint32_t fallback,
                           uint32_t *out, struct moe_error *err);
moe_status moe_json_float(const struct moe_json *j, const char *key,
                          double min, double max, double *out,
                          struct moe_error *err);
moe_status moe_json_float_or(const struct moe_json *j, const char *key,
                             double min, double max, double fallback,
                             double *out, struct moe_error *err);
moe_status moe_json_bool_or(const struct moe_json *j, const char *key,
                            uint32_t fallback, uint32_t *out,
                            struct moe_error *err);
/* A string without NUL; lives as long as the document. */
moe_status moe_json_text(const struct moe_json *j, const char *key,
                         const char **out, struct moe_error *err);
moe_status moe_json_text_or(const struct moe_json *j, const char *key,
                            const char *fallback, const char **out,
                            struct moe_error *err);
/* An object or an array; NULL if missing or null. */
moe_status moe_json_object_or(const struct moe_json *j, const char *key,
                              struct json_object **out,
                              struct moe_error *err);
moe_status moe_json_array_or(const struct moe_json *j, const char *key,
                             struct json_object **out,
                             struct moe_error *err);

/* One value, named by `key` in messages. */
moe_status moe_json_as_uint(const struct moe_json *j, const char *key,
                            const struct json_object *v, uint64_t min,
                            uint64_t max, uint64_t *out,
                            struct moe_error *err);

#endif /* MOE_CORE_CHECKPOINT_JSON_H */
