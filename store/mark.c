/*
 * mark: see mark.h. Two slots are written in turn, the number before its check, so that whatever moment the kernel
 * picks to write the page back, one slot is whole; the larger whole one counts.
 */
#include "store/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

#define PAGE 4096u
#define CHECK_WORD UINT64_C(0x9e3779b97f4a7c15)

struct mark_slot {
    _Atomic uint64_t sequence, check;
};
struct mark_page {
    char head[64];
    struct mark_slot slots[2];
    char rest[PAGE - 64 - 2 * sizeof(struct mark_slot)];
};
_Static_assert(sizeof(struct mark_page) == PAGE, "one page");

static const char head[64] = "posthouse mark 1\n";

static uint64_t check_of(uint64_t sequence) {
    return (sequence ^ CHECK_WORD) * UINT64_C(0xff51afd7ed558ccd);
}

static int failed(const char *what) {
    int err = errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE
              : errno == ENOENT                  ? ERR_NOT_FOUND
              : errno == EEXIST                  ? ERR_EXISTS
                                                 : ERR_IO;
    if (err != ERR_NOT_FOUND)
        LOG_ERROR("store_mark", LOG_STR("in", what), LOG_STR("why", strerror(errno)));
    return err;
}

static int write_new(int fd, int directory) {
    struct mark_page page = {0};
    memcpy(page.head, head, sizeof head);
    for (int i = 0; i < 2; i++)
        page.slots[i].check = check_of(0);
    ssize_t n = pwrite(fd, &page, sizeof page, 0);
    if (n >= 0 && n != (ssize_t)sizeof page)
        errno = ENOSPC;
    if (n != (ssize_t)sizeof page || fsync(fd) != 0 || fsync(directory) != 0)
        return failed("create");
    return ERR_OK;
}

static bool is_whole(const struct mark_slot *slot) {
    return slot->check == check_of(slot->sequence);
}

static int map(struct mark *m, int fd, int directory, bool read_only) {
    struct stat st;
    if (fstat(fd, &st) != 0)
        return failed("stat");
    m->was_empty = st.st_size == 0;
    if (m->was_empty && read_only) { /* a page of zeros: no slot is whole, so it says 0 */
        void *zeros = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        m->page = zeros == MAP_FAILED ? NULL : zeros;
        return m->page ? ERR_OK : ERR_NOMEM;
    }
    if (m->was_empty) {
        int err = write_new(fd, directory);
        if (err != ERR_OK || fstat(fd, &st) != 0)
            return err != ERR_OK ? err : failed("stat");
    }
    if (st.st_size != (off_t)PAGE || !S_ISREG(st.st_mode))
        return ERR_CORRUPT;
    void *at = mmap(NULL, PAGE, read_only ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return failed("map");
    m->page = at;
    if (memcmp(m->page->head, head, sizeof head) == 0 && (is_whole(&m->page->slots[0]) || is_whole(&m->page->slots[1])))
        return ERR_OK;
    mark_close(m);
    return ERR_CORRUPT;
}

int mark_open(struct mark *m, const char *directory, bool create, bool read_only) {
    *m = (struct mark){0};
    int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return failed("directory");
    int flags = (read_only ? O_RDONLY : O_RDWR) | (create ? O_CREAT | O_EXCL : 0) | O_CLOEXEC | O_NOFOLLOW;
    int fd = openat(dir, MARK_FILE, flags, 0600);
    int err = fd < 0 ? failed("open") : create ? write_new(fd, dir) : ERR_OK;
    if (err == ERR_OK)
        err = map(m, fd, dir, read_only);
    if (fd >= 0)
        close(fd);
    if (err != ERR_OK && create && fd >= 0)
        unlinkat(dir, MARK_FILE, 0);
    close(dir);
    return err;
}

void mark_close(struct mark *m) {
    if (m->page)
        munmap(m->page, PAGE);
    m->page = NULL;
}

uint64_t mark_get(const struct mark *m) {
    uint64_t sequence = 0;
    for (int i = 0; i < 2; i++) {
        const struct mark_slot *slot = &m->page->slots[i];
        if (is_whole(slot) && slot->sequence > sequence)
            sequence = slot->sequence;
    }
    return sequence;
}

void mark_set(struct mark *m, uint64_t sequence) {
    CHECK(m->page);
    struct mark_slot *slot = &m->page->slots[m->turn++ & 1];
    atomic_store_explicit(&slot->sequence, sequence, memory_order_release);
    atomic_store_explicit(&slot->check, check_of(sequence), memory_order_release);
}
