/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.h - the parts of moe-run plan.
 *
 * The library counts and estimates (moe/plan.h); here a question is read
 * from the command line, and the figures are put into words, tables, JSON
 * and pictures.
 */
#ifndef MOE_CLI_PLAN_H
#define MOE_CLI_PLAN_H

#include "cli.h"

#include <moe/plan.h>

#define LIST_MAX 64u

/* What was asked, checked. */
struct question {
    struct moe_plan_device device;
    struct moe_plan_setup  setup;      /* .device is &device, if there is one */
    int                    has_device;
    int                    has_count;  /* --gpus was given                    */
    int                    has_load;   /* --concurrency was given             */
    int                    has_context;/* --context was given                 */
    double                 api_price;  /* USD a million output tokens; 0: none*/
    double                 max_ttft, max_tpot; /* seconds; 0: none            */
    const char            *trace;
    double                 batches[LIST_MAX], counts[LIST_MAX];
    size_t                 n_batches, n_counts;
    char                   format_text[512]; /* the list's words              */
    const char            *formats[LIST_MAX];
    size_t                 n_formats;
};

/* What has no effect is no silence: a flag that only means something beside
 * another, an answer of one kind beside one of another.  The exit status
 * after a message, or 0. */
int question_useless(const struct cli *c);
/* The exit status after a message, or 0. */
int question_read(const struct cli *c, struct question *q);
/* Of one model: the exit status.  The device's count, if none was given, is
 * the smallest that fits and meets the targets. */
int question_count(const struct question *q, const moe_planner *p,
                   struct moe_plan_setup *s);

/* Whether the targets of the question, if there are any, are met. */
int question_fast(const struct question *q, const struct moe_plan_result *r);

const char *bound_name(uint32_t bound);   /* "memory", "arithmetic", "links" */
/* "1.23 GB", "45.6 ms", "1,234": into buf (32 bytes), which is returned. */
char *gb_text(double bytes, char *buf);
char *time_text(double seconds, char *buf);
char *whole_text(double v, char *buf);
char *usd_text(double v, char *buf);
/* A warning if the model is of a file that was cut. */
void say_cut(const struct moe_plan_model *m);
/* "name":value pairs of JSON, a comma before all but the first. */
void json_number(const char *key, double v, int first);
void json_text(const char *key, const char *v, int first);
void json_result(const struct moe_plan_result *r);

/* The format of the weights that are planned. */
const char *format_of(const struct question *q,
                      const struct moe_plan_model *m);
/* The model's paragraph; the exit status after a message, or 0. */
int answer_model(const struct question *q, const moe_planner *p);
/* Those of a deployment on the question's device. */
void answer_deployment(const struct question *q, const moe_planner *p,
                       const struct moe_plan_setup  *s,
                       const struct moe_plan_result *r);

int plan_compare(const struct cli *c, struct question *q);
int plan_sweep(const struct cli *c, struct question *q);
int plan_articles(void);

/* One point of a sweep. */
struct point {
    double                 batch;
    uint32_t               devices;
    const char            *format;
    struct moe_plan_result r;
    int                    good; /* the layout exists */
};
struct grid {
    const struct question *q;
    const char            *model;
    const struct point    *points;
    size_t                 n;
    double                 context;
};
/* An SVG of kind "roofline", "cost" or "memory"; the exit status. */
int  draw_svg(const struct grid *g, const char *kind, int dark);
void draw_chart(const struct grid *g);

#endif /* MOE_CLI_PLAN_H */
