/*
 * directory_asker: asks a directory as a session does, on a loop, and waits. For unit tests; directory_asker_begin and
 * directory_asker_end stand around the group.
 */
#ifndef TESTS_SUPPORT_DIRECTORY_ASKER_H
#define TESTS_SUPPORT_DIRECTORY_ASKER_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "gateway/directory/directory.h"

struct asker {
    struct loop *loop;
    struct post *home;
    struct arena mem;
    char said[2000]; /* "found alias a@b, c@d", "unknown", "tempfail"; "stale " before it */
    char why[400];
    size_t open, answered;
};

static inline void directory_asker_begin(struct asker *k) {
    memset(k, 0, sizeof *k);
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    k->loop = loop_new();
    k->home = post_new(k->loop);
    arena_init(&k->mem, 1024, 0);
    assert_non_null(k->home);
}

static inline void directory_asker_end(struct asker *k) {
    post_free(k->home);
    loop_free(k->loop);
    arena_deinit(&k->mem);
    directory_settle();
}

static inline void directory_asker_take(void *arg, const struct directory_answer *a) {
    static const char *const kinds[] = {"mailbox", "alias", "forward", "forward_keep"};
    struct asker *k = arg;
    span_copy(a->why, k->why, sizeof k->why);
    if (a->status == DIRECTORY_FOUND)
        snprintf(k->said, sizeof k->said, "%sfound %s%s%.*s", a->stale ? "stale " : "", kinds[a->kind],
                 a->targets.len ? " " : "", SPAN_FMT(a->targets));
    else
        snprintf(k->said, sizeof k->said, "%s", a->status == DIRECTORY_UNKNOWN ? "unknown" : "tempfail");
    k->answered++;
    if (k->open > 0 && --k->open == 0)
        loop_stop(k->loop);
}

/* Asks and does not wait; directory_asker_wait waits for all. */
static inline void directory_asker_put(struct asker *k, struct directory *d, const char *key, const char *domain) {
    struct directory_answer a;
    struct directory_wait *wait;
    int err = directory_find(d, k->home, span_of(key), span_of(domain), &k->mem, &a, &wait, directory_asker_take, k);
    if (err == ERR_AGAIN) {
        k->open++;
        return;
    }
    assert_int_equal(err, ERR_OK);
    size_t open = k->open;
    k->open = 0;
    directory_asker_take(k, &a);
    k->open = open;
}

static inline void directory_asker_wait(struct asker *k) {
    if (k->open > 0)
        loop_run(k->loop);
    assert_int_equal(k->open, 0);
}

static inline const char *directory_ask(struct asker *k, struct directory *d, const char *key, const char *domain) {
    directory_asker_put(k, d, key, domain);
    directory_asker_wait(k);
    return k->said;
}

/* Until it says this; false: not in a while. */
static inline bool directory_ask_until(struct asker *k, struct directory *d, const char *key, const char *domain,
                                       const char *said) {
    for (int i = 0; i < 300; i++) {
        if (strcmp(directory_ask(k, d, key, domain), said) == 0)
            return true;
        usleep(50 * 1000);
    }
    return false;
}

#endif
