/*
 * fault_io: a library to preload, which makes writes and syncs fail at a test's wish, in a unit test or in the daemon.
 *
 *     LD_PRELOAD=libfault_io.so FAULT_IO_CONTROL=/tmp/x/control FAULT_IO_PREFIX=/tmp/x/data posthoused ...
 *
 * The control file may appear, change and go at any time; it is looked at again before every call (one stat). Change it
 * by writing another file and renaming it. A line of it:
 *
 *     OPERATION ACTION COUNT [SKIP [SUFFIX]]
 *
 * OPERATION: write pwrite writev fdatasync fsync; `sync` for both syncs, `output` for the three writes.
 * ACTION:    EIO ENOSPC EDQUOT EROFS EINTR: the call fails and does nothing. HALF: half of the octets are written.
 *            KILL: the process dies before the call; KILLAFTER: after it.
 * COUNT:     how often, or * for always. SKIP: how many such calls pass before. SUFFIX: only files that end so.
 *
 * Only files whose path begins with FAULT_IO_PREFIX are touched. The first line that matches a call decides. Each
 * fault is written down as a line in the file FAULT_IO_CONTROL.done, so that a test knows that it has happened.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RULES_MAX = 32, CONTROL_MAX = 8192, PATH_LEN = 4096 };
enum operation { OP_WRITE = 1, OP_PWRITE = 2, OP_WRITEV = 4, OP_FDATASYNC = 8, OP_FSYNC = 16 };
enum action { ACT_NONE = 0, ACT_HALF = -1, ACT_KILL = -2, ACT_KILLAFTER = -3 }; /* > 0: an errno */

struct rule {
    unsigned operations;
    int action;
    bool always;
    unsigned long count, skip;
    char suffix[64];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES_MAX];
static size_t rule_count;
static struct stat seen; /* of the control file; st_ino 0: none */

static const struct {
    const char *name;
    unsigned operations;
} operation_names[] = {{"write", OP_WRITE},
                       {"pwrite", OP_PWRITE},
                       {"writev", OP_WRITEV},
                       {"fdatasync", OP_FDATASYNC},
                       {"fsync", OP_FSYNC},
                       {"sync", OP_FDATASYNC | OP_FSYNC},
                       {"output", OP_WRITE | OP_PWRITE | OP_WRITEV}};
static const struct {
    const char *name;
    int action;
} action_names[] = {{"EIO", EIO},     {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
                    {"EINTR", EINTR}, {"HALF", ACT_HALF}, {"KILL", ACT_KILL}, {"KILLAFTER", ACT_KILLAFTER}};

static const char *operation_name(unsigned operation) {
    for (size_t i = 0; i < sizeof operation_names / sizeof *operation_names; i++)
        if (operation_names[i].operations == operation)
            return operation_names[i].name;
    return "?";
}

static const char *action_name(int action) {
    for (size_t i = 0; i < sizeof action_names / sizeof *action_names; i++)
        if (action_names[i].action == action)
            return action_names[i].name;
    return "?";
}

/* A line that is not understood ends the process: a test that tests nothing is worse. */
static void read_rule(char *line) {
    char operation[16] = "", action[16] = "", count[24] = "";
    struct rule r = {0};
    int fields = sscanf(line, "%15s %15s %23s %lu %63s", operation, action, count, &r.skip, r.suffix);
    if (fields <= 0 || operation[0] == '#')
        return;
    for (size_t i = 0; i < sizeof operation_names / sizeof *operation_names; i++)
        if (strcmp(operation, operation_names[i].name) == 0)
            r.operations = operation_names[i].operations;
    for (size_t i = 0; i < sizeof action_names / sizeof *action_names; i++)
        if (strcmp(action, action_names[i].name) == 0)
            r.action = action_names[i].action;
    char *end = count;
    r.always = strcmp(count, "*") == 0;
    if (!r.always)
        r.count = strtoul(count, &end, 10);
    if (fields < 3 || !r.operations || !r.action || (!r.always && (*end || end == count)) || rule_count == RULES_MAX) {
        fprintf(stderr, "fault_io: not understood: %s\n", line);
        _exit(99);
    }
    rules[rule_count++] = r;
}

static void read_control(const char *path) {
    char text[CONTROL_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    rule_count = 0;
    if (fd < 0)
        return;
    ssize_t len = read(fd, text, sizeof text - 1);
    close(fd);
    text[len > 0 ? len : 0] = '\0';
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        read_rule(line);
    }
}

/* Under the lock. */
static void refresh(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0)
        memset(&st, 0, sizeof st);
    if (st.st_ino == seen.st_ino && st.st_size == seen.st_size && st.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
        st.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    seen = st;
    if (st.st_ino)
        read_control(path);
    else
        rule_count = 0;
}

static bool path_of(int fd, char *to) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, to, PATH_LEN - 1);
    if (len < 0)
        return false;
    to[len] = '\0';
    return true;
}

