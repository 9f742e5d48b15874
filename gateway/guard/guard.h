/*
 * guard: holds off hostile and careless clients before they cost much: names and DNS lists at connect, rates,
 * greylisting, slow answers, and slots kept free for known-good clients. Every rule can log only.
 */
#ifndef GATEWAY_GUARD_GUARD_H
#define GATEWAY_GUARD_GUARD_H

#include "base/net/dns.h"
#include "gateway/filter/check.h"

enum guard_mode { GUARD_OFF, GUARD_LOG, GUARD_ENFORCE };

/* -- dnslist.c: DNSBL and DNSWL with scores (RFC 5782) -- */
struct guard_dnslist {
    const char *zone; /* "zen.example" */
    const char
        *answer;   /* "127.0.0.2", "127.0.0.0/24", or NULL: any in 127/8 but 127.255.255.0/24 (errors of the list) */
    int32_t score; /* positive: bad; negative: good */
};
#define GUARD_DNSLISTS_MAX 32

/* -- rates.c -- */
struct guard_rate { /* 0: no limit */
    uint64_t connections, messages, recipients, octets;
    uint64_t window_ms; /* default 1 h; a sliding window of two halves */
};

struct guard_config {
    /* dnslists */
    enum guard_mode dnslist_mode;
    const struct guard_dnslist *dnslists;
    size_t dnslist_count;
    int32_t refuse_score; /* at least: 554 at the greeting (5.7.1) */
    int32_t slow_score;   /* at least: slow answers */
    int32_t good_score;   /* at most (negative): known good, skips greylisting, may use kept slots */
    uint64_t dns_ms;      /* waited for lists and names at most, default 5 s; then no verdict, the client is let in */
    bool names;           /* look up the client's name (Received, milters, policy) */
    /* rates */
    enum guard_mode rate_mode;
    struct guard_rate per_client;  /* by client network */
    struct guard_rate per_account; /* by authenticated name */
    uint8_t v4_bits, v6_bits;      /* of a client network, default 32 and 64 */
    uint32_t rate_entries;         /* most networks and accounts remembered, default 1,000,000 */
    /* greylisting */
    enum guard_mode greylist_mode;
    uint64_t grey_delay_ms; /* default 5 min */
    uint64_t grey_retry_ms; /* a retry must come within, default 24 h */
    uint64_t grey_keep_ms;  /* a triplet that passed is remembered for, default 35 days */
    uint32_t grey_entries;  /* default 1,000,000 */
    const char *grey_file;  /* kept across restarts in this file (written every few minutes and at the end), or NULL */
    /* slow answers */
    enum guard_mode slow_mode;
    uint64_t slow_ms;           /* before each reply to a slowed client, default 2 s */
    uint32_t slow_after_errors; /* refused commands or recipients, default 5 */
    /* slots */
    uint32_t reserved_percent; /* of connections kept for trusted and known-good clients, default 10 */
    uint32_t good_entries;     /* networks remembered as good (their mail was accepted), default 100,000 */
};

/* NULL, or what is wrong with it, as a static text for whoever checks settings. */
const char *guard_config_is_wrong(const struct guard_config *c);

/* One for the process, shared by all loops, thread-safe; outlives reloads (its memory stays), guard_reconfigure. */
struct guard;
/* Copies the configuration; 0 stands for the default where one is named, but for reserved_percent. Reads grey_file; a
 * damaged one is named in the log and ignored. ERR_INVALID (guard_config_is_wrong says why); ERR_NOMEM. */
int guard_new(struct guard **g, const struct guard_config *c) MUST_CHECK;
/* Any thread. After an error the old configuration stays. What was remembered stays; another grey_file is read by the
 * helper thread. */
int guard_reconfigure(struct guard *g, const struct guard_config *c) MUST_CHECK;
/* Writes grey_file. All waits have ended or were canceled, and no thread is in here; queries of canceled waits may
 * still be under way. */
void guard_free(struct guard *g);
/* About once a second from one thread; file work goes to a helper thread of its own. now_ms: monotonic, as all now_ms
 * here; wall_ms is the time since 1970. */
void guard_tick(struct guard *g, uint64_t now_ms);

/* What guard knows of a session; zeroed at first; lives in the session. */
struct guard_client {
    char name[256], reverse[256]; /* of the client; name is confirmed */
    int32_t score;
    bool good, slow;
    bool only_logged;                /* the lists may not act: slow is told and not done */
    char ip[48];                     /* for the log */
    bool slow_told, slow_would_told; /* guard_slow_ms has logged it; or that it would */
};
/* At connect, before the greeting: names and lists. Fills gc. Verdict PASS, or REFUSE 554 5.7.1 with the list's zone
 * (and its TXT when there is one). dns belongs to the loop. Trusted clients are only named. ERR_OK or ERR_AGAIN as in
 * check.h; when nothing can be asked, ERR_OK and PASS. gc stays until then; f need not. A list that did not answer
 * counts as nothing against the client, and as all that it could say for it. */
int guard_connect(struct guard *g, struct dns *dns, struct loop *l, const struct check_facts *f,
                  struct guard_client *gc, struct check_verdict *v, struct check_wait **wait, check_cb cb,
                  void *arg) MUST_CHECK;
/* At connect: counts; PASS or REFUSE 421 4.7.0. What is refused is not counted, here and below; clients that are
 * trusted have no limit by network. */
void guard_count_connection(struct guard *g, const struct check_facts *f, uint64_t now_ms, struct check_verdict *v);
/* At MAIL, RCPT and the end of data: counts one message, recipient, or f->size octets for the network and the account;
 * over the limit REFUSE 450 4.7.1 (network) or 450 4.7.1 (account), logged once a window. */
void guard_count_mail(struct guard *g, const struct check_facts *f, uint64_t now_ms, struct check_verdict *v);
void guard_count_recipient(struct guard *g, const struct check_facts *f, uint64_t now_ms, struct check_verdict *v);
void guard_count_octets(struct guard *g, const struct check_facts *f, uint64_t now_ms, struct check_verdict *v);
/* At RCPT after the directory said yes: REFUSE 451 4.7.1 for an unknown (network, sender, recipient). Not for trusted,
 * authenticated or good clients. */
void guard_greylist(struct guard *g, const struct check_facts *f, const struct guard_client *gc, uint64_t wall_ms,
                    struct check_verdict *v);
/* Milliseconds to wait before the next reply; 0: at once. errors: refused commands and recipients so far. */
uint64_t guard_slow_ms(const struct guard *g, struct guard_client *gc, uint32_t errors);
/* A message of this client was accepted: its network may use kept slots for a week. It is greylisted as before. */
void guard_praise(struct guard *g, const struct check_facts *f, uint64_t now_ms);
/* When only kept slots are left (used of max connections): may this client have one? */
bool guard_may_enter(struct guard *g, const struct tcp_addr *client, bool trusted, uint32_t used, uint32_t max,
                     uint64_t now_ms);

#endif
