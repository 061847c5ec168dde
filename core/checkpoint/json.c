/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.c - a model folder's JSON files, read with suspicion.
 *
 * Owns the reading of whole small files and the typed reads from them.
 * Meaning is left to the callers.  json-c converts between types on request
 * and clamps what does not fit; here every type is tested first, so that a
 * wrong value is an error and not a surprise.
 */

#include <checkpoint/json.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The next character of text into out as it may be shown: a control
 * character (also of the second block, U+0080 to U+009F, which terminals
 * obey) or a byte that is no UTF-8 as '?'.  Returns bytes taken; *len: put.
 */
static size_t
show_char(const char *text, char *out, size_t *len)
{
    unsigned char c = (unsigned char) text[0];
    size_t        n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2
                      : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    size_t        i;

    for (i = 1; i < n; i++)
        if (((unsigned char) text[i] & 0xc0u) != 0x80u)
            n = 0; /* also at the terminating NUL */
    if (n == 0 || c < 0x20 || c == 0x7f
        || (c == 0xc2 && (unsigned char) text[1] < 0xa0)) {
        *out = '?';
        *len = 1;
        return n == 0 ? 1 : n;
    }
    memcpy(out, text, n);
    *len = n;
    return n;
}

char *
moe_show(const char *text, char *buf)
{
    size_t n = 0, len;
    char   c[4];

    while (*text != '\0') {
        text += show_char(text, c, &len);
        if (n + len > MOE_SHOW_MAX) {
            memcpy(buf + n, "...", 3);
            n += 3;
            break;
        }
        memcpy(buf + n, c, len);
        n += len;
    }
    buf[n] = '\0';
    return buf;
}

char *
moe_show_path(const char *path, char *buf)
{
    size_t n = strlen(path), j = 0, len;

    if (n > MOE_SHOW_PATH_MAX) {
        memcpy(buf, "...", 3);
        j = 3;
        path += n - (MOE_SHOW_PATH_MAX - 3);
        while (((unsigned char) *path & 0xc0u) == 0x80u)
            path++;
    }
    while (*path != '\0') {
        path += show_char(path, buf + j, &len);
        j += len;
    }
    buf[j] = '\0';
    return buf;
}

/* The whole of a regular file, NUL added; the caller frees *text. */
static moe_status
read_whole(const char *path, const char *shown, uint64_t max_bytes,
           char **text, size_t *len, struct moe_error *err)
{
    struct stat st;
    moe_status  status = MOE_OK;
    char       *buf = NULL;
    size_t      n, got = 0;
    int         fd;

    /* O_NONBLOCK: a FIFO in the folder must not hang us */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return moe_fail(err, errno == ENOENT ? MOE_E_NOT_FOUND : MOE_E_IO,
                        errno, "%s: cannot open: %s", shown, strerror(errno));
    if (fstat(fd, &st) != 0) {
        status = moe_fail(err, MOE_E_IO, errno, "%s: %s", shown,
                          strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        status = moe_fail(err, MOE_E_IO, 0, "%s: not a regular file", shown);
        goto out;
    }
    if ((uint64_t) st.st_size > max_bytes) {
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: %lld bytes, at most %llu are read", shown,
                          (long long) st.st_size,
                          (unsigned long long) max_bytes);
        goto out;
    }
    n = (size_t) st.st_size;
    buf = malloc(n + 1);
    if (buf == NULL) {
        status = moe_fail(err, MOE_E_NOMEM, ENOMEM,
                          "%s: no memory for its %zu bytes", shown, n);
        goto out;
    }
    while (got < n) {
        ssize_t r = read(fd, buf + got, n - got);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            status = moe_fail(err, MOE_E_IO, errno,
                              "%s: read error at byte %zu: %s", shown, got,
                              strerror(errno));
            goto out;
        }
        if (r == 0) /* became shorter meanwhile: parse what there is */
            break;
        got += (size_t) r;
    }
    buf[got] = '\0';
    *text = buf;
    *len = got;
    buf = NULL;
out:
    free(buf);
    close(fd);
    return status;
}

