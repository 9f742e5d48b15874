/*
 * policy_words: the texts of the policy delegation protocol: a question from facts, an action from an answer. Pure.
 */
#ifndef GATEWAY_FILTER_POLICY_WORDS_H
#define GATEWAY_FILTER_POLICY_WORDS_H

#include "gateway/filter/check.h"

#define POLICY_QUESTION_MAX (32u * 1024u)
#define POLICY_ANSWER_MAX (16u * 1024u)
#define POLICY_TEXT_MAX 512u

/* Attributes as Postfix sends them, with the empty line. Errors show in to->err. */
void policy_ask(struct buf *to, enum check_stage stage, const struct check_facts *f);

enum policy_kind { POLICY_PASS, POLICY_REFUSE, POLICY_DISCARD, POLICY_PREPEND, POLICY_WARN, POLICY_INFO };
struct policy_action {
    enum policy_kind kind;
    uint16_t code; /* POLICY_REFUSE */
    struct span enhanced;
    struct span text; /* what follows the word; in the answer */
};
/* Finds the empty line that ends an answer. ERR_OK and octets used; ERR_AGAIN: not whole; ERR_INVALID: not an answer
 * (no action, two of them, an unknown one, a line that is no attribute, too long). */
int policy_answer(struct span in, struct policy_action *a, size_t *used) MUST_CHECK;

#endif
