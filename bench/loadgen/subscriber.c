/* The streams: opening, reading, counting, and the checks at their end. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loadgen.h"

#define READ_BYTES (256 * 1024)
#define SLOW_BUFFER 4096 /* receive buffer of a slow reader; a larger one would hide it for minutes */

enum phase { UNOPENED, CONNECTING, HEAD, OPEN, CLOSED };
enum pace { FULL, NEVER, TRICKLE };

struct client {
    int fd;
    uint8_t phase, pace;
    bool caught_up;
    int channel;
    uint64_t window_events, events;
    int64_t started;
    struct sequence sequence;
    struct parser parser;
};

struct subscriber_totals subscribed;
struct histogram delivery_latency, open_latency, storm_latency;

static struct client *clients;
static char read_buffer[READ_BYTES];
static int unopened, inflight, unsettled, alive;
static bool window, storming;
static uint64_t window_bytes;
static int64_t received_at, storm_started;
static int storm_waiting;

void subscribers_init(void)
{
    clients = must_alloc((size_t)opt.streams, sizeof *clients);
    uint64_t *next = must_alloc((size_t)opt.streams * (size_t)opt.publishers, sizeof *next);
    for (int i = 0; i < opt.streams; i++) {
        struct client *c = &clients[i];
        c->fd = -1;
        c->channel = i % opt.channels;
        c->sequence.next = next + (size_t)i * (size_t)opt.publishers;
        c->pace = i < opt.never ? NEVER : i < opt.never + opt.trickle ? TRICKLE : FULL;
    }
    unsettled = opt.streams;
}

