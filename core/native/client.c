/*
 * The commands `gocker` and `gocker-oci` where a compiler was there when gocker was built: hands the command
 * over to a warm server's worker, and is itself what the worker cannot be: the parent of the container's
 * processes. Without a server, or where anything does not fit, it execs the Python command beside itself,
 * whose name has `-python` at its end. Without libc, since that would cost as much as all the rest.
 *
 *   client                                worker (core/warm)
 *     |-- connect, REQUEST, 0 1 2 cwd ------>| looks whether it can stand in for this process
 *     |<------------------ COLD -------------| no: the Python command does it, nothing was done
 *     |<------------------ WELCOME, pidfd ---| yes; from now on signals are passed on to the pidfd
 *     |<------- SPAWN, executor, channel ----| starts the executor (core/kernel/native.py): a child of this
 *     |-- SPAWNED pid ---------------------->|   process, as what it makes by CLONE_PARENT will be
 *     |<------- REAP, WAIT pid, PEEK pidfd --|
 *     |-- WAITED status usage, PEEKED ------>|
 *     |<------------------ END_OUTPUT fd ----| the program has closed its stdout: so is this process's
 *     |<------------------ EXIT status ------| and this process ends with it
 *
 * core/warm/protocol.py has the same constants. A signal reaches the worker with its sender's pid and uid, by
 * pidfd_send_signal(2) with si_code SI_QUEUE, or PASSED_ON for one that the kernel sent: what a worker does
 * about it is what the command would do, also when that is the default action; then this process does the
 * same to itself. SIGTSTP and its like stop the worker with this process.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long u64;

#ifndef GOCKER_VERSION
#define GOCKER_VERSION ""
#endif

enum { PROTOCOL = 1, RLIMITS = 16, MOST = 120 << 10, WORDS = 4096 };
enum { WELCOME = 1, COLD, EXIT, SPAWN, WAIT, PEEK, CHALLENGE, END_OUTPUT, REAP }; /* from the worker */
enum { SPAWNED = 1, WAITED, PEEKED, HERE };			 /* to it */
enum { PATIENCE = 2, PASSED_ON = -60 };				 /* seconds until WELCOME; a si_code */
enum { EXIT_FAILED = 125, EXIT_OCI_FAILED = 1, EXIT_NOT_FOUND = 127 };

/* From the kernel's uapi headers, the same on both machines. */
enum { EINTR = 4, EBADF = 9, EAGAIN = 11, EINVAL = 22 };
enum { AT_FDCWD = -100, AT_EMPTY_PATH = 0x1000, O_WRONLY = 1, O_CLOEXEC = 02000000, O_PATH = 010000000 };
enum { AF_UNIX = 1, SOCK_SEQPACKET = 5, SOCK_NONBLOCK = 04000, SOL_SOCKET = 1, SCM_RIGHTS = 1 };
enum { MSG_NOSIGNAL = 0x4000, MSG_CMSG_CLOEXEC = 0x40000000, MSG_CTRUNC = 8, MSG_TRUNC = 0x20 };
enum { SIG_BLOCK = 0, SIG_SETMASK = 2, SIGSET_SIZE = 8, SFD = 02000000 | 04000, SIGINFO_SIZE = 128 };
enum { SIGKILL = 9, SIGCHLD = 17, SIGCONT = 18, SIGSTOP = 19, SIGTSTP = 20, SIGTTIN = 21, SIGTTOU = 22 };
enum { SI_QUEUE = -1, POLLIN = 1, WNOHANG = 1, TIOCGPGRP = 0x540F, CLD_EXITED = 1 };
enum { SHUT_RD = 0, P_PIDFD = 3, WEXITED = 4, WNOWAIT = 0x01000000 };
enum { CLONE_VM = 0x100, CLONE_VFORK = 0x4000, STATX_BASIC = 0x7ff, EXECUTOR_STACK = 8192 };

#define BIT(number) (1UL << ((number) - 1))
/* What gocker.signals leaves alone, but for the three that stop: SIGILL TRAP ABRT BUS FPE SEGV PIPE XFSZ URG SYS. */
#define LEFT_ALONE                                                                                       \
	(BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(SIGKILL) | BIT(11) | BIT(13) | BIT(SIGCHLD) | \
	 BIT(SIGSTOP) | BIT(23) | BIT(25) | BIT(31) | BIT(32) | BIT(33))
#define STOPPING (BIT(SIGTSTP) | BIT(SIGTTIN) | BIT(SIGTTOU))

#if defined(__x86_64__)

