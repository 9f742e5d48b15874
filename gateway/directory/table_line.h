/*
 * table_line: one line of a recipients table, cut into its parts. Inner to table.c: the same
 * cutting serves the loading, which then checks every part, and the look-up, which trusts that.
 */
#ifndef GATEWAY_DIRECTORY_TABLE_LINE_H
#define GATEWAY_DIRECTORY_TABLE_LINE_H

#include "gateway/directory/table.h"

struct table_line {
    bool empty;         /* nothing, or only a comment */
    bool catch_all;     /* "@domain" */
    bool plain;         /* the local part is an ASCII dot-string without '%' and '!': is its own key */
    struct span local;  /* as written, with quotes */
    struct span domain; /* as written; empty: every domain of the table */
    enum table_kind kind;
    struct span targets;
};
/* line is without its LF. NULL, or what is wrong with its form (static text). */
const char *table_line_cut(struct span line, struct table_line *out);

#endif
