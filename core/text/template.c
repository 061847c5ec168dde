/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.c - messages to a prompt, by the model's own chat template.
 *
 * Owns finding the template and the tokens it may name, the request and the
 * cutting of the answer into pieces.  Leaves the process that answers to
 * helper.c, Jinja and the question who wrote which part to moe-template.py,
 * ids to the tokenizer.
 */
#include "text/template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/json.h"
#include "text/helper.h"
#include "text/unicode.h"

#define TEMPLATE_MAX (4u << 20)   /* bytes of a template                   */
#define CONFIG_MAX   (256u << 20) /* bytes of a tokenizer_config.json      */
#define REQUEST_MAX  (64u << 20)  /* bytes of all contents                 */
#define ROLE_MAX     64u          /* bytes                                 */
#define SHOWN_MAX    320u         /* bytes of the helper's words in an error */

struct moe_template {
    char                  *dir;     /* for messages */
    struct json_object    *text, *tokens;
    struct moe_helper     *helper;
    struct json_object    *answer;  /* of the last render: pieces lie in it */
    struct moe_text_piece *pieces;
};

/* --- the model's folder -------------------------------------------------- */

static char *
join(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char  *path = malloc(n);

    if (path != NULL)
        snprintf(path, n, "%s/%s", dir, name);
    return path;
}

static moe_status
no_memory(struct moe_error *err)
{
    return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                    "no memory for a chat template; free some");
}

/* The whole of chat_template.jinja, as a JSON string; *out stays NULL where
 * there is none. */
static moe_status
read_jinja(const char *path, struct json_object **out, struct moe_error *err)
{
    char        shown[MOE_SHOW_PATH_MAX + 4];
    moe_status  status = MOE_OK;
    struct stat sb;
    char       *text = NULL;
    size_t      n, got = 0, bad;
    int         fd, gap;

    moe_show_path(path, shown);
    /* O_NONBLOCK: a FIFO in the folder must not hang us */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return MOE_OK;
    if (fd < 0 || fstat(fd, &sb) != 0) {
        status = moe_fail(err, MOE_E_IO, errno, "%s: cannot open: %s", shown,
                          strerror(errno));
        goto out;
    }
    if (!S_ISREG(sb.st_mode) || sb.st_size > (off_t) TEMPLATE_MAX) {
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: not a regular file of at most %u MiB; fetch "
                          "it again", shown, TEMPLATE_MAX >> 20);
        goto out;
    }
    n = (size_t) sb.st_size;
    text = malloc(n + 1);
    if (text == NULL) {
        status = no_memory(err);
        goto out;
    }
    while (got < n) {
        ssize_t r = read(fd, text + got, n - got);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            status = moe_fail(err, MOE_E_IO, errno,
                              "%s: read error at byte %zu: %s", shown, got,
                              strerror(errno));
            goto out;
        }
        if (r == 0)
            break;
        got += (size_t) r;
    }
    if (!moe_utf8_check(text, got, &gap, &bad)) {
        status = moe_fail(err, MOE_E_CORRUPT, 0,
                          "%s: not UTF-8 at byte %zu; fetch it again", shown,
                          bad);
        goto out;
    }
    *out = json_object_new_string_len(text, (int) got);
    if (*out == NULL)
        status = no_memory(err);
out:
    free(text);
    if (fd >= 0)
        close(fd);
    return status;
}

/* "chat_template" of tokenizer_config.json: a string, or a list of named
 * ones.  *out stays NULL where there is none. */
static moe_status
config_template(const struct moe_json *j, struct json_object **out,
                struct moe_error *err)
{
    struct json_object *v = moe_json_get(j, "chat_template"), *found = NULL;
    size_t              i;

    if (json_object_is_type(v, json_type_array)) {
        for (i = 0; i < json_object_array_length(v) && found == NULL; i++) {
            struct json_object *one = json_object_array_get_idx(v, i), *name;

            if (json_object_is_type(one, json_type_object)
                && json_object_object_get_ex(one, "name", &name)
                && json_object_is_type(name, json_type_string)
                && strcmp(json_object_get_string(name), "default") == 0)
                json_object_object_get_ex(one, "template", &found);
        }
        if (found == NULL)
            return moe_fail(err, MOE_E_NOT_FOUND, 0,
                            "%s: \"chat_template\" has none that is named "
                            "\"default\"; put the one to use into the folder "
                            "as chat_template.jinja", j->file);
        v = found;
    }
    if (v == NULL)
        return MOE_OK;
    if (!json_object_is_type(v, json_type_string)
        || json_object_get_string_len(v) > (int) TEMPLATE_MAX)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"chat_template\" is not a text of at most %u "
                        "MiB; fetch the file again", j->file,
                        TEMPLATE_MAX >> 20);
    *out = json_object_get(v);
    return MOE_OK;
}

/* The tokens a template may name, each a string or {"content": string}; one
 * that is null stays undefined in the template, as in the reference. */
