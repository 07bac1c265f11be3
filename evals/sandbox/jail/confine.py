"""What a process may still do: kernel limits, system-call filter, file rules, privileges.

Each measure is its own function, gives False where this kernel has no such thing, and is never
undone. Linux only; the numbers are the kernel's ABI.
"""

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Callable, Sequence

NOBODY = 65534
NEWUSER, NEWPID, NEWNET, NEWIPC, NEWUTS = 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP = 1, 4, 8, 22
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_SET_PTRACER = 36, 38, 0x59616D61
_CAP_DAC_READ_SEARCH = 2
_EPERM, _ENOSYS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _prctl(operation: int, *arguments: int) -> int:
    """prctl(2) with all its arguments at full width; 0 when it worked."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return int(_libc.prctl(ctypes.c_int(operation), *map(ctypes.c_ulong, padded)))


# name: (x86_64, aarch64); None where the architecture has no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "execve": (59, 221), "execveat": (322, 281), "setsid": (112, 157), "setpgid": (109, 154),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "socket": (41, 198), "connect": (42, 203),
    "bind": (49, 200), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "mknod": (133, None),
    "mknodat": (259, 33), "setpriority": (141, 140), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273),
    "reboot": (169, 142), "swapon": (167, 224), "acct": (163, 89), "quotactl": (179, 60),
    "syslog": (103, 116),
}  # fmt: skip
_FORK, _VFORK, _TKILL = (57, None), (58, None), (200, 130)
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_PRLIMIT, _PRCTL, _FCNTL = (302, 261), (157, 167), (72, 25)
_CLONE_THREAD = 0x00010000
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_OWN_PID = 0x7F00FF01
"""Stands in a filter for the id of the process it will be applied to."""
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def limit(pid: int, wall_s: float, memory_mb: int) -> None:
    """CPU time, address space, processes: the limits of one program, set from outside before it
    runs. Raises OSError.
    """
    _limit(
        pid,
        (resource.RLIMIT_CPU, int(wall_s) + 2),
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_NPROC, 64),
    )


def limit_files() -> None:
    """File size, open files, core dumps, locked memory, message queues: the limits that every
    program shares.
    """
    _limit(
        0,
        (resource.RLIMIT_FSIZE, 16 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    )


def _limit(pid: int, *ceilings: tuple[int, int]) -> None:
    for kind, ceiling in ceilings:
        hard = resource.getrlimit(kind)[1]
        # A limit that is lower already stands: raising it would be refused.
        ceiling = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
        resource.prlimit(pid, kind, (ceiling, ceiling))


def die_with_parent() -> None:
    """SIGKILL when the process that forked this one ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def adopt_orphans() -> None:
    """Descendants whose parent ended become this process's children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """No process of the same user may read or trace this one."""
    _prctl(_PR_SET_DUMPABLE, 0)


def renounce_privileges() -> bool:
    """No program started from here gains privileges (set-user-id, file capabilities)."""
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1) == 0


def unshare(flags: int) -> bool:
    """Move this process (for NEWPID: its children) into fresh namespaces."""
    return bool(_libc.unshare(flags) == 0)


def become_nobody(keep_reading: bool) -> None:
    """Give up root. keep_reading: may still pass folders closed to others; only sound beneath file
    rules. Raises OSError.
    """
    if keep_reading:
        _prctl(_PR_SET_KEEPCAPS, 1)
    # The user last: without root the groups could not be given up.
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # The change of user kept it as permitted, not as effective.
    if keep_reading:
        drop_capabilities(keep_reading)


def drop_capabilities(keep_reading: bool) -> None:
    """Keep no capability, or only the one to read. Raises OSError."""
    header = struct.pack("=Ii", 0x20080522, 0)  # version 3 of capset's words
    bit = 1 << _CAP_DAC_READ_SEARCH if keep_reading else 0
    if _libc.capset(header, struct.pack("=6I", bit, bit, 0, 0, 0, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def nursery_filter() -> bytes:
    """A filter that refuses, with EPERM, the calls that reach other processes, the network or the
    kernel's doors.

    It leaves what the nursery itself needs, forking and killing; `program_filter` takes these.
    Empty on an unknown machine.
    """
    column, code = _begin()
    for pair in _DENIED.values():
        code.on_equal(pair[column], _ERRNO | _EPERM)
    # The kernel sends signals to whoever owns a descriptor: naming another as its owner would go
    # around kill.
    code.on_argument(
        _FCNTL[column], lambda: code.forbid(_F_SETOWN, _F_SETSIG, _F_SETOWN_EX), argument=1
    )
    return code.end()


def program_filter(threads: bool) -> bytes:
    """What a program is refused beyond `nursery_filter`: new processes (and threads, unless told
    otherwise), signals to others.
    """
    column, code = _begin()
    for pair in (_FORK, _VFORK, _TKILL):
        code.on_equal(pair[column], _ERRNO | _EPERM)
    # its flags lie in memory, out of a filter's sight; libc falls back to clone
    code.on_equal(_CLONE3[column], _ERRNO | _ENOSYS)
    code.on_argument(
        _CLONE[column], lambda: code.unless_flag(_CLONE_THREAD if threads else 0, _ERRNO | _EPERM)
    )
    for pair in (_KILL, _TGKILL):
        code.on_argument(pair[column], lambda: code.unless_equal(_OWN_PID, _ERRNO | _EPERM))
    # 0 is itself: another process's limits would be a way to end it.
    code.on_argument(_PRLIMIT[column], lambda: code.unless_equal(0, _ERRNO | _EPERM))
    # That it ends with its parent, and hides its memory, is not for it to undo.
    code.on_argument(
        _PRCTL[column], lambda: code.forbid(_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_PTRACER)
    )
    return code.end()


def _begin() -> "tuple[int, _FilterCode]":
    column, audit = _ARCHITECTURES.get(platform.machine(), (0, 0))
    code = _FilterCode()
    code.is_known = audit != 0
    # The architecture first: another one has other numbers for the same calls.
    code.load(4)
    code.unless_equal(audit, _KILL_PROCESS)
    code.load(0)
    if column == 0:
        code.from_(0x40000000, _ERRNO | _EPERM)  # the x32 twin of every call
    return column, code


class Filter:
    """A filter made ready before a fork, so that the fork has little left to do."""

    def __init__(self, template: bytes) -> None:
        parts = template.split(struct.pack("=I", _OWN_PID))
        self._raw = ctypes.create_string_buffer(template, len(template))
        self._own_pid = [sum(map(len, parts[: n + 1])) + 4 * n for n in range(len(parts) - 1)]
        # struct sock_fprog, by whose address the kernel reads the lines: both buffers must live on.
        self._program = ctypes.create_string_buffer(
            struct.pack("HxxxxxxP", len(template) // 8, ctypes.addressof(self._raw))
        )
        self._arguments = (
            ctypes.c_int(_PR_SET_SECCOMP),
            *map(ctypes.c_ulong, (2, ctypes.addressof(self._program), 0, 0)),
        )

    def apply(self) -> bool:
        """Apply it to this process and its descendants for good."""
        for at in self._own_pid:
            struct.pack_into("=I", self._raw, at, os.getpid())
        return len(self._raw) > 0 and int(_libc.prctl(*self._arguments)) == 0


class _FilterCode:
    """A classic BPF program over struct seccomp_data: number at 0, architecture at 4, arguments
    from 16 in steps of 8.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.is_known = True

    def end(self) -> bytes:
        """The program, empty where this machine's call numbers are unknown."""
        self.give(_ALLOW)
        return b"".join(self.lines) if self.is_known else b""

    # 0x20 loads a word, 0x06 returns a verdict; 0x15, 0x45 and 0x35 jump if it is equal, has a bit,
    # is not less (linux/bpf_common.h).
    def _add(self, code: int, value: int, yes: int = 0, no: int = 0) -> None:
        self.lines.append(struct.pack("=HBBI", code, yes, no, value & 0xFFFFFFFF))

    def load(self, offset: int) -> None:
        self._add(0x20, offset)

    def give(self, verdict: int) -> None:
        self._add(0x06, verdict)

    def unless_equal(self, value: int, verdict: int) -> None:
        self._add(0x15, value, yes=1)
        self.give(verdict)

    def unless_flag(self, flag: int, verdict: int) -> None:
        self._add(0x45, flag, yes=1)
        self.give(verdict)

    def from_(self, value: int, verdict: int) -> None:
        self._add(0x35, value, no=1)
        self.give(verdict)

    def forbid(self, *values: int) -> None:
        for value in values:
            self._add(0x15, value, no=1)
            self.give(_ERRNO | _EPERM)

    def on_equal(self, value: int | None, verdict: int) -> None:
        """The verdict for this call."""
        if value is not None:
            self._add(0x15, value, no=1)
            self.give(verdict)

    def on_argument(self, value: int, rule: Callable[[], None], argument: int = 0) -> None:
        """For this call a rule on one of its arguments (low 32 bits), which allows what it does not
        refuse.
        """
        at = len(self.lines)
        self._add(0x15, value)
        self.load(16 + 8 * argument)
        rule()
        self.give(_ALLOW)
        # How far to jump past the rule is known only now.
        self.lines[at] = struct.pack("=HBBI", 0x15, 0, len(self.lines) - at - 1, value)


