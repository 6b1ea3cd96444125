/* The generator's two JSON lines, and the CPU figures that show whether it was the bottleneck. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "loadgen.h"

#define SATURATED                                                                                            \
    0.95 /* of the time busy: from here on the delivered rate is a lower bound for the server                \
          */

/* Adds the CPU time of one process and its threads so far: /proc/<pid>/stat, utime and stime, in ticks. */
static void add_process_time(int pid, struct usage *u)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *s = strrchr(text, ')'); /* the command may contain anything, even parentheses */
    unsigned long long user = 0, kernel = 0;
    if (!s || sscanf(s + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &kernel) != 2)
        return;
    u->watched_user += (int64_t)user * (SECOND / sysconf(_SC_CLK_TCK));
    u->watched_kernel += (int64_t)kernel * (SECOND / sysconf(_SC_CLK_TCK));
}

/* Busy CPU time of the whole machine: the first line of /proc/stat less idle and iowait. */
static int64_t machine_time(void)
{
    unsigned long long v[8] = {0};
    FILE *f = fopen("/proc/stat", "r");
    if (!f)
        return 0;
    int n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4, v + 5,
                   v + 6, v + 7);
    fclose(f);
    return n < 7 ? 0 : (int64_t)(v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) * (SECOND / sysconf(_SC_CLK_TCK));
}

void usage_read(struct usage *u)
{
    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    u->wall = now_ns();
    u->own = (own.ru_utime.tv_sec + own.ru_stime.tv_sec) * SECOND +
             (own.ru_utime.tv_usec + own.ru_stime.tv_usec) * 1000;
    u->idle = loop_idle;
    u->watched_user = u->watched_kernel = 0;
    for (int i = 0; i < opt.watched_count; i++)
        add_process_time(opt.watched[i], u);
    u->machine = machine_time();
}

static double seconds(int64_t from, int64_t to) { return (double)(to - from) / 1e9; }

static void count(const char *name, uint64_t value)
{
    printf(",\"%s\":%llu", name, (unsigned long long)value);
}

static void opening(const struct phase_times *t)
{
    double took = seconds(t->open_started, t->open_ended);
    printf("\"streams\":%d,\"opened\":%d,\"open_seconds\":%.4f,\"open_rate\":%.1f,", opt.streams,
           subscribed.opened, took, took > 0 ? subscribed.opened / took : 0.0);
    histogram_json(stdout, "open_latency_us", &open_latency);
    count("open_refused", subscribed.refused);
    count("open_bad_status", subscribed.bad_status);
    count("open_timeouts", subscribed.open_timeouts);
    count("last_bad_status", (uint64_t)subscribed.last_bad_status);
}

void report_opened(const struct phase_times *t)
{
    printf("{\"phase\":\"opened\",");
    opening(t);
    printf("}\n");
    fflush(stdout);
}

static void deliveries(const struct phase_times *t)
{
    uint64_t bytes, least, most, gaps, undelivered;
    uint64_t events = subscribers_window_events(&bytes, &least, &most);
    double window = seconds(t->window_started, t->window_ended);
    if (window <= 0)
        window = 1e-9;
    subscribers_missing(&gaps, &undelivered);
    printf(",\"window_seconds\":%.4f,\"events_per_second\":%.1f,\"bytes_per_second\":%.1f", window,
           (double)events / window, (double)bytes / window);
    count("window_events", events);
    count("client_least", least);
    count("client_most", most);
    count("events", subscribed.events);
    count("bytes", subscribed.bytes);
    count("reads", subscribed.reads);
    printf(",");
    histogram_json(stdout, "latency_us", &delivery_latency);
    count("gaps", gaps);
    count("undelivered", undelivered);
    count("duplicates", subscribed.faults.duplicates);
    count("reordered", subscribed.faults.reordered);
    count("wrong_size", subscribed.wrong_size);
    count("clock_errors", subscribed.clock_errors);
    count("foreign", subscribed.foreign);
    count("heartbeats", subscribed.heartbeats);
    count("resets", subscribed.resets);
    count("closed_early", subscribed.closed_early);
    count("broken", subscribed.broken);
    printf(",\"slow\":{\"never\":%d,\"trickle\":%d,\"events\":%llu,\"closed\":%llu}", opt.never, opt.trickle,
           (unsigned long long)subscribed.slow_events, (unsigned long long)subscribed.slow_closed);
}

static void publishing(const struct phase_times *t)
{
    double window = seconds(t->window_started, t->window_ended);
    uint64_t first = (uint64_t)opt.publishers; /* connections that every run needs */
    printf(",\"publishes_per_second\":%.1f,",
           window > 0 ? (double)publishers_window_requests() / window : 0.0);
    histogram_json(stdout, "publish_latency_us", &publish_latency);
    count("publish_requests", published.requests);
    count("published_events", published.events);
    count("acknowledged_events", published.acknowledged);
    count("publish_failed", published.failed);
    count("publish_refused", published.refused);
    count("publish_last_bad_status", (uint64_t)published.last_bad_status);
    count("publish_reconnects", published.reconnects > first ? published.reconnects - first : 0);
    count("publish_backlog_max", published.backlog_max);
}

void report_result(const struct phase_times *t, const struct usage *before, const struct usage *after)
{
    double wall = seconds(before->wall, after->wall), own = seconds(before->own, after->own);
    double kernel = seconds(before->watched_kernel, after->watched_kernel);
    double watched = seconds(before->watched_user, after->watched_user) + kernel;
    double machine = seconds(before->machine, after->machine);
    double others = machine - own - watched, idle = seconds(before->idle, after->idle);
    printf("{\"phase\":\"result\",");
    opening(t);
    deliveries(t);
    publishing(t);
    if (wall <= 0)
        wall = 1e-9;
    printf(",\"generator_cpu\":%.3f,\"generator_busy\":%.3f,\"generator_saturated\":%s,\"server_cpu\":%.3f,"
           "\"server_kernel\":%.3f,\"other_cpu\":%.3f",
           own / wall, 1 - idle / wall, 1 - idle / wall >= SATURATED ? "true" : "false", watched / wall, kernel / wall,
           others > 0 ? others / wall : 0.0);
    if (opt.storm) {
        printf(",\"storm\":{\"missed\":%d,\"complete\":%s,\"live_seconds\":%.4f,\"next_event_seconds\":%.4f,",
               opt.storm, t->storm_complete ? "true" : "false", seconds(t->storm_started, t->storm_live),
               seconds(t->storm_live, t->storm_live_event));
        histogram_json(stdout, "live_us", &storm_latency);
        printf("}");
    }
    printf("}\n");
    fflush(stdout);
}
