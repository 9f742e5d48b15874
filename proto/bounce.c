/*
 * bounce: see bounce.h. One table of phrases in order, one of enhanced codes, one of reply codes.
 *
 * Phrases come first: they are what the other side's people chose to say, while codes are often generic (5.7.1 for
 * everything, 5.0.0 for a full mailbox). A phrase is matched in lower case anywhere in the text; `*` stands for any
 * octets between two pieces. Rows stand in order of how sure they are: what names a cause beats what only sounds like
 * one. A row may hold for temporary (4) or permanent (5) replies alone.
 */
#include "proto/bounce.h"

#include <string.h>

#define TEXT_MAX 1024u /* of a text that is looked at */

static const char *const names[BOUNCE_CATEGORIES] = {
    [BOUNCE_OTHER] = "other",
    [BOUNCE_UNKNOWN_RECIPIENT] = "unknown_recipient",
    [BOUNCE_MAILBOX_FULL] = "mailbox_full",
    [BOUNCE_INACTIVE] = "inactive",
    [BOUNCE_POLICY] = "policy",
    [BOUNCE_SPAM] = "spam",
    [BOUNCE_REPUTATION] = "reputation",
    [BOUNCE_AUTHENTICATION] = "authentication",
    [BOUNCE_CONTENT] = "content",
    [BOUNCE_SIZE] = "size",
    [BOUNCE_PROTOCOL] = "protocol",
    [BOUNCE_ROUTING] = "routing",
    [BOUNCE_CONNECTION] = "connection",
    [BOUNCE_TLS] = "tls",
    [BOUNCE_RATE] = "rate",
    [BOUNCE_TIMEOUT] = "timeout",
    [BOUNCE_LOOP] = "loop",
    [BOUNCE_EXPIRED] = "expired",
};

struct phrase {
    enum bounce_category category;
    char class; /* '4', '5', 0: both */
    const char *words;
};