static moe_status
config_tokens(const struct moe_json *j, struct json_object *tokens,
              struct moe_error *err)
{
    static const char *const names[] = { "bos_token", "eos_token",
                                         "unk_token", "pad_token",
                                         "sep_token", "cls_token",
                                         "mask_token" };

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct json_object *v = moe_json_get(j, names[i]), *inner;

        if (v == NULL)
            continue;
        if (json_object_is_type(v, json_type_object)
            && json_object_object_get_ex(v, "content", &inner))
            v = inner;
        if (!json_object_is_type(v, json_type_string))
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: \"%s\" is neither a string nor an object "
                            "with a \"content\"; fetch the file again",
                            j->file, names[i]);
        if (json_object_object_add(tokens, names[i], json_object_get(v))
            != 0) {
            json_object_put(v);
            return no_memory(err);
        }
    }
    return MOE_OK;
}

/* Takes value, whether it succeeds or not. */
static int
put(struct json_object *obj, const char *key, struct json_object *value)
{
    if (value != NULL && json_object_object_add(obj, key, value) == 0)
        return 1;
    json_object_put(value);
    return 0;
}

moe_status
moe_template_open(const char *dir, const char *helper,
                  struct moe_template **out, struct moe_error *err)
{
    char                 shown[MOE_SHOW_PATH_MAX + 4];
    char                 shown_dir[MOE_SHOW_PATH_MAX + 4];
    char                *config = join(dir, "tokenizer_config.json");
    char                *jinja = join(dir, "chat_template.jinja");
    struct moe_template *t = calloc(1, sizeof(*t));
    struct json_object  *doc = NULL;
    struct moe_error     first = { .struct_size = sizeof(first) };
    struct moe_json      j = { NULL, shown, "" };
    moe_status           status = MOE_OK;

    *out = NULL;
    if (t != NULL) {
        t->dir = strdup(moe_show_path(dir, shown_dir));
        t->tokens = json_object_new_object();
    }
    if (config == NULL || jinja == NULL || t == NULL || t->dir == NULL
        || t->tokens == NULL) {
        status = no_memory(err);
        goto out;
    }
    moe_show_path(config, shown);
    status = moe_json_file(config, CONFIG_MAX, &doc, &first);
    if (status != MOE_OK && status != MOE_E_NOT_FOUND) {
        moe_fail(err, status, first.native, "%s", first.text);
        goto out;
    }
    j.obj = doc;
    /* A file of its own counts more than the configuration's copy, as in the
     * reference. */
    status = read_jinja(jinja, &t->text, err);
    if (status == MOE_OK && t->text == NULL)
        status = config_template(&j, &t->text, err);
    if (status == MOE_OK && t->text == NULL)
        status = moe_fail(err, MOE_E_NOT_FOUND, 0,
                          "%s: no chat template, neither "
                          "chat_template.jinja nor in "
                          "tokenizer_config.json; give a prompt instead of "
                          "messages, or use a model made for chat", t->dir);
    if (status == MOE_OK)
        status = config_tokens(&j, t->tokens, err);
    if (status == MOE_OK)
        status = moe_helper_open(helper, &t->helper, err);
    if (status == MOE_OK) {
        *out = t;
        t = NULL;
    }
out:
    moe_template_close(t);
    json_object_put(doc);
    free(config);
    free(jinja);
    return status;
}

void
moe_template_close(struct moe_template *t)
{
    if (t == NULL)
        return;
    moe_helper_close(t->helper);
    json_object_put(t->text);
    json_object_put(t->tokens);
    json_object_put(t->answer);
    free(t->pieces);
    free(t->dir);
    free(t);
}

/* --- one prompt ---------------------------------------------------------- */

/* Roles come from users too, and templates write them where special tokens
 * are made: a plain word only. */
static int
role_ok(const char *role)
{
    size_t n = strspn(role, "abcdefghijklmnopqrstuvwxyz"
                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

    return n > 0 && n <= ROLE_MAX && role[n] == '\0';
}

static moe_status
request_messages(struct json_object *request, size_t n,
                 const char *const *roles, const char *const *contents,
                 struct moe_error *err)
{
    char                shown[MOE_SHOW_MAX + 4];
    struct json_object *list = json_object_new_array();
    moe_status          status = MOE_OK;
    size_t              left = REQUEST_MAX, bad;
    int                 gap;

    if (list == NULL)
        return no_memory(err);
    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        size_t              len = strlen(contents[i]);
        struct json_object *m;

        if (!role_ok(roles[i]))
            status = moe_fail(err, MOE_E_INVAL, 0,
                              "message %zu: the role \"%s\" is not a word of "
                              "letters, digits, '_' and '-'; use system, "
                              "user or assistant", i + 1,
                              moe_utf8_check(roles[i], strlen(roles[i]),
                                             &gap, &bad)
                                  ? moe_show(roles[i], shown) : "?");
        else if (len > left)
            status = moe_fail(err, MOE_E_INVAL, 0,
                              "message %zu: the messages are over %u MiB; "
                              "shorten them", i + 1, REQUEST_MAX >> 20);
        else if (!moe_utf8_check(contents[i], len, &gap, &bad))
            status = moe_fail(err, MOE_E_INVAL, 0,
                              "message %zu: not UTF-8 at byte %zu; convert "
                              "the text", i + 1, bad);
        if (status != MOE_OK)
            break;
        left -= len;
        m = json_object_new_object();
        if (m == NULL
            || !put(m, "role", json_object_new_string(roles[i]))
            || !put(m, "content",
                    json_object_new_string_len(contents[i], (int) len))
            || json_object_array_add(list, m) != 0) {
            json_object_put(m);
            status = no_memory(err);
        }
    }
    if (status != MOE_OK) {
        json_object_put(list);
        return status;
    }
    return put(request, "messages", list) ? MOE_OK : no_memory(err);
}

