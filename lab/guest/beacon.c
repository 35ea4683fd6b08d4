/* beacon ADDRESS PORT EVERY_MS: says the next number there by UDP, over and over.
 *
 * Whoever hears it sees how long the guest was silent, and whether a word was lost: a number that is missing was said
 * and did not arrive. ADDRESS is IPv4, or IPv6 with the interface behind it, as in ff02::1%eth0.
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

int main(int count, char **words)
{
    struct sockaddr_in one = {.sin_family = AF_INET};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct timespec due;
    char text[24], *scope;
    int is_six, out;

    if (count != 4)
        return 2;
    if ((scope = strchr(words[1], '%'))) {
        *scope++ = 0;
        six.sin6_scope_id = if_nametoindex(scope);
    }
    one.sin_port = six.sin6_port = htons(atoi(words[2]));
    is_six = inet_pton(AF_INET6, words[1], &six.sin6_addr) == 1;
    if (!is_six && inet_pton(AF_INET, words[1], &one.sin_addr) != 1)
        return 2;
    out = socket(is_six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (unsigned long number = 0;; number++) {
        int length = snprintf(text, sizeof text, "%lu", number);
        /* Without an answer to what has failed: the next one may go through, and the gap shows. */
        if (is_six)
            sendto(out, text, length, 0, (struct sockaddr *)&six, sizeof six);
        else
            sendto(out, text, length, 0, (struct sockaddr *)&one, sizeof one);
        due.tv_nsec += atol(words[3]) * 1000000;
        due.tv_sec += due.tv_nsec / 1000000000;
        due.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
}
