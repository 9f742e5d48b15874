/*
 * file: files that are written whole and survive a crash: either the old content is there or the new one.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/err.h"
#include "base/span.h"

/* All octets, however many writes that takes. ERR_NO_SPACE, ERR_IO (errno tells). */
int file_write_all(int fd, struct span s) MUST_CHECK;
/* Syncs the folder of path, so that a rename in it is on the disk. ERR_IO. */
int file_sync_folder(const char *path) MUST_CHECK;
/* Writes "PATH.new" (mode 0600; one left by a process that died is replaced) by fill, syncs it, renames it to path and
 * syncs the folder. After an error of fill or of the disk path is what it was, but for ERR_IO of the last sync.
 * ERR_IO, ERR_NO_SPACE, what fill returned. */
int file_replace(const char *path, int (*fill)(void *arg, int fd), void *arg) MUST_CHECK;

#endif
