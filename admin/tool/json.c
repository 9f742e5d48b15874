/*
 * json: answers as one JSON object, for programs (the door to jansson). Field names are those of proto/admin.proto; ids
 * are base32 text; times are milliseconds since 1970; bytes that are not UTF-8 are escaped as \xHH text.
 */
#include <stdlib.h>
#include <sysexits.h>

#include <jansson.h>

#include "admin/tool/tool.h"
#include "base/base32.h"
#include "base/utf8.h"
#include "proto/bounce.h"
#include "proto/filter.h"
#include "proto/outcome.h"
#include "proto/trace.h"

static void set_span(json_t *to, const char *name, struct span s) {
    if (utf8_is_valid(s)) {
        json_object_set_new(to, name, json_stringn(s.at ? s.at : "", s.len));
        return;
    }
    struct buf b;
    buf_init(&b, 1024 * 1024);
    buf_add_escaped(&b, s);
    struct span clean = buf_span(&b);
    json_object_set_new(to, name, json_stringn(clean.at ? clean.at : "", clean.len));
    buf_deinit(&b);
}

static void set_bytes(json_t *to, const char *name, bool has, ProtobufCBinaryData b) {
    if (has)
        set_span(to, name, frame_span(b));
}

static void set_number(json_t *to, const char *name, bool has, uint64_t n) {
    if (has)
        json_object_set_new(to, name, json_integer((json_int_t)n));
}

static void set_id(json_t *to, const char *name, uint64_t id) {
    char text[BASE32_ID_LEN + 1];
    base32_encode(id, text);
    json_object_set_new(to, name, json_string(text));
}

static json_t *of_result(const Words__Result *r) {
    json_t *j = json_object();
    set_number(j, "outcome", true, r->outcome);
    set_number(j, "code", r->has_code, r->code);
    set_bytes(j, "enhanced", r->has_enhanced, r->enhanced);
    set_bytes(j, "text", r->has_text, r->text);
    set_bytes(j, "remote", r->has_remote, r->remote);
    if (r->outcome == OUTCOME_FAILED || r->outcome == OUTCOME_DEFERRED)
        json_object_set_new(j, "category",
                            json_string(bounce_name(bounce_classify(r->has_code ? r->code : 0, frame_span(r->enhanced),
                                                                    frame_span(r->text)))));
    return j;
}

static json_t *of_row(const Words__AdminRow *r) {
    json_t *j = json_object();
    if (r->has_message)
        set_id(j, "message", r->message);
    set_number(j, "index", r->has_index, r->index);
    set_bytes(j, "sender", r->has_sender, r->sender);
    set_bytes(j, "recipient", r->has_recipient, r->recipient);
    set_bytes(j, "destination", r->has_destination, r->destination);
    if (r->has_state)
        json_object_set_new(j, "state", json_string(filter_state_name(r->state)));
    set_number(j, "attempts", r->has_attempts, r->attempts);
    set_number(j, "due_ms", r->has_due_ms, r->due_ms);
    set_number(j, "received_ms", r->has_received_ms, r->received_ms);
    set_number(j, "size", r->has_size, r->size);
    set_number(j, "count", r->has_count, r->count);
    set_number(j, "ready", r->has_ready, r->ready);
    set_number(j, "deferred", r->has_deferred, r->deferred);
    set_number(j, "oldest_ms", r->has_oldest_ms, r->oldest_ms);
    set_bytes(j, "site", r->has_site, r->site);
    if (r->has_suspended)
        json_object_set_new(j, "suspended", json_boolean(r->suspended));
    set_number(j, "resume_ms", r->has_resume_ms, r->resume_ms);
    if (r->last)
        json_object_set_new(j, "last", of_result(r->last));
    return j;
}

static json_t *of_trace(const Words__Trace *t) {
    json_t *j = json_object();
    set_number(j, "at_ms", true, t->at_ms);
    json_object_set_new(j, "kind", json_string(trace_kind_name(t->kind)));
    json_t *recipients = json_array();
    for (size_t i = 0; i < t->n_recipients; i++)
        json_array_append_new(recipients, json_integer(t->recipients[i]));
    json_object_set_new(j, "recipients", recipients);
    set_bytes(j, "text", t->has_text, t->text);
    set_number(j, "next_ms", t->has_next_ms, t->next_ms);
    if (t->result)
        json_object_set_new(j, "result", of_result(t->result));
    return j;
}

static json_t *of_step(const Words__AdminStep *s) {
    json_t *j = json_object();
    set_span(j, "text", frame_span(s->text));
    set_bytes(j, "host", s->has_host, s->host);
    set_bytes(j, "address", s->has_address, s->address);
    set_number(j, "port", s->has_port, s->port);
    set_number(j, "preference", s->has_preference, s->preference);
    return j;
}

static json_t *of_envelope(const Words__Envelope *e) {
    json_t *j = json_object();
    set_span(j, "sender", frame_span(e->sender));
    set_number(j, "received_ms", true, e->received_ms);
    set_number(j, "size", true, e->size);
    set_bytes(j, "client", e->has_client, e->client);
    set_bytes(j, "helo", e->has_helo, e->helo);
    set_bytes(j, "protocol", e->has_protocol, e->protocol);
    set_bytes(j, "envid", e->has_envid, e->envid);
    json_object_set_new(j, "report", json_boolean(e->has_report && e->report));
    return j;
}

static json_t *of_figures(const Words__AdminReply *r) {
    json_t *j = json_object();
    for (size_t i = 0; i < r->n_figures; i++) {
        char name[256];
        span_copy(frame_span(r->figures[i]->name), name, sizeof name);
        double value = r->figures[i]->value + json_number_value(json_object_get(j, name));
        bool whole = value >= 0 && value < 9e15 && value == (double)(json_int_t)value;
        json_object_set_new(j, name, whole ? json_integer((json_int_t)value) : json_real(value));
    }
    return j;
}

int json_print_lines(const struct answer *a) {
    int failed = 0;
    for (size_t i = 0; i < a->r.n_lines; i++) {
        json_t *j = json_object();
        set_number(j, "number", true, a->r.lines[i]->number);
        set_span(j, "text", frame_span(a->r.lines[i]->text));
        set_number(j, "missed", i == 0 && a->r.missed, a->r.missed);
        failed |= json_dumpf(j, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(j);
    }
    return failed ? EX_IOERR : EX_OK;
}

#define ARRAY(j, name, n, items, of)                                                                                   \
    do {                                                                                                               \
        json_t *list_ = json_array();                                                                                  \
        for (size_t i_ = 0; i_ < (n); i_++)                                                                            \
            json_array_append_new(list_, of((items)[i_]));                                                             \
        json_object_set_new(j, name, list_);                                                                           \
    } while (0)

int json_print(const struct answer *a, uint64_t id) {
    const Words__AdminReply *r = &a->r;
    json_t *j = json_object();
    if (id)
        set_id(j, "message", id);
    set_bytes(j, "text", r->has_text, r->text);
    set_number(j, "code", r->has_code, r->code);
    set_number(j, "count", r->has_count, r->count);
    if (r->envelope)
        json_object_set_new(j, "envelope", of_envelope(r->envelope));
    if (r->n_figures)
        json_object_set_new(j, "figures", of_figures(r));
    ARRAY(j, "rows", r->n_rows, r->rows, of_row);
    ARRAY(j, "traces", r->n_traces, r->traces, of_trace);
    ARRAY(j, "steps", r->n_steps, r->steps, of_step);
    int failed = json_dumpf(j, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(j);
    return failed || fflush(stdout) != 0 ? EX_IOERR : EX_OK;
}
