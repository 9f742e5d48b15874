/*
 * cdb_format: how a recipient table lies in a CDB file. Inner to cdb.c, which reads, and cdb_build.c, which writes.
 *
 *   the CDB itself: 256 pointers to hash tables, the records, the hash tables (little-endian, as everywhere)
 *   the trailer, behind the end of the CDB, where programs that know only CDB do not look
 *
 *   key     'n' LEN LOCAL DOMAIN   a name; LOCAL unquoted, ASCII letters in lower case, LEN octets; DOMAIN canonical or
 * empty 'c' DOMAIN             the catch-all value   KIND LINE[4] TARGETS CHECKSUM[4]
 *
 * CHECKSUM covers the whole record from its lengths on. The trailer has a checksum of the pointers and of each hash
 * table. So whatever a look-up touches is proven, and a damaged octet never turns a known recipient into an unknown
 * one.
 */
#ifndef GATEWAY_DIRECTORY_CDB_FORMAT_H
#define GATEWAY_DIRECTORY_CDB_FORMAT_H

#include "base/span.h"
#include "gateway/smtp/address.h"

#define CDB_MAGIC "PHtable\n"
enum {
    CDB_VERSION = 1,
    CDB_TABLES = 256,
    CDB_HEAD = CDB_TABLES * 8, /* the pointers: position and number of slots of each hash table */
    CDB_RECORD_HEAD = 8,       /* length of key and of value */
    CDB_VALUE_TARGETS = 5,     /* where they begin */
    CDB_VALUE_MIN = 9,         /* without targets */
    CDB_KEY_MAX = 2 + ADDRESS_LOCAL_MAX + ADDRESS_DOMAIN_MAX,
    /* The trailer. */
    CDB_AT_VERSION = 8,
    CDB_AT_CHECKSUM = 12, /* of the trailer from CDB_AT_COUNT on */
    CDB_AT_COUNT = 16,    /* 8 octets */
    CDB_AT_SIZE = 24,     /* 8 octets: of the CDB itself */
    CDB_AT_HEAD = 32,     /* checksum of the pointers */
    CDB_AT_TABLES = 36,   /* checksums of the hash tables */
    CDB_TRAILER = CDB_AT_TABLES + CDB_TABLES * 4,
};
/* Writes the key of a name or (catch_all) of a catch-all. Returns its length; 0: longer than any that can be in a
 * table. */
size_t cdb_table_key(char to[CDB_KEY_MAX], struct span local, struct span domain, bool catch_all);

#endif
