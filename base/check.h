/*
 * check: assertions that stay in the release build.
 *
 * CHECK states what the program itself guarantees. When it fails the process aborts with
 * the place; the queue on disk is the truth and the next start recovers from it. Never
 * CHECK anything that a stranger, a disk or an operator can cause.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

/* Prints "file:line: function: check failed: what" to standard error and aborts. */
_Noreturn void check_fail(const char *what, const char *file, int line, const char *function);

#define CHECK(cond) (__builtin_expect(!!(cond), 1) ? (void)0 : check_fail(#cond, __FILE__, __LINE__, __func__))
#define CHECK_UNREACHABLE() check_fail("unreachable", __FILE__, __LINE__, __func__)

#endif
