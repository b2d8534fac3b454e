/* Preloaded into a server: tells each place that calls the system, and lets the calls of one place fail. See failing_places.py.
 *
 * A place is the nearest frames of Python and of native code. The table lies in a file that the attack maps too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, SYNC, RENAME, OPEN, ROOM, FOLDER, UNLINK, PIPE, MEMORY, START };
enum role { NONE = 0, SERVER = 1, NURSERY = 2, WORKER = 3 };
enum { PLACES = 4096, TEXT = 1000, NATIVE = 6, PYTHON = 5, DEPTH_OF_NURSERY = 3 };

struct place {
    _Atomic uint64_t hash;
    int32_t kind, role;
    _Atomic uint32_t calls;
    int32_t unused;
    char text[TEXT];
};

struct table {
    _Atomic int32_t armed; /* whether calls fail */
    int32_t kind, role, error, forever, without_imports;
    _Atomic int32_t failing; /* the place was reached, and all calls of the kind fail from then on */
    _Atomic int32_t failed;  /* calls that failed */
    uint64_t hash;
    struct place places[PLACES];
};

static struct table *table;
static pid_t own; /* 0: a process that is about to become another program */
static int depth; /* forks since the process that has imported everything; negative: unknown */
static int role;
static struct stat log_file; /* what stderr is at the begin: a log on a disk that fails would tell nothing */
static __thread int busy;

#define REAL(name) ((__typeof__(name) *)real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int has(const char *text, size_t size, const char *word) { return memmem(text, size, word, strlen(word)) != NULL; }

static void role_from_command(void) {
    char line[4096];
    int fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY);
    ssize_t size = syscall(SYS_read, fd, line, sizeof line);
    syscall(SYS_close, fd);
    if (size <= 0) return;
    depth = has(line, size, "nursery_source_process") ? 0 : has(line, size, "worker.nursery") ? DEPTH_OF_NURSERY : -1000;
    role = has(line, size, "worker.process") ? WORKER : NONE;
    if (depth == DEPTH_OF_NURSERY) role = NURSERY;
    if (memmem(line, size, "serve\0", 6) && has(line, size, "--port")) role = SERVER;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DEVICEOPS_BENCH_PLACES");
    void *frames[2];
    if (!path) return;
    busy = 1;
    backtrace(frames, 2);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        void *found = (void *)syscall(SYS_mmap, 0, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (found != MAP_FAILED) table = found;
        syscall(SYS_close, fd);
    }
    own = getpid();
    fstat(STDERR_FILENO, &log_file);
    role_from_command();
    busy = 0;
}

/* Python's stable interface, of whatever interpreter is running. */
static int python_frames(char *text, int size, int *imports) {
    static int (*ready)(void);
    static void *(*state)(void);
    static int (*take)(void);
    static void (*leave)(int);
    static void *(*top)(void *), *(*code)(void *), *(*back)(void *), *(*attribute)(void *, const char *);
    static int (*line)(void *);
    static const char *(*utf8)(void *);
    static void (*drop)(void *), (*fetch)(void **, void **, void **), (*restore)(void *, void *, void *);
    if (!ready) {
        state = dlsym(RTLD_DEFAULT, "PyGILState_GetThisThreadState");
        take = dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
        leave = dlsym(RTLD_DEFAULT, "PyGILState_Release");
        top = dlsym(RTLD_DEFAULT, "PyThreadState_GetFrame");
        code = dlsym(RTLD_DEFAULT, "PyFrame_GetCode");
        back = dlsym(RTLD_DEFAULT, "PyFrame_GetBack");
        line = dlsym(RTLD_DEFAULT, "PyFrame_GetLineNumber");
        attribute = dlsym(RTLD_DEFAULT, "PyObject_GetAttrString");
        utf8 = dlsym(RTLD_DEFAULT, "PyUnicode_AsUTF8");
        drop = dlsym(RTLD_DEFAULT, "Py_DecRef");
        fetch = dlsym(RTLD_DEFAULT, "PyErr_Fetch");
        restore = dlsym(RTLD_DEFAULT, "PyErr_Restore");
        ready = dlsym(RTLD_DEFAULT, "Py_IsInitialized");
    }
    if (!ready || !ready() || !state()) return 0;
    int held = take(), length = 0;
    void *error[3];
    fetch(&error[0], &error[1], &error[2]);
    void *frame = top(state());
    for (int count = 0; frame && length < size;) {
        void *its = code(frame), *name = attribute(its, "co_filename");
        const char *path = name ? utf8(name) : NULL;
        if (path && strstr(path, "importlib")) *imports = 1;
        if (path && count < PYTHON && !strstr(path, "importlib")) {
            const char *slash = strrchr(path, '/');
            while (slash && slash > path && slash[-1] != '/') slash--;
            length += snprintf(text + length, size - length, "%s:%d ", slash ? slash : path, line(frame));
            count++;
        }
        if (name) drop(name);
        drop(its);
        void *next = count < PYTHON ? back(frame) : NULL;
        drop(frame);
        frame = next;
    }
    restore(error[0], error[1], error[2]);
    leave(held);
    return length < size ? length : size - 1;
}

