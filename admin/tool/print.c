/*
 * print: answers as text for people. Times are shown as durations from now, ids as base32; everything that strangers
 * may have written is escaped.
 */
#include <inttypes.h>
#include <string.h>

#include "admin/tool/tool.h"
#include "base/base32.h"
#include "base/clock.h"
#include "base/units.h"
#include "proto/bounce.h"
#include "proto/filter.h"
#include "proto/outcome.h"
#include "proto/trace.h"

void print_span(FILE *to, struct span s) {
    struct buf b;
    buf_init(&b, 65536);
    buf_add_escaped(&b, span_first(s, 16000));
    struct span clean = buf_span(&b);
    fwrite(clean.at ? clean.at : "", 1, clean.len, to);
    buf_deinit(&b);
}

void print_text(FILE *to, struct span s) {
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        putc(c < 0x20 || c == 0x7f ? '?' : c, to);
    }
}

void print_bytes(ProtobufCBinaryData b) {
    print_span(stdout, frame_span(b));
}

void print_id(uint64_t id) {
    char text[BASE32_ID_LEN + 1];
    base32_encode(id, text);
    fputs(text, stdout);
}

void print_age(uint64_t since_ms) {
    char text[32];
    uint64_t now_ms = clock_wall_ms();
    units_format_duration(now_ms > since_ms ? now_ms - since_ms : 0, text, sizeof text);
    fputs(text, stdout);
}

void print_due(uint64_t due_ms) {
    char text[32];
    uint64_t now_ms = clock_wall_ms();
    if (due_ms <= now_ms) {
        fputs("now", stdout);
        return;
    }
    units_format_duration(due_ms - now_ms, text, sizeof text);
    printf("in %s", text);
}

const char *print_state_colour(const struct tool *t, uint32_t state) {
    static const char *const colours[] = {"",         "\033[36m", "\033[34m", "\033[33m",
                                          "\033[32m", "\033[31m", "\033[32m", "\033[35m"};
    return t->colour && state < 8 ? colours[state] : "";
}

void print_result(const Words__Result *r) {
    if (r->has_code && r->code)
        printf("%u ", r->code);
    bool said = r->has_text && span_starts_nocase(frame_span(r->text), frame_span(r->enhanced));
    if (r->has_enhanced && r->enhanced.len && !said) {
        print_bytes(r->enhanced);
        putchar(' ');
    }
    if (r->has_text)
        print_bytes(r->text);
    if (r->has_remote && r->remote.len) {
        fputs(" [", stdout);
        print_bytes(r->remote);
        putchar(']');
    }
    if (r->outcome == OUTCOME_FAILED || r->outcome == OUTCOME_DEFERRED)
        printf(" (%s)",
               bounce_name(bounce_classify(r->has_code ? r->code : 0, frame_span(r->enhanced), frame_span(r->text))));
}

/* -- status -- */

double print_figure(const struct answer *a, const char *name) {
    double sum = 0;
    for (size_t i = 0; i < a->r.n_figures; i++)
        if (span_eq(frame_span(a->r.figures[i]->name), span_of(name)))
            sum += a->r.figures[i]->value;
    return sum;
}

void print_status(const struct tool *t, const struct answer *a) {
    char up[32], disk[16];
    (void)t;
    units_format_duration((uint64_t)(print_figure(a, "uptime_seconds") * 1000), up, sizeof up);
    units_format_size((uint64_t)print_figure(a, "store_disk_bytes"), disk, sizeof disk);
    fputs("node       ", stdout);
    print_bytes(a->r.text);
    printf(", up %s%s\n", up, print_figure(a, "posthouse_node_drained") > 0 ? ", DRAINED by an operator" : "");
    printf("queue      %.0f messages; in memory: %.0f ready, %.0f being delivered%s\n",
           print_figure(a, "queue_messages"), print_figure(a, "queue_ready"), print_figure(a, "queue_assigned"),
           print_figure(a, "queue_scanned") > 0 ? "" : " (still reading the queue after the start)");
    printf("since start %.0f delivered, %.0f deferrals, %.0f failed, %.0f given up, %.0f in doubt, %.0f reports\n",
           print_figure(a, "delivered"), print_figure(a, "deferrals"), print_figure(a, "failed"),
           print_figure(a, "expired"), print_figure(a, "in_doubt"), print_figure(a, "reports"));
    printf("store      %s, %s on disk\n",
           print_figure(a, "store_damaged") > 0   ? "DAMAGED: mail is answered 451, see the log"
           : print_figure(a, "store_healthy") > 0 ? "healthy"
                                                  : "NOT WRITABLE: mail is answered 451 or 452",
           disk);
    printf("delivery   %.0f nodes, %.0f destinations, %.0f sites in memory\n", print_figure(a, "delivery_nodes"),
           print_figure(a, "destinations"), print_figure(a, "sites"));
    printf("gateway    %.0f sessions now\n", print_figure(a, "sessions"));
}

