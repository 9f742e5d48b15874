/*
 * mailauth: is the mail from whom it says? SPF (RFC 7208, libspf2), DKIM (RFC 6376, libopendkim), DMARC (RFC 7489,
 * libopendmarc) as an Authentication-Results field (RFC 8601); and DKIM signing of mail that leaves us.
 *
 * The libraries block on DNS and on long bodies, so the work runs on helper threads of its own, a bounded number of
 * messages at once; the answer comes to the loop of the session. While a check is pending its thread reads the held
 * message, so the session must not touch it; a session that ends before cancels the check and frees its reference
 * (held_ref). All changes to the message are made on the loop.
 */
#ifndef GATEWAY_FILTER_MAILAUTH_H
#define GATEWAY_FILTER_MAILAUTH_H

#include "base/net/post.h"
#include "gateway/filter/check.h"
#include "gateway/filter/held.h"

enum mailauth_mode { MAILAUTH_OFF, MAILAUTH_REPORT /* header only */, MAILAUTH_ENFORCE /* DMARC p=reject refuses */ };
struct mailauth_key {     /* a DKIM signing key */
    const char *domain;   /* d=, and of the senders (From) that it signs; "*" for all others is not allowed */
    const char *selector; /* s= */
    const char *key;      /* PEM file that others may not read: RSA >= 2048 */
};
struct mailauth_config {
    const char *authserv_id;  /* our host name */
    bool spf, dkim;           /* verify */
    enum mailauth_mode dmarc; /* needs spf and dkim */
    bool spf_reject;          /* a hard fail of SPF is 550 5.7.23 by itself; default off: DMARC decides */
    const char *dns;          /* servers "127.0.0.1:5302,[::1]:53", NULL: the system's */
    const char *suffixes;     /* public suffix list file; NULL: /usr/share/publicsuffix/public_suffix_list.dat */
    uint64_t timeout_ms;      /* for all DNS of one message; default 20 s; then temperror, never a refusal by itself */
    uint32_t threads;         /* default 4 */
    const struct mailauth_key *keys;
    size_t key_count;
    bool must_sign; /* mail that has a key and cannot be signed is deferred (451 4.7.0) instead of going out unsigned */
};
/* One for the process; immutable and counted; a reload makes a new one (keys are read then). */
struct mailauth;
int mailauth_new(struct mailauth **m, const struct mailauth_config *c, struct buf *problems) MUST_CHECK;
struct mailauth *mailauth_ref(struct mailauth *m);
void mailauth_unref(struct mailauth *m); /* the last one joins the threads, which are idle then; on a loop's thread */
/* For the end of the process: no new work (checks then pass unverified), and waits for the work under way, which gives
 * up at its next step. Before post_free of any loop whose sessions asked; canceled checks come home, too. */
void mailauth_stop(struct mailauth *m);
/* Any key file changed since. */
bool mailauth_is_stale(const struct mailauth *m);
bool mailauth_verifies(const struct mailauth *m);
/* Whether mail of this From or sender domain is signed. */
bool mailauth_signs(const struct mailauth *m, struct span domain);
/* Signs a whole message of our own, such as a report: appends its DKIM-Signature field with CRLF to `to`. Blocks for
 * the arithmetic; any thread. dir: for long bodies (held_new). ERR_NOT_FOUND: no key for the domain; else as
 * dkimkeys_sign and held_append. */
int mailauth_sign_own(struct mailauth *m, struct span domain, struct span message, const char *dir,
                      struct buf *to) MUST_CHECK;

/* Verifies: removes Authentication-Results fields that claim to be ours (RFC 8601 section 5), inserts one in front.
 * Verdict: PASS, or REFUSE 550 5.7.26 (dmarc reject enforced; more than one author domain that can be read), 550 5.7.23
 * (spf_reject). Too much waits already: PASS in the call, with temperror as the results. */
int mailauth_verify(struct mailauth *m, struct post *home, const struct check_facts *f, struct held *held,
                    struct check_verdict *v, struct check_wait **wait, check_cb cb, void *arg) MUST_CHECK;
/* Signs with the key whose domain is the From field's domain (or a parent of it); inserts DKIM-Signature in front. PASS
 * always; what cannot be signed goes on unsigned and is logged (unless must_sign: 451 4.7.0). */
int mailauth_sign(struct mailauth *m, struct post *home, const struct check_facts *f, struct held *held,
                  struct check_verdict *v, struct check_wait **wait, check_cb cb, void *arg) MUST_CHECK;

#endif
