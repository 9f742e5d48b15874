/*
 * directory: the directory that a store lives in: who may see it, what lies in it, how much room is left.
 */
#ifndef STORE_DIRECTORY_H
#define STORE_DIRECTORY_H

#include "base/err.h"
#include "store/store.h"

struct directory_list {
    bool current; /* the file that names the database's manifest */
    bool mark;    /* our own file (mark.h) */
    uint64_t tables, logs, blobs;
    uint64_t bytes, log_bytes; /* on disk, of all files; of the logs */
};

/* Makes the directory with mode 0700 when it is absent, and narrows the process's umask to 077. ERR_DENIED: it is
 * a symbolic link, no directory, belongs to another user, or others may write in it; ERR_IO, ERR_NO_SPACE. why gets the
 * reason. */
int directory_make(const char *path, char *why, size_t size) MUST_CHECK;
int directory_read(const char *path, struct directory_list *out) MUST_CHECK; /* ERR_NOT_FOUND, ERR_IO */
/* Whether another process holds the database's lock. */
bool directory_is_in_use(const char *path);
/* Bytes that may still be written there; UINT64_MAX when the system does not tell. */
uint64_t directory_room(const char *path);

#endif
