/*
 * rules: what the words of a reply mean, as the operator has written it in a file: expressions over "CODE ENHANCED
 * TEXT", each with one thing to be done. The first rule that matches is the one. docs/delivery-pace.md has the format.
 *
 * Read whole, or not at all; then never changed, so that threads may share it. A match is bounded: a rule that a
 * reply makes expensive counts as one that does not match.
 */
#ifndef GATEWAY_OUTBOUND_RULES_H
#define GATEWAY_OUTBOUND_RULES_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "gateway/smtp/client.h"
#include "proto/bounce.h"

#define RULES_MAX 1000u
#define RULES_FILE_MAX (1024u * 1024u)
#define RULES_LINE_MAX 2000u
#define RULES_SUBJECT_MAX 1000u             /* octets of a reply that are looked at */
#define RULES_FOR_MAX_MS UINT64_C(86400000) /* longest pause */

enum rule_action {
    RULE_SUSPEND,   /* the site is left alone for .for_ms, from the source that was refused */
    RULE_SLOW,      /* fewer connections to the site for .for_ms */
    RULE_TEMPORARY, /* a refusal, whatever its first digit, is a deferral */
    RULE_PERMANENT, /* a refusal, whatever its first digit, is a failure */
};
struct rule {
    unsigned line;
    enum rule_action action;
    uint64_t for_ms;
    uint32_t connections;      /* SLOW: at most so many, */
    uint32_t percent;          /* or this share of those that are allowed */
    const char *site, *domain; /* patterns, or NULL */
    uint32_t stages;           /* bits by enum client_stage; 0: all */
    char status[8];            /* TEMPORARY, PERMANENT: "7.1", or "" */
    bool has_category;
    enum bounce_category category; /* the same, for the log */
    void *code;                    /* the expression */
};
struct rules_question {
    uint32_t code;
    struct span enhanced, text; /* the text may begin with the enhanced code */
    const char *host, *domain;  /* name of the server; the destination */
    enum client_stage stage;
};
struct rules;

/* Reads a file. Problems get "FILE:LINE: what". ERR_INVALID: problems tell; ERR_NOT_FOUND, ERR_IO, ERR_NOMEM. */
int rules_load(struct rules **r, const char *file, struct buf *problems) MUST_CHECK;
/* The same from text; name is for complaints. */
int rules_parse(struct rules **r, const char *name, struct span text, struct buf *problems) MUST_CHECK;
struct rules *rules_ref(struct rules *r);
/* Drops a reference; NULL is fine. */
void rules_unref(struct rules *r);
size_t rules_count(const struct rules *r);
/* The first rule that matches, or NULL; borrowed. r may be NULL. */
const struct rule *rules_match(const struct rules *r, const struct rules_question *q);
/* "*"; "mx.example": that name; ".example": it and all below. Without regard to case. */
bool rules_pattern(const char *pattern, struct span name);

#endif