enum {
	NR_read = 0, NR_write = 1, NR_close = 3, NR_rt_sigprocmask = 14, NR_ioctl = 16, NR_getpid = 39,
	NR_socket = 41, NR_connect = 42, NR_sendmsg = 46, NR_recvmsg = 47, NR_shutdown = 48, NR_execve = 59, NR_wait4 = 61,
	NR_kill = 62, NR_umask = 95, NR_geteuid = 107, NR_getpgid = 121, NR_exit_group = 231,
	NR_waitid = 247, NR_openat = 257, NR_readlinkat = 267, NR_ppoll = 271, NR_signalfd4 = 289,
	NR_dup3 = 292, NR_prlimit64 = 302, NR_execveat = 322, NR_statx = 332, NR_pidfd_send_signal = 424,
};

static long call(long nr, long a, long b, long c, long d, long e)
{
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = e;
	register long sixth __asm__("r9") = 0;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "rcx", "r11", "memory");
	return result;
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n xor %ebp, %ebp\n and $-16, %rsp\n call run\n ud2\n"
	/* long clone_on(flags, stack, function, argument): the function never returns. */
	".globl clone_on\n"
	"clone_on: sub $16, %rsi\n mov %rdx, (%rsi)\n mov %rcx, 8(%rsi)\n"
	" xor %edx, %edx\n xor %r10d, %r10d\n xor %r8d, %r8d\n mov $56, %eax\n syscall\n"
	" test %rax, %rax\n jnz 1f\n pop %rax\n pop %rdi\n xor %ebp, %ebp\n call *%rax\n ud2\n"
	"1: ret\n");

#elif defined(__aarch64__)

enum {
	NR_dup3 = 24, NR_ioctl = 29, NR_openat = 56, NR_close = 57, NR_read = 63, NR_write = 64,
	NR_ppoll = 73, NR_signalfd4 = 74, NR_readlinkat = 78, NR_exit_group = 94, NR_waitid = 95,
	NR_kill = 129, NR_rt_sigprocmask = 135, NR_getpgid = 155, NR_umask = 166, NR_getpid = 172,
	NR_geteuid = 175, NR_socket = 198, NR_connect = 203, NR_sendmsg = 211, NR_recvmsg = 212,
	NR_shutdown = 210, NR_execve = 221, NR_wait4 = 260, NR_prlimit64 = 261, NR_execveat = 281, NR_statx = 291,
	NR_pidfd_send_signal = 424,
};

static long call(long nr, long a, long b, long c, long d, long e)
{
	register long number __asm__("x8") = nr;
	register long first __asm__("x0") = a;
	register long second __asm__("x1") = b;
	register long third __asm__("x2") = c;
	register long fourth __asm__("x3") = d;
	register long fifth __asm__("x4") = e;
	register long sixth __asm__("x5") = 0;

	__asm__ volatile("svc #0"
			 : "+r"(first)
			 : "r"(number), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "memory");
	return first;
}

__asm__(".globl _start\n_start: mov x0, sp\n mov x29, #0\n mov x30, #0\n bl run\n brk #0\n"
	".globl clone_on\n"
	"clone_on: stp x2, x3, [x1, #-16]!\n mov x2, #0\n mov x3, #0\n mov x4, #0\n mov x8, #220\n svc #0\n"
	" cbnz x0, 1f\n ldp x9, x0, [sp], #16\n mov x29, #0\n blr x9\n brk #0\n"
	"1: ret\n");

#else
#error "neither x86-64 nor arm64"
#endif

extern long clone_on(u64 flags, void *stack, void (*function)(void *), void *argument);

struct span {
	const void *base;
	u64 length;
};

struct header { /* struct msghdr */
	void *name;
	u32 name_length, pad;
	struct span *spans;
	u64 count;
	void *control;
	u64 control_length;
	u32 flags, pad_too;
};

struct rights { /* struct cmsghdr and its content */
	u64 length;
	s32 level, kind;
	s32 fds[4];
};

struct request { /* protocol.REQUEST */
	u32 protocol, oci, umask, argc, envc, pad;
	u64 blocked;
	u64 limits[RLIMITS][2];
};

struct poll {
	s32 fd;
	u16 events, found;
};

struct message {
	u32 kind;
	s32 value;
};

struct answer {
	u32 kind;
	s32 value;
	u8 usage[144]; /* struct rusage */
};

