/*
 * dsn_text: the part of a report that people read: what happened, to whom, why, and what they can do.
 *
 * The reader is somebody who sent a mail, not an operator. So: plain sentences first, the remote host's own words
 * after them, and advice that fits the status code. Long lists are cut; the part for programs has all.
 */
#include "base/clock.h"
#include "base/units.h"
#include "scheduler/dsn_part.h"

#define LISTED_MAX 50u
#define WORDS_MAX 600u /* octets of a remote text that are shown */
#define LINE_WIDTH 72u

struct advice {
    const char *status; /* the code, without its class; ends with a dot: all codes that begin so */
    const char *what, *then;
};

/* The first that fits counts. */
static const struct advice advices[] = {
    {"1.1", "There is no such mailbox there.", "Please check the spelling of the address."},
    {"1.2", "The domain of the address does not exist.", "Please check the part after the @."},
    {"1.3", "The address is not written correctly.", "Please check the address."},
    {"1.6", "The mailbox has moved.", "Please ask for the new address by other means."},
    {"1.10", "The domain accepts no mail at all.", "Please check the part after the @."},
    {"1.", "There is something wrong with the address.", "Please check it."},
    {"2.1", "The mailbox is closed.", "Please reach the recipient by other means."},
    {"2.2", "The mailbox is full.", "The recipient must make room before mail can arrive."},
    {"2.3", "The message is too large for this mailbox.", "Please send a smaller message, or a link."},
    {"2.", "There is a problem with the mailbox.", "Please reach the recipient by other means."},
    {"3.4", "The message is too large for the receiving system.", "Please send a smaller message, or a link."},
    {"3.", "There is a problem with the receiving mail system.", "Please try again later."},
    {"4.4", "The receiving mail system cannot be found.", "Please check the part after the @."},
    {"4.6", "The message went in a circle.", "The administrator of the recipient's domain must mend this."},
    {"4.7", "The receiving mail system could not be reached, or did not take the message, in all this time.",
     "Please check the address, or try again later."},
    {"4.", "The receiving mail system cannot be reached.", "Please try again later."},
    {"5.3", "The message has too many recipients.", "Please send it to fewer at a time."},
    {"6.7", "The receiving mail system cannot handle addresses in other than Latin letters.",
     "Please use an address in plain ASCII, if there is one."},
    {"6.", "The receiving mail system cannot handle this kind of content.", "Please send it in another form."},
    {"7.10", "The sender asked that this message travel only over encrypted, verified connections.",
     "There is none to the recipient's mail system. Send it without that request if you accept it."},
    {"7.", "The receiving mail system refuses the message by its rules.",
     "The words below may say why; the recipient or their administrator can change it."},
    {"", "The receiving mail system did not accept the message.", "The words below may say why."},
};

static const struct advice *advice_for(struct span status) {
    struct span detail = span_from(status, 2);
    size_t i = 0;
    for (; advices[i].status[0]; i++) {
        struct span s = span_of(advices[i].status);
        bool whole = s.at[s.len - 1] != '.';
        if (whole ? span_eq(detail, s) : detail.len >= s.len && span_eq(span_first(detail, s.len), s))
            break;
    }
    return &advices[i];
}

const char *dsn_subject(enum dsn_kind kind) {
    return kind == DSN_FAILED    ? "Your message could not be delivered"
           : kind == DSN_DELAYED ? "Your message is delayed"
                                 : "Your message was delivered";
}

/* Appends s in lines of LINE_WIDTH, broken at spaces, indented. s holds no line ends. */
static void add_paragraph(struct buf *b, const char *indent, struct span s) {
    size_t width = LINE_WIDTH - strlen(indent);
    s = span_trim(s);
    while (s.len) {
        size_t n = s.len;
        if (n > width) {
            n = width;
            while (n > 0 && s.at[n] != ' ')
                n--;
            if (n == 0) /* one long word */
                for (n = width; n < s.len && n < 900 && s.at[n] != ' ';)
                    n++;
            while (n < s.len && n >= 900 && ((unsigned char)s.at[n] & 0xc0) == 0x80)
                n--;
        }
        buf_add_str(b, indent);
        buf_add(b, span_trim(span_first(s, n)));
        buf_add_str(b, "\r\n");
        s = span_trim(span_from(s, n));
    }
}

