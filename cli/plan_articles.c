/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_articles.c - the tables of three public articles, computed again.
 *
 * Their figures are quoted; ours come from the library when the page is
 * made, so that the page and the tool cannot part.  Bare rooflines where an
 * article gives a theoretical bound, estimates where it gives a measured
 * figure or a price.
 */
#include "plan.h"

#include <math.h>
#include <string.h>

enum kind {
    HEAD,    /* a heading; why: the text below it */
    TABLE,   /* starts a table; why: what its figures are */
    TEXT,    /* ours is in `format`: words instead of a figure */
    TOTAL,   /* parameters */
    ACTIVE,
    SHARE,   /* active of total, per cent */
    WEIGHTS, /* bytes of all weights */
    RATIO,   /* total over active */
    FLOP,    /* of a token */
    READ,    /* bytes read by a step of one */
    DECODE,  /* tokens a second of a batch of one, bare roofline */
    PREFILL, /* seconds, bare roofline; x: tokens */
    TPOT,    /* seconds, bare roofline, batch of one */
    FULLEST, /* expected load of the fullest of 8 experts, 2 a token; x: batch*/
    FACTOR,  /* ... over the mean */
    LOSS,    /* of a step's pace by that, Mixtral, EP 8 on A100; x: batch */
    SHARD,   /* weight bytes of a device; x: tp, y: ep */
    SENT,    /* bytes a device sends in a layer; x: tp, y: ep; batch 256 */
    FEWEST,  /* devices that hold it, of 1, 2, 4, ... */
    WHOLE,   /* seconds of a request, bare roofline; x: tokens in, y: out */
    RATE,    /* tokens a second by the estimate; x: tp, y: ep; batch 256 */
    PART,    /* weight bytes of a device; x: copies of the model */
    COPIES,  /* tokens a second by the estimate; x: copies; batch 256 */
    COST     /* USD a million output tokens by the estimate; x: price */
};

struct row {
    enum kind   kind;
    const char *what, *theirs;
    const char *model, *device, *format;
    uint32_t    count;
    double      x, y;
    const char *why;
};

#define A100 "a100-80-sxm"
#define H100 "h100-sxm"

