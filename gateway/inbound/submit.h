/*
 * submit: hands messages to the scheduler and waits for their fate: one for each loop, with one bus peer.
 *
 * Flow: the scheduler lends a number of octets (Welcome.credit); each frame costs FRAME_COST until the scheduler
 * gives it back in an Answer or Credit. A submission without credit waits in line; a chunk without credit is
 * refused with ERR_AGAIN, and the session reads no more until `room` is called.
 *
 * Once a Submit frame has left, only its Answer says what became of the message. When none comes in
 * SUBMIT_ANSWER_MS the client hears 451 and the submission is remembered as doubtful: an Answer that comes
 * later and says "stored" is logged and counted as in_doubt, because the client will send the message again.
 */
#ifndef GATEWAY_INBOUND_SUBMIT_H
#define GATEWAY_INBOUND_SUBMIT_H

#include "base/err.h"
#include "base/list.h"
#include "base/net/bus.h"
#include "proto/mail.pb-c.h"

#define SUBMIT_QUEUE_MS (60u * 1000u)       /* waiting for credit, nothing sent yet */
#define SUBMIT_ANSWER_MS (5u * 60u * 1000u) /* clients wait 10 minutes (RFC 5321 section 4.5.3.2.6) */
#define SUBMIT_DOUBT_MS (15u * 60u * 1000u) /* how long a late answer is recognised */
#define SUBMIT_ID_LEN 16

struct submit;
struct submission;
/* verdict: proto/outcome.h. text lives for the call. */
typedef void (*submit_answer_cb)(void *arg, uint32_t verdict, uint64_t message, struct span text);
typedef void (*submit_room_cb)(void *arg);

/* room is called when credit has come while something was refused for want of it. */
int submit_open(struct submit **s, struct bus *bus, struct loop *l, const char *endpoint, const char *name,
                submit_room_cb room, void *arg) MUST_CHECK;
/* Forgets all submissions without calling back. */
void submit_close(struct submit *s);
/* The scheduler has said welcome and lends credit: MAIL may be accepted. From any thread. */
bool submit_is_ready(const struct submit *s);
/* The scheduler has answered, be it that it takes nothing (a damaged queue). From any thread. */
bool submit_was_heard(const struct submit *s);
/* Submissions that are not over (the doubtful not counted). */
size_t submit_pending(const struct submit *s);
/* Lets time pass: deadlines, the repeated Hello. Call it about once a second. */
void submit_tick(struct submit *s);

/* NULL: no memory. The id is a random prefix of the loop and a counter. */
struct submission *submission_new(struct submit *s) MUST_CHECK;
/* 13 characters for Received and the log, and a NUL. */
void submission_name(const struct submission *m, char to[14]);
/* Sends the next chunk. ERR_AGAIN: no credit now. Other errors: the submission cannot succeed. */
int submission_chunk(struct submission *m, struct bus_bytes *octets) MUST_CHECK;
/* Submits; body NULL: it went in chunks. Borrows envelope until the answer comes or the submission is dropped;
 * takes its own reference of body. cb is called once, never inside this call, and m is gone then. An error: m is
 * as before. */
int submission_commit(struct submission *m, const Words__Envelope *envelope, struct bus_bytes *body,
                      submit_answer_cb cb, void *arg) MUST_CHECK;
/* The owner is gone or gives up: chunks are taken back; what has been submitted goes its way without a callback. */
void submission_drop(struct submission *m);

#endif
