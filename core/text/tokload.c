/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokload.c - tokenizer.json into tables.
 *
 * Owns the reading order.  First a walk that finds the three long lists
 * (added_tokens, model.vocab, model.merges); what is left is a few kilobytes
 * and goes to json-c.  Then the lists are counted, the tables made at their
 * final size, and the lists read into them.  So the transient heap is the
 * file's bytes and little more, and its bound is known before
 * (moe_tokenizer_load_peak).
 *
 * Leaves the settings to tokset.c.
 */
#include "text/tok_int.h"

#include <json.h>

#include "checkpoint/json.h"
#include "text/jscan.h"
#include "text/unicode.h"

#define MAX_FILE     ((uint64_t) 1 << 30)
#define MAX_SETTINGS ((size_t) 128 << 10) /* bytes, without the lists   */
#define MAX_VALUES   4096u                /* commas in the settings     */
#define MAX_OPEN     512u                 /* objects and lists in them  */
#define FIXED_PEAK   ((uint64_t) 3 << 20) /* settings, patterns, buffers */

/* A span of the file; start NULL: the key is not there. */
struct part {
    const char *start, *end;
};

struct load {
    struct moe_tokcfg     cfg;
    struct moe_tokenizer *tok;
    const char           *json;
    size_t                len;
    struct part           added, vocab, merges;
    struct json_object   *root;
    uint32_t              n_vocab, n_merges, n_added, max_id;
    size_t                text_bytes; /* of all tokens, an upper bound */
    struct moe_buf        a, b, c;    /* strings being read           */
    struct json_tokener  *tokener;
};

static moe_status
syntax(struct load *l, const char *at, const char *what)
{
    return moe_fail(l->cfg.err, MOE_E_CORRUPT, 0,
                    "%s: byte %zu: %s; fetch the file again", l->cfg.file,
                    (size_t) (at - l->json), what);
}

/* --- finding the lists -------------------------------------------------- */

static moe_status
note(struct load *l, struct moe_jscan *j, struct part *p)
{
    if (p->start != NULL)
        return syntax(l, j->at, "a key for the second time");
    moe_jscan_space(j);
    p->start = j->at;
    if (!moe_jscan_skip(j))
        return syntax(l, j->at, "not JSON here");
    p->end = j->at;
    return MOE_OK;
}

/* The members of an object; top: the outermost one, else "model". */
static moe_status
find_lists(struct load *l, struct moe_jscan *j, int top)
{
    struct moe_jstr key;
    moe_status      s = MOE_OK;
    int             model = 0;

    if (!moe_jscan_char(j, '{'))
        return syntax(l, j->at, top ? "an object expected, not JSON's start"
                                    : "\"model\" is not an object");
    if (moe_jscan_char(j, '}'))
        return MOE_OK;
    do {
        if (!moe_jscan_string(j, &key) || !moe_jscan_char(j, ':'))
            return syntax(l, j->at, "a key and a colon expected");
        if (top && moe_jstr_is(&key, "added_tokens"))
            s = note(l, j, &l->added);
        else if (top && moe_jstr_is(&key, "model") && model++)
            s = syntax(l, j->at, "a key for the second time");
        else if (top && moe_jstr_is(&key, "model") && moe_jscan_peek(j, '{'))
            s = find_lists(l, j, 0);
        else if (!top && moe_jstr_is(&key, "vocab"))
            s = note(l, j, &l->vocab);
        else if (!top && moe_jstr_is(&key, "merges"))
            s = note(l, j, &l->merges);
        else if (!moe_jscan_skip(j))
            s = syntax(l, j->at, "not JSON here");
        if (s != MOE_OK)
            return s;
    } while (moe_jscan_char(j, ','));
    if (!moe_jscan_char(j, '}'))
        return syntax(l, j->at, "a comma or a closing brace expected");
    return MOE_OK;
}

