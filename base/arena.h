/*
 * arena: memory tied to one life (a transaction, a job, a reload). Allocated piece by
 * piece, freed at once. It has a maximum.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/span.h"

struct arena_block;
struct arena {
    struct arena_block *head; /* newest block */
    size_t block_size;        /* bytes of an ordinary block */
    size_t used;              /* bytes allocated from the heap over all blocks */
    size_t max;               /* most bytes from the heap */
};

/* max 0 means: no more than SIZE_MAX. Allocates nothing yet. */
void arena_init(struct arena *a, size_t block_size, size_t max);
void arena_deinit(struct arena *a);
/* Frees all but one block and starts anew. */
void arena_reset(struct arena *a);
/* 16-byte aligned, not cleared; NULL when over max or out of memory. */
void *arena_alloc(struct arena *a, size_t size);
/* The same, zeroed. n * size must not overflow (then NULL). */
void *arena_calloc(struct arena *a, size_t n, size_t size);
/* A copy, with a NUL behind it that is not counted; .at == NULL when out of memory. */
struct span arena_dup(struct arena *a, struct span s);
char *arena_strdup(struct arena *a, const char *text);
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
