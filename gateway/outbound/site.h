/*
 * site: where jobs for one set of hosts meet the connections to it. It knows how many connections there may
 * be, hands a connection that has become free to the next job at once, and keeps idle ones warm.
 *
 * A connection, open or being opened, holds one slot of its site and of the node. A job that has been
 * tried already and goes on to another host ("fresh") takes no connection that is open, only a slot.
 */
#ifndef GATEWAY_OUTBOUND_SITE_H
#define GATEWAY_OUTBOUND_SITE_H

#include "gateway/outbound/delivery.h"

#define SITE_NAME_MAX 320
#define SITE_CAP_MS 60000u /* how long a limit that the server showed us is kept */

struct attempt;
struct conn;
struct site {
    struct map_node in_map;
    struct list_node in_hungry;
    struct outbound *o;
    struct list waiting; /* attempts; fresh ones in front */
    struct list idle;    /* connections, the longest idle first */
    uint32_t users;      /* attempts, and calls under way */
    uint32_t slots;
    uint32_t established; /* connections that have passed EHLO */
    uint32_t hint;        /* connections that the scheduler allows; 0: has not said */
    uint32_t cap;         /* connections that the servers were seen to take */
    uint64_t cap_until_ms;
    struct pace_entry *pace;   /* pauses and the like; may be NULL */
    struct pace_entry *shared; /* .busy: slots of all pools of addresses at these servers; NULL: there are no pools */
    struct pace_entry *hosts;  /* .busy: slots at these servers, of all pools and with whatever demand for TLS */
    uint32_t rate_connections, per_connection; /* of delivery.rates; 0: those of the limits */
    size_t hosts_len;                          /* octets of .name that name the servers: without TLS demand and pool */
    struct setup *setup;                       /* holds .pool; referenced, or NULL */
    const struct outbound_pool *pool;          /* of our addresses; NULL: the system's */
    bool pumping, pump_again;
    bool has_failed;
    uint64_t failed_ms; /* when the whole site was last found dead */
    char name[];
};

/* Finds or makes it, and counts the caller as a user. NULL: no memory. */
struct site *site_open(struct outbound *o, const char *name) MUST_CHECK;
/* The caller uses it no more; a site without users and slots goes. */
void site_close(struct site *s);
uint32_t site_limit(const struct site *s);
/* Gives the job a connection, a slot, or a place in the queue. */
void site_submit(struct site *s, struct attempt *a);
/* A job between two hosts wants a slot: true, or it waits in front. */
bool site_want_slot(struct site *s, struct attempt *a);
/* The same without waiting: the slot of a connection that has just ended. */
bool site_keep_slot(struct site *s);
void site_unwait(struct site *s, struct attempt *a);
/* A slot has become free. Does not look for who could use it: site_pump. */
void site_free_slot(struct site *s);
/* Moves jobs that wait to what has become free, here and, when the node was full, elsewhere. */
void site_pump(struct site *s);
/* Sites with jobs that wait: those that rest give them back, the others look again who may go. */
void sites_wake(struct outbound *o);
/* This connection can take the next job. */
void site_conn_ready(struct site *s, struct conn *c);
/* All hosts failed: jobs that wait are handed back. True: nobody that came as early has said so. */
bool site_fail(struct site *s, uint64_t joined_ms);
/* The servers take no more connections than are open, or being opened, now. */
void site_cap(struct site *s);

#endif
