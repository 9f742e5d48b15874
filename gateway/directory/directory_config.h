/*
 * directory_config: the settings of a directory as values: defaults, copies, comparison. Inner to the directory.
 */
#ifndef GATEWAY_DIRECTORY_DIRECTORY_CONFIG_H
#define GATEWAY_DIRECTORY_DIRECTORY_CONFIG_H

#include "gateway/directory/directory.h"

/* Puts the defaults where 0 stands. */
void directory_config_default(struct directory_config *c);
/* A copy with its own texts. ERR_NOMEM. */
int directory_config_copy(struct directory_config *to, const struct directory_config *from,
                          struct arena *mem) MUST_CHECK;
bool directory_config_eq(const struct directory_config *a, const struct directory_config *b);

#endif
