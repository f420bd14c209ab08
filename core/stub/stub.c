/*
 * The last hop into a container: a program without libc that execs the user's program, or is its
 * PID 1 (--init). It runs from a sealed memfd, so that what /proc/self/exe names while the program
 * is started is this, and not the host's interpreter (SECURITY R1, docs/adr/0005-exec-stub.md).
 *
 *   argv[0] "gocker-exec"   argv[1] the number of the status fd, argv[2] the path to exec,
 *                           argv[3...] the program's own argv
 *   argv[0] "gocker-init"   the same, as the child of this process, which forwards signals and reaps
 *   argv[0] anything else   a payload that execs /proc/self/exe: exit 126, nothing happens
 *
 * The status fd is a SEQPACKET socket to the launcher, closed on exec; the fds below it are the
 * program's. Each record is {u32 kind, u32 value}:
 *
 *   stub                          launcher
 *     |----- {1, errno} ----------->| the exec failed; exit status 127 for ENOENT, else 126
 *     |----- end of file ---------->| gocker-exec: the program runs
 *     |----- {3, 0} --------------->| gocker-init: the program runs
 *     |----- {2, wait status} ----->| gocker-init: the program ended
 *
 * core/kernel/stub.py holds the compiled bytes and the same constants; build.py makes them.
 * The seccomp filter is already in force: a system call more is a profile that breaks.
 */

typedef unsigned int u32;
typedef unsigned long u64;

enum { EXEC_FAILED = 1, ENDED = 2, STARTED = 3 };
enum { EXIT_BROKEN = 125, EXIT_CANNOT_EXECUTE = 126, EXIT_NOT_FOUND = 127 };

/* From the kernel's uapi headers; the errno and signal numbers are the same on both machines. */
enum { ENOENT = 2, EINTR = 4, ECHILD = 10, EINVAL = 22 };
enum { SIGCHLD = 17, SIG_SETMASK = 2, SIGSET_SIZE = 8 };
enum { F_SETFD = 2, FD_CLOEXEC = 1, O_CLOEXEC = 02000000, WNOHANG = 1, TIOCSPGRP = 0x5410 };
enum { PR_SET_DUMPABLE = 4, PR_SET_NAME = 15, PR_SET_CHILD_SUBREAPER = 36 };

#if defined(__x86_64__)

enum {
	NR_read = 0, NR_write = 1, NR_close = 3, NR_rt_sigprocmask = 14, NR_ioctl = 16, NR_getpid = 39,
	NR_clone = 56, NR_execve = 59, NR_wait4 = 61, NR_kill = 62, NR_fcntl = 72, NR_setpgid = 109,
	NR_rt_sigtimedwait = 128, NR_prctl = 157, NR_exit_group = 231, NR_pipe2 = 293,
};

static long call(long nr, long a, long b, long c, long d)
{
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = 0;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
			 : "rcx", "r11", "memory");
	return result;
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");

#elif defined(__aarch64__)

enum {
	NR_read = 63, NR_write = 64, NR_close = 57, NR_rt_sigprocmask = 135, NR_ioctl = 29, NR_getpid = 172,
	NR_clone = 220, NR_execve = 221, NR_wait4 = 260, NR_kill = 129, NR_fcntl = 25, NR_setpgid = 154,
	NR_rt_sigtimedwait = 137, NR_prctl = 167, NR_exit_group = 94, NR_pipe2 = 59,
};

static long call(long nr, long a, long b, long c, long d)
{
	register long number __asm__("x8") = nr;
	register long first __asm__("x0") = a;
	register long second __asm__("x1") = b;
	register long third __asm__("x2") = c;
	register long fourth __asm__("x3") = d;
	register long fifth __asm__("x4") = 0;

	__asm__ volatile("svc 0"
			 : "+r"(first)
			 : "r"(number), "r"(second), "r"(third), "r"(fourth), "r"(fifth)
			 : "memory");
	return first;
}

__asm__(".globl _start\n_start: mov x0, sp\n bl run\n");

#else
#error "no system call numbers for this machine"
#endif

static _Noreturn void leave(int status)
{
	for (;;)
		call(NR_exit_group, status, 0, 0, 0);
}

static void report(int fd, u32 kind, u32 value)
{
	u32 record[2] = { kind, value };

	call(NR_write, fd, (long)record, sizeof record, 0);
}

static _Noreturn void fail(int fd, int error)
{
	report(fd, EXEC_FAILED, error);
	leave(error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE);
}

/* Whether argv[0] is "gocker-exec" or "gocker-init", told apart by `last`, its last four letters. */
static int named(const char *name, const char *last)
{
	const char *head = "gocker-";

	while (*head)
		if (*name++ != *head++)
			return 0;
	while (*last)
		if (*name++ != *last++)
			return 0;
	return !*name;
}