/* Sure whatever the codes say. */
static const struct phrase sure[] = {
    {BOUNCE_AUTHENTICATION, 0, "unauthenticated"},
    /* The words of the other side about our pace; before "reputation", which such texts like to mention. */
    {BOUNCE_RATE, '4', "rate limit"},
    {BOUNCE_RATE, 0, "rate-limit"},
    {BOUNCE_RATE, 0, "ratelimit"},
    {BOUNCE_RATE, 0, "at a rate that"},
    {BOUNCE_RATE, 0, "too quickly"},
    {BOUNCE_RATE, 0, "greylist"},
    {BOUNCE_RATE, 0, "graylist"},
    {BOUNCE_RATE, 0, "grey-list"},
    {BOUNCE_RATE, 0, "too many connections"},
    {BOUNCE_RATE, 0, "too many concurrent"},
    {BOUNCE_RATE, 0, "too many sessions"},
    {BOUNCE_RATE, 0, "too many messages"},
    {BOUNCE_RATE, 0, "too many mails"},
    {BOUNCE_RATE, 0, "too much mail"},
    {BOUNCE_RATE, 0, "connection frequency"},
    {BOUNCE_RATE, 0, "frequency limited"},
    {BOUNCE_RATE, 0, "slow down"},
    {BOUNCE_RATE, 0, "throttl"},
    {BOUNCE_RATE, '4', "temporarily deferred due to"},
    {BOUNCE_RATE, '4', "server busy"},
    {BOUNCE_RATE, 0, "daily*limit"},
    {BOUNCE_RATE, 0, "hourly*limit"},
    {BOUNCE_RATE, 0, "exceeded*rate"},
    {BOUNCE_RATE, 0, "rate*exceeded"},
    {BOUNCE_RATE, 0, "connection limit"},
    /* A mailbox without room. */
    {BOUNCE_MAILBOX_FULL, 0, "over quota"},
    {BOUNCE_MAILBOX_FULL, 0, "overquota"},
    {BOUNCE_MAILBOX_FULL, 0, "over-quota"},
    {BOUNCE_MAILBOX_FULL, 0, "quota exceeded"},
    {BOUNCE_MAILBOX_FULL, 0, "quotaexceeded"},
    {BOUNCE_MAILBOX_FULL, 0, "exceed*quota"},
    {BOUNCE_MAILBOX_FULL, 0, "mailbox full"},
    {BOUNCE_MAILBOX_FULL, 0, "mailbox is full"},
    {BOUNCE_MAILBOX_FULL, 0, "inbox is full"},
    {BOUNCE_MAILBOX_FULL, 0, "inbox is out of storage"},
    {BOUNCE_MAILBOX_FULL, 0, "mailbox*size limit*reached"},
    {BOUNCE_MAILBOX_FULL, 0, "exceeded storage allocation"},
    {BOUNCE_MAILBOX_FULL, 0, "not enough*space*mailbox"},
    {BOUNCE_MAILBOX_FULL, 0, "mailbox has exceeded"},
    /* Authentication of the sender's domain. */
    {BOUNCE_AUTHENTICATION, 0, "dmarc"},
    {BOUNCE_AUTHENTICATION, 0, "dkim"},
    {BOUNCE_AUTHENTICATION, 0, "spf "},
    {BOUNCE_AUTHENTICATION, 0, "(spf"},
    {BOUNCE_AUTHENTICATION, 0, "spf:"},
    {BOUNCE_AUTHENTICATION, 0, "openspf"},
    {BOUNCE_AUTHENTICATION, 0, "sender policy framework"},
    {BOUNCE_AUTHENTICATION, 0, "authentication level"},
    {BOUNCE_AUTHENTICATION, 0, "spoof"},
    /* A listed or unnamed source. */
    {BOUNCE_REPUTATION, 0, "spamhaus"},
    {BOUNCE_REPUTATION, 0, "spamcop"},
    {BOUNCE_REPUTATION, 0, "sorbs"},
    {BOUNCE_REPUTATION, 0, "barracudacentral"},
    {BOUNCE_REPUTATION, 0, "dnsbl"},
    {BOUNCE_REPUTATION, 0, "_rbl"},
    {BOUNCE_REPUTATION, 0, " rbl"},
    {BOUNCE_REPUTATION, 0, "blocked using"},
    {BOUNCE_REPUTATION, 0, "block list"},
    {BOUNCE_REPUTATION, 0, "blocklist"},
    {BOUNCE_REPUTATION, 0, "blacklist"},
    {BOUNCE_REPUTATION, 0, "black list"},
    {BOUNCE_REPUTATION, 0, "block-list"},
    {BOUNCE_REPUTATION, 0, "banned send"},
    {BOUNCE_REPUTATION, 0, "reputation"},
    {BOUNCE_REPUTATION, 0, "ptr record"},
    {BOUNCE_REPUTATION, 0, "ptr resource record"},
    {BOUNCE_REPUTATION, 0, "reverse dns"},
    {BOUNCE_REPUTATION, 0, "reverse hostname"},
    {BOUNCE_REPUTATION, 0, "ip=*a problem occurred"},
    {BOUNCE_REPUTATION, 0, "originating from your ip"},
    {BOUNCE_REPUTATION, 0, "your ip*blocked"},
    {BOUNCE_REPUTATION, 0, "ip address*blocked"},
    {BOUNCE_REPUTATION, 0, "client host*blocked"},
    {BOUNCE_REPUTATION, 0, "your host*blocked"},
    {BOUNCE_REPUTATION, 0, "connections will not be accepted from"},
    /* The mailbox is closed. */
    {BOUNCE_INACTIVE, 0, "mailbox*disabled"},
    {BOUNCE_INACTIVE, 0, "account*disabled"},
    {BOUNCE_INACTIVE, 0, "reach is disabled"},
    {BOUNCE_INACTIVE, 0, "user*is disabled"},
    {BOUNCE_INACTIVE, 0, "disabled recipient"},
    {BOUNCE_INACTIVE, 0, "recipient*suspended"},
    {BOUNCE_INACTIVE, 0, "account*suspended"},
    {BOUNCE_INACTIVE, 0, "mailbox*suspended"},
    {BOUNCE_INACTIVE, 0, "account*inactive"},
    {BOUNCE_INACTIVE, 0, "reach is inactive"},
    {BOUNCE_INACTIVE, 0, "user*is inactive"},
    {BOUNCE_INACTIVE, 0, "inactive user"},
    {BOUNCE_INACTIVE, 0, "mailbox*inactive"},
    {BOUNCE_INACTIVE, 0, "account*deactivated"},
    {BOUNCE_INACTIVE, 0, "account*locked"},
    {BOUNCE_INACTIVE, 0, "mailbox*frozen"},
    {BOUNCE_INACTIVE, 0, "account*frozen"},
    {BOUNCE_INACTIVE, 0, "account*closed"},
    {BOUNCE_INACTIVE, 0, "no longer on server"},
    {BOUNCE_INACTIVE, 0, "no longer available"},
    {BOUNCE_INACTIVE, 0, "no longer in use"},
    {BOUNCE_INACTIVE, 0, "no longer valid"},
    {BOUNCE_INACTIVE, 0, "no longer employed"},
    {BOUNCE_INACTIVE, 0, "has moved"},
    /* No such mailbox. */
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "user unknown"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "unknown user"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "no such user"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "nosuchuser"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "no such recipient"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "no such mailbox"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "no such person"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "no such address"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "no mailbox"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "unknown recipient"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "recipient unknown"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "unknown mailbox"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "mailbox unknown"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "unknown address"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "user not found"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "mailbox not found"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "recipient not found"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "recipientnotfound"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "invalid recipient"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "invalid mailbox"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "user does not exist"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "user doesn't exist"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "account that you tried to reach does not exist"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "mailbox does not exist"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "recipient does not exist"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "address does not exist"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "user doesn't have a"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "not our customer"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "unrouteable address"},
    {BOUNCE_UNKNOWN_RECIPIENT, 0, "recipient address rejected: access denied"},
    {BOUNCE_UNKNOWN_RECIPIENT, '5', "mailbox unavailable"},
    /* What the content is taken for. */
    {BOUNCE_CONTENT, 0, "virus"},
    {BOUNCE_CONTENT, 0, "malware"},
    {BOUNCE_CONTENT, 0, "attachment"},
    {BOUNCE_CONTENT, 0, "potential security issue"},
    {BOUNCE_CONTENT, 0, "missing*message-id"},
    {BOUNCE_CONTENT, 0, "missing*messageid"},
    {BOUNCE_CONTENT, 0, "from: header"},
    {BOUNCE_CONTENT, 0, "header*not*compliant"},
    {BOUNCE_CONTENT, 0, "barelinefeeds"},
    {BOUNCE_CONTENT, 0, "conversionfailed"},
    {BOUNCE_SPAM, 0, "spam"},
    {BOUNCE_SPAM, 0, "unsolicited"},
    {BOUNCE_SPAM, 0, "junk mail"},
    {BOUNCE_SPAM, 0, " ube"},
    {BOUNCE_SPAM, 0, "bulk mail"},
    {BOUNCE_SPAM, 0, "dt:spm"},
    {BOUNCE_SPAM, 0, "phishing"},
    /* The rest of what can be said clearly. */
    {BOUNCE_LOOP, 0, "too many hops"},
    {BOUNCE_LOOP, 0, "hop count"},
    {BOUNCE_LOOP, 0, "mail loop"},
    {BOUNCE_LOOP, 0, "routing loop"},
    {BOUNCE_LOOP, 0, "too many received"},
    {BOUNCE_SIZE, 0, "message size"},
    {BOUNCE_SIZE, 0, "too large"},
    {BOUNCE_SIZE, 0, "too big"},
    {BOUNCE_SIZE, 0, "size limit"},
    {BOUNCE_SIZE, 0, "maximum*size"},
    {BOUNCE_SIZE, 0, "recipsizelimit"},
    {BOUNCE_EXPIRED, 0, "queue.expired"},
    {BOUNCE_TLS, 0, "starttls"},
    {BOUNCE_TLS, 0, "requiretls"},
    {BOUNCE_TLS, 0, "tls "},
    {BOUNCE_TLS, 0, "certificate"},
    {BOUNCE_TLS, 0, "encryption"},
    {BOUNCE_POLICY, 0, "relay"},
    {BOUNCE_POLICY, 0, "transport.rules"},
    {BOUNCE_POLICY, 0, "resolver.rst."},
    {BOUNCE_POLICY, 0, "policy reasons"},
    {BOUNCE_ROUTING, 0, "domain not found"},
    {BOUNCE_ROUTING, 0, "domain does not exist"},
    {BOUNCE_ROUTING, 0, "host not found"},
    {BOUNCE_ROUTING, 0, "host unknown"},
    {BOUNCE_ROUTING, 0, "dns error"},
    {BOUNCE_ROUTING, 0, "dns failure"},
    {BOUNCE_TIMEOUT, 0, "timeout"},
    {BOUNCE_TIMEOUT, 0, "timed out"},
    {BOUNCE_TIMEOUT, 0, "no answer within"},
};

