/*
 * outcome: the table. Rows are the steps of a session, columns the ways in which a step can be answered.
 *
 * Two decisions that the RFC leaves open. A 5yz greeting is held against the destination only
 * when all its hosts give one. After the final dot, a complete reply that makes no sense is
 * a refusal like any other (the server has not said 2yz); no reply, or one that cannot be read,
 * leaves the mail in doubt, and then no other host is asked: it could deliver a second copy.
 */
#include "gateway/outbound/outcome.h"
#include "base/check.h"

#define DELIVERED                                                                                                      \
    { OUTCOME_DELIVERED, SCOPE_RECIPIENT, OUTCOME_NEXT_NONE, false, "2.0.0", "delivered" }
#define HOST(enhanced, text)                                                                                           \
    { OUTCOME_DEFERRED, SCOPE_HOST, OUTCOME_NEXT_HOST, false, enhanced, text }
#define HOST_5(enhanced, text)                                                                                         \
    { OUTCOME_DEFERRED, SCOPE_HOST, OUTCOME_NEXT_HOST, true, enhanced, text }
#define MESSAGE_4                                                                                                      \
    { OUTCOME_DEFERRED, SCOPE_MESSAGE, OUTCOME_NEXT_HOST, false, "4.0.0", "refused for now" }
#define MESSAGE_5                                                                                                      \
    { OUTCOME_FAILED, SCOPE_MESSAGE, OUTCOME_NEXT_NONE, false, "5.0.0", "refused" }
#define RECIPIENT_4                                                                                                    \
    { OUTCOME_DEFERRED, SCOPE_RECIPIENT, OUTCOME_NEXT_NONE, false, "4.0.0", "refused for now" }
#define RECIPIENT_5                                                                                                    \
    { OUTCOME_FAILED, SCOPE_RECIPIENT, OUTCOME_NEXT_NONE, false, "5.0.0", "refused" }
#define BAD HOST("4.5.0", "the server answered out of order")
#define NONE HOST("4.5.0", "the server sent what is no reply")
#define CLOSING HOST("4.3.2", "the server closes the connection")
#define LOST HOST("4.4.2", "the connection was lost")
#define TIMEOUT HOST("4.4.2", "the server did not answer in time")
#define IN_DOUBT(text)                                                                                                 \
    { OUTCOME_IN_DOUBT, SCOPE_HOST, OUTCOME_NEXT_NONE, false, "4.4.2", text }
/* Steps that no recipient's fate hangs on: the connection is given up. */
#define ASIDE                                                                                                          \
    { LOST, LOST, LOST, LOST, LOST, LOST, LOST, LOST }

/* Columns: 2yz, 4yz, 421, 5yz, bad, none, lost, timeout */
static const struct outcome_verdict table[CLIENT_STAGES][CLIENT_ANSWERS] = {
    [CLIENT_CONNECT] = {BAD, BAD, BAD, BAD, BAD, BAD, HOST("4.4.1", "cannot connect"),
                        HOST("4.4.1", "no answer to the connection")},
    [CLIENT_GREETING] = {BAD, HOST("4.3.2", "the server takes no mail now"), CLOSING,
                         HOST_5("5.3.2", "the server takes no mail"), BAD, NONE, LOST, TIMEOUT},
    [CLIENT_EHLO] = {BAD, HOST("4.3.2", "EHLO was refused"), CLOSING, HOST("4.3.2", "EHLO was refused"), BAD, NONE,
                     LOST, TIMEOUT},
    [CLIENT_HELO] = {BAD, HOST("4.3.2", "HELO was refused"), CLOSING, HOST("4.3.2", "HELO was refused"), BAD, NONE,
                     LOST, TIMEOUT},
    [CLIENT_STARTTLS] = {BAD, HOST("4.7.5", "TLS was refused"), CLOSING,
                         HOST("4.7.4", "TLS is required, and the server does not have it"), BAD, NONE, LOST, TIMEOUT},
    [CLIENT_SHAKING] = {BAD, BAD, BAD, HOST("4.7.5", "TLS failed"), BAD, NONE, HOST("4.7.5", "TLS failed"),
                        HOST("4.7.5", "the TLS handshake took too long")},
    [CLIENT_AUTH] = {BAD, HOST("4.7.0", "the login was refused for now"), CLOSING,
                     HOST("4.7.8", "the login was refused"), BAD, NONE, LOST, TIMEOUT},
    [CLIENT_READY] = ASIDE,
    [CLIENT_XCLIENT] = ASIDE,
    [CLIENT_XFORWARD] = ASIDE,
    [CLIENT_MAIL] = {BAD, MESSAGE_4, CLOSING, MESSAGE_5, BAD, NONE, LOST, TIMEOUT},
    [CLIENT_RCPT] = {BAD, RECIPIENT_4, CLOSING, RECIPIENT_5, BAD, NONE, LOST, TIMEOUT},
    [CLIENT_DATA] = {BAD, MESSAGE_4, CLOSING, MESSAGE_5, BAD, NONE, LOST, TIMEOUT},
    [CLIENT_BODY] = {BAD, MESSAGE_4, CLOSING, MESSAGE_5, BAD, NONE, LOST, TIMEOUT},
    [CLIENT_DOT] = {DELIVERED, MESSAGE_4, MESSAGE_4, MESSAGE_5, BAD, IN_DOUBT("no readable reply to the end of data"),
                    IN_DOUBT("the connection was lost at the end of data"), IN_DOUBT("no reply to the end of data")},
    [CLIENT_DRAIN] = ASIDE,
    [CLIENT_RSET] = ASIDE,
    [CLIENT_QUIT] = ASIDE,
    [CLIENT_END] = ASIDE,
};