static void watch(struct client *c, int operation, uint32_t events)
{
    struct epoll_event e = {.events = events,
                            .data.u64 = (uint64_t)TAG_CLIENT << 32 | (uint32_t)(c - clients)};
    if (epoll_ctl(loop_epoll, operation, c->fd, &e) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void settle(struct client *c)
{
    if (c->phase == CONNECTING || c->phase == HEAD) {
        inflight--;
        unsettled--;
    }
}

static void client_close(struct client *c)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    settle(c);
    alive -= c->phase == OPEN;
    c->phase = CLOSED;
    if (c->fd >= 0) {
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(c->fd);
        c->fd = -1;
    }
}

static void failed(struct client *c, uint64_t *counter)
{
    ++*counter;
    if (storming && !c->caught_up) {
        c->caught_up =
            true; /* it never will be; the counter and the storm's "not complete" report it */
        storm_waiting--;
    }
    client_close(c);
}

static void client_open(struct client *c)
{
    uint8_t id_length = c->parser.id_length; /* the last event id outlives the connection */
    c->started = now_ns();
    parser_reset(&c->parser, opt.storm > 0);
    c->parser.id_length = id_length;
    c->fd = connect_to_server(c->pace == FULL ? 0 : SLOW_BUFFER);
    if (c->fd < 0) {
        unsettled--;
        failed(c, &subscribed.refused);
        return;
    }
    inflight++;
    c->phase = CONNECTING;
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

void subscribers_open_all(void)
{
    while (unopened < opt.streams && inflight < opt.open_inflight)
        client_open(&clients[unopened++]);
}

bool subscribers_settled(void)
{
    subscribers_open_all();
    return unsettled == 0;
}

bool subscribers_gone(void) { return opt.streams > 0 && alive == 0; }

static void opened(struct client *c)
{
    settle(c);
    c->phase = OPEN;
    alive++;
    subscribed.opened++;
    histogram_add(&open_latency, (uint64_t)(now_ns() - c->started));
    if (c->pace != FULL) /* from now on watch only for a hang-up; the tick reads trickling readers */
        watch(c, EPOLL_CTL_MOD, EPOLLRDHUP | EPOLLET);
    subscribers_open_all();
}

static void send_request(struct client *c)
{
    char request[8192], path[512];
    fill_template(path, sizeof path, opt.path, c->channel);
    int n =
        snprintf(request, sizeof request, "GET %s HTTP/%s\r\nHost: %s:%d\r\nAccept: text/event-stream\r\n",
                 path, opt.http, opt.host, opt.port);
    for (int i = 0; i < opt.headers && n < (int)sizeof request; i++)
        n += snprintf(request + n, sizeof request - (size_t)n, "%s\r\n", opt.header[i]);
    if (storming && c->parser.id_length)
        n += snprintf(request + n, sizeof request - (size_t)n, "Last-Event-ID: %.*s\r\n", c->parser.id_length,
                      c->parser.id);
    else if (opt.last_event_id)
        n += snprintf(request + n, sizeof request - (size_t)n, "Last-Event-ID: %s\r\n", opt.last_event_id);
    n += snprintf(request + n, n < (int)sizeof request ? sizeof request - (size_t)n : 0, "\r\n");
    if (n >= (int)sizeof request)
        die("the stream's request is longer than %zu bytes", sizeof request);
    if (send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
        failed(c, &subscribed.refused);
        return;
    }
    c->phase = HEAD;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
    if (opt.lazy_head)
        opened(c);
}

/* Returns whether the stream has everything acknowledged on its channel. */
static bool complete(struct client *c)
{
    for (int p = 0; p < opt.publishers; p++) {
        uint64_t sent = publisher_sent(c->channel, p);
        for (uint64_t i = c->sequence.next[p]; i < sent; i++)
            if (!publisher_unacknowledged(c->channel, p, i))
                return false;
    }
    return true;
}

static void on_event(void *owner, const struct parsed_event *event)
{
    struct client *c = owner;
    if (event->kind != EVENT_OURS) {
        if (event->kind == EVENT_HEARTBEAT)
            subscribed.heartbeats++;
        else if (event->kind == EVENT_RESET)
            subscribed.resets++;
        else
            subscribed.foreign++;
        return;
    }
    uint32_t publisher = 0;
    uint64_t index = event->n;
    if (opt.publishers > 1) {
        publisher = (uint32_t)(event->n % (uint64_t)opt.publishers);
        index = event->n / (uint64_t)opt.publishers;
    }
    sequence_take(&c->sequence, publisher, index, &subscribed.faults);
    /* With an envelope around it the data is longer, and how much depends on the server. */
    if (event->data_bytes < (uint32_t)opt.size || (!event->wrapped && event->data_bytes > (uint32_t)opt.size))
        subscribed.wrong_size++;
    if (c->pace != FULL) {
        subscribed.slow_events++;
        return;
    }
    c->events++;
    subscribed.events++;
    if (window) {
        c->window_events++;
        if ((uint64_t)received_at < event->t) {
            subscribed.clock_errors++;
            histogram_add(&delivery_latency, 0);
        } else {
            histogram_add(&delivery_latency, (uint64_t)received_at - event->t);
        }
    }
}

/* Reads once, `most` bytes at most. */
static void client_read(struct client *c, size_t most)
{
    ssize_t n = recv(c->fd, read_buffer, most, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || c->parser.state == PARSER_DONE) {
        failed(c, c->phase != OPEN  ? &subscribed.refused
                  : c->pace != FULL ? &subscribed.slow_closed
                                    : &subscribed.closed_early);
        return;
    }
    received_at = now_ns();
    subscribed.reads++;
    subscribed.bytes += (uint64_t)n;
    if (window && c->pace == FULL)
        window_bytes += (uint64_t)n;
    parser_feed(&c->parser, read_buffer, (size_t)n, on_event, c);
    if (c->parser.state == PARSER_BROKEN) {
        failed(c, &subscribed.broken);
        return;
    }
    if (c->parser.state != PARSER_HEAD && c->parser.status != 200) {
        subscribed.last_bad_status = c->parser.status;
        failed(c, &subscribed.bad_status);
        return;
    }
    if (c->phase == HEAD && c->parser.state != PARSER_HEAD)
        opened(c);
    if (c->phase == OPEN && c->parser.state == PARSER_DONE) {
        failed(c, c->pace != FULL ? &subscribed.slow_closed : &subscribed.closed_early);
        return;
    }
    if (storming && !c->caught_up && c->phase == OPEN && complete(c)) {
        c->caught_up = true;
        storm_waiting--;
        histogram_add(&storm_latency, (uint64_t)(received_at - storm_started));
    }
}

void subscriber_ready(uint32_t index, uint32_t events)
{
    struct client *c = &clients[index];
    if (c->fd < 0)
        return;
    if (c->phase == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            failed(c, &subscribed.refused);
        else
            send_request(c);
    } else if (c->phase == OPEN && c->pace != FULL) {
        if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
            failed(c, &subscribed.slow_closed);
    } else {
        /* A slow reader reads its head in small steps, so that no events arrive with it. */
        client_read(c, c->pace == FULL ? READ_BYTES : 64);
    }
}

void subscribers_tick(int64_t now)
{
    static int64_t last;
    double elapsed = last ? (double)(now - last) / 1e9 : 0.05;
    last = now;
    size_t bytes = (size_t)(elapsed * opt.trickle_rate);
    if (bytes > READ_BYTES)
        bytes = READ_BYTES;
    for (int i = opt.never; i < opt.never + opt.trickle; i++)
        if (clients[i].phase == OPEN && bytes)
            client_read(&clients[i], bytes);
}

void subscribers_give_up(void)
{
    for (int i = 0; i < opt.streams; i++)
        if (clients[i].phase == CONNECTING || clients[i].phase == HEAD)
            failed(&clients[i], &subscribed.open_timeouts);
    subscribed.open_timeouts += (uint64_t)(opt.streams - unopened);
    unopened = opt.streams;
}

void subscribers_close_all(void)
{
    for (int i = 0; i < opt.streams; i++)
        if (clients[i].fd >= 0)
            client_close(&clients[i]);
}

void subscribers_window(bool open)
{
    window = open;
    if (!open)
        return;
    histogram_reset(&delivery_latency);
    window_bytes = 0;
    for (int i = 0; i < opt.streams; i++)
        clients[i].window_events = 0;
}

uint64_t subscribers_window_events(uint64_t *bytes, uint64_t *least, uint64_t *most)
{
    uint64_t sum = 0;
    *bytes = window_bytes;
    *least = UINT64_MAX;
    *most = 0;
    for (int i = opt.never + opt.trickle; i < opt.streams; i++) {
        uint64_t n = clients[i].window_events;
        sum += n;
        *least = n < *least ? n : *least;
        *most = n > *most ? n : *most;
    }
    if (*least == UINT64_MAX)
        *least = 0;
    return sum;
}

bool subscribers_complete(void)
{
    if (!publishers_idle())
        return false;
    for (int i = opt.never + opt.trickle; i < opt.streams; i++)
        if (clients[i].phase == OPEN && !complete(&clients[i]))
            return false;
    return true;
}

void subscribers_missing(uint64_t *gaps, uint64_t *undelivered)
{
    *gaps = *undelivered = 0;
    for (int i = opt.never + opt.trickle; i < opt.streams; i++) {
        struct client *c = &clients[i];
        for (int r = 0; r < c->sequence.ranges; r++) {
            struct range *range = &c->sequence.missing[r];
            for (uint64_t n = range->from; n < range->to; n++)
                *gaps += !publisher_unacknowledged(c->channel, (int)range->publisher, n);
        }
        if (c->phase != OPEN)
            continue;
        for (int p = 0; p < opt.publishers; p++)
            for (uint64_t n = c->sequence.next[p], end = publisher_sent(c->channel, p); n < end; n++)
                *undelivered += !publisher_unacknowledged(c->channel, p, n);
    }
    *gaps += subscribed.faults.untracked;
}

void storm_begin(void)
{
    subscribers_close_all();
    storming = true;
    storm_started = now_ns();
    unopened = inflight = 0;
    unsettled = storm_waiting = opt.streams;
    subscribed.opened = 0;
    histogram_reset(&open_latency);
    for (int i = 0; i < opt.streams; i++)
        clients[i].caught_up = false;
    subscribers_open_all();
}

bool storm_live(void)
{
    subscribers_open_all();
    return storm_waiting == 0;
}
