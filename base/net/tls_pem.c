/*
 * tls_pem: reads certificates, keys and authorities from PEM files and says what is wrong with them, by the file's
 * name. Files are read whole and within a bound, marked so that a change can be seen later, and parsed from memory; no
 * call here ever asks a terminal for a pass phrase.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/net/secret.h"
#include "base/net/tls_in.h"

enum { EXPIRES_SOON_DAYS = 14 }; /* programs that renew certificates do so 30 days before */

void tls_problem(struct buf *problems, const char *path, const char *what) {
    buf_printf(problems, "%s: %s\n", path, what);
}

/* -- files -- */

static void set_mark(struct tls_mark *mark, const struct stat *st) {
    mark->device = st->st_dev;
    mark->inode = st->st_ino;
    mark->size = st->st_size;
    mark->changed_s = st->st_ctim.tv_sec;
    mark->changed_ns = st->st_ctim.tv_nsec;
    mark->mode = st->st_mode;
}

bool tls_mark_is_stale(const struct tls_mark *mark) {
    struct stat st;
    struct tls_mark now = {0};
    if (stat(mark->path, &st))
        return true;
    set_mark(&now, &st);
    return now.device != mark->device || now.inode != mark->inode || now.size != mark->size ||
           now.changed_s != mark->changed_s || now.changed_ns != mark->changed_ns;
}

void tls_mark_deinit(struct tls_mark *mark) {
    free(mark->path);
    mark->path = NULL;
}

