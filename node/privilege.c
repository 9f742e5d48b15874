/*
 * privilege: see privilege.h. Called once, by the main thread, before any other thread exists (but for
 * privilege_harden nothing here is reversible).
 */
#include "node/privilege.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

void privilege_harden(void) {
    struct rlimit none = {0, 0}, files;
    umask(077);
    if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0) != 0)
        LOG_WARN("core_files_not_refused", LOG_STR("why", strerror(errno)));
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0)
            LOG_WARN("descriptors_not_raised", LOG_STR("why", strerror(errno)));
    }
}

static int complain(const char *path, const char *what, int err) {
    LOG_ERROR("data_dir_refused", LOG_STR("path", path), LOG_STR("why", what));
    return err;
}

static const struct passwd *find_user(const char *user) {
    errno = 0;
    const struct passwd *p = getpwnam(user);
    if (!p)
        LOG_ERROR("user_unknown", LOG_STR("user", user),
                  LOG_STR("hint", "create it, or set node.user (root only if you must)"));
    return p;
}

int privilege_data_dir(const char *path, const char *user) {
    struct stat st;
    uid_t owner = geteuid();
    gid_t group = getegid();
    if (owner == 0 && user) {
        const struct passwd *p = find_user(user);
        if (!p)
            return ERR_NOT_FOUND;
        owner = p->pw_uid;
        group = p->pw_gid;
    }
    if (mkdir(path, 0700) == 0) {
        if (owner != geteuid() && lchown(path, owner, group) != 0)
            return complain(path, strerror(errno), ERR_DENIED);
    } else if (errno != EEXIST) {
        return complain(path, strerror(errno), ERR_IO);
    }
    if (lstat(path, &st) != 0)
        return complain(path, strerror(errno), ERR_IO);
    if (!S_ISDIR(st.st_mode))
        return complain(path, "not a directory (symbolic links are not followed)", ERR_DENIED);
    if (st.st_uid != owner)
        return complain(path, "owned by another user", ERR_DENIED);
    if ((st.st_mode & 077) && chmod(path, 0700) != 0)
        return complain(path, strerror(errno), ERR_DENIED);
    return ERR_OK;
}

void privilege_socket_dir(const char *socket_path, const char *user) {
    char dir[256];
    const char *slash = strrchr(socket_path, '/');
    size_t len = slash ? (size_t)(slash - socket_path) : 0;
    if (len == 0 || len >= sizeof dir)
        return;
    memcpy(dir, socket_path, len);
    dir[len] = 0;
    if (mkdir(dir, 0755) != 0)
        return;
    const struct passwd *p = geteuid() == 0 ? getpwnam(user) : NULL;
    if (chmod(dir, 0755) != 0 || (p && lchown(dir, p->pw_uid, p->pw_gid) != 0))
        LOG_WARN("socket_dir_not_given", LOG_STR("path", dir), LOG_STR("why", strerror(errno)));
}

int privilege_drop(const char *user) {
    if (geteuid() != 0)
        return ERR_OK;
    if (strcmp(user, "root") == 0) {
        LOG_WARN("runs_as_root", LOG_STR("hint", "node.user is root"));
        return ERR_OK;
    }
    const struct passwd *p = find_user(user);
    if (!p)
        return ERR_NOT_FOUND;
    if (initgroups(p->pw_name, p->pw_gid) != 0 || setresgid(p->pw_gid, p->pw_gid, p->pw_gid) != 0 ||
        setresuid(p->pw_uid, p->pw_uid, p->pw_uid) != 0 || setuid(0) == 0) {
        LOG_ERROR("root_not_dropped", LOG_STR("user", user), LOG_STR("why", strerror(errno)));
        return ERR_DENIED;
    }
    prctl(PR_SET_DUMPABLE, 0); /* a change of user id sets it anew */
    return ERR_OK;
}