static const struct row rows[] = {
    { HEAD, "MoE against dense: a cost comparison", "", "", "", "", 0, 0, 0,
      "The article compares Mixtral 8x7B, DeepSeek-V3 and dense Llamas." },
    { TABLE, "Memory and active parameters", "", "", "", "", 0, 0, 0,
      "parameters and bytes of all weights" },
    { TOTAL, "Llama 70B, total", "70B", "llama-3-70b", "", "", 0, 0, 0, "" },
    { ACTIVE, "Llama 70B, active", "70B", "llama-3-70b", "", "", 0, 0, 0,
      "without the input table, of which a token reads one row" },
    { RATIO, "Llama 70B, memory to compute", "1.0x", "llama-3-70b", "", "", 0,
      0, 0, "" },
    { WEIGHTS, "Llama 70B, fp16", "140 GB", "llama-3-70b", "", "bf16", 0, 0,
      0, "70.55B parameters, not 70B" },
    { TOTAL, "Mixtral 8x7B, total", "47B", "mixtral-8x7b", "", "", 0, 0, 0,
      "" },
    { ACTIVE, "Mixtral 8x7B, active", "13B", "mixtral-8x7b", "", "", 0, 0, 0,
      "12.88B with the input table" },
    { WEIGHTS, "Mixtral 8x7B, fp16", "94 GB", "mixtral-8x7b", "", "bf16", 0,
      0, 0, "" },
    { RATIO, "Mixtral 8x7B, memory to compute", "3.6x", "mixtral-8x7b", "",
      "", 0, 0, 0, "" },
    { TOTAL, "DeepSeek-V3, total", "671B", "deepseek-v3", "", "", 0, 0, 0,
      "" },
    { ACTIVE, "DeepSeek-V3, active", "37B", "deepseek-v3", "", "", 0, 0, 0,
      "without the input table, as its makers count" },
    { WEIGHTS, "DeepSeek-V3, fp16", "1,342 GB", "deepseek-v3", "", "bf16", 0,
      0, 0, "nobody serves it so" },
    { WEIGHTS, "DeepSeek-V3, as published", "-", "deepseek-v3", "", "fp8", 0,
      0, 0, "it ships in FP8" },
    { RATIO, "DeepSeek-V3, memory to compute", "18.1x", "deepseek-v3", "", "",
      0, 0, 0, "memory is shared by the whole batch and more devices bring "
      "bandwidth too: a fixed cost, not 18 times the cost of a token" },
    { WEIGHTS, "Llama 405B, fp16", "810 GB", "llama-3.1-405b", "", "bf16", 0,
      0, 0, "" },
    { TOTAL, "Llama 405B, total", "405B", "llama-3.1-405b", "", "", 0, 0, 0,
      "" },
    { ACTIVE, "Llama 405B, active", "405B", "llama-3.1-405b", "", "", 0, 0, 0,
      "" },
    { RATIO, "Llama 405B, memory to compute", "1.0x", "llama-3.1-405b", "",
      "", 0, 0, 0, "" },
    { FEWEST, "Llama 70B, A100-80 it takes", "2", "llama-3-70b", A100, "bf16",
      1, 0, 0, "" },
    { FEWEST, "DeepSeek-V3, fp16, A100-80 it takes", "17", "deepseek-v3",
      A100, "bf16", 1, 0, 0, "16 are full of weights; heads, experts and "
      "layers divide by powers of two" },
    { TOTAL, "\"Qwen2.5-MoE-57B\", total", "57B", "qwen2-57b-a14b", "", "", 0,
      0, 0, "" },
    { ACTIVE, "\"Qwen2.5-MoE-57B\", active", "14B", "qwen2-57b-a14b", "", "",
      0, 0, 0, "" },
    { RATIO, "\"Qwen2.5-MoE-57B\", memory to compute", "4.1x",
      "qwen2-57b-a14b", "", "", 0, 0, 0, "" },
    { WEIGHTS, "\"Qwen2.5-MoE-57B\", fp16", "114 GB", "qwen2-57b-a14b", "",
      "bf16", 0, 0, 0, "no such model; Qwen2-57B-A14B is meant" },

    { TABLE, "Operations per token", "", "", "", "", 0, 0, 0,
      "two operations a weight that is used; scores of attention left out" },
    { FLOP, "Llama 70B", "155.6 TFLOP", "llama-3-70b", "", "", 0, 0, 0,
      "a thousandfold off: giga, not tera; and 8 h^2 a layer for attention "
      "is right only if keys and values have as many heads as queries" },
    { FLOP, "Mixtral 8x7B", "26.9 TFLOP", "mixtral-8x7b", "", "", 0, 0, 0,
      "the same two errors" },
    { FLOP, "DeepSeek-V3", "411.8 TFLOP", "deepseek-v3", "", "", 0, 0, 0,
      "besides, its experts are 2,048 wide; 18,432 is the width of its three "
      "dense layers" },
    { FLOP, "Llama 405B", "892 TFLOP", "llama-3.1-405b", "", "", 0, 0, 0,
      "" },
    { FLOP, "Llama 70B INT4", "~80 TFLOP", "llama-3-70b", "", "4bit", 0, 0, 0,
      "narrower weights change what is read, not what is multiplied" },

    { TABLE, "Decoding, one sequence", "", "", "", "", 0, 0, 0,
      "tokens a second of the bare roofline, no context" },
    { DECODE, "Mixtral, fp16, one A100", "77 (measured 68)", "mixtral-8x7b",
      A100, "bf16", 1, 0, 0, "93.4 GB do not fit on one" },
    { DECODE, "Mixtral, fp16, two A100", "-", "mixtral-8x7b", A100, "bf16", 2,
      0, 0, "" },
    { DECODE, "Llama 70B, fp16, TP 2", "57 (measured 48)", "llama-3-70b",
      A100, "bf16", 2, 0, 0, "the two devices were counted twice; 48 is more "
      "than the bound" },
    { DECODE, "Llama 70B, INT4, one A100", "114 (measured 95)", "llama-3-70b",
      A100, "4bit", 1, 0, 0, "4-bit weights are 35.3 GB, not 17.5" },
    { DECODE, "DeepSeek-V3, FP8, 8 A100", "381 (measured 285)", "deepseek-v3",
      A100, "8bit", 8, 0, 0, "671 GB do not fit, and A100 has no FP8 units" },
    { DECODE, "DeepSeek-V3, FP8, 8 H200", "-", "deepseek-v3", "h200-sxm",
      "8bit", 8, 0, 0, "the first eight-device machine that holds it" },
    { DECODE, "Llama 405B, FP8, 8 A100", "79 (measured 62)", "llama-3.1-405b",
      A100, "8bit", 8, 0, 0, "404 GB in FP8; 203 would be 4 bits" },
    { READ, "Mixtral, bytes a token", "26 GB", "mixtral-8x7b", A100, "bf16",
      2, 1, 0, "at a batch of 1" },
    { READ, "Mixtral, bytes a step of 16", "26 GB", "mixtral-8x7b", A100,
      "bf16", 2, 16, 0, "\"other experts are not loaded\" holds for one "
      "sequence; 16 sequences read 99 % of the experts" },

    { TABLE, "Prefill of 2,048 tokens", "", "", "", "", 0, 0, 0,
      "bare roofline with the scores; real engines reach 40 to 60 %" },
    { PREFILL, "Mixtral, two A100", "88 ms", "mixtral-8x7b", A100, "bf16", 2,
      2048, 0, "close: the errors cancel" },
    { PREFILL, "Llama 70B, four A100", "256 ms", "llama-3-70b", A100, "bf16",
      4, 2048, 0, "" },
    { PREFILL, "DeepSeek-V3, 8 H100", "106 ms", "deepseek-v3", H100, "8bit",
      8, 2048, 0, "if it fitted: reading all experts once binds, not "
      "arithmetic" },
    { PREFILL, "Llama 405B, 8 H100", "230 ms", "llama-3.1-405b", H100, "bf16",
      8, 2048, 0, "at the 16-bit rate" },
    { PREFILL, "Llama 70B, INT4, four A100", "131 ms", "llama-3-70b", A100,
      "4bit", 4, 2048, 0, "INT4 weights are multiplied in 16 bits" },

    { TABLE, "Imbalance of 8 experts, 2 a token", "", "", "", "", 0, 0, 0,
      "expected load of the fullest expert, uniform routing, its factor over "
      "the mean, and how much of its pace a step of Mixtral loses by it with "
      "an expert on each of eight A100, by the estimate" },
    { FULLEST, "batch 16, fullest", "8", "", "", "", 0, 16, 0,
      "the article's column lies at the 80th to 95th percentile; it is not "
      "what to expect" },
    { FACTOR, "batch 16, factor", "2.0x", "", "", "", 0, 16, 0,
      "throughput is not its reciprocal: at this batch time follows the "
      "experts that are read" },
    { LOSS, "batch 16, loss", "50 %", "mixtral-8x7b", A100, "bf16", 8, 16, 0,
      "every device reads its expert once, for one token or for seven" },
    { FULLEST, "batch 64, fullest", "24", "", "", "", 0, 64, 0, "" },
    { FACTOR, "batch 64, factor", "1.5x", "", "", "", 0, 64, 0, "" },
    { LOSS, "batch 64, loss", "33 %", "mixtral-8x7b", A100, "bf16", 8, 64, 0,
      "" },
    { FULLEST, "batch 256, fullest", "82", "", "", "", 0, 256, 0, "" },
    { FACTOR, "batch 256, factor", "1.28x", "", "", "", 0, 256, 0, "" },
    { LOSS, "batch 256, loss", "22 %", "mixtral-8x7b", A100, "bf16", 8, 256,
      0, "" },
    { FULLEST, "batch 1,024, fullest", "290", "", "", "", 0, 1024, 0, "" },
    { FACTOR, "batch 1,024, factor", "1.13x", "", "", "", 0, 1024, 0, "" },
    { LOSS, "batch 1,024, loss", "12 %", "mixtral-8x7b", A100, "bf16", 8,
      1024, 0, "" },
    { FULLEST, "batch 4,096, fullest", "1080", "", "", "", 0, 4096, 0, "" },
    { FACTOR, "batch 4,096, factor", "1.05x", "", "", "", 0, 4096, 0,
      "goes to 1 only if the router is uniform; a popular expert stays "
      "popular in every batch" },
    { LOSS, "batch 4,096, loss", "5 %", "mixtral-8x7b", A100, "bf16", 8, 4096,
      0, "here arithmetic binds, and the fullest device is waited for" },

    { TABLE, "Mixtral in fp16 on 8 devices", "", "", "", "", 0, 0, 0,
      "weights of one device; what a device sends in a layer for 256 "
      "tokens" },
    { SHARD, "EP 8", "11.75 GB", "mixtral-8x7b", A100, "bf16", 8, 1, 8,
      "everything but experts is on every device" },
    { SHARD, "EP 8 with attention cut in 8", "-", "mixtral-8x7b", A100,
      "bf16", 8, 8, 8, "" },
    { SHARD, "TP 8", "11.75 GB", "mixtral-8x7b", A100, "bf16", 8, 8, 1, "" },
    { SHARD, "EP 4, TP 2", "23.5 GB", "mixtral-8x7b", A100, "bf16", 8, 2, 4,
      "eight devices hold an eighth of the experts however they are dealt" },
    { SHARD, "EP 2, TP 4", "47 GB", "mixtral-8x7b", A100, "bf16", 8, 4, 2,
      "" },
    { PART, "replicated on 2", "47 GB", "mixtral-8x7b", A100, "bf16", 2, 2,
      0, "a replica is the whole model" },
    { PART, "four replicas, each on 2", "-", "mixtral-8x7b", A100, "bf16", 8,
      4, 0, "eight devices as well, and what 47 GB a device would be" },
    { RATE, "EP 8, tokens a second", "14,200", "mixtral-8x7b", A100, "bf16", 8,
      1, 8, "the estimate for 256 sequences of 1,024 in and 256 out; the "
      "article does not say its batch" },
    { RATE, "TP 8, tokens a second", "12,800", "mixtral-8x7b", A100, "bf16",
      8, 8, 1, "" },
    { RATE, "EP 4, TP 2, tokens a second", "13,500", "mixtral-8x7b", A100,
      "bf16", 8, 2, 4, "" },
    { RATE, "EP 2, TP 4, tokens a second", "13,100", "mixtral-8x7b", A100,
      "bf16", 8, 4, 2, "" },
    { COPIES, "replicated on 2, tokens a second", "8,400", "mixtral-8x7b",
      A100, "bf16", 2, 2, 0, "no card of 80 GB holds 93.4; throughput adds up "
      "over replicas, and each reads all of its weights for half of the "
      "sequences" },
    { COPIES, "four replicas, each on 2, tokens a second", "-",
      "mixtral-8x7b", A100, "bf16", 8, 4, 0, "on eight devices, as the rows "
      "above: four times the reading, no faster for a single token" },
    { SENT, "EP 8, sent", "4 MB in all", "mixtral-8x7b", A100, "bf16", 8, 1,
      8, "there and back, of one device" },
    { SENT, "TP 8, sent", "2 MB twice", "mixtral-8x7b", A100, "bf16", 8, 8, 1,
      "two ring all-reduces: eight times what EP sends" },

    { TABLE, "Cost of a million tokens", "", "", "", "", 0, 0, 0,
      "output tokens by the estimate at the article's prices, 64 sequences, "
      "1,024 tokens in and 256 out, every hour used" },
    { COST, "Llama 70B, fp16, four A100 at $3", "$0.65, 5,120 a second",
      "llama-3-70b", A100, "bf16", 4, 3, 0,
      "the formula is right, but it leaves out input tokens and idle hours, "
      "and does not say its batch" },
    { COST, "Llama 70B, INT4, four A100 at $3", "$0.40, 8,350 a second",
      "llama-3-70b", A100, "int4", 4, 3, 0, "" },
    { COST, "Llama 70B, INT4, one A100 at $3", "-", "llama-3-70b", A100,
      "int4", 1, 3, 0, "4 bits fit on one card; billing four is unfair" },
    { COST, "Mixtral, fp16, two A100 at $3", "$0.24, 6,800 a second",
      "mixtral-8x7b", A100, "bf16", 2, 3, 0, "" },
    { COST, "Mixtral, INT4, two A100 at $3", "$0.18, 9,200 a second",
      "mixtral-8x7b", A100, "int4", 2, 3, 0, "" },
    { COST, "Mixtral, INT4, one A100 at $3", "-", "mixtral-8x7b", A100,
      "int4", 1, 3, 0, "fits on one card as well" },
    { COST, "DeepSeek-V3, FP8, 8 H100 at $5", "$0.60, 18,500 a second",
      "deepseek-v3", H100, "fp8", 8, 5, 0, "does not fit on 8 H100" },
    { COST, "DeepSeek-V3, FP8, 8 H200 at $5", "-", "deepseek-v3", "h200-sxm",
      "fp8", 8, 5, 0, "" },
    { COST, "Llama 405B, FP8, 8 H100 at $5", "$1.54, 7,200 a second",
      "llama-3.1-405b", H100, "fp8", 8, 5, 0, "" },

    { TABLE, "Latency of one request", "", "", "", "", 0, 0, 0,
      "bare rooflines: nothing is faster than these" },
    { PREFILL, "Mixtral, two A100, 512 in", "42 ms", "mixtral-8x7b", A100,
      "bf16", 2, 512, 0, "reading all experts once; arithmetic alone would "
      "take 20.8 ms" },
    { TPOT, "Mixtral, two A100, each token", "14.7 ms", "mixtral-8x7b", A100,
      "bf16", 2, 0, 0, "" },
    { PREFILL, "Llama 70B, four A100, 512 in", "62 ms", "llama-3-70b", A100,
      "bf16", 4, 512, 0, "" },
    { TPOT, "Llama 70B, four A100, each token", "20.8 ms", "llama-3-70b",
      A100, "bf16", 4, 0, 0, "" },
    { PREFILL, "DeepSeek-V3, 8 H100, 512 in", "35 ms", "deepseek-v3", H100,
      "8bit", 8, 512, 0, "if it fitted" },
    { TPOT, "DeepSeek-V3, 8 H100, each token", "5.4 ms", "deepseek-v3", H100,
      "8bit", 8, 0, 0, "37 GB at 3.35 TB/s are 11 ms on one device and 1.4 "
      "on eight; 5.5 is neither" },
    { PREFILL, "Llama 405B, 8 H100, 512 in", "68 ms", "llama-3.1-405b", H100,
      "bf16", 8, 512, 0, "" },
    { TPOT, "Llama 405B, 8 H100, each token", "16.1 ms", "llama-3.1-405b",
      H100, "8bit", 8, 0, 0, "in FP8" },
    { PREFILL, "Llama 70B, INT4, two A100, 512 in", "48 ms", "llama-3-70b",
      A100, "4bit", 2, 512, 0, "48 ms is impossible" },
    { TPOT, "Llama 70B, INT4, two A100, each token", "10.5 ms", "llama-3-70b",
      A100, "4bit", 2, 0, 0, "" },
    { WHOLE, "Mixtral, two A100, 512 in, 256 out", "3.80 s",
      "mixtral-8x7b", A100, "bf16", 2, 512, 256, "" },
    { WHOLE, "Llama 70B, four A100, 512 in, 256 out", "5.39 s",
      "llama-3-70b", A100, "bf16", 4, 512, 256, "" },
    { WHOLE, "DeepSeek-V3, 8 H100, 512 in, 256 out", "1.42 s",
      "deepseek-v3", H100, "8bit", 8, 512, 256, "if it fitted" },
    { WHOLE, "Llama 405B, 8 H100, 512 in, 256 out", "4.18 s",
      "llama-3.1-405b", H100, "8bit", 8, 512, 256, "in FP8" },
    { WHOLE, "Llama 70B, INT4, two A100, 512 in, 256 out", "2.72 s",
      "llama-3-70b", A100, "4bit", 2, 512, 256, "" },

    { HEAD, "What is MoE: an explainer", "", "", "", "", 0, 0, 0, "" },
    { TABLE, "Total and active parameters", "", "", "", "", 0, 0, 0,
      "text models; active without the input table" },
    { TOTAL, "Mixtral 8x7B, total", "46.7B", "mixtral-8x7b", "", "", 0, 0, 0,
      "" },
    { ACTIVE, "Mixtral 8x7B, active", "12.9B", "mixtral-8x7b", "", "", 0, 0,
      0, "12.88B with the input table" },
    { SHARE, "Mixtral 8x7B, active share", "28 %", "mixtral-8x7b", "", "", 0,
      0, 0, "12.9B and 27.6 % with the input table" },
    { TOTAL, "Llama 4 Scout, total", "109B", "llama-4-scout", "", "", 0, 0, 0,
      "109B with its vision tower" },
    { ACTIVE, "Llama 4 Scout, active", "17B", "llama-4-scout", "", "", 0, 0,
      0, "17.17B with the input table" },
    { SHARE, "Llama 4 Scout, active share", "16 %", "llama-4-scout", "", "",
      0, 0, 0, "" },
    { TOTAL, "Llama 4 Maverick, total", "400B", "llama-4-maverick", "", "", 0,
      0, 0, "experts in every second layer only" },
    { ACTIVE, "Llama 4 Maverick, active", "17B", "llama-4-maverick", "", "",
      0, 0, 0, "17.18B with the input table" },
    { SHARE, "Llama 4 Maverick, active share", "4 %", "llama-4-maverick", "",
      "", 0, 0, 0, "" },
    { TOTAL, "DeepSeek V3, total", "671B", "deepseek-v3", "", "", 0, 0, 0,
      "" },
    { ACTIVE, "DeepSeek V3, active", "37B", "deepseek-v3", "", "", 0, 0, 0,
      "" },
    { SHARE, "DeepSeek V3, active share", "5.5 %", "deepseek-v3", "", "", 0,
      0, 0, "" },
    { TOTAL, "Llama 3 70B, total", "70B", "llama-3-70b", "", "", 0, 0, 0,
      "" },
    { SHARE, "Llama 3 70B, active share", "100 %", "llama-3-70b", "", "", 0,
      0, 0, "100 % with the input table" },
    { TABLE, "Its figures in the text", "", "", "", "", 0, 0, 0,
      "weights of a model" },
    { WEIGHTS, "Mixtral in fp16", "about 90 GB", "mixtral-8x7b", "", "bf16",
      0, 0, 0, "87.0 GiB. \"An A100-80 is not enough, you need an H100\": "
      "that has 80 GB too" },
    { WEIGHTS, "Scout in FP8", "fits one H100", "llama-4-scout", "", "fp8", 0,
      0, 0, "it does not; in 4 bits it does" },
    { WEIGHTS, "Scout in INT4", "-", "llama-4-scout", "", "int4", 0, 0, 0,
      "" },
    { TEXT, "training", "not cheaper", "", "", "cheaper", 0, 0, 0,
      "training FLOP follow active parameters as well" },

    { HEAD, "Deploying Mixtral: a guide", "", "", "", "", 0, 0, 0, "" },
    { TABLE, "Its table of resources", "", "", "", "", 0, 0, 0,
      "what each follows" },
    { TEXT, "memory footprint", "total parameters", "", "",
      "total parameters, and a cache like a dense model's", 0, 0, 0,
      "at long contexts the cache is most of it" },
    { TEXT, "compute per token", "only active experts", "", "",
      "active parameters and the scores", 0, 0, 0,
      "DeepSeek-V3 spends half of a token's operations on scores at a "
      "context of 4,096" },
    { TEXT, "cost profile", "memory heavy, compute light", "", "",
      "memory heavy; light per token, not per step", 0, 0, 0,
      "a batch of some tens reads nearly every expert each step" },
    { TEXT, "decode bandwidth", "-", "", "", "distinct experts of the batch",
      0, 0, 0, "missing from the guide: E (1 - (1 - k/E)^B) a layer" },
};

