/* Makes syncs of a process slow, or fail as a broken disk makes them: LD_PRELOAD. What to do is in the file that
 * SYNC_FAULT names: "sleep MILLISECONDS" or "fail"; anything else, or no file, is the real sync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int sync_with(const char *name, int fd)
{
    const char *path = getenv("SYNC_FAULT");
    char text[64] = "";
    FILE *file = path ? fopen(path, "r") : NULL;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

    if (file) {
        if (!fgets(text, sizeof text, file))
            text[0] = 0;
        fclose(file);
    }
    if (strncmp(text, "fail", 4) == 0) {
        errno = EIO;
        return -1;
    }
    if (strncmp(text, "sleep ", 6) == 0)
        usleep((useconds_t)atoi(text + 6) * 1000);
    return real(fd);
}

int fsync(int fd) { return sync_with("fsync", fd); }

int fdatasync(int fd) { return sync_with("fdatasync", fd); }
