"""Connection tracking in hardware: tc rules with `ct`, whose established connections the driver
takes from the kernel's flow table; TCP and UDP between SFs and to the far end, NAT, timeouts."""

from offload import *

if not kernel_has("mlx5_tc_ct_init"):
    skip_all("mlx5_core was built without CONFIG_MLX5_TC_CT")

SUBNET = ("10.2.0.1", "10.2.0.2", "10.2.0.100")
# A kernel without zones has that of number 0.
ZONE = "zone 5" if option("NF_CONNTRACK_ZONES") else ""

net = Switch(2)
A, B = net.sfs
set_up(net.far, f"{SUBNET[2]}/24", ns=PEER)
for sf, address in zip(net.sfs, SUBNET):
    run(f"ip addr add {address}/24 dev {sf.dev}", sf.ns)

# An end of a connection: its netdev's port in the eswitch, namespace, netdev, address.
ENDS = {
    "a": (A.rep, A.ns, A.dev, SUBNET[0]),
    "b": (B.rep, B.ns, B.dev, SUBNET[1]),
    "far": (net.uplink, PEER, net.far, SUBNET[2]),
}
for here, (_, ns, dev, _) in ENDS.items():
    for there, (_, other, odev, address) in ENDS.items():
        if here != there:
            neighbour(dev, address, mac_of(odev, other), ns)

PORTS = iter(range(5000, 6000))
OFFLOADED = f"/sys/kernel/debug/mlx5/{PF[0]}/ct/offloaded"


def offloaded():
    """Directions of connections in hardware, as the driver counts them."""
    return int(read(OFFLOADED))


def settle():
    until(lambda: offloaded() == 0, "the end of the connections in hardware", 60)


class Tracked:
    """The rules that let one end open connections to another, both ways."""

    def __init__(self, here, there, commit="", reply=""):
        a, b = ENDS[here], ENDS[there]
        self.devs = (a[0], b[0])
        to = lambda dev: f"action mirred egress redirect dev {dev}"
        self.first = [
            Rule(a[0], "ct_state -trk", f"action ct {ZONE} {reply} action goto chain 1"),
            Rule(b[0], "ct_state -trk", f"action ct {ZONE} {reply} action goto chain 1"),
        ]
        self.new = Rule(a[0], "ct_state +trk+new", f"action ct commit {ZONE} {commit} {to(b[0])}", chain=1)
        self.forth = Rule(a[0], "ct_state +trk+est", to(b[0]), chain=1)
        self.back = Rule(b[0], "ct_state +trk+est", to(a[0]), chain=1)
        self.all = self.first + [self.new, self.forth, self.back]

    def offloaded(self):
        for r in self.all:
            r.offloaded()

    def __enter__(self):
        self.offloaded()
        return self

    def __exit__(self, kind, *_):
        flush(*self.devs)
        if kind is None:
            settle()


class Connection:
    """A TCP connection that stays."""

    def __init__(self, here, there, to=None, port=None):
        _, ns, _, self.src = ENDS[here]
        _, other, _, self.dst = ENDS[there]
        self.port = port or next(PORTS)
        self.listener = new_socket(socket.SOCK_STREAM, self.dst, other)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.dst, self.port))
        self.listener.listen(1)
        self.client = new_socket(socket.SOCK_STREAM, self.dst, ns)
        self.client.connect((to or self.dst, self.port))
        self.server, self.seen = self.listener.accept()

    def send(self, size, back=False):
        """Random bytes one way, compared."""
        a, b = (self.server, self.client) if back else (self.client, self.server)
        payload = os.urandom(size)
        sender = threading.Thread(target=a.sendall, args=(payload,), daemon=True)
        sender.start()
        got = bytearray()
        while len(got) < size:
            piece = b.recv(min(1 << 18, size - len(got)))
            require(piece, f"the connection ended after {len(got)} of {size} bytes")
            got += piece
        sender.join(10)
        require(hashlib.sha256(got).digest() == hashlib.sha256(payload).digest(), f"{size} bytes came changed")

    def into_hardware(self):
        """Sends until software sees nothing of it."""
        def there():
            seen = net.software()
            for _ in range(3):
                self.send(1)
                self.send(1, back=True)
            return offloaded() and net.software() == seen
        until(there, "the connection in hardware", 30)

    def close(self):
        for s in (self.client, self.server, self.listener):
            s.close()


def moves(connection, rules, size=2 << 20):
    """Megabytes both ways leave the software's counters where they are and move hardware's."""
    before = rules.forth.counted()[0], rules.back.counted()[0]
    with net.in_hardware(most=8):
        connection.send(size)
        connection.send(size, back=True)
    until(lambda: rules.forth.counted()[0] - before[0] > size // 1500 and rules.back.counted()[0] - before[1] > size // 1500,
          "hardware counters of both directions")


