"""What the scripts of the lab share: checks, namespaces, traffic, counters, devlink.

A check is `with check("its name"): ...`; it prints one line for the host, `ok NAME`,
`not ok NAME: WHY` or `skip NAME: WHY`, and the script goes on. `finish()` ends the script.
"""

import contextlib
import hashlib
import json
import os
import random
import shlex
import socket
import struct
import subprocess
import sys
import threading
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


def until(condition, what, seconds=60):
    """Waits until a condition holds, and returns what it returned. The time is only there to
    end what hangs: a busy machine may take long. A condition that finds something wrong does
    not hold yet."""
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
        time.sleep(0.02)


# Since then the kernel knows what the guest's ethtool asks for along with any setting of RSS.
SETS_RSS = KERNEL >= (6, 8)


def set_rss(dev, words, ns=None):
    """The RSS key or table of a netdev."""
    if not SETS_RSS:
        skip("the guest's ethtool sets RSS on kernels from 6.8 on")
    run(f"ethtool -X {dev} {words}", ns)


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


def netdev_of(pci):
    """The netdev of a PCI function."""
    names = os.listdir(f"/sys/bus/pci/devices/{pci}/net")
    # In switchdev mode representors are there too: the uplink's port name is pN.
    for name in names:
        with contextlib.suppress(OSError):
            port = read(f"/sys/class/net/{name}/phys_port_name")
            if port.startswith("p") and port[1:].isdigit():
                return name
    require(len(names) == 1, f"{pci} has the netdevs {names}")
    return names[0]


def mac_of(dev, ns=None):
    return link_of(dev, ns)["address"]


def link_of(dev, ns=None):
    return json.loads(run(f"ip -j -s -d link show dev {dev}", ns))[0]


def carrier(dev, ns=None):
    """Whether there is a carrier and the kernel has taken note: until then, up to a second after
    the driver said so, it drops what is sent."""
    link = link_of(dev, ns)
    return "LOWER_UP" in link["flags"] and link["operstate"] in ("UP", "UNKNOWN")


def set_up(dev, *addresses, ns=None, mtu=None):
    """A netdev with addresses, up."""
    for a in addresses:
        run(f"ip addr add {a} dev {dev}" + (" nodad" if ":" in a else ""), ns)
    if mtu:
        run(f"ip link set {dev} mtu {mtu}", ns)
    run(f"ip link set {dev} up", ns)


# ---------------------------------------------------------------- traffic


def ping(to, size=56, count=2, ns=None, more="", lost_ok=False):
    """Echo requests, whose data ping compares itself. Returns how many were answered.

    Once ping has seen an answer, it waits for the last one no longer than the time between
    requests or twice the longest way so far: on a busy machine that may be too short, and says
    nothing. Then they are sent again with seconds between."""
    for between in (0.02, 2):
        r = attempt(f"ping -n -s {size} -c {count} -i {between} -W {10 * PATIENCE:.0f} {more} {to}", ns)
        received = next((int(l.split(",")[1].split()[0]) for l in r.out.splitlines() if "received" in l), None)
        require(received is not None, f"ping {to}: {r.err.strip() or r.out.strip()}")
        require("wrong data" not in r.out, f"ping {to} of {size}: {r.out}")
        if lost_ok or received == count:
            return received
    raise Wrong(f"answers of {to} to {count} pings of {size} bytes: {received}")


def unreachable(to, ns=None):
    """Nobody answers at an address."""
    equal(ping(to, count=2, ns=ns, more="-i 0.2 -W 1", lost_ok=True), 0, f"answers of {to}")


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def new_socket(kind, address, ns=None):
    """A socket belongs to the namespace that it was made in, whoever uses it."""
    with inside(ns):
        s = socket.socket(family_of(address), kind)
    s.settimeout(60 * PATIENCE)
    return s


_ports = iter(range(20000, 60000))


