/*
 * io: see io.h. The thread runs the loop until the last letter, which closes the backends and stops it; so everything
 * that lives on the loop ends on its own thread. When the thread was never started, the caller's thread does all that.
 */
#include "gateway/auth/io.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"

struct auth_io {
    struct loop *loop;
    struct post *post;
    pthread_t thread;
    bool started;
    struct post_letter stop;
    void (*last)(void *arg);
    void *arg;
};

int auth_io_new(struct auth_io **out) {
    struct auth_io *io = calloc(1, sizeof *io);
    if (!io)
        return ERR_NOMEM;
    io->loop = loop_new();
    io->post = io->loop ? post_new(io->loop) : NULL;
    if (io->post) {
        *out = io;
        return ERR_OK;
    }
    if (io->loop)
        loop_free(io->loop);
    free(io);
    return ERR_NOMEM;
}

struct loop *auth_io_loop(struct auth_io *io) {
    return io->loop;
}

static void *run(void *arg) {
    struct auth_io *io = arg;
    loop_run(io->loop);
    post_free(io->post);
    return NULL;
}

int auth_io_start(struct auth_io *io) {
    if (pthread_create(&io->thread, NULL, run, io) != 0)
        return ERR_NOMEM;
    (void)pthread_setname_np(io->thread, "auth-io");
    io->started = true;
    return ERR_OK;
}

void auth_io_send(struct auth_io *io, struct post_letter *letter) {
    post_send(io->post, letter);
}

static void on_stop(struct post_letter *letter) {
    struct auth_io *io = CONTAINER_OF(letter, struct auth_io, stop);
    io->last(io->arg);
    loop_stop(io->loop);
}

void auth_io_free(struct auth_io *io, void (*last)(void *arg), void *arg) {
    if (!io)
        return;
    if (io->started) {
        io->last = last;
        io->arg = arg;
        io->stop.open = on_stop;
        post_send(io->post, &io->stop);
        CHECK(pthread_join(io->thread, NULL) == 0);
    } else {
        last(arg);
        post_free(io->post);
    }
    loop_free(io->loop);
    free(io);
}
