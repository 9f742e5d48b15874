/*
 * exchange: one AUTH exchange, on its loop (auth_begin, auth_answer, auth_cancel of auth.h). This header has only what
 * auth.c calls back.
 */
#ifndef GATEWAY_AUTH_EXCHANGE_H
#define GATEWAY_AUTH_EXCHANGE_H

#include "gateway/auth/auth.h"

/* The exchange's question has come home. On its loop. */
void exchange_answered(struct auth_exchange *x);

#endif