/* The file without its lists, through json-c. */
static moe_status
read_settings(struct load *l)
{
    struct part *cut[3] = {&l->added, &l->vocab, &l->merges};
    const char  *from = l->json;
    uint32_t     values = 0, opened = 0;
    moe_status   s = MOE_OK;
    int          gap;
    size_t       bad;
    struct moe_json_repeat twice;

    for (;;) { /* in the order of the file */
        struct part *next = NULL;

        for (int i = 0; i < 3; i++)
            if (cut[i]->start != NULL && cut[i]->start >= from
                && (next == NULL || cut[i]->start < next->start))
                next = cut[i];
        if (!moe_buf_add(&l->a, from,
                         (size_t) ((next != NULL ? next->start
                                                 : l->json + l->len) - from))
            || (next != NULL && !moe_buf_add(&l->a, "null", 4)))
            return moe_cfg_nomem(&l->cfg);
        if (l->a.n > MAX_SETTINGS || next == NULL)
            break;
        from = next->end;
    }
    for (size_t i = 0; i < l->a.n && l->a.n <= MAX_SETTINGS; i++) {
        values += l->a.p[i] == ',';
        opened += l->a.p[i] == '{' || l->a.p[i] == '[';
    }
    if (l->a.n > MAX_SETTINGS || values > MAX_VALUES || opened > MAX_OPEN)
        return moe_fail(l->cfg.err, MOE_E_UNSUPPORTED, 0,
                        "%s: settings of more than %zu KiB or %u values (a "
                        "\"Precompiled\" normalizer has so many); use a "
                        "model with another tokenizer", l->cfg.file,
                        MAX_SETTINGS >> 10, MAX_VALUES);
    (void) moe_utf8_check(l->a.p, l->a.n, &gap, &bad);
    l->tok->exact = gap;
    l->root = json_tokener_parse_ex(l->tokener, l->a.p, (int) l->a.n);
    if (l->root == NULL)
        s = moe_fail(l->cfg.err, MOE_E_CORRUPT, 0,
                     "%s: not JSON: %s; fetch the file again", l->cfg.file,
                     json_tokener_error_desc(
                         json_tokener_get_error(l->tokener)));
    else if (!json_object_is_type(l->root, json_type_object))
        s = moe_cfg_corrupt(&l->cfg, "the file", "not an object");
    else if (moe_json_repeats(l->a.p, l->a.n, l->root, &twice))
        s = moe_fail(l->cfg.err, MOE_E_CORRUPT, 0,
                     "%s: the key %s is there twice in one object; keep the "
                     "one that is meant", l->cfg.file, twice.key);
    l->a.n = 0;
    return s;
}

/* --- the lists ---------------------------------------------------------- */

/* A string into b, its escapes undone. */
static moe_status
take_string(struct load *l, struct moe_jscan *j, struct moe_buf *b)
{
    struct moe_jstr str;
    size_t          n;

    if (!moe_jscan_string(j, &str))
        return syntax(l, j->at, "a string expected");
    b->n = 0;
    if (b->cap < str.len + 4 && !moe_buf_room(b, str.len + 4))
        return moe_cfg_nomem(&l->cfg);
    if (!moe_jstr_decode(&str, b->p, &n))
        return syntax(l, str.text, "a bad escape in this string");
    b->n = n;
    return MOE_OK;
}

