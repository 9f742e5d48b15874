/*
 * command_mail: MAIL and RCPT: the path and the parameters of the extensions (SIZE, BODY, SMTPUTF8, DSN).
 *
 * Each parameter is a row of a table. One that has no row, or whose extension was not offered because the
 * client said HELO, is 555; a known one with a bad value, or given twice, is 501. Everything kept
 * lives in the arena of the transaction.
 */
#include "base/utf8.h"

#include "gateway/smtp/server_inner.h"
#include "gateway/smtp/xtext.h"

enum { ENVID_MAX = 100, ORCPT_MAX = 500, SIZE_DIGITS_MAX = 20 };
enum { NEVER = 1, SUCCESS = 2, FAILURE = 4, DELAY = 8 };

struct param {
    const char *name;
    bool (*take)(struct server *s, struct span value, struct server_reply *why);
    bool needs_value, may_have_value;
};

static bool refuse(struct server_reply *why, unsigned code, const char *enhanced, const char *text) {
    *why = server_reply_make(code, enhanced, text);
    return false;
}

static bool take_size(struct server *s, struct span value, struct server_reply *why) {
    uint64_t size = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] < '0' || value.at[i] > '9')
            return refuse(why, 501, "5.5.4", "bad SIZE");
    }
    if (value.len > SIZE_DIGITS_MAX)
        return refuse(why, 501, "5.5.4", "bad SIZE");
    if (!span_u64(value, &size) || size > s->settings->config.message_size)
        return refuse(why, 552, "5.3.4", "message is over the size limit");
    s->mail.size = size;
    return true;
}

static bool take_body(struct server *s, struct span value, struct server_reply *why) {
    (void)s; /* what the body really holds is found out when it comes */
    if (span_eq_nocase(value, SPAN("7BIT")) || span_eq_nocase(value, SPAN("8BITMIME")))
        return true;
    return refuse(why, 501, "5.5.4", "bad BODY");
}

static bool take_smtputf8(struct server *s, struct span value, struct server_reply *why) {
    (void)value;
    (void)why;
    s->mail.smtputf8 = true;
    return true;
}

static bool take_ret(struct server *s, struct span value, struct server_reply *why) {
    s->mail.ret = span_eq_nocase(value, SPAN("FULL")) ? 1 : span_eq_nocase(value, SPAN("HDRS")) ? 2 : 0;
    return s->mail.ret ? true : refuse(why, 501, "5.5.4", "bad RET");
}

static bool take_envid(struct server *s, struct span value, struct server_reply *why) {
    if (value.len > ENVID_MAX)
        return refuse(why, 501, "5.5.4", "ENVID too long");
    switch (xtext_decode(value, false, &s->mem, &s->mail.envid)) {
    case ERR_OK:
        return true;
    case ERR_NOMEM:
        return refuse(why, 452, "4.3.1", "out of memory");
    default:
        return refuse(why, 501, "5.5.4", "bad ENVID");
    }
}

