/*
 * web_session: see web_session.h. Tokens are compared in constant time, all of them: a hundred is few.
 */
#include "admin/web_session.h"

#include <stdlib.h>
#include <string.h>

#include "base/net/secret.h"
#include "base/rand.h"

static void make_token(char to[WEB_TOKEN_LEN + 1]) {
    static const char digits[] = "0123456789abcdef";
    uint8_t random[WEB_TOKEN_LEN / 2];
    rand_secure(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++) {
        to[2 * i] = digits[random[i] >> 4];
        to[2 * i + 1] = digits[random[i] & 15];
    }
    to[WEB_TOKEN_LEN] = '\0';
}

void web_sessions_init(struct web_sessions *s) {
    list_init(&s->all);
}

void web_session_end(struct web_sessions *s, struct web_session *session) {
    list_remove(&s->all, &session->link);
    secret_wipe(session, sizeof *session);
    free(session);
}

void web_sessions_deinit(struct web_sessions *s) {
    while (!list_is_empty(&s->all))
        web_session_end(s, LIST_ENTRY(list_first(&s->all), struct web_session, link));
}

static bool is_over(const struct web_session *session, uint64_t now_ms) {
    return now_ms - session->used_ms >= WEB_SESSION_IDLE_MS || now_ms - session->began_ms >= WEB_SESSION_LIFE_MS;
}

static void end_those_over(struct web_sessions *s, uint64_t now_ms) {
    LIST_FOREACH(it, next, &s->all) {
        struct web_session *session = LIST_ENTRY(it, struct web_session, link);
        if (is_over(session, now_ms))
            web_session_end(s, session);
    }
}

/* Ends the one used longest ago of a user who has as many as one may have, or of all. */
static void make_room(struct web_sessions *s, const char *name) {
    struct web_session *oldest = NULL;
    size_t own = 0;
    LIST_FOREACH(it, next, &s->all) {
        struct web_session *session = LIST_ENTRY(it, struct web_session, link);
        if (strcmp(session->name, name) == 0 && own++ == 0)
            oldest = session;
    }
    if (own >= WEB_SESSIONS_OF_ONE)
        web_session_end(s, oldest);
    else if (s->all.count >= WEB_SESSIONS_MAX)
        web_session_end(s, LIST_ENTRY(list_first(&s->all), struct web_session, link));
}

struct web_session *web_session_begin(struct web_sessions *s, const char *name, unsigned role, uint64_t now_ms) {
    end_those_over(s, now_ms);
    struct web_session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    make_room(s, name);
    make_token(session->token);
    make_token(session->csrf);
    span_copy(span_of(name), session->name, sizeof session->name);
    session->role = role;
    session->began_ms = session->used_ms = now_ms;
    list_push_back(&s->all, &session->link);
    return session;
}

struct web_session *web_session_find(struct web_sessions *s, struct span token, bool use, uint64_t now_ms) {
    struct web_session *found = NULL;
    end_those_over(s, now_ms);
    LIST_FOREACH(it, next, &s->all) {
        struct web_session *session = LIST_ENTRY(it, struct web_session, link);
        if (secret_equal(token, span_of(session->token)))
            found = session;
    }
    if (found && use) {
        found->used_ms = now_ms;
        list_remove(&s->all, &found->link);
        list_push_back(&s->all, &found->link);
    }
    return found;
}

void web_session_end_user(struct web_sessions *s, const char *name) {
    LIST_FOREACH(it, next, &s->all) {
        struct web_session *session = LIST_ENTRY(it, struct web_session, link);
        if (strcmp(session->name, name) == 0)
            web_session_end(s, session);
    }
}

struct span web_cookie(struct span header, const char *name) {
    while (header.len) {
        struct span value, pair = span_trim(span_cut(header, ';', &header));
        if (span_eq(span_cut(pair, '=', &value), span_of(name)))
            return value;
    }
    return SPAN_EMPTY;
}
