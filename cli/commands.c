/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commands.c - what moe-run can do: one row for each command.
 *
 * A command's help, man page part and completion are made from its row and
 * from the rows of the library's option table that it reads.
 */
#include "cli.h"

#define END { NULL, NULL, NULL }
#define JSON_FLAG                                                             \
    { "--json", NULL, "Print one JSON object on standard output" }
#define RUN_READS "model engine memory plugin generate text log"

const struct flag common_flags[] = {
    { "--config", "FILE",
      "Read this INI file too; it outranks the other files" },
    { "--set", "KEY=VALUE",
      "Set any option by its key, such as engine.threads=2 or a plugin's "
      "backend.cpu.isa=avx2" },
    { "-v --verbose", NULL, "Say more; twice or three times: still more" },
    { "-q --quiet", NULL, "Leave out summaries and hints" },
    { "-h --help", NULL, "Print this help" },
    { "-V --version", NULL, "Print the version" },
    END,
};

static const struct flag generate_flags[] = {
    { "-p --prompt", "TEXT",
      "Continue this text; given several times, all of them at once" },
    { "-f --file", "FILE",
      "Continue the text of a file (-: standard input); may be given several "
      "times" },
    { "--echo", NULL, "Print the prompt before the text" },
    JSON_FLAG,
    { "--jsonl", NULL,
      "Print a JSON object a line: each piece of text as it comes, then the "
      "end of each text, then the statistics" },
    { "--explain --dry-run", NULL,
      "Print what would lie where, how it would be computed, and why; load "
      "no weights" },
    { "-cnv --conversation", NULL, "Same as the command chat" },
    { "--list-plugins", NULL, "Same as the command plugins" },
    { "--print-config", NULL, "Same as the command config" },
    { "--completion-bash", NULL, "Print a completion script for bash" },
    END,
};

static const struct flag chat_flags[] = {
    { "-p --prompt", "TEXT", "The first thing to say" },
    { "-sys --system", "TEXT", "Tell the model first how to behave" },
    { "-st --single-turn", NULL, "End after the first answer" },
    END,
};

static const struct flag json_flags[] = { JSON_FLAG, END };

static const struct flag config_flags[] = {
    JSON_FLAG,
    { "--ini", NULL, "Print a complete moe.ini with comments" },
    { "--man", "PART",
      "Print a part of a manual page in scdoc: options or ini" },
    END,
};

static const struct flag perplexity_flags[] = {
    { "-f --file", "FILE", "The text (-: standard input)" },
    { "--stride", "N",
      "Tokens between the starts of two windows; default: half a window" },
    { "--windows", "N", "Stop after this many windows" },
    JSON_FLAG,
    END,
};

static const struct flag bench_flags[] = {
    { "-p --n-prompt", "LIST",
      "Prompt lengths to time: 512, or 64,512, or 64-1024*2; 0: none [512]" },
    { "-n --n-gen", "LIST", "Tokens to generate, likewise [128]" },
    { "-b --batch", "LIST", "Sequences at once, likewise [1]" },
    { "-d --depth --n-depth", "LIST",
      "Tokens that each sequence has before the clock starts [0]" },
    { "--shape", "NAME",
      "Instead of a model a shape with random weights, made in memory: "
      "olmoe-1b-7b, qwen3-30b-a3b, mixtral-8x7b and others, or a config.json" },
    { "--layers", "N", "The first layers of the shape only" },
    { "--format", "LIST",
      "Format of its weights: one, or experts=fp8-e4m3,rest=bf16 [int4-g32]" },
    { "--skew", "X",
      "Prefer some of its experts; 0: none, 1: much [0]" },
    { "-r --repetitions", "N", "Times that each test is run [5]" },
    { "-o --output", "WORD", "Print md, csv or json [md]" },
    { "--ops", NULL,
      "Run each test once more and tell how long each operation takes" },
    { "--no-machine", NULL,
      "Do not measure what the machine can do: no shares of it" },
    END,
};

