/* The yardstick of in-process starts: what gocker's launch plan does for
 *     gocker run --limit memory=100m IMAGE /bin/true
 * system call for system call, in C, without checks, audit, read-back or report.
 *
 * usage: start ROOTFS WORKDIR FILTER COUNT
 *   ROOTFS   directory with /bin/true
 *   WORKDIR  directory for the containers' own layers
 *   FILTER   file with a struct sock_filter[] (gocker's cached default profile, after its header)
 *   COUNT    starts, one after the other
 * prints the nanoseconds of each start, from nothing to nothing, a line each.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#define CHECK(call) do { if ((call) < 0) err(1, "%s:%d: %s", __FILE__, __LINE__, #call); } while (0)
#define LEN(a) (sizeof(a) / sizeof *(a))

static const char *const v1[] = {"blkio", "cpuacct", "devices", "memory", "pids"}; /* on v2 hosts none of them is there */
static int have_v1;
static const char *unified = "/sys/fs/cgroup";
static const char *rootfs, *workdir;
static struct sock_fprog filter;
static int null_fd;

static void put(const char *path, const char *text, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);
	CHECK(fd);
	CHECK(write(fd, text, strlen(text)));
	close(fd);
}

/* On a busy machine the kernel may hold a cgroup for a moment after its last process was waited for; gocker tries
 * again in the same way. */
static void take_away(const char *path)
{
	long patience = 5000; /* milliseconds */

	for (long nap = 1; rmdir(path) < 0; nap = nap < 25 ? 2 * nap : 50) {
		struct timespec pause = {.tv_nsec = nap * 1000000};
		if (errno != EBUSY || (patience -= nap) < 0)
			err(1, "rmdir %s", path);
		nanosleep(&pause, NULL);
	}
}

