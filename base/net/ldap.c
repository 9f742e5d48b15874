/*
 * ldap: see ldap.h. Every operation is sent asynchronously and its result awaited against one deadline, because the
 * synchronous calls of libldap wait without end in places. Results are taken message by message, so that a search holds
 * one entry in memory and not all of them.
 *
 * Referrals are not followed: they would lead to servers that nobody named, with our password. Names are resolved by
 * the system's resolver, which has time-outs of its own.
 */
#include "base/net/ldap.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <lber.h>
#include <ldap.h>

#include "base/clock.h"

enum { ENTRIES_MAX = 1000, PDU_MAX = 16 * 1024 * 1024, TLS_1_2 = 0x303 };

struct ldap_link {
    LDAP *ld;
    uint64_t timeout_ms;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The library's own settings are read by its first call, which must not happen on two threads. */
static void read_defaults(void) {
    LDAPAPIInfo info = {.ldapai_info_version = LDAP_API_INFO_VERSION};
    if (ldap_get_option(NULL, LDAP_OPT_API_INFO, &info) == LDAP_OPT_SUCCESS) {
        ldap_memfree(info.ldapai_vendor_name);
        ber_memvfree((void **)info.ldapai_extensions);
    }
}

static struct timeval timeval_of(uint64_t ms) {
    if (ms == 0)
        ms = 1; /* zero means "only look" */
    return (struct timeval){.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

/* -- saying -- */

static int fail(struct buf *why, int err, const char *what, const char *detail) {
    if (!why)
        return err;
    buf_add_str(why, what);
    if (detail && *detail) {
        buf_add_str(why, ": ");
        buf_add_escaped(why, span_trim(span_of(detail)));
    }
    return err;
}

static int fail_code(struct ldap_link *l, struct buf *why, int err, int code) {
    char *diagnostic = NULL;
    (void)ldap_get_option(l->ld, LDAP_OPT_DIAGNOSTIC_MESSAGE, &diagnostic);
    fail(why, err, ldap_err2string(code), diagnostic);
    ldap_memfree(diagnostic);
    return err;
}

static bool has_diagnostic(struct ldap_link *l) {
    char *diagnostic = NULL;
    (void)ldap_get_option(l->ld, LDAP_OPT_DIAGNOSTIC_MESSAGE, &diagnostic);
    bool has = diagnostic && *diagnostic;
    ldap_memfree(diagnostic);
    return has;
}

/* Of what the library itself says: the link is lost, or our question is bad. */
static int err_of_api(int code) {
    switch (code) {
    case LDAP_SERVER_DOWN:
    case LDAP_CONNECT_ERROR:
    case LDAP_LOCAL_ERROR:
    case LDAP_DECODING_ERROR:
        return ERR_CLOSED;
    case LDAP_TIMEOUT:
        return ERR_TIMEOUT;
    case LDAP_NO_MEMORY:
        return ERR_NOMEM;
    default:
        return ERR_INVALID;
    }
}

static int err_of_bind(int code) {
    switch (code) {
    case LDAP_SUCCESS:
        return ERR_OK;
    case LDAP_INVALID_CREDENTIALS:
    case LDAP_INAPPROPRIATE_AUTH:
    case LDAP_NO_SUCH_OBJECT:
    case LDAP_INVALID_DN_SYNTAX:
    case LDAP_CONSTRAINT_VIOLATION:
    case LDAP_INSUFFICIENT_ACCESS:
        return ERR_DENIED;
    default:
        return ERR_IO;
    }
}

static int err_of_search(int code) {
    switch (code) {
    case LDAP_SUCCESS:
        return ERR_OK;
    case LDAP_SIZELIMIT_EXCEEDED:
    case LDAP_ADMINLIMIT_EXCEEDED:
        return ERR_FULL;
    case LDAP_TIMELIMIT_EXCEEDED:
        return ERR_TIMEOUT;
    case LDAP_INSUFFICIENT_ACCESS:
    case LDAP_STRONG_AUTH_REQUIRED:
    case LDAP_CONFIDENTIALITY_REQUIRED:
        return ERR_DENIED;
    case LDAP_BUSY:
    case LDAP_UNAVAILABLE:
    case LDAP_UNWILLING_TO_PERFORM:
    case LDAP_OTHER:
    case LDAP_OPERATIONS_ERROR:
        return ERR_IO;
    default: /* no such base, bad filter, a referral: the settings are wrong, the link is good */
        return ERR_INVALID;
    }
}

/* -- opening -- */

/* The next message of an operation. On ERR_OK *m is the caller's. */
static int await(struct ldap_link *l, int id, int all, uint64_t deadline, LDAPMessage **m, struct buf *why) {
    uint64_t now = clock_mono_ms();
    struct timeval left = timeval_of(deadline > now ? deadline - now : 0);
    *m = NULL;
    int type = deadline > now ? ldap_result(l->ld, id, all, &left, m) : 0;
    if (type > 0)
        return ERR_OK;
    if (*m)
        ldap_msgfree(*m);
    *m = NULL;
    if (type == 0)
        return fail(why, ERR_TIMEOUT, "no answer in time", NULL);
    int code = LDAP_SERVER_DOWN;
    (void)ldap_get_option(l->ld, LDAP_OPT_RESULT_CODE, &code);
    if (code == LDAP_SUCCESS)
        code = LDAP_SERVER_DOWN;
    return fail_code(l, why, code == LDAP_TIMEOUT ? ERR_TIMEOUT : ERR_CLOSED, code);
}

/* The result code of a final message, which is freed; why gets the server's words when it is not success. */
static int take_result(struct ldap_link *l, LDAPMessage *m, struct buf *why) {
    int code = LDAP_OTHER;
    char *text = NULL;
    int api = ldap_parse_result(l->ld, m, &code, NULL, &text, NULL, NULL, 1);
    if (api != LDAP_SUCCESS)
        code = api;
    if (code != LDAP_SUCCESS)
        fail(why, ERR_IO, ldap_err2string(code), text);
    ldap_memfree(text);
    return code;
}

static int start_tls(struct ldap_link *l, struct buf *why) {
    uint64_t deadline = clock_mono_ms() + l->timeout_ms;
    LDAPMessage *m;
    int id, code = ldap_start_tls(l->ld, NULL, NULL, &id);
    if (code != LDAP_SUCCESS)
        return fail_code(l, why, ERR_UNREACHABLE, code);
    int err = await(l, id, LDAP_MSG_ALL, deadline, &m, why);
    if (err)
        return err == ERR_CLOSED ? ERR_UNREACHABLE : err;
    if (take_result(l, m, why) != LDAP_SUCCESS)
        return ERR_DENIED;
    code = ldap_install_tls(l->ld);
    if (code == LDAP_SUCCESS)
        return ERR_OK;
    if (why) /* what the library says is often "unknown error" */
        buf_add_str(why, "TLS failed, perhaps for the certificate or the name in it: ");
    return fail_code(l, why, code == LDAP_TIMEOUT ? ERR_TIMEOUT : ERR_DENIED, code);
}

static bool set_options(LDAP *ld, const struct ldap_config *c) {
    const int version = LDAP_VERSION3, demand = LDAP_OPT_X_TLS_DEMAND, oldest = TLS_1_2, client = 0;
    const struct timeval timeout = timeval_of(c->timeout_ms);
    if (ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_RESTART, LDAP_OPT_ON) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_NETWORK_TIMEOUT, &timeout) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_TIMEOUT, &timeout) != LDAP_OPT_SUCCESS)
        return false;
    if (!c->starttls && strncmp(c->uri, "ldaps:", 6) != 0)
        return true;
    return (!c->ca_file || ldap_set_option(ld, LDAP_OPT_X_TLS_CACERTFILE, c->ca_file) == LDAP_OPT_SUCCESS) &&
           ldap_set_option(ld, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand) == LDAP_OPT_SUCCESS &&
           ldap_set_option(ld, LDAP_OPT_X_TLS_PROTOCOL_MIN, &oldest) == LDAP_OPT_SUCCESS &&
           ldap_set_option(ld, LDAP_OPT_X_TLS_NEWCTX, &client) == LDAP_OPT_SUCCESS;
}

