/*
 * lines: see lines.h. The file is judged through the descriptor that it is read by, so that nobody can swap it between
 * the look at its mode and the reading.
 */
#include "gateway/auth/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/net/secret.h"

enum { FILE_MAX = 256 << 20, PROBLEMS_MAX = 20 };

static int refuse(struct lines *l, int err, const char *what) {
    buf_printf(l->problems, "%s: %s\n", l->path, what);
    return err;
}

static int read_all(struct lines *l, int fd) {
    if (fstat(fd, &l->stamp) != 0 || !S_ISREG(l->stamp.st_mode))
        return refuse(l, ERR_INVALID, "is not a file");
    if (l->stamp.st_size > FILE_MAX)
        return refuse(l, ERR_FULL, "is over 256 MiB");
    size_t size = (size_t)l->stamp.st_size;
    l->text = malloc(size + 1);
    if (!l->text)
        return refuse(l, ERR_NOMEM, "no memory");
    while (l->len < size) {
        ssize_t n = read(fd, l->text + l->len, size - l->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return refuse(l, ERR_IO, strerror(errno));
        if (n == 0)
            break;
        l->len += (size_t)n;
    }
    return ERR_OK;
}

int lines_open(struct lines *l, const char *path, bool secret, struct buf *problems) {
    memset(l, 0, sizeof *l);
    l->problems = problems;
    l->path = strdup(path);
    if (!l->path)
        return ERR_NOMEM;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int err;
    if (fd < 0)
        err = refuse(l, errno == ENOENT ? ERR_NOT_FOUND : ERR_DENIED, strerror(errno));
    else
        err = read_all(l, fd);
    if (!err && secret && (l->stamp.st_mode & (S_IROTH | S_IWOTH)))
        err = refuse(l, ERR_DENIED, "is open to others (chmod 640)");
    if (fd >= 0)
        close(fd);
    if (err)
        lines_close(l);
    return err;
}

void lines_close(struct lines *l) {
    if (l->text)
        secret_wipe(l->text, l->len);
    free(l->text);
    free(l->path);
    l->text = l->path = NULL;
}

void lines_problem(struct lines *l, const char *what, struct span detail) {
    if (l->problem_count++ >= PROBLEMS_MAX)
        return;
    buf_printf(l->problems, "%s:%zu: %s", l->path, l->line, what);
    if (detail.len) {
        buf_add_str(l->problems, ": ");
        buf_add_escaped(l->problems, span_first(detail, 80));
    }
    buf_add_str(l->problems, "\n");
}

bool lines_next(struct lines *l, struct span *name, struct span *rest) {
    while (l->at < l->len) {
        struct span tail;
        struct span line = span_cut(span_make(l->text + l->at, l->len - l->at), '\n', &tail);
        l->at += line.len + 1;
        l->line++;
        if (line.len && line.at[line.len - 1] == '\r')
            line.len--;
        line = span_trim(line);
        if (line.len == 0 || line.at[0] == '#')
            continue;
        if (span_find(line, ':') < 0) {
            lines_problem(l, "no ':' between the account and what it has", SPAN_EMPTY);
            continue;
        }
        *name = span_trim(span_cut(line, ':', rest));
        *rest = span_trim(*rest);
        return true;
    }
    return false;
}

bool lines_is_stale(const struct lines *l) {
    struct stat now;
    const struct stat *then = &l->stamp;
    return stat(l->path, &now) != 0 || now.st_ino != then->st_ino || now.st_dev != then->st_dev ||
           now.st_size != then->st_size || now.st_mode != then->st_mode || now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != then->st_mtim.tv_nsec || now.st_ctim.tv_sec != then->st_ctim.tv_sec ||
           now.st_ctim.tv_nsec != then->st_ctim.tv_nsec;
}
