/* Shows a program an x86 processor without AVX512, AMX and AVX-VNNI, for measurements.

       gcc -O2 -shared -fPIC -o avx2_only.so experiments/benchmarks/avx2_only.c -ldl
       LD_PRELOAD=$PWD/avx2_only.so python ...

   Libraries choose their code by the instruction cpuid. Linux lets it fault
   (ARCH_SET_CPUID, on processors that list cpuid_fault); the handler below answers
   in its place, with the bits of wider instructions cleared. No other handler of
   SIGSEGV is installed meanwhile. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static void set_cpuid(unsigned long allowed) {
  if (syscall(SYS_arch_prctl, 0x1012 /* ARCH_SET_CPUID */, allowed) != 0) {
    fputs("avx2_only: this processor cannot let cpuid fault\n", stderr);
    _exit(1);
  }
}

static void answer(int signal_number, siginfo_t *info, void *context) {
  greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)regs[REG_RIP];
  if (code[0] != 0x0f || code[1] != 0xa2) { /* a real fault: as without us */
    signal(signal_number, SIG_DFL);
    return;
  }
  unsigned leaf = (unsigned)regs[REG_RAX], sub = (unsigned)regs[REG_RCX];
  unsigned a = leaf, b = 0, c = sub, d = 0;
  set_cpuid(1);
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  set_cpuid(0);
  if (leaf == 7 && sub == 0) {
    b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 |
           1u << 30 | 1u << 31);                                /* AVX512 */
    c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14); /* AVX512 */
    d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 23 |             /* AVX512 */
           1u << 22 | 1u << 24 | 1u << 25);                     /* AMX */
  } else if (leaf == 7 && sub == 1) {
    a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23); /* VNNI, BF16, AMX, IFMA */
    d &= ~(1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19); /* VNNI-INT8 on */
  }
  regs[REG_RAX] = a, regs[REG_RBX] = b, regs[REG_RCX] = c, regs[REG_RDX] = d;
  regs[REG_RIP] += 2;
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
  static int (*real)(int, const struct sigaction *, struct sigaction *);
  if (!real) real = dlsym(RTLD_NEXT, "sigaction");
  return real(number, number == SIGSEGV ? NULL : new, old);
}

__attribute__((constructor(101))) static void start(void) {
  int (*real)(int, const struct sigaction *, struct sigaction *) =
      dlsym(RTLD_NEXT, "sigaction");
  struct sigaction own = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
  real(SIGSEGV, &own, NULL);
  set_cpuid(0);
}
