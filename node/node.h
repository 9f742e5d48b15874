/*
 * node: one process of Posthouse: the roles that its settings name, wired to each other over the bus. The only
 * place that sees all rooms.
 *
 *   main (daemon/main.c) -> node_open -> node_run (the main loop: signals, admin, reload) -> node_close
 *
 * Order of start: sockets are bound (root may still be needed), root is dropped, the store is opened,
 * then scheduler, delivery, gateway. Order of the drain is the other way round, so that what was accepted
 * is settled as far as it goes.
 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/err.h"
#include "node/settings.h"

struct node;
/* Takes s. On failure everything is undone and the reason is logged; the result is an exit status of sysexits.h, 0:
 * fine. */
int node_open(struct node **n, struct settings *s) MUST_CHECK;
/* Until SIGTERM or SIGINT has drained it, or a part has failed. Returns the exit status. */
int node_run(struct node *n) MUST_CHECK;
void node_close(struct node *n);

#endif
