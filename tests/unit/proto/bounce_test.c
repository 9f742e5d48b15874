/* bounce: replies of large providers and of common mail software, each with the category that a person would give it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "proto/bounce.h"

struct row {
    uint32_t code;
    const char *enhanced, *category, *text;
};

static const struct row rows[] = {
    /* -- unknown_recipient -- */
    {550, "5.1.1", "unknown_recipient",
     "The email account that you tried to reach does not exist. Please try double-checking the recipient's email "
     "address for typos or unnecessary spaces. For more information, go to "
     "https://support.google.com/mail/?p=NoSuchUser - gsmtp"},
    {550, "5.5.0", "unknown_recipient", "Requested action not taken: mailbox unavailable (S2017062302)."},
    {550, "5.1.10", "unknown_recipient",
     "RESOLVER.ADR.RecipientNotFound; Recipient bob@example.net not found by SMTP address lookup"},
    {550, "5.4.1", "unknown_recipient",
     "Recipient address rejected: Access denied. AS(201806281) [BL2NAM06FT006.Eop-nam06.prod.protection.outlook.com]"},
    {554, "", "unknown_recipient",
     "delivery error: dd This user doesn't have a yahoo.com account (bob@yahoo.com) [0] - mta4001.mail.bf1.yahoo.com"},
    {552, "", "unknown_recipient", "1 Requested mail action aborted, mailbox not found"},
    {550, "5.1.1", "unknown_recipient", "<bob@aol.com>: Recipient address rejected: aol.com"},
    {550, "5.1.1", "unknown_recipient", "<bob@icloud.com>: user does not exist"},
    {550, "", "unknown_recipient",
     "Requested action not taken: mailbox unavailable. For explanation visit "
     "https://postmaster.gmx.net/en/case?c=r0601"},
    {550, "5.1.1", "unknown_recipient",
     "<bob@example.net>: Recipient address rejected: User unknown in virtual mailbox table"},
    {550, "5.1.1", "unknown_recipient", "<bob@example.net>... User unknown"},
    {511, "", "unknown_recipient", "sorry, no mailbox here by that name (#5.1.1 - chkuser)"},
    {550, "", "unknown_recipient", "Unrouteable address"},
    {550, "", "unknown_recipient", "No Such User Here"},
    {550, "", "unknown_recipient",
     "Message was not accepted -- invalid mailbox. Local mailbox bob@mail.ru is unavailable: user not found"},
    {550, "5.7.1", "unknown_recipient", "No such user!"},
    {550, "", "unknown_recipient", "Mailbox not found. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022"},
    {550, "", "unknown_recipient", "User not found: bob@163.com"},
    {550, "5.1.1", "unknown_recipient",
     "Adresse d au moins un destinataire invalide. Invalid recipient. OFR_416 [416]"},
    {550, "", "unknown_recipient", "unknown mailbox / Unbekannte Mailbox <bob@t-online.de>"},
    {550, "5.1.1", "unknown_recipient", "Not our Customer"},
    {550, "", "unknown_recipient", "Invalid Recipient - https://community.mimecast.com/docs/DOC-1369#550 [q2Xh]"},
    {553, "5.3.0", "unknown_recipient", "<bob@example.net>... No such user"},
    {450, "4.1.1", "unknown_recipient", "<bob@example.net>: Recipient address rejected: unverified address"},
    /* -- mailbox_full -- */
    {452, "4.2.2", "mailbox_full",
     "The recipient's inbox is out of storage space. Please direct the recipient to "
     "https://support.google.com/mail/?p=OverQuotaTemp - gsmtp"},
    {552, "5.2.2", "mailbox_full",
     "The email account that you tried to reach is over quota and inactive. Please direct the recipient to "
     "https://support.google.com/mail/?p=OverQuotaPerm"},
    {554, "5.2.2", "mailbox_full",
     "mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded"},
    {452, "4.2.2", "mailbox_full", "<bob@example.net> Quota exceeded (mailbox for user is full)"},
    {552, "5.2.2", "mailbox_full", "<bob@icloud.com>: user is over quota"},
    {550, "", "mailbox_full",
     "Requested mail action aborted: exceeded storage allocation (Quota exceeded). For "
     "explanation visit https://postmaster.web.de/"},
    {552, "", "mailbox_full", "Mailbox has exceeded the limit"},
    {550, "5.7.1", "mailbox_full", "<bob@example.net>: Mailbox is full / Blocks limit exceeded / Inode limit exceeded"},
    /* -- inactive -- */
    {550, "5.2.1", "inactive",
     "The email account that you tried to reach is disabled. For more information, go to "
     "https://support.google.com/mail/?p=DisabledUser - gsmtp"},
    {554, "", "inactive",
     "30 Sorry, your message to bob@yahoo.com cannot be delivered. This mailbox is disabled "
     "(554.30)."},
    {550, "", "inactive", "Account bob@mail.ru is disabled"},
    {550, "5.1.6", "inactive", "recipient no longer on server: bob@mac.com"},
    {550, "5.2.1", "inactive", "<bob@example.net>... Mailbox disabled for this recipient"},
    {550, "", "inactive", "The account has been suspended for inactivity: account suspended"},
    {554, "5.7.1", "inactive", "bob@example.net: account is locked"},
    /* -- policy -- */
    {550, "5.7.1", "policy", "TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy"},
    {550, "5.7.133", "policy",
     "RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction check failed because "
     "the sender was not authenticated when sending to this group"},
    {554, "5.7.1", "policy", "<bob@example.net>: Relay access denied"},
    {550, "5.7.64", "policy", "TenantAttribution; Relay Access Denied [AM5EUR03FT042.eop-EUR03.prod.outlook.com]"},
    {554, "5.7.1", "policy", "<alice@example.org>: Sender address rejected: Access denied"},
    {554, "5.7.9", "policy",
     "Message not accepted for policy reasons. See "
     "https://postmaster.yahooinc.com/error-codes"},
    {554, "", "policy", "Message not allowed - [PH01] Email not accepted for policy reasons."},
    {550, "", "policy", "Administrative prohibition: not permitted"},
    /* -- spam -- */
    {550, "5.7.1", "spam",
     "[192.0.2.1      12] Our system has detected that this message is likely unsolicited mail. To reduce the amount "
     "of spam sent to Gmail, this message has been blocked."},
    {554, "5.7.1", "spam", "Message rejected as spam by Content Filtering."},
    {550, "5.7.1", "spam", "Votre message est refuse, spam detected. OFR_506 [506]"},
    {550, "", "spam", "spam message rejected. Please visit http://help.mail.ru/notspam-support/id?c=x"},
    {554, "5.7.1", "spam", "[1] Message rejected under suspicion of SPAM; https://ya.cc/1IrBc"},
    {554, "5.7.1", "spam", "Spam message rejected"},
    {550, "5.7.1", "spam", "Message content rejected, UBE, id=1234-05"},
    {554, "", "spam", "DT:SPM 163 smtp14,EsCowAD3,please see http://mail.163.com/help/help_spam_16.htm"},
    {550, "", "spam", "High probability of spam"},
    /* -- reputation -- */
    {550, "5.7.1", "reputation",
     "Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part "
     "of their network is on our block list (S3140)."},
    {550, "5.7.606", "reputation",
     "Access denied, banned sending IP [192.0.2.1]. To request removal from this list please visit "
     "https://sender.office.com/"},
    {550, "5.7.1", "reputation",
     "Our system has detected that this message is likely suspicious due to the very low reputation of the sending IP "
     "address. To best protect our users from spam, the message has been blocked."},
    {550, "5.7.25", "reputation", "[192.0.2.1] The IP address sending this message does not have a PTR record setup"},
    {550, "5.7.1", "reputation",
     "[192.0.2.1 18] Our system has detected an unusual rate of unsolicited mail originating from your IP address."},
    {554, "5.7.1", "reputation",
     "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; "
     "https://www.spamhaus.org/query/ip/192.0.2.1"},
    {553, "5.7.1", "reputation",
     "[BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list"},
    {550, "5.7.1", "reputation", "Mail from IP 192.0.2.1 was rejected due to listing in Spamhaus PBL"},
    {554, "", "reputation",
     "IP=192.0.2.1 - A problem occurred. (Ask your postmaster for help or to contact tosa@rx.t-online.de to clarify.)"},
    {554, "", "reputation", "No SMTP service. IP address is black listed."},
    {554, "", "reputation",
     "Your access to this mail system has been rejected due to the sending MTA's poor reputation."},
    {553, "5.3.0", "reputation",
     "flpd589 DNSBL:RBL 521< 192.0.2.1 >_is_blocked.For assistance forward this error to abuse_rbl@abuse-att.net"},
    {554, "", "reputation", "resimta-po-12v.sys.comcast.net 192.0.2.1 found on one or more DNSBLs"},
    {550, "", "reputation", "Requested action not taken: mailbox unavailable. Bad DNS PTR resource record."},
    {450, "4.7.1", "reputation", "Client host rejected: cannot find your reverse hostname, [192.0.2.1]"},
    /* -- authentication -- */
    {550, "5.7.26", "authentication",
     "This message does not have authentication information or fails to pass authentication checks (SPF or DKIM)."},
    {550, "5.7.26", "authentication",
     "Unauthenticated email from example.net is not accepted due to domain's DMARC policy."},
    {550, "5.7.509", "authentication",
     "Access denied, sending domain example.net does not pass DMARC verification and has a DMARC policy of reject."},
    {550, "5.7.515", "authentication",
     "Access denied, sending domain EXAMPLE.NET does not meet the required authentication level."},
    {550, "5.7.23", "authentication", "The message was rejected because of Sender Policy Framework violation"},
    {550, "5.7.1", "authentication", "Email rejected per DMARC policy for example.net"},
    {550, "", "authentication", "Rejected by header based Anti-Spoofing policy: alice@example.net"},
    {550, "", "authentication", "SPF check failed: 192.0.2.1 may not send for example.net"},
    {421, "4.7.26", "authentication", "This mail has been rate limited because it is unauthenticated."},
    /* -- content -- */
    {552, "5.7.0", "content",
     "This message was blocked because its content presents a potential security issue. Please visit "
     "https://support.google.com/mail/?p=BlockedMessage"},
    {554, "5.7.1", "content", "Virus found: Win.Test.EICAR_HDB-1"},
    {550, "5.7.1", "content", "Messages with multiple addresses in From: header are not accepted."},
    {550, "5.7.1", "content", "Messages missing a valid messageId header are not accepted."},
    {550, "5.6.11", "content", "SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds"},
    {554, "5.6.0", "content", "STOREDRV.Deliver.Exception:ConversionFailedException"},
    {550, "", "content", "This message contains an attachment type that is not accepted (.exe)"},
    {550, "5.6.7", "content", "Non-ASCII addresses not permitted for recipient"},
    /* -- size -- */
    {552, "5.3.4", "size", "Message size exceeds fixed limit"},
    {552, "5.3.4", "size",
     "Your message exceeded Google's message size limits. Please visit "
     "https://support.google.com/mail/?p=MaxSizeError"},
    {550, "5.2.3", "size", "RESOLVER.RST.RecipSizeLimit; message too large for this recipient"},
    {552, "", "size", "message exceeds fixed maximum message size"},
    /* -- protocol -- */
    {503, "5.5.1", "protocol", "Bad sequence of commands"},
    {555, "5.5.2", "protocol", "Syntax error, goodbye. - gsmtp"},
    {501, "", "protocol", "Syntactically invalid HELO argument(s)"},
    {502, "5.5.2", "protocol", "Error: command not recognized"},
    {554, "5.5.1", "protocol", "Error: no valid recipients"},
    {504, "5.5.2", "protocol", "<client>: Helo command rejected: need fully-qualified hostname"},
    /* -- routing -- */
    {450, "4.1.2", "routing", "<bob@example.invalid>: Recipient address rejected: Domain not found"},
    {450, "4.1.8", "routing", "<alice@example.org>: Sender address rejected: Domain not found"},
    {550, "5.4.310", "routing", "DNS domain example.net does not exist [Message=InfoDomainNonexistent]"},
    {556, "5.1.10", "routing", "Recipient address has null MX"},
    {0, "5.1.2", "routing", "the domain does not exist"},
    {0, "5.1.10", "routing", "the domain takes no mail (null MX)"},
    {0, "4.4.3", "routing", "the name servers do not answer"},
    {0, "5.4.4", "routing", "the domain has no mail server and no address"},
    /* -- connection -- */
    {421, "4.3.2", "connection", "Service not available, closing transmission channel"},
    {421, "", "connection", "mx.example.net Service not available"},
    {554, "", "connection", "mx.example.net - no SMTP service here"},
    {0, "4.4.1", "connection", "cannot connect"},
    {0, "4.4.2", "connection", "the connection was lost"},
    /* -- tls -- */
    {530, "5.7.0", "tls", "Must issue a STARTTLS command first"},
    {454, "4.7.0", "tls", "TLS not available due to local problem"},
    {0, "5.7.10", "tls", "REQUIRETLS, and no server of the domain offers it"},
    {0, "4.7.5", "tls", "TLS failed"},
    {550, "5.7.30", "tls", "REQUIRETLS needed"},
    /* -- rate -- */
    {450, "4.2.1", "rate",
     "The user you are trying to contact is receiving mail at a rate that prevents additional messages from being "
     "delivered. Please resend your message at a later time."},
    {421, "4.7.28", "rate",
     "Gmail has detected an unusual rate of unsolicited mail originating from your IP address. To protect our users "
     "from spam, mail sent from your IP address has been temporarily rate limited."},
    {421, "4.7.0", "rate", "Try again later, closing connection. - gsmtp"},
    {451, "4.7.500", "rate", "Server busy. Please try again later from [192.0.2.1]. (S77719)"},
    {451, "4.7.650", "rate",
     "The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. For e-mail delivery "
     "information, see https://postmaster.live.com (S775)"},
    {421, "4.7.0", "rate",
     "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1"},
    {421, "", "rate",
     "RP-001 (COL004-MC1F5) Unfortunately, some messages from 192.0.2.1 weren't sent. The mail server "
     "IP connecting to Outlook.com has exceeded the rate limit allowed."},
    {450, "4.7.1", "rate", "<bob@example.net>: Recipient address rejected: Greylisted, see http://postgrey.example/"},
    {451, "4.7.1", "rate", "Greylisting in action, please come back later"},
    {421, "", "rate", "Too many connections, slow down. OFR004_104 [104]"},
    {421, "4.7.0", "rate", "mx.example.net Error: too many connections from 192.0.2.1"},
    {450, "4.7.1", "rate", "Error: too much mail from 192.0.2.1"},
    {550, "", "rate", "Connection frequency limited. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022"},
    {550, "5.4.5", "rate", "Daily user sending limit exceeded."},
    /* -- timeout -- */
    {421, "4.4.2", "timeout", "mx.example.net Error: timeout exceeded"},
    {421, "", "timeout", "mx.example.net: SMTP command timeout - closing connection"},
    {0, "4.4.2", "timeout", "the server did not answer in time"},
    {0, "4.4.1", "timeout", "no answer to the connection"},
    /* -- loop -- */
    {554, "5.4.6", "loop", "Error: too many hops"},
    {554, "5.4.14", "loop", "Hop count exceeded - possible mail loop ATTR34 [DB5EUR01FT030.eop.outlook.com]"},
    {554, "5.4.12", "loop", "SMTP; Hop count exceeded - possible mail loop detected on message id"},
    {0, "5.4.6", "loop", "mail for the domain loops back to this host"},
    /* -- expired -- */
    {0, "4.4.7", "expired", "not delivered within 5d: the server did not answer in time"},
    {0, "5.4.7", "expired", "delivery time expired"},
    {550, "4.4.7", "expired", "QUEUE.Expired; message expired"},
    /* -- other -- */
    {451, "4.3.0", "other", "Temporary system problem. Try later. - gsmtp"},
    {452, "4.3.1", "other", "Insufficient system storage"},
    {554, "", "other", "Transaction failed"},
    {451, "4.3.5", "other", "Server configuration problem"},
    {550, "5.0.0", "other", "failed"},
    {0, "", "other", ""},
};

