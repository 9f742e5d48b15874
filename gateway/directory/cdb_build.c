/*
 * cdb_build: compiles a text table into a CDB file (cdb_format.h) beside the target's place, and renames it there when
 * it is whole and on the disk.
 *
 * The text is read twice as a stream: once to count its lines, once to check and add them. What stays in memory is 8
 * octets for each line and slot of the index that finds duplicates, and 8 for each record in the library. A duplicate
 * is told by reading its line again, as in table.c.
 */
#include <cdb.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"

#include "gateway/directory/cdb.h"
#include "gateway/directory/cdb_format.h"
#include "gateway/directory/table_check.h"

enum { LINE_MAX_ = 1024 * 1024, CHUNK = 64 * 1024, AGAIN = 8 * 1024, SLOTS_MIN = 8 };

struct slot {
    uint32_t at; /* offset of the line + 1 */
    uint32_t tag;
};
struct build {
    const char *text, *path;
    int fd; /* of the text */
    struct stat stat;
    struct buf in;
    uint64_t offset; /* of the first octet in `in` */
    bool ended;
    uint64_t line, count, problem_count;
    struct buf *problems;
    struct arena scratch;
    struct slot *slots;
    size_t mask, lines_max;
    char last_written[ADDRESS_DOMAIN_MAX],
        last_domain[ADDRESS_DOMAIN_MAX]; /* most lines name that of the line before */
    size_t last_written_len, last_domain_len;
    struct cdb_make make;
    struct buf record;
    int err; /* of reading or writing, not of the text */
};
struct name { /* of a line */
    char key[CDB_KEY_MAX];
    size_t len;
};

/* -- problems -- */

static void problem(void *arg, const char *what, struct span subject) {
    struct build *b = arg;
    if (++b->problem_count > TABLE_PROBLEMS_MAX)
        return;
    buf_printf(b->problems, "%s:%llu: ", b->text, (unsigned long long)b->line);
    if (subject.len) {
        buf_add_escaped(b->problems, span_first(subject, 100));
        buf_add_str(b->problems, subject.len > 100 ? "...: " : ": ");
    }
    buf_add_str(b->problems, what);
    buf_add_byte(b->problems, '\n');
}

static int file_problem(struct buf *problems, const char *path, const char *what, int err) {
    buf_printf(problems, "%s: %s\n", path, what);
    return err;
}

static int errno_problem(struct buf *problems, const char *path) {
    int err = errno == ENOENT || errno == ENOTDIR  ? ERR_NOT_FOUND
              : errno == EACCES || errno == EPERM  ? ERR_DENIED
              : errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE
                                                   : ERR_IO;
    return file_problem(problems, path, strerror(errno), err);
}

/* -- reading the text -- */

