"""Counters that agree to the frame and the byte, and queues chosen by the RSS hash."""

from lab import *

A, B = "a", "b"
V4, V6 = "10.0.0.%d", "fd00::%d"
FCS = 4

D0, D1 = netdev_of(PF[0]), netdev_of(PF[1])
for ns, dev, n, to in ((A, D0, 1, D1), (B, D1, 2, D0)):
    add_ns(ns)
MAC = {A: mac_of(D0), B: mac_of(D1)}
for ns, dev, n in ((A, D0, 1), (B, D1, 2)):
    run(f"ip link set {dev} netns {ns}")
    set_up(dev, V4 % n + "/24", V6 % n + "/64", ns=ns)
for ns, dev, peer, n in ((A, D0, B, 2), (B, D1, A, 1)):
    # No ARP and neighbour discovery while frames are counted.
    until(lambda: carrier(dev, ns), "carrier")
    for a in (V4, V6):
        run(f"ip neigh replace {a % n} lladdr {MAC[peer]} dev {dev} nud permanent", ns)
time.sleep(1)


def totals(c, way, cast=("unicast", "multicast", "broadcast")):
    """Frames and bytes as each level counts them: driver, vport, port, queues."""
    queues = [k for k in c if k[:2] == way and k[2:].split("_")[0].isdigit() and not "xdp" in k]
    return {
        "driver": (c[f"{way}_packets"], c[f"{way}_bytes"]),
        "vport": (
            sum(c[f"{way}_vport_{k}_packets"] for k in cast),
            sum(c[f"{way}_vport_{k}_bytes"] for k in cast),
        ),
        "port": (c[f"{way}_packets_phy"], c[f"{way}_bytes_phy"] - FCS * c[f"{way}_packets_phy"]),
        "queues": (
            sum(c[k] for k in queues if k.endswith("_packets") and k.count("_") == 1),
            sum(c[k] for k in queues if k.endswith("_bytes") and k.count("_") == 1),
        ),
    }


def counted(send, src, dst, frames=None, length=None):
    """Everyone has to agree on what `send` causes. With TSO the sender's tcpdump sees
    fewer and longer packets than the wire; `frames` and `length` None: don't ask it."""
    devs = {A: D0, B: D1}
    captures = [Capture(devs[ns], "", ns, promisc=False) for ns in (src, dst)]
    deltas = [Delta(devs[ns], ns) for ns in (src, dst)]
    links = [link_of(devs[ns], ns)["stats64"] for ns in (src, dst)]
    send()
    settled((devs[src], src), (devs[dst], dst))
    tx, rx = (d.take() for d in deltas)
    seen = [[f for f in c.frames(frames or 0) if f[1][6:12].hex(":") == MAC[src]] for c in captures]
    t, r = totals(tx, "tx"), totals(rx, "rx")
    expected = t["driver"] if frames is None else (frames, length)
    for who, got in {f"sender's {k}": v for k, v in t.items()}.items():
        equal(got, expected, f"frames and bytes, {who}")
    for who, got in {f"receiver's {k}": v for k, v in r.items()}.items():
        equal(got, expected, f"frames and bytes, {who}")
    if frames is not None:
        equal(len(seen[0]), frames, "frames of the sender's tcpdump")
        equal(sum(max(60, l) for l, _ in seen[0]), length, "bytes of the sender's tcpdump")
        equal((len(seen[1]), sum(l for l, _ in seen[1])), expected, "frames and bytes of the receiver's tcpdump")
    after = [link_of(devs[ns], ns)["stats64"] for ns in (src, dst)]
    for side, way, old, new in zip(("sender", "receiver"), ("tx", "rx"), links, after):
        got = tuple(new[way][k] - old[way][k] for k in ("packets", "bytes"))
        equal(got, expected, f"frames and bytes of the {side}'s ip -s link")
        equal(new[way]["errors"] - old[way]["errors"], 0, f"errors of the {side}")
        equal(new[way]["dropped"] - old[way]["dropped"], 0, f"drops of the {side}")
    return tx, rx


SIZES = [0, 1, 17, 18, 19, 22, 23, 86, 214, 215, 470, 982, 983, 1471, 1472]

for src, dst, to in ((A, B, 2), (B, A, 1)):
    for family, form, head in (("IPv4", V4, 42), ("IPv6", V6, 62)):
        with check(f"counters of {family} datagrams from {src}"):
            sizes = [min(s, 1514 - head) for s in SIZES] * 20
            s = new_socket(socket.SOCK_DGRAM, form % to, src)
            d = new_socket(socket.SOCK_DGRAM, form % to, dst)
            d.bind((form % to, 7100))

            def send():
                for n in sizes:
                    s.sendto(bytes(n), (form % to, 7100))
                    time.sleep(0.0005)

            tx, rx = counted(send, src, dst, len(sizes), sum(max(60, n + head) for n in sizes))
            equal(rx["rx_vport_unicast_packets"], len(sizes), "unicast frames received")
            # Size classes of the port are those of RFC 2819, with the FCS.
            bounds = (64, 127, 255, 511, 1023, 1518)
            names = ("64_bytes", "65_to_127_bytes", "128_to_255_bytes", "256_to_511_bytes", "512_to_1023_bytes", "1024_to_1518_bytes")
            for low, high, name in zip((0,) + bounds, bounds, names):
                n = sum(low < max(60, n + head) + FCS <= high for n in sizes)
                equal(rx[f"rx_{name}_phy"], n, f"frames of class {name}")
            s.close()
            d.close()

