/*
 * milter_change: what one filter asks to change at the end of a message, gathered until it has ended well, then done
 * all at once, or not at all.
 */
#ifndef GATEWAY_FILTER_MILTER_CHANGE_H
#define GATEWAY_FILTER_MILTER_CHANGE_H

#include "gateway/filter/held.h"
#include "gateway/filter/held_spill.h"
#include "gateway/filter/milter_packet.h"

#define MILTER_CHANGES_MAX (2u * 1024u * 1024u) /* octets of changes of fields */

struct milter_changes {
    struct buf fields; /* packets as they came, with their lengths */
    size_t added;      /* fields that may come to be, at most */
    size_t octets;     /* that they may take, at most */
    bool has_body;
    struct held_spill body;
    uint64_t body_max;
};
void milter_changes_init(struct milter_changes *c);
void milter_changes_deinit(struct milter_changes *c); /* empty and usable again */
/* One packet of a kind that changes (milter_is_change). allowed: the actions that were agreed on. ERR_INVALID:
 * malformed or not agreed on; ERR_FULL, ERR_NOMEM, ERR_NO_SPACE, ERR_IO. */
int milter_changes_take(struct milter_changes *c, const struct milter_packet *p, uint32_t allowed,
                        const struct held *h) MUST_CHECK;
bool milter_is_change(char command);
/* Nothing of the message has been touched after ERR_FULL; after ERR_NOMEM it must be given up. */
int milter_changes_apply(struct milter_changes *c, struct held *h) MUST_CHECK;

#endif
