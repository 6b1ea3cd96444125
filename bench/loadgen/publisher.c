/* The publishers: kept-alive HTTP/1.1 connections in the generator's own thread.
 *
 * Closed loop: each publisher sends, waits for the whole answer, and sends again; an event carries the time
 * at which it was sent. Open loop: request i is due at start + i / rate, whatever the server does. It is sent
 * on any free connection, late if none is free, and carries the time at which it was *due*: a stall of the
 * server counts for every request that it delayed (no coordinated omission).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loadgen.h"

#define ANSWER_BYTES (64 * 1024)
#define RETRY_PAUSE (SECOND / 50) /* after a failed connection: no busy loop against a dead server */

enum state { DISCONNECTED, CONNECTING, FREE, SENDING, WAITING };

struct publisher {
    int fd;
    enum state state;
    char *out;
    size_t out_bytes, out_sent, out_room;
    char *answer;
    size_t answer_bytes;
    int64_t due, retry_at;
    int channel;
    uint64_t first; /* index of the request's first event in this publisher's sequence for the channel */
};

struct lost {
    int channel, publisher;
    uint64_t from, to;
};

struct publisher_totals published;
struct histogram publish_latency;

static struct publisher publishers[MAX_PUBLISHERS];
static uint64_t *sent; /* [channel][publisher] */
static struct lost *lost;
static size_t lost_count;
static int publisher_epoll = -1, waiting;
static enum publish_mode mode;
static int64_t started_at, budget;
static double interval;
static uint64_t scheduled, window_requests;
static bool window;

void publishers_init(void)
{
    publisher_epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)TAG_PUBLISHERS << 32};
    if (publisher_epoll < 0 || epoll_ctl(loop_epoll, EPOLL_CTL_ADD, publisher_epoll, &e) < 0)
        die("epoll: %s", strerror(errno));
    sent = must_alloc((size_t)opt.channels * (size_t)opt.publishers, sizeof *sent);
    for (int p = 0; p < opt.publishers; p++) {
        publishers[p].fd = -1;
        publishers[p].answer = must_alloc(1, ANSWER_BYTES);
        publishers[p].out_room = ((size_t)opt.size * 3 + 512) * (size_t)opt.batch + 8192;
        publishers[p].out = must_alloc(1, publishers[p].out_room);
    }
    payload_init();
}

uint64_t publisher_sent(int channel, int publisher)
{
    return sent[(size_t)channel * (size_t)opt.publishers + (size_t)publisher];
}

bool publisher_unacknowledged(int channel, int publisher, uint64_t index)
{
    for (size_t i = 0; i < lost_count; i++)
        if (lost[i].channel == channel && lost[i].publisher == publisher && index >= lost[i].from &&
            index < lost[i].to)
            return true;
    return false;
}