with check("counters of broadcast and multicast"):
    frames = [raw_frame("ff:ff:ff:ff:ff:ff", MAC[A], 0x88B5, bytes(100))] * 30
    frames += [raw_frame("01:00:5e:00:00:01", MAC[A], 0x88B5, bytes(200))] * 40
    tx, rx = counted(lambda: send_raw(D0, frames, A), A, B, 70, sum(map(len, frames)))
    equal((tx["tx_vport_broadcast_packets"], tx["tx_vport_multicast_packets"]), (30, 40), "sent by kind")
    equal((rx["rx_vport_broadcast_packets"], rx["rx_vport_multicast_packets"]), (30, 40), "received by kind")
    equal((tx["tx_broadcast_phy"], tx["tx_multicast_phy"]), (30, 40), "sent by kind, port")
    equal((rx["rx_broadcast_phy"], rx["rx_multicast_phy"]), (30, 40), "received by kind, port")

with check("counters of fragments"):
    payload = bytes(65000)
    s, d = new_socket(socket.SOCK_DGRAM, V4 % 2, A), new_socket(socket.SOCK_DGRAM, V4 % 2, B)
    d.bind((V4 % 2, 7101))
    whole, rest = divmod(65008, 1480)
    length = whole * 1514 + rest + 34

    def send():
        for _ in range(10):
            s.sendto(payload, (V4 % 2, 7101))
            equal(len(d.recv(1 << 17)), 65000, "datagram")

    counted(send, A, B, (whole + 1) * 10, length * 10)

