/*
 * crc32c: the checksum (Castagnoli) that RocksDB puts on the pieces of its log. Only for reading those logs;
 * our own records carry hash_checksum.
 */
#ifndef STORE_CRC32C_H
#define STORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues a checksum; starts with 0. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);
/* The same without the processor's instruction; a test holds the two against each other. */
uint32_t crc32c_plain(uint32_t crc, const void *bytes, size_t len);

#endif
