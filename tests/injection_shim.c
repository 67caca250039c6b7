/* Counts the calls that change a folder, and lets the N-th of them fail or kill the process.
 *
 * Loaded with LD_PRELOAD, so that the calls of Rust and C++ libraries count like Python's own.
 * Without effect until injection_arm is called. Only calls on paths below the folder count.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, ONCE, FULL, KILL };

static char folder[PATH_MAX];
static atomic_long seen;
static long at;
static int mode, error_number, log_to;
static volatile int armed;

void injection_arm(const char *path, long call, int how, int number, int log) {
    snprintf(folder, sizeof folder, "%s", path);
    at = call;
    mode = how;
    error_number = number;
    log_to = log;
    atomic_store(&seen, 0);
    armed = 1;
}

static int below(const char *path) {
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* The full path of an open file, or of a name beside one; empty if it cannot be told. */
static void locate(int fd, const char *name, char *path) {
    char link[64];
    path[0] = 0;
    if (name && name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    ssize_t length;
    if (fd == AT_FDCWD)
        length = getcwd(path, PATH_MAX) ? (ssize_t)strlen(path) : -1;
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, path, PATH_MAX - 1);
    }
    path[length < 0 ? 0 : length] = 0;
    if (name && length > 0)
        snprintf(path + length, PATH_MAX - length, "/%s", name);
}

/* 1 if this call must fail (errno is set), -1 if the process must die, else 0. */
static int decide(const char *kind, int fd, const char *name, int needs_space) {
    char path[PATH_MAX], line[PATH_MAX + 32];
    if (!armed)
        return 0;
    int before = errno;
    locate(fd, name, path);
    errno = before;
    if (!below(path))
        return 0;
    long number = atomic_fetch_add(&seen, 1) + 1;
    if (mode == COUNT || number == at) {
        const char *inside = path + strlen(folder);
        int length = snprintf(line, sizeof line, "%s %s\n", kind, *inside ? inside + 1 : ".");
        syscall(SYS_write, log_to, line, length);
    }
    if (mode == KILL && number == at)
        return -1;
    if ((mode == ONCE && number == at) || (mode == FULL && number >= at && needs_space)) {
        errno = error_number;
        return 1;
    }
    return 0;
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

#define REAL(type, name, ...)                                                                     \
    static type (*real)(__VA_ARGS__);                                                             \
    if (!real)                                                                                    \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define ASK(kind, fd, name, space)                                                                \
    do {                                                                                          \
        int what = decide(kind, fd, name, space);                                                 \
        if (what < 0)                                                                             \
            die();                                                                                \
        if (what)                                                                                 \
            return -1;                                                                            \
    } while (0)

/* Writes half of it before dying: what a power cut leaves of a write. */
#define ASK_WRITE(half)                                                                           \
    do {                                                                                          \
        int what = decide("write", fd, NULL, 1);                                                  \
        if (what < 0) {                                                                           \
            half;                                                                                 \
            die();                                                                                \
        }                                                                                         \
        if (what)                                                                                 \
            return -1;                                                                            \
    } while (0)

#define OPEN(function)                                                                            \
    int function(const char *name, int flags, ...) {                                              \
        REAL(int, #function, const char *, int, mode_t);                                          \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t permissions = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;            \
        va_end(rest);                                                                             \
        if (flags & (O_CREAT | O_TRUNC))                                                          \
            ASK("open", AT_FDCWD, name, 1);                                                       \
        return real(name, flags, permissions);                                                    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                                                          \
    int function(int fd, const char *name, int flags, ...) {                                      \
        REAL(int, #function, int, const char *, int, mode_t);                                     \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t permissions = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;            \
        va_end(rest);                                                                             \
        if (flags & (O_CREAT | O_TRUNC))                                                          \
            ASK("open", fd, name, 1);                                                             \
        return real(fd, name, flags, permissions);                                                \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    ASK_WRITE(real(fd, data, size / 2));
    return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    ASK_WRITE(real(fd, parts, count / 2));
    return real(fd, parts, count);
}

#define PWRITE(function, offset_type)                                                             \
    ssize_t function(int fd, const void *data, size_t size, offset_type place) {                  \
        REAL(ssize_t, #function, int, const void *, size_t, offset_type);                         \
        ASK_WRITE(real(fd, data, size / 2, place));                                               \
        return real(fd, data, size, place);                                                       \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define RESIZE(function, offset_type)                                                             \
    int function(int fd, offset_type size) {                                                      \
        REAL(int, #function, int, offset_type);                                                   \
        ASK("truncate", fd, NULL, 1);                                                             \
        return real(fd, size);                                                                    \
    }
RESIZE(ftruncate, off_t)
RESIZE(ftruncate64, off64_t)

#define SYNC(function)                                                                            \
    int function(int fd) {                                                                        \
        REAL(int, #function, int);                                                                \
        ASK("fsync", fd, NULL, 1);                                                                \
        return real(fd);                                                                          \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    ASK("rename", AT_FDCWD, to, 0);
    return real(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    ASK("rename", to_fd, to, 0);
    return real(from_fd, from, to_fd, to);
}

int unlink(const char *name) {
    REAL(int, "unlink", const char *);
    ASK("unlink", AT_FDCWD, name, 0);
    return real(name);
}

int unlinkat(int fd, const char *name, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    ASK(flags & AT_REMOVEDIR ? "rmdir" : "unlink", fd, name, 0);
    return real(fd, name, flags);
}

int rmdir(const char *name) {
    REAL(int, "rmdir", const char *);
    ASK("rmdir", AT_FDCWD, name, 0);
    return real(name);
}

int mkdir(const char *name, mode_t permissions) {
    REAL(int, "mkdir", const char *, mode_t);
    ASK("mkdir", AT_FDCWD, name, 1);
    return real(name, permissions);
}

int mkdirat(int fd, const char *name, mode_t permissions) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    ASK("mkdir", fd, name, 1);
    return real(fd, name, permissions);
}
