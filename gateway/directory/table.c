/*
 * table: reads a recipients file once, checks every line, and hashes where the names are.
 *
 * A slot is the offset of a line (plus one; 0 is free) and 32 bits of the name's hash, so that a
 * wrong line is hardly ever read; the table is at most two thirds full. The hash covers the name in
 * lower case, seeded by the domain: a name without a domain has the seed 0 and counts in every domain
 * of the table. In a table of one domain all names are taken as written without it. Most lines are a plain dot-string
 * and take a path without allocation; the others are judged by the parser of addresses, which also gives quoted names
 * their key.
 *
 * Nothing here trusts the file: not its size while it is read, not that it is a file at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hash.h"

#include "gateway/directory/table_check.h"

enum { SLOTS_MIN = 8 };
#define CATCH_ALL_SEED 0x9e3779b97f4a7c15u

struct slot {
    uint32_t at; /* offset of the line + 1 */
    uint32_t tag;
};
struct stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed, modified;
};
struct table {
    atomic_uint refs;
    char *path;
    char *text;
    size_t len;
    struct slot *slots;
    size_t mask;
    size_t count;
    struct span *domains; /* sorted; their bytes are in domain_text */
    char *domain_text;
    size_t domain_count;
    struct stamp stamp;
};

/* What a load carries along. */
struct load {
    struct table *t;
    struct buf *problems;
    size_t line;
    uint64_t problem_count;
    struct arena scratch;                  /* of one line */
    struct span last_domain, last_written; /* most lines name the domain of the line before */
};

/* -- problems -- */

static void problem(void *arg, const char *what, struct span subject) {
    struct load *l = arg;
    if (++l->problem_count > TABLE_PROBLEMS_MAX)
        return;
    buf_printf(l->problems, "%s:%zu: ", l->t->path, l->line);
    if (subject.len) {
        buf_add_escaped(l->problems, span_first(subject, 100));
        buf_add_str(l->problems, subject.len > 100 ? "...: " : ": ");
    }
    buf_add_str(l->problems, what);
    buf_add_byte(l->problems, '\n');
}

static int file_problem(const struct table *t, struct buf *problems, const char *what, int err) {
    buf_printf(problems, "%s: %s\n", t->path, what);
    return err;
}

/* -- the file -- */

static struct stamp stamp_of(const struct stat *st) {
    return (struct stamp){st->st_dev, st->st_ino, st->st_size, st->st_ctim, st->st_mtim};
}

static bool stamp_eq(const struct stamp *a, const struct stamp *b) {
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec && a->modified.tv_sec == b->modified.tv_sec &&
           a->modified.tv_nsec == b->modified.tv_nsec;
}

static int check_file(const struct table *t, const struct stat *st, struct buf *problems) {
    if (!S_ISREG(st->st_mode))
        return file_problem(t, problems, "not a regular file", ERR_DENIED);
    if (st->st_mode & S_IWOTH)
        return file_problem(t, problems, "writable by everyone", ERR_DENIED);
    if (st->st_size == 0) /* most likely somebody is just writing it */
        return file_problem(t, problems, "the file is empty (a table without entries needs a comment)", ERR_INVALID);
    if ((uint64_t)st->st_size > TABLE_FILE_MAX)
        return file_problem(t, problems, "larger than 4 GiB", ERR_RANGE);
    return ERR_OK;
}

static int read_all(struct table *t, int fd, size_t size, struct buf *problems) {
    t->text = malloc(size + 1);
    if (!t->text)
        return file_problem(t, problems, err_text(ERR_NOMEM), ERR_NOMEM);
    while (t->len <= size) {
        ssize_t n = read(fd, t->text + t->len, size + 1 - t->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_problem(t, problems, strerror(errno), ERR_IO);
        if (n == 0)
            break;
        t->len += (size_t)n;
    }
    if (t->len != size)
        return file_problem(t, problems, "changed while it was read", ERR_AGAIN);
    return ERR_OK;
}

static int read_file(struct table *t, struct buf *problems) {
    struct stat st, after;
    /* Not blocking, so that a FIFO in the place of the file cannot hold us up. */
    int fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        int err = errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : errno == EACCES ? ERR_DENIED : ERR_IO;
        return file_problem(t, problems, strerror(errno), err);
    }
    int err = fstat(fd, &st) == 0 ? check_file(t, &st, problems) : file_problem(t, problems, strerror(errno), ERR_IO);
    if (!err)
        err = read_all(t, fd, (size_t)st.st_size, problems);
    if (!err) {
        t->stamp = stamp_of(&st);
        struct stamp now = fstat(fd, &after) == 0 ? stamp_of(&after) : (struct stamp){0};
        if (!stamp_eq(&now, &t->stamp))
            err = file_problem(t, problems, "changed while it was read", ERR_AGAIN);
    }
    close(fd);
    if (!err && t->len >= 3 && memcmp(t->text, "\xef\xbb\xbf", 3) == 0)
        memset(t->text, ' ', 3); /* a byte order mark */
    return err;
}