def tcp(to, size, src=None, dst=None, seconds=120):
    """Sends random bytes by TCP from one namespace to an address in another, and compares
    their hashes. Returns Mbit/s."""
    payload = os.urandom(size)
    listener = new_socket(socket.SOCK_STREAM, to, dst)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((to, next(_ports)))
    listener.listen(1)
    client = new_socket(socket.SOCK_STREAM, to, src)
    client.settimeout(seconds * PATIENCE)
    start = time.monotonic()
    client.connect(listener.getsockname()[:2])
    server, _ = listener.accept()
    server.settimeout(seconds * PATIENCE)
    problem = []

    def send():
        try:
            client.sendall(payload)
            client.shutdown(socket.SHUT_WR)
        except OSError as e:
            problem.append(e)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    h, got = hashlib.sha256(), 0
    try:
        while piece := server.recv(1 << 18):
            h.update(piece)
            got += len(piece)
        server.sendall(h.digest())
        echoed = client.recv(32)
    except OSError as e:
        raise Wrong(f"tcp to {to}: {e} after {got} of {size} bytes; sender: {problem}") from None
    took = time.monotonic() - start
    sender.join(10)
    for s in (client, server, listener):
        s.close()
    require(not problem, f"tcp to {to}: {problem} after {got} of {size} bytes")
    equal(got, size, f"bytes received from tcp to {to}")
    equal(echoed, hashlib.sha256(payload).digest(), f"hash of {size} bytes by tcp to {to}")
    return size * 8 / took / 1e6


def udp(to, sizes, src=None, dst=None, tries=1):
    """Sends datagrams one by one and compares each."""
    a, b = new_socket(socket.SOCK_DGRAM, to, src), new_socket(socket.SOCK_DGRAM, to, dst)
    for s in (a, b):
        s.settimeout(20 * PATIENCE)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    b.bind((to, next(_ports)))
    for size in sizes:
        payload = os.urandom(size)
        for left in reversed(range(tries)):
            a.sendto(payload, b.getsockname()[:2])
            try:
                got = b.recv(1 << 17)
            except TimeoutError:
                require(left, f"udp of {size} bytes to {to} did not come")
                continue
            break
        equal(hashlib.sha256(got).hexdigest(), hashlib.sha256(payload).hexdigest(), f"hash of {size} bytes by udp")
    a.close()
    b.close()


def all_of(jobs, what, seconds=240):
    """Runs functions at the same time; all have to succeed."""
    wrong = []

    def one(job):
        try:
            job()
        except Exception as e:
            wrong.append(f"{type(e).__name__}: {e}")

    threads = [threading.Thread(target=one, args=(j,), daemon=True) for j in jobs]
    for t in threads:
        t.start()
    end = time.monotonic() + seconds * PATIENCE
    for t in threads:
        t.join(max(0, end - time.monotonic()))
    alive = sum(t.is_alive() for t in threads)
    require(not alive, f"{what}: {alive} of {len(threads)} did not end within {seconds} s")
    require(not wrong, f"{what}: {len(wrong)} of {len(threads)}: {'; '.join(wrong[:3])}")


class Stream:
    """Traffic that goes on in the background: small hash-checked transfers, one after another."""

    def __init__(self, to, src=None, dst=None, size=1 << 19):
        self.args = (to, size, src, dst)
        self.stop = False
        self.done = 0
        self.wrong = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stop:
            try:
                tcp(*self.args, seconds=20)
                self.done += 1
            except Exception as e:
                self.wrong = self.wrong or e
                return

    def end(self):
        """It has to have worked; returns how many transfers there were."""
        self.stop = True
        self.thread.join(30)
        require(self.wrong is None, f"background traffic: {self.wrong}")
        require(self.done > 0, "background traffic did not get on")
        return self.done


def raw_frame(dst, src, ethertype, payload):
    mac = lambda m: bytes.fromhex(m.replace(":", ""))
    return mac(dst) + mac(src) + struct.pack(">H", ethertype) + payload


def send_raw(dev, frames, ns=None):
    """Sends frames as they are."""
    with inside(ns):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((dev, 0))
    for f in frames:
        s.send(f)
    s.close()


