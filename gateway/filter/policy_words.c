/*
 * policy_words: composes the question of a policy service and understands its answer. A value of a stranger can hold
 * no line break, so it can add no attribute of its own.
 */
#include "gateway/filter/policy_words.h"

#include "gateway/smtp/reply.h"

/* -- the question -- */

static void add(struct buf *to, const char *name, struct span value) {
    buf_add_str(to, name);
    buf_add_byte(to, '=');
    value = span_first(value, 1024);
    for (size_t i = 0; i < value.len; i++) {
        char c = value.at[i];
        buf_add_byte(to, c == '\r' || c == '\n' || c == '\0' ? '?' : c);
    }
    buf_add_byte(to, '\n');
}

static void add_number(struct buf *to, const char *name, uint64_t n) {
    buf_add_str(to, name);
    buf_add_byte(to, '=');
    buf_add_u64(to, n);
    buf_add_byte(to, '\n');
}

static struct span or_unknown(struct span name) {
    return name.len ? name : SPAN("unknown");
}

static const char *state_of(enum check_stage stage) {
    switch (stage) {
    case CHECK_CONNECT:
        return "CONNECT";
    case CHECK_HELO:
        return "EHLO";
    case CHECK_MAIL:
        return "MAIL";
    case CHECK_RCPT:
        return "RCPT";
    case CHECK_DATA:
        return "DATA";
    default:
        return "END-OF-MESSAGE";
    }
}

static void add_tls(struct buf *to, const struct tls_info *t) {
    bool verified = t && t->has_peer && t->peer_verified;
    add(to, "ccert_subject", verified ? span_of(t->peer_subject) : SPAN_EMPTY);
    add(to, "ccert_issuer", verified ? span_of(t->peer_issuer) : SPAN_EMPTY);
    add(to, "ccert_fingerprint", t && t->has_peer ? span_of(t->peer_fingerprint) : SPAN_EMPTY);
    add(to, "encryption_protocol", t ? span_of(t->version) : SPAN_EMPTY);
    add(to, "encryption_cipher", t ? span_of(t->cipher) : SPAN_EMPTY);
    add_number(to, "encryption_keysize", t ? t->bits : 0);
}

void policy_ask(struct buf *to, enum check_stage stage, const struct check_facts *f) {
    char ip[128];
    add(to, "request", SPAN("smtpd_access_policy"));
    add(to, "protocol_state", span_of(state_of(stage)));
    add(to, "protocol_name", f->esmtp ? SPAN("ESMTP") : SPAN("SMTP"));
    add(to, "helo_name", f->helo);
    add(to, "queue_id", f->id);
    add(to, "sender", f->sender);
    add(to, "recipient", stage == CHECK_RCPT ? f->recipient : SPAN_EMPTY);
    add_number(to, "recipient_count", stage == CHECK_RCPT ? 0 : f->recipients);
    add(to, "client_address", f->client_ip);
    add(to, "client_name", or_unknown(f->client_name));
    add(to, "reverse_client_name", or_unknown(f->reverse_name));
    add_number(to, "client_port", f->client ? tcp_addr_port(f->client) : 0);
    add(to, "instance", f->id);
    add(to, "sasl_method", f->mechanism);
    add(to, "sasl_username", f->account);
    add(to, "sasl_sender", SPAN_EMPTY);
    add_number(to, "size", f->size);
    add_tls(to, f->tls);
    add(to, "server_address", f->local ? span_make(ip, tcp_addr_ip(f->local, ip, sizeof ip)) : SPAN_EMPTY);
    add_number(to, "server_port", f->local ? tcp_addr_port(f->local) : 0);
    add(to, "stress", SPAN_EMPTY);
    add(to, "etrn_domain", SPAN_EMPTY);
    add(to, "policy_context", SPAN_EMPTY);
    add(to, "compatibility_level", SPAN("3.6"));
    buf_add_byte(to, '\n');
}

/* -- the answer -- */

static const struct {
    struct span word;
    enum policy_kind kind;
    uint16_t code;
    const char *text; /* when the service gives none */
} words[] = {
    {SPAN("OK"), POLICY_PASS, 0, ""},
    {SPAN("DUNNO"), POLICY_PASS, 0, ""},
    {SPAN("REJECT"), POLICY_REFUSE, 554, "Access denied"},
    {SPAN("DEFER"), POLICY_REFUSE, 450, "Access denied for now, try again later"},
    {SPAN("DEFER_IF_REJECT"), POLICY_REFUSE, 450, "Access denied for now, try again later"},
    {SPAN("DEFER_IF_PERMIT"), POLICY_REFUSE, 450, "Access denied for now, try again later"},
    {SPAN("DISCARD"), POLICY_DISCARD, 0, ""},
    {SPAN("PREPEND"), POLICY_PREPEND, 0, ""},
    {SPAN("WARN"), POLICY_WARN, 0, ""},
    {SPAN("INFO"), POLICY_INFO, 0, ""},
};

/* The enhanced code at the start of the text, or the usual one. */
static void divide_text(struct policy_action *a) {
    size_t len;
    a->enhanced = a->code < 500 ? SPAN("4.7.1") : SPAN("5.7.1");
    if (a->kind != POLICY_REFUSE || !reply_enhanced(a->text, a->code, &len))
        return;
    a->enhanced = span_first(a->text, len);
    a->text = span_trim(span_from(a->text, len));
}

static int understand(struct span value, struct policy_action *a) {
    struct span rest, word = span_cut(span_trim(value), ' ', &rest);
    const char *usual = "Access denied";
    uint64_t code;
    *a = (struct policy_action){.text = span_trim(rest)};
    if (word.len == 3 && span_u64(word, &code) && code >= 400 && code <= 599) {
        a->kind = POLICY_REFUSE;
        a->code = (uint16_t)code;
    } else {
        size_t i = 0;
        while (i < sizeof words / sizeof *words && !span_eq_nocase(word, words[i].word))
            i++;
        if (i == sizeof words / sizeof *words)
            return ERR_INVALID;
        a->kind = words[i].kind;
        a->code = words[i].code;
        usual = words[i].text;
    }
    divide_text(a);
    if (!a->text.len)
        a->text = span_of(usual);
    return ERR_OK;
}

int policy_answer(struct span in, struct policy_action *a, size_t *used) {
    struct span left = in, action = SPAN_EMPTY;
    while (left.len) {
        ptrdiff_t end = span_find(left, '\n');
        if (end < 0)
            break;
        struct span line = span_first(left, (size_t)end);
        left = span_from(left, (size_t)end + 1);
        if (line.len && line.at[line.len - 1] == '\r')
            line.len--;
        if (!line.len) {
            *used = in.len - left.len;
            return action.at ? understand(action, a) : ERR_INVALID;
        }
        ptrdiff_t equals = span_find(line, '=');
        if (equals <= 0)
            return ERR_INVALID;
        if (!span_eq_nocase(span_first(line, (size_t)equals), SPAN("action")))
            continue;
        if (action.at)
            return ERR_INVALID;
        action = span_from(line, (size_t)equals + 1);
    }
    return in.len >= POLICY_ANSWER_MAX ? ERR_INVALID : ERR_AGAIN;
}
