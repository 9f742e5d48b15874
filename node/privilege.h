/*
 * privilege: what a daemon that may be started as root does before it touches strangers' bytes.
 */
#ifndef NODE_PRIVILEGE_H
#define NODE_PRIVILEGE_H

#include "base/err.h"

/* umask 077, no core files, no ptrace by others, as many descriptors as the hard limit gives. */
void privilege_harden(void);
/* Makes the directory (mode 0700, owned by user when root) or checks it: a real directory, not a symbolic
 * link, of the right owner, closed to others. The reason of a failure is logged. user may be NULL: the process's own.
 */
int privilege_data_dir(const char *path, const char *user) MUST_CHECK;
/* Makes the directory that a socket lies in, for this user, when it is not there. Best effort: the socket will tell. */
void privilege_socket_dir(const char *socket_path, const char *user);
/* Becomes user for good, when started as root. "root" stays root (logged as a warning). The user "posthouse" that does
 * not exist, or another one, is ERR_NOT_FOUND. Not root: nothing to do. */
int privilege_drop(const char *user) MUST_CHECK;

#endif
