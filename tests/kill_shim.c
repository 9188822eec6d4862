/* SIGKILL at one of this process's writes to a file whose name holds "lab.duckdb", before it or in its middle.
 * cc -shared -fPIC -O1 -o kill_shim.so kill_shim.c -ldl, then LD_PRELOAD; kill_at(n, half) counts from there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long seen, last = -1;
static int in_the_middle;

void kill_at(long nth, int half) { seen = 0; in_the_middle = half; last = nth; }

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

static int is_it(const char *path) { return strstr(path, "lab.duckdb") != NULL && ++seen == last; }

static int is_its(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return is_it(path);
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

#define PWRITE(name) ssize_t name(int file, const void *bytes, size_t size, off_t at) { \
    REAL(ssize_t, #name, int, const void *, size_t, off_t); \
    if (is_its(file)) { if (in_the_middle) real(file, bytes, size / 2, at); die(); } \
    return real(file, bytes, size, at); }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int file, const void *bytes, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (is_its(file)) { if (in_the_middle) real(file, bytes, size / 2); die(); }
    return real(file, bytes, size);
}

#define OF_FILE(name) int name(int file) { REAL(int, #name, int); if (is_its(file)) die(); return real(file); }
OF_FILE(fsync)
OF_FILE(fdatasync)

#define TRUNCATE(name) int name(int file, off_t size) { \
    REAL(int, #name, int, off_t); if (is_its(file)) die(); return real(file, size); }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define OF_PATH(name) int name(const char *path) { \
    REAL(int, #name, const char *); if (is_it(path)) die(); return real(path); }
OF_PATH(unlink)
OF_PATH(remove)

int rename(const char *path, const char *other) {
    REAL(int, "rename", const char *, const char *);
    if (is_it(path)) die();
    return real(path, other);
}