static void interest(struct publisher *p, int operation, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.u32 = (uint32_t)(p - publishers)};
    if (epoll_ctl(publisher_epoll, operation, p->fd, &e) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void forget_connection(struct publisher *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    p->state = DISCONNECTED;
}

/* The server may or may not have stored the request's events: streams neither have to get them nor must miss
 * them. */
static void give_up(struct publisher *p)
{
    if ((lost_count & (lost_count - 1)) == 0) {
        lost = realloc(lost, (lost_count ? lost_count * 2 : 1) * sizeof *lost);
        if (!lost)
            die("out of memory");
    }
    lost[lost_count++] =
        (struct lost){p->channel, (int)(p - publishers), p->first, p->first + (uint64_t)opt.batch};
    waiting--;
}

static void connection_failed(struct publisher *p)
{
    if (p->state == SENDING || p->state == WAITING) {
        published.failed++;
        give_up(p);
    }
    forget_connection(p);
    p->retry_at = now_ns() + RETRY_PAUSE;
}

static void flush(struct publisher *p)
{
    ssize_t n = send(p->fd, p->out + p->out_sent, p->out_bytes - p->out_sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        connection_failed(p);
        return;
    }
    p->out_sent += n > 0 ? (size_t)n : 0;
    if (p->out_sent < p->out_bytes) {
        if (p->state != SENDING)
            interest(p, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
        p->state = SENDING;
    } else {
        if (p->state == SENDING)
            interest(p, EPOLL_CTL_MOD, EPOLLIN);
        p->state = WAITING;
    }
}

static void send_request(struct publisher *p, int64_t due)
{
    static char *body;
    char path[512];
    int number = (int)(p - publishers);
    if (!body)
        body = must_alloc(1, publishers[0].out_room);
    p->channel = payload_channel();
    p->due = due;
    uint64_t *count = &sent[(size_t)p->channel * (size_t)opt.publishers + (size_t)number];
    p->first = *count;
    size_t body_bytes = 0;
    for (int i = 0; i < opt.batch; i++) {
        body_bytes += payload_write(body + body_bytes, p->channel, due,
                                    *count * (uint64_t)opt.publishers + (uint64_t)number);
        if (opt.batch > 1)
            body[body_bytes++] = '\n';
        ++*count;
    }
    fill_template(path, sizeof path, opt.publish_path, p->channel);
    size_t n = (size_t)snprintf(
        p->out, 8192, "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: %s\r\nContent-Length: %zu\r\n", path,
        opt.host, opt.port, opt.content_type, body_bytes);
    for (int i = 0; i < opt.publish_headers && n < 8192; i++)
        n += (size_t)snprintf(p->out + n, 8192 - n, "%s\r\n", opt.publish_header[i]);
    if (n + 2 >= 8192)
        die("the publish request's head is longer than 8192 bytes");
    memcpy(p->out + n, "\r\n", 2);
    memcpy(p->out + n + 2, body, body_bytes);
    p->out_bytes = n + 2 + body_bytes;
    p->out_sent = p->answer_bytes = 0;
    published.requests++;
    published.events += (uint64_t)opt.batch;
    waiting++;
    if (budget > 0)
        budget--;
    p->state = WAITING;
    flush(p);
}

/* Returns whether the answer is complete; sets its status and whether the server will close. */
static bool answer_complete(struct publisher *p, int *status, bool *closes)
{
    p->answer[p->answer_bytes] = 0;
    char *end = strstr(p->answer, "\r\n\r\n");
    if (!end)
        return false;
    *status = p->answer_bytes > 12 ? atoi(p->answer + 9) : 0;
    *closes = !strncmp(p->answer, "HTTP/1.0", 8);
    size_t head = (size_t)(end + 4 - p->answer), length = 0;
    bool chunked = false;
    for (char *line = strchr(p->answer, '\n'); line && line < end; line = strchr(line + 1, '\n')) {
        if (!strncasecmp(line + 1, "content-length:", 15))
            length = strtoul(line + 16, NULL, 10);
        else if (!strncasecmp(line + 1, "transfer-encoding: chunked", 26))
            chunked = true;
        else if (!strncasecmp(line + 1, "connection: close", 17))
            *closes = true;
        else if (!strncasecmp(line + 1, "connection: keep-alive", 22))
            *closes = false;
    }
    if (chunked)
        return p->answer_bytes >= head + 5 && !memcmp(p->answer + p->answer_bytes - 5, "0\r\n\r\n", 5);
    return p->answer_bytes >= head + length;
}

static void read_answer(struct publisher *p)
{
    ssize_t n = recv(p->fd, p->answer + p->answer_bytes, ANSWER_BYTES - 1 - p->answer_bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* the server may close an idle connection */
        connection_failed(p);
        return;
    }
    p->answer_bytes += (size_t)n;
    int status = 0;
    bool closes = false;
    if (p->state == FREE || !answer_complete(p, &status, &closes)) {
        if (p->state == FREE || p->answer_bytes == ANSWER_BYTES - 1)
            connection_failed(p);
        return;
    }
    int64_t now = now_ns();
    histogram_add(&publish_latency, (uint64_t)(now - p->due));
    if (status / 100 == 2) {
        published.acknowledged += (uint64_t)opt.batch;
        window_requests += window;
        waiting--;
    } else {
        published.refused++;
        published.last_bad_status = status;
        give_up(p);
    }
    p->state = FREE;
    if (closes)
        forget_connection(p);
    publishers_pump(now);
}

void publishers_ready(void)
{
    struct epoll_event ready[MAX_PUBLISHERS];
    int n = epoll_wait(publisher_epoll, ready, MAX_PUBLISHERS, 0);
    for (int i = 0; i < n; i++) {
        struct publisher *p = &publishers[ready[i].data.u32];
        if (p->fd < 0)
            continue;
        if (p->state == CONNECTING) {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error) {
                connection_failed(p);
                continue;
            }
            p->state = FREE;
            interest(p, EPOLL_CTL_MOD, EPOLLIN);
            publishers_pump(now_ns());
        } else if (p->state == SENDING && ready[i].events & EPOLLOUT) {
            flush(p);
        } else {
            read_answer(p);
        }
    }
    int64_t now = now_ns();
    if (mode == PUBLISH_OPEN && publishers_due() <= now)
        publishers_pump(now);
}

static int64_t due_at(uint64_t request) { return started_at + (int64_t)((double)request * interval); }

int64_t publishers_due(void)
{
    if (mode != PUBLISH_OPEN || budget == 0)
        return INT64_MAX;
    for (int i = 0; i < opt.publishers; i++)
        if (publishers[i].state == FREE || publishers[i].state == DISCONNECTED)
            return due_at(scheduled);
    return INT64_MAX; /* an answer wakes the loop */
}

void publishers_pump(int64_t now)
{
    if (mode == PUBLISH_NONE)
        return;
    for (int i = 0; i < opt.publishers && budget != 0; i++) {
        struct publisher *p = &publishers[i];
        if (p->state == DISCONNECTED && now >= p->retry_at) {
            p->fd = connect_to_server(0);
            if (p->fd < 0) {
                p->retry_at = now + RETRY_PAUSE;
                continue;
            }
            published.reconnects++;
            p->state = CONNECTING;
            interest(p, EPOLL_CTL_ADD, EPOLLOUT);
        }
        if (p->state != FREE)
            continue;
        if (mode == PUBLISH_CLOSED)
            send_request(p, now_ns());
        else if (due_at(scheduled) <= now)
            send_request(p, due_at(scheduled++));
    }
    if (mode == PUBLISH_OPEN && due_at(scheduled) < now) {
        uint64_t backlog = (uint64_t)((double)(now - due_at(scheduled)) / interval);
        if (backlog > published.backlog_max)
            published.backlog_max = backlog;
    }
}

void publishers_start(int64_t now, enum publish_mode wanted, double rate, int64_t most)
{
    mode = wanted;
    interval = 1e9 / rate;
    started_at = now;
    scheduled = 0;
    budget = most;
    publishers_pump(now);
}

void publishers_stop(void) { mode = PUBLISH_NONE; }
bool publishers_idle(void) { return mode == PUBLISH_NONE && waiting == 0; }
bool publishers_spent(void) { return budget == 0 && waiting == 0; }

void publishers_window(bool open)
{
    window = open;
    if (open) {
        histogram_reset(&publish_latency);
        window_requests = 0;
        published.backlog_max = 0;
    }
}

uint64_t publishers_window_requests(void) { return window_requests; }