/* model.vocab: count it (add = 0), or put it into the tables. */
static moe_status
walk_vocab(struct load *l, int add)
{
    struct moe_jscan j = {l->vocab.start, l->vocab.end};
    struct moe_jstr  str;
    uint64_t         id;
    char             shown[MOE_TOK_SHOW + 4];

    if (!moe_jscan_char(&j, '{'))
        return moe_cfg_corrupt(&l->cfg, "model.vocab", "not an object");
    if (moe_jscan_char(&j, '}'))
        return MOE_OK;
    do {
        const char *at = j.at;

        if (add) {
            moe_status s = take_string(l, &j, &l->a);

            if (s != MOE_OK)
                return s;
        } else if (!moe_jscan_string(&j, &str)) {
            return syntax(l, j.at, "a token expected");
        }
        if (!moe_jscan_char(&j, ':') || !moe_jscan_uint(&j, &id))
            return syntax(l, j.at, "model.vocab: a token's id is no whole "
                                   "number");
        if (add) {
            if (!moe_vocab_add(&l->tok->vocab, l->a.p, l->a.n, (uint32_t) id,
                               MOE_TOKEN_MODEL))
                return moe_fail(l->cfg.err, MOE_E_CORRUPT, 0,
                                "%s: byte %zu: model.vocab: token \"%s\" "
                                "or its id %llu is there twice; fetch the "
                                "file again", l->cfg.file,
                                (size_t) (at - l->json),
                                moe_tok_show(l->a.p, l->a.n, shown),
                                (unsigned long long) id);
            continue;
        }
        if (id > (1u << 30))
            return syntax(l, at, "model.vocab: an id of more than 2^30");
        if (id > l->max_id)
            l->max_id = (uint32_t) id;
        l->n_vocab++;
        l->text_bytes += str.len;
    } while (moe_jscan_char(&j, ','));
    if (!moe_jscan_char(&j, '}'))
        return syntax(l, j.at, "a comma or a closing brace expected");
    return MOE_OK;
}

static moe_status
add_merge(struct load *l, const char *at, uint32_t rank, const char *left,
          size_t left_n, const char *right, size_t right_n)
{
    struct moe_tokenizer *t = l->tok;
    uint32_t              a, b, id;
    const char           *lost = left;
    size_t                lost_n = left_n;
    char                  shown[MOE_TOK_SHOW + 4];

    if (moe_vocab_find(&t->vocab, left, left_n, MOE_TOKEN_MODEL, &a)) {
        lost = right;
        lost_n = right_n;
        if (moe_vocab_find(&t->vocab, right, right_n, MOE_TOKEN_MODEL, &b)) {
            if (right_n < t->sub_prefix_n)
                return syntax(l, at, "model.merges: a right side shorter "
                                     "than continuing_subword_prefix");
            l->c.n = 0;
            if (!moe_buf_add(&l->c, left, left_n)
                || !moe_buf_add(&l->c, right + t->sub_prefix_n,
                                right_n - t->sub_prefix_n))
                return moe_cfg_nomem(&l->cfg);
            lost = l->c.p;
            lost_n = l->c.n;
            if (moe_vocab_find(&t->vocab, lost, lost_n, MOE_TOKEN_MODEL,
                               &id)) {
                moe_vocab_add_merge(&t->vocab, a, b, rank, id);
                return MOE_OK;
            }
        }
    }
    return moe_fail(l->cfg.err, MOE_E_CORRUPT, 0,
                    "%s: byte %zu: model.merges: merge %u needs the token "
                    "\"%s\", which model.vocab lacks; fetch the file again",
                    l->cfg.file, (size_t) (at - l->json), rank,
                    moe_tok_show(lost, lost_n, shown));
}

