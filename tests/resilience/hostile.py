# ruff: noqa: E501  a hostile program a line
"""Programs that mean harm, each with the verdicts it may get. None may pass, none may leave a
trace.

A program without `checks` raises or asserts when its attack is refused, so that "passed" would mean
the attack succeeded.
OUTSIDE stands for a folder, writable to everyone, that no program may touch.
"""

# ruff: noqa: E501  one attack a line reads better than a hundred small files

from dataclasses import dataclass

from evals.records import Program

OUTSIDE = "@OUTSIDE@"
PATIENT_S = 120.0
MARKER = "the-answer-is-4711"
CHECKS = """
def check(candidate):
    assert candidate(2) == 4
    assert candidate(3) == 6
    assert candidate(-5) == -10

check(double)
"""
SECRET_CHECKS = f"""
def check(candidate):
    assert candidate() == "{MARKER}"

check(double)
"""
_LIBC = (
    "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef must(result):\n    if result"
    " == -1: raise OSError(ctypes.get_errno(), 'no')\n"
)
FAILED = ("wrong_answer", "exception", "forbidden", "exited")


@dataclass(frozen=True)
class Attack:
    """One program and the verdicts it may get."""

    name: str
    source: str
    verdicts: tuple[str, ...]
    checks: str = ""
    wall_s: float = 3.0

    def program(self, outside: str) -> Program:
        """The program, aimed at a folder. What does not end by running out of time has plenty, for
        a machine that others use.
        """
        wall_s = self.wall_s if "time" in self.verdicts else PATIENT_S
        return Program(self.source.replace(OUTSIDE, outside), self.checks, wall_s=wall_s)


def _forging(name: str, source: str, *verdicts: str) -> Attack:
    return Attack(name, source, verdicts or FAILED, CHECKS)


def _refused(name: str, source: str, *verdicts: str) -> Attack:
    return Attack(name, source, verdicts or ("forbidden",))


def _endless(name: str, source: str, *verdicts: str) -> Attack:
    return Attack(name, source, verdicts or ("time",), wall_s=1.0)


