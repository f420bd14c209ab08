/*
 * The native executor: a program without libc that makes a container's first process, and is it until the
 * container's program takes its place. It runs from a sealed memfd, so that what /proc/self/exe names
 * meanwhile is this, and not the host's interpreter (SECURITY R1).
 *
 *   argv[1]  the number of its fd of the channel, a SEQPACKET socket to the launcher; the fds below it are the program's
 *
 *   launcher                          executor (host's namespaces)       first process
 *     |---- struct boot, fds --------------->|
 *     |                                      | joins, clone3(CLONE_PARENT) -->| parked on the channel
 *     |<--- {pid, errno}, pidfd -------------| _exit
 *     |---- struct go, with the program ----------------------------------------->| runs it
 *     |<--- what core/init.py draws, or struct failure ------------------------|
 *
 * Its program is the lowered init phase: core/lowering.py is the assembler, and has the same numbers.
 * It trusts the channel and nothing else. One chunk is one step: system calls with registers, jumps, and a
 * few built-ins where what a file holds decides.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int i32;

enum { EXIT_GOCKER_FAILED = 125, EXIT_CANNOT_EXECUTE = 126, EXIT_NOT_FOUND = 127 };

/* From the kernel's uapi headers; the same on both machines but for the system call numbers below. */
enum {
	EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, E2BIG = 7, ENOEXEC = 8, EAGAIN = 11, EACCES = 13, EEXIST = 17,
	ENOTDIR = 20, EISDIR = 21, EINVAL = 22, EFBIG = 27, ENAMETOOLONG = 36, ELOOP = 40,
};
enum {
	O_WRONLY = 1, O_CREAT = 0100, O_EXCL = 0200, O_NOCTTY = 0400, O_NONBLOCK = 04000, O_CLOEXEC = 02000000,
	O_PATH = 010000000,
};
enum { RESOLVE_NO_MAGICLINKS = 2, RESOLVE_NO_SYMLINKS = 4, RESOLVE_BENEATH = 8, RESOLVE_IN_ROOT = 16 };
enum { IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
enum { PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
enum { AT_FDCWD = -100, AT_EMPTY_PATH = 0x1000, AT_EACCESS = 0x200, X_OK = 1 };
enum { F_DUPFD_CLOEXEC = 1030, F_GETFD = 1, FD_CLOEXEC = 1 };
enum { PROT_READ_WRITE = 3, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };
enum { PR_SET_PDEATHSIG = 1, PR_GET_PDEATHSIG = 2, PR_SET_DUMPABLE = 4, PR_SET_KEEPCAPS = 8, PR_SET_NAME = 15, PR_CAPBSET_DROP = 24 };
enum { SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGKILL = 9, SIGTERM = 15, SIGCHLD = 17, SIGSTOP = 19, SIG_SETMASK = 2, SA_RESTORER = 0x04000000 };
enum { MSG_PEEK = 2, MSG_DONTWAIT = 0x40, MSG_CMSG_CLOEXEC = 0x40000000, SOL_SOCKET = 1, SCM_RIGHTS = 1, SO_PEERCRED = 17 };
enum { S_IFMT = 0170000, S_IFDIR = 0040000, S_IFREG = 0100000, S_IFLNK = 0120000 };
enum { FSCONFIG_SET_FLAG = 0, FSCONFIG_SET_STRING = 1, FSCONFIG_CMD_CREATE = 6, FSOPEN_CLOEXEC = 1 };
enum { CLOCK_MONOTONIC = 1, CAPABILITY_VERSION_3 = 0x20080522 };
#define CLONE_PIDFD 0x1000UL
#define CLONE_PARENT 0x8000UL
#define CLONE_NEWTIME 0x80UL
#define CLONE_NEWCGROUP 0x02000000UL
#define CLONE_INTO_CGROUP 0x200000000UL
#define PIPEFS_MAGIC 0x50495045L
#define DEVPTS_MAGIC 0x1cd1L

#if defined(__x86_64__)

enum {
	NR_read = 0, NR_write = 1, NR_close = 3, NR_newfstatat = 262, NR_fstat = 5, NR_mmap = 9, NR_rt_sigaction = 13,
	NR_rt_sigprocmask = 14, NR_pread64 = 17, NR_getpid = 39, NR_sendto = 44, NR_recvfrom = 45, NR_sendmsg = 46,
	NR_recvmsg = 47, NR_getsockopt = 55, NR_execve = 59, NR_fcntl = 72, NR_geteuid = 107, NR_setgroups = 116,
	NR_setresuid = 117, NR_getresuid = 118, NR_setresgid = 119, NR_getresgid = 120, NR_capget = 125,
	NR_fstatfs = 138, NR_prctl = 157, NR_clock_gettime = 228, NR_exit_group = 231, NR_openat = 257,
	NR_mkdirat = 258, NR_readlinkat = 267, NR_fchown = 93, NR_unshare = 272, NR_dup3 = 292, NR_accept4 = 288,
	NR_setns = 308, NR_execveat = 322, NR_mknodat = 259,
	O_DIRECTORY = 0200000, O_NOFOLLOW = 0400000,
};

static long call(long nr, long a, long b, long c, long d, long e, long f)
{
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = e;
	register long sixth __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "rcx", "r11", "memory");
	return result;
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call run\n");

/* struct stat of this machine, as far as it is looked at. */
struct status {
	u64 dev, ino, nlink;
	u32 mode, uid, gid, pad;
	u64 rdev;
	long size;
	u8 rest[88];
};

#elif defined(__aarch64__)

enum {
	NR_read = 63, NR_write = 64, NR_close = 57, NR_newfstatat = 79, NR_fstat = 80, NR_mmap = 222, NR_rt_sigaction = 134,
	NR_rt_sigprocmask = 135, NR_pread64 = 67, NR_getpid = 172, NR_sendto = 206, NR_recvfrom = 207, NR_sendmsg = 211,
	NR_recvmsg = 212, NR_getsockopt = 209, NR_execve = 221, NR_fcntl = 25, NR_geteuid = 175, NR_setgroups = 159,
	NR_setresuid = 147, NR_getresuid = 148, NR_setresgid = 149, NR_getresgid = 150, NR_capget = 90,
	NR_fstatfs = 44, NR_prctl = 167, NR_clock_gettime = 113, NR_exit_group = 94, NR_openat = 56,
	NR_mkdirat = 34, NR_readlinkat = 78, NR_fchown = 55, NR_unshare = 97, NR_dup3 = 24, NR_accept4 = 242,
	NR_setns = 268, NR_execveat = 281, NR_mknodat = 33,
	O_DIRECTORY = 040000, O_NOFOLLOW = 0100000,
};

static long call(long nr, long a, long b, long c, long d, long e, long f)
{
	register long number __asm__("x8") = nr;
	register long first __asm__("x0") = a;
	register long second __asm__("x1") = b;
	register long third __asm__("x2") = c;
	register long fourth __asm__("x3") = d;
	register long fifth __asm__("x4") = e;
	register long sixth __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(first)
			 : "r"(number), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "memory");
	return first;
}

__asm__(".globl _start\n_start: mov x29, 0\n mov x0, sp\n bl run\n");

struct status {
	u64 dev, ino;
	u32 mode, nlink, uid, gid;
	u64 rdev, pad;
	long size;
	u8 rest[72];
};

#else
#error "no system call numbers for this machine"
#endif

enum { NR_fsopen = 430, NR_fsconfig = 431, NR_fsmount = 432, NR_clone3 = 435, NR_close_range = 436, NR_openat2 = 437, NR_faccessat2 = 439 };

#define call0(nr) call(nr, 0, 0, 0, 0, 0, 0)
#define call1(nr, a) call(nr, (long)(a), 0, 0, 0, 0, 0)
#define call2(nr, a, b) call(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define call3(nr, a, b, c) call(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define call4(nr, a, b, c, d) call(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define call5(nr, a, b, c, d, e) call(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define call6(nr, a, b, c, d, e, f) call(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* ---- the wire, as core/kernel/native.py packs it ---- */

struct boot {
	u32 magic;
	u32 cgroup;     /* 1: an fd of the cgroup to be born in */
	u64 flags;      /* CLONE_NEW* */
	u32 joins;      /* u32 CLONE_NEW* each; their fds follow the fixed ones */
	u32 offsets;    /* bytes for timens_offsets, after them */
};

/* What the first process goes on by. */
struct go {
	u8 word[4];     /* "go" */
	u32 pid;        /* its own, as the launcher sees it */
	u32 chunks;
	u32 named;      /* u32 registers each for the fds after the joins, in order; 8 bytes align what follows */
	u64 memory;     /* size of the program where it is in a memfd, which comes along; else it follows */
};
enum { MAGIC = 0x316e6b67, FIXED_FDS = 4, MOST_FDS = 250, MOST_CHUNKS = 512 };

struct chunk {
	u32 size;       /* of all of it, a multiple of 8 */
	u32 data;       /* where its data begin */
	u32 flags;
	u32 reserved;
};
enum { QUIET = 1, AT_HOST = 2, PARKS = 4, DISARMS = 8 };

struct failure {
	u8 tag[4];      /* "!" */
	u32 index;      /* of the step in the init phase */
	u32 at;         /* word in the chunk */
	i32 error;
	u32 where;      /* kinds of the built-ins, else 0 */
	u32 euid;
	u64 permitted;
	u32 text_size;
	u32 blob_size;  /* words for a launcher that does not know this program */
};

enum { OP_END, OP_CALL, OP_CATCH, OP_JUMP, OP_TEST, OP_LOAD, OP_STORE, OP_SET, OP_BUILTIN, OP_FAIL };
enum { ARG_VALUE, ARG_REGISTER, ARG_DATA };
enum { FLAG_RETRY = 1 };

/* ---- state ---- */

static int channel;
static volatile i32 *progress;
static u64 registers[256];
enum { R_PID = 1, R_ROOT = 2, R_HOME = 3, R_PROGRAM = 4 };
static u32 where;
static char text[4096];
static u32 text_size;
static const u8 *blob;
static u32 blob_size;
static u32 step_index;
static u64 times[MOST_CHUNKS];
static u32 time_count;
static u8 packet[160 << 10] __attribute__((aligned(8)));

/* ---- small things that libc would have ---- */

static void copy(void *to, const void *from, u64 size)
{
	u8 *t = to;
	const u8 *f = from;

	while (size--)
		*t++ = *f++;
}

/* The compiler may ask for them. */
void *memcpy(void *to, const void *from, u64 size)
{
	copy(to, from, size);
	return to;
}

void *memset(void *to, int value, u64 size)
{
	volatile u8 *t = to;

	while (size--)
		*t++ = value;
	return to;
}

static u64 length(const char *s)
{
	u64 n = 0;

	while (s[n])
		n++;
	return n;
}

static int same(const char *a, const char *b, u64 size)
{
	for (u64 i = 0; i < size; i++)
		if (a[i] != b[i])
			return 0;
	return 1;
}

static int equals(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static char *digits(char *to, u64 value, u32 base)
{
	char reversed[24];
	int n = 0;

	do
		reversed[n++] = '0' + value % base;
	while (value /= base);
	while (n)
		*to++ = reversed[--n];
	return to;
}

static char *decimal(char *to, u64 value)
{
	return digits(to, value, 10);
}

static _Noreturn void leave(int status)
{
	for (;;)
		call1(NR_exit_group, status);
}

static void say(const void *message, u64 size)
{
	call6(NR_sendto, channel, message, size, 0x4000 /* MSG_NOSIGNAL */, 0, 0);
}

static void remember(const char *what, u64 size)
{
	if (size > sizeof text)
		size = sizeof text;
	copy(text, what, size);
	text_size = size;
}

static int failing(int error, u32 kind, const char *what)
{
	where = kind;
	text_size = 0;
	if (what)
		remember(what, length(what));
	return -error;
}

static _Noreturn void fail(u32 at, int error)
{
	struct failure message = { { '!', 0, 0, 0 }, step_index, at, error, where, 0, 0, text_size, blob_size };
	struct { u32 version; i32 pid; } capabilities = { CAPABILITY_VERSION_3, 0 };
	struct { const void *base; u64 size; } parts[3] = {
		{ &message, sizeof message }, { text, text_size }, { blob, blob_size } };
	struct { void *name; u64 name_size; void *parts; u64 count; void *control; u64 control_size, flags; } header = {
		0, 0, parts, 3, 0, 0, 0 };
	u32 data[6] = { 0 };

	call2(NR_capget, &capabilities, data);
	message.euid = call0(NR_geteuid);
	message.permitted = data[1] | (u64)data[4] << 32;
	call3(NR_sendmsg, channel, &header, 0x4000 /* MSG_NOSIGNAL */);
	leave(EXIT_GOCKER_FAILED);
}

static void close_fd(long fd)
{
	call1(NR_close, fd);
}

static void *memory(u64 size)
{
	long address = call6(NR_mmap, 0, size, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return address < 0 && address > -4096 ? 0 : (void *)address;
}

/* ---- paths that nobody trusts: kernel/inroot.py ---- */

enum { LONGEST = 8192, MOST_LINKS = 40, TRIES = 128 };
enum { DIRECTORY = O_PATH | O_DIRECTORY };

static long open_in(long directory, const char *path, u64 flags, u64 resolve)
{
	struct { u64 flags, mode, resolve; } how = { flags | O_CLOEXEC, 0, resolve };
	long got = -EAGAIN;

	while (*path == '/')
		path++;
	/* EAGAIN: a rename or mount raced with a `..` */
	for (int i = 0; i < TRIES && got == -EAGAIN; i++)
		got = call4(NR_openat2, directory, *path ? path : ".", &how, sizeof how);
	return got;
}

/* Symbolic link at the plain path: its length in `into`, 0 for something else or nothing, or -errno. */
static long link_text(long root, const char *path, char *into, u64 size)
{
	struct status status;
	long got, fd = open_in(root, path, O_PATH | O_NOFOLLOW, PLAIN);

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	got = call2(NR_fstat, fd, &status);
	if (got >= 0)
		got = (status.mode & S_IFMT) == S_IFLNK ? call4(NR_readlinkat, fd, "", into, size) : 0;
	close_fd(fd);
	return got;
}

/* `path` without links, `.` and `..`, as it is in the root: "/..." in `done`, which holds LONGEST bytes. */
static long without_links(long root, const char *path, char *done)
{
	static char left[2 * LONGEST], link[4096];
	u64 at = sizeof left - 1, end = 0, size = length(path);
	int links = 0;

	if (size >= LONGEST / 2)
		return failing(ENAMETOOLONG, 0, 0);
	at -= size;
	copy(left + at, path, size + 1);
	done[0] = 0;
	while (left[at]) {
		u64 part = at, here = end;
		long got;

		while (left[at] && left[at] != '/')
			at++;
		size = at - part;
		while (left[at] == '/')
			at++;
		if (!size || (size == 1 && left[part] == '.'))
			continue;
		if (size == 2 && left[part] == '.' && left[part + 1] == '.') {
			while (end && done[--end] != '/')
				;
			done[end] = 0;
			continue;
		}
		if (end + size + 2 > LONGEST / 2)
			return failing(ENAMETOOLONG, 0, 0);
		done[end++] = '/';
		copy(done + end, left + part, size);
		end += size;
		done[end] = 0;
		got = link_text(root, done, link, sizeof link);
		if (got < 0)
			return failing(-got, 0, 0);
		if (!got)
			continue;
		end = here;
		done[end] = 0;
		if (++links > MOST_LINKS)
			return failing(ELOOP, 0, path);
		if (link[0] == '/')
			done[end = 0] = 0;
		if ((u64)got + 2 > at)
			return failing(ENAMETOOLONG, 0, 0);
		if (left[at])
			left[--at] = '/';
		at -= got;
		copy(left + at, link, got);
	}
	if (!end) {
		done[0] = '/';
		done[1] = 0;
	}
	return 0;
}

static long directory_entry(long parent, const char *name, u64 mode)
{
	long got = call3(NR_mkdirat, parent, name, mode);

	if (got < 0 && got != -EEXIST)
		return failing(-got, 0, name);
	got = call4(NR_openat, parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC | O_DIRECTORY, 0);
	return got < 0 ? failing(-got, 0, name) : got;
}

static long file_entry(long parent, const char *name, u64 mode)
{
	long got = call4(NR_openat, parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);

	if (got == -ENOENT) {
		got = call4(NR_openat, parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
		if (got < 0)
			return failing(-got, 0, name);
		close_fd(got);
		got = call4(NR_openat, parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
	}
	return got < 0 ? failing(-got, 0, name) : got;
}

enum { WHERE_SPLIT = 30 };

/* Cut the last part of `path` off; it is returned, 0 when it cannot be made. */
static char *split(char *path)
{
	u64 end = length(path), start;

	while (end && path[end - 1] == '/')
		path[--end] = 0;
	for (start = end; start && path[start - 1] != '/'; start--)
		;
	if (start == end || equals(path + start, ".") || equals(path + start, ".."))
		return 0;
	if (start)
		path[start - 1] = 0;
	return path + start;
}

static char made[LONGEST];

static long make_plain(long root, u64 mode)
{
	/* `made` is the path, with a NUL for each `/` whose parents are missing. */
	u64 size = length(made);
	long fd, child;

	while ((fd = open_in(root, made, DIRECTORY, PLAIN)) == -ENOENT)
		if (!split(made))
			return failing(EINVAL, WHERE_SPLIT, made);
	if (fd < 0)
		return failing(-fd, 0, 0);
	for (u64 at = length(made); at < size;) {
		const char *name = made + at + 1;

		child = directory_entry(fd, name, mode);
		close_fd(fd);
		if (child < 0)
			return child;
		fd = child;
		at += 1 + length(name);
	}
	return fd;
}

static long make_directory(long root, const char *path, u64 mode)
{
	long got = open_in(root, path, DIRECTORY, IN_ROOT);

	if (got != -ENOENT)
		return got < 0 ? failing(-got, 0, 0) : got;
	got = without_links(root, path, made);
	return got < 0 ? got : make_plain(root, mode);
}

static long make_file(long root, const char *path, u64 mode)
{
	static char name[4096];
	struct status status;
	char *last;
	long parent, fd = open_in(root, path, O_PATH, IN_ROOT);

	if (fd != -ENOENT)
		return fd < 0 ? failing(-fd, 0, 0) : fd;
	fd = without_links(root, path, made);
	if (fd < 0)
		return fd;
	last = split(made);
	if (!last || length(last) >= sizeof name)
		return failing(EINVAL, WHERE_SPLIT, path);
	copy(name, last, length(last) + 1);
	parent = make_directory(root, made, 0755);
	if (parent < 0)
		return parent;
	fd = file_entry(parent, name, mode);
	close_fd(parent);
	if (fd < 0)
		return fd;
	call2(NR_fstat, fd, &status);
	if ((status.mode & S_IFMT) == S_IFLNK) { /* it was put there meanwhile */
		close_fd(fd);
		return failing(ELOOP, 0, path);
	}
	return fd;
}

/* ---- mounts: kernel/mount.py ---- */

enum { WHERE_MOUNT = 1 };

/* The kernel's own words about a file system that it would not make, joined by "; ". */
static void take_log(long context)
{
	char line[1024];

	text_size = 0;
	for (int i = 0; i < 16; i++) {
		long got = call3(NR_read, context, line, sizeof line);
		long start = 0;

		if (got < 0)
			break;
		while (got > start && (line[got - 1] == '\n' || line[got - 1] == ' '))
			got--;
		while (start < got && (line[start] == '\n' || line[start] == ' '))
			start++;
		start = start + 2 < got ? start + 2 : got;
		if (text_size + (u64)(got - start) + 2 > sizeof text)
			break;
		if (i) {
			text[text_size++] = ';';
			text[text_size++] = ' ';
		}
		copy(text + text_size, line + start, got - start);
		text_size += got - start;
	}
}

/* `options`: for each a byte, 's' key NUL value NUL, 'f' key NUL, 'r' key NUL and a register that points to
   the value; then a NUL. The first is the source. */
static long new_mount(const char *type, const char *options, u64 attributes)
{
	long got, context = call2(NR_fsopen, type, FSOPEN_CLOEXEC);

	if (context < 0)
		return failing(-context, 0, 0);
	while (*options) {
		char kind = *options++;
		const char *key = options, *value = 0;

		options += length(options) + 1;
		if (kind == 's') {
			value = options;
			options += length(options) + 1;
		} else if (kind == 'r') {
			value = (const char *)registers[(u8)*options++];
		}
		got = call5(NR_fsconfig, context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value, 0);
		if (got < 0)
			goto refused;
	}
	got = call5(NR_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
	if (got < 0)
		goto refused;
	got = call3(NR_fsmount, context, 1 /* FSMOUNT_CLOEXEC */, attributes);
	if (got < 0)
		goto refused;
	close_fd(context);
	return got;
refused:
	take_log(context);
	where = text_size ? WHERE_MOUNT : 0;
	close_fd(context);
	return got;
}

static long magic_of(long fd, long *magic)
{
	long buffer[32];
	long got = call2(NR_fstatfs, fd, buffer);

	*magic = buffer[0] & 0xffffffff;
	return got;
}

/* ---- devices: steps/devices.py ---- */

enum { WHERE_NODE = 2, S_IFIFO = 0010000 };
enum { NR_open_tree = 428, NR_move_mount = 429, NR_mount_setattr = 442 };

static int is_node(const struct status *status, u32 mode, u64 device)
{
	return (status->mode & S_IFMT) == (mode & S_IFMT) && ((mode & S_IFMT) == S_IFIFO || status->rdev == device);
}

/* 1 when it was made: what was there before, or is the host's, keeps its owner and gives 0. `bind` are MOUNT_ATTR_*. */
static long make_node(long parent, const char *name, const char *path, u64 mode, u64 device, u64 bind)
{
	struct { u64 set, clear, propagation, userns; } attributes = { bind, 0, 0, 0 };
	struct status status;
	long source, target, got = call4(NR_mknodat, parent, name, mode, device);

	if (got >= 0)
		return 1;
	if (got == -EEXIST) {
		got = call4(NR_newfstatat, parent, name, &status, 0x100 /* AT_SYMLINK_NOFOLLOW */);
		if (got < 0)
			return failing(-got, 0, name);
		return is_node(&status, mode, device) ? 0 : failing(EEXIST, WHERE_NODE, 0);
	}
	if (got != -EPERM && got != -EACCES)
		return failing(-got, 0, name);
	source = call4(NR_openat, AT_FDCWD, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
	if (source < 0)
		return failing(-source, 0, path);
	got = call2(NR_fstat, source, &status);
	if (got < 0)
		return failing(-got, 0, 0);
	if (!is_node(&status, mode, device))
		return failing(EEXIST, WHERE_NODE, 0);
	target = file_entry(parent, name, 0644);
	if (target < 0)
		return target;
	got = call3(NR_open_tree, source, "", 1 | O_CLOEXEC | AT_EMPTY_PATH);
	if (got < 0)
		return failing(-got, 0, 0);
	close_fd(source);
	source = got;
	got = call5(NR_mount_setattr, source, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
	if (got >= 0)
		got = call5(NR_move_mount, source, "", target, "", 0x44);
	if (got < 0)
		return failing(-got, 0, 0);
	close_fd(source);
	close_fd(target);
	return 0;
}

/* An O_PATH fd of a character device. */
static long open_node(long directory, const char *name, u64 device)
{
	struct status status;
	long got, fd = call4(NR_openat, directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);

	if (fd < 0)
		return failing(-fd, 0, name);
	got = call2(NR_fstat, fd, &status);
	if (got < 0)
		return failing(-got, 0, 0);
	if (is_node(&status, 0020000 /* S_IFCHR */, device))
		return fd;
	close_fd(fd);
	return failing(19 /* ENODEV */, WHERE_NODE, 0);
}

/* ---- the program: steps/program.py ---- */

enum {
	WHERE_NOT_FOUND = 40, WHERE_STAT, WHERE_DIRECTORY, WHERE_NO_FILE, WHERE_MODE, WHERE_LINK, WHERE_HEADER,
	WHERE_NO_INTERPRETER, WHERE_LOOKUP, IN_INTERPRETER = 0x100, BY_INTERPRETER = 0x200,
};
enum { HEAD = 256, MOST_SCRIPTS = 5, MOST_PHDRS = 64 };

static long refuse_magic_link(const char *path)
{
	long start = AT_FDCWD, got;

	if (*path == '/') {
		start = call4(NR_openat, AT_FDCWD, "/", O_PATH | O_CLOEXEC, 0);
		if (start < 0)
			return failing(-start, 0, "/");
	}
	got = open_in(start, path, O_PATH, RESOLVE_NO_MAGICLINKS);
	if (start >= 0)
		close_fd(start);
	if (got >= 0) {
		close_fd(got);
		return 0;
	}
	return failing(-got, got == -ELOOP ? WHERE_LINK : WHERE_LOOKUP, path);
}

static long check_executable(const char *path)
{
	struct status status;
	long got = call4(NR_newfstatat, AT_FDCWD, path, &status, 0);

	if (got < 0)
		return failing(-got, WHERE_STAT, path);
	if ((status.mode & S_IFMT) == S_IFDIR)
		return failing(EACCES, WHERE_DIRECTORY, path);
	if ((status.mode & S_IFMT) != S_IFREG)
		return failing(EACCES, WHERE_NO_FILE, path);
	if (call4(NR_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) < 0)
		return failing(EACCES, WHERE_MODE, path);
	return refuse_magic_link(path);
}

static u64 field(const u8 *data, u32 start, u32 size)
{
	u64 value = 0;

	for (u32 i = size; i--;)
		value = value << 8 | data[start + i];
	return value;
}

/* The interpreter of a `#!` line, as the kernel's fs/binfmt_script.c finds it; empty when there is none. */
static void script_interpreter(const char *head, long size, char *into)
{
	long at = 2;

	while (at < size && (head[at] == ' ' || head[at] == '\t'))
		at++;
	while (at < size && head[at] && head[at] != '\n' && head[at] != ' ' && head[at] != '\t')
		*into++ = head[at++];
	*into = 0;
}

/* The PT_INTERP of an ELF file; empty when it has none or is something else. */
static void elf_interpreter(long fd, const u8 *head, long size, char *into)
{
	static u8 table[256 * MOST_PHDRS];
	int wide = size >= 64 && same((const char *)head, "\177ELF\2\1", 6);
	u64 start, each, count;
	long got;

	*into = 0;
	if (!wide && !(size >= 64 && same((const char *)head, "\177ELF\1\1", 6)))
		return;
	start = wide ? field(head, 32, 8) : field(head, 28, 4);
	each = wide ? field(head, 54, 2) : field(head, 42, 2);
	count = wide ? field(head, 56, 2) : field(head, 44, 2);
	if (start > 1UL << 62 || each < 32 || each > 256)
		return;
	if (count > MOST_PHDRS)
		count = MOST_PHDRS;
	got = call4(NR_pread64, fd, table, each * count, start);
	for (u64 at = 0; got > 0 && at + each <= (u64)got; at += each) {
		const u8 *entry = table + at;
		u64 offset, bytes;

		if (field(entry, 0, 4) != 3)
			continue;
		offset = wide ? field(entry, 8, 8) : field(entry, 4, 4);
		bytes = wide && each < 40 ? 0 : wide ? field(entry, 32, 8) : field(entry, 16, 4);
		if (bytes > 4096)
			bytes = 4096;
		got = offset < 1UL << 62 ? call4(NR_pread64, fd, into, bytes, offset) : 0;
		into[got > 0 ? got : 0] = 0;
		return;
	}
}

static long check_interpreter(const char *path)
{
	long got = check_executable(path);

	if (got >= 0)
		return got;
	if (got == -ELOOP) {
		u32 kind = where;
		long again = refuse_magic_link(path);

		if (again < 0) {
			where |= BY_INTERPRETER;
			return again;
		}
		where = kind;
		remember(path, length(path));
	}
	where |= IN_INTERPRETER;
	return got;
}

static long check_header(const char *path, int depth)
{
	char interpreter[4097];
	u8 head[HEAD];
	long size, got, fd = call4(NR_openat, AT_FDCWD, path, O_NONBLOCK | O_CLOEXEC, 0);

	if (fd == -EACCES || fd == -EPERM)
		return 0; /* execute-only */
	if (fd < 0)
		return failing(-fd, WHERE_HEADER, path);
	size = call4(NR_pread64, fd, head, HEAD, 0);
	if (size < 0) {
		close_fd(fd);
		return failing(-size, 0, 0);
	}
	if (size >= 2 && head[0] == '#' && head[1] == '!') {
		script_interpreter((const char *)head, size, interpreter);
		close_fd(fd);
		if (!*interpreter)
			return failing(ENOEXEC, WHERE_NO_INTERPRETER, path);
	} else {
		elf_interpreter(fd, head, size, interpreter);
		close_fd(fd);
		head[0] = 0;
	}
	if (!*interpreter || depth >= MOST_SCRIPTS)
		return 0;
	got = check_interpreter(interpreter);
	if (got >= 0 && head[0] == '#')
		got = check_header(interpreter, depth + 1);
	return got;
}

static char program_path[8192];

/* `search` is PATH; R_PROGRAM becomes the path to exec. */
static long find_program(const char *name, const char *search)
{
	int refused = 0;
	u32 refused_where = 0, refused_size = 0;
	static char refused_text[sizeof text];
	long got;

	for (const char *at = name; *at; at++)
		if (*at == '/') {
			registers[R_PROGRAM] = (u64)name;
			got = check_executable(name);
			return got < 0 ? got : check_header(name, 0);
		}
	while (*name && *search) {
		const char *end = search;
		u64 size;

		while (*end && *end != ':')
			end++;
		size = end - search;
		if (*search == '/' && size + length(name) + 2 < sizeof program_path) {
			copy(program_path, search, size);
			program_path[size] = '/';
			copy(program_path + size + 1, name, length(name) + 1);
			got = check_executable(program_path);
			if (got >= 0) {
				registers[R_PROGRAM] = (u64)program_path;
				return check_header(program_path, 0);
			}
			if (got != -ENOENT && got != -ENOTDIR && !refused) {
				refused = got;
				refused_where = where;
				refused_size = text_size;
				copy(refused_text, text, text_size);
			}
		}
		search = *end ? end + 1 : end;
	}
	if (refused) {
		where = refused_where;
		remember(refused_text, refused_size);
		return refused;
	}
	return failing(ENOENT, WHERE_NOT_FOUND, 0);
}

/* ---- users and groups: steps/users.py, SECURITY R10 ---- */

enum { WHERE_DATABASE = 60, WHERE_IRREGULAR, WHERE_LARGE, WHERE_NO_USER, WHERE_NO_GROUP, WHERE_IDS };
enum { MOST_DATABASE = 10 << 20, MOST_GROUPS = 65536 + 64 };
#define MAX_ID 0xfffffffeUL

struct who {
	u32 is_number, number, name;             /* the user; names are offsets in the data */
	u32 group_kind, group_number, group;     /* 0 none, 1 a number, 2 a name */
	u32 only, terminal, count;
	struct { u32 is_number, number, name; } extra[];
};

struct database {
	const char *at, *end;
};

struct entry {
	const char *field[7];
	u64 size[7];
};

static long read_database(long root, const char *path, struct database *into)
{
	struct status status;
	char *data;
	long got, fd = open_in(root, path, O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, IN_ROOT);

	into->at = into->end = 0;
	if (fd == -ENOENT || fd == -ENOTDIR)
		return 0;
	if (fd < 0)
		return failing(-fd, WHERE_DATABASE, path);
	got = call2(NR_fstat, fd, &status);
	if (got < 0)
		got = failing(-got, 0, 0);
	else if ((status.mode & S_IFMT) != S_IFREG)
		got = failing(EINVAL, WHERE_IRREGULAR, path);
	else if (status.size > MOST_DATABASE)
		got = failing(EFBIG, WHERE_LARGE, path);
	else if (status.size) {
		data = memory(status.size);
		got = data ? call3(NR_read, fd, data, status.size) : -12 /* ENOMEM */;
		if (got < 0)
			got = failing(-got, 0, 0);
		else {
			into->at = data;
			into->end = data + got;
		}
	}
	close_fd(fd);
	return got < 0 ? got : 0;
}

/* An id in a file of the image; MAX_ID + 1 for what is none, whose line then counts for nothing. */
static u64 file_id(const char *digits, u64 size)
{
	u64 value = 0;

	if (!size || size > 10)
		return MAX_ID + 1;
	for (u64 i = 0; i < size; i++) {
		if (digits[i] < '0' || digits[i] > '9')
			return MAX_ID + 1;
		value = value * 10 + (digits[i] - '0');
	}
	return value > MAX_ID ? MAX_ID + 1 : value;
}

/* The next line with `count` fields and a name; 0 at the end. */
static int next_entry(struct database *in, struct entry *entry, int count)
{
	while (in->at < in->end) {
		int n = 0;
		const char *start = in->at;

		while (n >= 0) {
			while (in->at < in->end && *in->at != ':' && *in->at != '\n')
				in->at++;
			if (n < count) {
				entry->field[n] = start;
				entry->size[n] = in->at - start;
			}
			n++;
			if (in->at >= in->end || *in->at == '\n')
				break;
			start = ++in->at;
		}
		in->at++;
		if (n == count && entry->size[0])
			return 1;
	}
	return 0;
}

static int named(const struct entry *entry, const char *name, u64 size)
{
	return entry->size[0] == size && same(entry->field[0], name, size);
}

static long find_group(struct database group, const char *name)
{
	struct entry entry;

	while (next_entry(&group, &entry, 4)) {
		u64 gid = file_id(entry.field[2], entry.size[2]);

		if (gid <= MAX_ID && named(&entry, name, length(name)))
			return gid;
	}
	return failing(ENOENT, WHERE_NO_GROUP, name);
}

static int is_member(const struct entry *entry, const char *name, u64 size)
{
	const char *at = entry->field[3], *end = at + entry->size[3];

	while (at <= end) {
		const char *start = at;

		while (at < end && *at != ',')
			at++;
		if ((u64)(at - start) == size && same(start, name, size))
			return 1;
		at++;
	}
	return 0;
}

static u32 groups[MOST_GROUPS];

static u32 add_group(u32 count, u32 gid)
{
	for (u32 i = 0; i < count; i++)
		if (groups[i] == gid)
			return count;
	if (count < MOST_GROUPS)
		groups[count++] = gid;
	return count;
}

static long give_stdio(u32 uid, int terminal)
{
	for (int fd = 0; fd < 3; fd++) {
		struct status status;
		long magic, got = call2(NR_fstat, fd, &status);

		if (got < 0)
			return failing(-got, 0, 0);
		if (status.uid == uid)
			continue;
		got = magic_of(fd, &magic);
		if (got < 0)
			return failing(-got, 0, 0);
		if (magic != PIPEFS_MAGIC && !(terminal && magic == DEVPTS_MAGIC))
			continue;
		got = call3(NR_fchown, fd, uid, -1);
		if (got < 0 && got != -EPERM && got != -EINVAL) /* else its owner is not mapped here */
			return failing(-got, 0, 0);
	}
	return 0;
}

static long set_ids(u32 uid, u32 gid, u32 count)
{
	u32 id[6];
	int signal = 0;
	long got;

	call2(NR_prctl, PR_GET_PDEATHSIG, &signal);
	call2(NR_prctl, PR_SET_KEEPCAPS, 1);
	if ((got = call2(NR_setgroups, count, groups)) < 0 || (got = call3(NR_setresgid, gid, gid, gid)) < 0 ||
	    (got = call3(NR_setresuid, uid, uid, uid)) < 0)
		return failing(-got, 0, 0);
	call3(NR_getresuid, id, id + 1, id + 2);
	call3(NR_getresgid, id + 3, id + 4, id + 5);
	for (int i = 0; i < 3; i++)
		if (id[i] != uid || id[3 + i] != gid) {
			char name[32], *end = decimal(name, uid);

			*end++ = ':';
			*decimal(end, gid) = 0;
			return failing(0, WHERE_IDS, name);
		}
	call2(NR_prctl, PR_SET_PDEATHSIG, signal);
	return 0;
}

static long set_user(const char *data, const struct who *who)
{
	static char home[4096];
	const char *account = 0;
	u64 account_size = 0, uid = who->number, gid = 0;
	u32 count = 0;
	int wants_group = who->group_kind != 1, found = 0;
	struct database passwd, group = { 0, 0 };
	struct entry entry;
	long got, root = call4(NR_openat, AT_FDCWD, "/", DIRECTORY | O_CLOEXEC, 0);

	if (root < 0)
		return failing(-root, 0, "/");
	for (u32 i = 0; i < who->count; i++)
		wants_group |= !who->extra[i].is_number;
	got = read_database(root, "etc/passwd", &passwd);
	if (got < 0 && (!who->is_number || !who->group_kind || !where))
		return got;
	if (wants_group && (got = read_database(root, "etc/group", &group)) < 0)
		return got;
	close_fd(root);
	home[0] = '/';
	home[1] = 0;
	while (!found && next_entry(&passwd, &entry, 7)) {
		u64 its = file_id(entry.field[2], entry.size[2]), its_gid = file_id(entry.field[3], entry.size[3]);

		if (its > MAX_ID || its_gid > MAX_ID)
			continue;
		found = who->is_number ? its == who->number
				       : named(&entry, data + who->name, length(data + who->name));
		if (!found)
			continue;
		uid = its;
		gid = its_gid;
		account = entry.field[0];
		account_size = entry.size[0];
		if (entry.size[5] && entry.size[5] < sizeof home) {
			copy(home, entry.field[5], entry.size[5]);
			home[entry.size[5]] = 0;
		}
	}
	if (!found && !who->is_number)
		return failing(ENOENT, WHERE_NO_USER, 0);
	registers[R_HOME] = (u64)home;
	if (who->group_kind) {
		got = who->group_kind == 1 ? who->group_number : find_group(group, data + who->group);
		if (got < 0)
			return got;
		gid = got;
	}
	count = add_group(0, gid);
	if (!who->group_kind && account) {
		struct database members = group;

		while (next_entry(&members, &entry, 4)) {
			u64 its = file_id(entry.field[2], entry.size[2]);

			if (its <= MAX_ID && is_member(&entry, account, account_size))
				count = add_group(count, its);
		}
	}
	for (u32 i = 0; i < who->count; i++) {
		got = who->extra[i].is_number ? who->extra[i].number : find_group(group, data + who->extra[i].name);
		if (got < 0)
			return got;
		count = add_group(count, got);
	}
	got = give_stdio(uid, who->terminal);
	if (got < 0)
		return got;
	if (who->only) {
		count = 0;
		for (u32 i = 0; i < who->count && count < MOST_GROUPS; i++)
			if (who->extra[i].is_number)
				groups[count++] = who->extra[i].number;
	}
	return set_ids(uid, gid, count);
}

/* ---- the start of a created container: steps/barrier.py ---- */

static void end_by_signal(int number)
{
	leave(128 + number);
}

static u32 owner_of(long fd)
{
	u32 credentials[3] = { 0, -1, -1 }, size = sizeof credentials;

	call5(NR_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, credentials, &size);
	return credentials[1];
}

static int hears_go(int flags)
{
	char word[64];
	long got;

	do
		got = call6(NR_recvfrom, channel, word, sizeof word, flags, 0, 0);
	while (got == -EINTR);
	return got >= 2 && word[0] == 'g' && word[1] == 'o';
}

/* Every fd from the channel's on but `keep`, ascending, is closed, and below it what exec would close. */
static void close_all_but(const u32 *keep, u32 count)
{
	u32 first = channel;

	for (int fd = 0; fd < channel; fd++) {
		long flags = call2(NR_fcntl, fd, F_GETFD);

		if (flags >= 0 && flags & FD_CLOEXEC)
			close_fd(fd);
	}
	for (u32 i = 0; i < count; i++) {
		if (keep[i] > first)
			call3(NR_close_range, first, keep[i] - 1, 0);
		first = keep[i] + 1;
	}
	call3(NR_close_range, first, -1, 0);
}

static long await_start(long listener, const u8 *kept, u64 count)
{
	static const int ending[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };
	struct { void *handler; u64 flags; void *restorer; u64 mask; } action = { 0 };
	u32 keep[MOST_FDS + 1], n = 1;

	if (!hears_go(0))
		leave(0);
	call2(NR_prctl, PR_SET_PDEATHSIG, 0);
	keep[0] = listener;
	for (u64 i = 0; i < count && n < MOST_FDS; i++)
		keep[n++] = registers[kept[i]];
	for (u32 i = 1; i < n; i++) /* in order */
		for (u32 j = i; j && keep[j] < keep[j - 1]; j--) {
			u32 other = keep[j];

			keep[j] = keep[j - 1];
			keep[j - 1] = other;
		}
	close_all_but(keep, n);
	/* The kernel keeps from process 1 of a PID namespace what it does not handle. */
	action.handler = (void *)end_by_signal;
#if defined(__x86_64__)
	action.flags = SA_RESTORER; /* the kernel wants one; a handler that ends the process does not */
	action.restorer = (void *)leave;
#endif
	for (u32 i = 0; i < sizeof ending / sizeof *ending; i++)
		call4(NR_rt_sigaction, ending[i], &action, 0, 8);
	for (;;) {
		long fd = call4(NR_accept4, listener, 0, 0, O_CLOEXEC);

		if (fd == -EINTR)
			continue;
		if (fd < 0)
			return failing(-fd, 0, 0);
		/* Who connects is who made the socket, wherever its mode may let others in (SECURITY R11). */
		if (owner_of(fd) != owner_of(listener)) {
			close_fd(fd);
			continue;
		}
		if (fd != channel) {
			call3(NR_dup3, fd, channel, O_CLOEXEC);
			close_fd(fd);
		}
		if (hears_go(0))
			break;
	}
	memset(&action, 0, sizeof action);
	for (u32 i = 0; i < sizeof ending / sizeof *ending; i++)
		call4(NR_rt_sigaction, ending[i], &action, 0, 8);
	close_fd(listener);
	return 0;
}

/* ---- the last hop ---- */

enum { ADDS_HOME = 1, ADDS_PID = 2, BY_STUB = 4 };

/* `strings`: argv, each with its NUL, then the environment. By way of the stub behind `stub` for --init. */
static long exec_program(const char *strings, u64 argc, u64 envc, u64 flags, long stub)
{
	static char home[4096 + 8] = "HOME=", pid[32] = "LISTEN_PID=", number[16];
	const char **vector = memory((argc + envc + 16) * sizeof *vector), **argv = vector, **envp;
	const char *path = (const char *)registers[R_PROGRAM];
	u32 record[2];
	long got;

	if (!vector)
		return failing(12 /* ENOMEM */, 0, 0);
	if (flags & BY_STUB) {
		*decimal(number, channel) = 0;
		*vector++ = "gocker-init";
		*vector++ = number;
		*vector++ = path;
	}
	for (u64 i = 0; i < argc; i++, strings += length(strings) + 1)
		*vector++ = strings;
	*vector++ = 0;
	envp = vector;
	for (u64 i = 0; i < envc; i++, strings += length(strings) + 1)
		*vector++ = strings;
	if (flags & ADDS_HOME) {
		copy(home + 5, (const char *)registers[R_HOME], length((const char *)registers[R_HOME]) + 1);
		*vector++ = home;
	}
	if (flags & ADDS_PID) {
		*decimal(pid + 11, call0(NR_getpid)) = 0;
		*vector++ = pid;
	}
	*vector = 0;
	if (flags & BY_STUB) {
		got = call5(NR_execveat, stub, "", argv, envp, AT_EMPTY_PATH);
		return failing(-got, 0, 0);
	}
	got = call3(NR_execve, path, argv, envp);
	if (got == -E2BIG)
		return failing(E2BIG, 0, 0);
	record[0] = 1; /* EXEC_FAILED of kernel/stub.py */
	record[1] = -got;
	call3(NR_write, channel, record, sizeof record);
	leave(got == -ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE);
}

/* ---- the built-ins ---- */

enum {
	B_FAIL, B_OPEN_IN, B_DIRECTORY, B_FILE, B_DIRECTORY_ENTRY, B_FILE_ENTRY, B_NEW_MOUNT, B_MAGIC, B_FD_PATH, B_TEXT,
	B_FIND_PROGRAM, B_SET_USER, B_DROP_BOUNDING, B_SEND_FD, B_AWAIT_START, B_EXEC, B_EXIT, B_NUMBER, B_SAME, B_OR,
	B_NODE, B_OPEN_NODE, B_LAST_DIGITS,
};
enum { WHERE_NO_CAPABILITY = 70 };

static long drop_bounding(u64 keep)
{
	char name[8];

	for (u32 number = 0; number < 64; number++) {
		long got;

		if (keep >> number & 1)
			continue;
		got = call2(NR_prctl, PR_CAPBSET_DROP, number);
		if (got == -EINVAL && number) { /* above the last that this kernel has */
			if (!(keep >> number))
				return 0;
			while (!(keep >> number & 1))
				number++;
			*decimal(name, number) = 0;
			return failing(EINVAL, WHERE_NO_CAPABILITY, name);
		}
		if (got < 0)
			return failing(-got, 0, 0);
	}
	return 0;
}

static long send_fd(const char *word, u64 size, int fd)
{
	struct { u64 len; i32 level, type; i32 fd, pad; } control = { 20, SOL_SOCKET, SCM_RIGHTS, fd, 0 };
	struct { const void *base; u64 len; } part = { word, size };
	struct { void *name; u64 name_len; void *parts; u64 count; void *control; u64 control_len; u64 flags; } header = {
		0, 0, &part, 1, &control, sizeof control, 0 };
	long got = call3(NR_sendmsg, channel, &header, 0);

	return got < 0 ? failing(-got, 0, 0) : 0;
}

/* Whether the launcher ended before PR_SET_PDEATHSIG was in force: its end of the socket went first. */
static int is_orphan(void)
{
	char byte;

	return call6(NR_recvfrom, channel, &byte, 1, MSG_PEEK | MSG_DONTWAIT, 0, 0) == 0;
}

static long builtin(u32 number, const u64 *a, const char *data)
{
	char *end;
	long magic, got;

	switch (number) {
	case B_FAIL: /* an errno, or the result of a call */
		return failing((long)a[0] < 0 ? -(int)a[0] : (int)a[0], a[1], (const char *)a[2]);
	case B_OPEN_IN:
		got = open_in(a[0], (const char *)a[1], a[2], a[3]);
		return got < 0 ? failing(-got, 0, 0) : got;
	case B_DIRECTORY:
		return make_directory(a[0], (const char *)a[1], a[2]);
	case B_FILE:
		return make_file(a[0], (const char *)a[1], a[2]);
	case B_DIRECTORY_ENTRY:
		return directory_entry(a[0], (const char *)a[1], a[2]);
	case B_FILE_ENTRY:
		return file_entry(a[0], (const char *)a[1], a[2]);
	case B_NEW_MOUNT:
		return new_mount((const char *)a[0], (const char *)a[1], a[2]);
	case B_MAGIC:
		got = magic_of(a[0], &magic);
		return got < 0 ? failing(-got, 0, 0) : magic;
	case B_FD_PATH: /* "/proc/self/fd/N" and a NUL at a[0]; where the NUL is */
		end = (char *)a[0];
		copy(end, "/proc/self/fd/", 14);
		end = decimal(end + 14, a[1]);
		*end = 0;
		return (long)end;
	case B_NUMBER: /* a[1] in base a[2] and a NUL at a[0]; where the NUL is */
		end = digits((char *)a[0], a[1], a[2]);
		*end = 0;
		return (long)end;
	case B_LAST_DIGITS: /* of the digits from a[0] to the NUL at a[1] the last a[2], without zeros before */
		if (a[1] - a[0] > a[2])
			end = (char *)(a[1] - a[2]);
		else
			end = (char *)a[0];
		while (*end == '0' && end[1])
			end++;
		return (long)end;
	case B_SAME:
		return a[0] == a[1];
	case B_OR:
		return a[0] | a[1];
	case B_NODE:
		return make_node(a[0], (const char *)a[1], (const char *)a[2], a[3], a[4], a[5]);
	case B_OPEN_NODE:
		return open_node(a[0], (const char *)a[1], a[2]);
	case B_TEXT:
		copy((char *)a[0], (const char *)a[1], length((const char *)a[1]) + 1);
		return a[0] + length((const char *)a[1]);
	case B_FIND_PROGRAM:
		return find_program((const char *)a[0], (const char *)a[1]);
	case B_SET_USER:
		return set_user(data, (const struct who *)a[0]);
	case B_DROP_BOUNDING:
		return drop_bounding(a[0]);
	case B_SEND_FD:
		return send_fd((const char *)a[0], a[1], a[2]);
	case B_AWAIT_START:
		return await_start(a[0], (const u8 *)a[1], a[2]);
	case B_EXEC:
		return exec_program((const char *)a[0], a[1], a[2], a[3], a[4]);
	case B_EXIT:
		leave(a[0]);
	default:
		return failing(EINVAL, 0, "no such built-in");
	}
}

/* ---- the interpreter ---- */

static u64 load(const u8 *at, u32 size)
{
	return field(at, 0, size);
}

static void store(u8 *at, u64 value, u32 size)
{
	for (u32 i = 0; i < size; i++)
		at[i] = value >> 8 * i;
}

/* A word is op:8 into:8 count:4 flags:4 kinds:12 number:16 for calls, and op:8 register:8 detail:16 other:32 else. */
static void run_chunk(const struct chunk *chunk)
{
	const u64 *code = (const u64 *)(chunk + 1);
	u8 *data = (u8 *)chunk + chunk->data;
	u32 at = 0;

	for (;;) {
		u32 here = at;
		u64 word = code[at++];
		u32 op = word & 0xff, into = word >> 8 & 0xff, detail = word >> 16 & 0xffff, other = word >> 32;
		u64 value;

		switch (op) {
		case OP_END:
			return;
		case OP_CALL:
		case OP_BUILTIN:
		case OP_SET: {
			u32 count = word >> 16 & 15, flags = word >> 20 & 15, kinds = word >> 24 & 0xfff, number = word >> 36 & 0xffff;
			u64 a[6] = { 0 };
			long got;

			for (u32 i = 0; i < count; i++) {
				a[i] = code[at++];
				if ((kinds >> 2 * i & 3) == ARG_REGISTER)
					a[i] = registers[a[i] & 0xff];
				else if ((kinds >> 2 * i & 3) == ARG_DATA)
					a[i] += (u64)data;
			}
			where = text_size = 0;
			if (op == OP_SET) {
				got = a[0];
				registers[into] = got;
				break;
			}
			if (op == OP_CALL) {
				u32 tries = flags & FLAG_RETRY ? TRIES : 1;

				do
					got = call6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
				while (got == -EAGAIN && --tries);
			} else {
				got = builtin(number, a, (const char *)data);
			}
			registers[into] = got;
			if (got < 0 && got > -4096) {
				if (where) /* more than an errno: no `except OSError` would see it */
					fail(here, -got);
				while ((code[at] & 0xff) == OP_CATCH && (u64)-got != (code[at] >> 16 & 0xffff) &&
				       code[at] >> 16 & 0xffff) /* 0 catches all */
					at++;
				if ((code[at] & 0xff) != OP_CATCH)
					fail(here, -got);
				other = code[at] >> 32;
				at = other ? other : at + 1;
			}
			break;
		}
		case OP_CATCH:
			break;
		case OP_JUMP:
			at = other;
			break;
		case OP_TEST: /* jump when equal (0), or not (1), below a mask */
			value = registers[into] & code[at];
			if ((value == code[at + 1]) != detail)
				at = other;
			else
				at += 2;
			break;
		case OP_LOAD:
			registers[into] = load(data + other, detail);
			break;
		case OP_STORE:
			store(data + other, registers[into], detail);
			break;
		default:
			where = text_size = 0;
			fail(here, EINVAL);
		}
	}
}

static u64 now(void)
{
	u64 time[2] = { 0, 0 };

	call2(NR_clock_gettime, CLOCK_MONOTONIC, time);
	return time[0] * 1000000000 + time[1];
}

static void say_times(const char *name)
{
	char message[MOST_CHUNKS * 22 + 32], *end = message;

	*end++ = '{';
	*end++ = '"';
	copy(end, name, length(name));
	end += length(name);
	copy(end, "\": [", 4);
	end += 4;
	for (u32 i = 0; i < time_count; i++) {
		if (i)
			*end++ = ',';
		end = decimal(end, times[i]);
	}
	*end++ = ']';
	*end++ = '}';
	say(message, end - message);
}

static void ask_launcher(u32 index)
{
	char message[32] = "{\"host\": ", *end = decimal(message + 9, index);

	*end++ = '}';
	say(message, end - message);
	if (!hears_go(0))
		leave(EXIT_GOCKER_FAILED);
}

static void disarm(void)
{
	/* New ids clear PR_SET_PDEATHSIG, and make dumpable again where the sysctl fs.suid_dumpable is 1. */
	call2(NR_prctl, PR_SET_PDEATHSIG, SIGKILL);
	call2(NR_prctl, PR_SET_DUMPABLE, 0);
	if (is_orphan())
		leave(EXIT_GOCKER_FAILED);
}

static _Noreturn void run_program(const u8 *program, u32 chunks)
{
	int ready = 0;

	for (u32 index = 0; index < chunks; index++) {
		const struct chunk *chunk = (const struct chunk *)program;
		u64 start;

		step_index = index;
		*progress = index;
		if (!ready && (chunk->flags & QUIET || index == chunks - 1)) {
			say_times("ready");
			ready = 1;
		}
		if (chunk->flags & PARKS)
			say_times("parked");
		blob = 0;
		blob_size = chunk->reserved;
		if (blob_size)
			blob = program + chunk->size - (blob_size + 7) / 8 * 8;
		start = ready ? 0 : now(); /* a filter may forbid to ask for the time */
		if (chunk->flags & AT_HOST)
			ask_launcher(index);
		else
			run_chunk(chunk);
		if (chunk->flags & DISARMS)
			disarm();
		if (!ready)
			times[time_count++] = now() - start;
		program += chunk->size;
	}
	leave(EXIT_GOCKER_FAILED);
}

/* ---- the birth ---- */

struct message {
	void *name;
	u64 name_size;
	struct { void *base; u64 size; } *parts;
	u64 count;
	void *control;
	u64 control_size;
	u64 flags;
};

static _Noreturn void answer(int pid, int error)
{
	i32 reply[2] = { pid, error };

	say(reply, sizeof reply);
	leave(error ? 1 : 0);
}

static void reset_signals(void)
{
	struct { void *handler; u64 flags; void *restorer; u64 mask; } action = { 0 };
	u64 none = 0;

	for (int number = 1; number <= 64; number++)
		if (number != SIGKILL && number != SIGSTOP)
			call4(NR_rt_sigaction, number, &action, 0, 8);
	call4(NR_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
}

static int lifted(int fd)
{
	long high = fd;

	if (fd <= channel) {
		high = call3(NR_fcntl, fd, F_DUPFD_CLOEXEC, channel + 1);
		close_fd(fd);
	}
	return high;
}

/* Wait for the launcher's word, which has the program with it; `named` are the fds for its registers. */
static _Noreturn void go(const int *named)
{
	static struct { u64 size; i32 level, type; i32 fd[2]; } control;
	struct { void *base; u64 size; } part = { packet, sizeof packet };
	struct message header = { 0, 0, (void *)&part, 1, &control, sizeof control, 0 };
	const struct go *word = (const struct go *)packet;
	const u32 *numbers = (const u32 *)(word + 1);
	const u8 *program;
	long got;

	do
		got = call3(NR_recvmsg, channel, &header, MSG_CMSG_CLOEXEC);
	while (got == -EINTR);
	if (got < (long)sizeof *word || word->word[0] != 'g' || word->word[1] != 'o' || header.flags & 0x28 ||
	    word->chunks > MOST_CHUNKS || is_orphan())
		leave(EXIT_GOCKER_FAILED);
	registers[R_PID] = word->pid;
	for (u32 i = 0; i < word->named; i++)
		registers[numbers[i] & 0xff] = named[i];
	program = (const u8 *)(numbers + (word->named + 1) / 2 * 2);
	if (word->memory) {
		int fd = header.control_size >= 20 ? lifted(control.fd[0]) : -1;

		got = call6(NR_mmap, 0, word->memory, PROT_READ_WRITE, MAP_PRIVATE, fd, 0);
		if (got < 0 && got > -4096)
			leave(EXIT_GOCKER_FAILED);
		close_fd(fd);
		program = (const u8 *)got;
	}
	run_program(program, word->chunks);
}

__attribute__((used)) static _Noreturn void run(long *stack)
{
	static struct { u64 size; i32 level, type; i32 fd[MOST_FDS + 2]; } control;
	struct { void *base; u64 size; } part = { packet, sizeof packet };
	struct message header = { 0, 0, (void *)&part, 1, &control, sizeof control, 0 };
	const struct boot *boot = (const struct boot *)packet;
	const char **argv = (const char **)(stack + 1);
	const u32 *joins;
	const char *offsets;
	int *fds = control.fd, count, cgroup = -1, pidfd = -1;
	struct { u64 flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } args = { 0 };
	long got;

	if (stack[0] != 2 || !equals(argv[0], "gocker-executor")) /* a payload that execs /proc/self/exe */
		leave(EXIT_CANNOT_EXECUTE);
	for (const char *digit = argv[1]; *digit >= '0' && *digit <= '9' && channel < 1 << 20; digit++)
		channel = channel * 10 + (*digit - '0');
	if (channel < 3)
		leave(EXIT_CANNOT_EXECUTE);
	call2(NR_prctl, PR_SET_DUMPABLE, 0);
	call2(NR_prctl, PR_SET_PDEATHSIG, SIGKILL);
	call2(NR_fcntl, channel, 2 /* F_SETFD */);
	call3(NR_fcntl, channel, 2 /* F_SETFD */, FD_CLOEXEC);
	call2(NR_prctl, PR_SET_NAME, "gocker-executor");
	reset_signals();
	do
		got = call3(NR_recvmsg, channel, &header, MSG_CMSG_CLOEXEC);
	while (got == -EINTR);
	if (got < (long)sizeof *boot || boot->magic != MAGIC || header.flags & 0x28 /* MSG_TRUNC | MSG_CTRUNC */)
		leave(got ? EXIT_CANNOT_EXECUTE : EXIT_GOCKER_FAILED);
	count = header.control_size >= 16 ? ((int)control.size - 16) / 4 : 0;
	if (count < FIXED_FDS)
		answer(0, EINVAL);
	for (int i = 0; i < count; i++)
		fds[i] = lifted(fds[i]);
	joins = (const u32 *)(boot + 1);
	offsets = (const char *)(joins + boot->joins);
	got = call6(NR_mmap, 0, 4096, PROT_READ_WRITE, MAP_SHARED, fds[3], 0);
	if (got < 0 && got > -4096)
		answer(0, -got);
	progress = (volatile i32 *)got;
	if (boot->cgroup)
		cgroup = fds[FIXED_FDS];
	fds += FIXED_FDS + boot->cgroup;
	for (u32 i = 0; i < boot->joins; i++)
		if (joins[i] != CLONE_NEWCGROUP && (got = call2(NR_setns, fds[i], joins[i])) < 0)
			answer(0, -got);
	if (boot->flags & CLONE_NEWTIME) {
		got = call1(NR_unshare, CLONE_NEWTIME);
		if (got >= 0 && boot->offsets) {
			long file = call4(NR_openat, AT_FDCWD, "/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC, 0);

			got = file < 0 ? file : call3(NR_write, file, offsets, boot->offsets);
			close_fd(file);
		}
		if (got < 0)
			answer(0, -got);
	}
	args.flags = (boot->flags & ~CLONE_NEWTIME) | CLONE_PARENT | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0);
	args.pidfd = (u64)&pidfd;
	args.cgroup = cgroup >= 0 ? cgroup : 0;
	got = call2(NR_clone3, &args, sizeof args);
	if (got < 0)
		answer(0, -got);
	if (got > 0) {
		i32 reply[2] = { got, 0 };

		send_fd((const char *)reply, sizeof reply, pidfd);
		leave(0);
	}
	/* The first process. */
	for (u32 i = 0; i < boot->joins; i++)
		if (joins[i] == CLONE_NEWCGROUP && call2(NR_setns, fds[i], joins[i]) < 0)
			leave(EXIT_GOCKER_FAILED);
	call2(NR_prctl, PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < 3; i++)
		call3(NR_dup3, control.fd[i], i, 0);
	for (u32 i = 0; i < boot->joins; i++)
		close_fd(fds[i]);
	go(fds + boot->joins);
}