for here, there in (("a", "b"), ("a", "far"), ("far", "b")):
    with check(f"TCP from {here} to {there}"), Tracked(here, there) as rules:
        c = Connection(here, there)
        c.into_hardware()
        moves(c, rules)
        c.close()


class Datagrams:
    """UDP between two ends, both ways."""

    def __init__(self, here, there, to=None, port=None):
        _, ns, _, src = ENDS[here]
        _, other, _, dst = ENDS[there]
        self.client, self.server = new_socket(socket.SOCK_DGRAM, dst, ns), new_socket(socket.SOCK_DGRAM, dst, other)
        self.server.bind((dst, port or next(PORTS)))
        self.client.bind((src, next(PORTS)))
        self.client.connect((to or dst, self.server.getsockname()[1]))
        for s in (self.client, self.server):
            s.settimeout(20)

    def exchange(self, count=1):
        for n in range(count):
            text = os.urandom(100 + n % 1000)
            self.client.send(text)
            got, self.seen = self.server.recvfrom(2000)
            equal(got, text, "a datagram")
            self.server.sendto(got[::-1], self.seen)
            equal(self.client.recv(2000), text[::-1], "the answer")

    def into_hardware(self):
        """Sends until software sees nothing of it: a first datagram is taken over one way, and
        both ways once there was an answer."""
        def there():
            seen = net.software()
            self.exchange(3)
            return offloaded() and net.software() == seen
        until(there, "the datagrams in hardware", 30)

    def close(self):
        self.client.close()
        self.server.close()


for there in ("b", "far"):
    with check(f"UDP from a to {there}"), Tracked("a", there) as rules:
        d = Datagrams("a", there)
        d.into_hardware()
        with net.in_hardware(), rules.forth.counts(200), rules.back.counts(200):
            d.exchange(200)
        d.close()

with check("two connections of the same rules"), Tracked("a", "b") as rules:
    one = Connection("a", "b")
    one.into_hardware()
    two = Connection("a", "b")
    two.into_hardware()
    moves(one, rules)
    moves(two, rules)
    # One ends: the FIN goes through software, and takes it out of hardware; the other one stays.
    both = offloaded()
    one.close()
    until(lambda: offloaded() <= both - 2, "the end of the first one in hardware", 60)
    moves(two, rules)
    two.close()

NATS = {
    "source": ("nat src addr 10.2.0.50", None, "10.2.0.50", None),
    "source and port": ("nat src addr 10.2.0.50 port 4000-4999", None, "10.2.0.50", range(4000, 5000)),
    "destination": ("nat dst addr 10.2.0.2", "10.2.0.60", None, None),
    "destination and port": ("nat dst addr 10.2.0.2 port 80", "10.2.0.60", None, None),
}

for name, (nat, to, seen, ports) in NATS.items():
    if to:
        neighbour(A.dev, to, mac_of(B.dev, B.ns), A.ns)
    if seen:
        neighbour(B.dev, seen, mac_of(A.dev, A.ns), B.ns)
    port = 80 if "port 80" in nat else None
    with check(f"TCP with NAT of {name}"), Tracked("a", "b", commit=f"{nat} pipe", reply="nat pipe") as rules:
        c = Connection("a", "b", to=to, port=port)
        c.into_hardware()
        with net.in_hardware(most=8):
            c.send(1 << 20)
            c.send(1 << 20, back=True)
        equal(c.seen[0], seen or SUBNET[0], "address that the other end sees")
        require(ports is None or c.seen[1] in ports, f"port that the other end sees: {c.seen[1]}")
        c.close()
    with check(f"UDP with NAT of {name}"), Tracked("a", "b", commit=f"{nat} pipe", reply="nat pipe") as rules:
        d = Datagrams("a", "b", to=to, port=port)
        d.into_hardware()
        with net.in_hardware(), rules.forth.counts(100), rules.back.counts(100):
            d.exchange(100)
        equal(d.seen[0], seen or SUBNET[0], "address that the other end sees")
        d.close()

with check("an idle connection leaves hardware, a busy one stays, and one comes back"), Tracked("a", "b") as rules:
    write("/proc/sys/net/netfilter/nf_flowtable_udp_timeout", "4")
    idle, busy = Datagrams("a", "b"), Datagrams("a", "b")
    idle.into_hardware()
    busy.into_hardware()
    end = time.monotonic() + 15
    with net.in_hardware():
        while time.monotonic() < end:
            busy.exchange()
            time.sleep(0.3)
    equal(offloaded(), 2, "directions in hardware")
    idle.into_hardware()
    for d in (idle, busy):
        d.close()

with check("rules that go take their connections along"):
    with Tracked("a", "b") as rules:
        c = Connection("a", "b")
        c.into_hardware()
    c.client.sendall(b"x")
    c.server.settimeout(2)
    try:
        c.server.recv(1)
    except TimeoutError:
        pass
    else:
        raise Wrong("a frame came though there is no rule")
    c.close()

finish()