/* Our own findings (no reply code): the codes tell, but for these. */
static const struct phrase own[] = {
    {BOUNCE_TIMEOUT, 0, "in time"},
    {BOUNCE_TIMEOUT, 0, "no answer to the connection"},
    {BOUNCE_TIMEOUT, 0, "took too long"},
};

/* Only where the codes say nothing. */
static const struct phrase likely[] = {
    {BOUNCE_CONNECTION, 0, "no smtp service"},
    {BOUNCE_CONNECTION, 0, "service not available"},
    {BOUNCE_CONNECTION, 0, "closing transmission channel"},
    {BOUNCE_CONNECTION, 0, "connection refused"},
    {BOUNCE_CONNECTION, 0, "connection reset"},
    {BOUNCE_CONNECTION, 0, "connection lost"},
    {BOUNCE_CONNECTION, 0, "connection was lost"},
    {BOUNCE_RATE, '4', "try again later"},
    {BOUNCE_RATE, '4', "too many"},
    {BOUNCE_RATE, '4', "unusual rate"},
    {BOUNCE_PROTOCOL, 0, "syntax"},
    {BOUNCE_PROTOCOL, 0, "syntactically"},
    {BOUNCE_PROTOCOL, 0, "sequence of commands"},
    {BOUNCE_PROTOCOL, 0, "command"},
    {BOUNCE_UNKNOWN_RECIPIENT, '5', "recipient address rejected"},
    {BOUNCE_UNKNOWN_RECIPIENT, '5', "recipient rejected"},
    {BOUNCE_UNKNOWN_RECIPIENT, '5', "does not exist"},
    {BOUNCE_POLICY, 0, "policy"},
    {BOUNCE_POLICY, 0, "access denied"},
    {BOUNCE_POLICY, 0, "sender address rejected"},
    {BOUNCE_POLICY, 0, "not allowed"},
    {BOUNCE_POLICY, 0, "not authorized"},
    {BOUNCE_POLICY, 0, "not permitted"},
    {BOUNCE_POLICY, 0, "blocked"},
};

