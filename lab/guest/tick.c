/* tick: the witness inside the test guest.
 *
 * Once a second it verifies the memory pattern that it wrote a second ago, writes the next one, and says so:
 *     tick N CHECKSUM ok
 * The pattern of tick N is a function of N alone, so CHECKSUM can be foretold outside the guest. A page that was lost,
 * torn or stale after a migration shows as `tick N MEMORY CORRUPT`; a guest that ran twice or was set back shows as a
 * number that is missing or comes again.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define PATTERN_MIB 4
#define WORDS (PATTERN_MIB * 1024 * 1024 / 8)

static volatile uint64_t pattern[WORDS];

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t seed_of(uint64_t tick)
{
    return (tick + 1) * 0x9e3779b97f4a7c15ULL | 1;
}

static uint64_t rewrite(uint64_t tick)
{
    uint64_t state = seed_of(tick), sum = 0;
    for (long i = 0; i < WORDS; i++)
        sum = sum * 31 + (pattern[i] = next(&state));
    return sum;
}

static uint64_t checksum_in_memory(void)
{
    uint64_t sum = 0;
    for (long i = 0; i < WORDS; i++)
        sum = sum * 31 + pattern[i];
    return sum;
}

int main(void)
{
    struct timespec due;
    uint64_t written = 0;

    setvbuf(stdout, NULL, _IOLBF, 256);
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (uint64_t tick = 0;; tick++) {
        int is_corrupt = tick > 0 && checksum_in_memory() != written;
        written = rewrite(tick);
        if (is_corrupt)
            printf("tick %llu MEMORY CORRUPT\n", (unsigned long long)tick);
        else
            printf("tick %llu %016llx ok\n", (unsigned long long)tick, (unsigned long long)written);
        due.tv_sec++; /* an absolute time: the pace does not drift with the work above */
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
}
