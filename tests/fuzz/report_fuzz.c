/*
 * Fuzzes reports: whatever strangers wrote into addresses, replies, ORCPT, ENVID and the original, and whatever stands
 * in a template that the checker took, the report is made of whole lines of bounded length without control characters
 * outside the returned original; and recognising and classifying end.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "base/utf8.h"
#include "proto/bounce.h"
#include "scheduler/dsn_auto.h"
#include "scheduler/dsn_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_lines(struct span s) {
    size_t column = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.at[i] == '\r') {
            CHECK(i + 1 < s.len && s.at[i + 1] == '\n');
            i++;
            column = 0;
            continue;
        }
        CHECK(s.at[i] != '\n' && s.at[i] != '\0');
        CHECK(++column <= 998);
    }
    CHECK(column == 0);
}

static void compose(struct span in, enum dsn_kind kind, struct span template, struct span sender) {
    struct dsn_recipient r = {.address = in,
                              .orcpt = in,
                              .original = in,
                              .enhanced = span_first(in, 5),
                              .text = in,
                              .remote = in,
                              .code = (uint32_t)(in.len * 7 % 700)};
    struct dsn d = {.kind = kind,
                    .hostname = SPAN("mx.example.test"),
                    .postmaster = SPAN("postmaster@example.test"),
                    .sender = sender,
                    .envid = in,
                    .size = in.len,
                    .ret = DSN_RET_FULL,
                    .smtputf8 = in.len % 2,
                    .template = {.language = (enum dsn_language)(in.len % DSN_LANGUAGES), .text = template},
                    .recipients = &r,
                    .count = 1,
                    .content = in};
    struct buf to;
    struct dsn_form form;
    buf_init(&to, 4u << 20);
    CHECK(dsn_compose(&d, &to, &form) == ERR_OK);
    check_lines(buf_span(&to));
    CHECK(form.eight_bit == !utf8_is_ascii(buf_span(&to)));
    buf_deinit(&to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct span in = span_make(data, size);
    struct buf problems;
    buf_init(&problems, 16u << 20);
    bool fine = dsn_template_check("t", in, &problems) == ERR_OK;
    CHECK(fine == (buf_len(&problems) == 0));
    buf_deinit(&problems);
    CHECK(dsn_recognise(in) < DSN_AUTO_KINDS);
    CHECK(bounce_classify((uint32_t)(size * 13 % 700), span_first(in, 7), in) < BOUNCE_CATEGORIES);
    if (size > 65536)
        return 0;
    for (int kind = DSN_FAILED; kind <= DSN_DELIVERED; kind++) {
        compose(in, (enum dsn_kind)kind, SPAN_EMPTY, SPAN("a@sender.test"));
        compose(in, (enum dsn_kind)kind, fine ? in : SPAN_EMPTY, SPAN("\xc3\xa4@sender.test"));
    }
    return 0;
}