struct state {
	char **argv, **envp;
	const char *script;  /* the Python command */
	int oci, interactive; /* whether it reads its terminal, as far as can be told from outside */
	int socket, signals, worker; /* fds; the worker's pidfd is -1 until it has taken the request */
	u64 blocked;	     /* the mask that this process was started with */
	u64 passed_on;	     /* signals that the worker has been told of */
	int last;	     /* the last one of them */
	long executor;	     /* pid, until it was waited for; 0 for none */
};

static char script_path[4096 + 16];
static char socket_path[4096 + 32];
static char text[MOST];
static struct span spans[2];
static u8 executor_stack[EXECUTOR_STACK] __attribute__((aligned(16)));

void *memset(void *to, int byte, u64 length)
{
	u8 *each = to;

	while (length--)
		*each++ = (u8)byte;
	return to;
}

static u64 length_of(const char *string)
{
	u64 length = 0;

	while (string[length])
		length++;
	return length;
}

static int begins(const char *string, const char *with)
{
	while (*with)
		if (*string++ != *with++)
			return 0;
	return 1;
}

static int same(const char *one, const char *other)
{
	return begins(one, other) && !one[length_of(other)];
}

static const char *after(const char *string, const char *with)
{
	return begins(string, with) ? string + length_of(with) : 0;
}

static char *copy(char *to, const char *from, const char *end)
{
	while (*from && to < end)
		*to++ = *from++;
	*to = 0;
	return to;
}

static void say(const char *words)
{
	call(NR_write, 2, (long)words, (long)length_of(words), 0, 0);
}

static long set_mask(int how, u64 mask, u64 *old)
{
	return call(NR_rt_sigprocmask, how, (long)&mask, (long)old, SIGSET_SIZE, 0);
}

static void __attribute__((noreturn)) leave(int status)
{
	for (;;)
		call(NR_exit_group, status, 0, 0, 0, 0);
}

/* The Python command, as if this process had never been. */
static void __attribute__((noreturn)) go_cold(struct state *state)
{
	int number;

	if (state->signals >= 0)
		set_mask(SIG_SETMASK, state->blocked, 0);
	for (number = 1; number < 64; number++) /* what came meanwhile acts on this process */
		if (state->passed_on & BIT(number))
			call(NR_kill, call(NR_getpid, 0, 0, 0, 0, 0), number, 0, 0, 0);
	state->argv[0] = (char *)state->script;
	call(NR_execve, (long)state->script, (long)state->argv, (long)state->envp, 0, 0);
	say("gocker: start ");
	say(state->script);
	say(": it cannot be executed: install gocker anew\n");
	leave(EXIT_NOT_FOUND);
}

/* The worker ended and has not said how: by a signal that was meant for this process, or by another's hand. */
static void __attribute__((noreturn)) end_as_worker(struct state *state)
{
	if (state->last) {
		set_mask(SIG_SETMASK, 0, 0);
		call(NR_kill, call(NR_getpid, 0, 0, 0, 0, 0), state->last, 0, 0, 0);
		leave(128 + state->last);
	}
	say("gocker: the worker of the warm server that did this command was killed: what it left is taken back by the"
	    " next gocker\n");
	leave(state->oci ? EXIT_OCI_FAILED : EXIT_FAILED);
}

/* Whether an argument names something that is another thing in another process. */
static int is_own(const char *argument)
{
	static const char *const names[] = { "/proc/self", "/proc/thread-self", "/dev/fd", "/dev/std", "/dev/tty" };
	const char *each;
	u64 i;

	for (each = argument; *each; each++)
		if (each == argument || each[-1] == '=' || each[-1] == ':' || each[-1] == ',')
			for (i = 0; i < sizeof names / sizeof *names; i++)
				if (begins(each, names[i]))
					return 1;
	return 0;
}

/* Whether it is worth a try, by the words alone. */
static int is_for_worker(struct state *state, const char **root)
{
	char **each;
	const char *value;

	*root = "/run/gocker";
	for (each = state->envp; *each; each++) {
		if ((value = after(*each, "GOCKER_STATE=")) && *value)
			*root = value;
		if (same(*each, "GOCKER_WARM=off") || begins(*each, "_GOCKER_COMPLETE=") ||
		    begins(*each, "_GOCKER_OCI_COMPLETE=") || begins(*each, "LISTEN_FDS=") ||
		    begins(*each, "NOTIFY_SOCKET="))
			return 0;
	}
	if (**root != '/' || !state->argv[0] || !(value = state->argv[1]))
		return 0;
	if (!state->oci && (*value == '-' || same(value, "warm") || same(value, "doctor")))
		return 0;
	for (each = state->argv + 1; *each; each++) {
		if (is_own(*each))
			return 0;
		if (same(*each, "--interactive"))
			state->interactive = 1;
		if ((*each)[0] == '-' && (*each)[1] != '-')
			for (value = *each; *value; value++)
				if (*value == 'i')
					state->interactive = 1;
	}
	return 1;
}

