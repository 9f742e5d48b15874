/*
 * bus_keys: CURVE keys as people handle them: 40 characters of Z85, in files that only their owner may read.
 *
 * A key file has two lines, "public KEY" and "secret KEY"; lines that begin with '#' are comments. Where only a public
 * key is wanted, a file without the secret will do, also one with the bare key, as it was printed.
 */
#ifndef BASE_NET_BUS_KEYS_H
#define BASE_NET_BUS_KEYS_H

#include <stdbool.h>

#include "base/err.h"
#include "base/span.h"

#define BUS_KEY_LEN 40u /* characters */
struct bus_key {
    char public_key[BUS_KEY_LEN + 1];
    char secret_key[BUS_KEY_LEN + 1];
};
/* A fresh pair. ERR_UNSUPPORTED: ZeroMQ was built without CURVE. */
int bus_key_new(struct bus_key *k) MUST_CHECK;
/* Overwrites the memory. */
void bus_key_wipe(struct bus_key *k);
/* 40 characters of Z85. */
bool bus_key_is_good(struct span text);
/* The public key of a secret one. ERR_INVALID. */
int bus_key_public(char to[BUS_KEY_LEN + 1], const char *secret_key) MUST_CHECK;
/* A new file of mode 0600, synced. ERR_EXISTS: there is a file, which stays as it is; ERR_NOT_FOUND, ERR_DENIED: the
 * folder; ERR_NO_SPACE, ERR_IO: nothing is left of it. */
int bus_key_write(const char *file, const struct bus_key *k) MUST_CHECK;
/* ERR_NOT_FOUND; ERR_DENIED: not readable for us, or others than its owner and group may read or write it; ERR_INVALID:
 * no key file, or its keys do not belong together; ERR_IO. */
int bus_key_read(const char *file, struct bus_key *k) MUST_CHECK;
/* The public key of a file with or without the secret. Errors as above; anybody may read a file that has no secret. */
int bus_key_read_public(const char *file, char to[BUS_KEY_LEN + 1]) MUST_CHECK;

#endif
