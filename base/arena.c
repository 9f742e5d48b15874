/*
 * arena: bump allocation in blocks that are freed together. The newest ordinary block is
 * the head; an allocation that would waste most of a block gets one of its own behind the
 * head, so that the rest of the head stays in use.
 *
 * One arena belongs to one life and one thread. Its maximum counts what was taken from the
 * heap, block headers included, because that is what the machine pays.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

enum { ARENA_ALIGN = 16, ARENA_BLOCK_MIN = 128 };

struct arena_block {
    struct arena_block *next;
    size_t cap; /* bytes in mem */
    size_t used;
    _Alignas(ARENA_ALIGN) char mem[];
};

void arena_init(struct arena *a, size_t block_size, size_t max) {
    size_t least = sizeof(struct arena_block) + ARENA_BLOCK_MIN;
    *a = (struct arena){.block_size = block_size > least ? block_size : least, .max = max ? max : SIZE_MAX};
}

static void free_chain(struct arena_block *block) {
    while (block) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
}

void arena_deinit(struct arena *a) {
    free_chain(a->head);
    a->head = NULL;
    a->used = 0;
}

void arena_reset(struct arena *a) {
    struct arena_block *keep = a->head;
    if (!keep)
        return;
    free_chain(keep->next);
    keep->next = NULL;
    keep->used = 0;
    a->used = sizeof *keep + keep->cap;
}

static struct arena_block *block_new(struct arena *a, size_t cap) {
    size_t size;
    if (__builtin_add_overflow(cap, sizeof(struct arena_block), &size) || size > a->max - a->used)
        return NULL;
    struct arena_block *block = malloc(size);
    if (!block)
        return NULL;
    *block = (struct arena_block){.cap = cap};
    a->used += size;
    return block;
}

static void *alloc_slow(struct arena *a, size_t size) {
    size_t ordinary = a->block_size - sizeof(struct arena_block);
    bool own = size > ordinary / 2;
    struct arena_block *block = block_new(a, own ? size : ordinary);
    if (!block && !own) /* near the maximum: what is asked may fit where a block does not */
        block = block_new(a, size);
    if (!block)
        return NULL;
    if (own && a->head) {
        block->next = a->head->next;
        a->head->next = block;
    } else {
        block->next = a->head;
        a->head = block;
    }
    block->used = size;
    return block->mem;
}

void *arena_alloc(struct arena *a, size_t size) {
    if (size > SIZE_MAX - ARENA_ALIGN)
        return NULL;
    size = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (size == 0)
        size = ARENA_ALIGN;
    struct arena_block *head = a->head;
    if (head && size <= head->cap - head->used) {
        void *mem = head->mem + head->used;
        head->used += size;
        return mem;
    }
    return alloc_slow(a, size);
}

void *arena_calloc(struct arena *a, size_t n, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(n, size, &total))
        return NULL;
    void *mem = arena_alloc(a, total);
    if (mem)
        memset(mem, 0, total);
    return mem;
}

struct span arena_dup(struct arena *a, struct span s) {
    char *mem = s.len < SIZE_MAX ? arena_alloc(a, s.len + 1) : NULL;
    if (!mem)
        return SPAN_EMPTY;
    if (s.len)
        memcpy(mem, s.at, s.len);
    mem[s.len] = '\0';
    return (struct span){mem, s.len};
}

char *arena_strdup(struct arena *a, const char *text) {
    return (char *)arena_dup(a, span_of(text)).at;
}

char *arena_printf(struct arena *a, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *mem = len >= 0 ? arena_alloc(a, (size_t)len + 1) : NULL;
    if (mem)
        vsnprintf(mem, (size_t)len + 1, format, again);
    va_end(again);
    return mem;
}
