/*
 * key: keys on the operator's side: `key new` makes one, and a call to tcp:// is made with it. The daemon lets in whom
 * it knows, and the tool speaks to the daemon whose key it was given and to no other.
 */
#include <string.h>
#include <sysexits.h>

#include "admin/tool/tool.h"
#include "base/net/bus_keys.h"

int tool_key_new(struct tool *t, const char *file) {
    struct bus_key k;
    if (bus_key_new(&k) != ERR_OK) {
        fputs("posthouse: this build cannot make keys (ZeroMQ without CURVE)\n", stderr);
        return EX_SOFTWARE;
    }
    int err = bus_key_write(file, &k);
    if (err == ERR_OK && t->json)
        printf("{\"public\": \"%s\"}\n", k.public_key); /* Z85 has nothing that JSON would escape */
    else if (err == ERR_OK)
        printf("%s\n", k.public_key);
    bus_key_wipe(&k);
    if (err == ERR_OK)
        return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
    fprintf(stderr, "posthouse: ");
    print_span(stderr, span_of(file));
    fprintf(stderr, ": %s\n", err == ERR_EXISTS ? "there is a file already; it stays as it is" : err_text(err));
    return err == ERR_EXISTS || err == ERR_DENIED || err == ERR_NOT_FOUND ? EX_CANTCREAT : EX_IOERR;
}

static int complain_of_file(const char *file, int err) {
    fputs("posthouse: ", stderr);
    print_span(stderr, span_of(file));
    switch (err) {
    case ERR_DENIED:
        fputs(": the key cannot be read, or others can read it (chmod 600)\n", stderr);
        return EX_NOPERM;
    case ERR_INVALID:
        fputs(": not a key file (see: posthouse key new)\n", stderr);
        return EX_CONFIG;
    case ERR_NOT_FOUND:
        fputs(": no such file\n", stderr);
        return EX_NOINPUT;
    default:
        fprintf(stderr, ": %s\n", err_text(err));
        return EX_IOERR;
    }
}

/* Both keys of a call over tcp. */
static int read_keys(const struct tool *t, struct bus_key *ours, char server[BUS_KEY_LEN + 1]) {
    if (!t->key || !t->server_key) {
        fputs("posthouse: tcp:// needs --key FILE and --server-key KEY (see: posthouse key new)\n", stderr);
        return EX_USAGE;
    }
    int err = bus_key_read(t->key, ours);
    if (err != ERR_OK)
        return complain_of_file(t->key, err);
    if (bus_key_is_good(span_of(t->server_key))) {
        span_copy(span_of(t->server_key), server, BUS_KEY_LEN + 1);
        return EX_OK;
    }
    err = bus_key_read_public(t->server_key, server);
    return err == ERR_OK ? EX_OK : complain_of_file(t->server_key, err);
}

static int complain_of_call(const struct tool *t, bool tcp, int err) {
    fputs("posthouse: no answer from ", stderr);
    print_span(stderr, span_of(t->server));
    if (tcp && err == ERR_DENIED) {
        fputs(": it refused the handshake (is our public key in its admin.keys, and --server-key its own?)\n", stderr);
        return EX_NOPERM;
    }
    if (tcp && err == ERR_TIMEOUT)
        fputs(": it took too long, or our key was removed\n", stderr);
    else
        fprintf(stderr, ": %s (is posthoused running, and is this its admin.rpc?)\n", err_text(err));
    return EX_UNAVAILABLE;
}

int tool_call(struct tool *t, struct span header, struct span meta, uint64_t timeout_ms, bus_more_cb more, void *arg) {
    bool tcp = strncmp(t->server, "tcp://", 6) == 0;
    char server[BUS_KEY_LEN + 1];
    struct bus_key ours;
    struct bus_login login = {&ours, server};
    int status = tcp ? read_keys(t, &ours, server) : EX_OK;
    if (status == EX_OK) {
        int err = bus_call_curve(t->server, tcp ? &login : NULL, FRAME_PART_MAX, header, meta, timeout_ms, more, arg);
        status = err == ERR_OK ? EX_OK : complain_of_call(t, tcp, err);
    }
    bus_key_wipe(&ours);
    return status;
}
