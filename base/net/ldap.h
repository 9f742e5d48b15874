/*
 * ldap: the door to libldap (RFC 4511), blocking with deadlines: for threads of a pool, never for a loop.
 */
#ifndef BASE_NET_LDAP_H
#define BASE_NET_LDAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

struct ldap_link; /* one connection; belongs to one thread */
struct ldap_config {
    const char *uri;     /* ldap://, ldaps://, ldapi:// */
    bool starttls;       /* on ldap://; the certificate is always checked */
    const char *ca_file; /* NULL: the system's */
    uint64_t timeout_ms; /* connect and each operation */
};
/* why: gets one clean line on failure (may be NULL). ERR_UNREACHABLE, ERR_TIMEOUT, ERR_DENIED (TLS), ERR_INVALID,
 * ERR_NOMEM. */
int ldap_link_open(struct ldap_link **l, const struct ldap_config *c, struct buf *why) MUST_CHECK;
void ldap_link_close(struct ldap_link *l);
void ldap_link_set_timeout(struct ldap_link *l, uint64_t timeout_ms); /* of the next operations */
/* Simple bind; an empty password with a name is refused here with ERR_DENIED (RFC 4513 section 5.1.2: it would
 * succeed). ERR_DENIED: wrong name or password; ERR_CLOSED, ERR_TIMEOUT, ERR_IO: the link is to be closed. */
int ldap_link_bind(struct ldap_link *l, const char *dn, struct span password, struct buf *why) MUST_CHECK;
/* Subtree search, at most 1000 entries. For each value of each wanted attribute of each entry; once more for each entry
 * with attribute NULL and value = its DN, before its values. ERR_OK; ERR_FULL: more entries; others as above. */
typedef void (*ldap_value_cb)(void *arg, const char *attribute, struct span value);
int ldap_link_search(struct ldap_link *l, const char *base, const char *filter, const char *const *attributes,
                     ldap_value_cb cb, void *arg, struct buf *why) MUST_CHECK;
/* Appends with what RFC 4515 (filters) asks to be escaped; RFC 4514 for a part of a DN. */
int ldap_escape_filter(struct span s, struct buf *to);
int ldap_escape_dn(struct span s, struct buf *to);

#endif
