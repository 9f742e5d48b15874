/*
 * dialogue: lines of SMTP dialogues for those who watch them live (ring.h), both ways in one form: who, a mark
 * ("C:", "S:", "*"), the line. Hostile octets are escaped, long lines cut, and what AUTH sends along is blanked: a
 * trace must be safe to show to anyone who may read it.
 */
#ifndef BASE_DIALOGUE_H
#define BASE_DIALOGUE_H

#include "base/ring.h"

/* Each line of octets (ended by LF or CRLF) becomes one of the ring. Nothing when nobody watches. */
void dialogue_add(enum ring_kind kind, struct span who, const char *mark, struct span octets);
/* One line that stands for a secret. */
void dialogue_add_secret(enum ring_kind kind, struct span who, const char *mark);

#endif