FORGERIES = (
    _forging("leaves by sys.exit", "import sys\nsys.exit(0)", "exited"),
    _forging("leaves by os._exit", "import os\nos._exit(0)", "exited"),
    _forging("leaves by SystemExit", "raise SystemExit", "exited"),
    _forging("leaves from the function", "import os\ndef double(x):\n    os._exit(0)", "exited"),
    _forging("raises SystemExit in the function", "def double(x):\n    raise SystemExit(0)", "exited"),
    _forging("kills itself", "import signal\nsignal.raise_signal(signal.SIGKILL)", "exited"),
    _forging("ends by a signal without a name", "import signal\nsignal.raise_signal(35)", "exited"),
    _forging("aborts", "import os\nos.abort()", "exited"),
    _forging("reads address zero", "import ctypes\nctypes.string_at(0)", "exited"),
    _forging("interrupts itself", "import _thread\n_thread.interrupt_main()\ndef double(x):\n    return 0"),
    _forging("replaces check", "def check(candidate):\n    pass\ndef double(x):\n    return 0", "wrong_answer"),
    _forging("keeps replacing check", "def double(x):\n    globals()['check'] = lambda c: None\n    return 0", "wrong_answer"),
    _forging("has no function", "pass", "exception"),
    _forging("function is no function", "double = 4", "exception"),
    _forging("disarms AssertionError", "import builtins\nbuiltins.AssertionError = ZeroDivisionError\ndef double(x):\n    return 0", "wrong_answer"),
    _forging("replaces built-ins", "import builtins\nbuiltins.__build_class__ = None\nall = any = abs = len = lambda *a: True\ndef double(x):\n    return 0", "wrong_answer"),
    _forging("object equal to everything", "class Yes:\n    def __eq__(self, other): return True\ndef double(x):\n    return Yes()", "wrong_answer"),
    _forging("number equal to everything", "class Yes(int):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\ndef double(x):\n    return Yes(0)", "wrong_answer"),
    _forging("claims another class", "class Yes:\n    __class__ = int\n    def __index__(self): return 0\n    def __eq__(self, other): return True\ndef double(x):\n    return Yes()"),
    _forging("says passed", "import os\nprint('passed')\nfor fd in (1, 2):\n    os.write(fd, b'[\"passed\", \"\"]')\ndef double(x):\n    return 0", "wrong_answer"),
    _forging("frames in every descriptor", "import os\nbody = b'[\"passed\", \"\"]'\nfor fd in range(256):\n    try: os.write(fd, len(body).to_bytes(8, 'big') + body)\n    except OSError: pass\ndef double(x):\n    return 0"),
    _forging("nonsense in every descriptor", "import os\nfor fd in range(256):\n    try: os.write(fd, b'\\xff' * 64)\n    except OSError: pass\ndef double(x):\n    return 0", "forbidden"),
    _forging("answers before it is asked", "import os\nfor body in (b'{\"names\": {\"double\": [\"callable\"]}}', b'{\"value\": 0}', b'{\"value\": 0}'):\n    os.write(3, len(body).to_bytes(8, 'big') + body)"),
    _forging("announces what was not asked", "import os\nbody = b'{\"names\": {\"check\": [\"callable\"], \"double\": [\"module\", \"os\"]}}'\nos.write(3, len(body).to_bytes(8, 'big') + body)"),
    _forging("names that are no names", "import os\nbody = b'{\"names\": [1, 2]}'\nos.write(3, len(body).to_bytes(8, 'big') + body)", "forbidden"),
    _forging("an endless announcement", "import os\nos.write(3, (1 << 60).to_bytes(8, 'big'))", "forbidden"),
    _forging("closes every descriptor", "import os\nos.closerange(0, 256)", "exited"),
    _forging("closes every descriptor and lives on", "import os\nos.closerange(0, 256)\nwhile True: pass", "exited"),
    _forging("patches the runner", "import sys\nfor name, module in list(sys.modules.items()):\n    if name.startswith('jail'):\n        for key in list(vars(module)):\n            if callable(vars(module)[key]): setattr(module, key, lambda *a, **k: ('passed', ''))"),
    _forging("patches json", "import json\njson.dumps = lambda *a, **k: '{\"value\": true}'\njson.loads = lambda *a, **k: True\ndef double(x):\n    return 0"),
    _forging("patches os.write", "import os\nreal = os.write\nos.write = lambda fd, data: real(fd, bytes(data).replace(b'0', b'1'))\ndef double(x):\n    return 0"),
    _forging("rewrites its callers' variables", "import sys\ndef double(x):\n    frame = sys._getframe()\n    while frame:\n        for key in list(frame.f_locals):\n            frame.f_locals[key] = True\n        frame = frame.f_back\n    return 0", "wrong_answer"),
    _forging("traces everything", "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef double(x):\n    return 0", "wrong_answer"),
    _forging("raises a false assertion", "class AssertionError(Exception): pass\ndef double(x):\n    raise AssertionError('passed')"),
    _forging("error whose text never ends", "class Error(Exception):\n    def __str__(self):\n        while True: pass\nraise Error", "time"),
    _forging("returns a pickle bomb's reducer", "class Bomb:\n    def __reduce__(self): return (eval, ('1/0',))\ndef double(x):\n    return Bomb()", "wrong_answer"),
    _forging("returns itself within itself", "def double(x):\n    a = []\n    a.append(a)\n    return a", "exception"),
    _forging("returns a deep nest", "def double(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a", "exception"),
    _forging("returns a hundred megabytes", "def double(x):\n    return 'a' * (100 << 20)", "forbidden", "time"),
    _forging("returns an endless iterator", "import itertools\ndef double(x):\n    return (i for i in itertools.count())", "memory", "time"),
    _forging("returns not a number", "def double(x):\n    return float('nan')", "wrong_answer"),
    _forging("returns an unhashable key", "import os\nbody = b'{\"names\": {\"double\": [\"value\", [\"s\", [\"l\"]]]}}'\nos.write(3, len(body).to_bytes(8, 'big') + body)"),
    Attack("ends the checks' loop", "def double(x):\n    raise StopIteration", ("exception",), "assert all(map(lambda x: double(x) == 2 * x, [1, 2]))"),
    Attack("a fraction too far", "import fractions, os\nbody = b'{\"names\": {\"double\": [\"value\", [\"F\", \"1e999999999\"]]}}'\nos.write(3, len(body).to_bytes(8, 'big') + body)", FAILED, CHECKS),
    _forging("remembers nothing but lies late", "def double(x):\n    return 4 if x == 2 else 5", "wrong_answer"),
    _forging("spoils the arguments' class", "def double(x):\n    x.__class__ = str\n    return 4", "exception"),
    Attack(
        "searches objects and frames for the expected answer",
        "import gc, sys\ndef double():\n    seen = list(gc.get_objects())\n    frame = sys._getframe()\n    while frame:\n"
        "        seen += list(frame.f_locals.values()); frame = frame.f_back\n    for thing in seen:\n        try: text = repr(thing)\n"
        "        except Exception: continue\n        at = text.find('the-answer' + '-is-')\n        if at >= 0: return text[at:at + 18]\n",
        ("wrong_answer", "exception", "time"),
        SECRET_CHECKS,
    ),
    Attack(
        "searches its memory for the expected answer",
        "import re\ndef double():\n    for line in open('/proc/self/maps'):\n        low, high = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "        with open('/proc/self/mem', 'rb') as memory:\n            memory.seek(low)\n            found = re.search(b'the-answer' + b'-is-....', memory.read(high - low))\n"
        "            if found: return found.group().decode()\n",
        ("forbidden",),
        SECRET_CHECKS,
    ),
    Attack(
        "searches its heap for the expected answer",
        "import ctypes\ndef double():\n    here = id(object()) & ~0xfffff\n    for start in range(here, here + (1 << 20), 4096):\n"
        "        data = ctypes.string_at(start, 4096)\n        at = data.find(b'the-answer' + b'-is-')\n        if at >= 0: return data[at:at + 18].decode()\n",
        ("wrong_answer", "exited"),
        SECRET_CHECKS,
    ),
)  # fmt: skip

