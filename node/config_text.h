/*
 * config_text: settings as operators are shown them: the document that was read, as YAML again, without its comments
 * and with every secret blanked; and how two of them differ. Nothing is added: what the file does not say has its
 * default.
 */
#ifndef NODE_CONFIG_TEXT_H
#define NODE_CONFIG_TEXT_H

#include "base/arena.h"
#include "base/buf.h"
#include "node/yaml.h"

#define CONFIG_TEXT_MAX (1024u * 1024u) /* octets of text that are shown */
#define CONFIG_LINES_MAX 1000000u

struct config_line {
    struct span text;
    uint64_t hash; /* of the text with its secrets: equal only when those are */
};
struct config_lines {
    struct config_line *at;
    size_t count, cap;
    uint64_t seed; /* of the hashes; the same for two that are compared */
};
/* The lines of a document, in memory of mem. ERR_NOMEM, ERR_FULL. */
int config_lines_make(struct config_lines *to, const struct yaml *document, uint64_t seed,
                      struct arena *mem) MUST_CHECK;
/* All lines, as text. ERR_FULL: over the bound of `to`. */
int config_text_show(const struct config_lines *lines, struct buf *to) MUST_CHECK;
/* What is in a and not in b ("-"), and the other way round ("+"), with some lines around; nothing when they are equal.
 * A changed secret shows as a line that is replaced by the same line. ERR_FULL, ERR_NOMEM. */
int config_text_diff(const struct config_lines *a, const struct config_lines *b, struct buf *to) MUST_CHECK;

#endif
