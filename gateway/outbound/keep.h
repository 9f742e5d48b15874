/*
 * keep: a small memory kept as a file across restarts: written whole to a temporary name, synced and renamed, on a
 * helper thread; read whole, and believed only when its checksum holds.
 *
 * The file: a magic of KEEP_MAGIC octets whose last two are a version, the content, the content's length (8 octets,
 * little-endian), a checksum over all before it (4). It may be lost without harm to mail.
 */
#ifndef GATEWAY_OUTBOUND_KEEP_H
#define GATEWAY_OUTBOUND_KEEP_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/net/loop.h"
#include "base/span.h"

#define KEEP_MAGIC 8u

struct keep;
/* NULL: no memory. Copies the texts. magic: KEEP_MAGIC octets. */
struct keep *keep_new(struct loop *l, const char *path, const char *magic) MUST_CHECK;
/* Waits for a save under way, which is short, and frees. NULL is fine. */
void keep_free(struct keep *k);
/* Appends the content to `to`. ERR_NOT_FOUND, ERR_IO, ERR_CORRUPT, ERR_VERSION; ERR_FULL: more than `to` takes;
 * ERR_NOMEM. Blocks: for the start only. */
int keep_read(const struct keep *k, struct buf *to) MUST_CHECK;
/* False while a save is under way: then keep_save may not be called. */
bool keep_is_ready(const struct keep *k);
/* Takes the content over (content is empty then); writes it on a helper thread. What fails is logged. */
void keep_save(struct keep *k, struct buf *content);
/* The same, done when it returns; for the end only. ERR_IO, ERR_NO_SPACE, ERR_NOMEM. */
int keep_save_now(struct keep *k, struct span content) MUST_CHECK;

#endif