static void add_sentence(struct buf *b, const char *indent, const char *text) {
    add_paragraph(b, indent, span_of(text));
}

/* "mx.example.net said:" and the words, cleaned. */
static void add_words(struct buf *b, const struct dsn_recipient *r) {
    struct buf line;
    buf_init(&line, 8192);
    if (r->remote.len && r->code)
        dsn_add_clean(&line, r->remote, 300, false);
    else
        buf_add_str(&line, "Our system");
    buf_add_str(&line, " said: ");
    if (r->code)
        buf_printf(&line, "%u ", r->code);
    dsn_add_clean(&line, r->text, WORDS_MAX, false);
    add_paragraph(b, "    ", buf_span(&line));
    if (line.err != ERR_OK && b->err == ERR_OK)
        b->err = line.err;
    buf_deinit(&line);
}

static void add_recipient(struct buf *b, const struct dsn *d, const struct dsn_recipient *r) {
    buf_add_str(b, "\r\n<");
    dsn_add_clean(b, r->address, 320, false);
    buf_add_byte(b, '>');
    if (r->original.len) {
        buf_add_str(b, ", to whom your mail to <");
        dsn_add_clean(b, r->original, 320, false);
        buf_add_str(b, "> goes");
    }
    buf_add_str(b, "\r\n");
    struct span status = dsn_status_of(d, r);
    if (d->kind == DSN_DELIVERED) {
        add_sentence(b, "    ",
                     r->relayed ? "The message was handed to the next mail system, which sends no notices of "
                                  "delivery. If it fails there, you may still hear of it."
                                : "The message was delivered.");
        return;
    }
    const struct advice *a = advice_for(status);
    add_sentence(b, "    ", a->what);
    if (d->kind == DSN_FAILED)
        add_sentence(b, "    ", a->then);
    if (r->text.len || r->code)
        add_words(b, r);
}

static void add_opening(struct buf *b, const struct dsn *d) {
    char arrived[32], until[32], waited[32];
    clock_rfc5322(d->received_ms, arrived, sizeof arrived);
    buf_add_str(b, "This is the mail system at ");
    buf_add(b, d->hostname);
    buf_add_str(b, ".\r\n\r\n");
    switch (d->kind) {
    case DSN_FAILED:
        buf_printf(b, "Your message, which we received on\r\n%s,\r\n", arrived);
        add_sentence(b, "",
                     d->count > 1 ? "could not be delivered to the recipients below. We will not try again."
                                  : "could not be delivered to the recipient below. We will not try again.");
        return;
    case DSN_DELAYED:
        clock_rfc5322(d->retry_until_ms, until, sizeof until);
        units_format_duration(d->now_ms > d->received_ms ? d->now_ms - d->received_ms : 0, waited, sizeof waited);
        buf_printf(b, "Your message, which we received on\r\n%s,\r\nhas not been delivered yet, after %s.\r\n\r\n",
                   arrived, waited);
        buf_printf(b,
                   "You need do nothing: we keep trying until\r\n%s.\r\nShould it not be delivered by then, "
                   "we will tell you.\r\n",
                   until);
        return;
    case DSN_DELIVERED:
        buf_printf(b, "You asked to be told of the delivery of your message, which we\r\nreceived on %s.\r\n", arrived);
        return;
    }
}

void dsn_add_text(struct buf *b, const struct dsn *d) {
    add_opening(b, d);
    uint32_t listed = d->count < LISTED_MAX ? d->count : LISTED_MAX;
    for (uint32_t i = 0; i < listed; i++)
        add_recipient(b, d, &d->recipients[i]);
    if (listed < d->count)
        buf_printf(b, "\r\nand %u more: the attached report lists them all.\r\n", d->count - listed);
    buf_add_str(b, "\r\n");
    add_sentence(b, "",
                 d->kind == DSN_FAILED && d->ret == DSN_RET_FULL && d->size <= DSN_FULL_MAX
                     ? "Your message is attached."
                     : "The header of your message is attached.");
    if (d->postmaster.len) {
        buf_add_str(b, "If you need help, write to ");
        dsn_add_clean(b, d->postmaster, 320, false);
        buf_add_str(b, "\r\nand send this notice along.\r\n");
    }
}
