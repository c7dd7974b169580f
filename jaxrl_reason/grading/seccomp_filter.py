"""A seccomp filter for programs that nobody trusts: system calls that they never need.

In a namespace of its own a program could still ask the kernel for another one, mount
memory without a limit, or use parts of the kernel where most of its faults were found.
The filter is a classic BPF program, as Linux's seccomp(2) takes it and bwrap passes on.
"""

import errno
import platform
import struct

# Names and numbers of x86-64 and of aarch64, from Linux's tables of system calls.
_CALLS = {
    # other namespaces, other roots, other file systems
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    # large and little used parts of the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*
_X32 = 0x40000000  # the second table of x86-64

# struct seccomp_data: number, architecture, instruction pointer, arguments
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """The filter: calls that are not allowed fail with EPERM.

    Args:
      machine: as `platform.machine` names it; None for this one.

    Returns:
      The BPF program; None for a machine whose numbers are not known here.

    Example:
      >>> len(seccomp_filter("x86_64")) % 8
      0
    """
    found = _MACHINES.get(machine or platform.machine())
    if found is None:
        return None
    column, audit = found
    refuse, absent = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    program = [
        _step(_LOAD, _MACHINE),
        _step(_JUMP_EQUAL, audit, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        *_unless(_JUMP_AT_LEAST, _X32, refuse),
        # Its flags are in memory, which a filter cannot read: libraries then use clone.
        *_unless(_JUMP_EQUAL, _CLONE3[column], absent),
    ]
    for numbers in _CALLS.values():
        program += _unless(_JUMP_EQUAL, numbers[column], refuse)
    program += [
        _step(_JUMP_EQUAL, _CLONE[column], 0, 3),
        _step(_LOAD, _FIRST_ARGUMENT),
        *_unless(_JUMP_BITS, _NEW_NAMESPACES, refuse),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """An instruction: `struct sock_filter`; jumps count the instructions to skip."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _unless(jump: int, value: int, result: int) -> list[bytes]:
    """Returns the result if the jump's condition holds."""
    return [_step(jump, value, 0, 1), _step(_RETURN, result)]
