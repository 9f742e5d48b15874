/*
 * file: the password file: "account:hash" lines, checked whole when it is read, held in memory with an index, and never
 * changed afterwards; when the file changes, the owner makes a new auth.
 *
 * The text of the file stays as it is; names are folded where they lie, and a slot of the index is a line's place. It
 * gives out hashes and never verifies: that is slow, and is done on threads.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/net/password.h"
#include "base/rand.h"

#include "gateway/auth/backend.h"
#include "gateway/auth/lines.h"
#include "gateway/auth/sasl.h"

enum { SLOTS_MIN = 16 };

struct entry {
    struct span name, hash;
};
struct file {
    struct auth_backend base;
    struct lines lines;
    struct entry *entries; /* index: open addressing, at most half full */
    size_t mask, count;
    struct span *decoys, *verifiers; /* hashes that are not locked; those of them that are for SCRAM */
    size_t decoy_count, verifier_count;
    uint64_t seed; /* of the index, and of which decoy stands for which name */
    const char *realm;
};

static struct entry *slot_of(const struct file *f, struct span name) {
    size_t i = hash_span(name, f->seed) & f->mask;
    while (f->entries[i].name.at && !span_eq(f->entries[i].name, name))
        i = (i + 1) & f->mask;
    return &f->entries[i];
}

static void ask(struct auth_backend *b, struct auth_question *q) {
    const struct file *f = CONTAINER_OF(b, struct file, base);
    CHECK(q->ask == AUTH_ASK_HASH);
    struct span domain, account = span_of(q->account);
    const struct entry *e = slot_of(f, account);
    struct span local = span_cut(account, '@', &domain);
    if (!e->name.at && f->realm && span_eq_nocase(domain, span_of(f->realm)))
        e = slot_of(f, local); /* lines may leave out what the realm adds */
    if (e->name.at)
        span_copy(e->hash, q->hash, sizeof q->hash);
    auth_question_done(q, e->name.at ? AUTH_REPLY_HASH : AUTH_REPLY_UNKNOWN);
}

static void close_file(struct auth_backend *b) {
    struct file *f = CONTAINER_OF(b, struct file, base);
    lines_close(&f->lines);
    free(f->entries);
    free(f->decoys);
    free(f->verifiers);
    free(f);
}

static bool has_verifiers(const struct auth_backend *b) {
    return CONTAINER_OF(b, struct file, base)->verifier_count > 0;
}

static bool is_stale(const struct auth_backend *b) {
    return lines_is_stale(&CONTAINER_OF(b, struct file, base)->lines);
}

/* By chance of the name, but the same for the same name: so that the times of unknown names are spread as the others.
 */
static bool decoy(struct auth_backend *b, struct span account, bool verifier, char to[AUTH_HASH_MAX + 1]) {
    const struct file *f = CONTAINER_OF(b, struct file, base);
    const struct span *from = verifier ? f->verifiers : f->decoys;
    size_t count = verifier ? f->verifier_count : f->decoy_count;
    if (count == 0)
        return false;
    span_copy(from[hash_span(account, f->seed + 1) % count], to, AUTH_HASH_MAX + 1);
    return true;
}

static const struct auth_backend_ops ops = {ask, close_file, has_verifiers, is_stale, decoy, NULL};

static void add(struct file *f, struct span name, struct span hash) {
    char account[AUTH_ACCOUNT_MAX + 1], text[AUTH_HASH_MAX + 1];
    if (sasl_account(name, NULL, account) != ERR_OK) {
        lines_problem(&f->lines, "not a name of an account", name);
        return;
    }
    if (hash.len > AUTH_HASH_MAX || span_find(hash, '\0') >= 0) {
        lines_problem(&f->lines, "the hash is too long or has a NUL", SPAN_EMPTY);
        return;
    }
    span_copy(hash, text, sizeof text);
    enum password_kind kind = password_kind(text);
    if (kind == PASSWORD_BAD)
        lines_problem(&f->lines, "not a hash that can be used ($2b$, $y$, $6$, $argon2id$, SCRAM-SHA-256$)",
                      SPAN_EMPTY);
    memcpy(f->lines.text + (name.at - f->lines.text), account, name.len); /* folded: the same length */
    struct entry *e = slot_of(f, name);
    if (e->name.at) {
        lines_problem(&f->lines, "this account has a line already", name);
        return;
    }
    *e = (struct entry){name, hash};
    f->count++;
    if (kind == PASSWORD_SCRAM)
        f->verifiers[f->verifier_count++] = hash;
    if (kind != PASSWORD_LOCKED && kind != PASSWORD_BAD)
        f->decoys[f->decoy_count++] = hash;
}

static int load(struct file *f) {
    size_t lines = 1, slots = SLOTS_MIN;
    struct span name, hash;
    for (size_t i = 0; i < f->lines.len; i++)
        lines += f->lines.text[i] == '\n';
    while (slots < lines * 2)
        slots *= 2;
    f->entries = calloc(slots, sizeof *f->entries);
    f->decoys = calloc(lines, sizeof *f->decoys);
    f->verifiers = calloc(lines, sizeof *f->verifiers);
    if (!f->entries || !f->decoys || !f->verifiers)
        return ERR_NOMEM;
    f->mask = slots - 1;
    while (lines_next(&f->lines, &name, &hash))
        add(f, name, hash);
    return f->lines.problem_count ? ERR_INVALID : ERR_OK;
}

int auth_file_new(struct auth_backend **b, const struct auth_backend_config *c, const char *realm,
                  struct buf *problems) {
    if (!c->file) {
        buf_printf(problems, "auth %s: needs a file\n", c->name);
        return ERR_INVALID;
    }
    struct file *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NOMEM;
    f->base = (struct auth_backend){.ops = &ops, .gives_hashes = true};
    f->realm = realm;
    rand_secure(&f->seed, sizeof f->seed);
    int err = lines_open(&f->lines, c->file, true, problems);
    err = err ? err : load(f);
    f->lines.problems = NULL; /* the caller's, and only for now */
    if (err)
        close_file(&f->base);
    else
        *b = &f->base;
    return err;
}