static uint8_t notify_bit(struct span word) {
    static const char *const words[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"};
    for (unsigned i = 0; i < 4; i++) {
        if (span_eq_nocase(word, span_of(words[i])))
            return (uint8_t)(1u << i);
    }
    return 0;
}

static bool take_notify(struct server *s, struct span value, struct server_reply *why) {
    uint8_t bits = 0;
    bool more = true;
    while (more) {
        struct span rest;
        more = span_find(value, ',') >= 0;
        uint8_t bit = notify_bit(span_cut(value, ',', &rest));
        if (!bit)
            return refuse(why, 501, "5.5.4", "bad NOTIFY");
        bits |= bit;
        value = rest;
    }
    if ((bits & NEVER) && bits != NEVER)
        return refuse(why, 501, "5.5.4", "NOTIFY=NEVER stands alone");
    s->rcpt.notify = bits;
    return true;
}

/* RFC 3461: the address type is an atom. */
static bool is_atom(struct span word) {
    for (size_t i = 0; i < word.len; i++) {
        char c = word.at[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '-' && c != '.' && c != '_')
            return false;
    }
    return word.len > 0;
}

static bool take_orcpt(struct server *s, struct span value, struct server_reply *why) {
    struct span encoded, decoded;
    if (value.len > ORCPT_MAX)
        return refuse(why, 501, "5.5.4", "ORCPT too long");
    ptrdiff_t at = span_find(value, ';');
    struct span type = span_cut(value, ';', &encoded);
    if (at < 0 || !is_atom(type) || encoded.len == 0)
        return refuse(why, 501, "5.5.4", "bad ORCPT");
    int err = xtext_decode(encoded, s->mail.smtputf8, &s->mem, &decoded);
    if (err == ERR_INVALID)
        return refuse(why, 501, "5.5.4", "bad ORCPT");
    char *whole = err ? NULL : arena_printf(&s->mem, "%.*s;%.*s", SPAN_FMT(type), SPAN_FMT(decoded));
    if (!whole)
        return refuse(why, 452, "4.3.1", "out of memory");
    s->rcpt.orcpt = span_make(whole, type.len + 1 + decoded.len);
    return true;
}

static const struct param mail_params[] = {
    {"SIZE", take_size, true, true}, {"BODY", take_body, true, true},   {"SMTPUTF8", take_smtputf8, false, false},
    {"RET", take_ret, true, true},   {"ENVID", take_envid, true, true}, {NULL, NULL, false, false},
};
static const struct param rcpt_params[] = {
    {"NOTIFY", take_notify, true, true},
    {"ORCPT", take_orcpt, true, true},
    {NULL, NULL, false, false},
};

static int find_param(const struct param *table, struct span name) {
    for (int i = 0; table[i].name; i++) {
        if (span_eq_nocase(name, span_of(table[i].name)))
            return i;
    }
    return -1;
}

static bool take_param(struct server *s, const struct param *table, struct span word, unsigned *seen,
                       struct server_reply *why) {
    struct span value;
    bool has_value = span_find(word, '=') >= 0;
    struct span name = span_cut(word, '=', &value);
    int at = s->esmtp ? find_param(table, name) : -1;
    if (at < 0)
        return refuse(why, 555, "5.5.4", "parameter not known");
    bool fits = has_value ? table[at].may_have_value && value.len : !table[at].needs_value;
    if (!fits || (*seen & (1u << at)))
        return refuse(why, 501, "5.5.4", "bad parameter");
    *seen |= 1u << at;
    return table[at].take(s, value, why);
}

static bool take_params(struct server *s, const struct param *table, struct span words, struct server_reply *why) {
    unsigned seen = 0;
    while ((words = span_trim(words)).len) {
        struct span rest;
        struct span word = span_cut(words, ' ', &rest);
        if (!take_param(s, table, word, &seen, why))
            return false;
        words = rest;
    }
    return true;
}

/* "FROM:<...>" or "TO:<...>": the address, and what follows it. */
static bool take_path(struct server *s, struct span args, struct span prefix, struct address *a, struct span *params,
                      struct server_reply *why) {
    bool sender = prefix.len == 5;
    const char *enhanced = sender ? "5.1.7" : "5.1.3";
    size_t used = 0;
    if (!span_starts_nocase(args, prefix))
        return refuse(why, 501, "5.5.4", sender ? "expected MAIL FROM:<address>" : "expected RCPT TO:<address>");
    struct span path = span_trim(span_from(args, prefix.len));
    switch (address_parse_path(a, path, sender, !sender, &s->mem, &used)) {
    case ERR_OK:
        break;
    case ERR_RANGE:
        return refuse(why, 501, enhanced, "address too long");
    case ERR_NOMEM:
        return refuse(why, 452, "4.3.1", "out of memory");
    default:
        return refuse(why, 501, enhanced, "bad address syntax");
    }
    *params = span_from(path, used);
    if (params->len && params->at[0] != ' ')
        return refuse(why, 501, "5.5.4", "bad address syntax");
    return true;
}

static void say_refusal(struct server *s, const struct server_reply *why, struct buf *out) {
    server_say_reply(out, why);
    if (why->code >= 500) {
        s->errors++;
        s->tally.syntax++;
    }
}

void command_mail(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    struct server_reply why;
    struct span params;
    s->mail = (struct server_mail){0};
    bool fine =
        take_path(s, args, SPAN("FROM:"), &s->mail.sender, &params, &why) && take_params(s, mail_params, params, &why);
    if (fine && s->mail.sender.utf8 && !s->mail.smtputf8)
        fine = refuse(&why, 553, "5.6.7", "non-ASCII address without SMTPUTF8");
    if (!fine) {
        say_refusal(s, &why, out);
        s->stale = true;
        return;
    }
    s->wait = SERVER_WAIT_MAIL;
    step->kind = SERVER_STEP_MAIL;
}

void command_rcpt(struct server *s, struct span args, struct buf *out, struct server_step *step) {
    struct server_reply why;
    struct span params;
    if (s->rcpt_count >= s->settings->config.recipients) {
        server_say(out, 452, "4.5.3", "too many recipients");
        return;
    }
    s->rcpt = (struct server_rcpt){0};
    bool fine =
        take_path(s, args, SPAN("TO:"), &s->rcpt.address, &params, &why) && take_params(s, rcpt_params, params, &why);
    if (fine && s->rcpt.address.utf8 && !s->mail.smtputf8)
        fine = refuse(&why, 553, "5.6.7", "non-ASCII address without SMTPUTF8");
    if (!fine) {
        say_refusal(s, &why, out);
        return;
    }
    s->wait = SERVER_WAIT_RCPT;
    step->kind = SERVER_STEP_RCPT;
}
