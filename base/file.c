/*
 * file: see file.h. A rename counts when the folder is synced too.
 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

int file_write_all(int fd, struct span s) {
    while (s.len) {
        ssize_t n = write(fd, s.at, s.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 && (errno == ENOSPC || errno == EDQUOT) ? ERR_NO_SPACE : ERR_IO;
        s = span_from(s, (size_t)n);
    }
    return ERR_OK;
}

int file_sync_folder(const char *path) {
    char folder[PATH_MAX];
    ptrdiff_t slash = span_rfind(span_of(path), '/');
    if (slash >= (ptrdiff_t)sizeof folder)
        return ERR_IO;
    span_copy(slash < 0 ? SPAN(".") : span_make(path, slash ? (size_t)slash : 1), folder, sizeof folder);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return ERR_IO;
    int err = fsync(fd) ? ERR_IO : ERR_OK;
    close(fd);
    return err;
}

int file_replace(const char *path, int (*fill)(void *arg, int fd), void *arg) {
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.new", path) >= (int)sizeof temporary)
        return ERR_IO;
    if (unlink(temporary) && errno != ENOENT) /* left by a process that died */
        return ERR_IO;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == ENOSPC ? ERR_NO_SPACE : ERR_IO;
    int err = fill(arg, fd);
    if (!err && fsync(fd))
        err = ERR_IO;
    if (close(fd) && !err)
        err = ERR_IO;
    if (!err && rename(temporary, path))
        err = ERR_IO;
    if (err)
        (void)unlink(temporary);
    return err ? err : file_sync_folder(path);
}