for tso in ("on", "off"):
    with check(f"counters of tcp with tso {tso}"):
        for dev, ns in ((D0, A), (D1, B)):
            run(f"ethtool -K {dev} tso {tso} gso {tso}", ns)
        tx, rx = counted(lambda: tcp(V4 % 2, 4 << 20, A, B), A, B)
        equal(tx["tx_tso_packets"] > 0, tso == "on", "were there TSO packets")
        require(tx["tx_packets"] >= (4 << 20) // 1448, f"{tx['tx_packets']} packets are too few")
        tx, rx = counted(lambda: tcp(V6 % 1, 2 << 20, B, A), B, A)

with check("counters of a jumbo transfer"):
    for dev, ns in ((D0, A), (D1, B)):
        run(f"ip link set {dev} mtu 9000", ns)
        run(f"ethtool -K {dev} tso on gso on", ns)
    until(lambda: carrier(D0, A) and carrier(D1, B), "carrier")
    for ns, dev, peer, n in ((A, D0, B, 2), (B, D1, A, 1)):
        run(f"ip neigh replace {V4 % n} lladdr {MAC[peer]} dev {dev} nud permanent", ns)
    time.sleep(0.5)
    tx, rx = counted(lambda: tcp(V4 % 2, 4 << 20, A, B), A, B)
    require(tx["tx_packets"] < (4 << 20) // 5000, f"{tx['tx_packets']} packets are too many")
    for dev, ns in ((D0, A), (D1, B)):
        run(f"ip link set {dev} mtu 1500", ns)
    until(lambda: carrier(D0, A) and carrier(D1, B), "carrier")
    for ns, dev, peer, n in ((A, D0, B, 2), (B, D1, A, 1)):
        run(f"ip neigh replace {V4 % n} lladdr {MAC[peer]} dev {dev} nud permanent", ns)
        run(f"ip -6 neigh replace {V6 % n} lladdr {MAC[peer]} dev {dev} nud permanent", ns)
    time.sleep(0.5)

# ------------------------------------------------------------ queues


def flows(kind, form, random_source):
    """Addresses and ports of flows from A to B."""
    for _ in range(64):
        yield form % 1, form % 2, random_source.randrange(10000, 60000), random_source.randrange(10000, 60000)


def spread(name, key, table, symmetric):
    """Sends flows with a known number of packets each; each queue has to get exactly
    those that the hash gives it."""
    source = random.Random(name)
    expected = {}
    jobs = []
    for form in (V4, V6):
        for src, dst, sport, dport in flows("udp", form, source):
            n = source.randrange(1, 9)
            q = table[toeplitz(key, rss_input(src, dst, sport, dport, symmetric)) % len(table)]
            expected[q] = expected.get(q, 0) + n
            jobs.append((src, dst, sport, dport, n))
    before = Delta(D1, B)
    answers = counters(D0, A)["rx_packets"]
    for src, dst, sport, dport, n in jobs:
        s = new_socket(socket.SOCK_DGRAM, src, A)
        s.bind((src, sport))
        for _ in range(n):
            with contextlib.suppress(ConnectionError):
                s.sendto(b"x", (dst, dport))
        s.close()
    settled((D0, A), (D1, B))
    c = before.take()
    got = {q: c[f"rx{q}_packets"] for q in range(4) if c[f"rx{q}_packets"]}
    equal(got, {q: n for q, n in sorted(expected.items())}, "packets of each queue")
    equal(c["rx_packets"], sum(expected.values()), "packets")


def hash_key(seed):
    return bytes(random.Random(seed).randrange(256) for _ in range(40))


with check("a known answer of the Toeplitz hash"):
    # The values that Microsoft publishes to verify implementations with.
    key = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
    equal(toeplitz(key, rss_input("66.9.149.187", "161.142.100.80", 2794, 1766)), 0x51CCC178, "hash of TCP over IPv4")
    equal(toeplitz(key, rss_input("66.9.149.187", "161.142.100.80")), 0x323E8FC2, "hash of IPv4")
    v6 = ("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794, 1766)
    equal(toeplitz(key, rss_input(*v6)), 0x40207D3D, "hash of TCP over IPv6")

# ICMP answers to closed ports would be traffic of their own: none of them.
for ns in (A, B):
    run("nft add table inet quiet", ns)
    run("nft add chain inet quiet in { type filter hook input priority 0 ; }", ns)
    run("nft add rule inet quiet in udp dport 10000-60000 drop", ns)

# Before 6.15 mlx5 has the symmetric variant only, and no ethtool operation tells of it.
PLAIN = KERNEL >= (6, 15)

with check("the state of the hash"):
    text = run(f"ethtool -x {D1}", B)
    require("toeplitz: on" in text, text)
    require(not PLAIN or "symmetric-xor: off" in text, text)
    say(text.splitlines()[-1])

# The driver starts with the symmetric variant that ORs one copy of the fields and XORs the other.
with check("queues by the default key, symmetric"):
    key, table = rss_config(D1, B)
    spread("default", key, table, True)

with check("queues by a key of ours, symmetric"):
    set_rss(D1, f"hkey {hash_key(1).hex(':')}", B)
    key, table = rss_config(D1, B)
    equal(key, hash_key(1), "key")
    spread("one", key, table, True)

with check("queues by a key of ours, plain"):
    if not PLAIN:
        skip(f"mlx5_core of {os.uname().release} has the symmetric hash only")
    set_rss(D1, "xfrm none", B)
    set_rss(D1, f"hkey {hash_key(2).hex(':')}", B)
    key, table = rss_config(D1, B)
    spread("two", key, table, False)

with check("queues by another table"):
    set_rss(D1, "weight 7 1 3 2", B)
    key, table = rss_config(D1, B)
    equal(len(set(table)), 4, "queues in the table")
    spread("three", key, table, not PLAIN)
    set_rss(D1, "equal 2", B)
    key, table = rss_config(D1, B)
    spread("four", key, table, not PLAIN)

with check("queues by addresses alone"):
    for kind in ("udp4", "udp6"):
        run(f"ethtool -N {D1} rx-flow-hash {kind} sd", B)
    key, table = rss_config(D1, B)
    before = Delta(D1, B)
    queue = table[toeplitz(key, rss_input(V4 % 1, V4 % 2, symmetric=not PLAIN)) % len(table)]
    s = new_socket(socket.SOCK_DGRAM, V4 % 2, A)
    for port in range(30000, 30100):
        s.sendto(b"x", (V4 % 2, port))
    settled((D0, A), (D1, B))
    equal(before.take()[f"rx{queue}_packets"], 100, "packets of the queue")
    for kind in ("udp4", "udp6"):
        run(f"ethtool -N {D1} rx-flow-hash {kind} sdfn", B)

with check("queues of tcp"):
    if SETS_RSS:
        set_rss(D1, "equal 4", B)
    key, table = rss_config(D1, B)
    for form in (V4, V6):
        for sport in range(5000, 5012):
            d = new_socket(socket.SOCK_STREAM, form % 2, B)
            d.bind((form % 2, 0))
            d.listen(1)
            dport = d.getsockname()[1]
            s = new_socket(socket.SOCK_STREAM, form % 2, A)
            s.bind((form % 1, sport))
            before = Delta(D1, B)
            s.connect((form % 2, dport))
            c, _ = d.accept()
            s.sendall(bytes(20000))
            left = 20000
            while left:
                left -= len(c.recv(left))
            s.close()
            c.close()
            d.close()
            time.sleep(0.02)
            got = before.take()
            queue = table[toeplitz(key, rss_input(form % 1, form % 2, sport, dport, not PLAIN)) % len(table)]
            equal(got[f"rx{queue}_packets"], got["rx_packets"], f"packets of queue {queue}, port {sport}")

finish()
