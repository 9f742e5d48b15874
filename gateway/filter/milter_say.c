/*
 * milter_say: puts the stages of a session into the words of the filter protocol: which macros go in front of a
 * command, what it carries, whether this filter wants to hear it, and whether an answer will come.
 */
#include "base/check.h"

#include "gateway/filter/milter_inner.h"

const char *milter_flush(struct milter_conn *f) {
    struct buf *out = &f->owner->out;
    int err = out->err ? out->err : tcp_write(f->tcp, buf_span(out).at, buf_len(out));
    buf_clear(out);
    return err ? err_text(err) : NULL;
}

static void pack_mail(struct buf *out, const struct check_facts *c) {
    char text[32];
    buf_add_byte(out, '<');
    buf_add(out, span_first(c->sender, 1024));
    buf_add(out, span_make(">", 2)); /* with its NUL */
    if (c->size) {
        struct buf size;
        buf_init(&size, sizeof text);
        buf_add(&size, SPAN("SIZE="));
        buf_add_u64(&size, c->size);
        milter_pack_string(out, buf_span(&size), sizeof text);
        buf_deinit(&size);
    }
    if (c->eight_bit_given)
        milter_pack_string(out, SPAN("BODY=8BITMIME"), SIZE_MAX);
    if (c->smtputf8)
        milter_pack_string(out, SPAN("SMTPUTF8"), SIZE_MAX);
}

static void pack_rcpt(struct buf *out, const struct check_facts *c) {
    buf_add_byte(out, '<');
    buf_add(out, span_first(c->recipient, 1024));
    buf_add(out, span_make(">", 2));
}

static void pack_connect(struct buf *out, const struct check_facts *c) {
    char text[128];
    char family = c->client->storage.ss_family == AF_UNIX ? 'L' : tcp_addr_is_v6(c->client) ? '6' : '4';
    struct buf host;
    buf_init(&host, sizeof text);
    if (!c->client_name.len)
        buf_printf(&host, "[%.*s]", SPAN_FMT(c->client_ip));
    milter_pack_connect(out, c->client_name.len ? c->client_name : buf_span(&host), family,
                        family == 'L' ? 0 : tcp_addr_port(c->client), c->client_ip);
    buf_deinit(&host);
}

static void pack_header(struct milter_conn *f) {
    struct span name, value;
    held_field(f->owner->held, (size_t)f->place++, &name, &value);
    if (!(f->protocol & MILTER_LEADING_SPACE) && value.len && value.at[0] == ' ')
        value = span_from(value, 1);
    milter_pack_string(&f->owner->out, name, SIZE_MAX);
    milter_pack_string(&f->owner->out, value, MILTER_CHUNK - 2 - name.len);
}

static int pack_body(struct milter_conn *f) {
    struct buf *out = &f->owner->out;
    char *room = buf_reserve(out, MILTER_CHUNK);
    if (!room)
        return out->err;
    ptrdiff_t got = held_body_read(f->owner->held, f->place, room, MILTER_CHUNK);
    if (got < 0)
        return (int)got;
    buf_commit(out, (size_t)got);
    f->place += (uint64_t)got;
    return ERR_OK;
}

static int pack_data(struct milter_conn *f, char command) {
    struct buf *out = &f->owner->out;
    const struct check_facts *c = f->owner->facts;
    switch (command) {
    case MILTER_HELO:
        milter_pack_string(out, c->helo, MILTER_CHUNK - 1);
        return ERR_OK;
    case MILTER_MAIL:
        pack_mail(out, c);
        return ERR_OK;
    case MILTER_RCPT:
        pack_rcpt(out, c);
        return ERR_OK;
    case MILTER_HEADER:
        pack_header(f);
        return ERR_OK;
    case MILTER_BODY:
        return pack_body(f);
    default:
        return ERR_OK;
    }
}

/* How each command is left out, not answered, and which macros go in front; list -1: none. */
struct manner {
    char command;
    uint32_t no, nr;
    int list;
};
static const struct manner manners[] = {
    {MILTER_CONNECT, MILTER_NO_CONNECT, MILTER_NR_CONNECT, MILTER_LIST_CONNECT},
    {MILTER_HELO, MILTER_NO_HELO, MILTER_NR_HELO, MILTER_LIST_HELO},
    {MILTER_MAIL, MILTER_NO_MAIL, MILTER_NR_MAIL, MILTER_LIST_MAIL},
    {MILTER_RCPT, MILTER_NO_RCPT, MILTER_NR_RCPT, MILTER_LIST_RCPT},
    {MILTER_DATA, MILTER_NO_DATA, MILTER_NR_DATA, MILTER_LIST_DATA},
    {MILTER_HEADER, MILTER_NO_HEADERS, MILTER_NR_HEADER, -1},
    {MILTER_EOH, MILTER_NO_EOH, MILTER_NR_EOH, MILTER_LIST_EOH},
    {MILTER_BODY, MILTER_NO_BODY, MILTER_NR_BODY, -1},
    {MILTER_BODYEOB, 0, 0, MILTER_LIST_EOM},
};

static const struct manner *manner_of(char command) {
    for (size_t i = 0; i < sizeof manners / sizeof *manners; i++) {
        if (manners[i].command == command)
            return &manners[i];
    }
    CHECK_UNREACHABLE();
}

static bool is_unwanted(const struct milter_conn *f, const struct manner *how) {
    return (how->no & f->protocol) || (how->command == MILTER_DATA && f->version < 4);
}

const char *milter_say(struct milter_conn *f, char command) {
    const struct manner *how = manner_of(command);
    if (is_unwanted(f, how))
        return NULL;
    struct buf *out = &f->owner->out;
    if (how->list >= 0)
        milter_pack_macros(out, f->lists[how->list], (enum milter_list)how->list, how->command, f->owner->facts);
    if (how->command == MILTER_CONNECT) {
        pack_connect(out, f->owner->facts);
    } else {
        size_t place = milter_pack_begin(out, how->command);
        int err = pack_data(f, how->command);
        milter_pack_end(out, place);
        if (err) {
            buf_clear(out);
            return err_text(err);
        }
    }
    const char *why = milter_flush(f);
    if (!why && !(how->nr & f->protocol)) {
        f->awaiting = how->command;
        milter_conn_wait(f);
    }
    return why;
}
