/* One thread, one epoll. Publishers have an epoll of their own inside it, checked after every few reads: the
 * answer that a closed-loop publisher waits for must not queue behind a thousand readable streams.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loadgen.h"

#define READS_BETWEEN_PUBLISHES 8
#define TICK (SECOND / 20) /* how often trickling readers read */

int loop_epoll = -1;
int64_t loop_idle;
volatile sig_atomic_t loop_interrupted;

static void interrupt(int signal_number)
{
    (void)signal_number;
    loop_interrupted = 1;
}

void loop_init(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        if (limit.rlim_cur < (rlim_t)opt.streams + MAX_PUBLISHERS + 16)
            die("%d streams need more file descriptors than the limit of %llu", opt.streams,
                (unsigned long long)limit.rlim_cur);
    }
    loop_epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop_epoll < 0)
        die("epoll_create1: %s", strerror(errno));
    struct sigaction action = {.sa_handler = interrupt}; /* no SA_RESTART: the wait must end */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int connect_to_server(int receive_buffer)
{
    static struct sockaddr_in address;
    if (!address.sin_port) {
        address.sin_family = AF_INET;
        address.sin_port = htons((uint16_t)opt.port);
        if (inet_pton(AF_INET, opt.host, &address.sin_addr) != 1)
            die("--host %s: an IPv4 address is needed", opt.host);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (receive_buffer) /* before connect: it bounds the offered window */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

bool loop_run(int64_t deadline, bool (*done)(void))
{
    static int64_t next_tick;
    struct epoll_event ready[256];
    while (!loop_interrupted) {
        if (done && done())
            return true;
        int64_t now = now_ns();
        if (now >= deadline)
            return false;
        publishers_pump(now);
        if (now >= next_tick) {
            subscribers_tick(now);
            next_tick = now + TICK;
        }
        int64_t until = deadline < publishers_due() ? deadline : publishers_due();
        if (until > next_tick)
            until = next_tick;
        int64_t wait = opt.sleep && until > now ? until - now : 0;
        struct timespec timeout = {.tv_sec = wait / SECOND, .tv_nsec = wait % SECOND};
        int n = epoll_pwait2(loop_epoll, ready, 256, &timeout, NULL);
        if (n < 0 && errno != EINTR)
            die("epoll_pwait2: %s", strerror(errno));
        if (n <= 0 || wait)
            loop_idle += now_ns() - now;
        int since = 0;
        for (int i = 0; i < n; i++) {
            if (ready[i].data.u64 >> 32 == TAG_PUBLISHERS) {
                publishers_ready();
                continue;
            }
            subscriber_ready((uint32_t)ready[i].data.u64, ready[i].events);
            if (++since == READS_BETWEEN_PUBLISHES) {
                since = 0;
                publishers_ready();
            }
        }
    }
    return false;
}