static void replies_have_their_category(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        const char *got = bounce_name(bounce_classify(r->code, span_of(r->enhanced), span_of(r->text)));
        if (strcmp(got, r->category) != 0) {
            print_error("%u %s %s: got %s, expected %s\n", r->code, r->enhanced, r->text, got, r->category);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

/* Each name once, and each category met by some row. */
static void categories_are_complete(void **state) {
    (void)state;
    for (unsigned c = 0; c < BOUNCE_CATEGORIES; c++) {
        unsigned met = 0;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            met += strcmp(rows[i].category, bounce_name(c)) == 0;
        assert_true(met >= 3);
        for (unsigned d = 0; d < c; d++)
            assert_string_not_equal(bounce_name(c), bounce_name(d));
    }
    assert_string_equal(bounce_name(BOUNCE_CATEGORIES), "other");
    assert_string_equal(bounce_name((enum bounce_category)4711), "other");
}

/* Odd codes, octets and lengths: an answer, and no reading beyond the ends. */
static void anything_has_an_answer(void **state) {
    (void)state;
    static char longest[5000];
    memset(longest, 'q', sizeof longest);
    memcpy(longest + 2000, "user unknown", 12); /* beyond what is looked at */
    static const char *const enhanced[] = {"", "5", "5.", "5.1", "....", "5.1.", "9.9.9", "5.1.1.1.1.1.1.1", "5.7.x"};
    for (size_t i = 0; i < sizeof enhanced / sizeof *enhanced; i++)
        for (uint32_t code = 0; code < 1200; code += 47) {
            assert_in_range(bounce_classify(code, span_of(enhanced[i]), span_make(longest, sizeof longest)), 0,
                            BOUNCE_CATEGORIES - 1);
            assert_in_range(bounce_classify(code, span_of(enhanced[i]), SPAN("\0\xff\r\n")), 0, BOUNCE_CATEGORIES - 1);
        }
    assert_int_equal(bounce_classify(554, SPAN_EMPTY, span_make(longest, sizeof longest)), BOUNCE_OTHER);
    assert_int_equal(bounce_classify(550, SPAN("5.0.0"), SPAN("USER UNKNOWN")), BOUNCE_UNKNOWN_RECIPIENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_have_their_category),
        cmocka_unit_test(categories_are_complete),
        cmocka_unit_test(anything_has_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