/* Whether the terminal would stop this process rather than let it read: the worker has none that does. So it
 * is with streams that are closed: their numbers would be another file's. */
static int is_background(int first, int last)
{
	int fd, group;
	long got;

	for (fd = first; fd <= last; fd++) {
		got = call(NR_ioctl, fd, TIOCGPGRP, (long)&group, 0, 0);
		if (got == -EBADF || (got == 0 && group != call(NR_getpgid, 0, 0, 0, 0, 0)))
			return 1;
	}
	return 0;
}

/* A socket to the server; below 0 without one. The folder must be this user's alone. */
static int connect_to(const char *root)
{
	struct {
		u16 family;
		char path[108];
	} address = { .family = AF_UNIX };
	u8 info[256];
	char *end;
	long folder, fd;

	end = copy(socket_path, root, socket_path + 4096);
	copy(end, "/warm", end + 16);
	folder = call(NR_openat, AT_FDCWD, (long)socket_path, O_PATH | O_CLOEXEC, 0, 0);
	if (folder < 0)
		return -1;
	if (call(NR_statx, folder, (long)"", AT_EMPTY_PATH, STATX_BASIC, (long)info) < 0 ||
	    *(u32 *)(info + 20) != (u32)call(NR_geteuid, 0, 0, 0, 0, 0) ||
	    *(u16 *)(info + 28) != (0040000 | 0700))
		return -1;
	end = copy(address.path, "/proc/self/fd/", address.path + 32);
	if (folder >= 10)
		*end++ = (char)('0' + folder / 10 % 10);
	*end++ = (char)('0' + folder % 10);
	copy(end, "/socket", end + 16);
	fd = folder < 100 ? call(NR_socket, AF_UNIX, SOCK_SEQPACKET | O_CLOEXEC | SOCK_NONBLOCK, 0, 0, 0) : -1;
	if (fd >= 0 && call(NR_connect, fd, (long)&address, sizeof address, 0, 0) < 0)
		fd = -1;
	call(NR_close, folder, 0, 0, 0, 0);
	return (int)fd;
}

static long send_to(struct state *state, struct span *parts, u64 count, struct rights *rights)
{
	struct header header = { .spans = parts, .count = count };

	if (rights) {
		header.control = rights;
		header.control_length = sizeof *rights;
	}
	return call(NR_sendmsg, state->socket, (long)&header, MSG_NOSIGNAL, 0, 0);
}

static void reply(struct state *state, u32 kind, s32 value)
{
	struct message message = { kind, value };
	struct span part = { &message, sizeof message };

	send_to(state, &part, 1, 0); /* a worker that has ended: the next poll sees that */
}

/* Send all that the worker takes on; below 0 where that does not fit. */
static long ask(struct state *state, const char *own)
{
	static struct request request;
	struct rights rights = { 16 + 4 * 4, SOL_SOCKET, SCM_RIGHTS, { 0, 1, 2, -1 } };
	char **each, *end = text, *last = text + sizeof text - 1;
	int i;

	request.protocol = PROTOCOL;
	request.oci = (u32)state->oci;
	request.umask = (u32)call(NR_umask, 077, 0, 0, 0, 0);
	call(NR_umask, request.umask, 0, 0, 0, 0);
	request.blocked = state->blocked;
	for (i = 0; i < RLIMITS; i++)
		call(NR_prlimit64, 0, i, 0, (long)request.limits[i], 0);
	end = copy(end, GOCKER_VERSION, last) + 1;
	end = copy(end, own, last) + 1;
	for (each = state->argv + 1; *each && end < last; each++, request.argc++)
		end = copy(end, *each, last) + 1;
	for (each = state->envp; *each && end < last; each++, request.envc++)
		end = copy(end, *each, last) + 1;
	if (end >= last)
		return -1;
	rights.fds[3] = (s32)call(NR_openat, AT_FDCWD, (long)".", O_PATH | O_CLOEXEC, 0, 0);
	if (rights.fds[3] < 0)
		return -1;
	spans[0] = (struct span){ &request, sizeof request };
	spans[1] = (struct span){ text, (u64)(end - text) };
	i = (int)send_to(state, spans, 2, &rights);
	call(NR_close, rights.fds[3], 0, 0, 0, 0);
	return i;
}

