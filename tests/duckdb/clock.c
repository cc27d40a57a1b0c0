/* A wall clock that is off by CLOCK_OFFSET_S seconds, for the programs that check.py starts with LD_PRELOAD: a check of
 * hours, days and months that close must not wait for them. It moves CLOCK_REALTIME alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    static long offset;
    if (!real) {
        const char *text = getenv("CLOCK_OFFSET_S");
        offset = text ? atol(text) : 0;
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int code = real(clock, now);
    if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset;
    return code;
}