/* -- names -- */

static uint64_t name_hash(struct span key, struct span domain, bool catch_all) {
    uint64_t seed = domain.len ? hash_span(domain, 0) : 0;
    return catch_all ? hash_span(domain, CATCH_ALL_SEED) : hash_span_nocase(key, seed);
}

static int compare_spans(const void *a, const void *b) {
    return span_cmp(*(const struct span *)a, *(const struct span *)b);
}

/* The table's own copy of a domain as written, or the empty span when it is none of the table's. */
static struct span own_domain(const struct table *t, struct span written, struct arena *mem) {
    struct span name;
    if (t->domain_count == 1 && span_eq_nocase(written, t->domains[0]))
        return t->domains[0];
    if (address_parse_domain(&name, written, mem) != ERR_OK)
        return SPAN_EMPTY;
    const struct span *found = bsearch(&name, t->domains, t->domain_count, sizeof *t->domains, compare_spans);
    return found ? *found : SPAN_EMPTY;
}

static struct span line_at(const struct table *t, size_t offset) {
    struct span rest = {t->text + offset, t->len - offset};
    ptrdiff_t end = span_find(rest, '\n');
    return end < 0 ? rest : span_first(rest, (size_t)end);
}

/* Whether the line at offset, which was checked when it was loaded, bears this name. */
static bool line_is(const struct table *t, size_t offset, struct span key, struct span domain, bool catch_all,
                    struct table_line *line) {
    if (table_line_cut(line_at(t, offset), line) || line->catch_all != catch_all)
        return false;
    char memory[ADDRESS_LOCAL_MAX];
    struct arena mem;
    struct span own = line->local;
    bool indirect, same = true;
    arena_init(&mem, 1024, TABLE_SCRATCH_MAX);
    if (!catch_all && !line->plain)
        same = table_unquote(line->local, memory, &own, &indirect, &mem);
    if (!catch_all)
        same = same && span_eq_nocase(own, key);
    if (same && t->domain_count > 1)
        same = span_eq(line->domain.len ? own_domain(t, line->domain, &mem) : SPAN_EMPTY, domain);
    arena_deinit(&mem);
    return same;
}

/* The slot of the name, or the free one where it would go. */
static struct slot *find_slot(const struct table *t, uint64_t hash, struct span key, struct span domain, bool catch_all,
                              struct table_line *line) {
    for (size_t i = hash & t->mask;; i = (i + 1) & t->mask) {
        struct slot *s = &t->slots[i];
        if (s->at == 0)
            return s;
        if (s->tag == (uint32_t)(hash >> 32) && line_is(t, s->at - 1, key, domain, catch_all, line))
            return s;
    }
}

/* -- loading -- */

static int make_slots(struct table *t, struct buf *problems) {
    size_t lines = 1, slots = SLOTS_MIN;
    for (const char *at = t->text; (at = memchr(at, '\n', (size_t)(t->text + t->len - at))); at++)
        lines++;
    while (slots < lines + lines / 2)
        slots *= 2;
    t->slots = calloc(slots, sizeof *t->slots);
    t->mask = slots - 1;
    return t->slots ? ERR_OK : file_problem(t, problems, err_text(ERR_NOMEM), ERR_NOMEM);
}

/* Finds the domain that the line names; false: not one of the table's. */
static bool check_domain(struct load *l, struct span written, struct span *domain) {
    *domain = SPAN_EMPTY;
    if (written.len == 0)
        return true;
    if (l->last_domain.len && span_eq(written, l->last_written)) {
        *domain = l->last_domain;
        return true;
    }
    *domain = own_domain(l->t, written, &l->scratch);
    if (!domain->len) {
        problem(l, "not a domain of this table", written);
        return false;
    }
    l->last_written = written;
    l->last_domain = *domain;
    return true;
}

static void take_line(struct load *l, size_t offset, struct span text) {
    struct table_check check = {problem, l, &l->scratch};
    struct table_line line, other;
    struct span key, domain;
    char memory[ADDRESS_LOCAL_MAX];
    if (span_find(text, '\0') >= 0) {
        problem(l, "a NUL octet", SPAN_EMPTY);
        return;
    }
    const char *form = table_line_cut(text, &line);
    if (form) {
        problem(l, form, span_trim(text));
        return;
    }
    if (line.empty || !check_domain(l, line.domain, &domain) || !table_check_key(&check, &line, memory, &key))
        return;
    struct span own = domain.len || l->t->domain_count > 1 ? domain : l->t->domains[0];
    if (line.kind != TABLE_MAILBOX)
        table_check_targets(&check, line.targets, key, own, line.catch_all);
    if (l->t->domain_count == 1)
        domain = SPAN_EMPTY;
    uint64_t hash = name_hash(key, domain, line.catch_all);
    struct slot *s = find_slot(l->t, hash, key, domain, line.catch_all, &other);
    if (s->at) {
        char what[64];
        struct table_entry first = {.offset = s->at - 1};
        snprintf(what, sizeof what, "stands already in line %zu", table_line(l->t, &first));
        problem(l, what, line.catch_all ? line.domain : line.local);
        return;
    }
    *s = (struct slot){(uint32_t)offset + 1, (uint32_t)(hash >> 32)};
    l->t->count++;
}

