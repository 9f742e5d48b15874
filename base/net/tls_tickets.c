/*
 * tls_tickets: the keys that seal session tickets. They live apart from contexts, so that a reload of certificates does
 * not end the sessions that clients may resume, and are used by all threads.
 *
 * Without a file they are random and turn: a new one seals each period, and the two before it still open. With a file
 * the operator turns them: all gateways read the same file, its first line seals, and all of its lines open. A new key
 * is thus first added as the last line everywhere, and moved to the front afterwards.
 */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base64.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/net/secret.h"
#include "base/net/tls_in.h"
#include "base/rand.h"

enum { KEYS_MAX = 16, KEYS_OF_MEMORY = 3, NAME_LEN = 16, AES_LEN = 32, MAC_LEN = 32, KEY_LEN = 80 };

struct ticket_key {
    uint8_t name[NAME_LEN], aes[AES_LEN], mac[MAC_LEN];
};
_Static_assert(sizeof(struct ticket_key) == KEY_LEN, "read from the file as it is");

struct tls_tickets {
    atomic_uint refs;
    pthread_mutex_t lock;
    struct ticket_key keys[KEYS_MAX]; /* the first one seals */
    size_t count;
    uint64_t rotate_ms, made_ms; /* in memory */
    struct tls_mark mark;        /* of the file; path NULL: in memory */
};

/* -- from a file -- */

static int take_line(struct span line, struct ticket_key *to) {
    struct buf key;
    buf_init(&key, KEY_LEN);
    int err = base64_decode(line, &key);
    if (!err && buf_len(&key) != KEY_LEN)
        err = ERR_INVALID;
    if (!err)
        memcpy(to, buf_span(&key).at, KEY_LEN);
    if (key.mem)
        secret_wipe(key.mem, key.cap);
    buf_deinit(&key);
    return err == ERR_FULL ? ERR_INVALID : err;
}

static bool is_known(const struct tls_tickets *t, const uint8_t name[NAME_LEN]) {
    for (size_t i = 0; i < t->count; i++) {
        if (memcmp(t->keys[i].name, name, NAME_LEN) == 0)
            return true;
    }
    return false;
}

