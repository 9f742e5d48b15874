/*
 * login: see login.h. Each mechanism is a begin and a respond; the client core carries the lines. Passwords in buffers
 * of ours are wiped when they have been encoded.
 */
#include <gsasl.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/hash.h"
#include "base/net/secret.h"

#include "gateway/outbound/login.h"

enum { TEXT_MAX = 8192 };

struct scram {
    Gsasl *context;
    Gsasl_session *session;
};

static bool refuse(struct login *l, const char *why) {
    l->why = why;
    return false;
}

/* The encoded text; what is in clear is wiped. */
static bool put_wiped(struct buf *line, struct buf *clear) {
    bool fine = clear->err == ERR_OK && base64_encode(buf_span(clear), line) == ERR_OK;
    if (buf_len(clear))
        secret_wipe((char *)buf_span(clear).at, buf_len(clear));
    buf_deinit(clear);
    return fine;
}

/* -- PLAIN (RFC 4616) -- */

static bool plain_begin(struct login *l, struct buf *line) {
    struct buf clear;
    buf_init(&clear, TEXT_MAX);
    buf_add_byte(&clear, '\0');
    buf_add_str(&clear, l->with->user);
    buf_add_byte(&clear, '\0');
    buf_add_str(&clear, l->with->password);
    buf_add_str(line, "PLAIN ");
    return put_wiped(line, &clear);
}

static bool plain_respond(struct login *l, struct span challenge, struct buf *line) {
    (void)challenge;
    (void)line;
    return refuse(l, "the server asks for more than PLAIN has");
}

/* -- LOGIN: a name, then a password, whatever the questions say -- */

static bool login_begin(struct login *l, struct buf *line) {
    (void)l;
    return buf_add_str(line, "LOGIN") == ERR_OK;
}

static bool login_respond(struct login *l, struct span challenge, struct buf *line) {
    struct buf clear;
    (void)challenge;
    if (l->step > 2)
        return refuse(l, "the server asks for more than LOGIN has");
    buf_init(&clear, TEXT_MAX);
    buf_add_str(&clear, l->step == 1 ? l->with->user : l->with->password);
    return put_wiped(line, &clear);
}

/* -- XOAUTH2: the password is a token -- */

static bool xoauth2_begin(struct login *l, struct buf *line) {
    struct buf clear;
    buf_init(&clear, TEXT_MAX);
    buf_printf(&clear, "user=%s\001auth=Bearer %s\001\001", l->with->user, l->with->password);
    buf_add_str(line, "XOAUTH2 ");
    return put_wiped(line, &clear);
}

/* The challenge tells what is wrong; an empty answer brings the 535. */
static bool xoauth2_respond(struct login *l, struct span challenge, struct buf *line) {
    (void)challenge;
    (void)line;
    return l->step == 1 ? true : refuse(l, "the server asks for more than XOAUTH2 has");
}

/* -- SCRAM-SHA-256 (RFC 7677) -- */

static void scram_free(struct login *l) {
    struct scram *s = l->scram;
    l->scram = NULL;
    if (!s)
        return;
    if (s->session)
        gsasl_finish(s->session);
    if (s->context)
        gsasl_done(s->context);
    free(s);
}

/* One step of the library; the result is encoded to the line. */
static bool scram_step(struct login *l, struct span challenge, struct buf *line) {
    struct scram *s = l->scram;
    char *out = NULL;
    size_t len = 0;
    int status = gsasl_step(s->session, challenge.at ? challenge.at : "", challenge.len, &out, &len);
    bool fine =
        (status == GSASL_OK || status == GSASL_NEEDS_MORE) && base64_encode(span_make(out, len), line) == ERR_OK;
    gsasl_free(out);
    return fine || refuse(l, "the server does not know the password, or is not who it says");
}

static bool scram_begin(struct login *l, struct buf *line) {
    struct scram *s = l->scram = calloc(1, sizeof *s);
    bool fine = s && gsasl_init(&s->context) == GSASL_OK &&
                gsasl_client_start(s->context, "SCRAM-SHA-256", &s->session) == GSASL_OK &&
                gsasl_property_set(s->session, GSASL_AUTHID, l->with->user) == GSASL_OK &&
                gsasl_property_set(s->session, GSASL_PASSWORD, l->with->password) == GSASL_OK;
    if (!fine)
        return refuse(l, "out of memory");
    buf_add_str(line, "SCRAM-SHA-256 ");
    return scram_step(l, SPAN_EMPTY, line);
}

static bool scram_respond(struct login *l, struct span challenge, struct buf *line) {
    return scram_step(l, challenge, line);
}

/* -- which -- */

static const struct mechanism {
    const char *name;
    bool (*begin)(struct login *l, struct buf *line);
    bool (*respond)(struct login *l, struct span challenge, struct buf *line);
    bool clear; /* may go without TLS */
} mechanisms[] = {
    {"SCRAM-SHA-256", scram_begin, scram_respond, true},
    {"XOAUTH2", xoauth2_begin, xoauth2_respond, false},
    {"PLAIN", plain_begin, plain_respond, false},
    {"LOGIN", login_begin, login_respond, false},
};

static bool has_word(struct span words, const char *word) {
    while (words.len) {
        if (span_eq_nocase(span_cut(words, ' ', &words), span_of(word)))
            return true;
    }
    return false;
}

/* XOAUTH2 is for tokens: only where the settings name it. */
static bool is_allowed(const struct outbound_login *with, const struct mechanism *m) {
    if (with->mechanisms)
        return has_word(span_of(with->mechanisms), m->name);
    return m->begin != xoauth2_begin;
}

static bool begin(struct client_login *core, struct span offered, struct buf *line) {
    struct login *l = (struct login *)core; /* core is the first member */
    bool in_clear = false;
    for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++) {
        const struct mechanism *m = &mechanisms[i];
        if (!has_word(offered, m->name) || !is_allowed(l->with, m))
            continue;
        in_clear |= !m->clear && !l->secured;
        if (!m->clear && !l->secured)
            continue;
        l->step = (int)i << 8;
        return m->begin(l, line);
    }
    return refuse(l, in_clear ? "the server has no TLS, and a password does not go in the clear"
                              : "the server offers no mechanism that we may use");
}

static bool respond(struct client_login *core, struct span challenge, struct buf *line) {
    struct login *l = (struct login *)core;
    const struct mechanism *m = &mechanisms[l->step >> 8];
    struct login at = *l;
    at.step = (++l->step) & 0xff;
    bool fine = m->respond(&at, challenge, line);
    l->why = at.why;
    return fine;
}

static unsigned mark(const struct outbound_login *with, uint64_t key) {
    uint64_t h = hash_span(span_of(with->user), key);
    h = hash_span(span_of(with->password), h);
    return (unsigned)hash_span(span_of(with->mechanisms ? with->mechanisms : ""), h);
}

const char *login_site(struct arena *mem, const char *site, const struct outbound_login *with, uint64_t key) {
    return with ? arena_printf(mem, "%s+login:%08x", site, mark(with, key)) : arena_strdup(mem, site);
}

void login_init(struct login *l, const struct outbound_login *with) {
    *l = (struct login){.core = {begin, respond}, .with = with};
}

void login_deinit(struct login *l) {
    scram_free(l);
}