static int new_mount(const char *type, const char *const *options, unsigned attributes)
{
	int context = syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), fd;
	CHECK(context);
	CHECK(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", type, 0));
	for (; options && options[0]; options += 2)
		CHECK(syscall(SYS_fsconfig, context, options[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG,
			      options[0], options[1], 0));
	CHECK(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	fd = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
	CHECK(fd);
	close(context);
	return fd;
}

static void attach(int fd, int dir, const char *path)
{
	CHECK(syscall(SYS_move_mount, fd, "", dir, path, MOVE_MOUNT_F_EMPTY_PATH));
}

static void mount_at(int root, const char *type, const char *path, const char *const *options, unsigned attributes)
{
	int fd = new_mount(type, options, attributes);
	attach(fd, root, path);
	close(fd);
}

static void bind_at(int from, const char *source, int root, const char *path, unsigned attributes)
{
	int fd = syscall(SYS_open_tree, from, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return;
	CHECK(fd);
	if (attributes) {
		struct mount_attr attr = {.attr_set = attributes};
		CHECK(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr));
	}
	attach(fd, root, path);
	close(fd);
}

static void become(const char *id, int channel, int *tasks)
{
	char text[4096], byte;
	static const unsigned hard = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

	CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL));
	if (read(channel, &byte, 1) != 1)
		_exit(1);
	for (size_t i = 0; have_v1 && i < LEN(v1); i++)
		CHECK(write(tasks[i], "0", 1));
	CHECK(prctl(PR_SET_DUMPABLE, 0));
	setsid();
	CHECK(syscall(SYS_keyctl, 1, id)); /* KEYCTL_JOIN_SESSION_KEYRING */
	CHECK(unshare(CLONE_NEWCGROUP));

	int inet = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq lo = {.ifr_name = "lo"};
	CHECK(ioctl(inet, SIOCGIFFLAGS, &lo));
	lo.ifr_flags |= IFF_UP;
	CHECK(ioctl(inet, SIOCSIFFLAGS, &lo));
	close(inet);
	CHECK(sethostname(id, 12));
	CHECK(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));

	char upper[512], work[512];
	snprintf(upper, sizeof upper, "%s/%s/upper", workdir, id);
	snprintf(work, sizeof work, "%s/%s/work", workdir, id);
	const char *layers[] = {"lowerdir", rootfs, "upperdir", upper, "workdir", work, "volatile", NULL, NULL};
	int root = new_mount("overlay", layers, 0);
	attach(root, AT_FDCWD, "/"); /* what is looked up from here on goes past it */

	mount_at(root, "proc", "proc", NULL, hard);
	mount_at(root, "sysfs", "sys", NULL, hard | MOUNT_ATTR_RDONLY);
	if (have_v1) {
		static const char *small[] = {"mode", "755", "size", "64k", NULL};
		int top = new_mount("tmpfs", small, hard);
		for (size_t i = 0; i < LEN(v1); i++)
			CHECK(mkdirat(top, v1[i], 0755));
		CHECK(mkdirat(top, "unified", 0755));
		attach(top, root, "sys/fs/cgroup");
		for (size_t i = 0; i < LEN(v1); i++) {
			const char *options[] = {v1[i], NULL, NULL};
			mount_at(top, "cgroup", v1[i], options, hard | MOUNT_ATTR_RDONLY);
		}
		mount_at(top, "cgroup2", "unified", NULL, hard | MOUNT_ATTR_RDONLY);
		struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
		CHECK(syscall(SYS_mount_setattr, top, "", AT_EMPTY_PATH, &attr, sizeof attr));
		close(top);
	} else {
		mount_at(root, "cgroup2", "sys/fs/cgroup", NULL, hard | MOUNT_ATTR_RDONLY);
	}

	static const char *dev_options[] = {"mode", "755", "size", "65536k", NULL};
	int dev = new_mount("tmpfs", dev_options, MOUNT_ATTR_NOSUID);
	attach(dev, root, "dev");
	static const struct { const char *name; int minor, major; } nodes[] = {
		{"null", 3, 1}, {"zero", 5, 1}, {"full", 7, 1}, {"random", 8, 1}, {"urandom", 9, 1}, {"tty", 0, 5}};
	for (size_t i = 0; i < LEN(nodes); i++)
		CHECK(mknodat(dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
	static const char *const links[][2] = {{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}, {"/proc/kcore", "core"}};
	for (size_t i = 0; i < LEN(links); i++)
		CHECK(symlinkat(links[i][0], dev, links[i][1]));
	CHECK(mkdirat(dev, "pts", 0755)); CHECK(mkdirat(dev, "shm", 0755)); CHECK(mkdirat(dev, "mqueue", 0755));
	static const char *pts[] = {"newinstance", NULL, "ptmxmode", "0666", "mode", "0620", "gid", "5", NULL};
	static const char *shm[] = {"mode", "1777", "size", "67108864", NULL};
	mount_at(dev, "devpts", "pts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	mount_at(dev, "tmpfs", "shm", shm, hard);
	mount_at(dev, "mqueue", "mqueue", NULL, hard);

	static const char *const etc[] = {"hosts", "hostname", "resolv.conf"};
	mkdirat(root, "etc", 0755);
	for (size_t i = 0; i < LEN(etc); i++) {
		snprintf(text, sizeof text, "etc/%s", etc[i]);
		int fd = openat(root, text, O_CREAT | O_CLOEXEC | O_WRONLY, 0644);
		CHECK(fd);
		close(fd);
		char source[1024];
		snprintf(source, sizeof source, "%s/%s/etc/%s", workdir, id, etc[i]);
		bind_at(AT_FDCWD, source, root, text, 0);
	}
	static const char *const masks[] = {"proc/acpi", "proc/asound", "proc/interrupts", "proc/kcore", "proc/keys",
		"proc/latency_stats", "proc/sched_debug", "proc/scsi", "proc/timer_list", "proc/timer_stats",
		"sys/devices/virtual/powercap", "sys/firmware"};
	for (size_t i = 0; i < LEN(masks); i++) {
		struct stat st;
		if (fstatat(root, masks[i], &st, 0) < 0)
			continue;
		if (S_ISDIR(st.st_mode)) {
			static const char *empty[] = {"size", "4k", "mode", "755", NULL};
			mount_at(root, "tmpfs", masks[i], empty, hard | MOUNT_ATTR_RDONLY);
		} else {
			bind_at(dev, "null", root, masks[i], 0);
		}
	}
	static const char *const readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
	for (size_t i = 0; i < LEN(readonly); i++)
		bind_at(root, readonly[i], root, readonly[i], MOUNT_ATTR_RDONLY);

	CHECK(fchdir(root));
	CHECK(syscall(SYS_pivot_root, ".", "."));
	CHECK(umount2(".", MNT_DETACH));
	CHECK(chdir("/"));
	umask(022);

	static const uint64_t keep = 0xa80425fb; /* docker's fourteen */
	for (int cap = 0; cap <= 40; cap++)
		if (!(keep >> cap & 1))
			CHECK(prctl(PR_CAPBSET_DROP, cap));
	CHECK(syscall(SYS_setgroups, 0, NULL));
	CHECK(syscall(SYS_setresgid, 0, 0, 0));
	CHECK(syscall(SYS_setresuid, 0, 0, 0));
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {0, 0, 0}};
	CHECK(syscall(SYS_capset, &header, data));
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	for (int target = 0; target < 3; target++)
		CHECK(dup2(null_fd, target));
	CHECK(syscall(SYS_close_range, 3, ~0u, 4)); /* CLOSE_RANGE_CLOEXEC */
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
	char *argv[] = {"/bin/true", NULL}, *envp[] = {"PATH=/bin", NULL};
	execve(argv[0], argv, envp);
	_exit(127);
}

static void start(int number)
{
	char id[17], path[1024], text[64];
	int tasks[LEN(v1)];
	snprintf(id, sizeof id, "%08x%08x", getpid(), number);
	static const char *const directories[] = {"", "/upper", "/work", "/etc"};
	for (size_t i = 0; i < LEN(directories); i++) {
		snprintf(path, sizeof path, "%s/%s%s", workdir, id, directories[i]);
		CHECK(mkdir(path, i ? 0755 : 0700));
	}
	static const char *const etc[] = {"hosts", "hostname", "resolv.conf"};
	for (size_t i = 0; i < LEN(etc); i++) {
		snprintf(path, sizeof path, "%s/%s/etc/%s", workdir, id, etc[i]);
		put(path, "127.0.0.1\tlocalhost\n", O_WRONLY | O_CREAT | O_EXCL);
	}
	for (size_t i = 0; have_v1 && i < LEN(v1); i++) {
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/gocker-bench", v1[i]);
		mkdir(path, 0755);
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/gocker-bench/%s", v1[i], id);
		CHECK(mkdir(path, 0755));
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/gocker-bench/%s/tasks", v1[i], id);
		CHECK(tasks[i] = open(path, O_WRONLY | O_CLOEXEC));
	}
	snprintf(path, sizeof path, "%s/gocker-bench", unified);
	mkdir(path, 0755);
	snprintf(path, sizeof path, "%s/gocker-bench/%s", unified, id);
	CHECK(mkdir(path, 0755));
	int cgroup = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CHECK(cgroup);
	static const char *const limits1[][2] = {{"memory/gocker-bench/%s/memory.limit_in_bytes", "104857600"},
		{"memory/gocker-bench/%s/memory.memsw.limit_in_bytes", "104857600"}, {"pids/gocker-bench/%s/pids.max", "4096"}};
	static const char *const limits2[][2] = {{"gocker-bench/%s/memory.max", "104857600"},
		{"gocker-bench/%s/memory.swap.max", "0"}, {"gocker-bench/%s/pids.max", "4096"}};
	for (size_t i = 0; i < 3; i++) {
		const char *const *limit = have_v1 ? limits1[i] : limits2[i];
		int n = snprintf(path, sizeof path, "/sys/fs/cgroup/");
		snprintf(path + n, sizeof path - n, limit[0], id);
		put(path, limit[1], O_WRONLY);
	}
	if (have_v1) { /* on v2 hosts gocker attaches a BPF program, which this one does not */
		static const char *const rules[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
			"c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
		snprintf(path, sizeof path, "/sys/fs/cgroup/devices/gocker-bench/%s/devices.deny", id);
		put(path, "a", O_WRONLY);
		snprintf(path, sizeof path, "/sys/fs/cgroup/devices/gocker-bench/%s/devices.allow", id);
		int allow = open(path, O_WRONLY | O_CLOEXEC);
		CHECK(allow);
		for (size_t i = 0; i < LEN(rules); i++)
			if (write(allow, rules[i], strlen(rules[i])) < 0 && errno != EPERM)
				err(1, "allow %s", rules[i]);
		close(allow);
	}

	int pair[2];
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET,
		.exit_signal = SIGCHLD, .cgroup = cgroup};
	int pidfd = -1, status;
	args.pidfd = (uintptr_t)&pidfd;
	pid_t pid = syscall(SYS_clone3, &args, sizeof args);
	CHECK(pid);
	if (pid == 0) {
		close(pair[0]);
		become(id, pair[1], tasks);
	}
	close(pair[1]);
	CHECK(write(pair[0], "g", 1));
	while (read(pair[0], text, sizeof text) > 0)
		;
	CHECK(waitpid(pid, &status, 0));
	if (status)
		errx(1, "start %d ended with wait status %#x", number, status);
	close(pair[0]); close(pidfd); close(cgroup);
	for (size_t i = 0; have_v1 && i < LEN(v1); i++) {
		close(tasks[i]);
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/gocker-bench/%s", v1[i], id);
		take_away(path);
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s/gocker-bench", v1[i]);
		rmdir(path); /* unless another benchmark is in it */
	}
	snprintf(path, sizeof path, "%s/gocker-bench/%s", unified, id);
	take_away(path);
	snprintf(path, sizeof path, "%s/gocker-bench", unified);
	rmdir(path);
	static const char *const left[] = {"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc", "work/work/incompat/volatile/dirty", "work/work/incompat/volatile",
		"work/work/incompat", "work/work", "work", "upper/etc/hosts", "upper/etc/hostname", "upper/etc/resolv.conf", "upper/etc", "upper"};
	snprintf(path, sizeof path, "%s/%s", workdir, id);
	int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CHECK(directory);
	for (size_t i = 0; i < LEN(left); i++)
		if (unlinkat(directory, left[i], 0) < 0 && errno == EISDIR)
			unlinkat(directory, left[i], AT_REMOVEDIR);
	close(directory);
	take_away(path);
}

int main(int argc, char **argv)
{
	static struct sock_filter instructions[4096];
	if (argc != 5)
		errx(2, "usage: start ROOTFS WORKDIR FILTER COUNT");
	rootfs = argv[1]; workdir = argv[2];
	int fd = open(argv[3], O_RDONLY | O_CLOEXEC);
	CHECK(fd);
	filter.len = read(fd, instructions, sizeof instructions) / sizeof *instructions;
	filter.filter = instructions;
	close(fd);
	CHECK(null_fd = open("/dev/null", O_RDWR | O_CLOEXEC));
	have_v1 = access("/sys/fs/cgroup/memory/tasks", F_OK) == 0;
	if (have_v1)
		unified = "/sys/fs/cgroup/unified";
	for (int i = 0, count = atoi(argv[4]); i < count; i++) {
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		start(i);
		clock_gettime(CLOCK_MONOTONIC, &b);
		printf("%lld\n", (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec);
	}
	return 0;
}
