/*
 * bounce_count: see bounce_count.h. Families with one fixed label, so that a site's graphs show at a glance whether
 * mail fails for typing errors, for full mailboxes, or for a bad name of our own. What is given up is logged here,
 * since no delivery node takes part in it.
 */
#include "scheduler/bounce_count.h"

#include <stdio.h>

#include "base/base32.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/bounce.h"

static struct metric failed[BOUNCE_CATEGORIES], deferred[BOUNCE_CATEGORIES];
static char labels[BOUNCE_CATEGORIES][48];

static void define(struct metric *m, const char *name, const char *help, const char *label) {
    m->name = name;
    m->help = help;
    m->labels = label;
    m->kind = METRIC_KIND_COUNTER;
    metric_register(m);
}

__attribute__((constructor)) static void define_all(void) {
    for (int i = 0; i < BOUNCE_CATEGORIES; i++) {
        snprintf(labels[i], sizeof labels[i], "category=\"%s\"", bounce_name((enum bounce_category)i));
        define(&failed[i], "posthouse_bounces_total", "Recipients that failed for good, by what the reply tells of",
               labels[i]);
        define(&deferred[i], "posthouse_deferrals_total", "Deferrals of recipients, by what the reply tells of",
               labels[i]);
    }
}

static void log_given_up(const struct sched_action *a, enum bounce_category category) {
    char id[BASE32_ID_LEN + 1];
    base32_encode(a->trace.id, id);
    LOG_INFO("given_up", LOG_STR("id", id), LOG_U64("recipients", a->trace.count),
             LOG_SPAN("remote", a->trace.result.remote), LOG_SPAN("status", a->trace.result.enhanced),
             LOG_STR("category", bounce_name(category)), LOG_SPAN("text", a->trace.result.text));
}

void bounce_count(const struct sched_action *a) {
    const struct sched_result *r = &a->trace.result;
    enum sched_trace_kind kind = a->trace.kind;
    if (!a->trace.has_result ||
        (kind != SCHED_TRACE_FAILED && kind != SCHED_TRACE_EXPIRED && kind != SCHED_TRACE_DEFERRED))
        return;
    enum bounce_category category = bounce_classify(r->code, r->enhanced, r->text);
    metric_add(kind == SCHED_TRACE_DEFERRED ? &deferred[category] : &failed[category], a->trace.count);
    if (kind == SCHED_TRACE_EXPIRED)
        log_given_up(a, category);
}
