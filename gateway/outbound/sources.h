/*
 * sources: which of our addresses a message goes out from: the pool of the account that gave it to us or of its sender,
 * and of that pool an address of the server's family, drawn by weight among those that may be used. Pure: chance, day
 * and health are arguments.
 */
#ifndef GATEWAY_OUTBOUND_SOURCES_H
#define GATEWAY_OUTBOUND_SOURCES_H

#include "base/rand.h"
#include "gateway/outbound/outbound.h"

#define SOURCES_UNLIMITED UINT32_MAX
#define SOURCES_GROWN 1000000u /* a warm-up that allows so many a day is over */

/* The first pool that names this account (empty: nobody logged in), else the first that names this sender, else the
 * first that names neither, else NULL. */
const struct outbound_pool *sources_pool(const struct outbound_pool *pools, size_t count, struct span account,
                                         struct span sender);
bool sources_has_family(const struct outbound_pool *p, const struct tcp_addr *to);
bool sources_has(const struct outbound_pool *p, const struct tcp_addr *ip);
/* Messages that it may carry on this day (days since 1970); SOURCES_UNLIMITED: any number; 0: its time has not come. */
uint32_t sources_limit(const struct outbound_source *s, uint32_t day);
/* Draws one of the family of `to` (NULL: of any) for which usable() holds; NULL: there is none. */
typedef bool (*sources_usable)(void *arg, const struct outbound_source *s);
const struct outbound_source *sources_draw(const struct outbound_pool *p, const struct tcp_addr *to,
                                           sources_usable usable, void *arg, struct rand *r);
/* "2026-03-01" as days since 1970. ERR_INVALID. */
int sources_read_day(struct span text, uint32_t *day) MUST_CHECK;

#endif
