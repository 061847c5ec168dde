/* SPDX-License-Identifier: Apache-2.0 */
/* The word that was meant. */
#include "support/near.h"

#include <string.h>

#include "tap.h"

static void
near_is(const char *asked, const char *want)
{
    static const char words[] = "llama mixtral qwen2_moe  qwen3_moe olmoe";
    char              buf[64];

    moe_words_near(asked, words, buf, sizeof(buf));
    is_str(buf, want, "near %s: %s", asked, want);
}

static void
nearest_is(const char *asked, const char *want)
{
    static const char *const words[] = { "no", "budget", "threads", "top-k",
                                         "temperature" };
    struct moe_nearest n = { asked, NULL, 0 };
    size_t             i;

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        moe_nearest_try(&n, words[i]);
    is_str(n.best != NULL ? n.best : "", want, "nearest to %s: %s", asked,
           want);
}

int
main(void)
{
    char longest[64], longer[65], buf[8];

    memset(longest, 'a', 63);
    longest[63] = '\0';
    memset(longer, 'a', 64);
    longer[64] = '\0';
    is_int(moe_edits("", ""), 0, "nothing");
    is_int(moe_edits("", "abc"), 3, "insert");
    is_int(moe_edits("abc", ""), 3, "delete");
    is_int(moe_edits("kitten", "sitting"), 3, "replace and insert");
    is_int(moe_edits("tehrads", "threads"), 2, "two swaps cost two");
    is_int(moe_edits("ab", "ba"), 1, "a swap costs one");
    is_int(moe_edits("ca", "abc"), 3, "no letter is edited twice");
    is_int(moe_edits(longest, "a"), 62, "63 bytes");
    is_int(moe_edits(longer, "a"), 1000, "64 bytes are far");

    near_is("mixtrla", "mixtral");
    near_is("qwen_moe", "qwen2_moe or qwen3_moe");
    near_is("qwen", "qwen2_moe or qwen3_moe");
    near_is("gpt2", "");
    moe_words_near("mixtrla", "mixtral", buf, sizeof(buf));
    ok(strlen(buf) < sizeof(buf), "a short buffer holds");
    moe_words_near("a", "", buf, sizeof(buf));
    is_str(buf, "", "no words");

    nearest_is("buget", "budget");
    nearest_is("tempe", "temperature");
    nearest_is("thraeds", "threads");
    nearest_is("xyz", "");
    nearest_is("on", "no");
    return tap_done();
}
