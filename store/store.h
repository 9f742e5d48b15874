/*
 * store: the contract of a durable ordered key-value store in families, as the queue needs it.
 *
 * Two backends: store/rocks.c (RocksDB, the real one) and store/memory.c (for simulation and
 * tests: it can lose unsynced writes, fail and fill). Everything here may block and belongs on
 * the commit or reader thread, never on an event loop. All functions may be called from several
 * threads at once, except that one batch or iterator belongs to one thread at a time.
 *
 * All operations in batches are absolute (put, delete), so that writing a batch twice is the same
 * as once: after a failed write the owner reopens the store and repeats what it wants to keep.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

enum store_family {
    STORE_META,       /* S·tag: identity, epoch, schema version, last id, watermarks, chunk staging marks, holds */
    STORE_ENVELOPE,   /* S·id -> Envelope (mail.proto), written once, single-deleted */
    STORE_BODY,       /* S·id·chunk -> raw octets, written once, single-deleted; blob files from 4 KiB */
    STORE_RECIPIENT,  /* S·id·n -> RecipientState, overwritten */
    STORE_DUE,        /* S·minute·destination·id·n -> "": hints, removed by whole buckets */
    STORE_INFLIGHT,   /* S·attempt -> Inflight, written once, single-deleted */
    STORE_TRACE,      /* S·hour·id·number -> Trace, dropped by the hour */
    STORE_SUBMISSION, /* S·hour·submission -> message id, dropped by the hour */
    STORE_FAMILIES
};
const char *store_family_name(enum store_family f);

#define STORE_DAMAGE_MAX 512

struct store;
struct store_config {
    const char *path;       /* directory (rocks) */
    const char *node;       /* node name: checked against the store's identity at open; "": any */
    uint64_t memory_bytes;  /* write buffers and block cache together, default 192 MiB */
    uint64_t reserve_bytes; /* free space that must remain for store_has_room */
};
/* What was found at open, for logs and tools. */
struct store_report {
    bool created;
    uint32_t schema;
    char damage[STORE_DAMAGE_MAX]; /* "" or why it was not opened: what is damaged, file and place; whose it is */
};
/* Opens and verifies: directory, logs, files, identity, schema. A directory that is absent is made (0700), and the
 * process's umask narrowed to 077. ERR_CORRUPT with report->damage named when acknowledged data may be lost (then
 * nothing is opened); ERR_VERSION: schema of a newer program; ERR_EXISTS: in use by another process; ERR_DENIED:
 * identity of another node, or a directory that others can write in or that is a link; ERR_IO; ERR_NO_SPACE. */
int store_open(struct store **s, const struct store_config *c, struct store_report *report) MUST_CHECK;
void store_close(struct store *s);
/* Closes and opens again in place after a failed write (the store is unusable until this succeeds). */
int store_reopen(struct store *s, struct store_report *report) MUST_CHECK;

/* -- batches -- */
struct store_batch;
struct store_batch *store_batch_new(void) MUST_CHECK;
void store_batch_free(struct store_batch *b);
void store_batch_clear(struct store_batch *b);
/* Errors (memory) are remembered and returned by store_write. Keys and values are copied. */
void store_put(struct store_batch *b, enum store_family f, struct span key, struct span value);
void store_delete(struct store_batch *b, enum store_family f, struct span key);
/* Only for keys written exactly once (envelope, body, inflight). */
void store_single_delete(struct store_batch *b, enum store_family f, struct span key);
/* Removes [from, to). For families that are only iterated (due, trace, submission). */
void store_delete_range(struct store_batch *b, enum store_family f, struct span from, struct span to);
size_t store_batch_bytes(const struct store_batch *b);
size_t store_batch_count(const struct store_batch *b);
/* Appends all operations of `from` to b; `from` is unchanged. */
void store_batch_add(struct store_batch *b, const struct store_batch *from);

/* Writes one batch atomically; with sync it is on disk when this returns ERR_OK. ERR_NO_SPACE and ERR_IO leave the
 * state uncertain and the store unusable until store_reopen; ERR_NOMEM writes nothing. */
int store_write(struct store *s, const struct store_batch *b, bool sync) MUST_CHECK;
/* The same for several batches in their order, as one atomic write. */
int store_write_all(struct store *s, const struct store_batch *const *batches, size_t count, bool sync) MUST_CHECK;

/* -- reading -- */
/* Appends the value to `to`. ERR_NOT_FOUND, ERR_CORRUPT, ERR_IO, ERR_FULL. */
int store_get(struct store *s, enum store_family f, struct span key, struct buf *to) MUST_CHECK;
/* Iterates keys in [from, to) in order over a consistent snapshot. */
struct store_iter;
int store_iter_open(struct store_iter **it, struct store *s, enum store_family f, struct span from,
                    struct span to) MUST_CHECK;
/* The same for a long walk, which would only drive out of the cache what delivery reads. */
int store_iter_open_once(struct store_iter **it, struct store *s, enum store_family f, struct span from,
                         struct span to) MUST_CHECK;
/* True: *key and *value (borrowed until the next call); false at the end or on error. value may be NULL: keys only. */
bool store_iter_next(struct store_iter *it, struct span *key, struct span *value);
int store_iter_error(const struct store_iter *it) MUST_CHECK; /* ERR_OK at a clean end */
/* The next one is the first key >= key. */
void store_iter_seek(struct store_iter *it, struct span key);
void store_iter_close(struct store_iter *it);

/* Whether a reading (or the store's own housekeeping) has met damage since the store was opened: a block that does not
 * check, a file that is gone, or a record that its reader noted. Stays so until the process ends. */
bool store_is_damaged(const struct store *s);
void store_note_damage(struct store *s);
/* A record that fails its reader's check: notes it, names it in the log, and is ERR_CORRUPT. */
int store_corrupt(struct store *s, enum store_family f, struct span key);

/* Whether `more` bytes may be written and the reserve kept (asks the file system). */
bool store_has_room(struct store *s, uint64_t more);
/* Bytes of live data and files, memory in use: for status and metrics. */
struct store_stats {
    uint64_t disk_bytes, memory_bytes, log_bytes;
};
void store_stats(struct store *s, struct store_stats *out);

/* Offline check of a store directory: opens read-only, verifies checksums of every table, blob and log, decodes
 * every record, and checks the cross-references (each recipient state and inflight entry has its envelope; each
 * envelope has its body with the size and checksum it states; due hints may be stale by design). Calls found once for
 * every problem. ERR_OK: read to the end (problems or none); else why it could not be read: ERR_NOT_FOUND: no store
 * there; ERR_EXISTS: in use by another process. */
int store_verify(const char *path, void (*found)(void *arg, const char *problem), void *arg,
                 uint64_t *messages) MUST_CHECK;

#endif