struct start { /* what the new process needs; it shares this memory until its exec */
	struct rights *rights;
	char number[12];
	long error;
};

static void become_executor(void *argument)
{
	struct start *start = argument;
	char *argv[] = { "gocker-executor", start->number, 0 };
	char *envp[] = { 0 };
	int executor = start->rights->fds[0], channel = start->rights->fds[1], number = 0;
	const char *each;

	for (each = start->number; *each; each++)
		number = number * 10 + *each - '0';
	if (executor == number)
		executor = (int)call(NR_dup3, executor, number + 1 == channel ? number + 2 : number + 1, O_CLOEXEC, 0, 0);
	start->error = channel == number ? -EINVAL : call(NR_dup3, channel, number, 0, 0, 0);
	if (start->error >= 0) {
		set_mask(SIG_SETMASK, 0, 0);
		start->error = call(NR_execveat, executor, (long)"", (long)argv, (long)envp, AT_EMPTY_PATH);
	}
	leave(EXIT_NOT_FOUND);
}

static void spawn(struct state *state, s32 number, struct rights *rights)
{
	struct start start = { .rights = rights };
	char digits[12];
	int length = 0, i;
	long pid;

	do
		digits[length++] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	for (i = 0; i < length; i++)
		start.number[i] = digits[length - 1 - i];
	pid = clone_on(CLONE_VM | CLONE_VFORK | SIGCHLD, executor_stack + sizeof executor_stack, become_executor,
		       &start);
	if (pid > 0 && start.error < 0) {
		call(NR_wait4, pid, 0, 0, 0, 0);
		pid = start.error;
	}
	for (i = 0; i < 2; i++)
		call(NR_close, rights->fds[i], 0, 0, 0, 0);
	state->executor = pid > 0 ? pid : 0;
	reply(state, SPAWNED, (s32)pid);
}

/* Nobody else is to find it among our children. */
static void reap_executor(struct state *state)
{
	if (state->executor && call(NR_wait4, state->executor, 0, 0, 0, 0) > 0)
		state->executor = 0;
}

static void wait_for(struct state *state, s32 pid)
{
	struct answer answer = { .kind = WAITED };
	struct span part = { &answer, sizeof answer };
	long got;

	do
		got = call(NR_wait4, pid, (long)&answer.value, 0, (long)answer.usage, 0);
	while (got == -EINTR);
	if (got < 0)
		answer.value = -1;
	send_to(state, &part, 1, 0);
}

static void peek(struct state *state, int pidfd)
{
	s32 info[32] = { 0 };
	long got = call(NR_waitid, P_PIDFD, pidfd, (long)info, WEXITED | WNOWAIT | WNOHANG, 0);

	call(NR_close, pidfd, 0, 0, 0, 0);
	if (got < 0)
		reply(state, PEEKED, -1);
	else if (info[4] == 0) /* si_pid */
		reply(state, PEEKED, -2);
	else /* si_code, si_status */
		reply(state, PEEKED, info[2] == CLD_EXITED ? info[6] << 8 : info[6]);
}

/* The reader of a pipe sees the end of it, and the number stays taken. */
static void end_output(int fd)
{
	long null = call(NR_openat, AT_FDCWD, (long)"/dev/null", O_WRONLY | O_CLOEXEC, 0, 0);

	call(NR_dup3, null, fd, 0, 0, 0);
	call(NR_close, null, 0, 0, 0, 0);
}

/* Do what one message of the worker asks for; 0 when there is none yet. */
static int obey(struct state *state)
{
	struct message message = { 0, 0 };
	struct rights rights = { 0, 0, 0, { -1, -1, -1, -1 } };
	struct span part = { &message, sizeof message };
	struct header header = { .spans = &part, .count = 1, .control = &rights, .control_length = sizeof rights };
	long got = call(NR_recvmsg, state->socket, (long)&header, MSG_CMSG_CLOEXEC, 0, 0);

	if (got == -EAGAIN || got == -EINTR)
		return 0;
	if (got != sizeof message) { /* the end */
		if (state->worker < 0)
			go_cold(state);
		end_as_worker(state);
	}
	switch (message.kind) {
	case WELCOME:
		state->worker = rights.fds[0];
		break;
	case COLD:
		go_cold(state);
	case EXIT:
		leave(message.value);
	case SPAWN:
		spawn(state, message.value, &rights);
		break;
	case REAP: /* it has made the first process, and ends now */
		reap_executor(state);
		break;
	case WAIT:
		wait_for(state, message.value);
		break;
	case PEEK:
		peek(state, rights.fds[0]);
		break;
	case END_OUTPUT:
		end_output(message.value);
		break;
	case CHALLENGE:
		reply(state, HERE, 0);
	}
	return 1;
}

