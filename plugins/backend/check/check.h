/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - what a test may ask the check wrapper: extension("moe.check").
 */
#ifndef MOE_PLUGINS_BACKEND_CHECK_H
#define MOE_PLUGINS_BACKEND_CHECK_H

#include <moe/backend.h>

#define MOE_CHECK_EXTENSION "moe.check"

struct moe_check_report {
    uint32_t struct_size;
    uint32_t reserved;
    /* Rules broken on this device so far, by its caller or by the backend
     * inside. */
    uint64_t (*violations)(moe_device *dev);
    /* The last rule's text, "" if none was broken. */
    const char *(*last)(moe_device *dev);
};

#endif /* MOE_PLUGINS_BACKEND_CHECK_H */
