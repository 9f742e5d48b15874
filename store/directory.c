/*
 * directory: see directory.h. Mail lies here: nobody else reads it, and nobody else can put a link in our way.
 */
#include "store/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store/mark.h"

int directory_make(const char *path, char *why, size_t size) {
    struct stat st;
    umask(umask(077) | 077);
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        snprintf(why, size, "%s: %s", path, strerror(errno));
        return errno == ENOSPC || errno == EDQUOT  ? ERR_NO_SPACE
               : errno == EACCES || errno == EPERM ? ERR_DENIED
                                                   : ERR_IO;
    }
    if (lstat(path, &st) != 0) {
        snprintf(why, size, "%s: %s", path, strerror(errno));
        return ERR_IO;
    }
    const char *reason = S_ISLNK(st.st_mode)                ? "is a symbolic link"
                         : !S_ISDIR(st.st_mode)             ? "is not a directory"
                         : st.st_uid != geteuid()           ? "belongs to another user"
                         : st.st_mode & (S_IWGRP | S_IWOTH) ? "can be written by others"
                                                            : NULL;
    if (!reason)
        return ERR_OK;
    snprintf(why, size, "%s %s", path, reason);
    return ERR_DENIED;
}

int directory_read(const char *path, struct directory_list *out) {
    *out = (struct directory_list){0};
    DIR *d = opendir(path);
    if (!d)
        return errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        struct span name = span_of(e->d_name);
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue; /* removed meanwhile */
        out->bytes += (uint64_t)st.st_blocks * 512u;
        if (span_eq(name, SPAN("CURRENT"))) {
            out->current = true;
        } else if (span_eq(name, SPAN(MARK_FILE))) {
            out->mark = true;
        } else if (span_ends_nocase(name, SPAN(".sst"))) {
            out->tables++;
        } else if (span_ends_nocase(name, SPAN(".blob"))) {
            out->blobs++;
        } else if (span_ends_nocase(name, SPAN(".log"))) {
            out->logs++;
            out->log_bytes += (uint64_t)st.st_size;
        }
    }
    closedir(d);
    return ERR_OK;
}

bool directory_is_in_use(const char *path) {
    char name[4096];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (snprintf(name, sizeof name, "%s/LOCK", path) >= (int)sizeof name)
        return false;
    int fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    bool in_use = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return in_use;
}

uint64_t directory_room(const char *path) {
    struct statvfs v;
    return statvfs(path, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : UINT64_MAX;
}
