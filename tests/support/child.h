/*
 * child: a server program of tests/support that a unit test starts, and that says "port N" when it listens. It ends
 * when its standard input ends, so also when the test dies.
 */
#ifndef TESTS_SUPPORT_CHILD_H
#define TESTS_SUPPORT_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct child {
    pid_t pid;
    int to;
    unsigned port;
};

/* argv ends with NULL; the program is looked for in the path. False: it did not come up. */
static inline bool child_start(struct child *c, const char *const *argv) {
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0)
        return false;
    c->pid = fork();
    if (c->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[0]);
        close(in[1]);
        close(out[0]);
        close(out[1]);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    c->to = in[1];
    FILE *f = fdopen(out[0], "r");
    bool up = c->pid > 0 && f && fscanf(f, "port %u", &c->port) == 1;
    if (f)
        fclose(f);
    return up;
}

static inline void child_end(struct child *c) {
    close(c->to);
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
}

#endif
