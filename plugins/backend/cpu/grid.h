/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid.h - how a product of groups of rows with panels is cut into items.
 *
 * An item is a run of panels of one group's matrix by a run of the group's
 * rows.  Items are large enough to be worth handing out and numerous enough
 * that a slow thread does not hold up the others; how they are cut changes
 * no result.
 */
#ifndef MOE_PLUGINS_BACKEND_CPU_GRID_H
#define MOE_PLUGINS_BACKEND_CPU_GRID_H

#include "backend/cpu/cpu.h"

/* A group that has rows. */
struct cpu_group {
    uint32_t ref;   /* which of the operation's weight references */
    uint32_t begin; /* its first row, or its first place in perm */
    uint32_t rows;
    uint32_t base;  /* rows of the groups before it */
};

struct cpu_grid {
    uint32_t panels, panel_step;
    uint32_t panel_items; /* of a group */
    uint32_t row_step;
    uint32_t row_items;   /* of the largest group */
    uint32_t items;
};

struct cpu_item {
    uint32_t group;
    uint32_t panel0, panel1;
    uint32_t row0, row1; /* of the group; may be empty */
};

#define CPU_ITEM_BYTES 16384u /* of weights: least worth handing out */

/* panels, panel_bytes, kind: of one group's matrices; rows: of the largest
 * group. */
static inline void
cpu_grid_make(const moe_device *dev, uint32_t groups, uint32_t panels,
              uint64_t panel_bytes, uint32_t kind, uint32_t rows,
              struct cpu_grid *g)
{
    const uint64_t want = (uint64_t) dev->workers * 8;
    uint64_t       step, per;

    step = cpu_ceil((uint64_t) groups * panels, want);
    if (step * panel_bytes < CPU_ITEM_BYTES)
        step = cpu_ceil(CPU_ITEM_BYTES, panel_bytes != 0 ? panel_bytes : 1);
    step = cpu_align(step, CPU_NP);
    g->panels = panels;
    g->panel_step = (uint32_t) cpu_min(step, cpu_align(panels, CPU_NP));
    g->panel_items = (uint32_t) cpu_ceil(panels, g->panel_step);
    per = cpu_ceil(want, (uint64_t) groups * g->panel_items);
    g->row_step = (uint32_t) cpu_align(
        cpu_ceil(rows, per), cpu_rows_of_call(dev, kind, UINT32_MAX));
    g->row_items = (uint32_t) cpu_ceil(rows, g->row_step);
    g->items = groups * g->panel_items * g->row_items;
}

static inline struct cpu_item
cpu_grid_item(const struct cpu_grid *g, const struct cpu_group *groups,
              uint32_t i)
{
    struct cpu_item it;
    uint32_t        p = i / g->row_items % g->panel_items;
    uint32_t        r = i % g->row_items;

    it.group = i / g->row_items / g->panel_items;
    it.panel0 = p * g->panel_step;
    it.panel1 = (uint32_t) cpu_min(it.panel0 + g->panel_step, g->panels);
    it.row0 = (uint32_t) cpu_min((uint64_t) r * g->row_step,
                                 groups[it.group].rows);
    it.row1 = (uint32_t) cpu_min(((uint64_t) r + 1) * g->row_step,
                                 groups[it.group].rows);
    return it;
}

/* Bytes of the records of a row of k activations for weights in lines. */
static inline uint64_t
cpu_q8_bytes(uint64_t k)
{
    return cpu_ceil(k, CPU_RUN) * sizeof(struct cpu_q8);
}

/* About how many bytes of weights one panel is. */
static inline uint64_t
cpu_panel_cost(const struct cpu_mat *m)
{
    return m->kind == CPU_GENERIC ? (uint64_t) m->k * CPU_LANES * 16
                                  : m->panel_bytes;
}

#endif /* MOE_PLUGINS_BACKEND_CPU_GRID_H */