static int connect_link(struct ldap_link *l, const struct ldap_config *c, struct buf *why) {
    int code = ldap_connect(l->ld);
    if (code == LDAP_TIMEOUT)
        return fail_code(l, why, ERR_TIMEOUT, code);
    if (code != LDAP_SUCCESS) /* only a failed handshake leaves words of its own */
        return fail_code(l, why, strncmp(c->uri, "ldaps:", 6) == 0 && has_diagnostic(l) ? ERR_DENIED : ERR_UNREACHABLE,
                         code);
    Sockbuf *sb = NULL;
    ber_len_t max = PDU_MAX;
    if (ldap_get_option(l->ld, LDAP_OPT_SOCKBUF, &sb) == LDAP_OPT_SUCCESS && sb)
        (void)ber_sockbuf_ctrl(sb, LBER_SB_OPT_SET_MAX_INCOMING, &max);
    return c->starttls ? start_tls(l, why) : ERR_OK;
}

int ldap_link_open(struct ldap_link **out, const struct ldap_config *c, struct buf *why) {
    *out = NULL;
    if (c->starttls && strncmp(c->uri, "ldap:", 5) != 0)
        return fail(why, ERR_INVALID, "STARTTLS is for ldap:// only", NULL);
    pthread_once(&once, read_defaults);
    struct ldap_link *l = calloc(1, sizeof *l);
    if (!l)
        return fail(why, ERR_NOMEM, "no memory", NULL);
    l->timeout_ms = c->timeout_ms;
    int code = ldap_initialize(&l->ld, c->uri), err;
    if (code != LDAP_SUCCESS) {
        l->ld = NULL;
        err = fail(why, code == LDAP_NO_MEMORY ? ERR_NOMEM : ERR_INVALID, "not an LDAP address", NULL);
    } else if (!set_options(l->ld, c)) {
        err = fail(why, ERR_INVALID, "TLS cannot be set up", c->ca_file);
    } else {
        err = connect_link(l, c, why);
    }
    if (err) {
        ldap_link_close(l);
        return err;
    }
    *out = l;
    return ERR_OK;
}

