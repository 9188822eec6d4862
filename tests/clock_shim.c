/* The clock on the wall, moved by the seconds in the file that CLOCK_SHIM names; other clocks are left alone.
 * cc -shared -fPIC -O1 -o clock_shim.so clock_shim.c -ldl, then LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);

static long moved(void) {
    const char *name = getenv("CLOCK_SHIM");
    long seconds = 0;
    FILE *file = name ? fopen(name, "r") : NULL;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

static long offset(void) {
    static __thread long kept, second = -1;
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    if (now.tv_sec != second) { second = now.tv_sec; kept = moved(); }
    return kept;
}

int clock_gettime(clockid_t which, struct timespec *into) {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, into);
    if (!failed && which == CLOCK_REALTIME) into->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict into, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    into->tv_sec = now.tv_sec;
    into->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
