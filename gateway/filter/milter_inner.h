/*
 * milter_inner: what the files of the milter share: the filters of a session (milter.c), the conversation with one of
 * them (milter_conn.c), and the macros (milter_macro.c).
 */
#ifndef GATEWAY_FILTER_MILTER_INNER_H
#define GATEWAY_FILTER_MILTER_INNER_H

#include "gateway/filter/milter.h"
#include "gateway/filter/milter_change.h"
#include "gateway/filter/milter_packet.h"

/*
 * Transitions:
 *   OUT -> CONNECTING -> NEGOTIATING -> READY
 *   READY -> OUT      the filter closed between transactions; the next stage connects anew
 *   READY -> LEFT     it accepted the whole session
 *   any but LEFT -> FAILED
 */
enum milter_state {
    MILTER_OUT,
    MILTER_CONNECTING,
    MILTER_NEGOTIATING,
    MILTER_READY,
    MILTER_LEFT,
    MILTER_FAILED,
};
/* What the filter has heard of the session. */
enum milter_told { TOLD_NOTHING, TOLD_CONNECT, TOLD_HELO, TOLD_MAIL };
/* How far CHECK_END has come. */
enum milter_part { PART_HEADER, PART_EOH, PART_BODY, PART_EOB, PART_OVER };

struct milter_conn {
    struct milters *owner;
    const struct milter_config *config;
    struct tcp *tcp;
    enum milter_state state;
    enum milter_told told;
    uint32_t version, actions, protocol;
    char *lists[MILTER_LISTS]; /* heap: macros that it asked for */
    bool skipped;              /* the operator leaves it out for this client */
    bool message_done;         /* it accepted the message */
    /* the stage under way */
    char awaiting; /* the command of which the reply is due; 0: none */
    bool draining; /* waits for the write queue */
    bool stage_said;
    enum milter_part part;
    uint64_t place;    /* field or octet of the body that comes next */
    uint64_t deadline; /* for all of a command, however much progress is told */
};

struct milters {
    struct check_wait wait; /* first */
    struct loop *loop;
    struct loop_timer *timer;
    size_t count;
    struct milter_conn conns[MILTERS_MAX];
    /* the check under way */
    bool busy;
    size_t at;
    enum check_stage stage;
    const struct check_facts *facts;
    struct held *held;
    check_cb cb;
    void *arg;
    struct buf out;
    struct milter_changes changes;
    struct check_verdict verdict;
    struct milter_answer answer;
    char by[80];
};

/* -- milter_conn.c: one filter -- */
enum milter_turn {
    TURN_AGAIN,  /* it waits for the filter */
    TURN_PASS,   /* the filter has nothing against this stage */
    TURN_JUDGED, /* m->verdict says it */
};
void milter_conn_begin(struct milter_conn *f);          /* a new stage */
enum milter_turn milter_conn_go(struct milter_conn *f); /* goes on as far as it can */
enum milter_turn milter_conn_timed_out(struct milter_conn *f);
void milter_conn_abort(struct milter_conn *f); /* the transaction is over */
void milter_conn_drop(struct milter_conn *f);  /* closes at once; the next stage connects anew */
void milter_conn_free(struct milter_conn *f);

/* The timer runs for what it waits for now. */
void milter_conn_wait(struct milter_conn *f);

/* -- milter_say.c: words for it -- */
/* Says the command unless the filter does not want it; f->awaiting is set when it will answer. NULL, or why not. */
const char *milter_say(struct milter_conn *f, char command);
/* Writes what m->out holds. NULL, or why not. */
const char *milter_flush(struct milter_conn *f);

/* -- milter.c -- */
/* A turn that an event has brought. Nothing of the session may be touched afterwards. */
void milters_resume(struct milters *m, enum milter_turn turn);
/* The verdict of the check under way, if it is this filter's turn. */
void milters_refuse(struct milter_conn *f, uint16_t code, const char *enhanced, const char *text);
void milters_count_failure(void);

/* -- milter_macro.c -- */
/* named: the filter's own list, or NULL. */
void milter_pack_macros(struct buf *to, const char *named, enum milter_list list, char command,
                        const struct check_facts *f);

#endif
