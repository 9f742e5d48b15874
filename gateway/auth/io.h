/*
 * io: a thread with a loop for the backends that speak over the network without blocking (HTTP, Dovecot). One for each
 * auth, made only when such a backend is configured.
 */
#ifndef GATEWAY_AUTH_IO_H
#define GATEWAY_AUTH_IO_H

#include "base/net/loop.h"
#include "base/net/post.h"

struct auth_io;
int auth_io_new(struct auth_io **io) MUST_CHECK;
/* Until auth_io_start the loop belongs to the caller, afterwards to the thread. */
struct loop *auth_io_loop(struct auth_io *io);
int auth_io_start(struct auth_io *io) MUST_CHECK;
/* Any thread, after the start. */
void auth_io_send(struct auth_io *io, struct post_letter *letter);
/* Runs last(arg) on the loop after all letters, ends the thread, frees. */
void auth_io_free(struct auth_io *io, void (*last)(void *arg), void *arg);

#endif
