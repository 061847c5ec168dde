/* SPDX-License-Identifier: Apache-2.0 */
/*
 * str.h - a growing text: for messages, tables and JSON that we print.
 */
#ifndef MOE_CORE_SUPPORT_STR_H
#define MOE_CORE_SUPPORT_STR_H

#include <stdarg.h>
#include <stddef.h>

/* Zero-initialise; text is NUL-terminated once anything was added.  After a
 * failed allocation `failed` is set and further additions do nothing. */
struct moe_str {
    char  *text;
    size_t len, cap;
    int    failed;
};

void moe_str_add(struct moe_str *s, const char *text, size_t len);
void moe_str_addf(struct moe_str *s, const char *fmt, ...)
    __attribute__((__format__(__printf__, 2, 3)));
void moe_str_addv(struct moe_str *s, const char *fmt, va_list args);
/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void moe_str_add_json(struct moe_str *s, const char *text, size_t len);
void moe_str_free(struct moe_str *s);

/* "1.5 GiB", "640 KiB", "12 B" into buf (at least 32 bytes); returns buf. */
char *moe_bytes_text(unsigned long long bytes, char *buf, size_t size);

#endif /* MOE_CORE_SUPPORT_STR_H */