/* The template's own words, or the helper's about it, as an error. */
static moe_status
refusal(struct json_object *answer, struct json_object *error,
        struct moe_error *err)
{
    struct json_object *kind = NULL;
    const char         *text = json_object_get_string(error);
    int                 own;
    char                shown[SHOWN_MAX + 1];
    size_t              n;

    for (n = 0; n < SHOWN_MAX && text[n] != '\0'; n++) {
        unsigned char c = (unsigned char) text[n];

        shown[n] = c < 0x20 || c == 0x7f ? ' ' : (char) c;
    }
    if (text[n] != '\0')
        while (n > 0 && ((unsigned char) text[n] & 0xc0u) == 0x80u)
            n--;
    shown[n] = '\0';
    own = json_object_object_get_ex(answer, "kind", &kind)
          && json_object_is_type(kind, json_type_string)
          && strcmp(json_object_get_string(kind), "refused") == 0;
    if (own)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "the model's chat template refuses the messages: %s",
                        shown);
    return moe_fail(err, MOE_E_INVAL, 0,
                    "the model's chat template failed: %s; give a prompt "
                    "instead of messages, or mend the template", shown);
}

/* t->answer into t->pieces. */
static moe_status
cut(struct moe_template *t, size_t *n_pieces, struct moe_error *err)
{
    struct json_object *text, *user;
    const char         *s;
    size_t              len, n, at = 0, k = 0;

    if (!json_object_object_get_ex(t->answer, "text", &text)
        || !json_object_is_type(text, json_type_string)
        || !json_object_object_get_ex(t->answer, "user", &user)
        || !json_object_is_type(user, json_type_array))
        return moe_helper_nonsense(t->helper, "no \"text\" and \"user\"",
                                   err);
    s = json_object_get_string(text);
    len = (size_t) json_object_get_string_len(text);
    n = json_object_array_length(user);
    free(t->pieces);
    t->pieces = calloc(n + 1, sizeof(*t->pieces));
    if (t->pieces == NULL)
        return no_memory(err);
    /* i == n: what follows the last range */
    for (size_t i = 0; i <= n; i++) {
        struct json_object *v = i < n ? json_object_array_get_idx(user, i)
                                      : NULL;
        size_t              to = len;

        if (i < n) {
            int64_t x = json_object_get_int64(v);

            if (!json_object_is_type(v, json_type_int) || n % 2 != 0
                || x < (int64_t) at || (uint64_t) x > len
                || ((unsigned char) s[x] & 0xc0u) == 0x80u)
                return moe_helper_nonsense(t->helper,
                                           "ranges that do not fit", err);
            to = (size_t) x;
        }
        if (to > at) {
            t->pieces[k].text = s + at;
            t->pieces[k].len = to - at;
            t->pieces[k].user = i % 2 != 0;
            k++;
        }
        at = to;
    }
    *n_pieces = k;
    return MOE_OK;
}

moe_status
moe_template_render(struct moe_template *t, size_t n,
                    const char *const *roles, const char *const *contents,
                    const struct moe_text_piece **pieces, size_t *n_pieces,
                    struct moe_error *err)
{
    struct json_object *request = json_object_new_object(), *error;
    const char         *line;
    size_t              len;
    moe_status          status;

    *pieces = NULL;
    *n_pieces = 0;
    json_object_put(t->answer);
    t->answer = NULL;
    if (request == NULL
        || !put(request, "template", json_object_get(t->text))
        || !put(request, "tokens", json_object_get(t->tokens))
        || !put(request, "add_generation_prompt",
                json_object_new_boolean(1))) {
        status = no_memory(err);
        goto out;
    }
    status = request_messages(request, n, roles, contents, err);
    if (status != MOE_OK)
        goto out;
    line = json_object_to_json_string_length(
        request, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE,
        &len);
    if (line == NULL) {
        status = no_memory(err);
        goto out;
    }
    status = moe_helper_ask(t->helper, line, len, t->dir, &t->answer, err);
    if (status != MOE_OK)
        goto out;
    if (json_object_object_get_ex(t->answer, "error", &error)
        && json_object_is_type(error, json_type_string))
        status = refusal(t->answer, error, err);
    else
        status = cut(t, n_pieces, err);
    if (status == MOE_OK)
        *pieces = t->pieces;
out:
    json_object_put(request);
    return status;
}
