/* SPDX-License-Identifier: Apache-2.0 */
/* Growing text, sizes for people, half floats. */
#include <math.h>

#include "support/half.h"
#include "support/str.h"
#include "tap.h"

static void
json_is(const char *in, size_t len, const char *want)
{
    struct moe_str s = {0};

    moe_str_add_json(&s, in, len);
    is_str(s.text, want, "json %s", want);
    moe_str_free(&s);
}

/* f16 by the definition, to compare with. */
static double
f16_value(uint32_t h)
{
    int    e = (int) (h >> 10 & 31), m = (int) (h & 1023);
    double v = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);

    return h & 0x8000 ? -v : v;
}

int
main(void)
{
    struct moe_str s = {0};
    char           buf[32];
    uint32_t       i, bad = 0;

    for (i = 0; i < 1000; i++)
        moe_str_addf(&s, "%u,", i);
    is_int(s.len, 3890, "a thousand additions");
    is_int(strlen(s.text), 3890, "terminated");
    moe_str_free(&s);
    ok(s.text == NULL && s.len == 0, "empty after free");

    json_is("a\"b\\c\n\x01", 7, "\"a\\\"b\\\\c\\n\\u0001\"");
    json_is("\xc3\xa9", 2, "\"\xc3\xa9\"");
    json_is("\xff\xc3", 2, "\"\\ufffd\\ufffd\"");
    json_is("\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\"");
    json_is("", 0, "\"\"");

    is_str(moe_bytes_text(12, buf, sizeof(buf)), "12 B", "bytes");
    is_str(moe_bytes_text(1536, buf, sizeof(buf)), "1.50 KiB", "KiB");
    is_str(moe_bytes_text(64ull << 30, buf, sizeof(buf)), "64.0 GiB", "GiB");

    for (i = 0; i < 65536; i++) {
        float f = moe_f16_f32((uint16_t) i);

        if ((i & 0x7c00) == 0x7c00) {
            bad += (i & 0x3ff) != 0 ? !isnan(f) : !isinf(f);
            bad += (i & 0x3ff) != 0 && !isnan(moe_f16_f32(moe_f32_f16(f)));
        } else {
            bad += (double) f != f16_value(i) || moe_f32_f16(f) != i;
        }
        f = moe_bf16_f32((uint16_t) i);
        bad += isnan(f) ? !isnan(moe_bf16_f32(moe_f32_bf16(f)))
                        : moe_f32_bf16(f) != i;
    }
    is_int(bad, 0, "every f16 and bf16 code, there and back");
    is_int(moe_f32_f16(65519.99f), 0x7bff, "just below the overflow");
    is_int(moe_f32_f16(65520.0f), 0x7c00, "overflow is infinity");
    is_int(moe_f32_f16(1.0f + 0x1p-11f), 0x3c00, "tie to even, down");
    is_int(moe_f32_f16(1.0f + 0x3p-11f), 0x3c02, "tie to even, up");
    is_int(moe_f32_f16(0x1p-25f), 0, "half the least subnormal is zero");
    is_int(moe_f32_f16(0x1.000002p-25f), 1, "a little more is not");
    is_int(moe_f32_bf16(1.0f + 0x1p-8f), 0x3f80, "bf16 tie to even, down");
    is_int(moe_f32_bf16(1.0f + 0x3p-8f), 0x3f82, "bf16 tie to even, up");
    return tap_done();
}
