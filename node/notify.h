/*
 * notify: the door to systemd: readiness, reloading, stopping. Does nothing where systemd did not start us.
 */
#ifndef NODE_NOTIFY_H
#define NODE_NOTIFY_H

enum notify_state {
    NOTIFY_STATE_READY,
    NOTIFY_STATE_RELOADING,
    NOTIFY_STATE_STOPPING,
    NOTIFY_STATE_PAUSED, /* drained by an operator; shown by systemctl status */
    NOTIFY_STATE_RESUMED,
};
void notify_state(enum notify_state state);

#endif
