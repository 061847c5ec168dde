/* SPDX-License-Identifier: Apache-2.0 */
/*
 * number.h - what is a number, in files, variables and flags alike.
 *
 * Decimal digits, with a sign before them if one likes, and for a real number
 * a point and an exponent.  Nothing else: no blanks around it, no hexadecimal,
 * no infinity and no NaN, no exponent in a whole number, and at most 64
 * characters, since a longer one is a mistake.  Owns that rule alone; ranges,
 * units and sentences belong to the callers.  No state: any thread may call.
 */
#ifndef MOE_CORE_SUPPORT_NUMBER_H
#define MOE_CORE_SUPPORT_NUMBER_H

#include <locale.h>
#include <stdint.h>

#define MOE_NUMBER_MAX 64u /* characters */

/* Nonzero if all of the text is a number that fits; *out is set only then. */
int moe_number_whole(const char *text, int64_t *out);
/* c: the C locale, or 0 in a program that keeps its LC_NUMERIC. */
int moe_number_real(const char *text, locale_t c, double *out);

#endif /* MOE_CORE_SUPPORT_NUMBER_H */