/* -- one message -- */

void print_message(const struct tool *t, const struct answer *a, uint64_t id) {
    const Words__Envelope *e = a->r.envelope;
    char when[32], size[16];
    if (!e) {
        fputs("message ", stdout);
        print_id(id);
        fputs(" is no longer in the queue (see: posthouse msg trace)\n", stdout);
        return;
    }
    clock_rfc3339(e->received_ms, when, sizeof when);
    units_format_size(e->size, size, sizeof size);
    fputs("message    ", stdout);
    print_id(id);
    printf("\nreceived   %s", when);
    if (e->has_client) {
        fputs(" from ", stdout);
        print_bytes(e->client);
    }
    if (e->has_helo) {
        fputs(" (", stdout);
        print_bytes(e->helo);
        putchar(')');
    }
    printf("\nsize       %s\nsender     <", size);
    print_bytes(e->sender);
    fputs(">\n", stdout);
    for (size_t i = 0; i < a->r.n_rows; i++) {
        const Words__AdminRow *r = a->r.rows[i];
        fputs("recipient  <", stdout);
        print_bytes(r->recipient);
        printf(">  %s%s%s", print_state_colour(t, r->state), filter_state_name(r->state), t->colour ? "\033[0m" : "");
        if (r->state == 3) {
            printf(" after %u attempt%s, next ", r->attempts, r->attempts == 1 ? "" : "s");
            print_due(r->due_ms);
        }
        if (r->last) {
            fputs(": ", stdout);
            print_result(r->last);
        }
        putchar('\n');
    }
}

static void print_indexes(const struct answer *a, const Words__Trace *tr) {
    for (size_t i = 0; i < tr->n_recipients && i < 10; i++) {
        uint32_t n = tr->recipients[i];
        fputs(i ? ", " : "  ", stdout);
        if (a->r.envelope && n < a->r.envelope->n_recipients) {
            putchar('<');
            print_bytes(a->r.envelope->recipients[n]->address);
            putchar('>');
        } else {
            printf("#%u", n);
        }
    }
    if (tr->n_recipients > 10)
        printf(" and %zu more", tr->n_recipients - 10);
}

void print_trace(const struct tool *t, const struct answer *a, uint64_t id) {
    (void)t;
    fputs("message ", stdout);
    print_id(id);
    putchar('\n');
    for (size_t i = 0; i < a->r.n_traces; i++) {
        const Words__Trace *tr = a->r.traces[i];
        char when[32];
        clock_rfc3339(tr->at_ms, when, sizeof when);
        printf("%s  %-10s", when, trace_kind_name(tr->kind));
        print_indexes(a, tr);
        if (tr->has_text && tr->text.len) {
            fputs("  ", stdout);
            print_bytes(tr->text);
        }
        if (tr->result) {
            fputs("  ", stdout);
            print_result(tr->result);
        }
        if (tr->has_next_ms && tr->next_ms) {
            fputs("  next ", stdout);
            print_due(tr->next_ms);
        }
        putchar('\n');
    }
}

void print_steps(const struct tool *t, const struct answer *a) {
    (void)t;
    for (size_t i = 0; i < a->r.n_steps; i++) {
        const Words__AdminStep *s = a->r.steps[i];
        if (s->has_host) {
            printf("  %u. ", (unsigned)(s->has_preference ? s->preference : 0));
            print_bytes(s->host);
            if (s->has_address) {
                fputs(" [", stdout);
                print_bytes(s->address);
                printf("]:%u", s->port);
            }
            if (s->text.len)
                fputs("  ", stdout);
        }
        print_bytes(s->text);
        putchar('\n');
    }
    if (a->r.has_text) {
        if (a->r.has_code && a->r.code)
            printf("%u ", a->r.code);
        print_bytes(a->r.text);
        putchar('\n');
    }
}

void print_answer_text(const struct tool *t, const struct answer *a) {
    (void)t;
    struct span rest = frame_span(a->r.text);
    while (rest.len) {
        struct span line = span_cut(rest, '\n', &rest);
        print_text(stdout, line);
        putchar('\n');
    }
}
