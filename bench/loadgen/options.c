#define _GNU_SOURCE
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loadgen.h"

struct options opt = {
    .host = "127.0.0.1",
    .streams = 100,
    .channels = 1,
    .publishers = 1,
    .size = 100,
    .batch = 1,
    .cpu = -1,
    .open_inflight = 256,
    .trickle_rate = 1024,
    .channel = "bench",
    .path = "/events/{channel}",
    .publish_path = "/events/{channel}",
    .body = "{data}",
    .content_type = "text/plain",
    .http = "1.1",
    .publish = PUBLISH_CLOSED,
    .rate = 30,
    .zipf = 1.0,
    .warmup = 1,
    .seconds = 5,
    .settle = 0.3,
    .drain = 5,
    .open_timeout = 60,
};

static const char USAGE[] =
    "usage: loadgen --port N [options]\n"
    "streams:    --host A --streams N --path /events/{channel} --channel NAME --channels N --zipf S\n"
    "            --header 'K: V' --last-event-id ID --http 1.0|1.1 --open-inflight N --open-timeout S\n"
    "            --lazy-head 1 (a stream counts as open when it is asked for: for servers that send the\n"
    "            response's head only with the first event)\n"
    "            --never N (streams that never read) --trickle N --trickle-rate BYTES\n"
    "publishing: --publish closed|open|none --publishers K --rate R (requests/s, open loop) --size BYTES\n"
    "            --publish-path P --publish-header 'K: V' --content-type T --batch N\n"
    "            --body T, with {data}, {data:url} and {channel} filled in\n"
    "run:        --sleep 1 (wait in the kernel instead of polling: see loop.c) --warmup S --seconds S "
    "--settle S --drain S\n"
    "            --cpu N --watch PID --storm EVENTS_MISSED\n"
    "Prints one JSON line when the streams are open, and one at the end.\n";

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

void *must_alloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (!p)
        die("out of memory (%zu x %zu bytes)", count, size);
    return p;
}

int64_t seconds_ns(double seconds) { return (int64_t)(seconds * 1e9); }

int64_t now_ns(void)
{
    static int64_t offset;
    struct timespec mono, wall;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    int64_t now = mono.tv_sec * SECOND + mono.tv_nsec;
    if (!offset) {
        clock_gettime(CLOCK_REALTIME, &wall);
        offset = wall.tv_sec * SECOND + wall.tv_nsec - now;
    }
    return now + offset;
}

enum { INTEGER, REAL, TEXT, HEADER, PUBLISH_HEADER, MODE, WATCH };

static const struct {
    const char *name;
    int kind;
    void *target;
    double least;
} OPTION[] = {
    {"host",           TEXT,           &opt.host,          0    },
    {"port",           INTEGER,        &opt.port,          1    },
    {"streams",        INTEGER,        &opt.streams,       0    },
    {"path",           TEXT,           &opt.path,          0    },
    {"channel",        TEXT,           &opt.channel,       0    },
    {"channels",       INTEGER,        &opt.channels,      1    },
    {"zipf",           REAL,           &opt.zipf,          0    },
    {"header",         HEADER,         NULL,               0    },
    {"last-event-id",  TEXT,           &opt.last_event_id, 0    },
    {"http",           TEXT,           &opt.http,          0    },
    {"open-inflight",  INTEGER,        &opt.open_inflight, 1    },
    {"open-timeout",   REAL,           &opt.open_timeout,  0    },
    {"never",          INTEGER,        &opt.never,         0    },
    {"trickle",        INTEGER,        &opt.trickle,       0    },
    {"trickle-rate",   INTEGER,        &opt.trickle_rate,  1    },
    {"publish",        MODE,           NULL,               0    },
    {"publishers",     INTEGER,        &opt.publishers,    1    },
    {"rate",           REAL,           &opt.rate,          0.001},
    {"size",           INTEGER,        &opt.size,          64   },
    {"publish-path",   TEXT,           &opt.publish_path,  0    },
    {"publish-header", PUBLISH_HEADER, NULL,               0    },
    {"content-type",   TEXT,           &opt.content_type,  0    },
    {"batch",          INTEGER,        &opt.batch,         1    },
    {"body",           TEXT,           &opt.body,          0    },
    {"warmup",         REAL,           &opt.warmup,        0    },
    {"seconds",        REAL,           &opt.seconds,       0    },
    {"lazy-head",      INTEGER,        &opt.lazy_head,     0    },
    {"sleep",          INTEGER,        &opt.sleep,         0    },
    {"settle",         REAL,           &opt.settle,        0    },
    {"drain",          REAL,           &opt.drain,         0    },
    {"cpu",            INTEGER,        &opt.cpu,           0    },
    {"watch",          WATCH,          NULL,               1    },
    {"storm",          INTEGER,        &opt.storm,         0    },
};
#define OPTIONS (sizeof OPTION / sizeof *OPTION)

static double number(const char *name, const char *text, double least)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least))
        die("--%s %s: a number of at least %g is needed", name, text, least);
    return value;
}

static void take(unsigned i, const char *text)
{
    const char *name = OPTION[i].name;
    switch (OPTION[i].kind) {
    case INTEGER:
        *(int *)OPTION[i].target = (int)number(name, text, OPTION[i].least);
        break;
    case REAL:
        *(double *)OPTION[i].target = number(name, text, OPTION[i].least);
        break;
    case TEXT:
        *(const char **)OPTION[i].target = text;
        break;
    case WATCH:
        if (opt.watched_count == MAX_WATCHED)
            die("--watch: at most %d processes", MAX_WATCHED);
        opt.watched[opt.watched_count++] = (int)number(name, text, 1);
        break;
    case HEADER:
    case PUBLISH_HEADER: {
        int *count = OPTION[i].kind == HEADER ? &opt.headers : &opt.publish_headers;
        if (*count == MAX_HEADERS)
            die("--%s: at most %d headers", name, MAX_HEADERS);
        (OPTION[i].kind == HEADER ? opt.header : opt.publish_header)[(*count)++] = text;
        break;
    }
    case MODE:
        if (!strcmp(text, "none"))
            opt.publish = PUBLISH_NONE;
        else if (!strcmp(text, "closed"))
            opt.publish = PUBLISH_CLOSED;
        else if (!strcmp(text, "open"))
            opt.publish = PUBLISH_OPEN;
        else
            die("--publish %s: one of none, closed, open", text);
        break;
    }
}

void options_parse(int argc, char **argv)
{
    struct option table[OPTIONS + 1];
    memset(table, 0, sizeof table);
    for (unsigned i = 0; i < OPTIONS; i++)
        table[i] = (struct option){OPTION[i].name, required_argument, NULL, (int)i + 256};
    int c;
    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (c < 256) {
            fputs(USAGE, stderr);
            exit(2);
        }
        take((unsigned)c - 256, optarg);
    }
    if (optind < argc)
        die("unexpected argument %s", argv[optind]);
    if (!opt.port)
        die("--port is needed");
    if (opt.publishers > MAX_PUBLISHERS)
        die("--publishers: at most %d", MAX_PUBLISHERS);
    if (opt.never + opt.trickle > opt.streams)
        die("more slow readers than streams");
    if (strcmp(opt.http, "1.0") && strcmp(opt.http, "1.1"))
        die("--http %s: 1.0 or 1.1", opt.http);
}
