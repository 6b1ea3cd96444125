#define _GNU_SOURCE
#include "parser.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TYPE_MESSAGE, TYPE_HEARTBEAT, TYPE_RESET };

void parser_reset(struct parser *p, int keep_id)
{
    size_t after_line = offsetof(struct parser, line);
    memset(p, 0, after_line);
    p->keep_id = keep_id != 0;
}

static const char *digits(const char *s, const char *end, uint64_t *value)
{
    const char *start = s;
    uint64_t v = 0;
    for (; s < end && (unsigned)(*s - '0') < 10; s++)
        v = v * 10 + (uint64_t)(*s - '0');
    *value = v;
    return s > start ? s : NULL;
}

/* Finds {"t":<digits>,"n":<digits> in the kept part of a data line. */
static void read_stamp(struct parser *p, const char *data, size_t kept)
{
    const char *end = data + kept, *s = data;
    if (kept < 5)
        return;
    if (memcmp(s, "{\"t\":", 5) != 0) {
        s = memmem(data, kept, "{\"t\":", 5);
        if (!s)
            return;
        p->wrapped = 1;
    }
    uint64_t t, n;
    s = digits(s + 5, end, &t);
    if (!s || end - s < 5 || memcmp(s, ",\"n\":", 5) != 0)
        return;
    if (!digits(s + 5, end, &n))
        return;
    p->t = t;
    p->n = n;
    p->has_stamp = 1;
}

static void dispatch(struct parser *p, event_function event, void *owner)
{
    if (p->has_data) {
        struct parsed_event e = {
            .kind = p->type == TYPE_HEARTBEAT ? EVENT_HEARTBEAT
                    : p->type == TYPE_RESET   ? EVENT_RESET
                    : p->has_stamp            ? EVENT_OURS
                                              : EVENT_FOREIGN,
            .t = p->t,
            .n = p->n,
            .data_bytes = p->data_bytes,
            .wrapped = p->wrapped,
        };
        event(owner, &e);
    }
    p->has_data = p->has_stamp = p->wrapped = 0;
    p->type = TYPE_MESSAGE;
    p->data_bytes = 0;
}

/* One body line without its end. `kept` of its `length` bytes are at `s`. */
static void body_line(struct parser *p, const char *s, size_t kept, size_t length, event_function event,
                      void *owner)
{
    if (length == 0) {
        dispatch(p, event, owner);
        return;
    }
    if (kept >= 5 && memcmp(s, "data:", 5) == 0) {
        size_t skip = kept > 5 && s[5] == ' ' ? 6 : 5;
        if (p->has_data)
            p->data_bytes++; /* the LF that joins two data lines */
        p->data_bytes += (uint32_t)(length - skip);
        if (!p->has_stamp)
            read_stamp(p, s + skip, kept - skip);
        p->has_data = 1;
    } else if (kept >= 3 && memcmp(s, "id:", 3) == 0) {
        if (p->keep_id) {
            size_t skip = kept > 3 && s[3] == ' ' ? 4 : 3;
            size_t n = kept - skip < PARSER_ID ? kept - skip : PARSER_ID;
            memcpy(p->id, s + skip, n);
            p->id_length = (uint8_t)n;
        }
    } else if (kept >= 6 && memcmp(s, "event:", 6) == 0) {
        size_t skip = kept > 6 && s[6] == ' ' ? 7 : 6, n = length - skip;
        if ((n == 9 && memcmp(s + skip, "heartbeat", 9) == 0) || (n == 4 && memcmp(s + skip, "ping", 4) == 0))
            p->type = TYPE_HEARTBEAT;
        else if (n == 12 && memcmp(s + skip, "stream-reset", 12) == 0)
            p->type = TYPE_RESET;
    }
}

static void head_line(struct parser *p, const char *s, size_t kept, size_t length)
{
    if (p->status == 0) {
        p->status = kept >= 12 && memcmp(s, "HTTP/1.", 7) == 0 ? atoi(s + 9) : -1;
        if (p->status < 100)
            p->state = PARSER_BROKEN;
        return;
    }
    if (length == 0) {
        p->state = p->chunked ? PARSER_SIZE : PARSER_RAW;
        return;
    }
    static const char NAME[] = "transfer-encoding:";
    if (kept > sizeof NAME - 1 && strncasecmp(s, NAME, sizeof NAME - 1) == 0)
        p->chunked = memmem(s, kept, "chunked", 7) != NULL;
}

static void line_done(struct parser *p, const char *s, size_t kept, size_t length, char last,
                      event_function event, void *owner)
{
    if (length && last == '\r') {
        length--;
        if (kept > length)
            kept = length;
    }
    if (p->state == PARSER_HEAD)
        head_line(p, s, kept, length);
    else
        body_line(p, s, kept, length, event, owner);
}

/* Consumes lines from [s, end), in the head up to the line that ends it. Returns where it stopped.
 */
static const char *lines(struct parser *p, const char *s, const char *end, event_function event, void *owner)
{
    enum parser_state start = p->state;
    while (s < end && p->state == start) {
        const char *nl = memchr(s, '\n', (size_t)(end - s));
        size_t span = (size_t)((nl ? nl : end) - s);
        if (nl && p->line_bytes == 0) { /* a whole line in place: no copy */
            line_done(p, s, span, span, span ? nl[-1] : 0, event, owner);
            s = nl + 1;
            continue;
        }
        if (p->line_bytes < PARSER_KEPT) {
            size_t room = PARSER_KEPT - p->line_bytes;
            memcpy(p->line + p->line_bytes, s, span < room ? span : room);
        }
        p->line_bytes += (uint32_t)span;
        if (span)
            p->last = s[span - 1];
        if (!nl)
            return end;
        size_t length = p->line_bytes;
        p->line_bytes = 0;
        line_done(p, p->line, length < PARSER_KEPT ? length : PARSER_KEPT, length, p->last, event, owner);
        s = nl + 1;
    }
    return s;
}

static void size_byte(struct parser *p, char c)
{
    if (c == '\n') {
        if (!p->size_digits)
            p->state = PARSER_BROKEN;
        else
            p->state = p->chunk_left ? PARSER_CHUNK : PARSER_DONE;
        p->size_digits = p->size_extension = 0;
        return;
    }
    int value = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (p->size_extension || c == '\r')
        return;
    if (c == ';' || c == ' ') {
        p->size_extension = 1;
    } else if (value < 0 || p->size_digits == 15) {
        p->state = PARSER_BROKEN;
    } else {
        p->chunk_left = p->size_digits++ ? p->chunk_left << 4 | (uint64_t)value : (uint64_t)value;
    }
}

void parser_feed(struct parser *p, const char *s, size_t length, event_function event, void *owner)
{
    const char *end = s + length;
    while (s < end) {
        switch (p->state) {
        case PARSER_HEAD:
        case PARSER_RAW:
            s = lines(p, s, end, event, owner);
            break;
        case PARSER_SIZE:
            size_byte(p, *s++);
            break;
        case PARSER_CHUNK: {
            size_t span = (size_t)(end - s) < p->chunk_left ? (size_t)(end - s) : (size_t)p->chunk_left;
            p->chunk_left -= span;
            lines(p, s, s + span, event, owner);
            s += span;
            if (p->chunk_left == 0)
                p->state = PARSER_CHUNK_END;
            break;
        }
        case PARSER_CHUNK_END:
            if (*s++ == '\n')
                p->state = PARSER_SIZE;
            break;
        case PARSER_DONE:
        case PARSER_BROKEN:
            return;
        }
    }
}
