/*
 * json: see json.h (the door to jansson). Nothing here trusts what it shows: every text is valid UTF-8 when it leaves,
 * and only that.
 */
#include "admin/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "admin/access.h"
#include "base/base32.h"
#include "base/check.h"
#include "base/utf8.h"
#include "proto/bounce.h"
#include "proto/filter.h"
#include "proto/frame.h"
#include "proto/outcome.h"
#include "proto/trace.h"

struct json_answer {
    json_t *root;
};

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

static json_t *of_ages(const Words__AdminRow *r) {
    json_t *j = json_array();
    for (size_t i = 0; i < r->n_ages; i++)
        json_array_append_new(j, json_integer((json_int_t)r->ages[i]));
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
    set_number(j, "assigned", r->has_assigned, r->assigned);
    set_number(j, "held", r->has_held, r->held);
    set_number(j, "concurrency", r->has_concurrency, r->concurrency);
    set_bytes(j, "reason", r->has_reason, r->reason);
    set_bytes(j, "actor", r->has_actor, r->actor);
    set_bytes(j, "route", r->has_route, r->route);
    set_number(j, "shard", r->has_shard, r->shard);
    set_number(j, "messages", r->has_messages, r->messages);
    set_number(j, "epoch", r->has_epoch, r->epoch);
    if (r->has_scope)
        json_object_set_new(j, "scope", json_string(r->scope == WORDS__ADMIN_SCOPE__ADMIN_SITE ? "site" : "domain"));
    if (r->n_ages)
        json_object_set_new(j, "ages", of_ages(r));
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
    set_bytes(j, "client_name", e->has_client_name, e->client_name);
    set_bytes(j, "helo", e->has_helo, e->helo);
    set_bytes(j, "protocol", e->has_protocol, e->protocol);
    set_bytes(j, "envid", e->has_envid, e->envid);
    json_object_set_new(j, "report", json_boolean(e->has_report && e->report));
    return j;
}

/* Of several replies: the same figure is added up. */
static void add_figures(json_t *j, const Words__AdminReply *r) {
    for (size_t i = 0; i < r->n_figures; i++) {
        char name[256];
        span_copy(frame_span(r->figures[i]->name), name, sizeof name);
        double value = r->figures[i]->value + json_number_value(json_object_get(j, name));
        bool whole = value >= 0 && value < 9e15 && value == (double)(json_int_t)value;
        json_object_set_new(j, name, whole ? json_integer((json_int_t)value) : json_real(value));
    }
}

static const char *verb_name(uint32_t verb) {
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&words__admin_verb__descriptor, (int)verb);
    return v ? v->name : "?";
}

/* "ADMIN_SUSPEND" is "suspend". */
static json_t *of_verb(uint32_t verb) {
    char text[40];
    const char *name = verb_name(verb);
    if (strncmp(name, "ADMIN_", 6) == 0)
        name += 6;
    size_t len = 0;
    for (; name[len] && len + 1 < sizeof text; len++)
        text[len] = (char)(name[len] >= 'A' && name[len] <= 'Z' ? name[len] + 32 : name[len]);
    text[len] = '\0';
    return json_string(text);
}

static json_t *of_audit(const Words__AdminAudit *a) {
    json_t *j = json_object();
    set_number(j, "at_ms", true, a->at_ms);
    set_span(j, "actor", frame_span(a->actor));
    set_number(j, "role", true, a->role);
    json_object_set_new(j, "verb", of_verb(a->verb));
    json_object_set_new(j, "stage", json_string(access_stage_name(a->stage)));
    set_bytes(j, "what", a->has_what, a->what);
    set_bytes(j, "reason", a->has_reason, a->reason);
    set_bytes(j, "target", a->has_target, a->target);
    set_bytes(j, "origin", a->has_origin, a->origin);
    set_number(j, "count", a->has_count, a->count);
    set_number(j, "error", a->has_error, a->error);
    return j;
}

static json_t *of_line(const Words__AdminLine *line) {
    json_t *j = json_object();
    set_number(j, "number", true, line->number);
    set_span(j, "text", frame_span(line->text));
    return j;
}

static int put(const char *text, size_t len, void *to) {
    return buf_add(to, span_make(text, len)) == ERR_OK ? 0 : -1;
}

static int dump(const json_t *j, size_t flags, struct buf *to) {
    if (json_dump_callback(j, put, to, flags | JSON_PRESERVE_ORDER) != 0)
        return to->err != ERR_OK ? to->err : ERR_NOMEM;
    return ERR_OK;
}

int json_line_dump(const Words__AdminLine *line, uint64_t missed, struct buf *to) {
    json_t *j = of_line(line);
    set_number(j, "missed", missed != 0, missed);
    int err = dump(j, JSON_COMPACT, to);
    json_decref(j);
    return err;
}

/* -- a whole answer -- */

struct json_answer *json_answer_new(void) {
    struct json_answer *a = calloc(1, sizeof *a);
    if (a && !(a->root = json_object())) {
        free(a);
        a = NULL;
    }
    return a;
}

void json_answer_free(struct json_answer *a) {
    if (!a)
        return;
    json_decref(a->root);
    free(a);
}

