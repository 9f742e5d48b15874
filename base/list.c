/*
 * list: the ring behind struct list. The head is a node of the ring, so that no operation
 * has a special case. A node outside of any list is all zero; removal zeroes it again,
 * which is what list_is_linked reads.
 */
#include "base/list.h"
#include "base/check.h"

void list_init(struct list *l) {
    l->head.prev = l->head.next = &l->head;
    l->count = 0;
}

bool list_is_empty(const struct list *l) {
    return l->count == 0;
}

static void insert(struct list *l, struct list_node *before, struct list_node *n) {
    CHECK(!n->next);
    n->prev = before->prev;
    n->next = before;
    before->prev->next = n;
    before->prev = n;
    l->count++;
}

void list_push_back(struct list *l, struct list_node *n) {
    insert(l, &l->head, n);
}

void list_push_front(struct list *l, struct list_node *n) {
    insert(l, l->head.next, n);
}

struct list_node *list_first(const struct list *l) {
    return l->count ? l->head.next : NULL;
}

struct list_node *list_last(const struct list *l) {
    return l->count ? l->head.prev : NULL;
}

struct list_node *list_pop_front(struct list *l) {
    struct list_node *n = list_first(l);
    if (n)
        list_remove(l, n);
    return n;
}

void list_remove(struct list *l, struct list_node *n) {
    CHECK(n->next && l->count);
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = NULL;
    l->count--;
}

bool list_is_linked(const struct list_node *n) {
    return n->next != NULL;
}
