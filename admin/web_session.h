/*
 * web_session: who has signed in to the HTTP face. Pure: time is an argument. In memory alone: a restart signs all out.
 *
 * A session ends when nobody used it for WEB_SESSION_IDLE_MS, at WEB_SESSION_LIFE_MS in any case, at sign-out, and when
 * WEB_SESSIONS_MAX others, or WEB_SESSIONS_OF_ONE of the same user, were used after it. Its token and its CSRF token
 * are random, 256 bits each, as hex.
 */
#ifndef ADMIN_WEB_SESSION_H
#define ADMIN_WEB_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/span.h"

#define WEB_SESSIONS_MAX 100u
#define WEB_SESSIONS_OF_ONE 10u /* so that nobody signs others out by signing in */
#define WEB_SESSION_IDLE_MS (30u * 60u * 1000u)
#define WEB_SESSION_LIFE_MS (12u * 3600u * 1000u)
#define WEB_TOKEN_LEN 64u
#define WEB_NAME_MAX 64u

struct web_session {
    struct list_node link;
    char token[WEB_TOKEN_LEN + 1], csrf[WEB_TOKEN_LEN + 1];
    char name[WEB_NAME_MAX + 1];
    unsigned role;
    uint64_t began_ms, used_ms;
};
struct web_sessions {
    struct list all; /* the one used longest ago first */
};

void web_sessions_init(struct web_sessions *s);
void web_sessions_deinit(struct web_sessions *s);
/* NULL: no memory. */
struct web_session *web_session_begin(struct web_sessions *s, const char *name, unsigned role, uint64_t now_ms);
/* The live session of a token, or NULL. use: somebody is at the keys, so its idle time starts again. */
struct web_session *web_session_find(struct web_sessions *s, struct span token, bool use, uint64_t now_ms);
void web_session_end(struct web_sessions *s, struct web_session *session);
/* Ends those of a user, after a change of the settings. */
void web_session_end_user(struct web_sessions *s, const char *name);
/* Of a Cookie field: the value of the cookie, or empty. */
struct span web_cookie(struct span header, const char *name);

#endif