void ldap_link_close(struct ldap_link *l) {
    if (!l)
        return;
    if (l->ld)
        (void)ldap_unbind_ext(l->ld, NULL, NULL);
    free(l);
}

void ldap_link_set_timeout(struct ldap_link *l, uint64_t timeout_ms) {
    l->timeout_ms = timeout_ms;
}

/* -- asking -- */

int ldap_link_bind(struct ldap_link *l, const char *dn, struct span password, struct buf *why) {
    struct berval secret = {.bv_len = password.len, .bv_val = (char *)(password.at ? password.at : "")};
    uint64_t deadline = clock_mono_ms() + l->timeout_ms;
    LDAPMessage *m;
    int id;
    if (dn && *dn && password.len == 0)
        return fail(why, ERR_DENIED, "an empty password", NULL);
    int code = ldap_sasl_bind(l->ld, dn ? dn : "", LDAP_SASL_SIMPLE, &secret, NULL, NULL, &id);
    if (code != LDAP_SUCCESS) {
        int err = err_of_api(code);
        return fail_code(l, why, err == ERR_INVALID ? ERR_IO : err, code);
    }
    int err = await(l, id, LDAP_MSG_ALL, deadline, &m, why);
    return err ? err : err_of_bind(take_result(l, m, why));
}

struct search {
    struct ldap_link *l;
    ldap_value_cb cb;
    void *arg;
    size_t entries;
};

