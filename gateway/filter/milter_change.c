/*
 * milter_change: gathers the changes of one filter and applies them in the order in which it asked for them. All are
 * checked when they come, so that a filter that errs or dies in between has changed nothing.
 *
 * Positions. A filter counts the server's own Received field as number 0 of the header, but that field is not yet in
 * the held message. So position n of a filter is n - 1 here, and 0 is the top as well. CHGHEADER counts fields of one
 * name from 1.
 */
#include "base/check.h"

#include "gateway/filter/milter_change.h"

enum { BODY_MORE = 64 * 1024 * 1024 };

void milter_changes_init(struct milter_changes *c) {
    *c = (struct milter_changes){.body = {.fd = -1}};
    buf_init(&c->fields, MILTER_CHANGES_MAX);
}

void milter_changes_deinit(struct milter_changes *c) {
    buf_deinit(&c->fields);
    if (c->has_body)
        held_spill_deinit(&c->body);
    milter_changes_init(c);
}

/* The action that a filter must have asked for; 0: none would allow it. */
static uint32_t action_of(char command) {
    switch (command) {
    case MILTER_R_ADDHEADER:
    case MILTER_R_INSHEADER:
        return MILTER_CAN_ADD_HEADERS;
    case MILTER_R_CHGHEADER:
        return MILTER_CAN_CHANGE_HEADERS;
    case MILTER_R_REPLBODY:
        return MILTER_CAN_CHANGE_BODY;
    default:
        return 0;
    }
}

bool milter_is_change(char command) {
    return action_of(command) != 0;
}

/* Filters may end a value with a line break; it is not part of it. */
static int unpack(const struct milter_packet *p, struct milter_field *f) {
    int err = milter_unpack_field(p->data, p->command != MILTER_R_ADDHEADER, f);
    while (!err && f->value.len && (f->value.at[f->value.len - 1] == '\n' || f->value.at[f->value.len - 1] == '\r'))
        f->value.len--;
    return err;
}

static int take_field(struct milter_changes *c, const struct milter_packet *p) {
    struct milter_field f;
    int err = unpack(p, &f);
    if (!err && !held_is_field(f.name, f.value))
        err = ERR_INVALID;
    if (err)
        return err;
    size_t place = milter_pack_begin(&c->fields, p->command);
    buf_add(&c->fields, p->data);
    milter_pack_end(&c->fields, place);
    c->added++;
    c->octets += f.name.len + 2 * f.value.len + 8; /* each LF may become CRLF */
    return c->fields.err;
}

static int take_body(struct milter_changes *c, struct span octets, const struct held *h) {
    if (!c->has_body) {
        int err = held_spill_init(&c->body, held_dir(h));
        if (err)
            return err;
        c->has_body = true;
        c->body_max = 2 * held_body_size(h) + BODY_MORE;
    }
    if (c->body.size + octets.len > c->body_max)
        return ERR_FULL;
    return held_spill_append(&c->body, octets);
}

int milter_changes_take(struct milter_changes *c, const struct milter_packet *p, uint32_t allowed,
                        const struct held *h) {
    if (!(action_of(p->command) & allowed))
        return ERR_INVALID;
    return p->command == MILTER_R_REPLBODY ? take_body(c, p->data, h) : take_field(c, p);
}

static int change(struct held *h, const struct milter_field *f) {
    ptrdiff_t at = held_find(h, f->name, f->index ? f->index - 1 : 0);
    if (at < 0)
        return f->value.len ? held_insert(h, held_count(h), f->name, f->value) : ERR_OK;
    if (f->value.len)
        return held_change(h, (size_t)at, f->value);
    held_remove(h, (size_t)at);
    return ERR_OK;
}

static int apply_one(struct held *h, const struct milter_packet *p) {
    struct milter_field f;
    int err = unpack(p, &f);
    if (err)
        return err;
    switch (p->command) {
    case MILTER_R_ADDHEADER:
        return held_insert(h, held_count(h), f.name, f.value);
    case MILTER_R_INSHEADER:
        return held_insert(h, f.index ? f.index - 1 : 0, f.name, f.value);
    default:
        return change(h, &f);
    }
}

int milter_changes_apply(struct milter_changes *c, struct held *h) {
    struct span left = buf_span(&c->fields);
    if (held_header_size(h) + c->octets > HELD_HEADER_MAX || held_count(h) + c->added > HELD_FIELDS_MAX)
        return ERR_FULL;
    while (left.len) {
        struct milter_packet p;
        size_t used = 0;
        CHECK(milter_unpack(left, &p, &used) == ERR_OK);
        int err = apply_one(h, &p);
        if (err)
            return err;
        left = span_from(left, used);
    }
    if (c->has_body)
        held_body_take(h, &c->body);
    return ERR_OK;
}