struct outcome_verdict outcome_of(enum client_stage stage, enum client_answer answer, bool lmtp_dot, bool reused) {
    static const struct outcome_verdict deferred = RECIPIENT_4, failed = RECIPIENT_5;
    CHECK(stage < CLIENT_STAGES && answer < CLIENT_ANSWERS);
    struct outcome_verdict v = table[stage][answer];
    if (lmtp_dot && stage == CLIENT_DOT && answer == CLIENT_ANSWER_4)
        v = deferred;
    if (lmtp_dot && stage == CLIENT_DOT && answer == CLIENT_ANSWER_5)
        v = failed;
    if (reused && (stage == CLIENT_MAIL || stage == CLIENT_XFORWARD) &&
        (answer == CLIENT_ANSWER_421 || answer == CLIENT_ANSWER_LOST))
        v.next = OUTCOME_NEXT_AGAIN; /* line 53 */
    return v;
}

#define LOCAL(outcome, scope, enhanced, text)                                                                          \
    { outcome, scope, OUTCOME_NEXT_NONE, false, enhanced, text }

static const struct outcome_verdict locals[OUTCOME_LOCALS] = {
    [OUTCOME_NXDOMAIN] = LOCAL(OUTCOME_FAILED, SCOPE_DESTINATION, "5.1.2", "the domain does not exist"),
    [OUTCOME_DNS_TEMPFAIL] = LOCAL(OUTCOME_DEFERRED, SCOPE_DESTINATION, "4.4.3", "the name servers do not answer"),
    [OUTCOME_CNAME_LOOP] = LOCAL(OUTCOME_DEFERRED, SCOPE_DESTINATION, "4.4.3", "the aliases of the domain have no end"),
    [OUTCOME_NULL_MX] = LOCAL(OUTCOME_FAILED, SCOPE_DESTINATION, "5.1.10", "the domain takes no mail (null MX)"),
    [OUTCOME_NO_ADDRESS] =
        LOCAL(OUTCOME_FAILED, SCOPE_DESTINATION, "5.4.4", "the domain has no mail server and no address"),
    [OUTCOME_MX_NOWHERE] =
        LOCAL(OUTCOME_FAILED, SCOPE_DESTINATION, "5.4.4", "the mail servers of the domain do not exist"),
    [OUTCOME_OWN_HOST] =
        LOCAL(OUTCOME_FAILED, SCOPE_DESTINATION, "5.4.6", "mail for the domain loops back to this host"),
    [OUTCOME_OWN_UNRESOLVED] =
        LOCAL(OUTCOME_DEFERRED, SCOPE_DESTINATION, "4.4.4", "the mail servers preferred to this host cannot be found"),
    [OUTCOME_BAD_ADDRESS] = LOCAL(OUTCOME_FAILED, SCOPE_DESTINATION, "5.4.6",
                                  "the mail servers of the domain have addresses that mail never goes to"),
    [OUTCOME_BAD_DESTINATION] = LOCAL(OUTCOME_FAILED, SCOPE_DESTINATION, "5.1.2", "the destination is not usable"),
    [OUTCOME_BAD_ROUTE] =
        LOCAL(OUTCOME_DEFERRED, SCOPE_DESTINATION, "4.3.5", "the route that an operator gave cannot be read"),
    [OUTCOME_NOT_CONVERTIBLE] = LOCAL(OUTCOME_FAILED, SCOPE_MESSAGE, "5.6.3",
                                      "the server takes no 8-bit content, and the message cannot be converted"),
    [OUTCOME_NO_SMTPUTF8] =
        LOCAL(OUTCOME_FAILED, SCOPE_MESSAGE, "5.6.7", "the message needs SMTPUTF8, which the server does not offer"),
    [OUTCOME_TOO_BIG] = LOCAL(OUTCOME_FAILED, SCOPE_MESSAGE, "5.3.4", "the message is longer than the server takes"),
    [OUTCOME_UNSENDABLE] = LOCAL(OUTCOME_FAILED, SCOPE_MESSAGE, "5.1.3", "an address cannot be sent in a command"),
    [OUTCOME_NO_BODY] = LOCAL(OUTCOME_DEFERRED, SCOPE_MESSAGE, "4.3.0", "the body of the message cannot be read now"),
    [OUTCOME_NO_MEMORY] = LOCAL(OUTCOME_DEFERRED, SCOPE_MESSAGE, "4.3.1", "no memory for the message now"),
    [OUTCOME_NO_REQUIRETLS] =
        LOCAL(OUTCOME_FAILED, SCOPE_MESSAGE, "5.7.30", "REQUIRETLS: the next server does not offer it"),
    [OUTCOME_TIME_OVER] = LOCAL(OUTCOME_FAILED, SCOPE_MESSAGE, "5.4.7", "delivery time expired"),
    [OUTCOME_TIME_SHORT] =
        LOCAL(OUTCOME_FAILED, SCOPE_MESSAGE, "5.4.7", "delivery time expired: the next server needs more than is left"),
    [OUTCOME_NO_DELIVERBY] = LOCAL(OUTCOME_FAILED, SCOPE_MESSAGE, "5.3.3",
                                   "the next server does not know DELIVERBY, and cannot keep to the time asked for"),
    [OUTCOME_HANDED_BACK] = LOCAL(OUTCOME_RETURNED, SCOPE_HOST, "4.3.2", "not attempted"),
};

struct outcome_verdict outcome_local(enum outcome_local what) {
    CHECK(what < OUTCOME_LOCALS);
    return locals[what];
}
