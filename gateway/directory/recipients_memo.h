/*
 * recipients_memo: what slow directories said so far for one RCPT TO, and what is still to be asked. The walk
 * (recipients_judge.c) reads it and adds questions; recipients_ask.c asks them and walks again. Inner to recipients.
 */
#ifndef GATEWAY_DIRECTORY_RECIPIENTS_MEMO_H
#define GATEWAY_DIRECTORY_RECIPIENTS_MEMO_H

#include "gateway/directory/recipients_set.h"

#define RECIPIENTS_ROUND_MAX 20 /* questions that are asked at once for one RCPT TO */

struct recipients_asking {
    struct recipients_asking *next;
    struct directory *directory;
    struct span key, domain;
    bool asked, answered;
    struct directory_answer answer; /* texts in the memo's memory */
    struct directory_wait *wait;    /* while asked and not answered */
    struct recipients_wait *owner;  /* of the driver */
};
struct recipients_memo {
    bool closed; /* nothing slow is asked: what is not known here cannot be known */
    struct arena mem;
    struct recipients_asking *first, *last;
    size_t count, wanted; /* all; not yet asked */
};

/* ERR_OK: *a is the answer (TEMPFAIL where the memo is closed). ERR_AGAIN: to be asked. ERR_FULL: too many questions.
 * ERR_NOMEM. */
int recipients_memo_find(struct recipients_memo *m, struct directory *d, struct span key, struct span domain,
                         const struct directory_answer **a) MUST_CHECK;

/* -- one look-up in the sources of a domain -- */

enum recipients_found { FOUND_ENTRY, FOUND_NOTHING, FOUND_UNSURE, FOUND_LATER, FOUND_TOO_MANY };
struct recipients_lookup {
    enum recipients_found found;
    struct table_entry e; /* FOUND_ENTRY */
};
/* Where the reasoning is written; steps may be NULL. */
struct recipients_telling {
    struct buf *steps;
    unsigned depth;
};
/* Asks for the full local part, then without its tag, then for the catch-all; each of all sources in their order.
 * ERR_NOMEM. */
int recipients_lookup(const struct recipients_domain *d, const struct address *a, struct recipients_memo *memo,
                      struct recipients_telling to, struct recipients_lookup *out) MUST_CHECK;
/* One line: address: what. */
void recipients_tell(struct recipients_telling to, struct span address, const char *what);

/* -- the walk -- */

/* Judges with what the memo knows. ERR_AGAIN: the memo has questions that are to be asked first; out and steps are then
 * worth nothing. ERR_NOMEM. */
int recipients_walk(const struct recipients *r, const struct address *a, const struct recipients_caller *who,
                    struct recipients_memo *memo, struct arena *mem, struct recipients_answer *out,
                    struct buf *steps) MUST_CHECK;

#endif
