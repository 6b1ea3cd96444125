/* What is published: a drawn channel, and a body with the stamp that the streams check. */
#define _GNU_SOURCE
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "loadgen.h"

static double *cumulative; /* Zipf: channel i is drawn with a weight of 1 / (i + 1)^s */

void payload_init(void)
{
    if (opt.channels == 1)
        return;
    cumulative = must_alloc((size_t)opt.channels, sizeof *cumulative);
    double sum = 0;
    for (int i = 0; i < opt.channels; i++)
        cumulative[i] = sum += pow(1.0 / (i + 1), opt.zipf);
    for (int i = 0; i < opt.channels; i++)
        cumulative[i] /= sum;
}

int payload_channel(void)
{
    static uint64_t x = 88172645463325252ULL; /* fixed seed: every run draws the same channels */
    if (opt.channels == 1)
        return 0;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    double u = (double)(x >> 11) / 9007199254740992.0;
    int low = 0, high = opt.channels - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (cumulative[middle] < u)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void channel_name(char *out, size_t size, int channel)
{
    if (opt.channels == 1)
        snprintf(out, size, "%s", opt.channel);
    else
        snprintf(out, size, "%s%d", opt.channel, channel);
}

void fill_template(char *out, size_t size, const char *text, int channel)
{
    static const char HOLE[] = "{channel}";
    const char *hole = strstr(text, HOLE);
    char name[256];
    channel_name(name, sizeof name, channel);
    int n = hole ? snprintf(out, size, "%.*s%s%s", (int)(hole - text), text, name, hole + sizeof HOLE - 1)
                 : snprintf(out, size, "%s", text);
    if (n >= (int)size)
        die("longer than %zu bytes when filled in: %s", size, text);
}

/* Writes exactly opt.size bytes of JSON. */
static size_t write_data(char *out, int64_t t, uint64_t n)
{
    int head = sprintf(out, "{\"t\":%lld,\"n\":%llu,\"pad\":\"", (long long)t, (unsigned long long)n);
    int pad = opt.size - head - 2;
    if (pad < 0)
        die("--size %d is too small", opt.size);
    memset(out + head, 'x', (size_t)pad);
    memcpy(out + head + pad, "\"}", 2);
    return (size_t)opt.size;
}

static size_t write_encoded(char *out, const char *data, size_t length)
{
    char *start = out;
    for (size_t i = 0; i < length; i++) {
        if (isalnum((unsigned char)data[i]))
            *out++ = data[i];
        else
            out += sprintf(out, "%%%02X", (unsigned char)data[i]);
    }
    return (size_t)(out - start);
}

size_t payload_write(char *out, int channel, int64_t t, uint64_t n)
{
    static char *data;
    char *start = out;
    if (!data)
        data = must_alloc(1, (size_t)opt.size + 64);
    size_t length = write_data(data, t, n);
    for (const char *s = opt.body; *s;) {
        if (!strncmp(s, "{data}", 6)) {
            memcpy(out, data, length);
            out += length, s += 6;
        } else if (!strncmp(s, "{data:url}", 10)) {
            out += write_encoded(out, data, length), s += 10;
        } else if (!strncmp(s, "{channel}", 9)) {
            channel_name(out, 256, channel);
            out += strlen(out), s += 9;
        } else {
            *out++ = *s++;
        }
    }
    return (size_t)(out - start);
}
