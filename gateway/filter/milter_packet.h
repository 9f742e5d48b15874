/*
 * milter_packet: the octets of the Sendmail mail filter protocol: a length of four octets, a letter, data. Pure: packs
 * into a buffer, unpacks from spans, holds nothing. Every length that a filter sends is checked here.
 */
#ifndef GATEWAY_FILTER_MILTER_PACKET_H
#define GATEWAY_FILTER_MILTER_PACKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define MILTER_CHUNK 65535u              /* data that a filter takes in one packet */
#define MILTER_PACKET_MAX (128u * 1024u) /* letter and data of a packet from a filter; more is refused */
#define MILTER_VERSION 6u
#define MILTER_VERSION_MIN 2u

enum milter_command {
    MILTER_ABORT = 'A',
    MILTER_BODY = 'B',
    MILTER_CONNECT = 'C',
    MILTER_MACRO = 'D',
    MILTER_BODYEOB = 'E',
    MILTER_HELO = 'H',
    MILTER_HEADER = 'L',
    MILTER_MAIL = 'M',
    MILTER_EOH = 'N',
    MILTER_OPTNEG = 'O',
    MILTER_QUIT = 'Q',
    MILTER_RCPT = 'R',
    MILTER_DATA = 'T',
};
enum milter_reply {
    MILTER_R_ADDRCPT = '+',
    MILTER_R_DELRCPT = '-',
    MILTER_R_ADDRCPT_PAR = '2',
    MILTER_R_SHUTDOWN = '4',
    MILTER_R_ACCEPT = 'a',
    MILTER_R_REPLBODY = 'b',
    MILTER_R_CONTINUE = 'c',
    MILTER_R_DISCARD = 'd',
    MILTER_R_CHGFROM = 'e',
    MILTER_R_CONN_FAIL = 'f',
    MILTER_R_ADDHEADER = 'h',
    MILTER_R_INSHEADER = 'i',
    MILTER_R_CHGHEADER = 'm',
    MILTER_R_PROGRESS = 'p',
    MILTER_R_QUARANTINE = 'q',
    MILTER_R_REJECT = 'r',
    MILTER_R_SKIP = 's',
    MILTER_R_TEMPFAIL = 't',
    MILTER_R_REPLYCODE = 'y',
};
/* What a filter may do. */
enum {
    MILTER_CAN_ADD_HEADERS = 0x1,
    MILTER_CAN_CHANGE_BODY = 0x2,
    MILTER_CAN_ADD_RECIPIENTS = 0x4,
    MILTER_CAN_DELETE_RECIPIENTS = 0x8,
    MILTER_CAN_CHANGE_HEADERS = 0x10,
    MILTER_CAN_QUARANTINE = 0x20,
    MILTER_CAN_CHANGE_SENDER = 0x40,
    MILTER_CAN_ADD_RECIPIENTS_WITH_ARGUMENTS = 0x80,
    MILTER_CAN_NAME_MACROS = 0x100,
};
/* What a filter does not want to hear (NO), or does not answer (NR). */
enum {
    MILTER_NO_CONNECT = 0x1,
    MILTER_NO_HELO = 0x2,
    MILTER_NO_MAIL = 0x4,
    MILTER_NO_RCPT = 0x8,
    MILTER_NO_BODY = 0x10,
    MILTER_NO_HEADERS = 0x20,
    MILTER_NO_EOH = 0x40,
    MILTER_NR_HEADER = 0x80,
    MILTER_NO_UNKNOWN = 0x100,
    MILTER_NO_DATA = 0x200,
    MILTER_SKIP = 0x400,
    MILTER_RCPT_REJECTED = 0x800,
    MILTER_NR_CONNECT = 0x1000,
    MILTER_NR_HELO = 0x2000,
    MILTER_NR_MAIL = 0x4000,
    MILTER_NR_RCPT = 0x8000,
    MILTER_NR_DATA = 0x10000,
    MILTER_NR_UNKNOWN = 0x20000,
    MILTER_NR_EOH = 0x40000,
    MILTER_NR_BODY = 0x80000,
    MILTER_LEADING_SPACE = 0x100000,
};
/* Stages of which a filter may name the macros that it wants; the numbers are the protocol's. */
enum milter_list {
    MILTER_LIST_CONNECT,
    MILTER_LIST_HELO,
    MILTER_LIST_MAIL,
    MILTER_LIST_RCPT,
    MILTER_LIST_DATA,
    MILTER_LIST_EOM,
    MILTER_LIST_EOH,
    MILTER_LISTS,
};

/* -- packing; errors show in to->err -- */
/* Begins a packet; its place is for milter_pack_end, which writes the length. */
size_t milter_pack_begin(struct buf *to, char command);
void milter_pack_end(struct buf *to, size_t place);
/* A string with its final NUL. A NUL inside becomes a space, CRLF becomes LF, and it is cut at `most` octets. */
void milter_pack_string(struct buf *to, struct span s, size_t most);
void milter_pack_u32(struct buf *to, uint32_t n);
void milter_pack_plain(struct buf *to, char command);
void milter_pack_options(struct buf *to, uint32_t version, uint32_t actions, uint32_t protocol);
/* family: '4', '6', 'L' (unix) or 'U' (unknown: neither port nor address are sent). */
void milter_pack_connect(struct buf *to, struct span host, char family, uint16_t port, struct span address);

/* -- unpacking -- */
struct milter_packet {
    char command;
    struct span data; /* in the input */
};
/* ERR_OK and octets used; ERR_AGAIN: not whole yet; ERR_INVALID: length 0 or over MILTER_PACKET_MAX. */
int milter_unpack(struct span in, struct milter_packet *p, size_t *used) MUST_CHECK;

struct milter_options {
    uint32_t version, actions, protocol;
    struct span lists[MILTER_LISTS]; /* names with spaces between; .at NULL: not given */
};
int milter_unpack_options(struct span data, struct milter_options *o) MUST_CHECK; /* ERR_INVALID */
struct milter_field {
    uint32_t index; /* 0 when there is none in the packet */
    struct span name, value;
};
/* Name and value, behind an index when has_index. ERR_INVALID. */
int milter_unpack_field(struct span data, bool has_index, struct milter_field *f) MUST_CHECK;

#define MILTER_TEXT_MAX 400u
struct milter_answer {
    uint16_t code;                  /* 400..599 */
    char enhanced[12];              /* "5.7.1"; "" when none was given */
    char text[MILTER_TEXT_MAX + 1]; /* printable ASCII, lines joined by a space */
};
/* The data of a REPLYCODE. ERR_INVALID: no code of 4yz or 5yz, mixed codes. */
int milter_unpack_answer(struct span data, struct milter_answer *a) MUST_CHECK;

#endif
