/*
 * Fuzzes the reply parser and the client core on top of it: whatever a server sends, in whatever
 * pieces, the text stays one clean line within its bound and the dialogue ends or asks for more.
 * The first octet chooses protocol, pipelining and the size of the pieces.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "gateway/smtp/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reply(const struct reply *r) {
    CHECK(r->text_len <= REPLY_TEXT_MAX && r->text[r->text_len] == '\0' && r->code <= 999);
    for (size_t i = 0; i < r->text_len; i++)
        CHECK(r->text[i] >= 0x20 && r->text[i] <= 0x7e);
}

static const struct client_recipient recipients[] = {
    {.address = {"a@x.example", 11}}, {.address = {"b@x.example", 11}, .orcpt = {"rfc822;b+@x", 11}, .notify = 6}};

static const struct client_attrs attrs[2] = {{.addr = {"192.0.2.1", 9}, .helo = {"a.example", 9}},
                                             {.addr = {"2001:db8::1", 11}, .login = {"b", 1}}};

/* Every other transaction is for another client, and introduced where the server allows it. */
static bool is_introducing(struct client *c) {
    const struct client_attrs *a = &attrs[c->transactions % 2];
    if (client_speaks_for(c, a) != CLIENT_SPEAKS_MAY_ASK)
        return false;
    client_introduce(c, a);
    return true;
}

/* Returns false when the session is over. */
static bool on_event(struct client *c, const struct client_event *e, const struct client_mail *m) {
    if (e->reply)
        check_reply(e->reply);
    switch (e->kind) {
    case CLIENT_EV_READY:
        if (c->transactions > 20)
            client_quit(c);
        else if (!is_introducing(c))
            CHECK(client_begin(c, m) == ERR_OK);
        return true;
    case CLIENT_EV_BODY:
        client_body_sent(c);
        return true;
    case CLIENT_EV_SECURE:
        client_secured(c);
        return true;
    case CLIENT_EV_RECIPIENT:
    case CLIENT_EV_LATER:
        CHECK(e->index < m->count);
        return true;
    default:
        return e->kind != CLIENT_EV_END;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    const struct client_mail m = {.sender = SPAN("s@x.example"),
                                  .size = 5,
                                  .eight_bit = true,
                                  .forward = attrs,
                                  .recipients = recipients,
                                  .count = 2};
    struct client c;
    client_init(&c, data[0] & 1 ? CLIENT_LMTP : CLIENT_SMTP, "me.example");
    size_t step = (size_t)(data[0] >> 1) + 1;
    struct span rest = span_make(data + 1, size - 1);
    bool open = true;
    while (open && rest.len) {
        struct span part = span_first(rest, step);
        rest = span_from(rest, part.len);
        struct client_event e;
        do {
            client_next(&c, &part, &e);
            open = on_event(&c, &e, &m);
        } while (open && e.kind != CLIENT_EV_MORE);
        CHECK(!open || part.len == 0);
        buf_clear(&c.out);
    }
    client_deinit(&c);
    return 0;
}