static int err_of_errno(int error) {
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

static int read_fd(int fd, size_t size, struct buf *to) {
    for (size_t left = size; left;) {
        char *at = buf_reserve(to, left);
        if (!at)
            return to->err;
        ssize_t got = read(fd, at, left);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ERR_IO;
        if (got == 0)
            break;
        buf_commit(to, (size_t)got);
        left -= (size_t)got;
    }
    return ERR_OK;
}

int tls_file_read(const char *path, struct buf *to, struct tls_mark *mark, struct buf *problems) {
    struct stat st;
    int err = ERR_OK, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *mark = (struct tls_mark){.path = strdup(path)};
    if (!mark->path) {
        err = ERR_NOMEM;
    } else if (fd < 0 || fstat(fd, &st)) {
        err = err_of_errno(errno);
        tls_problem(problems, path, strerror(errno));
    } else if (!S_ISREG(st.st_mode) || st.st_size > TLS_FILE_MAX) {
        err = ERR_INVALID;
        tls_problem(problems, path, S_ISREG(st.st_mode) ? "is too long" : "is not a regular file");
    } else {
        set_mark(mark, &st);
        err = read_fd(fd, (size_t)st.st_size, to);
        if (err == ERR_IO)
            tls_problem(problems, path, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    return err;
}

/* -- certificates and keys -- */

static int no_phrase(char *to, int size, int writing, void *arg) {
    (void)to;
    (void)size;
    (void)writing;
    (void)arg;
    return 0;
}

/* After the last PEM object the queue says that no further one begins; anything else is damage. */
static bool is_at_end(void) {
    unsigned long err = ERR_peek_last_error();
    bool end = ERR_GET_LIB(err) == ERR_LIB_PEM && ERR_GET_REASON(err) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    return end;
}

static int read_chain(struct tls_pem *p, BIO *bio, const char *path, struct buf *problems) {
    X509 *x;
    p->leaf = PEM_read_bio_X509_AUX(bio, NULL, no_phrase, NULL);
    if (!p->leaf) {
        tls_problem(problems, path, is_at_end() ? "holds no certificate" : "holds a damaged certificate");
        return ERR_INVALID;
    }
    p->chain = sk_X509_new_null();
    if (!p->chain)
        return ERR_NOMEM;
    while ((x = PEM_read_bio_X509(bio, NULL, no_phrase, NULL))) {
        if (!sk_X509_push(p->chain, x)) {
            X509_free(x);
            return ERR_NOMEM;
        }
    }
    if (is_at_end())
        return ERR_OK;
    tls_problem(problems, path, "holds a damaged certificate");
    return ERR_INVALID;
}

static bool has(struct span text, const char *what) {
    return text.len && memmem(text.at, text.len, what, strlen(what)) != NULL;
}

static int read_key(struct tls_pem *p, BIO *bio, const char *path, struct buf *problems) {
    char *at = NULL;
    long len = BIO_get_mem_data(bio, &at);
    struct span text = span_make(at, len > 0 ? (size_t)len : 0);
    const char *what = "holds a damaged private key";
    if (!has(text, "PRIVATE KEY-----"))
        what = "holds no private key";
    else if (has(text, "ENCRYPTED"))
        what = "is encrypted; keys with a pass phrase cannot be used";
    p->key = PEM_read_bio_PrivateKey(bio, NULL, no_phrase, NULL);
    if (!p->key) {
        tls_problem(problems, path, what);
        return ERR_INVALID;
    }
    if (p->marks[1].mode & S_IROTH)
        tls_problem(problems, path, "warning: the private key is readable by every user");
    return ERR_OK;
}

int64_t tls_pem_not_after(const X509 *x) {
    struct tm tm;
    return ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void warn_of_dates(const X509 *x, const char *path, struct buf *problems) {
    int days, seconds;
    if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
        tls_problem(problems, path, "warning: the certificate has expired");
    else if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(x)) == 1 && days < EXPIRES_SOON_DAYS)
        buf_printf(problems, "%s: warning: the certificate expires in %d days\n", path, days);
    else if (X509_cmp_current_time(X509_get0_notBefore(x)) > 0)
        tls_problem(problems, path, "warning: the certificate is not valid yet");
}

/* Reads the file and lets `parse` have it. */
static int parse_file(struct tls_pem *p, const char *path, struct tls_mark *mark, struct buf *problems,
                      int (*parse)(struct tls_pem *p, BIO *bio, const char *path, struct buf *problems)) {
    struct buf text;
    buf_init(&text, TLS_FILE_MAX);
    int err = tls_file_read(path, &text, mark, problems);
    BIO *bio = err ? NULL : BIO_new_mem_buf(buf_cstr(&text), (int)buf_len(&text));
    ERR_clear_error();
    if (bio)
        err = parse(p, bio, path, problems);
    else if (!err)
        err = ERR_NOMEM;
    BIO_free(bio);
    if (text.mem)
        secret_wipe(text.mem, text.cap);
    buf_deinit(&text);
    ERR_clear_error();
    return err;
}

int tls_pem_init(struct tls_pem *p, const struct tls_pair *pair, struct buf *problems) {
    *p = (struct tls_pem){0};
    int err = parse_file(p, pair->certificate, &p->marks[0], problems, read_chain);
    if (err)
        return err;
    err = parse_file(p, pair->key, &p->marks[1], problems, read_key);
    if (err)
        return err;
    int fits = X509_check_private_key(p->leaf, p->key);
    ERR_clear_error();
    if (fits != 1) {
        buf_printf(problems, "%s: the key does not belong to the certificate in %s\n", pair->key, pair->certificate);
        return ERR_INVALID;
    }
    warn_of_dates(p->leaf, pair->certificate, problems);
    return ERR_OK;
}

void tls_pem_deinit(struct tls_pem *p) {
    X509_free(p->leaf);
    sk_X509_pop_free(p->chain, X509_free);
    EVP_PKEY_free(p->key);
    tls_mark_deinit(&p->marks[0]);
    tls_mark_deinit(&p->marks[1]);
}

/* -- authorities -- */

static int add_authority(X509 *x, X509_STORE *store, STACK_OF(X509_NAME) * names) {
    if (X509_STORE_add_cert(store, x) != 1)
        return ERR_NOMEM;
    X509_NAME *name = names ? X509_NAME_dup(X509_get_subject_name(x)) : NULL;
    if (!names || (name && sk_X509_NAME_push(names, name)))
        return ERR_OK;
    X509_NAME_free(name);
    return ERR_NOMEM;
}

int tls_pem_authorities(struct span text, const char *path, X509_STORE *store, STACK_OF(X509_NAME) * names,
                        struct buf *problems) {
    size_t count = 0;
    int err = ERR_OK;
    X509 *x = NULL;
    ERR_clear_error();
    BIO *bio = BIO_new_mem_buf(text.len ? text.at : "", (int)text.len);
    if (!bio)
        return ERR_NOMEM;
    while (!err && (x = PEM_read_bio_X509_AUX(bio, NULL, no_phrase, NULL))) {
        err = add_authority(x, store, names);
        X509_free(x);
        count++;
    }
    BIO_free(bio);
    if (err)
        return err;
    bool whole = is_at_end();
    if (whole && count)
        return ERR_OK;
    tls_problem(problems, path, whole ? "holds no certificate" : "holds a damaged certificate");
    return ERR_INVALID;
}