static int
device_of(const struct row *r, struct moe_plan_device *d,
          struct moe_error *err)
{
    d->struct_size = sizeof(*d);
    return moe_plan_device(r->device, d, err) == MOE_OK;
}

/* Ours, into buf (64 bytes); 0 after a failure in err. */
static int
ours(const struct row *r, char *buf, struct moe_error *err)
{
    struct moe_plan_model  m = { .struct_size = sizeof(m) };
    struct moe_plan_device d;
    struct moe_plan_setup  s = { .struct_size = sizeof(s), .device = &d,
                                 .batch = 1, .devices = r->count };
    struct moe_plan_result x = { .struct_size = sizeof(x) };
    moe_planner           *p = NULL;
    uint64_t               bytes = 0;
    double                 loss = 0;
    char                   a[32], b[32];
    int                    good = 1;

    if (r->kind == TEXT) {
        snprintf(buf, 64, "%s", r->format);
        return 1;
    }
    if (r->kind == FULLEST || r->kind == FACTOR) {
        double load = moe_plan_max_load(8, 2, r->x, 8);

        if (r->kind == FACTOR)
            snprintf(buf, 64, "%.3fx", load / (r->x / 4));
        else
            snprintf(buf, 64, "%.*f", load < 100 ? 2 : 0, load);
        return 1;
    }
    if (moe_plan_open(r->model, &p, err) != MOE_OK)
        return 0;
    moe_plan_model(p, &m);
    s.format = r->format[0] != '\0' ? r->format : NULL;
    if (r->count > 0) {
        if (r->kind == DECODE || r->kind == PREFILL || r->kind == TPOT
            || r->kind == READ || r->kind == WHOLE)
            s.flags = MOE_PLAN_IDEAL;
        if (r->kind == PREFILL || r->kind == WHOLE)
            s.input = r->x;
        if (r->kind == READ)
            s.batch = r->x;
        if (r->kind == PART || r->kind == COPIES) {
            s.replicas = (uint32_t) r->x;
            s.batch = 256;
        }
        if (r->kind == RATE || r->kind == COPIES) {
            s.input = 1024;
            s.output = 256;
        }
        if (r->kind == LOSS) {
            s.tp = 1;
            s.ep = 8;
            s.batch = r->x;
            s.context = 1024;
        }
        if (r->kind == SHARD || r->kind == SENT || r->kind == RATE) {
            s.tp = (uint32_t) r->x;
            s.ep = (uint32_t) r->y;
            s.batch = 256;
        }
        if (r->kind == COST) {
            s.price = r->x;
            s.batch = 64;
            s.input = 1024;
            s.output = 256;
        }
        good = device_of(r, &d, err) && moe_plan_run(p, &s, &x, err) == MOE_OK;
        if (good && r->kind == LOSS) {
            loss = x.step;
            s.imbalance = 1;
            good = moe_plan_run(p, &s, &x, err) == MOE_OK;
            loss = 1 - x.step / loss;
        }
    }
    if (good && r->kind == WEIGHTS)
        good = moe_plan_weights(p, s.format, &bytes, NULL, err) == MOE_OK;
    switch (good ? r->kind : HEAD) {
    case TOTAL:
        snprintf(buf, 64, "%.2fB", (double) m.total / 1e9);
        break;
    case ACTIVE:
        snprintf(buf, 64, "%.2fB", (double) m.active / 1e9);
        break;
    case SHARE:
        snprintf(buf, 64, "%.1f %%", 100 * (double) m.active
                                         / (double) m.total);
        break;
    case WEIGHTS:
        snprintf(buf, 64, "%.1f GB", (double) bytes / 1e9);
        break;
    case RATIO:
        snprintf(buf, 64, "%.1fx", (double) m.total / (double) m.active);
        break;
    case FLOP:
        snprintf(buf, 64, "%.2f GFLOP", m.flop_token / 1e9);
        break;
    case READ:
        snprintf(buf, 64, "%.1f GB", x.step_bytes / 1e9);
        break;
    case DECODE:
        snprintf(buf, 64, "%.1f%s", x.tokens_s, x.fits ? "" : ", if it fitted");
        break;
    case PREFILL:
        snprintf(buf, 64, "%.1f ms", x.ttft * 1e3);
        break;
    case TPOT:
        snprintf(buf, 64, "%.2f ms", x.step * 1e3);
        break;
    case LOSS:
        snprintf(buf, 64, "%.1f %%", 100 * loss);
        break;
    case SHARD:
    case PART:
        snprintf(buf, 64, "%.2f GB", (x.experts + x.rest) / 1e9);
        break;
    case SENT:
        snprintf(buf, 64, "%.2f MB", x.layer_traffic / 1e6);
        break;
    case FEWEST:
        snprintf(buf, 64, "%u", moe_plan_devices(p, &s, 1024));
        break;
    case WHOLE:
        snprintf(buf, 64, "%.2f s", x.ttft + (r->y - 1) * x.step);
        break;
    case RATE:
    case COPIES:
        snprintf(buf, 64, "%s%s", whole_text(x.tokens_s, a),
                 x.fits ? "" : ", if it fitted");
        break;
    case COST:
        if (x.fits)
            snprintf(buf, 64, "%s, %s a second", usd_text(x.usd_output, a),
                     whole_text(x.tokens_s, b));
        else
            snprintf(buf, 64, "does not fit");
        break;
    default:
        break;
    }
    moe_plan_close(p);
    return good;
}

int
plan_articles(void)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    char             text[64];
    size_t           i;

    out_text(
        "# Three articles, computed again\n\n"
        "Made by `moe-run plan --articles`. Three public articles about what "
        "a\nmixture-of-experts model costs to serve, table by table: their "
        "figure, what\n`moe-run plan` computes, and why they differ.\n\n"
        "A GB is 1e9 bytes and a multiply-add is two operations. *Bare "
        "roofline*: all\ndevices as one at the peaks of their data sheets, "
        "without communication; no\nreal engine reaches it. Prices are the "
        "articles' own.\n");
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];

        if (r->kind == HEAD) {
            out_format("\n## %s\n", r->what);
            if (r->why[0] != '\0')
                out_format("\n%s\n", r->why);
            continue;
        }
        if (r->kind == TABLE) {
            out_format("\n### %s\n\nOurs: %s.\n\n"
                       "| | article | ours | |\n|---|---|---|---|\n",
                       r->what, r->why);
            continue;
        }
        if (!ours(r, text, &err))
            return fail(&err);
        out_format("| %s | %s | %s | %s |\n", r->what, r->theirs, text,
                   r->why);
    }
    return EXIT_OK;
}
