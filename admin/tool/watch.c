/*
 * watch: `posthouse watch` and `posthouse trace smtp in`: asks the daemon four times a second for the lines
 * since the last time, and prints them, until it is interrupted or the time that --for gives is over.
 *
 * The daemon keeps the lines only while it is asked; this ends, and a little later nothing is kept. The memory of one
 * answer is freed before the next question.
 */
#include <signal.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "admin/tool/tool.h"
#include "base/clock.h"

#define PAUSE_MS 250u

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

static void catch_signals(void) {
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

/* Sleeps for at most PAUSE_MS, and not beyond the end. */
static void pause_until(uint64_t end_ms) {
    uint64_t now_ms = clock_mono_ms(), left = end_ms > now_ms ? end_ms - now_ms : 0;
    left = left < PAUSE_MS ? left : PAUSE_MS;
    struct timespec t = {.tv_sec = 0, .tv_nsec = (long)left * 1000000};
    nanosleep(&t, NULL);
}

static void print_lines(const struct answer *a) {
    if (a->r.missed)
        fprintf(stderr, "posthouse: %llu lines came too fast to be shown\n", (unsigned long long)a->r.missed);
    for (size_t i = 0; i < a->r.n_lines; i++) {
        print_text(stdout, frame_span(a->r.lines[i]->text));
        putchar('\n');
    }
}

int tool_watch(struct tool *t, uint32_t ring, struct span filter) {
    Words__AdminRequest q = WORDS__ADMIN_REQUEST__INIT;
    uint64_t end_ms = t->for_ms ? clock_mono_ms() + t->for_ms : UINT64_MAX;
    struct arena command = t->mem; /* holds the filter; answers have their own */
    struct answer a;
    int status = EX_OK;
    q.verb = WORDS__ADMIN_VERB__ADMIN_WATCH;
    q.has_ring = q.has_filter = true;
    q.ring = ring;
    q.filter = frame_bytes(filter);
    catch_signals();
    arena_init(&t->mem, 64 * 1024, 0);
    for (bool over = false; status == EX_OK && !interrupted;) {
        arena_reset(&t->mem);
        status = tool_ask(t, &q, &a);
        if (status != EX_OK)
            break;
        if (t->json)
            status = json_print_lines(&a);
        else
            print_lines(&a);
        q.has_number = true;
        q.number = a.r.number;
        if (fflush(stdout) != 0)
            status = EX_IOERR;
        if (over)
            break;
        if (!a.r.more)
            pause_until(end_ms);
        over = clock_mono_ms() >= end_ms; /* one more question, for the last lines */
    }
    arena_deinit(&t->mem);
    t->mem = command;
    return interrupted ? EX_OK : status;
}
