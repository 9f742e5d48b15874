/*
 * sender: which sender addresses an account may use: the file of `sender_login`. Read whole, never changed afterwards.
 */
#ifndef GATEWAY_AUTH_SENDER_H
#define GATEWAY_AUTH_SENDER_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

struct sender_login;
int sender_login_new(struct sender_login **s, const char *path, const char *realm, struct buf *problems) MUST_CHECK;
void sender_login_free(struct sender_login *s);
bool sender_login_is_stale(const struct sender_login *s);
/* s may be NULL: no file. */
bool sender_login_may(const struct sender_login *s, struct span account, struct span sender);

#endif
