/* Preloaded: counts the calls that change what lies under a folder, and at one of them ends the
   process, tears the write, fills the disk, or makes it read-only for good.

   Whatever goes through libc is seen: Python, Rust (safetensors), SQLite. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, TEAR, FILL, READ_ONLY };

static char root[PATH_MAX], ballast[PATH_MAX];
static long wanted = -1, seen;
static int mode = COUNT, list = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Called from Python: at the n-th call (from 1) do what `mode_` says. list_: descriptor to which
   every call is written, or -1. */
void mtc_fault(const char *root_, const char *ballast_, long n, int mode_, int list_) {
  snprintf(root, sizeof root, "%s", root_);
  snprintf(ballast, sizeof ballast, "%s", ballast_);
  seen = 0, wanted = n, mode = mode_, list = list_;
}

long mtc_calls(void) { return seen; }

static void fill(void) {
  struct statvfs facts;
  int fd = REAL(open)(ballast, O_WRONLY | O_CREAT, 0600);
  if (fd < 0 || fstatvfs(fd, &facts)) _exit(99);
  if (posix_fallocate(fd, 0, (off_t)facts.f_bavail * facts.f_frsize)) _exit(98);
  REAL(close)(fd);
}

static void torn(void) { kill(getpid(), SIGKILL), pause(); }

/* What a call is to do: as usual, end the process in its midst, or fail. */
enum { GO_ON, END, FAIL };

static int point(const char *what, const char *path) {
  int answer = GO_ON;
  if (wanted < 0 || strncmp(path, root, strlen(root))) return 0;
  pthread_mutex_lock(&lock);
  seen++;
  if (list >= 0) dprintf(list, "%s %s\n", what, path + strlen(root));
  if (seen == wanted) {
    if (mode == KILL || (mode == TEAR && *what != 'w')) torn(); /* calls may change places */
    if (mode == FILL) fill();
    if (mode == TEAR) answer = END;
  }
  if (mode == READ_ONLY && seen >= wanted) answer = FAIL;
  pthread_mutex_unlock(&lock);
  return answer;
}

static int point_fd(const char *what, int fd) {
  char link[64], path[PATH_MAX];
  if (wanted < 0 || fd == list) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return point(what, path);
}

static int point_at(const char *what, int dir, const char *path) {
  char link[64], whole[2 * PATH_MAX];
  if (wanted < 0) return 0;
  if (path[0] == '/') return point(what, path);
  if (dir == AT_FDCWD) {
    if (!getcwd(whole, PATH_MAX)) return 0;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t n = readlink(link, whole, PATH_MAX - 1);
    if (n < 0) return 0;
    whole[n] = 0;
  }
  strcat(whole, "/");
  strncat(whole, path, PATH_MAX - 1);
  return point(what, whole);
}

static int failed(void) {
  errno = EROFS;
  return -1;
}

ssize_t write(int fd, const void *data, size_t n) {
  int answer = point_fd("write", fd);
  if (answer == FAIL) return failed();
  if (answer == END) REAL(write)(fd, data, n / 2), torn();
  return REAL(write)(fd, data, n);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
  int answer = point_fd("write", fd);
  if (answer == FAIL) return failed();
  if (answer == END) REAL(writev)(fd, parts, n / 2), torn();
  return REAL(writev)(fd, parts, n);
}

#define PWRITE(name, off)                                        \
  ssize_t name(int fd, const void *data, size_t n, off at) {     \
    int answer = point_fd("write", fd);                          \
    if (answer == FAIL) return failed();                         \
    if (answer == END) REAL(name)(fd, data, n / 2, at), torn();  \
    return REAL(name)(fd, data, n, at);                          \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FD(name, what) \
  int name(int fd) {      \
    if (point_fd(what, fd)) return failed(); \
    return REAL(name)(fd); \
  }
ON_FD(fsync, "fsync")
ON_FD(fdatasync, "fsync")

#define TRUNCATE(name, off)           \
  int name(int fd, off n) {           \
    if (point_fd("truncate", fd)) return failed(); \
    return REAL(name)(fd, n);         \
  }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define OPEN(name)                                          \
  int name(const char *path, int flags, ...) {              \
    va_list rest;                                           \
    va_start(rest, flags);                                  \
    mode_t bits = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                           \
    if (flags & (O_CREAT | O_TRUNC) && point_at("open", AT_FDCWD, path)) return failed(); \
    return REAL(name)(path, flags, bits);                   \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                        \
  int name(int dir, const char *path, int flags, ...) {     \
    va_list rest;                                           \
    va_start(rest, flags);                                  \
    mode_t bits = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                           \
    if (flags & (O_CREAT | O_TRUNC) && point_at("open", dir, path)) return failed(); \
    return REAL(name)(dir, path, flags, bits);              \
  }
OPENAT(openat)
OPENAT(openat64)

int rename(const char *from, const char *to) {
  if (point_at("rename", AT_FDCWD, to)) return failed();
  return REAL(rename)(from, to);
}

int renameat(int dir, const char *from, int todir, const char *to) {
  if (point_at("rename", todir, to)) return failed();
  return REAL(renameat)(dir, from, todir, to);
}

int unlink(const char *path) {
  if (point_at("unlink", AT_FDCWD, path)) return failed();
  return REAL(unlink)(path);
}

int unlinkat(int dir, const char *path, int flags) {
  if (point_at("unlink", dir, path)) return failed();
  return REAL(unlinkat)(dir, path, flags);
}

int rmdir(const char *path) {
  if (point_at("rmdir", AT_FDCWD, path)) return failed();
  return REAL(rmdir)(path);
}

int mkdir(const char *path, mode_t bits) {
  if (point_at("mkdir", AT_FDCWD, path)) return failed();
  return REAL(mkdir)(path, bits);
}

int link(const char *from, const char *to) {
  if (point_at("link", AT_FDCWD, to)) return failed();
  return REAL(link)(from, to);
}