class Capture:
    """tcpdump on a netdev. `frames()` ends it and gives (length, bytes) of each frame."""

    def __init__(self, dev, what="", ns=None, promisc=True, snap=128, direction="inout"):
        self.file = f"/tmp/{ns or 'init'}-{dev}-{next(_ports)}.pcap"
        # Immediate mode: what is in a block that is not full yet would be lost at the end.
        words = ["tcpdump", "-n", "-U", "--immediate-mode", "-i", dev, "-s", str(snap), "-w", self.file, "-Q", direction, "-B", "8192"]
        words += ([] if promisc else ["-p"]) + what.split()
        with inside(ns):
            self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        while line and "listening on" not in line:
            line = self.process.stderr.readline()
        require(line, "tcpdump did not start")

    def frames(self):
        time.sleep(0.3)
        self.process.terminate()
        _, err = self.process.communicate(timeout=10 * PATIENCE)
        dropped = next((int(l.split()[0]) for l in err.splitlines() if "dropped by kernel" in l), 0)
        equal(dropped, 0, "frames that tcpdump missed")
        with open(self.file, "rb") as f:
            data = f.read()
        os.unlink(self.file)
        frames, at = [], 24
        while at < len(data):
            _, _, kept, length = struct.unpack_from("<IIII", data, at)
            frames.append((length, data[at + 16 : at + 16 + kept]))
            at += 16 + kept
        return frames


# ---------------------------------------------------------------- counters


def counters(dev, ns=None):
    """What `ethtool -S` shows."""
    found = {}
    for line in run(f"ethtool -S {dev}", ns).splitlines()[1:]:
        name, _, number = line.rpartition(":")
        found[name.strip()] = int(number)
    return found


class Delta:
    """By how much counters grew."""

    def __init__(self, dev, ns=None):
        self.dev, self.ns = dev, ns
        self.before = counters(dev, ns)

    def take(self):
        after = counters(self.dev, self.ns)
        return {k: v - self.before.get(k, 0) for k, v in after.items()}


def settled(*netdevs):
    """Waits until the packet counters of (netdev, namespace) do not change any more: what was
    sent may still be on its way on a busy machine."""
    def now():
        return [{k: v for k, v in counters(*n).items() if k.endswith("_packets")} for n in netdevs]

    last = now()
    for _ in range(60):
        time.sleep(0.3)
        last, before = now(), last
        if last == before:
            return
    raise Wrong("packet counters do not settle")


