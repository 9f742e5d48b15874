/*
 * dsn_words: what the composer says by itself, in each language.
 */
#ifndef SCHEDULER_DSN_WORDS_H
#define SCHEDULER_DSN_WORDS_H

#include "proto/bounce.h"
#include "scheduler/dsn_template.h"

enum dsn_then { /* what the sender can do */
                DSN_THEN_CHECK,
                DSN_THEN_DOMAIN,
                DSN_THEN_ROOM,
                DSN_THEN_OTHERWISE,
                DSN_THEN_SMALLER,
                DSN_THEN_FORM,
                DSN_THEN_LATER,
                DSN_THEN_WORDS,
                DSN_THEN_ADMIN,
                DSN_THENS
};
struct dsn_words {
    const char *tag;                     /* RFC 5646: Content-Language */
    const char *text;                    /* the template */
    const char *what[BOUNCE_CATEGORIES]; /* what is wrong */
    const char *then[DSN_THENS];
    const char *ourselves; /* who said it, when it was us */
    const char *delivered, *relayed, *expanded;
    const char *whole, *header; /* what is attached */
};

const struct dsn_words *dsn_words(enum dsn_language language);
enum dsn_then dsn_then_of(enum bounce_category category);

#endif