static const struct flag plan_flags[] = {
    { "--hardware", "DEVICE",
      "The kind of device: a name, a file like those of conf/hardware, or "
      "this for the machine itself, this-anew to measure it again; without it "
      "the machines that would do" },
    { "--gpus", "N",
      "How many; default: the fewest that hold the model and meet --ttft and "
      "--tpot" },
    { "--format", "FORMAT",
      "Number format of the weights, such as bf16, fp8, int4 or "
      "experts=mxfp4,rest=bf16; default: as published" },
    { "--kv", "FORMAT", "Format of the cache: bf16 (default), fp8 or f32" },
    { "--concurrency", "N", "Sequences at once; default: 1" },
    { "--input", "TOKENS",
      "Tokens of a prompt, 8k for 8192; default: 1024" },
    { "--output", "TOKENS", "Tokens of an answer; default: 256" },
    { "--context", "TOKENS",
      "Tokens a sequence may have; default: input and output" },
    { "--utilization", "U",
      "Part of the paid hours that is used, above 0 to 1; default: 1" },
    { "--price", "USD", "Of a device and hour, instead of the one on file" },
    { "--api-price", "USD",
      "Of a million output tokens elsewhere, to compare with" },
    { "--tp", "N", "Devices that share a sequence's attention" },
    { "--ep", "N", "Parts that the experts are dealt out to" },
    { "--pp", "N", "Stages of layers" },
    { "--replicas", "N",
      "Copies of the whole model, each on its part of the devices with its "
      "part of the sequences" },
    { "--ttft", "MS",
      "Only machines with the first token in time" },
    { "--tpot", "MS", "... and with each further token in time" },
    { "--ideal", NULL,
      "The bare roofline: peaks of the data sheet, no communication" },
    { "--skew", "S",
      "Draw expert loads with a log-normal popularity of this spread, in the "
      "plan and in a table" },
    { "--trace", "FILE",
      "The same with recorded routes: a byte for each expert id, by token, "
      "layer and choice" },
    { "--compare", NULL,
      "Compare the models, or one with the dense ones of its total and its "
      "active size" },
    { "--sweep", NULL, "A table of batches, formats and counts of devices" },
    { "--batches", "LIST", "For a sweep, such as 1,8,64" },
    { "--formats", "LIST",
      "For a sweep, such as bf16,int4; with semicolons if one is mixed" },
    { "--counts", "LIST", "For a sweep, such as 1,2,4,8" },
    { "--csv", NULL, "Print a sweep as comma-separated values" },
    { "--svg", "KIND",
      "Print a picture of a sweep: roofline, cost or memory" },
    { "--dark", NULL, "... for a dark background" },
    { "--chart", NULL, "Draw a sweep with characters" },
    JSON_FLAG,
    { "--models", NULL, "List the models known by name" },
    { "--devices", NULL, "List the devices known by name" },
    { "--articles", NULL,
      "Print the tables of three public articles, computed again" },
    END,
};

static const struct flag no_flags[] = { END };

const struct command commands[] = {
    { "generate", "run complete", "Continue a text (the default command)", "",
      0, RUN_READS, generate_flags, run_generate },
    { "chat", "", "Talk with a model", "", 0, RUN_READS, chat_flags,
      run_chat },
    { "inspect", "show", "Tell what a checkpoint holds", "[MODEL]", 1,
      "model.path plugin log", json_flags, run_inspect },
    { "quantize", "", "Write a checkpoint in other number formats", "IN OUT",
      2, "engine.threads memory.budget plugin quant log", no_flags,
      run_quantize },
    { "perplexity", "", "Measure how well a model predicts a text", "", 0,
      "model engine memory plugin log", perplexity_flags,
      run_perplexity },
    { "bench", "", "Measure speed, beside what the machine can do at best", "",
      0, "model engine memory plugin log", bench_flags, run_bench },
    { "plan", "", "Size, price and compare deployments of any model",
      "[MODEL]...", 16, "engine memory plugin log", plan_flags, run_plan },
    { "plugins", "", "List every plugin file, its state and the reason", "",
      0, "plugin log", json_flags, run_plugins },
    { "config", "", "Print every option, its value and its source", "", 0,
      RUN_READS " quant", config_flags, run_config },
    { "help", "", "Print the help of a command", "[COMMAND]", 1, "",
      no_flags, run_help },
    { NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL },
};
