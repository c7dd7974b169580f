"""Room for the threads that read ArrayRecord files.

The library that reads them starts 64 threads at its first file. Where the system
refuses one of them, because the address space is limited (`ulimit -v`), it waits for
ever without a word: so the room is measured before.
"""

import os
from functools import cache
from pathlib import Path

_THREADS = 64
# glibc reserves so much for a thread's heap, of which it makes eight for each core.
_HEAP_BYTES, _HEAPS_PER_CORE = 64 * 2**20, 8
_STACK_BYTES = 8 * 2**20  # where the system sets no limit


@cache  # the threads stay
def check_reader_threads() -> None:
    """Raises if there is no room for the threads of the first file.

    Raises:
      ValueError: says how much there must be.
    """
    try:
        needed, free = reader_bytes(), free_address_space()
    except (ImportError, OSError):  # a system that does not say
        return
    if free is not None and free < needed:
        raise ValueError(
            f"the limit of the address space (ulimit -v) must leave "
            f"{needed // 2**20:,} MiB for the {_THREADS} threads that read a dataset, "
            f"got {max(free, 0) // 2**20:,}"
        )


def reader_bytes() -> int:
    """Address space that the threads take."""
    import resource

    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    if stack == resource.RLIM_INFINITY:
        stack = _STACK_BYTES
    heaps = min(_THREADS, _HEAPS_PER_CORE * (os.cpu_count() or 1))
    return _THREADS * stack + heaps * _HEAP_BYTES


def free_address_space() -> int | None:
    """Bytes of address space up to the limit; None without one."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return limit - pages * os.sysconf("SC_PAGE_SIZE")
