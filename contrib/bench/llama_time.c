/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llama_time.c - the tests of `moe-run bench` against libllama.
 *
 *     llama_time MODEL.gguf THREADS TEST...    pp512 tg64 tg16b4
 *
 * llama-bench knows no batches and llama-batched-bench no lists; this runs
 * both kinds on one loaded model and prints "TEST TOKENS/S" lines.  As there,
 * tokens are random and nothing is sampled; weights are read into memory, so
 * that they can be repacked.  A test runs once to warm up (two steps of a
 * generation), then once.
 */
#include <llama.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define UBATCH 512
#define BATCH_MAX 64

static double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static void
quiet(enum ggml_log_level level, const char *text, void *ctx)
{
    (void) ctx;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

/* n tokens for each of `seqs` sequences from position pos on; the last of
 * each asks for logits. */
static int
decode(struct llama_context *c, int vocab, int seqs, int pos, int n)
{
    struct llama_batch b = llama_batch_init(seqs * n, 0, 1);
    int                i, j, rc;

    for (j = 0; j < seqs; j++)
        for (i = 0; i < n; i++) {
            int at = b.n_tokens++;

            b.token[at] = rand() % vocab;
            b.pos[at] = pos + i;
            b.n_seq_id[at] = 1;
            b.seq_id[at][0] = j;
            b.logits[at] = i + 1 == n;
        }
    rc = llama_decode(c, b);
    llama_synchronize(c);
    llama_batch_free(b);
    return rc;
}

/* Seconds of one run; negative: it failed. */
static double
run(struct llama_context *c, int vocab, int prompt, int gen, int batch)
{
    double start;
    int    i;

    llama_memory_clear(llama_get_memory(c), true);
    if (prompt == 0 && decode(c, vocab, batch, 0, 1) != 0)
        return -1;
    start = now();
    if (prompt != 0 && decode(c, vocab, batch, 0, prompt) != 0)
        return -1;
    for (i = 0; i < gen; i++)
        if (decode(c, vocab, batch, 1 + i, 1) != 0)
            return -1;
    return now() - start;
}

int
main(int argc, char **argv)
{
    struct llama_model_params mp;
    struct llama_model       *m;
    int                       threads, vocab, i;

    if (argc < 4) {
        fputs("usage: llama_time MODEL.gguf THREADS TEST...\n", stderr);
        return 2;
    }
    threads = atoi(argv[2]);
    llama_log_set(quiet, NULL);
    llama_backend_init();
    mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
#ifdef LLAMA_TIME_OLD
    mp.use_mmap = false;
#else
    mp.load_mode = LLAMA_LOAD_MODE_NONE;
#endif
    m = llama_model_load_from_file(argv[1], mp);
    if (m == NULL)
        return 1;
    vocab = llama_vocab_n_tokens(llama_model_get_vocab(m));
    for (i = 3; i < argc; i++) {
        struct llama_context_params cp = llama_context_default_params();
        struct llama_context       *c;
        char                        kind[3];
        int                         n = 0, batch = 1, prompt, gen;
        double                      s = -1;

        if (sscanf(argv[i], "%2[pgt]%db%d", kind, &n, &batch) < 2 || n < 1
            || batch < 1 || batch > BATCH_MAX
            || (strcmp(kind, "pp") != 0 && strcmp(kind, "tg") != 0)) {
            fprintf(stderr, "llama_time: %s: pp512, tg64 or tg16b4\n",
                    argv[i]);
            return 2;
        }
        prompt = kind[0] == 'p' ? n : 0;
        gen = kind[0] == 'p' ? 0 : n;
        cp.n_ctx = (uint32_t) ((n + 256) / 256 * 256 * batch);
        cp.n_batch = (uint32_t) (prompt * batch > UBATCH ? prompt * batch
                                                         : UBATCH);
        cp.n_ubatch = UBATCH;
        cp.n_seq_max = (uint32_t) batch;
        cp.n_threads = cp.n_threads_batch = threads;
        c = llama_init_from_model(m, cp);
        if (c != NULL
            && run(c, vocab, prompt, gen < 2 ? gen : 2, batch) >= 0)
            s = run(c, vocab, prompt, gen, batch);
        if (c == NULL || s <= 0) {
            fprintf(stderr, "llama_time: %s failed\n", argv[i]);
            return 1;
        }
        printf("%s %.4f\n", argv[i], (double) n * batch / s);
        fflush(stdout);
        llama_free(c);
    }
    llama_model_free(m);
    return 0;
}
