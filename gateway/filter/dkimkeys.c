/*
 * dkimkeys: signing keys and signatures (see dkimauth.h). Keys are read once, when the settings are; each is tried on a
 * small message, which also tells its length, by the length of the signature that comes out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <opendkim/dkim.h>

#include "base/net/secret.h"

#include "gateway/filter/dkimauth.h"

#define KEY_FILE_MAX 16384
#define RSA_2048_BASE64 344                 /* characters of a signature */
#define ED25519_DER "MC4CAQAwBQYDK2VwBCIEI" /* how each such key begins (RFC 8410), in base64 */

struct key {
    char *domain, *selector, *path;
    char *pem;
    struct stat file;
};
struct dkimkeys {
    DKIM_LIB *lib;
    size_t count;
    struct key keys[];
};

/* RFC 6376 section 5.4.1, and what decides how the body is shown. */
static const char *const signed_fields[] = {"from",
                                            "reply-to",
                                            "subject",
                                            "date",
                                            "to",
                                            "cc",
                                            "sender",
                                            "message-id",
                                            "in-reply-to",
                                            "references",
                                            "resent-date",
                                            "resent-from",
                                            "resent-to",
                                            "resent-cc",
                                            "resent-message-id",
                                            "list-id",
                                            "list-help",
                                            "list-unsubscribe",
                                            "list-post",
                                            "list-unsubscribe-post",
                                            "list-subscribe",
                                            "list-owner",
                                            "list-archive",
                                            "mime-version",
                                            "content-type",
                                            "content-transfer-encoding",
                                            NULL};
static const char *const oversigned_fields[] = {"from", NULL};

static bool set_options(DKIM_LIB *lib) {
    return dkim_options(lib, DKIM_OP_SETOPT, DKIM_OPTS_SIGNHDRS, (void *)(uintptr_t)signed_fields,
                        sizeof(unsigned char **)) == DKIM_STAT_OK &&
           dkim_options(lib, DKIM_OP_SETOPT, DKIM_OPTS_OVERSIGNHDRS, (void *)(uintptr_t)oversigned_fields,
                        sizeof(unsigned char **)) == DKIM_STAT_OK;
}

/* -- signing -- */
static int feed(DKIM *dkim, struct held *h) {
    struct buf line;
    int err = ERR_OK;
    buf_init(&line, HELD_HEADER_MAX + 2);
    for (size_t n = 0; n < held_count(h) && !err; n++) {
        struct span name, value;
        held_field(h, n, &name, &value);
        buf_clear(&line);
        buf_add(&line, name);
        buf_add_byte(&line, ':');
        buf_add(&line, value);
        err = line.err;
        if (!err && dkim_header(dkim, (u_char *)line.mem + line.start, buf_len(&line)) != DKIM_STAT_OK)
            err = ERR_INVALID;
    }
    buf_deinit(&line);
    if (!err && dkim_eoh(dkim) != DKIM_STAT_OK)
        err = ERR_INVALID;
    return err;
}

static int feed_body(DKIM *dkim, struct held *h) {
    char *piece = malloc(DKIMAUTH_BODY_PIECE), last = '\n';
    u_char end[] = "\r\n";
    int err = piece ? ERR_OK : ERR_NOMEM;
    for (uint64_t at = 0; !err && at < held_body_size(h);) {
        ptrdiff_t n = held_body_read(h, at, piece, DKIMAUTH_BODY_PIECE);
        if (n <= 0) {
            err = ERR_IO;
            break;
        }
        if (dkim_body(dkim, (u_char *)piece, (size_t)n) != DKIM_STAT_OK)
            err = ERR_INVALID;
        last = piece[n - 1];
        at += (size_t)n;
    }
    if (!err && last != '\n' && dkim_body(dkim, end, 2) != DKIM_STAT_OK) /* the library wants whole lines */
        err = ERR_INVALID;
    free(piece);
    return err;
}

static int finish(DKIM *dkim, struct buf *value) {
    u_char *text = NULL;
    size_t len = 0;
    if (dkim_eom(dkim, NULL) != DKIM_STAT_OK ||
        dkim_getsighdr_d(dkim, sizeof(DKIM_SIGNHEADER) + 1, &text, &len) != DKIM_STAT_OK)
        return ERR_INVALID;
    buf_add_byte(value, ' ');
    return buf_append(value, text, len);
}

static DKIM *begin(DKIM_LIB *lib, const struct key *k) {
    DKIM_STAT stat;
    return dkim_sign(lib, (const u_char *)"posthouse", NULL, (dkim_sigkey_t)k->pem, (const u_char *)k->selector,
                     (const u_char *)k->domain, DKIM_CANON_RELAXED, DKIM_CANON_RELAXED, DKIM_SIGN_RSASHA256, -1, &stat);
}

int dkimkeys_sign(struct dkimkeys *keys, size_t n, struct held *h, struct buf *value) {
    DKIM *dkim = begin(keys->lib, &keys->keys[n]);
    if (!dkim)
        return ERR_NOMEM;
    int err = held_count(h) > DKIMAUTH_FIELDS_MAX ? ERR_INVALID : feed(dkim, h);
    if (!err)
        err = feed_body(dkim, h);
    if (!err)
        err = finish(dkim, value);
    dkim_free(dkim);
    return err;
}

