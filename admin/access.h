/*
 * access: who may ask what: the table of all verbs of the RPC (proto/admin.proto), with the role that each needs,
 * whether it changes anything, and who answers it.
 *
 *   viewer     questions
 *   operator   and changes of the queue, the words of messages, live dialogues
 *   admin      and changes of the node: drain, settings, log level
 *
 * A verb that is not in the table is for nobody.
 */
#ifndef ADMIN_ACCESS_H
#define ADMIN_ACCESS_H

#include "proto/admin.pb-c.h"
#include "proto/frame.h"

enum admin_role { ADMIN_ROLE_NONE, ADMIN_ROLE_VIEWER, ADMIN_ROLE_OPERATOR, ADMIN_ROLE_ADMIN };

#define ACCESS_ALL 0u          /* all roles of the node answer */
#define ACCESS_NODE UINT32_MAX /* the node itself answers */
struct access_verb {
    Words__AdminVerb verb;
    const char *name;     /* as the tool has it: "config reload" */
    enum admin_role role; /* NONE: from outside nobody */
    bool change;          /* it is audited */
    bool dry;             /* and can be tried without a change */
    uint32_t answers;     /* enum frame_role, ACCESS_ALL or ACCESS_NODE */
};
/* NULL: no such verb. */
const struct access_verb *access_verb(uint32_t verb);
/* Of this very request: what is harmless in general may not be so here. NONE: nobody may. */
enum admin_role access_needed(const Words__AdminRequest *q);
/* Does it change anything? A dry run does not, where there is one. */
bool access_is_change(const Words__AdminRequest *q);
const char *access_role_name(unsigned role);
const char *access_stage_name(uint32_t stage); /* of AdminAudit */

#endif