# Calls 444 to 446 are landlock's, on x86-64 and Arm alike.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 2, 4, 8, 1 << 14


def landlock_version() -> int:
    """The version of the kernel's file rules, 0 where there are none."""
    return max(0, int(_libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def file_rules(readable: Sequence[str], writable: Sequence[str]) -> int:
    """A descriptor of rules for `restrict_files`, -1 where there are none.

    Nothing but these trees may be opened; also no TCP, and no signal to processes outside (newer
    kernels).
    """
    version = landlock_version()
    if version == 0:
        return -1
    # A kernel refuses rights and fields that it does not know; versions 2, 3 and 5 brought a right
    # on files each, 4 those on TCP ports, 6 the scopes (abstract sockets, signals).
    files = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    attributes = struct.pack("=QQQ", files, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = int(_libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)))
    devices = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
    trees = [(path, _EXECUTE | _READ_FILE | _READ_DIR) for path in readable] + [
        (path, files) for path in writable
    ]
    for path, access in [
        *trees,
        *((device, _READ_FILE | _WRITE_FILE | _TRUNCATE) for device in devices),
    ]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        # Rights of folders are refused for a file.
        if not os.path.isdir(path):
            access &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
        _libc.syscall(
            445,
            ctypes.c_int(rules),
            ctypes.c_int(1),
            struct.pack("=Qi", access & files, fd),
            ctypes.c_uint(0),
        )
        os.close(fd)
    return rules


def restrict_files(rules: int) -> bool:
    """Apply `file_rules` to this process for good."""
    return rules >= 0 and _libc.syscall(446, ctypes.c_int(rules), ctypes.c_uint(0)) == 0
