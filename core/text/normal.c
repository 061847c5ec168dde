/* SPDX-License-Identifier: Apache-2.0 */
/*
 * normal.c - normalizers.
 *
 * Owns the normal forms (utf8proc's data; the order of marks is sorted here,
 * because utf8proc's own sort is quadratic in a run of marks and the text is
 * a stranger's), lower case, and the plain replacements.  Beside the text it
 * carries `zero`: how many leading bytes come from the first character of the
 * whole input, the one thing of the reference's offsets that decides an id.
 */
#include "text/tok_int.h"

#include <json.h>
#include <utf8proc.h>

#include "text/unicode.h"

static int
add_char(struct moe_buf *b, uint32_t cp)
{
    char c[4];

    return moe_buf_add(b, c, moe_utf8_put(cp, c));
}

/* --- normal forms --------------------------------------------------------- */

/* A decomposed character and its canonical combining class. */
struct mark {
    int32_t  cp;
    uint32_t ccc;
};

/* Stable sort by combining class, of a run without starters. */
static int
sort_marks(struct mark *m, size_t n)
{
    size_t       count[257] = {0};
    struct mark *to;

    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            struct mark x = m[i];
            size_t      k = i;

            for (; k > 0 && m[k - 1].ccc > x.ccc; k--)
                m[k] = m[k - 1];
            m[k] = x;
        }
        return 1;
    }
    to = malloc(n * sizeof(*to));
    if (to == NULL)
        return 0;
    for (size_t i = 0; i < n; i++)
        count[m[i].ccc + 1]++;
    for (size_t i = 1; i < 257; i++)
        count[i] += count[i - 1];
    for (size_t i = 0; i < n; i++)
        to[count[m[i].ccc]++] = m[i];
    memcpy(m, to, n * sizeof(*m));
    free(to);
    return 1;
}

/* One stretch that holds no inert character; work is a scratch buffer. */
static int
form_stretch(const char *text, size_t n, utf8proc_option_t opt,
             struct moe_buf *work, struct moe_buf *out)
{
    struct mark      *m;
    utf8proc_int32_t *cps;
    size_t            count = 0, run = 0;

    work->n = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t dst[32];
        uint32_t         cp;
        utf8proc_ssize_t k;
        int              last = 0;

        i += moe_utf8_get(text + i, &cp);
        k = utf8proc_decompose_char((utf8proc_int32_t) cp, dst, 32, opt,
                                    &last);
        if (k < 0 || k > 32) { /* no character is that long */
            dst[0] = (utf8proc_int32_t) cp;
            k = 1;
        }
        for (utf8proc_ssize_t j = 0; j < k; j++) {
            struct mark one;

            one.cp = dst[j];
            one.ccc = (uint32_t) utf8proc_get_property(dst[j])
                          ->combining_class & 0xff;
            if (!moe_buf_add(work, (const char *) &one, sizeof(one)))
                return 0;
        }
    }
    m = (struct mark *) (void *) work->p;
    count = work->n / sizeof(*m);
    for (size_t i = 0; i <= count; i++) {
        if (i < count && m[i].ccc != 0)
            continue;
        if (i - run > 1 && !sort_marks(m + run, i - run))
            return 0;
        run = i + 1;
    }
    /* in place: an int32 is shorter than a mark */
    cps = (utf8proc_int32_t *) (void *) work->p;
    for (size_t i = 0; i < count; i++) {
        utf8proc_int32_t cp = m[i].cp;

        memcpy(&cps[i], &cp, sizeof(cp));
    }
    if (opt & UTF8PROC_COMPOSE) {
        utf8proc_ssize_t k = utf8proc_normalize_utf32(
            cps, (utf8proc_ssize_t) count, opt);

        if (k >= 0)
            count = (size_t) k;
    }
    for (size_t i = 0; i < count; i++)
        if (!add_char(out, (uint32_t) cps[i]))
            return 0;
    return 1;
}

static utf8proc_option_t
form_options(enum moe_stage_kind kind)
{
    switch (kind) {
    case MOE_NORM_NFC:
        return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    case MOE_NORM_NFD:
        return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    case MOE_NORM_NFKC:
        return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    default:
        return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
    }
}

/*
 * Characters below this are their own form and join with nothing before
 * them, so a text may be cut in front of each: U+0300 is the first mark,
 * U+00A0 the first that has a compatibility form, U+00C0 a canonical one.
 */
static uint32_t
plain_below(enum moe_stage_kind kind)
{
    return kind == MOE_NORM_NFC ? 0x300 : kind == MOE_NORM_NFD ? 0xc0 : 0xa0;
}

