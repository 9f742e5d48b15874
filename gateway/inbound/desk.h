/*
 * desk: answers the operator's questions to the gateway: what RCPT TO would say about an address, and the
 * figures of the front end. Connected to the admin hub by the first worker.
 */
#ifndef GATEWAY_INBOUND_DESK_H
#define GATEWAY_INBOUND_DESK_H

#include "gateway/inbound/worker.h"

int desk_open(struct desk **d, struct worker *w, const char *endpoint, const char *name) MUST_CHECK;
void desk_close(struct desk *d);

#endif
