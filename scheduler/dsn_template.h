/*
 * dsn_template: the words of a report for people: built in for some languages, or from the operator's own files, chosen
 * by the domain of the sender.
 *
 * A template is text with a section for each kind of report; its syntax is that of docs/reports.md. It is checked whole
 * when settings are read, so that composing a report never fails on it. Texts are never changed once they are made and
 * may be read by any thread; references are counted by the owner's thread alone.
 */
#ifndef SCHEDULER_DSN_TEMPLATE_H
#define SCHEDULER_DSN_TEMPLATE_H

#include "scheduler/dsn.h"

#define DSN_TEMPLATE_MAX 65536u /* octets of a template */
#define DSN_TEMPLATE_LINE_MAX 900u

/* -- what the operator set -- */
struct dsn_texts_rule {
    const char *domain; /* of the sender, lower case: "example.net", ".example.net" for it and all below it, or "*" */
    int language;       /* enum dsn_language */
    const char *file;   /* NULL: the built-in text of the language */
    const char *text;   /* content of the file */
};
struct dsn_texts_config {
    int language; /* enum dsn_language: of senders without a rule */
    const struct dsn_texts_rule *rules;
    size_t count;
};

/* Checks a template. problems gets "name:line: what" for each error. ERR_INVALID. */
int dsn_template_check(const char *name, struct span text, struct buf *problems) MUST_CHECK;
/* The text for this kind of report, from its "Subject:" to the next section: the template's own, or that of its
 * language. */
struct span dsn_template_section(const struct dsn_template *t, enum dsn_kind kind);
/* The next line of *rest, without its end; rest moves on. False: no more. */
bool dsn_template_line(struct span *rest, struct span *line);

/* Copies the configuration; one reference. ERR_NOMEM. */
struct dsn_texts;
int dsn_texts_new(struct dsn_texts **out, const struct dsn_texts_config *c) MUST_CHECK;
struct dsn_texts *dsn_texts_ref(struct dsn_texts *t); /* NULL stays NULL */
void dsn_texts_unref(struct dsn_texts *t);            /* likewise */
/* The template for a sender, local@domain: the exact domain, else the longest that begins with a dot, else "*", else
 * the built-in text. t may be NULL. */
struct dsn_template dsn_texts_for(const struct dsn_texts *t, struct span sender);

/* -- variables, for the checker and the composer -- */
enum dsn_variable {
    DSN_VAR_RECIPIENT, /* inside {{each}}: to DSN_VAR_REASON */
    DSN_VAR_ORIGINAL,
    DSN_VAR_STATUS,
    DSN_VAR_HOST,
    DSN_VAR_ADVICE,
    DSN_VAR_REASON,
    DSN_VAR_HOSTNAME,
    DSN_VAR_POSTMASTER,
    DSN_VAR_SENDER,
    DSN_VAR_TIME,
    DSN_VAR_WAITED,
    DSN_VAR_EXPIRES,
    DSN_VAR_ENVID,
    DSN_VAR_MORE,
    DSN_VAR_ATTACHED,
    DSN_VARIABLES
};
/* The next piece of a line: plain text, or a variable (then *v is it, else DSN_VARIABLES). False: no more. What is no
 * known variable is plain text. */
bool dsn_template_piece(struct span *line, struct span *piece, enum dsn_variable *v);
bool dsn_template_is_each(struct span line);
bool dsn_template_is_end(struct span line);

#endif
