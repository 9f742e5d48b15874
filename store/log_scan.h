/*
 * log_scan: reads RocksDB's logs before RocksDB does, to tell a torn tail from damage.
 *
 * RocksDB either refuses a log whose last record was only half on the disk when the power went (a harmless thing:
 * nobody was told that it is stored), or stops at any damage without a word and forgets what follows. So we look first.
 * The format: blocks of 32 KiB; in them pieces of masked CRC-32C u32, length u16, type u8 (1 whole record, 2 first, 3
 * middle, 4 last piece), payload; a record begins with its sequence number u64 and its count of operations u32.
 */
#ifndef STORE_LOG_SCAN_H
#define STORE_LOG_SCAN_H

#include "base/err.h"
#include "store/store.h"

struct log_scan {
    uint64_t last_sequence; /* of the last whole record; 0: there is none */
    uint64_t records, bytes;
    uint64_t torn_bytes; /* from the first octet that is not whole to the end of that log */
    char torn[64];       /* the log with the torn tail, or "" */
    char newest[64];     /* the newest log, or "" */
    char damage[STORE_DAMAGE_MAX];
};
/* Reads every log in the directory. ERR_CORRUPT: whole records follow the damage, in that log or in later ones, or what
 * is whole ends before the operation `acknowledged`; damage names the file and place. A tail that was never
 * acknowledged is no error. ERR_IO, ERR_NOMEM. */
int log_scan(const char *directory, uint64_t acknowledged, struct log_scan *out) MUST_CHECK;

#endif
