/*
 * check: the end of a program that has broken its own promise. It writes one line with the
 * place and aborts; nothing is flushed or repaired, because the state can no longer be
 * trusted. The store recovers at the next start.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

_Noreturn void check_fail(const char *what, const char *file, int line, const char *function) {
    fprintf(stderr, "%s:%d: %s: check failed: %s\n", file, line, function, what);
    abort();
}
