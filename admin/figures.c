/*
 * figures: see figures.h. Histograms are left out: they are for the scrapers of metrics.
 */
#include "admin/figures.h"

#include "base/metrics.h"
#include "proto/frame.h"

#define FIGURES_MAX 1024u

static void add(Words__AdminReply *r, struct arena *mem, const char *name, double value) {
    Words__AdminFigure *f = name && r->n_figures < FIGURES_MAX ? arena_alloc(mem, sizeof *f) : NULL;
    if (!f)
        return;
    words__admin_figure__init(f);
    f->name = frame_bytes(span_of(name));
    f->value = value;
    r->figures[r->n_figures++] = f;
}

void figures_answer(Words__AdminReply *r, const char *name, const char *version, uint64_t uptime_ms,
                    struct arena *mem) {
    const char *text = arena_printf(mem, "%s %s", name, version);
    r->has_text = text != NULL;
    r->text = frame_bytes(span_of(text));
    r->figures = arena_calloc(mem, FIGURES_MAX, sizeof(Words__AdminFigure *));
    if (!r->figures)
        return;
    add(r, mem, "uptime_seconds", (double)uptime_ms / 1000.0);
    for (const struct metric *m = metric_first(); m; m = m->next)
        if (m->kind != METRIC_KIND_HISTOGRAM)
            add(r, mem, m->labels ? arena_printf(mem, "%s{%s}", m->name, m->labels) : m->name, (double)metric_value(m));
}