static int native_frames(char *text, int size, int most) {
    void *frames[NATIVE + 3];
    int count = backtrace(frames, NATIVE + 3), length = 0;
    for (int i = 3; i < count && i < 3 + most && length < size; i++) {
        Dl_info info;
        if (!dladdr(frames[i], &info) || !info.dli_fname) continue;
        const char *slash = strrchr(info.dli_fname, '/');
        length += snprintf(text + length, size - length, "%s+%lx(%s) ", slash ? slash + 1 : info.dli_fname,
                           (long)((char *)frames[i] - (char *)info.dli_fbase), info.dli_sname ? info.dli_sname : "");
    }
    return length < size ? length : size - 1;
}

static struct place *place_of(int kind, const char *text) {
    uint64_t hash = 1469598103934665603u + kind + 31 * role;
    for (const char *c = text; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    hash |= 1;
    for (int i = 0; i < PLACES; i++) {
        struct place *one = &table->places[(hash + i) % PLACES];
        uint64_t empty = 0;
        if (atomic_compare_exchange_strong(&one->hash, &empty, hash)) {
            one->kind = kind;
            one->role = role;
            strncpy(one->text, text, TEXT - 1);
            return one;
        }
        if (empty == hash) return one;
    }
    return NULL;
}

/* The error that this call has; 0: it is made. */
__attribute__((noinline)) static int fault(int kind) {
    if (!table || !role || busy || own != getpid()) return 0;
    int before = errno, error = 0;
    busy = 1;
    int aimed = atomic_load(&table->armed) && table->role == role && table->kind == kind;
    if (aimed && table->forever && atomic_load(&table->failing)) {
        char text[TEXT] = "";
        int imports = 0;
        if (table->without_imports) python_frames(text, TEXT, &imports);
        error = imports ? 0 : table->error;
    } else {
        char text[TEXT] = "";
        int imports = 0, length = kind == MEMORY ? 0 : python_frames(text, TEXT, &imports);
        length += snprintf(text + length, TEXT - length, "| ");
        if (imports) snprintf(text, TEXT, "import | ");
        /* Any line of Python can be the one that needs the next piece of memory. */
        else native_frames(text + length, TEXT - length, kind == MEMORY ? 2 : NATIVE);
        struct place *one = imports && table->without_imports ? NULL : place_of(kind, text);
        if (one) {
            atomic_fetch_add(&one->calls, 1);
            if (aimed && one->hash == table->hash && !atomic_exchange(&table->failing, 1)) error = table->error;
        }
    }
    if (error) atomic_fetch_add(&table->failed, 1);
    busy = 0;
    errno = error ? error : before;
    return error;
}

#define WRAP(result, name, kind, parameters, arguments)                                                                        \
    result name parameters { return fault(kind) ? (result)-1 : REAL(name) arguments; }

static int on_disk(int fd) {
    struct stat found;
    if (fstat(fd, &found) || !S_ISREG(found.st_mode)) return 0;
    return found.st_ino != log_file.st_ino || found.st_dev != log_file.st_dev;
}

#define WRAP_WRITE(result, name, parameters, arguments)                                                                        \
    result name parameters { return on_disk(fd) && fault(WRITE) ? (result)-1 : REAL(name) arguments; }

WRAP_WRITE(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP_WRITE(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAP_WRITE(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRAP_WRITE(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
WRAP(int, fsync, SYNC, (int fd), (fd))
WRAP(int, fdatasync, SYNC, (int fd), (fd))
WRAP(int, rename, RENAME, (const char *from, const char *to), (from, to))
WRAP(int, renameat, RENAME, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(int, ftruncate, ROOM, (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, ROOM, (int fd, off64_t size), (fd, size))
WRAP(int, fallocate, ROOM, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
WRAP(int, fallocate64, ROOM, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
WRAP(int, mkdir, FOLDER, (const char *path, mode_t mode), (path, mode))
WRAP(int, mkdirat, FOLDER, (int fd, const char *path, mode_t mode), (fd, path, mode))
WRAP(int, unlink, UNLINK, (const char *path), (path))
WRAP(int, unlinkat, UNLINK, (int fd, const char *path, int flags), (fd, path, flags))
WRAP(int, rmdir, UNLINK, (const char *path), (path))
WRAP(int, pipe, PIPE, (int fds[2]), (fds))
WRAP(int, pipe2, PIPE, (int fds[2], int flags), (fds, flags))
WRAP(int, socketpair, PIPE, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds))
WRAP(int, socket, PIPE, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, accept, PIPE, (int fd, struct sockaddr *from, socklen_t *size), (fd, from, size))
WRAP(int, accept4, PIPE, (int fd, struct sockaddr *from, socklen_t *size, int flags), (fd, from, size, flags))
WRAP(int, dup, PIPE, (int fd), (fd))
WRAP(void *, mmap, MEMORY, (void *at, size_t size, int how, int flags, int fd, off_t from), (at, size, how, flags, fd, from))
WRAP(void *, mmap64, MEMORY, (void *at, size_t size, int how, int flags, int fd, off64_t from), (at, size, how, flags, fd, from))

int posix_fallocate(int fd, off_t at, off_t size) {
    int error = fault(ROOM);
    return error ? error : REAL(posix_fallocate)(fd, at, size);
}

#define WRAP_OPEN(name, first, forwarded)                                                                                      \
    int name first {                                                                                                           \
        va_list rest;                                                                                                          \
        va_start(rest, flags);                                                                                                 \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                                \
        va_end(rest);                                                                                                          \
        return fault(OPEN) ? -1 : REAL(name) forwarded;                                                                        \
    }
WRAP_OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(openat, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))
WRAP_OPEN(openat64, (int fd, const char *path, int flags, ...), (fd, path, flags, mode))

int pthread_create(pthread_t *thread, const pthread_attr_t *settings, void *(*run)(void *), void *with) {
    int error = fault(START);
    return error ? error : REAL(pthread_create)(thread, settings, run, with);
}

pid_t fork(void) {
    pid_t child = fault(START) ? -1 : REAL(fork)();
    if (!child) {
        own = getpid();
        if (++depth == DEPTH_OF_NURSERY) role = NURSERY;
        else if (depth > DEPTH_OF_NURSERY) role = WORKER;
        else role = NONE;
    }
    return child;
}

/* A wrapper of vfork would return twice on one stack. */
pid_t vfork(void) {
    pid_t child = fault(START) ? -1 : REAL(fork)();
    if (!child) own = 0;
    return child;
}
