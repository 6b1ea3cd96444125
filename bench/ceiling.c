/* The physical limit: how fast can one core send the same bytes to N sockets, one after the other?
 *
 * It calls only send() on real loopback TCP connections, in turn, without blocking; a second process on the
 * other core polls an epoll and reads. A server with one write per event and stream cannot deliver more per
 * core; one that joins J events into one write is bounded by the line for J.
 *
 *   ceiling STREAMS BYTES JOINED SECONDS WRITER_CPU READER_CPU  →  one JSON line
 *
 * BYTES is one event on the wire; JOINED of them go out with each send().
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "ceiling: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    return (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) +
           (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (cpu >= 0 && sched_setaffinity(0, sizeof set, &set) < 0)
        die("sched_setaffinity");
}

/* Reads everything, until its parent ends it. */
static void reader(const struct sockaddr_in *address, int streams)
{
    static char buffer[1 << 18];
    struct epoll_event ready[256];
    int epoll = epoll_create1(0);
    for (int i = 0; i < streams; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
            die("connect");
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
            die("epoll_ctl");
    }
    for (;;) {
        int n = epoll_wait(epoll, ready, 256, 0); /* polls, as the load generator does */
        for (int i = 0; i < n; i++)
            if (recv(ready[i].data.fd, buffer, sizeof buffer, MSG_DONTWAIT) == 0)
                exit(0);
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: ceiling STREAMS BYTES JOINED SECONDS WRITER_CPU READER_CPU\n");
        return 2;
    }
    int streams = atoi(argv[1]), joined = atoi(argv[3]);
    size_t bytes = (size_t)atol(argv[2]) * (size_t)joined;
    double seconds = atof(argv[4]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        close(listener);
        pin(atoi(argv[6]));
        reader(&address, streams);
    }
    pin(atoi(argv[5]));
    int *fd = calloc((size_t)streams, sizeof *fd);
    char *block = malloc(bytes);
    if (!fd || !block)
        die("memory");
    memset(block, 'x', bytes);
    for (int i = 0; i < streams; i++) {
        int one = 1;
        fd[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd[i] < 0)
            die("accept4");
        setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    uint64_t sends = 0, full = 0, sent_bytes = 0;
    double start = now(), warm = start + seconds * 0.2, end = start + seconds, cpu = cpu_seconds();
    for (double t = start; t < end; t = now()) {
        if (t < warm)
            sends = full = sent_bytes = 0, start = t, cpu = cpu_seconds();
        for (int i = 0; i < streams; i++) {
            ssize_t n = send(fd[i], block, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0 && errno != EAGAIN)
                die("send");
            sends += n > 0;
            full += n < (ssize_t)bytes;
            sent_bytes += n > 0 ? (uint64_t)n : 0;
        }
    }
    double took = now() - start;
    cpu = cpu_seconds() - cpu;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    printf("{\"streams\":%d,\"bytes\":%s,\"joined\":%d,\"seconds\":%.3f,\"sends_per_second\":%.0f,"
           "\"sends_per_cpu_second\":%.0f,"
           "\"events_per_second\":%.0f,\"bytes_per_second\":%.0f,\"full_or_short\":%llu}\n",
           streams, argv[2], joined, took, (double)sends / took,
           cpu > 0 ? (double)sends / cpu : 0.0,
           (double)sent_bytes / (double)bytes * joined / took, (double)sent_bytes / took,
           (unsigned long long)full);
    return 0;
}
