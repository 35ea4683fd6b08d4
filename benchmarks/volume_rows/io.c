/* io: how fast a disk is to a guest. Prints nanoseconds, once, and ends. Without a C library, so that it fits into what
 * a guest is told of itself. */
typedef unsigned long u64;

#define MIB (1UL << 20)
#define SEQUENTIAL (64 * MIB)
#define RANDOM_READS 600
#define RANDOM_WRITES 300

static char buffer[MIB] __attribute__((aligned(4096)));

static long call(long number, long a, long b, long c, long d)
{
    register long fourth __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth) : "rcx", "r11", "memory");
    return result;
}

static u64 now(void)
{
    long at[2];
    call(228, 1, (long)at, 0, 0);
    return at[0] * 1000000000UL + at[1];
}

static void say(const char *word, u64 number)
{
    char text[32];
    int at = sizeof text, length = 0;
    while (word[length])
        length++;
    call(1, 1, (long)word, length, 0);
    do
        text[--at] = '0' + number % 10;
    while (number /= 10);
    call(1, 1, (long)(text + at), sizeof text - at, 0);
}

static void must(long done, long wanted)
{
    if (done != wanted) {
        say("IO failed with ", done < 0 ? -done : done);
        call(1, 1, (long)"\n", 1, 0);
        call(60, 1, 0, 0, 0);
    }
}

static u64 sequential(long disk, long number)
{
    u64 began = now();
    for (u64 at = 0; at < SEQUENTIAL; at += MIB)
        must(call(number, disk, (long)buffer, MIB, at), MIB);
    return now() - began;
}

static u64 scattered(long disk, long number, int times)
{
    u64 state = 88172645463325252UL, began = now();
    while (times--) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        must(call(number, disk, (long)buffer, 4096, state % (SEQUENTIAL / 4096) * 4096), 4096);
    }
    return now() - began;
}

void _start(void)
{
    long disk = call(2, (long)"/tmp/disk", 040002, 0, 0); /* O_RDWR | O_DIRECT */
    if (disk < 0)
        must(disk, 0);
    u64 written = sequential(disk, 18), read = sequential(disk, 17);
    u64 reads = scattered(disk, 17, RANDOM_READS), writes = scattered(disk, 18, RANDOM_WRITES);
    say("IO ", written);
    say(" ", read);
    say(" ", reads);
    say(" ", writes);
    call(1, 1, (long)" done\n", 6, 0);
    call(60, 0, 0, 0, 0);
}
