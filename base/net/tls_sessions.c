/*
 * tls_sessions: what servers gave clients to make the next handshake short. A session is kept as its DER octets: an
 * SSL_SESSION holds the whole chain of certificates, which nobody needs again. A key is a digest of all that the
 * connection demanded (tls_wish.c), so that a session that was let pass for one demand never serves another.
 *
 * A ticket of TLS 1.3 is given out once (RFC 8446 appendix C.4), since two uses could be told to be of one client;
 * servers send two, so two are kept. One of TLS 1.2 serves many times. What is older than two hours is forgotten: a
 * certificate that has been withdrawn should not live on in sessions.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/net/tls_in.h"

enum { PER_KEY = 2, DER_MAX = 16384, AGE_MS_MAX = 2 * 3600 * 1000 };

struct session {
    unsigned char *der;
    size_t len;
    uint64_t put_ms;
    bool once;
};
struct keyed {
    struct map_node in_map;
    struct list_node in_use;
    uint8_t key[TLS_SESSION_KEY];
    struct session sessions[PER_KEY]; /* the oldest first */
    unsigned count;
};
struct tls_sessions {
    pthread_mutex_t lock;
    struct map keys;
    struct list used; /* the least recently used first */
    uint32_t keys_max;
};

struct tls_sessions *tls_sessions_new(uint32_t keys_max) {
    struct tls_sessions *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    map_init(&s->keys);
    list_init(&s->used);
    s->keys_max = keys_max;
    return s;
}

static void drop_first(struct keyed *k) {
    free(k->sessions[0].der);
    k->count--;
    memmove(k->sessions, k->sessions + 1, k->count * sizeof *k->sessions);
}

static void drop(struct tls_sessions *s, struct keyed *k) {
    while (k->count)
        drop_first(k);
    map_remove(&s->keys, &k->in_map);
    list_remove(&s->used, &k->in_use);
    free(k);
}

void tls_sessions_free(struct tls_sessions *s) {
    if (!s)
        return;
    while (!list_is_empty(&s->used))
        drop(s, LIST_ENTRY(list_first(&s->used), struct keyed, in_use));
    map_deinit(&s->keys);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static bool matches(const struct map_node *n, const void *key) {
    return memcmp(CONTAINER_OF(n, struct keyed, in_map)->key, key, TLS_SESSION_KEY) == 0;
}

static struct keyed *find(struct tls_sessions *s, const uint8_t *key) {
    struct map_node *n = map_find(&s->keys, hash_bytes(key, TLS_SESSION_KEY, 0), matches, key);
    return n ? CONTAINER_OF(n, struct keyed, in_map) : NULL;
}

static struct keyed *add(struct tls_sessions *s, const uint8_t *key) {
    struct keyed *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    memcpy(k->key, key, TLS_SESSION_KEY);
    if (map_insert(&s->keys, &k->in_map, hash_bytes(key, TLS_SESSION_KEY, 0))) {
        free(k);
        return NULL;
    }
    list_push_back(&s->used, &k->in_use);
    while (s->keys.count > s->keys_max && list_first(&s->used) != &k->in_use)
        drop(s, LIST_ENTRY(list_first(&s->used), struct keyed, in_use));
    return k;
}

static void touch(struct tls_sessions *s, struct keyed *k) {
    list_remove(&s->used, &k->in_use);
    list_push_back(&s->used, &k->in_use);
}

/* The newest one, as octets that are the caller's; NULL: none. */
static unsigned char *newest(struct tls_sessions *s, struct keyed *k, size_t *len) {
    while (k->count && clock_mono_ms() - k->sessions[0].put_ms > AGE_MS_MAX)
        drop_first(k);
    if (k->count == 0) {
        drop(s, k);
        return NULL;
    }
    touch(s, k);
    struct session *last = &k->sessions[k->count - 1];
    unsigned char *der = last->der;
    *len = last->len;
    if (last->once) {
        if (--k->count == 0)
            drop(s, k);
        return der;
    }
    der = malloc(last->len);
    if (der)
        memcpy(der, last->der, last->len);
    return der;
}

SSL_SESSION *tls_sessions_take(struct tls_sessions *s, const uint8_t key[TLS_SESSION_KEY]) {
    size_t len = 0;
    pthread_mutex_lock(&s->lock);
    struct keyed *k = find(s, key);
    unsigned char *der = k ? newest(s, k, &len) : NULL;
    pthread_mutex_unlock(&s->lock);
    const unsigned char *at = der;
    SSL_SESSION *session = der ? d2i_SSL_SESSION(NULL, &at, (long)len) : NULL;
    free(der);
    return session;
}

static void keep(struct tls_sessions *s, const uint8_t *key, const struct session *fresh) {
    struct keyed *k = find(s, key);
    if (k)
        touch(s, k);
    else
        k = add(s, key);
    if (!k) {
        free(fresh->der);
        return;
    }
    while (k->count && (k->count == PER_KEY || !fresh->once || !k->sessions[0].once))
        drop_first(k);
    k->sessions[k->count++] = *fresh;
}

void tls_sessions_put(struct tls_sessions *s, const uint8_t key[TLS_SESSION_KEY], const SSL_SESSION *session) {
    int len = SSL_SESSION_is_resumable(session) ? i2d_SSL_SESSION(session, NULL) : 0;
    if (len <= 0 || len > DER_MAX)
        return;
    struct session fresh = {.der = malloc((size_t)len), .len = (size_t)len, .put_ms = clock_mono_ms()};
    unsigned char *at = fresh.der;
    if (!at)
        return;
    fresh.once = SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION;
    if (i2d_SSL_SESSION(session, &at) != len) {
        free(fresh.der);
        return;
    }
    pthread_mutex_lock(&s->lock);
    keep(s, key, &fresh);
    pthread_mutex_unlock(&s->lock);
}
