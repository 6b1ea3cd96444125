/* A log histogram like HdrHistogram: 128 linear steps in every power of two.
 *
 * Recording is a shift and an increment, whatever the value's size, and a quantile is at most 1/128 (0.8 %)
 * above the true value. Values are nanoseconds.
 */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define HISTOGRAM_STEP_BITS 7
#define HISTOGRAM_STEPS (1u << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS)

struct histogram {
    uint64_t count, max, sum;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline void histogram_reset(struct histogram *h) { memset(h, 0, sizeof *h); }

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    unsigned index;
    if (value < HISTOGRAM_STEPS) {
        index = (unsigned)value;
    } else {
        unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
        index = ((shift + 1) << HISTOGRAM_STEP_BITS) + (unsigned)(value >> shift) - HISTOGRAM_STEPS;
    }
    h->bucket[index]++;
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
}

/* The highest value that falls into bucket `index`. */
static inline uint64_t histogram_upper(unsigned index)
{
    if (index < HISTOGRAM_STEPS)
        return index;
    unsigned shift = (index >> HISTOGRAM_STEP_BITS) - 1;
    uint64_t step = (index & (HISTOGRAM_STEPS - 1)) + HISTOGRAM_STEPS;
    return ((step + 1) << shift) - 1;
}

/* The value that a share `q` (0..1) of all recorded values does not exceed; 0 when nothing was recorded. */
static inline uint64_t histogram_quantile(const struct histogram *h, double q)
{
    uint64_t wanted = (uint64_t)(q * (double)h->count + 0.5), seen = 0;
    if (wanted < 1)
        wanted = 1;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && h->count; i++) {
        seen += h->bucket[i];
        if (seen >= wanted)
            return histogram_upper(i) < h->max ? histogram_upper(i) : h->max;
    }
    return h->max;
}

/* `"name":{"count":…,"p50":…,…}` in microseconds. */
static inline void histogram_json(FILE *out, const char *name, const struct histogram *h)
{
    static const struct {
        const char *name;
        double q;
    } POINTS[] = {
        {"p10",    .1   },
        {"p25",    .25  },
        {"p50",    .5   },
        {"p75",    .75  },
        {"p90",    .9   },
        {"p95",    .95  },
        {"p99",    .99  },
        {"p99.9",  .999 },
        {"p99.99", .9999},
    };
    fprintf(out, "\"%s\":{\"count\":%llu,\"mean\":%.1f", name, (unsigned long long)h->count,
            h->count ? (double)h->sum / (double)h->count / 1e3 : 0.0);
    for (unsigned i = 0; i < sizeof POINTS / sizeof *POINTS; i++)
        fprintf(out, ",\"%s\":%.1f", POINTS[i].name, (double)histogram_quantile(h, POINTS[i].q) / 1e3);
    fprintf(out, ",\"max\":%.1f}", (double)h->max / 1e3);
}

#endif
