/*
 * verp: variable envelope return paths: the sender of a list gets bounces at an address that names the recipient,
 * local+user=example.net@domain, whatever other systems make of the text of the bounce.
 */
#ifndef SCHEDULER_VERP_H
#define SCHEDULER_VERP_H

#include "base/arena.h"
#include "base/err.h"

struct verp;
/* senders: addresses, or domains (all their senders). Copies. ERR_NOMEM. */
int verp_new(struct verp **out, const char *const *senders, size_t count) MUST_CHECK;
void verp_free(struct verp *v); /* NULL is fine */
/* The return path for one recipient, in mem; empty: the sender's own is used: it is none of the list, or the two
 * addresses cannot be joined into a valid ASCII one. v may be NULL. */
struct span verp_return_path(const struct verp *v, struct span sender, struct span recipient, struct arena *mem);

#endif
