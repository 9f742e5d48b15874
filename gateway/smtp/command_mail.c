/*
 * command_mail: MAIL and RCPT: the path and the parameters of the extensions (SIZE, BODY, SMTPUTF8, DSN, AUTH,
 * REQUIRETLS, MT-PRIORITY, DELIVERBY, FUTURERELEASE).
 *
 * Each parameter is a row of a table. One that has no row, or whose extension was not offered because the
 * client said HELO, is 555; a known one with a bad value, or given twice, is 501. Everything kept
 * lives in the arena of the transaction.
 */
#include "base/clock.h"
#include "base/utf8.h"

#include "gateway/smtp/server_inner.h"
#include "gateway/smtp/xtext.h"

enum { ENVID_MAX = 100, ORCPT_MAX = 500, SIZE_DIGITS_MAX = 20 };
enum { NEVER = 1, SUCCESS = 2, FAILURE = 4, DELAY = 8 };

struct param {
    const char *name;
    bool (*take)(struct server *s, struct span value, struct server_reply *why);
    uint32_t extension; /* that must be on */
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
    /* Only for filters to know: what the body really holds is found out when it comes. */
    s->mail.eight_bit = span_eq_nocase(value, SPAN("8BITMIME"));
    if (s->mail.eight_bit || span_eq_nocase(value, SPAN("7BIT")))
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

/* RFC 4954 section 5: who vouches for the message; checked, and not passed on, as we trust nobody with it. */
static bool take_auth(struct server *s, struct span value, struct server_reply *why) {
    struct span who;
    int err = xtext_decode(value, false, &s->mem, &who);
    if (err == ERR_NOMEM)
        return refuse(why, 452, "4.3.1", "out of memory");
    return err ? refuse(why, 501, "5.5.4", "bad AUTH") : true;
}

static bool take_requiretls(struct server *s, struct span value, struct server_reply *why) {
    (void)value;
    s->mail.requiretls = s->tls;
    return s->tls ? true : refuse(why, 555, "5.5.4", "REQUIRETLS is offered inside TLS only");
}

/* An optional sign and at most `most` digits. */
static bool take_number(struct span text, size_t most, int64_t *to) {
    uint64_t n;
    bool minus = text.len && text.at[0] == '-';
    if (text.len && (minus || text.at[0] == '+'))
        text = span_from(text, 1);
    if (text.len > most || !span_u64(text, &n))
        return false;
    *to = minus ? -(int64_t)n : (int64_t)n;
    return true;
}

static bool take_priority(struct server *s, struct span value, struct server_reply *why) {
    int64_t n;
    if (value.len == 0 || value.at[0] == '+' || !take_number(value, 1, &n))
        return refuse(why, 501, "5.5.4", "bad MT-PRIORITY");
    s->mail.has_priority = true;
    s->mail.priority = (int8_t)n;
    return true;
}

static bool take_by(struct server *s, struct span value, struct server_reply *why) {
    struct span modes;
    struct span time = span_cut(value, ';', &modes);
    int64_t seconds;
    bool trace = modes.len == 2 && (modes.at[1] == 'T' || modes.at[1] == 't');
    bool notify = modes.len && (modes.at[0] == 'N' || modes.at[0] == 'n');
    bool back = modes.len && (modes.at[0] == 'R' || modes.at[0] == 'r');
    if (!take_number(time, 9, &seconds) || !(notify || back) || (modes.len != 1 && !trace) || (back && seconds <= 0))
        return refuse(why, 501, "5.5.4", "bad BY");
    if (back && seconds < (int64_t)s->settings->config.deliverby_min_s)
        return refuse(why, 501, "5.5.4", "BY is too short");
    s->mail.has_by = true;
    s->mail.by_notify = notify;
    s->mail.by_trace = trace;
    s->mail.by_s = (int32_t)seconds;
    return true;
}

static bool take_hold_for(struct server *s, struct span value, struct server_reply *why) {
    uint64_t seconds;
    if (value.len > 9 || !span_u64(value, &seconds) || seconds == 0 || s->mail.hold_until_ms)
        return refuse(why, 501, "5.5.4", "bad HOLDFOR");
    if (seconds * 1000 > s->settings->config.release_max_ms)
        return refuse(why, 501, "5.5.4", "HOLDFOR is too long");
    s->mail.hold_for_ms = seconds * 1000;
    return true;
}

static bool take_hold_until(struct server *s, struct span value, struct server_reply *why) {
    uint64_t ms;
    if (s->mail.hold_for_ms || clock_parse_rfc3339(value, &ms) != ERR_OK || ms == 0)
        return refuse(why, 501, "5.5.4", "bad HOLDUNTIL");
    if (ms < s->wall_ms || ms - s->wall_ms > s->settings->config.release_max_ms)
        return refuse(why, 501, "5.5.4", "HOLDUNTIL is in the past, or too far away");
    s->mail.hold_until_ms = ms;
    return true;
}

static const struct param mail_params[] = {
    {"SIZE", take_size, SERVER_EXT_SIZE, true, true},
    {"BODY", take_body, SERVER_EXT_8BITMIME, true, true},
    {"SMTPUTF8", take_smtputf8, SERVER_EXT_SMTPUTF8, false, false},
    {"RET", take_ret, SERVER_EXT_DSN, true, true},
    {"ENVID", take_envid, SERVER_EXT_DSN, true, true},
    {"AUTH", take_auth, SERVER_EXT_AUTH, true, true},
    {"REQUIRETLS", take_requiretls, SERVER_EXT_REQUIRETLS, false, false},
    {"MT-PRIORITY", take_priority, SERVER_EXT_MT_PRIORITY, true, true},
    {"BY", take_by, SERVER_EXT_DELIVERBY, true, true},
    {"HOLDFOR", take_hold_for, SERVER_EXT_FUTURERELEASE, true, true},
    {"HOLDUNTIL", take_hold_until, SERVER_EXT_FUTURERELEASE, true, true},
    {NULL, NULL, 0, false, false},
};
static const struct param rcpt_params[] = {
    {"NOTIFY", take_notify, SERVER_EXT_DSN, true, true},
    {"ORCPT", take_orcpt, SERVER_EXT_DSN, true, true},
    {NULL, NULL, 0, false, false},
};

static int find_param(const struct server *s, const struct param *table, struct span name) {
    for (int i = 0; table[i].name; i++) {
        if (span_eq_nocase(name, span_of(table[i].name)))
            return (table[i].extension & ~s->settings->config.extensions) ? -1 : i;
    }
    return -1;
}

static bool take_param(struct server *s, const struct param *table, struct span word, unsigned *seen,
                       struct server_reply *why) {
    struct span value;
    bool has_value = span_find(word, '=') >= 0;
    struct span name = span_cut(word, '=', &value);
    int at = s->esmtp ? find_param(s, table, name) : -1;
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
    if (command_must_wait(s, &why)) {
        server_say_reply(out, &why);
        s->errors++;
        s->tally.order++;
        return;
    }
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