static int
add_form(struct moe_encode *e, enum moe_stage_kind kind, const char *text,
         size_t n, struct moe_buf *out)
{
    utf8proc_option_t opt = form_options(kind);
    uint32_t          plain = plain_below(kind), cp;
    size_t            i = 0;

    while (i < n) {
        size_t from = i, last = i;

        /* plain characters, all but the last of them */
        while (i < n) {
            size_t k = moe_utf8_get(text + i, &cp);

            if (cp >= plain)
                break;
            last = i;
            i += k;
        }
        if (i == n)
            return moe_buf_add(out, text + from, n - from);
        if (!moe_buf_add(out, text + from, last - from))
            return 0;
        from = last;
        /* the last one with what follows, up to the next plain one */
        while (i < n) {
            size_t k = moe_utf8_get(text + i, &cp);

            if (cp < plain)
                break;
            if (moe_uni_in(moe_uni_inert, moe_uni_inert_n, cp)) {
                if (!form_stretch(text + from, i - from, opt, &e->chars, out)
                    || !moe_buf_add(out, text + i, k))
                    return 0;
                from = i + k;
            }
            i += k;
        }
        if (!form_stretch(text + from, i - from, opt, &e->chars, out))
            return 0;
    }
    return 1;
}

/* zero behind a normal form: what the first bytes became by themselves, and
 * at least the first character. */
static int
form_zero(struct moe_encode *e, enum moe_stage_kind kind, const char *text,
          const struct moe_buf *out, size_t *zero)
{
    struct moe_buf alone = {0};
    size_t         same = 0;

    if (*zero == 0 || out->n == 0)
        return 1;
    if (!add_form(e, kind, text, *zero, &alone)) {
        moe_buf_free(&alone);
        return 0;
    }
    while (same < alone.n && same < out->n && alone.p[same] == out->p[same])
        same++;
    while (same < out->n && ((uint8_t) out->p[same] & 0xc0) == 0x80)
        same++;
    *zero = same != 0 ? same : moe_utf8_len(out->p[0]);
    moe_buf_free(&alone);
    return 1;
}

/* --- the others ----------------------------------------------------------- */

static int
add_lower(const char *text, size_t n, struct moe_buf *out, size_t *zero)
{
    size_t z = 0;

    for (size_t i = 0; i < n;) {
        uint32_t cp, low, second;
        size_t   k = moe_utf8_get(text + i, &cp);

        low = moe_uni_lower(cp, &second);
        if (!add_char(out, low) || (second != 0 && !add_char(out, second)))
            return 0;
        if (i < *zero)
            z = out->n;
        i += k;
    }
    *zero = z;
    return 1;
}

static int
add_bytes(const char *text, size_t n, struct moe_buf *out, size_t *zero)
{
    size_t z = 0;

    for (size_t i = 0; i < n; i++) {
        if (!add_char(out, moe_byte_char((uint8_t) text[i])))
            return 0;
        if (i + 1 == *zero)
            z = out->n;
    }
    *zero = z;
    return 1;
}

static int
add_without_marks(const char *text, size_t n, struct moe_buf *out,
                  size_t *zero)
{
    size_t z = 0;

    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t   k = moe_utf8_get(text + i, &cp);

        if (!moe_uni_in(moe_uni_mark, moe_uni_mark_n, cp)) {
            if (!moe_buf_add(out, text + i, k))
                return 0;
            if (i < *zero)
                z = out->n;
        }
        i += k;
    }
    *zero = z;
    return 1;
}

static void
strip(const struct moe_stage *st, const char **text, size_t *n, size_t *zero)
{
    const char *p = *text;
    size_t      from = 0, to = *n;
    uint32_t    cp;

    while (st->left && from < to) {
        size_t k = moe_utf8_get(p + from, &cp);

        if (!moe_uni_is_white(cp))
            break;
        from += k;
    }
    while (st->right && to > from) {
        size_t k = to - 1;

        while (((uint8_t) p[k] & 0xc0) == 0x80)
            k--;
        moe_utf8_get(p + k, &cp);
        if (!moe_uni_is_white(cp))
            break;
        to = k;
    }
    *text = p + from;
    *n = to - from;
    *zero = *zero > from ? *zero - from : 0;
}

moe_status
moe_stage_next(const struct moe_stage *st, struct moe_rxwork *rx,
               const char *text, size_t n, int exact, struct moe_rxiter *it,
               int *found, size_t *start, size_t *end, struct moe_error *err)
{
    const char *p;

    if (st->rx != NULL)
        return moe_regex_next(st->rx, rx, text, n, exact, it, found, start,
                              end, err);
    *found = 0;
    if (n - it->at < st->find_n)
        return MOE_OK;
    p = memmem(text + it->at, n - it->at, st->find, st->find_n);
    if (p != NULL) {
        *found = 1;
        *start = (size_t) (p - text);
        *end = *start + st->find_n;
        it->at = *end;
    }
    return MOE_OK;
}

