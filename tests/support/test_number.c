/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_number.c - which texts are numbers.
 */
#include "support/number.h"

#include "tests/tap.h"

#include <string.h>

int
main(void)
{
    static const struct {
        const char *text;
        int64_t     want;
    } whole[] = {
        { "0", 0 },      { "5", 5 },   { "+5", 5 },
        { "-5", -5 },    { "007", 7 }, { "9223372036854775807", INT64_MAX },
        { "-9223372036854775808", INT64_MIN },
    };
    static const struct {
        const char *text;
        double      want;
    } real[] = {
        { "0", 0 },      { "+5", 5 },     { "-1.5", -1.5 }, { "1e3", 1000 },
        { "1E+3", 1e3 }, { "2.5e-1", .25 }, { ".5", 0.5 },  { "5.", 5 },
    };
    static const char *const neither[] = {
        "",     " ",     " 5",  "5 ",   "\t5",  "5\n",      "0x10", "0X1p3",
        "inf",  "-inf",  "nan", "NaN",  "NAN(1)", "infinity", "+",  "-",
        "--5",  "+-5",   "5,5", "5_000", "1 000", "e",      "1e",   "1e+",
        ".",    "1.2.3", "five", "5k",  "\xd9\xa5",
        "11111111111111111111111111111111111111111111111111111111111111111",
        "00000000000000000000000000000000000000000000000000000000000000001",
    };
    static const char *const not_whole[]
        = { "1e3", "1.5", "5.", ".5", "1E0", "9223372036854775808",
            "-9223372036854775809", "99999999999999999999999999" };
    static const char *const not_real[] = { "1e400", "-1e400", "1e+400" };
    locale_t                 c = newlocale(LC_ALL_MASK, "C", (locale_t) 0);
    size_t                   i;

    for (i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
        int64_t v = 42;

        ok(moe_number_whole(whole[i].text, &v) && v == whole[i].want,
           "whole: %s", whole[i].text);
    }
    for (i = 0; i < sizeof(real) / sizeof(real[0]); i++) {
        double v = 42, w = 42;

        ok(moe_number_real(real[i].text, c, &v) && v == real[i].want
               && moe_number_real(real[i].text, (locale_t) 0, &w) && w == v,
           "real: %s", real[i].text);
    }
    for (i = 0; i < sizeof(neither) / sizeof(neither[0]); i++) {
        int64_t n = 42;
        double  v = 42;

        ok(!moe_number_whole(neither[i], &n) && n == 42
               && !moe_number_real(neither[i], c, &v) && v == 42,
           "neither, number %zu of %zu bytes", i, strlen(neither[i]));
    }
    for (i = 0; i < sizeof(not_whole) / sizeof(not_whole[0]); i++) {
        int64_t n = 42;

        ok(!moe_number_whole(not_whole[i], &n) && n == 42, "not whole: %s",
           not_whole[i]);
    }
    for (i = 0; i < sizeof(not_real) / sizeof(not_real[0]); i++) {
        double v = 42;

        ok(!moe_number_real(not_real[i], c, &v) && v == 42, "not real: %s",
           not_real[i]);
    }
    freelocale(c);
    return tap_done();
}
