/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.c - the option table.
 *
 * Owns the rows and the search in them.  Knows nothing of values (value.c)
 * or of where they come from (options.c, ini.c, env.c).
 *
 * To add an option: add a row, read it where `reader` says, run
 * `make update-docs`.  A test walks the sources and fails for a row that
 * nobody reads and for a read of a row that is not here.
 *
 * The first long flag is the name with '-' for '_', unless the section says
 * more than the name does (model.path is --model).
 */
#include "config/table.h"

#include <string.h>

#ifndef MOE_PLUGINDIR
#    define MOE_PLUGINDIR "/usr/local/lib/moe-run/1"
#endif
#ifndef MOE_LIBEXECDIR
#    define MOE_LIBEXECDIR "/usr/local/libexec/moe-run"
#endif

const struct moe_option_row moe_option_rows[] = {
    { "model.path", "string", "-m --model", "MOE_MODEL", "", "",
      "Folder of the checkpoint; without it the model that ships with "
      "moe-run",
      "engine", MOE_ROW_FILES },
    { "model.context", "int",
      "-c --context --ctx-size --max-model-len --num-ctx",
      "MOE_CONTEXT", "0", "0..16777216",
      "Tokens a sequence may have, prompt included; 0: what the model was "
      "made for",
      "engine", 0 },

    { "engine.backend", "string", "--backend", "MOE_BACKEND", "auto", "",
      "Backend plugin that computes; auto: the best one that can run here",
      "engine", 0 },
    { "engine.threads", "int", "-t --threads", "MOE_THREADS", "0", "0..4096",
      "Threads that compute; 0: one for each physical core that this process "
      "may use, slow cores left out",
      "engine", 0 },
    { "engine.pin", "auto|none|close|spread", "--pin", "MOE_PIN", "auto", "",
      "Bind threads to cores, side by side or far apart; auto: to their NUMA "
      "node or the fast cores where there are several kinds, or as "
      "OMP_PROC_BIND says",
      "engine", 0 },
    { "engine.batch_rows", "int",
      "-b --batch-rows --batch-size --max-num-batched-tokens",
      "MOE_BATCH_ROWS", "256", "1..65536",
      "Tokens computed in one step, over all sequences", "sched", 0 },
    { "engine.sequences", "int",
      "-np --sequences --parallel --max-num-seqs", "MOE_SEQUENCES", "16",
      "1..65536", "Sequences that run at the same time; further ones wait",
      "sched", 0 },
    { "engine.min_tier", "none|expand|generic|native", "--min-tier",
      "MOE_MIN_TIER", "none", "",
      "Refuse to start if a weight would be computed in a slower way than "
      "this",
      "engine", 0 },

    { "memory.budget", "size", "--budget", "MOE_BUDGET", "auto",
      "auto, 1%..100%, bytes",
      "Memory that may be used; a percentage is of what is free, auto is "
      "what the machine and its cgroup allow",
      "memory", MOE_ROW_AUTO | MOE_ROW_PERCENT },
    { "memory.kv_type", "auto|f32|f16|bf16",
      "-ctk --kv-type --cache-type-k --kv-cache-dtype", "MOE_KV_TYPE", "auto",
      "", "Number format of cached keys and values", "engine", 0 },
    { "memory.page_rows", "int", "--page-rows", "MOE_PAGE_ROWS", "16",
      "1..1024", "Tokens in one page of the key and value cache", "sched",
      0 },
    { "memory.eviction", "lfu|lru|none", "--eviction", "MOE_EVICTION", "lfu",
      "",
      "Which expert leaves when memory is short: the least frequently used of "
      "late, or the least recently used; none: refuse to start unless all fit",
      "memory", 0 },

    { "plugin.path", "string", "--plugin-path", "MOE_PLUGIN_PATH",
      MOE_PLUGINDIR,
      "",
      "Folders searched for plugins, separated by colons; an empty one "
      "stands for the installed folder",
      "plugin", MOE_ROW_SEARCH | MOE_ROW_FILES },
    { "plugin.load", "list", "--plugin", "MOE_PLUGIN", "", "",
      "Plugin files that must load besides", "plugin", MOE_ROW_FILES },

    { "generate.max_tokens", "int",
      "-n --max-tokens --predict --n-predict --num-predict",
      "MOE_MAX_TOKENS", "512", "-1..16777216",
      "Tokens to generate; -1: until the model ends or the context is full",
      "cli", 0 },
    { "generate.temperature", "float", "--temperature --temp",
      "MOE_TEMPERATURE", "1", "0..100",
      "How freely tokens are chosen; 0: always the likeliest", "engine", 0 },
    { "generate.top_k", "int", "--top-k", "MOE_TOP_K", "0", "0..16777216",
      "Choose among this many likeliest tokens; 0: all", "engine", 0 },
    { "generate.top_p", "float", "--top-p", "MOE_TOP_P", "1", "0..1",
      "Choose among the likeliest tokens that hold this much probability",
      "engine", 0 },
    { "generate.min_p", "float", "--min-p", "MOE_MIN_P", "0", "0..1",
      "Leave out tokens less likely than this share of the likeliest",
      "engine", 0 },
    { "generate.repeat_penalty", "float",
      "--repeat-penalty --repetition-penalty", "MOE_REPEAT_PENALTY", "1",
      "0.01..100", "Make tokens that were there less likely; 1: off",
      "engine", 0 },
    { "generate.presence_penalty", "float", "--presence-penalty",
      "MOE_PRESENCE_PENALTY", "0", "-100..100",
      "Taken once from the logit of each token generated before", "engine",
      0 },
    { "generate.frequency_penalty", "float", "--frequency-penalty",
      "MOE_FREQUENCY_PENALTY", "0", "-100..100",
      "Taken from a token's logit for each time it was generated", "engine",
      0 },
    { "generate.seed", "int", "-s --seed", "MOE_SEED", "-1", "-1..",
      "Seed of the choice of tokens; -1: a new one each time", "engine", 0 },
    { "generate.stop", "list", "--stop", "MOE_STOP", "", "",
      "Texts that end the output; on the command line one for each --stop",
      "cli", 0 },
    { "generate.ignore_eos", "bool", "--ignore-eos", "MOE_IGNORE_EOS",
      "false", "", "Go on after the model's end token", "cli", 0 },

    { "quant.experts", "string", "--experts", "MOE_EXPERTS", "int4-g32", "",
      "Format of the experts' weights; keep: as they are", "quantize", 0 },
    { "quant.shared", "string", "--shared", "MOE_SHARED", "keep", "",
      "Format of shared experts' weights", "quantize", 0 },
    { "quant.attention", "string", "--attention", "MOE_ATTENTION", "keep",
      "", "Format of attention projections", "quantize", 0 },
    { "quant.dense", "string", "--dense", "MOE_DENSE", "keep", "",
      "Format of dense feed-forward layers", "quantize", 0 },
    { "quant.router", "string", "--router", "MOE_ROUTER", "keep", "",
      "Format of routers", "quantize", 0 },
    { "quant.embeddings", "string", "--embeddings", "MOE_EMBEDDINGS", "keep",
      "", "Format of the embedding and the output head", "quantize", 0 },
    { "quant.calibrate", "string", "--calibrate", "MOE_CALIBRATE", "", "",
      "Text that the model reads first, to round its weights by what they are "
      "multiplied with: a file, or self: what the model writes",
      "quantize", MOE_ROW_FILES },
    { "quant.calibrate_tokens", "int", "--calibrate-tokens",
      "MOE_CALIBRATE_TOKENS", "24576", "256..16777216",
      "Tokens of that text, taken evenly from it", "quantize", 0 },

    { "log.level", "error|warn|info|debug|trace", "--log-level",
      "MOE_LOG_LEVEL", "warn", "", "How much is said on standard error",
      "config", 0 },

    { "text.template_helper", "string", "--template-helper",
      "MOE_TEMPLATE_HELPER", MOE_LIBEXECDIR "/moe-template", "",
      "Program that fills in a model's chat template", "text",
      MOE_ROW_FILES },
};

