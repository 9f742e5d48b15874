/*
 * notify: see notify.h (sd_notify(3)). RELOADING carries the monotonic time that Type=notify-reload wants.
 */
#include "node/notify.h"

#include <systemd/sd-daemon.h>

#include "base/clock.h"

void notify_state(enum notify_state state) {
    switch (state) {
    case NOTIFY_STATE_READY:
        sd_notify(0, "READY=1");
        return;
    case NOTIFY_STATE_RELOADING:
        sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_mono_us());
        return;
    case NOTIFY_STATE_STOPPING:
        sd_notify(0, "STOPPING=1");
        return;
    case NOTIFY_STATE_PAUSED:
        sd_notify(0, "STATUS=draining: an operator has drained this node");
        return;
    case NOTIFY_STATE_RESUMED:
        sd_notify(0, "STATUS=");
        return;
    }
}