/* model.merges: "a b" or ["a", "b"], all alike. */
static moe_status
walk_merges(struct load *l, int add)
{
    struct moe_jscan j = {l->merges.start, l->merges.end};
    uint32_t         rank = 0;
    int              pairs;
    moe_status       s;

    if (!moe_jscan_char(&j, '['))
        return moe_cfg_corrupt(&l->cfg, "model.merges", "not a list");
    if (moe_jscan_char(&j, ']'))
        return MOE_OK;
    pairs = moe_jscan_peek(&j, '[');
    do {
        const char *at = j.at;

        if (!add) {
            if (!moe_jscan_skip(&j))
                return syntax(l, j.at, "not JSON here");
            rank++;
            continue;
        }
        if (pairs && !moe_jscan_char(&j, '['))
            return syntax(l, at, "model.merges: a pair expected");
        s = take_string(l, &j, &l->a);
        if (s != MOE_OK)
            return s;
        if (pairs) {
            if (!moe_jscan_char(&j, ','))
                return syntax(l, at, "model.merges: a pair expected");
            s = take_string(l, &j, &l->b);
            if (s != MOE_OK)
                return s;
            if (!moe_jscan_char(&j, ']'))
                return syntax(l, at, "model.merges: a pair expected");
            s = add_merge(l, at, rank, l->a.p, l->a.n, l->b.p, l->b.n);
        } else {
            const char *cut;

            if (l->a.n >= 8 && memcmp(l->a.p, "#version", 8) == 0)
                continue;
            cut = memchr(l->a.p, ' ', l->a.n);
            if (cut == NULL
                || memchr(cut + 1, ' ',
                          l->a.n - (size_t) (cut + 1 - l->a.p)) != NULL)
                return syntax(l, at, "model.merges: two tokens with one "
                                     "space between expected");
            s = add_merge(l, at, rank, l->a.p, (size_t) (cut - l->a.p),
                          cut + 1, l->a.n - (size_t) (cut + 1 - l->a.p));
        }
        if (s != MOE_OK)
            return s;
        rank++;
    } while (moe_jscan_char(&j, ','));
    if (!moe_jscan_char(&j, ']'))
        return syntax(l, j.at, "a comma or a closing bracket expected");
    l->n_merges = rank;
    return MOE_OK;
}

/* One entry of added_tokens through json-c. */
static moe_status
read_added(struct load *l, struct moe_jscan *j, struct json_object **out)
{
    struct moe_json_repeat twice;
    const char            *at;

    moe_jscan_space(j);
    at = j->at;
    if (!moe_jscan_skip(j))
        return syntax(l, j->at, "not JSON here");
    if (j->at - at > (1 << 20))
        return syntax(l, at, "an added token of more than 1 MiB");
    json_tokener_reset(l->tokener);
    /* an object ends by itself, so no byte behind it is needed */
    *out = json_tokener_parse_ex(l->tokener, at, (int) (j->at - at));
    if (!json_object_is_type(*out, json_type_object)) {
        json_object_put(*out);
        *out = NULL;
        return syntax(l, at, "added_tokens: an object expected");
    }
    if (moe_json_repeats(at, (size_t) (j->at - at), *out, &twice)) {
        json_object_put(*out);
        *out = NULL;
        return syntax(l, at, "an added token gives a key twice");
    }
    return MOE_OK;
}

static moe_status
walk_added(struct load *l, moe_status (*one)(struct load *l, const char *at,
                                             struct json_object *o))
{
    struct moe_jscan    j = {l->added.start, l->added.end};
    struct json_object *o = NULL;
    moe_status          s;

    if (l->added.start == NULL)
        return MOE_OK;
    if (!moe_jscan_char(&j, '['))
        return moe_cfg_corrupt(&l->cfg, "added_tokens", "not a list");
    if (moe_jscan_char(&j, ']'))
        return MOE_OK;
    do {
        const char *at = j.at;

        s = read_added(l, &j, &o);
        if (s != MOE_OK)
            return s;
        s = one(l, at, o);
        json_object_put(o);
        if (s != MOE_OK)
            return s;
    } while (moe_jscan_char(&j, ','));
    if (!moe_jscan_char(&j, ']'))
        return syntax(l, j.at, "a comma or a closing bracket expected");
    return MOE_OK;
}

static moe_status
added_id(struct load *l, const char *at, struct json_object *o, uint32_t *id)
{
    struct json_object *v;
    int64_t             n;

    if (!json_object_object_get_ex(o, "id", &v)
        || !json_object_is_type(v, json_type_int))
        return syntax(l, at, "added_tokens: an entry without id");
    n = json_object_get_int64(v);
    if (n < 0 || n > (1 << 30))
        return syntax(l, at, "added_tokens: an id out of range");
    *id = (uint32_t) n;
    return MOE_OK;
}

