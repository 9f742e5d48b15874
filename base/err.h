/*
 * err: the one list of operating errors of Posthouse.
 *
 * A function that can fail for a reason outside the program returns int: ERR_OK (0)
 * or one of these negative codes, and carries MUST_CHECK. A programmer's mistake is
 * CHECK (check.h). The fate of a mail (deferred, refused, ...) is a value, not an error.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum err {
    ERR_OK = 0,
    ERR_NOMEM = -1,        /* an allocation failed */
    ERR_IO = -2,           /* read, write or sync failed; errno was logged where it happened */
    ERR_FULL = -3,         /* a stated maximum is reached */
    ERR_INVALID = -4,      /* malformed input */
    ERR_NOT_FOUND = -5,    /* no such key, name or file */
    ERR_CORRUPT = -6,      /* stored or received data fails its check */
    ERR_TIMEOUT = -7,      /* the other side did not answer in time */
    ERR_AGAIN = -8,        /* not now (would block, no credit, no peer yet); try later */
    ERR_EXISTS = -9,       /* already there */
    ERR_RANGE = -10,       /* a number outside its bounds */
    ERR_DENIED = -11,      /* not permitted */
    ERR_CLOSED = -12,      /* the peer or the object is closed */
    ERR_UNSUPPORTED = -13, /* valid, but not done here */
    ERR_NO_SPACE = -14,    /* the disk is full */
    ERR_CANCELED = -15,    /* stopped by its owner */
    ERR_UNREACHABLE = -16, /* connect refused, no route, host down */
    ERR_VERSION = -17,     /* a version that we do not speak */
};

/* A short lower-case sentence for a code; never NULL, static memory. */
const char *err_text(int err);

#endif
