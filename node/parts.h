/*
 * parts: what the front end needs besides plain settings: recipients, TLS, AUTH, mail authentication. Made of files and
 * other people's libraries, so making them may fail, and blocks: at start, and on a helper thread at a reload.
 *
 * Immutable and counted. A reload makes new ones, which take over what did not change.
 */
#ifndef NODE_PARTS_H
#define NODE_PARTS_H

#include "node/settings.h"

struct parts;
/* old may be NULL: what can live on is taken over. problems gets a line for each error and, with ": warning: ",
 * for what works and is yet unwise. ERR_INVALID; ERR_NOMEM. */
int parts_new(struct parts **p, const struct settings *s, struct parts *old, struct buf *problems) MUST_CHECK;
struct parts *parts_ref(struct parts *p);
void parts_unref(struct parts *p);
/* Makes anew what comes from files that changed: *fresh, or NULL when nothing did. What is broken stays as it was and
 * is named in problems. s: the settings that p was made of. */
int parts_reload(struct parts *p, const struct settings *s, struct parts **fresh, struct buf *problems) MUST_CHECK;
/* Paths of all files that are read, for watching; NULL after the last. */
const char *parts_file(const struct parts *p, size_t n);
/* For the front end; borrowed. */
struct inbound_parts parts_inbound(const struct parts *p);
struct recipients *parts_recipients(const struct parts *p);

#endif