static moe_status
count_added(struct load *l, const char *at, struct json_object *o)
{
    struct json_object *v;
    uint32_t            id;
    moe_status          s = added_id(l, at, o, &id);

    if (s != MOE_OK)
        return s;
    if (!json_object_object_get_ex(o, "content", &v)
        || !json_object_is_type(v, json_type_string))
        return syntax(l, at, "added_tokens: an entry without content");
    if (id > l->max_id)
        l->max_id = id;
    l->n_added++;
    l->text_bytes += (size_t) json_object_get_string_len(v);
    return MOE_OK;
}

/*
 * An added token gets the model's id if the model knows its text, else the
 * next one behind the model's tokens: what the reference does, whatever the
 * entry says.  An entry that says something else would mean other ids in
 * other programs, so it is refused.
 */
static moe_status
put_added(struct load *l, const char *at, struct json_object *o)
{
    static const struct {
        const char *key;
        uint32_t    flag;
    } flags[] = {
        {"single_word", MOE_ADDED_WORD},  {"lstrip", MOE_ADDED_LSTRIP},
        {"rstrip", MOE_ADDED_RSTRIP},     {"normalized", MOE_ADDED_NORMAL},
        {"special", MOE_ADDED_SPECIAL},
    };
    struct moe_vocab     *v = &l->tok->vocab;
    struct moe_added_set *set = &l->tok->raw; /* all of them for now */
    struct moe_added      item = {0};
    struct json_object   *content;
    const char           *text;
    size_t                n;
    uint32_t              id, want, i;
    char                  shown[MOE_TOK_SHOW + 4];
    moe_status            s = added_id(l, at, o, &want);

    if (s != MOE_OK)
        return s;
    json_object_object_get_ex(o, "content", &content);
    text = json_object_get_string(content);
    n = (size_t) json_object_get_string_len(content);
    for (size_t k = 0; k < sizeof(flags) / sizeof(flags[0]); k++) {
        int on;

        s = moe_cfg_bool(&l->cfg, "added_tokens", o, flags[k].key, -1, &on);
        if (s != MOE_OK)
            return s;
        item.flags |= on ? flags[k].flag : 0;
    }
    if (n == 0)
        return MOE_OK;
    if (!moe_vocab_find(v, text, n, 0, &id)) {
        id = l->n_vocab + l->n_added++;
        if (id != want || id >= v->n_ids
            || !moe_vocab_add(v, text, n, id, 0))
            id = want + 1;
    }
    if (id != want)
        return moe_fail(l->cfg.err, MOE_E_CORRUPT, 0,
                        "%s: added_tokens: \"%s\" says id %u, but the "
                        "vocabulary gives it another one; load and save the "
                        "tokenizer with transformers", l->cfg.file,
                        moe_tok_show(text, n, shown), want);
    item.id = id;
    item.text = v->arena + v->token[id].off;
    item.len = n;
    i = set->n;
    if (v->flags[id] & MOE_TOKEN_ADDED) /* again: the later one counts */
        for (i = 0; i < set->n && set->item[i].id != id;)
            i++;
    set->item[i] = item;
    if (i == set->n)
        set->n++;
    v->flags[id] |= MOE_TOKEN_ADDED;
    if (item.flags & MOE_ADDED_SPECIAL)
        v->flags[id] |= MOE_TOKEN_SPECIAL;
    return MOE_OK;
}

