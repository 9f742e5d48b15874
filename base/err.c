/*
 * err: texts of the operating errors. The codes themselves are in err.h; this room only
 * names them for logs and for the operator. It knows nothing of errno: who meets a system
 * error logs it where it happened and returns one of our codes.
 */
#include "base/err.h"

const char *err_text(int err) {
    switch ((enum err)err) {
    case ERR_OK:
        return "no error";
    case ERR_NOMEM:
        return "out of memory";
    case ERR_IO:
        return "input or output failed";
    case ERR_FULL:
        return "limit reached";
    case ERR_INVALID:
        return "malformed input";
    case ERR_NOT_FOUND:
        return "not found";
    case ERR_CORRUPT:
        return "data is damaged";
    case ERR_TIMEOUT:
        return "timed out";
    case ERR_AGAIN:
        return "not possible now, try later";
    case ERR_EXISTS:
        return "already exists";
    case ERR_RANGE:
        return "number out of range";
    case ERR_DENIED:
        return "not permitted";
    case ERR_CLOSED:
        return "closed";
    case ERR_UNSUPPORTED:
        return "not supported";
    case ERR_NO_SPACE:
        return "no space left on the disk";
    case ERR_CANCELED:
        return "canceled";
    case ERR_UNREACHABLE:
        return "host unreachable or connection refused";
    case ERR_VERSION:
        return "version not spoken here";
    }
    return "unknown error";
}