static int open_text(struct build *b) {
    b->fd = open(b->text, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (b->fd < 0 || fstat(b->fd, &b->stat) != 0)
        return errno_problem(b->problems, b->text);
    if (!S_ISREG(b->stat.st_mode))
        return file_problem(b->problems, b->text, "not a regular file", ERR_DENIED);
    if (b->stat.st_mode & S_IWOTH)
        return file_problem(b->problems, b->text, "writable by everyone", ERR_DENIED);
    if (b->stat.st_size == 0)
        return file_problem(b->problems, b->text, "the file is empty (a table without entries needs a comment)",
                            ERR_INVALID);
    if ((uint64_t)b->stat.st_size > TABLE_FILE_MAX)
        return file_problem(b->problems, b->text, "larger than 4 GiB", ERR_RANGE);
    return ERR_OK;
}

static bool has_changed(struct build *b) {
    struct stat now;
    return fstat(b->fd, &now) != 0 || now.st_size != b->stat.st_size || now.st_mtim.tv_sec != b->stat.st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != b->stat.st_mtim.tv_nsec;
}

static void read_more(struct build *b) {
    char *to = buf_reserve(&b->in, CHUNK);
    ssize_t n = to ? read(b->fd, to, CHUNK) : -1;
    if (n < 0) {
        b->err = to ? errno_problem(b->problems, b->text)
                    : file_problem(b->problems, b->text, err_text(ERR_NOMEM), ERR_NOMEM);
        n = 0;
    }
    if (to)
        buf_commit(&b->in, (size_t)n);
    b->ended = n == 0;
}

/* The next line without its LF; it stays until the next call. False: none, or an error. */
static bool next_line(struct build *b, struct span *line, uint64_t *offset) {
    size_t looked = 0;
    for (;;) {
        struct span s = buf_span(&b->in);
        ptrdiff_t end = span_find(span_from(s, looked), '\n');
        *offset = b->offset;
        if (end >= 0 || (b->ended && s.len)) {
            size_t len = end >= 0 ? looked + (size_t)end : s.len;
            size_t used = end >= 0 ? len + 1 : len;
            *line = span_first(s, len);
            buf_consume(&b->in, used); /* its octets stay until the next append */
            b->offset += used;
            b->line++;
            return true;
        }
        looked = s.len;
        if (b->ended || b->err)
            return false;
        if (s.len > LINE_MAX_) {
            b->err = file_problem(b->problems, b->text, "a line is longer than 1 MiB", ERR_RANGE);
            return false;
        }
        read_more(b);
    }
}

static int count_lines(struct build *b, size_t *lines) {
    char chunk[CHUNK];
    ssize_t n;
    *lines = 1;
    while ((n = read(b->fd, chunk, sizeof chunk)) > 0) {
        for (const char *at = chunk; (at = memchr(at, '\n', (size_t)(chunk + n - at))); at++)
            ++*lines;
    }
    if (n < 0 || lseek(b->fd, 0, SEEK_SET) != 0)
        return errno_problem(b->problems, b->text);
    return ERR_OK;
}

/* -- one line -- */

/* The canonical domain of the line; it stays until the next call. */
static bool take_domain(struct build *b, struct span written, struct span *domain) {
    struct span name;
    *domain = SPAN_EMPTY;
    if (!written.len)
        return true;
    if (!span_eq(written, span_make(b->last_written, b->last_written_len))) {
        if (address_parse_domain(&name, written, &b->scratch) != ERR_OK || name.len > ADDRESS_DOMAIN_MAX)
            return false;
        memcpy(b->last_domain, name.at, name.len);
        b->last_domain_len = name.len;
        b->last_written_len = written.len <= ADDRESS_DOMAIN_MAX ? written.len : 0;
        memcpy(b->last_written, written.at, b->last_written_len);
    }
    *domain = span_make(b->last_domain, b->last_domain_len);
    return true;
}

/* Whether the line at `offset`, which was good, has this key. */
static bool has_key(struct build *b, uint64_t offset, const struct name *name) {
    char text[AGAIN], memory[ADDRESS_LOCAL_MAX], key[CDB_KEY_MAX];
    struct table_line line;
    struct span rest, domain;
    bool indirect;
    ssize_t n = pread(b->fd, text, sizeof text, (off_t)offset);
    if (n <= 0) {
        b->err = b->err ? b->err : ERR_IO;
        return false;
    }
    /* Behind the name anything may be missing. */
    (void)table_line_cut(span_cut(span_make(text, (size_t)n), '\n', &rest), &line);
    struct span local = line.local;
    if (!line.catch_all && !line.plain && !table_unquote(line.local, memory, &local, &indirect, &b->scratch))
        return false;
    if (!take_domain(b, line.domain, &domain))
        return false;
    size_t len = cdb_table_key(key, local, domain, line.catch_all);
    return span_eq(span_make(key, len), span_make(name->key, name->len));
}

static uint64_t line_number(struct build *b, uint64_t offset) {
    char chunk[AGAIN];
    uint64_t at = 0, number = 1;
    while (at < offset) {
        size_t want = offset - at < sizeof chunk ? (size_t)(offset - at) : sizeof chunk;
        ssize_t n = pread(b->fd, chunk, want, (off_t)at);
        if (n <= 0)
            break;
        for (ssize_t i = 0; i < n; i++)
            number += chunk[i] == '\n';
        at += (uint64_t)n;
    }
    return number;
}

/* Enters the name into the index; false: it stands already there. */
static bool enter(struct build *b, const struct name *name, uint64_t offset, struct span shown) {
    uint64_t hash = hash_bytes(name->key, name->len, 0);
    size_t i = hash & b->mask;
    for (; b->slots[i].at; i = (i + 1) & b->mask) {
        if (b->slots[i].tag != (uint32_t)(hash >> 32) || !has_key(b, b->slots[i].at - 1, name))
            continue;
        char what[64];
        snprintf(what, sizeof what, "stands already in line %llu",
                 (unsigned long long)line_number(b, b->slots[i].at - 1));
        problem(b, what, shown);
        return false;
    }
    b->slots[i] = (struct slot){(uint32_t)offset + 1, (uint32_t)(hash >> 32)};
    return true;
}

static void add_u32(struct buf *to, uint32_t n) {
    unsigned char bytes[4];
    cdb_pack(n, bytes);
    buf_append(to, bytes, 4);
}

static void add_record(struct build *b, const struct name *name, const struct table_line *line) {
    struct buf *r = &b->record;
    size_t value = CDB_VALUE_MIN + line->targets.len;
    buf_clear(r);
    add_u32(r, (uint32_t)name->len);
    add_u32(r, (uint32_t)value);
    buf_append(r, name->key, name->len);
    buf_add_byte(r, (char)line->kind);
    add_u32(r, (uint32_t)b->line);
    buf_add(r, line->targets);
    if (r->err == ERR_OK)
        add_u32(r, hash_checksum(buf_span(r).at, buf_len(r)));
    if (r->err) {
        b->err = file_problem(b->problems, b->path, err_text(r->err), r->err);
        return;
    }
    struct span s = span_from(buf_span(r), CDB_RECORD_HEAD + name->len);
    if (cdb_make_add(&b->make, name->key, (unsigned)name->len, s.at, (unsigned)s.len) != 0)
        b->err = errno == ENOMEM ? file_problem(b->problems, b->path, "would be larger than 4 GiB", ERR_RANGE)
                                 : errno_problem(b->problems, b->path);
    else
        b->count++;
}

static void take_line(struct build *b, struct span text, uint64_t offset) {
    struct table_check check = {problem, b, &b->scratch};
    char memory[ADDRESS_LOCAL_MAX];
    struct table_line line;
    struct span key, domain;
    struct name name;
    if (span_find(text, '\0') >= 0) {
        problem(b, "a NUL octet", SPAN_EMPTY);
        return;
    }
    const char *form = table_line_cut(text, &line);
    if (form) {
        problem(b, form, span_trim(text));
        return;
    }
    if (line.empty)
        return;
    if (!take_domain(b, line.domain, &domain)) {
        problem(b, "not a domain", line.domain);
        return;
    }
    if (!table_check_key(&check, &line, memory, &key))
        return;
    if (line.kind != TABLE_MAILBOX)
        table_check_targets(&check, line.targets, key, domain, line.catch_all);
    name.len = cdb_table_key(name.key, key, domain, line.catch_all);
    if (enter(b, &name, offset, line.catch_all ? line.domain : line.local) && b->problem_count == 0)
        add_record(b, &name, &line);
}

static int take_lines(struct build *b) {
    struct span line;
    uint64_t offset;
    while (!b->err && next_line(b, &line, &offset)) {
        if (b->line > b->lines_max)
            break; /* it has grown: the index would not hold them */
        if (b->line == 1 && line.len >= 3 && memcmp(line.at, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
            line = span_from(line, 3);
            offset += 3;
        }
        take_line(b, line, offset);
        if (b->scratch.head)
            arena_reset(&b->scratch);
    }
    if (!b->err && (has_changed(b) || b->line > b->lines_max))
        b->err = file_problem(b->problems, b->text, "changed while it was read", ERR_AGAIN);
    if (b->problem_count > TABLE_PROBLEMS_MAX)
        buf_printf(b->problems, "%s: %llu more problems\n", b->text,
                   (unsigned long long)(b->problem_count - TABLE_PROBLEMS_MAX));
    return b->err ? b->err : b->problem_count ? ERR_INVALID : ERR_OK;
}

/* -- the file -- */

/* Behind the finished CDB: reads its tables back and writes their checksums. */
static int add_trailer(struct build *b, int fd) {
    unsigned char trailer[CDB_TRAILER] = CDB_MAGIC;
    off_t size = lseek(fd, 0, SEEK_END);
    const unsigned char *map = size < CDB_HEAD ? MAP_FAILED : mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return errno_problem(b->problems, b->path);
    cdb_pack(CDB_VERSION, trailer + CDB_AT_VERSION);
    cdb_pack((unsigned)b->count, trailer + CDB_AT_COUNT);
    cdb_pack((unsigned)(b->count >> 32), trailer + CDB_AT_COUNT + 4);
    cdb_pack((unsigned)size, trailer + CDB_AT_SIZE);
    cdb_pack((unsigned)((uint64_t)size >> 32), trailer + CDB_AT_SIZE + 4);
    cdb_pack(hash_checksum(map, CDB_HEAD), trailer + CDB_AT_HEAD);
    for (size_t i = 0; i < CDB_TABLES; i++) {
        size_t at = cdb_unpack(map + i * 8), slots = cdb_unpack(map + i * 8 + 4);
        cdb_pack(hash_checksum(map + at, slots * 8), trailer + CDB_AT_TABLES + i * 4);
    }
    cdb_pack(hash_checksum(trailer + CDB_AT_COUNT, CDB_TRAILER - CDB_AT_COUNT), trailer + CDB_AT_CHECKSUM);
    munmap((void *)map, (size_t)size);
    return file_write_all(fd, span_make(trailer, sizeof trailer)) ? errno_problem(b->problems, b->path) : ERR_OK;
}

/* Fills the file; the library's memory is freed by cdb_make_finish, whatever happened. */
static int fill(struct build *b, int fd) {
    if (cdb_make_start(&b->make, fd) != 0)
        return errno_problem(b->problems, b->path);
    int err = take_lines(b);
    int finished = cdb_make_finish(&b->make);
    if (!err && finished != 0)
        err = errno == ENOMEM ? file_problem(b->problems, b->path, "would be larger than 4 GiB", ERR_RANGE)
                              : errno_problem(b->problems, b->path);
    if (!err)
        err = add_trailer(b, fd);
    if (!err && (fchmod(fd, 0644) != 0 || fsync(fd) != 0))
        err = errno_problem(b->problems, b->path);
    return err;
}

static int write_file(struct build *b) {
    char place[4096];
    if ((size_t)snprintf(place, sizeof place, "%s.XXXXXX", b->path) >= sizeof place)
        return file_problem(b->problems, b->path, "the path is too long", ERR_RANGE);
    int fd = mkostemp(place, O_CLOEXEC);
    if (fd < 0)
        return errno_problem(b->problems, b->path);
    int err = fill(b, fd);
    close(fd);
    if (!err && rename(place, b->path) != 0)
        err = errno_problem(b->problems, b->path);
    if (err)
        unlink(place);
    else if (file_sync_folder(b->path) != ERR_OK)
        err = file_problem(b->problems, b->path, "made, but its folder was not synced", ERR_IO);
    return err;
}

static int make_index(struct build *b) {
    size_t lines, slots = SLOTS_MIN;
    int err = count_lines(b, &lines);
    if (err)
        return err;
    while (slots < lines + lines / 2)
        slots *= 2;
    b->slots = calloc(slots, sizeof *b->slots);
    b->mask = slots - 1;
    b->lines_max = lines;
    return b->slots ? ERR_OK : file_problem(b->problems, b->text, err_text(ERR_NOMEM), ERR_NOMEM);
}

int cdb_table_build(const char *text, const char *path, uint64_t *count, struct buf *problems) {
    struct build b = {.text = text, .path = path, .fd = -1, .problems = problems};
    *count = 0;
    buf_init(&b.in, LINE_MAX_ + 2 * CHUNK);
    buf_init(&b.record, LINE_MAX_ + 2 * CHUNK);
    arena_init(&b.scratch, 4096, TABLE_SCRATCH_MAX);
    int err = open_text(&b);
    if (!err)
        err = make_index(&b);
    if (!err)
        err = write_file(&b);
    if (!err)
        *count = b.count;
    if (b.fd >= 0)
        close(b.fd);
    free(b.slots);
    buf_deinit(&b.in);
    buf_deinit(&b.record);
    arena_deinit(&b.scratch);
    return err;
}