void json_answer_message(struct json_answer *a, uint64_t id) {
    if (id)
        set_id(a->root, "message", id);
}

/* The array of that name, made when it is not there. */
static json_t *array_of(json_t *root, const char *name) {
    json_t *list = json_object_get(root, name);
    if (!list) {
        json_object_set_new(root, name, json_array());
        list = json_object_get(root, name);
    }
    return list;
}

#define ADD_ALL(name, n, items, of)                                                                                    \
    do {                                                                                                               \
        json_t *list_ = array_of(root, name);                                                                          \
        for (size_t i_ = 0; i_ < (n); i_++)                                                                            \
            json_array_append_new(list_, of((items)[i_]));                                                             \
    } while (0)

/* Octets that mean something to the one who made them alone. */
static void set_cursor(json_t *to, struct span cursor) {
    char text[2 * JSON_CURSOR_MAX + 1];
    size_t len = cursor.len < JSON_CURSOR_MAX ? cursor.len : JSON_CURSOR_MAX;
    for (size_t i = 0; i < len; i++)
        snprintf(text + 2 * i, 3, "%02x", (unsigned char)cursor.at[i]);
    json_object_set_new(to, "cursor", json_stringn(text, 2 * len));
}

bool json_cursor_read(struct span text, struct buf *to) {
    static const char digits[] = "0123456789abcdef";
    if (text.len % 2 || text.len > 2 * JSON_CURSOR_MAX)
        return false;
    for (size_t i = 0; i < text.len; i += 2) {
        const char *high = memchr(digits, text.at[i], 16), *low = memchr(digits, text.at[i + 1], 16);
        if (!high || !low || buf_add_byte(to, (char)((high - digits) << 4 | (low - digits))) != ERR_OK)
            return false;
    }
    return true;
}

static void add_values(json_t *root, const Words__AdminReply *r) {
    json_t *count = json_object_get(root, "count");
    if (r->has_text && !json_object_get(root, "text"))
        set_bytes(root, "text", true, r->text);
    set_number(root, "code", r->has_code, r->code);
    set_number(root, "count", r->has_count, r->count + (uint64_t)json_integer_value(count));
    if (r->has_cursor && r->cursor.len)
        set_cursor(root, frame_span(r->cursor));
    else /* that of the last reply counts */
        json_object_del(root, "cursor");
    set_number(root, "number", r->has_number, r->number);
    set_number(root, "missed", r->has_missed, r->missed);
    if (r->has_more)
        json_object_set_new(root, "more", json_boolean(r->more));
    if (r->envelope)
        json_object_set_new(root, "envelope", of_envelope(r->envelope));
}

void json_answer_add(struct json_answer *a, const Words__AdminReply *r) {
    json_t *root = a->root;
    add_values(root, r);
    if (r->n_figures) {
        if (!json_object_get(root, "figures"))
            json_object_set_new(root, "figures", json_object());
        add_figures(json_object_get(root, "figures"), r);
    }
    ADD_ALL("rows", r->n_rows, r->rows, of_row);
    ADD_ALL("traces", r->n_traces, r->traces, of_trace);
    ADD_ALL("steps", r->n_steps, r->steps, of_step);
    if (r->n_audits)
        ADD_ALL("audits", r->n_audits, r->audits, of_audit);
    if (r->n_lines)
        ADD_ALL("lines", r->n_lines, r->lines, of_line);
}

int json_answer_dump(const struct json_answer *a, bool indent, struct buf *to) {
    return dump(a->root, indent ? JSON_INDENT(1) : JSON_COMPACT, to);
}

/* -- reading -- */

static struct span text_of(const json_t *value, struct arena *mem) {
    char number[32];
    if (json_is_string(value))
        return arena_dup(mem, span_make(json_string_value(value), json_string_length(value)));
    if (json_is_boolean(value))
        return json_is_true(value) ? SPAN("true") : SPAN("false");
    if (!json_is_integer(value))
        return SPAN_EMPTY;
    snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return arena_dup(mem, span_of(number));
}

static int read_fields(struct json_fields *f, json_t *root, struct arena *mem) {
    const char *name;
    json_t *value;
    json_object_foreach(root, name, value) {
        if (f->count == JSON_FIELDS_MAX || json_is_object(value) || json_is_array(value) || json_is_real(value))
            return ERR_INVALID;
        struct json_field *field = &f->fields[f->count++];
        field->name = arena_dup(mem, span_of(name));
        field->text = text_of(value, mem);
        if (!field->name.at || (json_is_string(value) && !field->text.at))
            return ERR_NOMEM;
    }
    return ERR_OK;
}

int json_fields_read(struct json_fields *f, struct span text, struct arena *mem) {
    *f = (struct json_fields){0};
    json_t *root = json_loadb(text.at ? text.at : "", text.len, JSON_REJECT_DUPLICATES, NULL);
    int err = json_is_object(root) ? read_fields(f, root, mem) : ERR_INVALID;
    json_decref(root);
    return err;
}

struct span json_fields_get(const struct json_fields *f, const char *name) {
    for (size_t i = 0; i < f->count; i++)
        if (span_eq(f->fields[i].name, span_of(name)))
            return f->fields[i].text;
    return SPAN_EMPTY;
}