/* -- reading -- */
/* Characters of b= of a trial, 0: no signature. */
static size_t try_key(DKIM_LIB *lib, const struct key *k) {
    struct buf value;
    size_t len = 0;
    char from[] = "From: a@example.org", body[] = "x\r\n";
    DKIM *dkim = begin(lib, k);
    buf_init(&value, AUTHRES_MAX);
    if (dkim && dkim_header(dkim, (u_char *)from, sizeof from - 1) == DKIM_STAT_OK && dkim_eoh(dkim) == DKIM_STAT_OK &&
        dkim_body(dkim, (u_char *)body, sizeof body - 1) == DKIM_STAT_OK && finish(dkim, &value) == ERR_OK) {
        const char *b = strrchr(buf_cstr(&value), ';');
        b = b ? strstr(b, "b=") : NULL;
        for (b = b ? b + 2 : ""; *b; b++)
            len += *b > ' ';
    }
    buf_deinit(&value);
    if (dkim)
        dkim_free(dkim);
    return len;
}

/* RSA only: the Debian libopendkim leaks half a kilobyte with every Ed25519 signature that it makes (not with those it
 * verifies), and a little for a key that it cannot load. */
static const char *try_it(DKIM_LIB *lib, const struct key *k) {
    static const char wrong[] = "not an RSA private key in PEM form";
    if (strncmp(k->pem, "-----BEGIN ", 11) || !strstr(k->pem, "PRIVATE KEY-----") || strstr(k->pem, "ENCRYPTED"))
        return wrong;
    if (strstr(k->pem, ED25519_DER))
        return "Ed25519 keys cannot sign here, RSA keys can";
    size_t len = try_key(lib, k);
    if (!len)
        return wrong;
    return len < RSA_2048_BASE64 ? "an RSA key needs 2048 bits at least" : NULL;
}

static const char *read_file(struct key *k) {
    int fd = open(k->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return strerror(errno);
    const char *why = NULL;
    if (fstat(fd, &k->file))
        why = strerror(errno);
    else if (!S_ISREG(k->file.st_mode))
        why = "not a file";
    else if (k->file.st_mode & S_IRWXO)
        why = "others may read it (chmod o-rwx)";
    else if (k->file.st_size > KEY_FILE_MAX || !(k->pem = calloc(1, KEY_FILE_MAX + 1)))
        why = "too long";
    ssize_t n = why ? 0 : read(fd, k->pem, KEY_FILE_MAX);
    if (n < 0)
        why = strerror(errno);
    close(fd);
    return why;
}

static bool is_name(const char *s) {
    size_t len = strlen(s);
    return len > 0 && len <= 253 &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == len && s[0] != '.' &&
           s[len - 1] != '.';
}

static const char *load(DKIM_LIB *lib, struct key *k, const struct mailauth_key *from) {
    k->domain = strdup(from->domain);
    k->selector = strdup(from->selector);
    k->path = strdup(from->key);
    if (!k->domain || !k->selector || !k->path)
        return "no memory";
    if (!is_name(k->domain) || !is_name(k->selector))
        return "domain and selector must be domain names";
    const char *why = read_file(k);
    return why ? why : try_it(lib, k);
}

int dkimkeys_new(struct dkimkeys **out, const struct mailauth_key *from, size_t count, struct buf *problems) {
    struct dkimkeys *k = calloc(1, sizeof *k + count * sizeof *k->keys);
    if (!k)
        return ERR_NOMEM;
    k->lib = dkim_init(NULL, NULL);
    int err = k->lib && set_options(k->lib) ? ERR_OK : ERR_NOMEM;
    for (size_t i = 0; err != ERR_NOMEM && i < count; i++) {
        k->count++;
        const char *why = load(k->lib, &k->keys[i], &from[i]);
        if (why) {
            buf_printf(problems, "DKIM key %s of %s: %s\n", from[i].key, from[i].domain, why);
            err = ERR_INVALID;
        }
    }
    if (err)
        dkimkeys_free(k);
    else
        *out = k;
    return err;
}

void dkimkeys_free(struct dkimkeys *k) {
    if (!k)
        return;
    for (size_t i = 0; i < k->count; i++) {
        if (k->keys[i].pem)
            secret_wipe(k->keys[i].pem, KEY_FILE_MAX);
        free(k->keys[i].pem);
        free(k->keys[i].domain);
        free(k->keys[i].selector);
        free(k->keys[i].path);
    }
    if (k->lib)
        dkim_close(k->lib);
    free(k);
}

bool dkimkeys_is_stale(const struct dkimkeys *k) {
    for (size_t i = 0; i < k->count; i++) {
        struct stat now;
        const struct stat *then = &k->keys[i].file;
        if (stat(k->keys[i].path, &now) || now.st_ino != then->st_ino || now.st_size != then->st_size ||
            now.st_mtim.tv_sec != then->st_mtim.tv_sec || now.st_mtim.tv_nsec != then->st_mtim.tv_nsec)
            return true;
    }
    return false;
}

ptrdiff_t dkimkeys_find(const struct dkimkeys *k, struct span domain) {
    ptrdiff_t best = -1;
    size_t best_len = 0;
    for (size_t i = 0; i < k->count; i++) {
        struct span mine = span_of(k->keys[i].domain);
        if (mine.len > domain.len || !span_ends_nocase(domain, mine) || mine.len <= best_len)
            continue;
        if (mine.len == domain.len || domain.at[domain.len - mine.len - 1] == '.') {
            best = (ptrdiff_t)i;
            best_len = mine.len;
        }
    }
    return best;
}