static int parse_keys(struct tls_tickets *t, struct span text, const char *path, struct buf *problems) {
    for (unsigned number = 1; text.len; number++) {
        struct span line = span_trim(span_cut(text, '\n', &text));
        struct ticket_key key;
        if (line.len && line.at[line.len - 1] == '\r')
            line.len--;
        if (line.len == 0 || line.at[0] == '#')
            continue;
        int err = take_line(line, &key);
        const char *what = err ? "is not the base64 of 80 octets" : NULL;
        if (!what && t->count == KEYS_MAX)
            what = "too many keys (at most 16)";
        if (!what && is_known(t, key.name))
            what = "a key of this name stands before";
        if (what) {
            buf_printf(problems, "%s:%u: %s\n", path, number, what);
            return err == ERR_NOMEM ? err : ERR_INVALID;
        }
        t->keys[t->count++] = key;
        secret_wipe(&key, sizeof key);
    }
    if (t->count == 0) {
        tls_problem(problems, path, "holds no key");
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* Fills a fresh struct; deinit also after a failure. */
static int read_keys(struct tls_tickets *fresh, const char *path, struct buf *problems) {
    struct buf text;
    buf_init(&text, TLS_FILE_MAX);
    int err = tls_file_read(path, &text, &fresh->mark, problems);
    if (!err && fresh->mark.mode & 0777 & ~0640u) {
        tls_problem(problems, path, "must have mode 0600 or 0640: whoever reads it can open old sessions");
        err = ERR_DENIED;
    }
    if (!err)
        err = parse_keys(fresh, buf_span(&text), path, problems);
    if (text.mem)
        secret_wipe(text.mem, text.cap);
    buf_deinit(&text);
    return err;
}

int tls_tickets_reload(struct tls_tickets *t, struct buf *problems) {
    struct tls_tickets fresh = {0};
    if (!t->mark.path)
        return ERR_OK;
    pthread_mutex_lock(&t->lock);
    struct tls_mark known = t->mark; /* path never changes */
    pthread_mutex_unlock(&t->lock);
    if (!tls_mark_is_stale(&known))
        return ERR_OK;
    int err = read_keys(&fresh, known.path, problems);
    if (!err) {
        pthread_mutex_lock(&t->lock);
        memcpy(t->keys, fresh.keys, sizeof t->keys);
        t->count = fresh.count;
        char *path = t->mark.path;
        char *copy = fresh.mark.path;
        t->mark = fresh.mark;
        t->mark.path = path;
        fresh.mark.path = copy;
        pthread_mutex_unlock(&t->lock);
    }
    secret_wipe(fresh.keys, sizeof fresh.keys);
    tls_mark_deinit(&fresh.mark);
    return err;
}

/* -- in memory -- */

static void turn_keys(struct tls_tickets *t, uint64_t now_ms) {
    if (t->mark.path)
        return;
    uint64_t periods = t->count ? (now_ms - t->made_ms) / t->rotate_ms : 1;
    if (periods == 0)
        return;
    size_t kept = periods < KEYS_OF_MEMORY ? KEYS_OF_MEMORY - (size_t)periods : 0;
    if (kept > t->count)
        kept = t->count;
    memmove(t->keys + 1, t->keys, kept * sizeof *t->keys);
    rand_secure(&t->keys[0], sizeof *t->keys);
    t->count = kept + 1;
    t->made_ms = t->count > 1 ? t->made_ms + periods * t->rotate_ms : now_ms;
    secret_wipe(t->keys + t->count, (KEYS_MAX - t->count) * sizeof *t->keys);
}

int tls_tickets_new(struct tls_tickets **to, const char *file, uint64_t rotate_ms, struct buf *problems) {
    struct tls_tickets *t = calloc(1, sizeof *t);
    int err = ERR_OK;
    *to = NULL;
    if (!t)
        return ERR_NOMEM;
    CHECK(file || rotate_ms > 0);
    atomic_init(&t->refs, 1);
    CHECK(pthread_mutex_init(&t->lock, NULL) == 0);
    t->rotate_ms = rotate_ms;
    if (file)
        err = read_keys(t, file, problems);
    else
        turn_keys(t, clock_mono_ms());
    if (err) {
        tls_tickets_unref(t);
        return err;
    }
    *to = t;
    return ERR_OK;
}

bool tls_tickets_is(const struct tls_tickets *t, const char *file, uint64_t rotate_ms) {
    if (file)
        return t->mark.path && strcmp(t->mark.path, file) == 0;
    return !t->mark.path && t->rotate_ms == rotate_ms;
}

struct tls_tickets *tls_tickets_ref(struct tls_tickets *t) {
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void tls_tickets_unref(struct tls_tickets *t) {
    if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&t->lock);
    tls_mark_deinit(&t->mark);
    secret_wipe(t, sizeof *t);
    free(t);
}

/* -- use -- */

/* The key that seals, or the one of this name. -1: none; else its place. */
static int find_key(struct tls_tickets *t, const uint8_t *name, struct ticket_key *to) {
    int at = name ? -1 : 0;
    pthread_mutex_lock(&t->lock);
    turn_keys(t, clock_mono_ms());
    for (size_t i = 0; i < t->count && at < 0; i++) {
        if (memcmp(t->keys[i].name, name, NAME_LEN) == 0)
            at = (int)i;
    }
    if (at >= 0)
        *to = t->keys[at];
    pthread_mutex_unlock(&t->lock);
    return at;
}

static bool set_keys(struct ticket_key *key, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int sealing) {
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, MAC_LEN),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) == 1 &&
           EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->aes, iv, sealing) == 1;
}

int tls_tickets_on_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                       int sealing) {
    const struct tls_server *server = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct ticket_key key;
    int at = find_key(server->tickets, sealing ? NULL : name, &key);
    if (at < 0)
        return 0; /* an unknown ticket: a full handshake */
    if (sealing) {
        memcpy(name, key.name, NAME_LEN);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
            at = -1;
    }
    if (at >= 0 && !set_keys(&key, iv, cipher, mac, sealing))
        at = -1;
    secret_wipe(&key, sizeof key);
    if (at < 0)
        return -1;
    /* 2: it counts, and the client gets a new one. With TLS 1.3 it always does: clients use a ticket once (RFC 8446
     * appendix C.4), and would have none for the session after the next. */
    return !sealing && (at > 0 || SSL_version(ssl) >= TLS1_3_VERSION) ? 2 : 1;
}
