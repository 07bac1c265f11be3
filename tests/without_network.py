"""Runs a command where no interface but the loopback exists, so that a connection to anywhere else
cannot be opened.

    python -m tests.without_network COMMAND...

Ends with NO_NAMESPACE where the kernel gives this user no network namespace.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

NO_NAMESPACE = 97
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _UP = 0x8914, 1


def main(command: list[str]) -> None:
    """Become the command in a namespace of its own."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(_NEWNET if user == 0 else _NEWNET | _NEWUSER):
        sys.exit(NO_NAMESPACE)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _UP).ljust(40, b"\0"))
    names = [
        line.partition(":")[0].strip()
        for line in Path("/proc/net/dev").read_text().splitlines()
        if ":" in line
    ]
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    assert names == ["lo"], names
    assert routes == []
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