/* Subject and detail of an enhanced code; one that ends with a dot: all details. The first that fits counts. */
static const struct {
    const char *code;
    enum bounce_category category;
    char class;
} codes[] = {
    {"4.7", BOUNCE_EXPIRED, 0},
    {"1.1", BOUNCE_UNKNOWN_RECIPIENT, 0},
    {"1.2", BOUNCE_ROUTING, 0},
    {"1.3", BOUNCE_UNKNOWN_RECIPIENT, 0},
    {"1.4", BOUNCE_UNKNOWN_RECIPIENT, 0},
    {"1.6", BOUNCE_INACTIVE, 0},
    {"1.7", BOUNCE_POLICY, 0},
    {"1.8", BOUNCE_ROUTING, 0},
    {"1.10", BOUNCE_ROUTING, 0},
    {"2.1", BOUNCE_INACTIVE, '5'},
    {"2.2", BOUNCE_MAILBOX_FULL, 0},
    {"2.3", BOUNCE_SIZE, 0},
    {"3.2", BOUNCE_CONNECTION, 0},
    {"3.4", BOUNCE_SIZE, 0},
    {"4.1", BOUNCE_CONNECTION, 0},
    {"4.2", BOUNCE_CONNECTION, 0},
    {"4.3", BOUNCE_ROUTING, 0},
    {"4.4", BOUNCE_ROUTING, 0},
    {"4.5", BOUNCE_RATE, 0},
    {"4.6", BOUNCE_LOOP, 0},
    {"4.12", BOUNCE_LOOP, 0},
    {"4.14", BOUNCE_LOOP, 0},
    {"4.310", BOUNCE_ROUTING, 0},
    {"4.312", BOUNCE_ROUTING, 0},
    {"4.316", BOUNCE_CONNECTION, 0},
    {"4.317", BOUNCE_TLS, 0},
    {"5.3", BOUNCE_PROTOCOL, 0},
    {"5.", BOUNCE_PROTOCOL, 0},
    {"6.", BOUNCE_CONTENT, 0},
    {"7.4", BOUNCE_TLS, 0},
    {"7.5", BOUNCE_TLS, 0},
    {"7.10", BOUNCE_TLS, 0},
    {"7.11", BOUNCE_TLS, 0},
    {"7.20", BOUNCE_AUTHENTICATION, 0},
    {"7.21", BOUNCE_AUTHENTICATION, 0},
    {"7.22", BOUNCE_AUTHENTICATION, 0},
    {"7.23", BOUNCE_AUTHENTICATION, 0},
    {"7.24", BOUNCE_AUTHENTICATION, 0},
    {"7.25", BOUNCE_REPUTATION, 0},
    {"7.26", BOUNCE_AUTHENTICATION, 0},
    {"7.27", BOUNCE_ROUTING, 0},
    {"7.28", BOUNCE_RATE, 0},
    {"7.29", BOUNCE_AUTHENTICATION, 0},
    {"7.30", BOUNCE_TLS, 0},
    {"7.40", BOUNCE_AUTHENTICATION, 0},
    {"7.509", BOUNCE_AUTHENTICATION, 0},
    {"7.511", BOUNCE_REPUTATION, 0},
    {"7.515", BOUNCE_AUTHENTICATION, 0},
    {"7.606", BOUNCE_REPUTATION, 0},
    {"7.", BOUNCE_POLICY, '5'},
};