moe_status
moe_json_file(const char *path, uint64_t max_bytes, struct json_object **out,
              struct moe_error *err)
{
    char                 shown[MOE_SHOW_PATH_MAX + 4];
    struct json_tokener *tok = NULL;
    struct json_object  *obj = NULL;
    moe_status           status;
    char                *text = NULL;
    size_t               len = 0, end, line = 1, i;
    struct moe_json_repeat twice;
    enum json_tokener_error e;

    moe_show_path(path, shown);
    status = read_whole(path, shown, max_bytes < 0x7ffffff0u ? max_bytes
                                                             : 0x7ffffff0u,
                        &text, &len, err);
    if (status != MOE_OK)
        return status;
    tok = json_tokener_new_ex(MOE_JSON_DEPTH);
    if (tok == NULL) {
        status = moe_fail(err, MOE_E_NOMEM, ENOMEM, "%s: no memory", shown);
        goto out;
    }
    obj = json_tokener_parse_ex(tok, text, (int) len);
    e = json_tokener_get_error(tok);
    end = json_tokener_get_parse_end(tok);
    if (end > len)
        end = len;
    for (i = 0; i < end; i++)
        line += text[i] == '\n';
    if (e == json_tokener_continue) {
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: not JSON: it %s", shown,
                          strspn(text, " \t\r\n") == len
                              ? "is empty" : "ends in the middle of a value");
        goto out;
    }
    if (e != json_tokener_success) {
        status = moe_fail(err, MOE_E_CORRUPT, 0, "%s: line %zu: not JSON: %s",
                          shown, line, json_tokener_error_desc(e));
        goto out;
    }
    while (end < len && strchr(" \t\r\n", text[end]) != NULL
           && text[end] != '\0')
        end++;
    if (end < len) {
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: line %zu: not JSON: text after the end of the "
                          "object", shown, line);
        goto out;
    }
    if (!json_object_is_type(obj, json_type_object)) {
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: a JSON object is expected at the top", shown);
        goto out;
    }
    if (moe_json_repeats(text, end, obj, &twice)) {
        char where[32] = "";

        if (twice.line != 0)
            snprintf(where, sizeof(where), "line %zu: ", twice.line);
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: %sthe key %s is there twice in one object; "
                          "keep the one that is meant", shown, where,
                          twice.key);
        goto out;
    }
    *out = obj;
    obj = NULL;
out:
    json_object_put(obj);
    if (tok != NULL)
        json_tokener_free(tok);
    free(text);
    return status;
}

struct json_object *
moe_json_get(const struct moe_json *j, const char *key)
{
    struct json_object *v = NULL;

    if (j->obj == NULL || !json_object_object_get_ex(j->obj, key, &v))
        return NULL;
    return v;
}

static moe_status
missing(const struct moe_json *j, const char *key, struct moe_error *err)
{
    return moe_fail(err, MOE_E_CORRUPT, 0, "%s: \"%s%s\" is missing", j->file,
                    j->path, key);
}

static moe_status
wrong_type(const struct moe_json *j, const char *key, const char *want,
           const struct json_object *v, struct moe_error *err)
{
    return moe_fail(err, MOE_E_CORRUPT, 0,
                    "%s: \"%s%s\": %s expected, %s found", j->file, j->path,
                    key, want, json_type_to_name(json_object_get_type(v)));
}

moe_status
moe_json_as_uint(const struct moe_json *j, const char *key,
                 const struct json_object *v, uint64_t min, uint64_t max,
                 uint64_t *out, struct moe_error *err)
{
    uint64_t u;

    if (json_object_is_type(v, json_type_int)) {
        int64_t s = json_object_get_int64(v); /* clamps, keeps the sign */

        if (s < 0)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: \"%s%s\" is %lld, expected %llu to %llu",
                            j->file, j->path, key, (long long) s,
                            (unsigned long long) min,
                            (unsigned long long) max);
        u = json_object_get_uint64(v);
    } else if (json_object_is_type(v, json_type_double)) {
        double d = json_object_get_double(v);

        if (!(d >= 0 && d <= 0x1p53) || d != floor(d))
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: \"%s%s\" is %g, expected a whole number "
                            "from %llu to %llu", j->file, j->path, key, d,
                            (unsigned long long) min,
                            (unsigned long long) max);
        u = (uint64_t) d;
    } else {
        return wrong_type(j, key, "a whole number", v, err);
    }
    if (u < min || u > max)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"%s%s\" is %llu, expected %llu to %llu",
                        j->file, j->path, key, (unsigned long long) u,
                        (unsigned long long) min, (unsigned long long) max);
    *out = u;
    return MOE_OK;
}