/* Normalised forms, and the two sorted sets. */
static moe_status
finish_added(struct load *l)
{
    struct moe_tokenizer *t = l->tok;
    struct moe_added_set *set = &t->raw, *norm = &t->normalised;
    struct moe_encode     e = {.tok = t, .err = l->cfg.err, .exact = 1};
    moe_status            s = MOE_OK;
    size_t                total = 0, at = 0, zero, n;
    const char           *text;
    uint32_t              kept = 0;

    norm->item = calloc((size_t) set->n + 1, sizeof(*norm->item));
    t->alias = calloc((size_t) set->n + 1, sizeof(*t->alias));
    if (norm->item == NULL || t->alias == NULL)
        return moe_cfg_nomem(&l->cfg);
    for (int pass = 0; pass < 2 && s == MOE_OK; pass++) {
        if (pass == 1) {
            t->added_text = malloc(total + 1);
            t->added_text_n = total;
            if (t->added_text == NULL) {
                s = moe_cfg_nomem(&l->cfg);
                break;
            }
        }
        for (uint32_t i = 0; i < set->n; i++) {
            struct moe_added *a = &set->item[i];

            if (!(a->flags & MOE_ADDED_NORMAL))
                continue;
            e.limit = MOE_GROWTH(a->len);
            s = moe_normal_run(&e, a->text, a->len, 1, &text, &n, &zero);
            if (s != MOE_OK)
                break;
            if (pass == 0) {
                total += n;
                continue;
            }
            if (n > total - at) { /* cannot be: the same text again */
                s = moe_cfg_nomem(&l->cfg);
                break;
            }
            if (n != 0)
                memcpy(t->added_text + at, text, n);
            norm->item[norm->n] = *a;
            norm->item[norm->n].text = t->added_text + at;
            norm->item[norm->n++].len = n;
            if (n != a->len || memcmp(text, a->text, n) != 0) {
                t->vocab.flags[a->id] |= MOE_TOKEN_ALIAS;
                t->alias[t->n_alias++] = norm->item[norm->n - 1];
            }
            at += n;
        }
    }
    free(e.norm[0].p);
    free(e.norm[1].p);
    free(e.chars.p);
    moe_rxwork_free(&e.rx);
    if (s != MOE_OK)
        return s;
    if (t->n_alias != 0)
        qsort(t->alias, t->n_alias, sizeof(*t->alias), moe_added_by_id);
    for (uint32_t i = 0; i < set->n; i++)
        if (!(set->item[i].flags & MOE_ADDED_NORMAL))
            set->item[kept++] = set->item[i];
    set->n = kept;
    if (!moe_added_sort(set) || !moe_added_sort(norm))
        return moe_cfg_nomem(&l->cfg);
    return MOE_OK;
}

/* --- the rest ----------------------------------------------------------- */

/* What encode and decode look up instead of searching. */
static void
finish_tables(struct load *l)
{
    struct moe_tokenizer *t = l->tok;
    struct moe_vocab     *v = &t->vocab;
    char                  text[8];

    for (uint32_t cp = 0; cp < 512; cp++) {
        t->char_id[cp] = MOE_NO_TOKEN;
        (void) moe_vocab_find(v, text, moe_utf8_put(cp, text),
                              MOE_TOKEN_MODEL, &t->char_id[cp]);
    }
    for (uint32_t b = 0; b < 256; b++) {
        t->fallback[b] = MOE_NO_TOKEN;
        snprintf(text, sizeof(text), "<0x%02X>", b);
        (void) moe_vocab_find(v, text, 6, MOE_TOKEN_MODEL, &t->fallback[b]);
    }
    t->unk_id = MOE_NO_TOKEN;
    if (t->unk != NULL)
        (void) moe_vocab_find(v, t->unk, t->unk_n, MOE_TOKEN_MODEL,
                              &t->unk_id);
    for (uint32_t id = 0; id < v->n_ids; id++) {
        uint8_t  flags = v->flags[id];
        uint32_t other;
        size_t   n;

        if (flags & MOE_TOKEN_ALIAS) { /* skipped if its other form is */
            const char *form = moe_token_form(t, id, &n);

            flags = moe_vocab_find(v, form, n, 0, &other) ? v->flags[other]
                                                          : 0;
        }
        if (flags & MOE_TOKEN_SPECIAL)
            v->flags[id] |= MOE_TOKEN_SKIP;
    }
}

