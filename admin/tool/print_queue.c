/*
 * print_queue: listings as text for people: recipients, destinations, sites, shards, nodes, suspensions, audits.
 */
#include <inttypes.h>
#include <string.h>

#include "admin/access.h"
#include "admin/tool/tool.h"
#include "base/clock.h"
#include "base/units.h"
#include "proto/filter.h"

void print_rows(const struct tool *t, const struct answer *a) {
    for (size_t i = 0; i < a->r.n_rows; i++) {
        const Words__AdminRow *r = a->r.rows[i];
        print_id(r->message);
        printf("  %s%-9s%s  ", print_state_colour(t, r->state), filter_state_name(r->state),
               t->colour ? "\033[0m" : "");
        print_age(r->received_ms);
        fputs(" old  <", stdout);
        print_bytes(r->sender);
        fputs("> -> <", stdout);
        print_bytes(r->recipient);
        putchar('>');
        if (r->state == 3) {
            printf("  after %u, next ", r->attempts);
            print_due(r->due_ms);
        }
        if (r->last) {
            fputs(": ", stdout);
            print_result(r->last);
        }
        putchar('\n');
    }
}

void print_summary(const struct tool *t, const struct answer *a) {
    (void)t;
    printf("%10s %10s %10s  %-12s %s\n", "recipients", "ready", "deferred", "oldest", "destination");
    for (size_t i = 0; i < a->r.n_rows; i++) {
        const Words__AdminRow *r = a->r.rows[i];
        char age[32];
        uint64_t now_ms = clock_wall_ms();
        units_format_duration(now_ms > r->oldest_ms ? now_ms - r->oldest_ms : 0, age, sizeof age);
        printf("%10" PRIu64 " %10" PRIu64 " %10" PRIu64 "  %-12s ", r->count, r->ready, r->deferred, age);
        print_bytes(r->destination);
        putchar('\n');
    }
    printf("%" PRIu64 " in all\n", a->r.count);
}

/* -- ages, as qshape shows them -- */
void print_shape(const struct tool *t, const struct answer *a) {
    static const char *const columns[] = {"5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+"};
    enum { COLUMNS = sizeof columns / sizeof *columns };
    (void)t;
    printf("%40s %8s", "minutes:", "T");
    for (size_t k = 0; k < COLUMNS; k++)
        printf(" %7s", columns[k]);
    putchar('\n');
    for (size_t i = 0; i < a->r.n_rows; i++) {
        const Words__AdminRow *r = a->r.rows[i];
        struct span name = frame_span(r->destination);
        for (size_t k = name.len; k < 40; k++)
            putchar(' ');
        print_span(stdout, name);
        printf(" %8" PRIu64, r->count);
        for (size_t k = 0; k < COLUMNS; k++)
            printf(" %7" PRIu64, k < r->n_ages ? r->ages[k] : 0);
        putchar('\n');
    }
}

/* -- sites, suspensions -- */
void print_sites(const struct tool *t, const struct answer *a) {
    (void)t;
    printf("%10s %10s %11s  %s\n", "ready", "under way", "connections", "site");
    for (size_t i = 0; i < a->r.n_rows; i++) {
        const Words__AdminRow *r = a->r.rows[i];
        printf("%10" PRIu64 " %10" PRIu64 " %11u  ", r->ready, r->assigned, r->concurrency);
        print_bytes(r->site);
        if (r->suspended && r->resume_ms) {
            fputs("  suspended, goes on ", stdout);
            print_due(r->resume_ms);
        } else if (r->suspended) {
            fputs("  suspended", stdout);
        }
        putchar('\n');
    }
}

void print_suspensions(const struct tool *t, const struct answer *a) {
    (void)t;
    for (size_t i = 0; i < a->r.n_rows; i++) {
        const Words__AdminRow *r = a->r.rows[i];
        bool site = r->has_scope && r->scope == WORDS__ADMIN_SCOPE__ADMIN_SITE;
        printf("%-6s ", site ? "site" : "domain");
        print_bytes(site ? r->site : r->destination);
        if (r->has_resume_ms && r->resume_ms) {
            fputs("  ends ", stdout);
            print_due(r->resume_ms);
        } else {
            fputs("  until resumed", stdout);
        }
        fputs("  by ", stdout);
        print_bytes(r->actor);
        fputs(": ", stdout);
        print_bytes(r->reason);
        putchar('\n');
    }
    printf("%zu suspension%s\n", a->r.n_rows, a->r.n_rows == 1 ? "" : "s");
}

/* -- nodes, shards: what each row has as figures of its own -- */
static void print_row_figures(const struct answer *a) {
    for (size_t i = 0; i < a->r.n_figures; i++) {
        print_bytes(a->r.figures[i]->name);
        printf("  %.15g\n", a->r.figures[i]->value);
    }
}

void print_nodes(const struct tool *t, const struct answer *a) {
    (void)t;
    for (size_t i = 0; i < a->r.n_rows; i++) {
        print_bytes(a->r.rows[i]->destination);
        if (a->r.rows[i]->has_reason) {
            fputs("  ", stdout);
            print_bytes(a->r.rows[i]->reason);
        }
        putchar('\n');
    }
    print_row_figures(a);
    if (a->r.has_text)
        print_answer_text(t, a);
}

void print_shards(const struct tool *t, const struct answer *a) {
    (void)t;
    printf("%5s %6s %10s %10s %10s %10s %10s\n", "shard", "epoch", "messages", "ready", "under way", "deferred",
           "held");
    for (size_t i = 0; i < a->r.n_rows; i++) {
        const Words__AdminRow *r = a->r.rows[i];
        printf("%5u %6" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 "\n", r->shard,
               r->epoch, r->messages, r->ready, r->assigned, r->deferred, r->held);
    }
    print_row_figures(a);
}

/* -- audit -- */
void print_audits(const struct tool *t, const struct answer *a) {
    (void)t;
    for (size_t i = 0; i < a->r.n_audits; i++) {
        const Words__AdminAudit *u = a->r.audits[i];
        const ProtobufCEnumValue *verb =
            protobuf_c_enum_descriptor_get_value(&words__admin_verb__descriptor, (int)u->verb);
        char when[32];
        clock_rfc3339(u->at_ms, when, sizeof when);
        printf("%s  %-8s ", when, access_stage_name(u->stage));
        print_bytes(u->actor);
        printf("  %s ", verb ? verb->name + strlen("ADMIN_") : "?");
        if (u->what.len)
            print_bytes(u->what);
        else
            fputs(u->has_count ? "all" : "", stdout);
        if (u->has_target && u->target.len) {
            fputs(" to ", stdout);
            print_bytes(u->target);
        }
        if (u->has_count)
            printf("  %" PRIu64 " recipient%s", u->count, u->count == 1 ? "" : "s");
        if (u->has_error && u->error)
            printf("  failed: %s", err_text(-(int)u->error));
        if (u->has_reason && u->reason.len) {
            fputs("  because ", stdout);
            print_bytes(u->reason);
        }
        if (u->has_origin && u->origin.len) {
            fputs("  (", stdout);
            print_bytes(u->origin);
            putchar(')');
        }
        putchar('\n');
    }
}
