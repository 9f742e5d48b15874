/*
 * gzip: see gzip.h. One call to zlib: room for the worst case is reserved first, so that it never has to be called
 * twice.
 */
#include <zlib.h>

#include "base/gzip.h"

enum { WINDOW_BITS = 15, GZIP_BITS = 16, MEMORY_LEVEL = 8 };
#define GZIP_MAX ((size_t)1 << 30)

int gzip_pack(struct span s, struct buf *to) {
    z_stream z = {0};
    if (s.len > GZIP_MAX)
        return ERR_RANGE;
    if (deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, WINDOW_BITS + GZIP_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return ERR_NOMEM;
    size_t room = deflateBound(&z, (uLong)s.len);
    char *at = buf_reserve(to, room);
    if (!at) {
        deflateEnd(&z);
        return to->err;
    }
    z.next_in = (Bytef *)(uintptr_t)s.at;
    z.avail_in = (uInt)s.len;
    z.next_out = (Bytef *)at;
    z.avail_out = (uInt)room;
    int end = deflate(&z, Z_FINISH);
    size_t packed = room - z.avail_out;
    deflateEnd(&z);
    if (end != Z_STREAM_END)
        return ERR_NOMEM;
    buf_commit(to, packed);
    return ERR_OK;
}
