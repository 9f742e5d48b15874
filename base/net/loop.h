/*
 * loop: the door to libuv (with tcp.h): an event loop per thread, timers, wake-ups from
 * other threads, file descriptor watching, signals, a helper thread for blocking work.
 *
 * Everything except loop_wake_send belongs to the loop's own thread. Handles are freed in
 * their close callback only: the *_close functions may be called at any time, also inside
 * the handle's own callback; no callback comes after close, and the struct behind the
 * pointer is released by the loop itself. The caller's `arg` may go as soon as close returned.
 */
#ifndef BASE_NET_LOOP_H
#define BASE_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
/* NULL: no memory or descriptors. Also makes the process ignore SIGPIPE. */
struct loop *loop_new(void) MUST_CHECK;
void loop_run(struct loop *l);  /* until loop_stop, or nothing is left to wait for */
void loop_stop(struct loop *l); /* from the loop's thread; loop_run returns after this turn */
/* Closes what is left, runs the close callbacks and the done functions of work under way, frees.
 * Not while loop_run is active. */
void loop_free(struct loop *l);
uint64_t loop_now_ms(const struct loop *l); /* monotonic, cached at the start of the turn */

/* One-shot timers; set again moves it; the callback may set it again
 * (0 then means 1 ms, so that the loop goes on). */
struct loop_timer;
typedef void (*loop_timer_cb)(void *arg);
struct loop_timer *loop_timer_new(struct loop *l, loop_timer_cb cb, void *arg) MUST_CHECK;
void loop_timer_set(struct loop_timer *t, uint64_t delay_ms);
void loop_timer_stop(struct loop_timer *t);
void loop_timer_close(struct loop_timer *t);

/* Wake-up: send may come from any thread and be merged; cb runs once or more after it. */
struct loop_wake;
typedef void (*loop_wake_cb)(void *arg);
struct loop_wake *loop_wake_new(struct loop *l, loop_wake_cb cb, void *arg) MUST_CHECK;
void loop_wake_send(struct loop_wake *w);
void loop_wake_close(struct loop_wake *w);

/* Watches a descriptor that another library owns. events: LOOP_READABLE | LOOP_WRITABLE.
 * After a callback with failed set (an error waits on the descriptor) the watch is stopped
 * until the next loop_poll_set. */
enum { LOOP_READABLE = 1, LOOP_WRITABLE = 2 };
struct loop_poll;
typedef void (*loop_poll_cb)(void *arg, int events, bool failed);
struct loop_poll *loop_poll_new(struct loop *l, int fd, loop_poll_cb cb, void *arg) MUST_CHECK;
void loop_poll_set(struct loop_poll *p, int events); /* 0 stops */
void loop_poll_close(struct loop_poll *p);           /* before the descriptor is closed */

/* Does not keep the loop alive by itself. Runs in every turn: `before` just before the loop would block and returns
 * true when there is work pending (then it does not block), `after` (may be NULL) just after it polled. For
 * edge-triggered descriptors such as ZMQ_FD, and for work gathered over a turn (one flush per turn). */
struct loop_hook;
typedef bool (*loop_before_cb)(void *arg);
typedef void (*loop_after_cb)(void *arg);
struct loop_hook *loop_hook_new(struct loop *l, loop_before_cb before, loop_after_cb after, void *arg) MUST_CHECK;
void loop_hook_close(struct loop_hook *h);

typedef void (*loop_signal_cb)(void *arg, int signum);
struct loop_signal;
struct loop_signal *loop_signal_new(struct loop *l, int signum, loop_signal_cb cb, void *arg) MUST_CHECK;
void loop_signal_close(struct loop_signal *s);

/* Watches one file by its path, by looking twice a second (so it works on every file system and
 * through links); cb about a second after it changed, was replaced or appeared, once it is at
 * rest. NULL: no memory. The loop does not stay alive for a watch. */
struct loop_watch;
typedef void (*loop_watch_cb)(void *arg);
struct loop_watch *loop_watch_new(struct loop *l, const char *path, loop_watch_cb cb, void *arg) MUST_CHECK;
void loop_watch_close(struct loop_watch *w);

/* Runs work(arg) on a helper thread (there are four for the process), then done(arg) on the
 * loop. ERR_NOMEM. */
int loop_work(struct loop *l, void (*work)(void *arg), void (*done)(void *arg), void *arg) MUST_CHECK;

#endif
