"""Checks, commands, faults, namespaces."""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import traceback

PF = [os.environ.get("SFNIC_PF0", ""), os.environ.get("SFNIC_PF1", "")]
BOOT = int(os.environ.get("SFNIC_BOOT", "1"))
# How many times longer than elsewhere everything may take, with a kernel that checks itself.
PATIENCE = float(os.environ.get("SFNIC_PATIENCE", "1"))

# ---------------------------------------------------------------- checks

_failed = []
_began = time.monotonic()


class Wrong(Exception):
    """Something is not as it should be."""


class Skip(Exception):
    """This kernel cannot be checked for it."""


@contextlib.contextmanager
def check(name):
    start = time.monotonic()
    try:
        yield
    except Skip as e:
        print(f"skip {name}: {e}", flush=True)
    except Exception as e:  # whatever it is, the check is what failed
        place = traceback.extract_tb(e.__traceback__)[1:]
        where = " < ".join(f"line {f.lineno}" for f in reversed(place) if f.filename.startswith("/host/"))
        what = str(e) if isinstance(e, Wrong) else f"{type(e).__name__}: {e}"
        what = what.replace("\n", " | ")
        print(f"not ok {name}: {what} ({where})", flush=True)
        _failed.append(name)
    else:
        print(f"ok {name}", flush=True)
    say(f"{name}: {time.monotonic() - start:.2f} s")


def skip(why):
    """Ends the check: this kernel cannot be checked for it. Only what the kernel is decides
    that, never what the device offers."""
    raise Skip(why)


def skip_all(why):
    """Ends the script before its first check."""
    print(f"skip everything: {why}", flush=True)
    finish()


KERNEL = tuple(int(n) for n in os.uname().release.replace("-", ".").split(".")[:2])
_symbols = set()


def kernel_has(function):
    """Is there such a function in the kernel or a loaded module? What the compiler made of it
    may have a suffix."""
    if not _symbols:
        with open("/proc/kallsyms") as f:
            _symbols.update(line.split()[2].split(".")[0] for line in f)
    return function in _symbols


def needs(function, what):
    """Skips the check unless the kernel has the function."""
    if not kernel_has(function):
        skip(f"{os.uname().release} has no {what}")


def needs_sfs():
    """Skips everything on a kernel whose mlx5_core was built without SFs."""
    if not kernel_has("mlx5_sf_table_init"):
        skip_all("mlx5_core was built without CONFIG_MLX5_SF_MANAGER")


def needs_tc():
    """Skips everything on a kernel whose mlx5_core was built without tc's rules."""
    if not kernel_has("mlx5e_configure_flower"):
        skip_all("mlx5_core was built without CONFIG_MLX5_CLS_ACT")


def say(text):
    """Remarks for whoever reads a failed run."""
    print(f"[{time.monotonic() - _began:7.2f}] {text}", file=sys.stderr, flush=True)


def value(name, what):
    """Tells the host a value."""
    print(f"value {name} {json.dumps(what)}", flush=True)


def finish():
    sys.stdout.flush()
    os._exit(1 if _failed else 0)  # threads that hang must not keep the guest


def die():
    """The machine is switched off, there and then (QEMU's isa-debug-exit)."""
    with open("/dev/port", "r+b", buffering=0) as port:
        port.seek(0xF4)
        port.write(b"\1")
    time.sleep(60)


def require(condition, text):
    if not condition:
        raise Wrong(text)


def equal(got, expected, what):
    if got != expected:
        raise Wrong(f"{what} is {got!r}, not {expected!r}")


def until(condition, what, seconds=60, pause=0.02):
    """Waits until a condition holds, and returns what it returned. The time is only there to
    end what hangs: a busy machine may take long. A condition that finds something wrong does
    not hold yet. Between two looks it pauses, in seconds."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        why = ""
        try:
            got = condition()
        except Wrong as e:
            got, why = None, f": {e}"
        if got:
            return got
        if time.monotonic() > end:
            raise Wrong(f"{what} did not come within {seconds} s{why}")
        time.sleep(pause)


# ---------------------------------------------------------------- commands


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


def attempt(command, ns=None, seconds=300, text=None):
    """Runs a command line (no shell) and returns what came of it."""
    words = shlex.split(command) if isinstance(command, str) else list(command)
    with inside(ns):
        try:
            p = subprocess.run(words, input=text, capture_output=True, text=True, timeout=seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            raise Wrong(f"{shlex.join(words)} did not end within {seconds} s") from None
    return Result(p.returncode, p.stdout, p.stderr)


def run(command, ns=None, seconds=300, text=None):
    """Runs a command line that has to succeed, and returns its output."""
    r = attempt(command, ns, seconds, text)
    if r.status != 0:
        line = command if isinstance(command, str) else shlex.join(command)
        raise Wrong(f"{line}: status {r.status}: {r.err.strip() or r.out.strip()}")
    return r.out


def read(path):
    with open(path) as f:
        return f.read().strip()


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


_asked = 0


def ask(question):
    """Asks the process that runs the device."""
    global _asked
    _asked += 1
    name = BOOT * 1_000_000 + _asked
    write("/host/ask.part", question)
    os.rename("/host/ask.part", f"/host/ask.{name}")
    until(lambda: os.path.exists(f"/host/answer.{name}"), f"the answer to {question}")
    return json.loads(read(f"/host/answer.{name}"))


@contextlib.contextmanager
def fault(text):
    """Puts a fault into the device, in the language of `sfnic ctl fault add --help`, and takes
    it out again. What it is given as tells how often it struck, afterwards too."""
    number = ask(f"fault add {text}")
    require(isinstance(number, int), f"fault {text!r}: {number}")
    struck = 0

    def count():
        nonlocal struck
        struck = next((f["struck"] for f in ask("faults") if f["id"] == number), struck)
        return struck

    try:
        yield count
    finally:
        count()
        ask(f"fault del {number}")


# ---------------------------------------------------------------- namespaces

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def inside(ns):
    """This thread in a network namespace (None: where it is)."""
    if ns is None:
        yield
        return
    with open("/proc/thread-self/ns/net") as back, open(f"/run/netns/{ns}") as there:
        os.setns(there.fileno(), CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(back.fileno(), CLONE_NEWNET)


def add_ns(name, quiet=True):
    """A namespace; a quiet one makes no IPv6 traffic by itself."""
    run(f"ip netns add {name}")
    run("ip link set lo up", ns=name)
    if quiet:
        with inside(name):
            quieten()
    return name


def quieten():
    """No IPv6 of their own accord for netdevs of this namespace."""
    for group in ("default", "all"):
        write(f"/proc/sys/net/ipv6/conf/{group}/router_solicitations", "0")
        write(f"/proc/sys/net/ipv6/conf/{group}/accept_dad", "0")
        write(f"/proc/sys/net/ipv6/conf/{group}/addr_gen_mode", "1")


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def new_socket(kind, address, ns=None):
    """A socket belongs to the namespace that it was made in, whoever uses it."""
    with inside(ns):
        s = socket.socket(family_of(address), kind)
    s.settimeout(60 * PATIENCE)
    return s
