/*
 * forward_attrs: see forward_attrs.h. What the attributes look like on the wire, and the order of the dialogue, is
 * known to gateway/smtp; here is decided whether they are told at all, and it is counted.
 *
 * A server that does not announce the command, or refuses it, gets the mail without: the settings say what it may know,
 * not what it must.
 */
#include "gateway/outbound/forward_attrs.h"

#define HELP "Connections and messages that a client's attributes were to be told for"
METRIC_COUNTER_L(x_told, "posthouse_delivery_attributes_total", "command=\"xclient\",result=\"told\"", HELP);
METRIC_COUNTER_L(x_missing, "posthouse_delivery_attributes_total", "command=\"xclient\",result=\"not_offered\"", HELP);
METRIC_COUNTER_L(x_refused, "posthouse_delivery_attributes_total", "command=\"xclient\",result=\"refused\"", HELP);
METRIC_COUNTER_L(f_told, "posthouse_delivery_attributes_total", "command=\"xforward\",result=\"told\"", HELP);
METRIC_COUNTER_L(f_missing, "posthouse_delivery_attributes_total", "command=\"xforward\",result=\"not_offered\"", HELP);
METRIC_COUNTER_L(f_refused, "posthouse_delivery_attributes_total", "command=\"xforward\",result=\"refused\"", HELP);

static struct span text_of(bool has, ProtobufCBinaryData d) {
    return has ? frame_span(d) : SPAN_EMPTY;
}

/* NULL: the message has no client. */
static const struct client_attrs *attributes(struct attempt *a) {
    const Words__Job *j = a->job;
    if (!j->has_client || !j->client.len)
        return NULL;
    base32_encode(j->message, a->ident);
    a->attrs = (struct client_attrs){.addr = frame_span(j->client),
                                     .name = text_of(j->has_client_name, j->client_name),
                                     .helo = text_of(j->has_helo, j->helo),
                                     .protocol = text_of(j->has_protocol, j->protocol),
                                     .login = text_of(j->has_account, j->account),
                                     .ident = span_of(a->ident),
                                     .port = j->has_client_port ? j->client_port : 0,
                                     .local = j->has_submitted && j->submitted};
    return &a->attrs;
}

bool forward_attrs_introduce(struct attempt *a) {
    struct conn *c = a->conn;
    const struct client_attrs *attrs = a->rule && a->rule->xclient ? attributes(a) : NULL;
    switch (client_speaks_for(&c->client, attrs)) {
    case CLIENT_SPEAKS_MAY_ASK:
        a->introducing = true;
        conn_introduce(c, attrs);
        return true;
    case CLIENT_SPEAKS_OTHER:
        c->bound = true;
        attempt_go_on(a);
        return true;
    case CLIENT_SPEAKS_PLAIN:
        if (attrs && !c->client.ext.xclient)
            metric_add(&x_missing, 1);
        return false;
    case CLIENT_SPEAKS_FOR_IT:
        return false;
    }
    return false;
}

void forward_attrs_count(struct attempt *a) {
    const struct client *c = &a->conn->client;
    if (a->introducing)
        metric_add(buf_len(&c->introduced) && !c->xclient_refused ? &x_told : &x_refused, 1);
    else if (a->in_transaction && a->mail.forward)
        metric_add(c->xforward_refused ? &f_refused : c->ext.xforward ? &f_told : &f_missing, 1);
    a->introducing = false;
}

const struct client_attrs *forward_attrs_of(struct attempt *a) {
    return a->rule && a->rule->xforward ? attributes(a) : NULL;
}