static int take_entry(struct search *s, LDAPMessage *m) {
    LDAP *ld = s->l->ld;
    BerElement *position = NULL;
    char *dn = ldap_get_dn(ld, m);
    if (!dn)
        return ERR_CORRUPT;
    s->cb(s->arg, NULL, span_of(dn));
    ldap_memfree(dn);
    for (char *name = ldap_first_attribute(ld, m, &position); name; name = ldap_next_attribute(ld, m, position)) {
        struct berval **values = ldap_get_values_len(ld, m, name);
        for (size_t i = 0; values && values[i]; i++)
            s->cb(s->arg, name, span_make(values[i]->bv_val, values[i]->bv_len));
        ldap_value_free_len(values);
        ldap_memfree(name);
    }
    ber_free(position, 0);
    return ERR_OK;
}

/* One message of the search; *done when it was the last. */
static int take_message(struct search *s, LDAPMessage *m, bool *done, struct buf *why) {
    int type = ldap_msgtype(m), err = ERR_OK;
    if (type == LDAP_RES_SEARCH_RESULT) {
        *done = true;
        return err_of_search(take_result(s->l, m, why));
    }
    if (type == LDAP_RES_SEARCH_ENTRY && s->entries++ >= ENTRIES_MAX)
        err = fail(why, ERR_FULL, "more than 1000 entries", NULL);
    else if (type == LDAP_RES_SEARCH_ENTRY && (err = take_entry(s, m)) != ERR_OK)
        fail(why, err, "an entry that cannot be read", NULL);
    ldap_msgfree(m);
    return err;
}

int ldap_link_search(struct ldap_link *l, const char *base, const char *filter, const char *const *attributes,
                     ldap_value_cb cb, void *arg, struct buf *why) {
    struct search s = {.l = l, .cb = cb, .arg = arg};
    uint64_t deadline = clock_mono_ms() + l->timeout_ms;
    static const char *const none[] = {LDAP_NO_ATTRS, NULL};
    struct timeval limit = timeval_of(l->timeout_ms);
    bool done = false;
    LDAPMessage *m;
    int id;
    if (limit.tv_sec == 0)
        limit.tv_sec = 1; /* the server's limit counts whole seconds */
    if (!attributes || !attributes[0])
        attributes = none;
    int code = ldap_search_ext(l->ld, base ? base : "", LDAP_SCOPE_SUBTREE, filter, (char **)attributes, 0, NULL, NULL,
                               &limit, ENTRIES_MAX + 1, &id);
    if (code != LDAP_SUCCESS)
        return fail_code(l, why, err_of_api(code), code);
    int err = ERR_OK;
    while (!err && !done) {
        err = await(l, id, LDAP_MSG_ONE, deadline, &m, why);
        if (!err)
            err = take_message(&s, m, &done, why);
    }
    if (!done && err != ERR_CLOSED)
        (void)ldap_abandon_ext(l->ld, id, NULL, NULL);
    return err;
}

/* -- escaping -- */

static int add_hex(struct buf *to, unsigned char c) {
    return buf_printf(to, "\\%02x", c);
}

int ldap_escape_filter(struct span s, struct buf *to) {
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        if (c < 0x20 || c == 0x7f || c == '*' || c == '(' || c == ')' || c == '\\')
            (void)add_hex(to, c);
        else
            (void)buf_add_byte(to, (char)c);
    }
    return to->err;
}

int ldap_escape_dn(struct span s, struct buf *to) {
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        bool edge = (c == ' ' && (i == 0 || i + 1 == s.len)) || (c == '#' && i == 0);
        if (c < 0x20 || c == 0x7f || edge || strchr("\"+,;<=>\\", c))
            (void)add_hex(to, c);
        else
            (void)buf_add_byte(to, (char)c);
    }
    return to->err;
}
