/* The proof that a stream got every event exactly once and in order.
 *
 * Publisher p of k numbers its events n = p, p + k, p + 2k, … for each channel, and sends the next one only
 * after the last was answered. So every stream must see each publisher's index n / k rise by exactly one. A
 * jump is recorded as a missing range; an index from such a range is "reordered", any other old index a
 * "duplicate".
 */
#ifndef SEQUENCE_H
#define SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define SEQUENCE_RANGES 32 /* missing ranges that one stream remembers; further ones are `untracked` */

struct range {
    uint32_t publisher;
    uint64_t from, to;
};
struct sequence_faults {
    uint64_t duplicates, reordered, untracked;
};

struct sequence {
    uint64_t *next; /* per publisher: the next index */
    struct range *missing;
    int ranges;
};

static inline void sequence_missed(struct sequence *s, struct range range, struct sequence_faults *faults)
{
    if (!s->missing)
        s->missing = calloc(SEQUENCE_RANGES, sizeof *s->missing);
    if (!s->missing || s->ranges == SEQUENCE_RANGES)
        faults->untracked += range.to - range.from;
    else
        s->missing[s->ranges++] = range;
}

static inline bool sequence_was_missing(struct sequence *s, uint32_t publisher, uint64_t index,
                                        struct sequence_faults *faults)
{
    for (int i = 0; i < s->ranges; i++) {
        struct range *r = &s->missing[i];
        if (r->publisher != publisher || index < r->from || index >= r->to)
            continue;
        struct range tail = {publisher, index + 1, r->to};
        r->to = index;
        if (r->from == r->to)
            *r = s->missing[--s->ranges];
        if (tail.from < tail.to)
            sequence_missed(s, tail, faults);
        return true;
    }
    return false;
}

static inline void sequence_take(struct sequence *s, uint32_t publisher, uint64_t index,
                                 struct sequence_faults *faults)
{
    uint64_t *next = &s->next[publisher];
    if (index == *next) {
        ++*next;
    } else if (index > *next) {
        sequence_missed(s, (struct range){publisher, *next, index}, faults);
        *next = index + 1;
    } else if (sequence_was_missing(s, publisher, index, faults)) {
        faults->reordered++;
    } else {
        faults->duplicates++;
    }
}

#endif