moe_status
moe_json_uint(const struct moe_json *j, const char *key, uint64_t min,
              uint64_t max, uint64_t *out, struct moe_error *err)
{
    struct json_object *v = moe_json_get(j, key);

    if (v == NULL)
        return missing(j, key, err);
    return moe_json_as_uint(j, key, v, min, max, out, err);
}

moe_status
moe_json_u32(const struct moe_json *j, const char *key, uint32_t min,
             uint32_t max, uint32_t *out, struct moe_error *err)
{
    uint64_t   u;
    moe_status status = moe_json_uint(j, key, min, max, &u, err);

    if (status == MOE_OK)
        *out = (uint32_t) u;
    return status;
}

moe_status
moe_json_u32_or(const struct moe_json *j, const char *key, uint32_t min,
                uint32_t max, uint32_t fallback, uint32_t *out,
                struct moe_error *err)
{
    if (moe_json_get(j, key) == NULL) {
        *out = fallback;
        return MOE_OK;
    }
    return moe_json_u32(j, key, min, max, out, err);
}

moe_status
moe_json_float(const struct moe_json *j, const char *key, double min,
               double max, double *out, struct moe_error *err)
{
    struct json_object *v = moe_json_get(j, key);
    double              d;

    if (v == NULL)
        return missing(j, key, err);
    if (!json_object_is_type(v, json_type_int)
        && !json_object_is_type(v, json_type_double))
        return wrong_type(j, key, "a number", v, err);
    d = json_object_get_double(v);
    if (!(d >= min && d <= max))
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"%s%s\" is %g, expected %g to %g", j->file,
                        j->path, key, d, min, max);
    *out = d;
    return MOE_OK;
}

moe_status
moe_json_float_or(const struct moe_json *j, const char *key, double min,
                  double max, double fallback, double *out,
                  struct moe_error *err)
{
    if (moe_json_get(j, key) == NULL) {
        *out = fallback;
        return MOE_OK;
    }
    return moe_json_float(j, key, min, max, out, err);
}

moe_status
moe_json_bool_or(const struct moe_json *j, const char *key, uint32_t fallback,
                 uint32_t *out, struct moe_error *err)
{
    struct json_object *v = moe_json_get(j, key);

    if (v == NULL) {
        *out = fallback;
        return MOE_OK;
    }
    if (!json_object_is_type(v, json_type_boolean))
        return wrong_type(j, key, "true or false", v, err);
    *out = json_object_get_boolean(v) != 0;
    return MOE_OK;
}

moe_status
moe_json_text(const struct moe_json *j, const char *key, const char **out,
              struct moe_error *err)
{
    struct json_object *v = moe_json_get(j, key);
    const char         *s;

    if (v == NULL)
        return missing(j, key, err);
    if (!json_object_is_type(v, json_type_string))
        return wrong_type(j, key, "a string", v, err);
    s = json_object_get_string(v);
    if (strlen(s) != (size_t) json_object_get_string_len(v))
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"%s%s\" holds a NUL character", j->file,
                        j->path, key);
    *out = s;
    return MOE_OK;
}

moe_status
moe_json_text_or(const struct moe_json *j, const char *key,
                 const char *fallback, const char **out,
                 struct moe_error *err)
{
    if (moe_json_get(j, key) == NULL) {
        *out = fallback;
        return MOE_OK;
    }
    return moe_json_text(j, key, out, err);
}

moe_status
moe_json_object_or(const struct moe_json *j, const char *key,
                   struct json_object **out, struct moe_error *err)
{
    struct json_object *v = moe_json_get(j, key);

    if (v != NULL && !json_object_is_type(v, json_type_object))
        return wrong_type(j, key, "an object", v, err);
    *out = v;
    return MOE_OK;
}

moe_status
moe_json_array_or(const struct moe_json *j, const char *key,
                  struct json_object **out, struct moe_error *err)
{
    struct json_object *v = moe_json_get(j, key);

    if (v != NULL && !json_object_is_type(v, json_type_array))
        return wrong_type(j, key, "a list", v, err);
    *out = v;
    return MOE_OK;
}
