/*
 * json: answers of the operators' RPC as one JSON value, for programs: the tool's --json and the HTTP face. Field names
 * are those of proto/admin.proto; ids are base32 text; times are milliseconds since 1970; bytes that are not UTF-8 are
 * escaped as \xHH text; a cursor is in hexadecimal digits. Also reads the small JSON objects that the HTTP face is
 * sent.
 */
#ifndef ADMIN_JSON_H
#define ADMIN_JSON_H

#include "base/arena.h"
#include "base/buf.h"
#include "proto/admin.pb-c.h"

/* All replies to one question, joined in the order they are added; NULL: no memory. */
struct json_answer;
struct json_answer *json_answer_new(void) MUST_CHECK;
void json_answer_free(struct json_answer *a); /* NULL is fine */
/* The message that was asked about; 0: none. */
void json_answer_message(struct json_answer *a, uint64_t id);
void json_answer_add(struct json_answer *a, const Words__AdminReply *r);
/* Appends it as text, on one line or indented. ERR_FULL, ERR_NOMEM: of the buffer. */
int json_answer_dump(const struct json_answer *a, bool indent, struct buf *to) MUST_CHECK;

/* Appends one line of a watch as an object on one line. missed: 0 says nothing. */
int json_line_dump(const Words__AdminLine *line, uint64_t missed, struct buf *to) MUST_CHECK;

/* -- what is sent to us -- */
#define JSON_CURSOR_MAX 1024u /* octets */
/* Appends the octets of a cursor as it was shown. False: it is none. */
bool json_cursor_read(struct span text, struct buf *to);
#define JSON_FIELDS_MAX 16u
struct json_fields {
    size_t count;
    struct json_field {
        struct span name, text; /* numbers and booleans as they would be written; in the arena */
    } fields[JSON_FIELDS_MAX];
};
/* One object of texts, whole numbers and booleans, without a NUL. ERR_INVALID, ERR_NOMEM. */
int json_fields_read(struct json_fields *f, struct span text, struct arena *mem) MUST_CHECK;
/* Empty when it is not there. */
struct span json_fields_get(const struct json_fields *f, const char *name);

#endif
