/* What the parts of the load generator share. Times are nanoseconds since the Unix epoch (see now_ns). */
#ifndef LOADGEN_H
#define LOADGEN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "histogram.h"
#include "parser.h"
#include "sequence.h"

#define SECOND 1000000000LL
#define MAX_HEADERS 16
#define MAX_WATCHED 16
#define MAX_PUBLISHERS 64

enum publish_mode { PUBLISH_NONE, PUBLISH_CLOSED, PUBLISH_OPEN };

struct options {
    const char *host;
    int port, streams, channels, publishers, size, batch, cpu, open_inflight, never, trickle, storm,
        lazy_head, sleep;
    int trickle_rate;    /* a trickling reader's bytes per second */
    const char *channel; /* name, or prefix of the names when channels > 1 */
    const char *path, *publish_path, *body, *content_type, *last_event_id, *http;
    const char *header[MAX_HEADERS], *publish_header[MAX_HEADERS];
    int headers, publish_headers;
    enum publish_mode publish;
    double rate, zipf, warmup, seconds, settle, drain, open_timeout;
    int watched[MAX_WATCHED], watched_count; /* processes whose CPU time is read at the window's edges */
};

extern struct options opt;

void options_parse(int argc, char **argv);

/* One monotonic clock, set once to the wall clock: stamps compare with CLOCK_REALTIME and never step. */
int64_t now_ns(void);
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void *must_alloc(size_t count, size_t size);
int64_t seconds_ns(double seconds);

/* ---- the event loop (loop.c) ---- */
enum tag { TAG_CLIENT = 0, TAG_PUBLISHERS = 1 };
void loop_init(void);
extern int loop_epoll;
extern int64_t loop_idle;                      /* ns in which there was nothing to do */
extern volatile sig_atomic_t loop_interrupted; /* SIGINT/SIGTERM: end the present phase and report */
/* Runs until `deadline`, an interruption, or until `done` (may be NULL) says so. Returns true when done()
 * did. */
bool loop_run(int64_t deadline, bool (*done)(void));
int connect_to_server(int receive_buffer); /* bytes, 0: the system's; non-blocking; -1 with errno set */

/* ---- subscribers (subscriber.c) ---- */
struct subscriber_totals {
    uint64_t events, bytes, reads; /* whole run, readers at full speed */
    struct sequence_faults faults;
    uint64_t wrong_size, clock_errors, foreign, heartbeats, resets;
    uint64_t closed_early, refused, bad_status, broken, open_timeouts;
    uint64_t slow_events, slow_closed;
    int opened, last_bad_status;
};

extern struct subscriber_totals subscribed;
extern struct histogram delivery_latency, open_latency;

void subscribers_init(void);
void subscribers_open_all(void); /* starts opening; call again from the loop when there is room */
bool subscribers_settled(void);  /* every stream is open or has failed */
bool subscribers_gone(void);     /* no stream is open any more */
void subscribers_give_up(void);  /* count streams that are not open as open_timeouts */
void subscriber_ready(uint32_t index, uint32_t events);
void subscribers_tick(int64_t now); /* trickling readers */
void subscribers_close_all(void); /* by RST, so that no TIME_WAIT delays the next run */
void subscribers_window(bool open); /* starts/ends the measured window */
uint64_t subscribers_window_events(uint64_t *bytes, uint64_t *least, uint64_t *most);
bool subscribers_complete(void); /* every open reader has everything acknowledged */
void subscribers_missing(uint64_t *gaps, uint64_t *undelivered);
void storm_begin(void); /* opens all streams again with their own Last-Event-ID */
bool storm_live(void);
extern struct histogram storm_latency; /* storm begin → this stream has everything that it missed */

/* ---- publishers (publisher.c) ---- */
struct publisher_totals {
    uint64_t requests, events, acknowledged; /* whole run */
    uint64_t failed, refused, reconnects;    /* no answer / an answer other than 2xx */
    uint64_t backlog_max;                    /* open loop: requests due but not sent */
    int last_bad_status;
};

extern struct publisher_totals published;
extern struct histogram publish_latency;

void publishers_init(void);
void publishers_start(int64_t now, enum publish_mode mode, double rate,
                      int64_t budget); /* budget < 0: no end */
void publishers_stop(void);
bool publishers_idle(void);   /* stopped, and every answer is in */
bool publishers_spent(void);  /* the budget is used up and every answer is in */
void publishers_ready(void);  /* cheap: called after every few reads */
int64_t publishers_due(void); /* open loop: when the next request is due; INT64_MAX when none */
void publishers_pump(int64_t now);
void publishers_window(bool open);
uint64_t publishers_window_requests(void);
uint64_t publisher_sent(int channel, int publisher); /* events of this publisher's sequence so far */
bool publisher_unacknowledged(int channel, int publisher, uint64_t index);

/* ---- payload (payload.c) ---- */
void payload_init(void);
int payload_channel(void);                                           /* draws the next request's channel */
size_t payload_write(char *out, int channel, int64_t t, uint64_t n); /* one event by the --body template */
void channel_name(char *out, size_t size, int channel);
void fill_template(char *out, size_t size, const char *text, int channel);

/* ---- report (report.c) ---- */
struct usage {
    int64_t wall, own, idle, watched_user, watched_kernel, machine;
}; /* CPU nanoseconds used so far */
void usage_read(struct usage *usage);
struct phase_times {
    int64_t open_started, open_ended, window_started, window_ended, storm_started, storm_live,
        storm_live_event;
    bool storm_complete;
};
void report_opened(const struct phase_times *times);
void report_result(const struct phase_times *times, const struct usage *before, const struct usage *after);

#endif