static int take_lines(struct table *t, struct buf *problems) {
    struct load l = {.t = t, .problems = problems};
    arena_init(&l.scratch, 4096, TABLE_SCRATCH_MAX);
    for (size_t at = 0; at < t->len;) {
        struct span text = line_at(t, at);
        l.line++;
        take_line(&l, at, text);
        if (l.scratch.head)
            arena_reset(&l.scratch);
        at += text.len + 1;
    }
    arena_deinit(&l.scratch);
    if (l.problem_count > TABLE_PROBLEMS_MAX)
        buf_printf(problems, "%s: %llu more problems\n", t->path,
                   (unsigned long long)(l.problem_count - TABLE_PROBLEMS_MAX));
    return l.problem_count ? ERR_INVALID : ERR_OK;
}

static int copy_domains(struct table *t, const struct span *domains, size_t count) {
    size_t bytes = 0;
    CHECK(count > 0);
    for (size_t i = 0; i < count; i++)
        bytes += domains[i].len;
    t->domains = calloc(count, sizeof *t->domains);
    t->domain_text = malloc(bytes + 1);
    if (!t->domains || !t->domain_text)
        return ERR_NOMEM;
    char *to = t->domain_text;
    for (size_t i = 0; i < count; i++) {
        memcpy(to, domains[i].at, domains[i].len);
        t->domains[i] = span_make(to, domains[i].len);
        to += domains[i].len;
    }
    t->domain_count = count;
    qsort(t->domains, count, sizeof *t->domains, compare_spans);
    return ERR_OK;
}

int table_load(struct table **out, const char *path, const struct span *domains, size_t count, struct buf *problems) {
    struct table *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return ERR_NOMEM;
    atomic_init(&t->refs, 1);
    t->path = strdup(path);
    int err = t->path ? copy_domains(t, domains, count) : ERR_NOMEM;
    if (!err)
        err = read_file(t, problems);
    if (!err)
        err = make_slots(t, problems);
    if (!err)
        err = take_lines(t, problems);
    if (err) {
        table_unref(t);
        return err;
    }
    *out = t;
    return ERR_OK;
}

struct table *table_ref(struct table *t) {
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void table_unref(struct table *t) {
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(t->path);
    free(t->text);
    free(t->slots);
    free(t->domains);
    free(t->domain_text);
    free(t);
}

/* -- looking up -- */

static bool find_name(const struct table *t, struct span key, struct span domain, bool catch_all,
                      struct table_entry *e) {
    struct table_line line;
    const struct slot *s = find_slot(t, name_hash(key, domain, catch_all), key, domain, catch_all, &line);
    if (s->at == 0)
        return false;
    *e = (struct table_entry){.kind = line.kind, .catch_all = catch_all, .targets = line.targets, .offset = s->at - 1};
    return true;
}

static bool find_key(const struct table *t, struct span key, struct span domain, struct table_entry *e) {
    return find_name(t, key, domain, false, e) || (domain.len && find_name(t, key, SPAN_EMPTY, false, e));
}

bool table_find(const struct table *t, struct span key, struct span domain, struct table_entry *e) {
    if (t->domain_count == 1)
        domain = SPAN_EMPTY;
    if (find_key(t, key, domain, e))
        return true;
    ptrdiff_t plus = span_find(key, '+');
    if (plus > 0 && find_key(t, span_first(key, (size_t)plus), domain, e)) {
        e->tagged = true;
        return true;
    }
    return find_name(t, SPAN_EMPTY, domain, true, e);
}

bool table_is_stale(const struct table *t) {
    struct stat st;
    if (stat(t->path, &st) != 0)
        return true;
    struct stamp now = stamp_of(&st);
    return !stamp_eq(&now, &t->stamp);
}

const char *table_path(const struct table *t) {
    return t->path;
}

size_t table_count(const struct table *t) {
    return t->count;
}

size_t table_memory(const struct table *t) {
    return t->len + 1 + (t->mask + 1) * sizeof *t->slots + sizeof *t;
}

size_t table_line(const struct table *t, const struct table_entry *e) {
    size_t line = 1;
    for (size_t i = 0; i < e->offset; i++)
        line += t->text[i] == '\n';
    return line;
}
