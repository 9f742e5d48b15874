/*
 * table_check: see table_check.h. Names become keys (the local part without its quotes), targets are only judged. What
 * is refused here is what could be read in two ways later: local parts that smell of relaying, names that lead to
 * themselves, things that are no addresses.
 *
 * Pure: problems go to the caller, who knows file and line.
 */
#include "gateway/directory/table_check.h"

bool table_unquote(struct span local, char to[ADDRESS_LOCAL_MAX], struct span *key, bool *indirect, struct arena *mem) {
    char text[ADDRESS_PATH_MAX];
    struct address a;
    if (local.len > ADDRESS_LOCAL_MAX)
        return false;
    memcpy(text, local.at, local.len);
    memcpy(text + local.len, "@x", 2);
    if (address_parse(&a, span_make(text, local.len + 2), mem) != ERR_OK)
        return false;
    memcpy(to, a.key.at, a.key.len);
    *key = span_make(to, a.key.len);
    *indirect = address_is_indirect(&a);
    return true;
}

/* A target that is the name itself is a loop. */
static void check_target(struct table_check *c, struct span target, struct span key, struct span own, bool catch_all) {
    char text[ADDRESS_PATH_MAX + 2];
    bool whole = table_target_has_domain(target);
    struct address a;
    if (target.len == 0 || target.len >= sizeof text - 2) {
        c->problem(c->arg, target.len ? "too long for an address" : "an empty target", span_first(target, 40));
        return;
    }
    memcpy(text, target.at, target.len);
    if (!whole)
        memcpy(text + target.len, "@x", 2);
    int err = address_parse(&a, span_make(text, target.len + (whole ? 0 : 2)), c->scratch);
    if (err) {
        c->problem(c->arg, err == ERR_NOMEM ? err_text(err) : "not a mail address", target);
        return;
    }
    if (!whole && address_is_indirect(&a))
        c->problem(c->arg, "'%', '!' and '@' are not taken in local parts of ours", target);
    bool same_domain = !whole || (own.len && span_eq(a.domain, own));
    if (!catch_all && same_domain && span_eq_nocase(a.key, key))
        c->problem(c->arg, "leads to itself (to keep a copy, write '>>')", target);
}

void table_check_targets(struct table_check *c, struct span targets, struct span key, struct span own, bool catch_all) {
    struct span target;
    size_t count = 0;
    if (targets.at[targets.len - 1] == ',')
        c->problem(c->arg, "an empty target", SPAN_EMPTY);
    while (table_next_target(&targets, &target)) {
        if (++count > TABLE_TARGETS_MAX) {
            c->problem(c->arg, "more than 1000 targets", SPAN_EMPTY);
            return;
        }
        check_target(c, target, key, own, catch_all);
        arena_reset(c->scratch);
    }
}

bool table_check_key(struct table_check *c, const struct table_line *line, char memory[ADDRESS_LOCAL_MAX],
                     struct span *key) {
    bool indirect = false;
    *key = line->local;
    if (line->catch_all)
        return true;
    bool ok = line->plain ? line->local.len <= ADDRESS_LOCAL_MAX
                          : table_unquote(line->local, memory, key, &indirect, c->scratch);
    if (!ok)
        c->problem(c->arg, line->local.len > ADDRESS_LOCAL_MAX ? "longer than 64 octets" : "not a local part",
                   line->local);
    else if (indirect)
        c->problem(c->arg, "'%', '!' and '@' are not taken in local parts of ours", line->local);
    return ok && !indirect;
}