/* Stop with the worker, as the terminal's user or another wants it, and go on with it. */
static void stop(struct state *state, int number)
{
	u64 mask;

	call(NR_pidfd_send_signal, state->worker, SIGSTOP, 0, 0, 0);
	set_mask(SIG_BLOCK, 0, &mask);
	call(NR_kill, call(NR_getpid, 0, 0, 0, 0, 0), number, 0, 0, 0);
	set_mask(SIG_SETMASK, mask & ~BIT(number), 0); /* here it stops */
	set_mask(SIG_SETMASK, mask, 0);
	call(NR_pidfd_send_signal, state->worker, SIGCONT, 0, 0, 0);
}

static void pass_on_signal(struct state *state)
{
	u32 came[SIGINFO_SIZE / 4]; /* struct signalfd_siginfo: number, errno, code, pid, uid */
	s32 info[32];		    /* siginfo_t: number, errno, code, pad, pid, uid */
	int number, code, i;

	while (call(NR_read, state->signals, (long)came, sizeof came, 0, 0) == sizeof came) {
		number = (int)came[0];
		code = (int)came[2];
		if (BIT(number) & STOPPING) {
			stop(state, number);
			continue;
		}
		for (i = 0; i < 32; i++)
			info[i] = 0;
		info[0] = number;
		info[2] = code > 0 ? PASSED_ON : SI_QUEUE;
		info[4] = (s32)came[3];
		info[5] = (s32)came[4];
		state->passed_on |= BIT(number);
		if (number != SIGCONT && number != 28)
			state->last = number;
		call(NR_pidfd_send_signal, state->worker, number, (long)info, 0, 0);
		if (number == SIGCONT && state->interactive && is_background(0, 0))
			stop(state, SIGTTIN); /* what a read of its own would come to */
	}
}

/* Be there for the worker until the command has ended. */
static void __attribute__((noreturn)) attend(struct state *state)
{
	struct poll polls[2] = { { state->socket, POLLIN, 0 }, { state->signals, POLLIN, 0 } };
	u64 patience[2] = { PATIENCE, 0 };
	int accepted;
	long got;

	for (;;) {
		accepted = state->worker >= 0;
		got = call(NR_ppoll, (long)polls, accepted ? 2 : 1, accepted ? 0 : (long)patience, 0, 0);
		if (got == 0 && !accepted) { /* too long; and from here on no worker can take it any more */
			call(NR_shutdown, state->socket, SHUT_RD, 0, 0, 0);
			if (!obey(state))
				go_cold(state);
			continue;
		}
		if (polls[0].found && got > 0)
			obey(state);
		else if (polls[1].found && got > 0)
			pass_on_signal(state);
		polls[1].found = 0;
	}
}

/* The name of this program, and of the Python command beside it. */
static int find_script(struct state *state, char *own)
{
	long length = call(NR_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)own, 4095, 0);
	char *end;

	if (length <= 0)
		return 0;
	own[length] = 0;
	end = copy(script_path, own, script_path + 4096);
	state->oci = end - script_path > 4 && same(end - 4, "-oci");
	copy(end, "-python", script_path + sizeof script_path - 1);
	state->script = script_path;
	return 1;
}

__attribute__((used, noreturn)) void run(long *stack)
{
	static struct state state;
	static char own[4096];
	const char *root;

	state.argv = (char **)(stack + 1);
	state.envp = state.argv + stack[0] + 1;
	state.signals = state.socket = state.worker = -1;
	if (!find_script(&state, own)) {
		say("gocker: /proc is not mounted: mount -t proc proc /proc\n");
		leave(EXIT_FAILED);
	}
	if (!is_for_worker(&state, &root) || is_background(0, 2))
		go_cold(&state);
	state.socket = connect_to(root);
	if (state.socket < 0)
		go_cold(&state);
	set_mask(SIG_BLOCK, ~LEFT_ALONE, &state.blocked);
	{
		u64 mask = ~LEFT_ALONE;

		state.signals = (int)call(NR_signalfd4, -1, (long)&mask, SIGSET_SIZE, SFD, 0);
	}
	if (state.signals < 0 || ask(&state, own) < 0)
		go_cold(&state);
	attend(&state);
}
