/* An SSE load generator: N streams and k publishers in one thread on one core.
 *
 * Phases: open → settle → warm-up → window → drain → report. Only the window is measured. The drain waits for
 * everything acknowledged, so what is then missing is lost. With --storm: open → publish (warm-up) → drain →
 * cut every stream → publish M events → open every stream again with its own Last-Event-ID → wait until each
 * has all it missed → one more event reaches all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "loadgen.h"

static void pin(int cpu)
{
    cpu_set_t set;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die("--cpu %d: %s", cpu, strerror(errno));
}

static int64_t in(double seconds) { return now_ns() + seconds_ns(seconds); }

static void open_streams(struct phase_times *t)
{
    t->open_started = now_ns();
    subscribers_open_all();
    if (!loop_run(in(opt.open_timeout), subscribers_settled))
        subscribers_give_up();
    t->open_ended = now_ns();
}

static void drain(void)
{
    publishers_stop();
    loop_run(in(opt.drain), subscribers_complete);
}

static void measure(struct phase_times *t, struct usage *before, struct usage *after)
{
    if (opt.publish != PUBLISH_NONE)
        publishers_start(now_ns(), opt.publish, opt.rate, -1);
    loop_run(in(opt.warmup), subscribers_gone);
    subscribers_window(true);
    publishers_window(true);
    usage_read(before);
    t->window_started = before->wall;
    loop_run(in(opt.seconds), subscribers_gone);
    usage_read(after);
    t->window_ended = after->wall;
    subscribers_window(false);
    publishers_window(false);
    loop_interrupted = 0;
    if (opt.publish != PUBLISH_NONE)
        drain();
}

static void storm(struct phase_times *t, struct usage *before, struct usage *after)
{
    publishers_start(now_ns(), PUBLISH_CLOSED, 1, -1);
    loop_run(in(opt.warmup), NULL);
    drain();
    subscribers_close_all();
    publishers_start(now_ns(), PUBLISH_CLOSED, 1, (opt.storm + opt.batch - 1) / opt.batch);
    if (!loop_run(in(opt.open_timeout), publishers_spent))
        die("the events to be missed could not be published");
    publishers_stop();
    loop_run(in(opt.settle), NULL);
    subscribers_window(true);
    usage_read(before);
    t->storm_started = t->open_started = t->window_started = now_ns();
    storm_begin();
    bool live = loop_run(in(opt.open_timeout), storm_live);
    t->open_ended = t->storm_live = now_ns();
    subscribers_give_up();
    publishers_start(now_ns(), PUBLISH_CLOSED, 1, 1);
    loop_run(in(opt.drain), publishers_spent);
    publishers_stop();
    bool reached = loop_run(in(opt.drain), subscribers_complete);
    t->storm_live_event = t->window_ended = now_ns();
    uint64_t gaps, undelivered;
    subscribers_missing(&gaps, &undelivered);
    t->storm_complete = live && reached && subscribed.opened == opt.streams && !gaps && !undelivered;
    usage_read(after);
    subscribers_window(false);
}

int main(int argc, char **argv)
{
    struct phase_times times = {0};
    struct usage before = {0}, after = {0};
    options_parse(argc, argv);
    pin(opt.cpu);
    loop_init();
    publishers_init();
    subscribers_init();
    open_streams(&times);
    loop_run(in(opt.settle), NULL);
    report_opened(&times);
    if (opt.storm)
        storm(&times, &before, &after);
    else
        measure(&times, &before, &after);
    report_result(&times, &before, &after);
    subscribers_close_all();
    return 0;
}