static const struct {
    uint32_t code;
    enum bounce_category category;
} replies[] = {
    {421, BOUNCE_CONNECTION}, {454, BOUNCE_TLS},      {500, BOUNCE_PROTOCOL}, {501, BOUNCE_PROTOCOL},
    {502, BOUNCE_PROTOCOL},   {503, BOUNCE_PROTOCOL}, {504, BOUNCE_PROTOCOL}, {521, BOUNCE_CONNECTION},
    {555, BOUNCE_PROTOCOL},   {556, BOUNCE_ROUTING},
};

const char *bounce_name(enum bounce_category category) {
    return (unsigned)category < BOUNCE_CATEGORIES ? names[category] : names[BOUNCE_OTHER];
}

static bool holds(struct span text, const char *words) {
    while (*words) {
        size_t len = strcspn(words, "*");
        const char *at = text.len ? memmem(text.at, text.len, words, len) : NULL;
        if (!at)
            return false;
        text = span_from(text, (size_t)(at - text.at) + len);
        words += len;
        words += *words == '*';
    }
    return true;
}

static bool find_phrase(const struct phrase *table, size_t count, char class, struct span text,
                        enum bounce_category *found) {
    for (size_t i = 0; i < count; i++)
        if ((!table[i].class || table[i].class == class) && holds(text, table[i].words)) {
            *found = table[i].category;
            return true;
        }
    return false;
}

static bool find_code(struct span enhanced, enum bounce_category *found) {
    struct span detail = span_from(enhanced, 2);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct span c = span_of(codes[i].code);
        bool fits =
            c.at[c.len - 1] == '.' ? detail.len > c.len && span_eq(span_first(detail, c.len), c) : span_eq(detail, c);
        if (fits && (!codes[i].class || codes[i].class == enhanced.at[0])) {
            *found = codes[i].category;
            return true;
        }
    }
    return false;
}

enum bounce_category bounce_classify(uint32_t code, struct span enhanced, struct span text) {
    char lower[TEXT_MAX];
    struct span seen = span_first(text, sizeof lower);
    enum bounce_category found = BOUNCE_OTHER;
    for (size_t i = 0; i < seen.len; i++)
        lower[i] = seen.at[i] >= 'A' && seen.at[i] <= 'Z' ? (char)(seen.at[i] + 32) : seen.at[i];
    seen = span_make(lower, seen.len);
    bool coded = enhanced.len >= 5 && enhanced.at[1] == '.';
    if (!code && coded && span_eq(span_from(enhanced, 2), SPAN("4.7")))
        return BOUNCE_EXPIRED; /* the text goes on with what was heard last */
    if (!code && coded &&
        (find_phrase(own, sizeof own / sizeof *own, '\0', seen, &found) || find_code(enhanced, &found)))
        return found;
    char class = code >= 400 && code <= 599 ? (char)('0' + code / 100) : coded ? enhanced.at[0] : '\0';
    if (find_phrase(sure, sizeof sure / sizeof *sure, class, seen, &found) || (coded && find_code(enhanced, &found)) ||
        find_phrase(likely, sizeof likely / sizeof *likely, class, seen, &found))
        return found;
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++)
        if (replies[i].code == code)
            return replies[i].category;
    return BOUNCE_OTHER;
}