GREEDY = (
    Attack("list of eight gigabytes", "x = [0] * (1 << 30)", ("memory",)),
    Attack("growing list", "x = []\nwhile True: x.append(' ' * 1000000)", ("memory", "time")),
    Attack("growing text", "x = 'a'\nwhile True: x += x", ("memory", "time")),
    Attack("eight gigabytes of anonymous map", "import mmap\nmmap.mmap(-1, 8 << 30)", ("memory", "exception")),
    Attack("memory error caught and repeated", "x = []\nwhile True:\n    try: x.append(bytearray(1 << 24))\n    except MemoryError: pass", ("time",), wall_s=1.0),
    Attack("result of eight gigabytes", "def double(x):\n    return [0] * (1 << 30)", ("memory",), CHECKS),
    Attack("deep recursion", "def f(n): return f(n + 1)\nf(0)", ("exception",)),
    Attack("recursion without limit", "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(n): return f(n + 1)\nf(0)", ("exited", "memory", "time"), wall_s=1.5),
    Attack("recursion in C without limit", "import sys\nsys.setrecursionlimit(1 << 30)\nclass A:\n    def __getattr__(self, n): return getattr(self, n)\nrepr(A().x)", ("exited", "memory", "time"), wall_s=1.5),
    Attack("huge file", "f = open('big', 'wb')\nwhile True: f.write(b'x' * (1 << 20))", ("exception",)),
    Attack("descriptors without end", "x = []\nwhile True: x.append(open('/dev/null'))", ("exception",)),
    Attack("threads without end", "import threading, time\nthreading.stack_size(32768)\nwhile True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", ("exception", "memory")),
    Attack("nested source", "(" * 100000 + ")" * 100000, ("syntax_error", "memory")),
    Attack("nested expression", "x = " + "-" * 100000 + "1", ("syntax_error", "memory", "exited")),
    Attack("unfinished source", "def f(", ("syntax_error",)),
    Attack("zero byte in the source", "x = 1\0", ("syntax_error",)),
    Attack("half a character in the source", "x = '\ud800'", ("syntax_error",)),
    Attack("ten megabytes of source", "x = 1\n" * 1700000 + "raise ValueError", ("exception", "memory", "time")),
    Attack("a power too far", "x = 9 ** 9 ** 9", ("time", "memory"), wall_s=1.0),
    _endless("endless loop", "while True: pass"),
    _endless("endless loop in the function", "def double(x):\n    while True: pass\ndouble(1)"),
    _endless("endless sleep", "import time\ntime.sleep(1000)"),
    _endless("endless output", "while True: print('x' * 1000)"),
    _endless("endless output past Python", "import os\nwhile True: os.write(1, b'x' * 65536)"),
    _endless("endless regular expression", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')"),
    _endless("swallows every exception", "while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
    _endless("ignores every signal", "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass"),
    _endless("stops the alarm", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nsignal.alarm(0)\nwhile True: pass"),
    _endless("stops the clock", "import time\ntime.time = time.monotonic = time.perf_counter = lambda: 0.0\nwhile True: pass"),
    _endless("waits for a lock", "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"),
    Attack("waits at a named pipe", "import os\nos.mkfifo('pipe')\nopen('pipe')", ("forbidden", "time"), wall_s=1.0),
    _endless("stops itself", "import signal\nsignal.raise_signal(signal.SIGSTOP)\nwhile True: pass"),
    _endless("thread that outlives the program", "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()\nthreading.Event().wait()"),
    _endless("nests folders without end", "import posix\nwhile True:\n    posix.mkdir('a'); posix.chdir('a')", "time", "exception"),
    # Not for a whole second: what it makes is removed again before the answer, within a limit.
    Attack("fills the scratch folder", "import os\nn = 0\nwhile True:\n    os.mkdir(str(n)); n += 1", ("time", "exception"), wall_s=0.3),
)  # fmt: skip

INTRUDERS = (
    _refused("reads the password file", "open('/etc/passwd').read()", "forbidden", "exception"),
    _refused("reads the shadow file", "open('/etc/shadow').read()", "forbidden", "exception"),
    _refused("lists the root folder's neighbours", f"import os\nos.listdir('{OUTSIDE}')", "forbidden", "exception"),
    _refused("reads a file outside", f"open('{OUTSIDE}/canary').read()", "forbidden", "exception"),
    _refused("reads past its folder", "open('../../../../../../etc/hostname').read()", "forbidden", "exception"),
    _refused("imports the project", "import evals", "exception"),
    _refused("imports the runner's host", "import pytest", "exception"),
    _refused("reads the environment of others", "open('/proc/1/environ').read()", "forbidden", "exception"),
    _refused("reads the runner's memory", "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read(1)", "forbidden", "exception"),
    _refused("finds secrets in the environment", "import os\nassert set(os.environ) <= {'PATH', 'LANG', 'HOME', 'PYTHONHASHSEED', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PWD'}\nraise LookupError", "exception"),
    _refused("finds open descriptors", "import os\nfor fd in range(4, 64):\n    try: os.fstat(fd)\n    except OSError: continue\n    os._exit(0)\nraise LookupError", "exception"),
    _refused("writes outside", f"open('{OUTSIDE}/new', 'w').write('x')", "forbidden", "exception"),
    _refused("overwrites outside", f"open('{OUTSIDE}/canary', 'w').write('x')", "forbidden", "exception"),
    _refused("removes outside", f"import posix\nposix.unlink('{OUTSIDE}/canary')", "forbidden", "exception"),
    _refused("opens outside to everyone", f"import posix\nposix.chmod('{OUTSIDE}/canary', 0o7777)", "forbidden", "exception"),
    _refused("truncates outside", f"import posix\nposix.truncate('{OUTSIDE}/canary', 0)", "forbidden", "exception"),
    _refused("links out and writes", f"import os\nos.symlink('{OUTSIDE}', 'out')\nopen('out/new', 'w').write('x')", "forbidden", "exception"),
    _refused("links a file of outside in", f"import os\nos.link('{OUTSIDE}/canary', 'mine')\nopen('mine', 'w').write('x')", "forbidden", "exception"),
    _refused("swaps its folder for a link", f"import posix\nwhere = posix.getcwd()\nposix.rmdir(where)\nposix.symlink('{OUTSIDE}', where)\nopen(where + '/new', 'w').write('x')", "forbidden", "exception"),
    _refused("closes its folder and leaves", "import posix\nposix.mkdir('a'); posix.mkdir('a/b'); open('a/b/c', 'w').close()\nposix.chmod('a/b', 0); posix.chmod('a', 0); posix.chmod('.', 0)\nraise LookupError", "exception"),
    _refused("nests folders deeper than any path", "import posix\nfor _ in range(1500):\n    posix.mkdir('abcd'); posix.chdir('abcd')\nposix.chmod('.', 0)\nraise LookupError", "exception"),
    _refused("deletes its folder and leaves", "import posix\nposix.rmdir(posix.getcwd())", "forbidden", "exception"),
    _refused("makes a set-user-id file", "import posix\nopen('x', 'w').close()\nposix.chmod('x', 0o6777)\nraise LookupError", "exception"),
    _refused("writes beside its folder", "open('../stray', 'w').write('x')", "forbidden"),
    _refused("writes into the interpreter", "import os\nopen(os.__file__, 'a').write('x')"),
    _refused("makes a device", "import os, stat\nos.mknod('null', 0o666 | stat.S_IFCHR, os.makedev(1, 3))"),
    _refused("leaves by chroot", "import posix\nposix.chroot('.')"),
    _refused("connects to itself", "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)"),
    _refused("connects to the outside", "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)"),
    _refused("listens", "import socket\nsocket.create_server(('', 0))"),
    _refused("sends a datagram", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))"),
    _refused("speaks to a local service", "import socket\nsocket.socket(socket.AF_UNIX)"),
    _refused("fetches a page", "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=1)", "forbidden", "exception"),
    _refused("fork bomb", "import posix\nwhile True: posix.fork()"),
    _refused("fork bomb past Python", _LIBC + "while True: must(libc.fork())"),
    _refused("fork by vfork", _LIBC + "must(libc.vfork())"),
    _refused("daemon", "import posix\nif posix.fork() == 0:\n    posix.setsid()\n    while True: pass"),
    _refused("zombie factory", "import posix\nwhile True:\n    if posix.fork() == 0: posix._exit(0)"),
    _refused("processes through multiprocessing", "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print).start()", "forbidden", "exception"),
    _refused("shell", "import os\nos.system('true')", "exception"),
    _refused("shell past Python", "import posix\nassert posix.system('true') == -1\nraise LookupError", "exception", "wrong_answer"),
    _refused("process by spawn", "import os, sys\nos.posix_spawn(sys.executable, [sys.executable], {})"),
    _refused("becomes another program", "import os, sys\nos.execv(sys.executable, [sys.executable])"),
    _refused("kills the runner", "import os, posix\nposix.kill(os.getppid(), 9)"),
    _refused("kills everyone", "import posix\nposix.kill(-1, 9)"),
    _refused("kills its group", "import posix\nposix.killpg(0, 9)"),
    _refused("kills the first process", "import posix\nposix.kill(1, 9)"),
    _refused("signals through a descriptor", "import fcntl, os\nf = open('x', 'w')\nfcntl.fcntl(f, fcntl.F_SETOWN, os.getppid())"),
    _refused("opens the runner", "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)"),
    _refused("traces the runner", _LIBC + "must(libc.ptrace(16, os.getppid(), None, None))"),
    _refused("reads the runner by its id", _LIBC + "must(libc.process_vm_readv(os.getppid(), None, 0, None, 0, 0))"),
    _refused("lowers the runner's limits", "import _posixsubprocess, sys, os\nsys.modules.pop('resource')\nimport resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))"),
    _refused("raises its limits", "import sys\nsys.modules.pop('resource')\nimport resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "exception", "forbidden"),
    _refused("outlives its parent", _LIBC + "must(libc.prctl(1, 0, 0, 0, 0))"),
    _refused("leaves its session", "import os\nos.setsid()"),
    _refused("takes priority", "import os\nos.setpriority(os.PRIO_USER, 0, 19)"),
    _refused("becomes root", "import posix\nposix.setuid(0)", "forbidden", "exception"),
    _refused("makes a namespace", _LIBC + "must(libc.unshare(0x10000000))"),
    _refused("mounts", _LIBC + "must(libc.mount(b'none', b'.', b'tmpfs', 0, None))"),
    _refused("makes a file in memory", "import os\nos.memfd_create('x')"),
    _refused("makes shared memory", _LIBC + "must(libc.shmget(4711, 4096, 0o1666))"),
    _refused("makes a named semaphore", "import _multiprocessing\n_multiprocessing.SemLock(1, 1, 1, '/evals-hostile', False)", "forbidden", "exception"),
    _refused("asks for the kernel's rings", _LIBC + "must(libc.syscall(425, 1, None))"),
    _refused("asks for the kernel's keys", _LIBC + "must(libc.syscall({'x86_64': 250, 'aarch64': 219}[os.uname().machine], 0, -3, 1))"),
    _refused("reads what is typed", "input()", "exception"),
)  # fmt: skip

CORPUS = (*FORGERIES, *GREEDY, *INTRUDERS)
