/*
 * blob_scan: checks RocksDB's blob files octet by octet, for store_verify: RocksDB checks a blob when it is read, and
 * then does not say in which file it lies.
 *
 * A file: head of 30 octets (magic u32 first); records: key length u64, value length u64, expiration u64, masked
 * CRC-32C of those u32, masked CRC-32C of key and value u32, key, value; foot of 32 octets (magic u32, count of records
 * u64, ..., masked CRC-32C of the foot u32).
 */
#ifndef STORE_BLOB_SCAN_H
#define STORE_BLOB_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define BLOB_MAGIC 0x00248f37u
#define BLOB_FOOT 32u

/* Reads every finished blob file of the directory and calls found for each that does not check, with its name and the
 * place. A file without a foot is passed over: a crash leaves one, and where one in use is cut, reading its bodies
 * tells. ERR_OK: read to the end; ERR_IO, ERR_NOMEM. */
int blob_scan(const char *directory, void (*found)(void *arg, const char *problem), void *arg) MUST_CHECK;
/* The first blob file that does not end with a foot (cut, or never finished); false: there is none. */
bool blob_scan_cut(const char *directory, char *name, unsigned size);

#endif
