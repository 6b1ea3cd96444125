/* An incremental parser of one SSE response: HTTP/1.x head, chunked or close-delimited body, event blocks.
 *
 * The bytes may be cut anywhere: between events, inside a line, inside a chunk's size. Only the first KEPT
 * bytes of an incomplete line are buffered, so a stream costs a few hundred bytes whatever its events' size.
 * Lines end with LF or CRLF (WHATWG HTML §9.2.5 also allows a lone CR, which no server here sends).
 */
#ifndef PARSER_H
#define PARSER_H

#include <stddef.h>
#include <stdint.h>

#define PARSER_KEPT 224
#define PARSER_ID 64

enum parser_state {
    PARSER_HEAD,      /* status line and header lines */
    PARSER_SIZE,      /* a chunk's size line */
    PARSER_CHUNK,     /* inside a chunk's data */
    PARSER_CHUNK_END, /* the CRLF after it */
    PARSER_RAW,       /* close-delimited body */
    PARSER_DONE,      /* terminating chunk seen */
    PARSER_BROKEN     /* not HTTP, or a bad chunk size */
};

enum event_kind {
    EVENT_OURS,      /* data carries "t" and "n" */
    EVENT_FOREIGN,   /* dispatched, but not published by this generator */
    EVENT_HEARTBEAT, /* event: heartbeat, or ping */
    EVENT_RESET      /* event: stream-reset */
};

struct parsed_event {
    enum event_kind kind;
    uint64_t t, n;       /* EVENT_OURS: the publisher's time (ns since the epoch) and sequence number */
    uint32_t data_bytes; /* length of the data as dispatched (several data lines: with their LFs) */
    int wrapped; /* {"t":… was not at the data's beginning: the server put it into an envelope */
};

typedef void (*event_function)(void *owner, const struct parsed_event *event);

struct parser {
    enum parser_state state;
    int status; /* HTTP status, 0 until known */
    uint8_t chunked, keep_id, size_digits, size_extension;
    /* the event being built */
    uint8_t has_data, has_stamp, wrapped, type;
    uint8_t id_length;
    char last; /* last byte of the incomplete line, kept or not */
    uint32_t data_bytes, line_bytes;
    uint64_t chunk_left, t, n;
    char line[PARSER_KEPT];
    char id[PARSER_ID]; /* the last "id:" value, when keep_id */
};

void parser_reset(struct parser *parser, int keep_id);

/* Parses `length` bytes; calls `event` once for each block that WHATWG §9.2.6 dispatches. */
void parser_feed(struct parser *parser, const char *bytes, size_t length, event_function event, void *owner);

#endif