const size_t moe_option_row_count
    = sizeof(moe_option_rows) / sizeof(moe_option_rows[0]);

long
moe_row_find(const char *key)
{
    size_t i;

    for (i = 0; i < moe_option_row_count; i++)
        if (strcmp(moe_option_rows[i].key, key) == 0)
            return (long) i;
    return -1;
}

int
moe_row_has_flag(const struct moe_option_row *row, const char *flag)
{
    size_t      len = strlen(flag);
    const char *p = row->flags;

    if (len == 0 || strchr(flag, ' ') != NULL)
        return 0;
    while ((p = strstr(p, flag)) != NULL) {
        if ((p == row->flags || p[-1] == ' ')
            && (p[len] == '\0' || p[len] == ' '))
            return 1;
        p += len;
    }
    return 0;
}

long
moe_row_by_flag(const char *flag)
{
    size_t i;

    for (i = 0; i < moe_option_row_count; i++)
        if (moe_row_has_flag(&moe_option_rows[i], flag))
            return (long) i;
    return -1;
}

long
moe_row_by_env(const char *env)
{
    size_t i;

    for (i = 0; i < moe_option_row_count; i++)
        if (strcmp(moe_option_rows[i].env, env) == 0)
            return (long) i;
    return -1;
}

int
moe_section_is_free(const char *section)
{
    const char *name;

    if (strncmp(section, "backend.", 8) == 0)
        name = section + 8;
    else if (strncmp(section, "quant.", 6) == 0)
        name = section + 6;
    else
        return 0;
    return *name != '\0'
           && name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-")]
                  == '\0';
}