static bool ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

static void write_down(const char *control, unsigned operation, int action, const char *path) {
    char name[PATH_LEN], line[PATH_LEN + 64];
    if (snprintf(name, sizeof name, "%s.done", control) >= (int)sizeof name)
        return;
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int len = snprintf(line, sizeof line, "%s %s %s\n", operation_name(operation), action_name(action), path);
    if (fd < 0)
        return;
    syscall(SYS_write, fd, line, (size_t)len);
    close(fd);
}

/* What is to happen to this call. */
static int decide(unsigned operation, int fd) {
    const char *control = getenv("FAULT_IO_CONTROL"), *prefix = getenv("FAULT_IO_PREFIX");
    char path[PATH_LEN];
    int action = ACT_NONE, saved = errno;
    if (!control || !prefix)
        return ACT_NONE;
    pthread_mutex_lock(&lock);
    refresh(control);
    bool concerned = rule_count && path_of(fd, path) && strncmp(path, prefix, strlen(prefix)) == 0;
    for (size_t i = 0; concerned && i < rule_count && action == ACT_NONE; i++) {
        struct rule *r = &rules[i];
        if (!(r->operations & operation) || !ends_with(path, r->suffix) || (!r->always && r->count == 0))
            continue;
        if (r->skip) {
            r->skip--;
            break;
        }
        if (!r->always)
            r->count--;
        action = r->action;
        write_down(control, operation, action, path);
    }
    pthread_mutex_unlock(&lock);
    if (action == ACT_KILL)
        kill(getpid(), SIGKILL);
    errno = saved;
    return action;
}

static long finish(int action, long result) {
    if (action == ACT_KILLAFTER)
        kill(getpid(), SIGKILL);
    return result;
}

static bool fails(int action) {
    if (action > 0)
        errno = action;
    return action > 0;
}

static size_t length(int action, size_t len) {
    return action == ACT_HALF && len > 1 ? len / 2 : len;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    int action = decide(OP_WRITE, fd);
    return fails(action) ? -1 : finish(action, syscall(SYS_write, fd, bytes, length(action, len)));
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    int action = decide(OP_PWRITE, fd);
    return fails(action) ? -1 : finish(action, syscall(SYS_pwrite64, fd, bytes, length(action, len), at));
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) {
    return pwrite(fd, bytes, len, at);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    int action = decide(OP_WRITEV, fd);
    if (fails(action))
        return -1;
    if (action == ACT_HALF && count > 0)
        return syscall(SYS_write, fd, pieces[0].iov_base, length(action, pieces[0].iov_len));
    return finish(action, syscall(SYS_writev, fd, pieces, count));
}

int fdatasync(int fd) {
    int action = decide(OP_FDATASYNC, fd);
    return fails(action) ? -1 : (int)finish(action, syscall(SYS_fdatasync, fd));
}

int fsync(int fd) {
    int action = decide(OP_FSYNC, fd);
    return fails(action) ? -1 : (int)finish(action, syscall(SYS_fsync, fd));
}
