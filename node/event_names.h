/*
 * event_names: the names of all events from level info on, as settings may name them. A test compares the list, and
 * docs/events.md, with the source.
 */
#ifndef NODE_EVENT_NAMES_H
#define NODE_EVENT_NAMES_H

#include <stdbool.h>

#include "base/span.h"

bool event_is_known(struct span name);

#endif