def toeplitz(key, data):
    """The RSS hash, bit by bit as it is defined: for each set bit of the data, the 32 bits
    of the key that start at its position."""
    stream = int.from_bytes(key, "big")
    bits = len(key) * 8
    result = 0
    for i in range(len(data) * 8):
        if data[i // 8] >> (7 - i % 8) & 1:
            result ^= stream >> (bits - 32 - i) & 0xFFFFFFFF
    return result


def rss_input(src, dst, sport=None, dport=None, symmetric=False):
    """What is hashed of a packet. Symmetric: the OR and the XOR of each pair of fields in
    their places (RXH_XFRM_SYM_OR_XOR)."""
    pack = lambda a: socket.inet_pton(family_of(a), a)
    pairs = [(pack(src), pack(dst))]
    if sport is not None:
        pairs.append((struct.pack(">H", sport), struct.pack(">H", dport)))
    out = b""
    for a, b in pairs:
        if symmetric:
            a, b = bytes(x | y for x, y in zip(a, b)), bytes(x ^ y for x, y in zip(a, b))
        out += a + b
    return out


def rss_config(dev, ns=None, context=None):
    """Key and table that `ethtool -x` shows."""
    text = run(f"ethtool -x {dev}" + (f" context {context}" if context else ""), ns)
    above, _, below = text.partition("RSS hash key:\n")
    rows = (line.partition(":") for line in above.splitlines())
    table = [int(n) for head, _, rest in rows if head.strip().isdigit() for n in rest.split()]
    return bytes.fromhex(below.splitlines()[0].replace(":", "")), table


# Earlier drivers give a page away twice where the completion of a receive buffer is lost.
SURVIVES_LOST_COMPLETIONS = KERNEL >= (6, 12)


# ---------------------------------------------------------------- devlink and SFs


# mlx5_core registers max_local_SFs.
SF_RESOURCES = KERNEL >= (6, 2)


def devlink(command):
    return json.loads(run(f"devlink -j {command}"))


def ports():
    """All ports of devlink by handle."""
    return devlink("port show")["port"]


def port_of(handle):
    """One port; None if it is not there."""
    r = attempt(f"devlink -j port show {handle}")
    return json.loads(r.out)["port"][handle] if r.status == 0 else None


def state_of(handle):
    """`state/opstate` of a port function."""
    function = (port_of(handle) or {}).get("function", {})
    return f"{function.get('state')}/{function.get('opstate')}"


def switchdev(pf, mode="switchdev"):
    run(f"devlink dev eswitch set pci/{pf} mode {mode}")


def sf_auxiliary(pf, sfnum):
    """The auxiliary device of an SF, if there is one."""
    for name in os.listdir("/sys/bus/auxiliary/devices"):
        if not name.startswith("mlx5_core.sf."):
            continue
        at = f"/sys/bus/auxiliary/devices/{name}"
        with contextlib.suppress(OSError):
            same_pf = os.path.realpath(at).split("/")[-2] == pf
            if same_pf and int(read(f"{at}/sfnum")) == sfnum:
                return name
    return None


def netdevs_inside(ns, pci):
    """The netdevs of a function that are in a namespace: what a kernel adds to each namespace by
    itself is none of its."""
    return [l["ifname"] for l in json.loads(run("ip -j -d link", ns)) if l.get("parentdev") == pci]


def auxiliary_netdev(aux):
    """The netdev of an auxiliary device, if there is one."""
    with contextlib.suppress(OSError):
        return os.listdir(f"/sys/bus/auxiliary/devices/{aux}/net")[0]
    return None


class Sf:
    """A sub-function, from `devlink port add` on."""

    def __init__(self, pf, sfnum, mac=None, add=True):
        self.pf, self.sfnum = pf, sfnum
        number = int(pf.rsplit(".", 1)[1])
        if add:
            said = run(f"devlink port add pci/{pf} flavour pcisf pfnum {number} sfnum {sfnum}")
            self.handle = said.split(": ")[0]
        else:
            self.handle = next(h for h, p in ports().items() if h.startswith(f"pci/{pf}/") and p.get("sfnum") == sfnum)
        self.rep = until(lambda: port_of(self.handle).get("netdev"), "the representor")
        self.aux = None
        self.dev = None
        self.ns = None
        if mac:
            run(f"devlink port function set {self.handle} hw_addr {mac}")

    @staticmethod
    def found(pf, sfnum):
        """One that somebody else added."""
        return Sf(pf, sfnum, add=False)

    def activate(self):
        run(f"devlink port function set {self.handle} state active")
        self.aux = until(self._aux, f"the auxiliary device of SF {self.sfnum}")

    def _aux(self):
        return sf_auxiliary(self.pf, self.sfnum)

    def start(self):
        """Its Ethernet device, which a light probe leaves out."""
        parameter = f"auxiliary/{self.aux} name enable_eth"
        until(lambda: attempt(f"devlink dev param show {parameter}").status == 0, f"the driver of {self.aux}")
        run(f"devlink dev param set {parameter} value true cmode driverinit")
        run(f"devlink dev reload auxiliary/{self.aux}")
        self.dev = until(self._dev, f"the netdev of {self.aux}")

    def _dev(self):
        return auxiliary_netdev(self.aux)

    def into(self, ns, *addresses, mtu=None):
        """Its netdev in a namespace, up, with addresses."""
        run(f"ip link set {self.dev} netns {ns}")
        self.ns = ns
        set_up(self.dev, *addresses, ns=ns, mtu=mtu)

    def up(self, ns, *addresses):
        """All of the way to a netdev with addresses in a namespace."""
        self.activate()
        self.start()
        self.into(ns, *addresses)

    def deactivate(self):
        run(f"devlink port function set {self.handle} state inactive")
        self.dev = self.ns = None

    def delete(self):
        run(f"devlink port del {self.handle}")


def bridge(name, *members):
    run(f"ip link add {name} type bridge mcast_snooping 0")
    for m in members:
        run(f"ip link set {m} master {name}")
        run(f"ip link set {m} up")
    run(f"ip link set {name} up")
