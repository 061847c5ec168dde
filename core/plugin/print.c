/* SPDX-License-Identifier: Apache-2.0 */
/*
 * print.c - the plugins of a registry, for people or as JSON.
 *
 * What `moe-run plugins` shows: every file considered, in the order found,
 * with its state and the reason, then the formats that the loaded quantizers
 * offer.
 */

#include <stdio.h>
#include <string.h>

#include "plugin/load.h"
#include "plugin/registry.h"
#include "support/str.h"

static void
add_json(struct moe_str *s, const char *key, const char *text)
{
    moe_str_addf(s, "\"%s\": ", key);
    moe_str_add_json(s, text, strlen(text));
}

static void
print_json(struct moe_str *s, const struct moe_registry *r)
{
    struct moe_format_ref ref;
    size_t                i;

    moe_str_addf(s, "{\"plugin_abi\": \"%u.%u\", \"plugins\": [",
                 MOE_ABI_MAJOR, MOE_ABI_MINOR);
    for (i = 0; i < moe_registry_count(r); i++) {
        const struct moe_plugin_entry *e = moe_registry_entry(r, i);

        moe_str_addf(s, "%s\n  {", i != 0 ? "," : "");
        add_json(s, "name", e->name);
        moe_str_addf(s, ", ");
        add_json(s, "kind",
                 e->kind != 0 ? moe_plugin_kind_text(e->kind) : "");
        moe_str_addf(s, ", ");
        add_json(s, "state", e->state);
        moe_str_addf(s, ", \"status\": %d, ", e->status);
        add_json(s, "version", e->version);
        if (e->abi != 0)
            moe_str_addf(s, ", \"abi\": \"%u.%u\"", MOE_ABI_MAJOR_OF(e->abi),
                         MOE_ABI_MINOR_OF(e->abi));
        moe_str_addf(s, ", ");
        add_json(s, "summary", e->summary);
        moe_str_addf(s, ", ");
        add_json(s, "path", e->path);
        moe_str_addf(s, ", ");
        add_json(s, "reason", e->reason);
        moe_str_addf(s, "}");
    }
    moe_str_addf(s, "],\n \"formats\": [");
    for (i = 0; moe_registry_format_at(r, i, &ref) == MOE_OK; i++) {
        moe_str_addf(s, "%s\n  {", i != 0 ? "," : "");
        add_json(s, "id", ref.format->id);
        moe_str_addf(s, ", \"revision\": %u, \"bits\": %u.%03u, ",
                     ref.format->revision, ref.format->bits_x1000 / 1000,
                     ref.format->bits_x1000 % 1000);
        add_json(s, "quantizer", ref.plugin);
        moe_str_addf(s, ", ");
        add_json(s, "summary", ref.format->summary);
        moe_str_addf(s, "}");
    }
    moe_str_addf(s, "]}\n");
}

/* The reason without the path, which its row shows. */
static const char *
short_reason(const struct moe_plugin_entry *e)
{
    size_t len = strlen(e->path);

    if (strncmp(e->reason, e->path, len) == 0
        && strncmp(e->reason + len, ": ", 2) == 0)
        return e->reason + len + 2;
    return e->reason;
}

static void
print_table(struct moe_str *s, const struct moe_registry *r)
{
    struct moe_format_ref ref;
    size_t                i;

    moe_str_addf(s, "Plugin ABI %u.%u\n\n", MOE_ABI_MAJOR, MOE_ABI_MINOR);
    if (moe_registry_count(r) == 0)
        moe_str_addf(s, "No plugin file was found.\n");
    else
        moe_str_addf(s, "%-12s %-10s %-9s %-8s %s\n", "NAME", "KIND", "STATE",
                     "VERSION", "FILE");
    for (i = 0; i < moe_registry_count(r); i++) {
        const struct moe_plugin_entry *e = moe_registry_entry(r, i);

        moe_str_addf(s, "%-12s %-10s %-9s %-8s %s\n", e->name,
                     e->kind != 0 ? moe_plugin_kind_text(e->kind) : "-",
                     e->state, e->version[0] != '\0' ? e->version : "-",
                     e->path);
        if (e->reason[0] != '\0')
            moe_str_addf(s, "    %s\n", short_reason(e));
        else if (e->summary[0] != '\0')
            moe_str_addf(s, "    %s\n", e->summary);
    }
    if (moe_registry_format_at(r, 0, &ref) != MOE_OK)
        return;
    moe_str_addf(s, "\n%-16s %-7s %-10s %s\n", "FORMAT", "BITS", "QUANTIZER",
                 "");
    for (i = 0; moe_registry_format_at(r, i, &ref) == MOE_OK; i++)
        moe_str_addf(s, "%-16s %-7.3g %-10s %s\n", ref.format->id,
                     (double) ref.format->bits_x1000 / 1000, ref.plugin,
                     ref.format->summary);
}

moe_status
moe_registry_print(const struct moe_registry *r, int json, moe_write_fn fn,
                   void *ctx)
{
    struct moe_str s = { 0 };
    moe_status     status = MOE_OK;

    if (json)
        print_json(&s, r);
    else
        print_table(&s, r);
    if (s.failed)
        status = MOE_E_NOMEM;
    else if (fn(ctx, s.text, s.len) != 0)
        status = MOE_E_IO;
    moe_str_free(&s);
    return status;
}