static moe_status
add_replaced(struct moe_encode *e, const struct moe_stage *st,
             const char *text, size_t n, int at_start, struct moe_buf *out,
             size_t *zero)
{
    struct moe_rxiter it = {0};
    size_t            last = 0, z = 0;

    if (n == 0) /* the reference looks for no match in an empty text */
        return MOE_OK;
    for (;;) {
        size_t     start = 0, end = 0;
        int        found;
        moe_status s = moe_stage_next(st, &e->rx, text, n, e->exact, &it,
                                      &found, &start, &end, e->err);

        if (s != MOE_OK)
            return s;
        if (!found)
            break;
        if (!moe_buf_add(out, text + last, start - last))
            return moe_encode_nomem(e);
        if (last < *zero)
            z = out->n - (start > *zero ? start - *zero : 0);
        if (!moe_buf_add(out, st->content, st->content_n))
            return moe_encode_nomem(e);
        if (out->n > e->limit)
            return moe_encode_too_long(e);
        /* new text lies where the last replaced character lay */
        if (end != 0 ? end - 1 < *zero : at_start)
            z = out->n;
        last = end;
    }
    if (last < *zero)
        z = out->n + (*zero - last);
    if (!moe_buf_add(out, text + last, n - last))
        return moe_encode_nomem(e);
    *zero = z;
    return MOE_OK;
}

static moe_status
run_stage(struct moe_encode *e, const struct moe_stage *st, const char *text,
          size_t n, int at_start, struct moe_buf *out, size_t *zero)
{
    int ok = 1;

    switch (st->kind) {
    case MOE_NORM_NFC:
    case MOE_NORM_NFD:
    case MOE_NORM_NFKC:
    case MOE_NORM_NFKD:
        ok = add_form(e, st->kind, text, n, out)
             && form_zero(e, st->kind, text, out, zero);
        break;
    case MOE_NORM_LOWER:
        ok = add_lower(text, n, out, zero);
        break;
    case MOE_NORM_ACCENTS:
        ok = add_without_marks(text, n, out, zero);
        break;
    case MOE_NORM_BYTES:
        ok = add_bytes(text, n, out, zero);
        break;
    case MOE_NORM_PREPEND:
        if (n != 0) {
            ok = moe_buf_add(out, st->content, st->content_n)
                 && moe_buf_add(out, text, n);
            *zero = *zero != 0 ? *zero + st->content_n : 0;
        }
        break;
    case MOE_NORM_REPLACE:
        return add_replaced(e, st, text, n, at_start, out, zero);
    default:
        return moe_fail(e->err, MOE_E_INTERNAL, 0,
                        "tokenizer: a stage of the wrong kind");
    }
    return ok ? MOE_OK : moe_encode_nomem(e);
}

moe_status
moe_normal_run(struct moe_encode *e, const char *text, size_t n, int at_start,
               const char **out, size_t *out_n, size_t *zero)
{
    const struct moe_chain *c = &e->tok->normal;
    int                     which = 0;

    *zero = at_start && n != 0 ? moe_utf8_len(text[0]) : 0;
    for (size_t i = 0; i < c->n; i++) {
        const struct moe_stage *st = &c->stage[i];
        struct moe_buf         *to = &e->norm[which];
        moe_status              s;

        if (st->kind == MOE_NORM_STRIP) {
            strip(st, &text, &n, zero);
            continue;
        }
        to->n = 0;
        s = run_stage(e, st, text, n, at_start, to, zero);
        if (s != MOE_OK)
            return s;
        if (to->n > e->limit)
            return moe_encode_too_long(e);
        text = to->n != 0 ? to->p : "";
        n = to->n;
        which = !which;
    }
    *out = text;
    *out_n = n;
    return MOE_OK;
}

moe_status
moe_normal_load(const struct moe_tokcfg *cfg, struct json_object *o,
                const char *type, struct moe_chain *chain)
{
    static const struct {
        const char         *type;
        enum moe_stage_kind kind;
    } kinds[] = {
        {"NFC", MOE_NORM_NFC},          {"NFD", MOE_NORM_NFD},
        {"NFKC", MOE_NORM_NFKC},        {"NFKD", MOE_NORM_NFKD},
        {"Lowercase", MOE_NORM_LOWER},  {"Strip", MOE_NORM_STRIP},
        {"StripAccents", MOE_NORM_ACCENTS},
        {"Replace", MOE_NORM_REPLACE},  {"Prepend", MOE_NORM_PREPEND},
        {"ByteLevel", MOE_NORM_BYTES},
    };
    struct moe_stage *st = NULL;
    moe_status        s = MOE_OK;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type, kinds[i].type) != 0)
            continue;
        st = moe_chain_add(chain, kinds[i].kind);
        if (st == NULL)
            return moe_cfg_nomem(cfg);
        break;
    }
    if (st == NULL)
        return moe_cfg_unsupported(cfg, "normalizer", type);
    if (st->kind == MOE_NORM_STRIP) {
        s = moe_cfg_bool(cfg, "normalizer Strip", o, "strip_left", -1,
                         &st->left);
        if (s == MOE_OK)
            s = moe_cfg_bool(cfg, "normalizer Strip", o, "strip_right", -1,
                             &st->right);
    } else if (st->kind == MOE_NORM_REPLACE) {
        s = moe_cfg_pattern(cfg, "normalizer Replace", o, st);
        if (s == MOE_OK)
            s = moe_cfg_string(cfg, "normalizer Replace", o, "content", 0,
                               &st->content, &st->content_n);
    } else if (st->kind == MOE_NORM_PREPEND) {
        s = moe_cfg_string(cfg, "normalizer Prepend", o, "prepend", 0,
                           &st->content, &st->content_n);
    }
    return s;
}