/* Decimal digits; what is no number is one that no fd has. */
static int number(const char *text)
{
	u32 value = 0;

	if (!*text)
		return -1;
	for (; *text; text++) {
		u32 digit = *text - '0';

		if (digit > 9 || value > 1 << 20)
			return -1;
		value = value * 10 + digit;
	}
	return value;
}

static int exec(char **argv, char **envp)
{
	return -call(NR_execve, (long)argv[2], (long)(argv + 3), (long)envp, 0);
}

/* The child of --init: leads its own process group, which gets the terminal when there is one. */
static _Noreturn void become_program(char **argv, char **envp, const u64 *mask, int error_pipe)
{
	int error, pid = call(NR_getpid, 0, 0, 0, 0);

	call(NR_setpgid, 0, 0, 0, 0);
	/* Not a terminal: ENOTTY, and nothing to do. SIGTTOU is blocked, so a background group may. */
	call(NR_ioctl, 0, TIOCSPGRP, (long)&pid, 0);
	call(NR_rt_sigprocmask, SIG_SETMASK, (long)mask, 0, SIGSET_SIZE);
	error = exec(argv, envp);
	call(NR_write, error_pipe, (long)&error, sizeof error, 0);
	leave(EXIT_BROKEN);
}

static _Noreturn void ended(int fd, int status)
{
	int signal = status & 0x7f;

	report(fd, ENDED, status);
	leave(signal ? 128 + signal : status >> 8 & 0xff);
}

static _Noreturn void init(int fd, char **argv, char **envp)
{
	/* Every signal is blocked and fetched by sigtimedwait: blocked signals reach a PID 1 too,
	   where those without a handler would be dropped (pid_namespaces(7)). */
	u64 mask, all = ~0UL;
	int program, error = 0, fds[2];
	long got;

	call(NR_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&mask, SIGSET_SIZE);
	call(NR_prctl, PR_SET_NAME, (long)"gocker-init", 0, 0); /* else ps shows the memfd's name */
	/* The program may run as the same user: it shall not trace its PID 1 and so take the status fd. */
	call(NR_prctl, PR_SET_DUMPABLE, 0, 0, 0);
	/* Where PID 1 is someone else's (--pid=host) orphans come here all the same. */
	call(NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0);
	got = call(NR_pipe2, (long)fds, O_CLOEXEC, 0, 0);
	if (got < 0)
		fail(fd, -got);
	program = got = call(NR_clone, SIGCHLD, 0, 0, 0);
	if (got < 0)
		fail(fd, -got);
	if (program == 0)
		become_program(argv, envp, &mask, fds[1]);
	call(NR_close, fds[1], 0, 0, 0);
	/* End of file: exec closed the other end. Else the errno of the failed exec. */
	do
		got = call(NR_read, fds[0], (long)&error, sizeof error, 0);
	while (got == -EINTR);
	if (got > 0)
		fail(fd, error);
	call(NR_close, fds[0], 0, 0, 0);
	/* The program's own: as long as they are open here, nobody sees it close them. */
	for (int own = 0; own < fd; own++)
		call(NR_close, own, 0, 0, 0);
	report(fd, STARTED, 0);
	for (;;) {
		int status;
		long signal = call(NR_rt_sigtimedwait, (long)&all, 0, 0, SIGSET_SIZE);
		/* Any other error is a filter that forbids the call: wait for children, forward nothing. */
		long options = signal > 0 || signal == -EINTR ? WNOHANG : 0;

		if (signal > 0 && signal != SIGCHLD) {
			call(NR_kill, program, signal, 0, 0);
			continue;
		}
		/* One SIGCHLD can stand for many children. */
		while ((got = call(NR_wait4, -1, (long)&status, options, 0)) > 0)
			if (got == program)
				ended(fd, status);
		if (got == -ECHILD)
			leave(EXIT_BROKEN); /* cannot be: the program's end was not seen */
	}
}

__attribute__((used)) static _Noreturn void run(long *stack)
{
	char **argv = (char **)(stack + 1);
	char **envp = argv + stack[0] + 1;
	int as_init, fd;

	if (stack[0] < 1)
		leave(EXIT_CANNOT_EXECUTE);
	as_init = named(argv[0], "init");
	if (!as_init && !named(argv[0], "exec"))
		leave(EXIT_CANNOT_EXECUTE);
	fd = stack[0] > 1 ? number(argv[1]) : -1;
	/* Closed on exec or not run at all: the program gets no socket to the launcher. */
	if (call(NR_fcntl, fd, F_SETFD, FD_CLOEXEC, 0) < 0)
		leave(EXIT_BROKEN);
	if (stack[0] < 4)
		fail(fd, EINVAL);
	if (as_init)
		init(fd, argv, envp);
	fail(fd, exec(argv, envp));
}
