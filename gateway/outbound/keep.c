/*
 * keep: see keep.h. A save is a job with memory of its own, counted twice: by its owner, who may go, and by the helper
 * thread. The owner waits for the thread before it frees or writes again, so that an older content never replaces a
 * newer one.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/little.h"
#include "base/log.h"

#include "gateway/outbound/keep.h"

enum { TAIL_LEN = 12, VERSION_LEN = 2 };

struct job {
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool finished;     /* the thread is through; under the lock */
    struct keep *keep; /* NULL: the owner is gone; the loop's thread only */
    char *path;
    char magic[KEEP_MAGIC];
    struct buf content;
    int err;
};
struct keep {
    struct loop *loop;
    char *path;
    char magic[KEEP_MAGIC];
    struct job *job; /* under way */
};

/* -- the file -- */

struct content {
    const char *magic;
    struct span octets;
};

static int write_content(void *arg, int fd) {
    const struct content *c = arg;
    char tail[TAIL_LEN];
    struct hash_stream *sum = hash_stream_new();
    if (!sum)
        return ERR_NOMEM;
    little_put(tail, c->octets.len, 8);
    hash_stream_add(sum, c->magic, KEEP_MAGIC);
    hash_stream_add(sum, c->octets.at, c->octets.len);
    hash_stream_add(sum, tail, 8);
    little_put(tail + 8, hash_stream_checksum(sum), 4);
    hash_stream_free(sum);
    int err = file_write_all(fd, span_make(c->magic, KEEP_MAGIC));
    err = err ? err : file_write_all(fd, c->octets);
    return err ? err : file_write_all(fd, span_make(tail, TAIL_LEN));
}

static int write_file(const char *path, const char *magic, struct span octets) {
    struct content c = {magic, octets};
    return file_replace(path, write_content, &c);
}

static int read_whole(int fd, struct buf *to, size_t len) {
    while (len) {
        size_t piece = len < 65536 ? len : 65536;
        char *at = buf_reserve(to, piece);
        if (!at)
            return to->err;
        ssize_t n = read(fd, at, piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? ERR_IO : ERR_CORRUPT; /* it became shorter */
        buf_commit(to, (size_t)n);
        len -= (size_t)n;
    }
    return ERR_OK;
}

static int judge(const struct keep *k, struct span all) {
    const char *tail = all.at + all.len - TAIL_LEN;
    if (memcmp(all.at, k->magic, KEEP_MAGIC) != 0)
        return memcmp(all.at, k->magic, KEEP_MAGIC - VERSION_LEN) == 0 ? ERR_VERSION : ERR_CORRUPT;
    bool whole = little_get(tail, 8) == all.len - KEEP_MAGIC - TAIL_LEN &&
                 little_get(tail + 8, 4) == hash_checksum(all.at, all.len - 4);
    return whole ? ERR_OK : ERR_CORRUPT;
}

int keep_read(const struct keep *k, struct buf *to) {
    struct stat st;
    int fd = open(k->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    int err = fstat(fd, &st) || !S_ISREG(st.st_mode) ? ERR_IO : ERR_OK;
    size_t len = err || st.st_size < 0 ? 0 : (size_t)st.st_size;
    if (!err && len < KEEP_MAGIC + TAIL_LEN)
        err = ERR_CORRUPT;
    if (!err && len - KEEP_MAGIC - TAIL_LEN > to->max)
        err = ERR_FULL;
    struct buf all;
    buf_init(&all, len);
    if (!err)
        err = read_whole(fd, &all, len);
    if (!err)
        err = judge(k, buf_span(&all));
    if (!err)
        err = buf_add(to, span_first(span_from(buf_span(&all), KEEP_MAGIC), len - KEEP_MAGIC - TAIL_LEN));
    buf_deinit(&all);
    close(fd);
    return err;
}

/* -- saving -- */

static void job_free(struct job *j) {
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->over);
    buf_deinit(&j->content);
    free(j->path);
    free(j);
}

static void work(void *arg) {
    struct job *j = arg;
    j->err = write_file(j->path, j->magic, buf_span(&j->content));
    pthread_mutex_lock(&j->lock);
    j->finished = true;
    pthread_cond_signal(&j->over);
    pthread_mutex_unlock(&j->lock);
}

static void on_done(void *arg) {
    struct job *j = arg;
    if (j->err)
        LOG_WARN("keep_failed", LOG_STR("file", j->path), LOG_ERR("why", j->err));
    if (j->keep)
        j->keep->job = NULL;
    job_free(j);
}

/* Until the thread is through; its last words come from the loop. */
static void let_go(struct keep *k) {
    struct job *j = k->job;
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    while (!j->finished)
        pthread_cond_wait(&j->over, &j->lock);
    pthread_mutex_unlock(&j->lock);
    j->keep = NULL;
    k->job = NULL;
}

bool keep_is_ready(const struct keep *k) {
    return !k->job;
}

static struct job *job_new(struct keep *k) {
    struct job *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    j->path = strdup(k->path);
    if (!j->path) {
        free(j);
        return NULL;
    }
    memcpy(j->magic, k->magic, KEEP_MAGIC);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->over, NULL);
    j->keep = k;
    return j;
}

void keep_save(struct keep *k, struct buf *content) {
    CHECK(!k->job);
    struct job *j = job_new(k);
    if (j) {
        j->content = *content;
        buf_init(content, content->max);
        k->job = j;
    }
    if (j && loop_work(k->loop, work, on_done, j) == ERR_OK)
        return;
    LOG_WARN("keep_failed", LOG_STR("file", k->path), LOG_ERR("why", ERR_NOMEM));
    buf_clear(content);
    k->job = NULL;
    if (j)
        job_free(j);
}

int keep_save_now(struct keep *k, struct span content) {
    let_go(k);
    return write_file(k->path, k->magic, content);
}

/* -- life -- */

struct keep *keep_new(struct loop *l, const char *path, const char *magic) {
    struct keep *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->loop = l;
    memcpy(k->magic, magic, KEEP_MAGIC);
    k->path = strdup(path);
    if (!k->path) {
        free(k);
        return NULL;
    }
    return k;
}

void keep_free(struct keep *k) {
    if (!k)
        return;
    let_go(k);
    free(k->path);
    free(k);
}
