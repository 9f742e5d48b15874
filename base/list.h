/*
 * list: intrusive doubly linked list. The node sits in the struct; the list owns nothing.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *prev, *next; /* NULL, NULL when in no list */
};
struct list {
    struct list_node head; /* ring through the head */
    size_t count;
};

#define LIST_ENTRY(node, type, member) ((type *)((char *)(node)-offsetof(type, member)))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
/* Safe against removal of the current node. */
#define LIST_FOREACH(it, tmp, list_)                                                                                   \
    for (struct list_node *it = (list_)->head.next, *tmp = it->next; it != &(list_)->head; it = tmp, tmp = it->next)

void list_init(struct list *l);
bool list_is_empty(const struct list *l);
void list_push_back(struct list *l, struct list_node *n);
void list_push_front(struct list *l, struct list_node *n);
/* NULL when empty. */
struct list_node *list_first(const struct list *l);
struct list_node *list_last(const struct list *l);
struct list_node *list_pop_front(struct list *l);
/* n must be in l. */
void list_remove(struct list *l, struct list_node *n);
/* True when the node is in some list (nodes must start zeroed). */
bool list_is_linked(const struct list_node *n);

#endif
