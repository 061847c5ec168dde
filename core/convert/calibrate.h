/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calibrate.h - what goes into a model's matrices while it reads a text.
 *
 * The model runs with its own weights, on the engine, over FILE or over what
 * it writes by itself; the rows that enter the matrices of some layers are
 * kept, and their second moments are summed when a matrix's turn comes.
 * What rounding makes of them is feedback.h's.
 */
#ifndef MOE_CORE_CONVERT_CALIBRATE_H
#define MOE_CORE_CONVERT_CALIBRATE_H

#include <convert/convert.h>
#include <engine/engine.h>

/* What a matrix is multiplied with. */
#define MOE_INPUT_NONE        0u /* not calibrated: embeddings, output head */
#define MOE_INPUT_QKV         1u /* of a layer, normed: query, key, value */
#define MOE_INPUT_OUT         2u /* attention's result: output projection */
#define MOE_INPUT_FFN         3u /* normed: router, all gates and ups */
#define MOE_INPUT_DOWN        4u /* act(gate) * up of an expert */
#define MOE_INPUT_SHARED_DOWN 5u
#define MOE_INPUT_DENSE_DOWN  6u
#define MOE_INPUTS            7u

uint32_t moe_input_of(uint32_t tensor); /* MOE_T_* */
/* Nonzero: a text can help its rounding: what it is multiplied with is kept,
 * and its new format can be rounded to with feedback. */
int moe_calibrates(const struct moe_recode *r);

/* Of the mean diagonal, added to H. */
#define MOE_CALIBRATE_DAMP 0.02
/* Rows that the layer's mean counts as in the H of an expert's down, so that
 * one that was chosen rarely has a sound one. */
#define MOE_CALIBRATE_FEW 256u

struct moe_calibration_setup {
    const struct moe_host_services *services; /* quantize's own */
    const struct moe_recode_plan   *plan;
    const struct moe_registry      *registry;
    const char                     *in;
    uint64_t budget; /* bytes that the process may have */
    uint64_t spare;  /* of them for reading, encoding and writing */
    /* Now and then; anything but MOE_OK ends it. */
    moe_status (*watch)(void *ctx, const char *what, struct moe_error *err);
    void *ctx;
};

struct moe_calibration;

/*
 * Opens the engine on the model and gets the text (quant.calibrate,
 * quant.calibrate_tokens).  From now on the services' ledger has what the
 * engine leaves of the budget.
 */
moe_status moe_calibration_open(const struct moe_calibration_setup *s,
                                struct moe_calibration            **out,
                                struct moe_error                   *err);
void       moe_calibration_close(struct moe_calibration *c);

/* Reads the text and keeps what goes into layers from `first` on, *count of
 * them: as many as there is room for. */
moe_status moe_calibration_read(struct moe_calibration *c, uint32_t first,
                                uint32_t *count, struct moe_error *err);

/* H of one of these layers: the lower triangle of (k, k) to h.  expert: of
 * MOE_INPUT_DOWN. */
moe_status moe_calibration_gram(struct moe_calibration *c, uint32_t layer,
                                uint32_t feed, uint32_t expert, uint32_t k,
                                double *h, struct moe_error *err);

/* Tokens of the text; how many the least and the most favoured of all
 * experts got, and how many experts got fewer than MOE_CALIBRATE_FEW. */
void moe_calibration_count(const struct moe_calibration *c, uint64_t *tokens,
                           uint64_t *least, uint64_t *most, uint64_t *few);

#endif /* MOE_CORE_CONVERT_CALIBRATE_H */