static moe_status
load_all(struct load *l)
{
    struct moe_jscan      j = {l->json, l->json + l->len};
    struct moe_tokenizer *t = l->tok;
    uint64_t              need, have;
    size_t                bad;
    int                   gap;
    moe_status            s;

    if (!moe_utf8_check(l->json, l->len, &gap, &bad))
        return syntax(l, l->json + bad, "not UTF-8");
    s = find_lists(l, &j, 1);
    if (s != MOE_OK)
        return s;
    if (!moe_jscan_end(&j))
        return syntax(l, j.at, "more behind the closing brace");
    s = read_settings(l);
    if (s == MOE_OK)
        s = moe_set_model(&l->cfg, l->root, t);
    if (s == MOE_OK && (l->vocab.start == NULL || l->merges.start == NULL))
        s = moe_cfg_corrupt(&l->cfg, l->vocab.start == NULL
                                         ? "model.vocab" : "model.merges",
                            "missing");
    if (s == MOE_OK)
        s = walk_vocab(l, 0);
    if (s == MOE_OK)
        s = walk_merges(l, 0);
    if (s == MOE_OK)
        s = walk_added(l, count_added);
    if (s != MOE_OK)
        return s;
    /* count first: an id far outside must not make a huge table */
    have = (uint64_t) l->n_vocab + l->n_added;
    if (l->max_id >= 2 * have + 65536)
        return moe_fail(l->cfg.err, MOE_E_CORRUPT, 0,
                        "%s: id %u for %llu tokens; fetch the file again",
                        l->cfg.file, l->max_id, (unsigned long long) have);
    need = 9 * ((uint64_t) l->max_id + 1) + 11 * have + l->text_bytes
           + 26 * (uint64_t) l->n_merges;
    if (need > 2 * (uint64_t) l->len + (1 << 20))
        return moe_fail(l->cfg.err, MOE_E_CORRUPT, 0,
                        "%s: more tokens and merges than a file of %zu bytes "
                        "can be about; fetch the file again", l->cfg.file,
                        l->len);
    if (!moe_vocab_init(&t->vocab, l->max_id + 1, (uint32_t) have,
                        l->text_bytes, l->n_merges))
        return moe_cfg_nomem(&l->cfg);
    t->raw.item = calloc((size_t) l->n_added + 1, sizeof(*t->raw.item));
    if (t->raw.item == NULL)
        return moe_cfg_nomem(&l->cfg);
    l->n_added = 0; /* from here: those that the model does not know */
    s = walk_vocab(l, 1);
    if (s == MOE_OK)
        s = walk_merges(l, 1);
    if (s == MOE_OK)
        s = moe_set_chains(&l->cfg, l->root, t);
    if (s == MOE_OK)
        s = walk_added(l, put_added);
    if (s == MOE_OK)
        s = finish_added(l);
    if (s != MOE_OK)
        return s;
    s = moe_set_post(&l->cfg, l->root, t);
    if (s != MOE_OK)
        return s;
    finish_tables(l);
    return MOE_OK;
}

moe_status
moe_tokenizer_parse(const char *json, size_t len, const char *name,
                    uint32_t flags, struct moe_tokenizer **out,
                    struct moe_error *err)
{
    struct load l = {.cfg = {name, flags, err}, .json = json, .len = len};
    moe_status  s;

    if (len > MAX_FILE)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: %zu bytes, more than any tokenizer has; fetch "
                        "the file again", name, len);
    l.tok = calloc(1, sizeof(*l.tok));
    l.tokener = json_tokener_new_ex(64);
    s = l.tok == NULL || l.tokener == NULL ? moe_cfg_nomem(&l.cfg)
                                           : load_all(&l);
    json_object_put(l.root);
    if (l.tokener != NULL)
        json_tokener_free(l.tokener);
    moe_buf_free(&l.a);
    moe_buf_free(&l.b);
    moe_buf_free(&l.c);
    if (s != MOE_OK) {
        moe_tokenizer_close(l.tok);
        return s;
    }
    *out = l.tok;
    return MOE_OK;
}

uint64_t
moe_tokenizer_load_peak(uint64_t file_size)
{
    return 3 * file_size + FIXED_PEAK;
}
