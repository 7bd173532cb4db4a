"""Receive flow steering as ethtool sets it: n-tuple rules, RSS contexts, accelerated RFS."""

from lab import *

A, B = "a", "b"
V4, V6 = "10.0.0.%d", "fd00::%d"
D0, D1 = netdev_of(PF[0]), netdev_of(PF[1])
for ns, dev, n in ((A, D0, 1), (B, D1, 2)):
    add_ns(ns)
    run(f"ip link set {dev} netns {ns}")
    set_up(dev, V4 % n + "/24", V6 % n + "/64", ns=ns)
M0, M1 = mac_of(D0, A), mac_of(D1, B)
until(lambda: carrier(D0, A) and carrier(D1, B), "carrier")
for ns, dev, mac, n in ((A, D0, M1, 2), (B, D1, M0, 1)):
    run(f"ip neigh replace {V4 % n} lladdr {mac} dev {dev} nud permanent", ns)
    run(f"ip -6 neigh replace {V6 % n} lladdr {mac} dev {dev} nud permanent", ns)
# Answers of B to what it did not expect would be traffic of their own.
run("nft add table inet quiet", B)
run("nft add chain inet quiet in { type filter hook input priority 0 ; }", B)
run("nft add rule inet quiet in udp dport 1000-19999 drop", B)
run("nft add rule inet quiet in tcp dport 1000-19999 drop", B)
run("nft add rule inet quiet in meta l4proto { icmp, 132, 253 } drop", B)

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP


def packet(proto=UDP, src=V4 % 1, dst=V4 % 2, sport=5000, dport=6000, vlan=None, smac=M0, dmac=M1):
    """A frame from A to B; the checksums of TCP and UDP are left out."""
    ports = struct.pack(">HH", sport, dport)
    body = {
        TCP: ports + struct.pack(">IIBBHHH", 1, 0, 0x50, 0x10, 1000, 0, 0),
        UDP: ports + struct.pack(">HH", 16, 0) + bytes(8),
    }.get(proto, bytes(20))
    pack = lambda a: socket.inet_pton(family_of(a), a)
    if ":" in src:
        kind = 0x86DD
        head = struct.pack(">IHBB", 6 << 28, len(body), proto, 64)
    else:
        kind = 0x0800
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0)
        total = sum(struct.unpack(">10H", head + pack(src)[:0] + pack(src) + pack(dst)))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        head = head[:10] + struct.pack(">H", ~total & 0xFFFF)
    tag = struct.pack(">HH", vlan, kind) if vlan is not None else b""
    return raw_frame(dmac, smac, 0x8100 if tag else kind, tag + head + pack(src) + pack(dst) + body).ljust(60, b"\0")


def six(**more):
    return packet(**({"src": V6 % 1, "dst": V6 % 2} | more))


def by_queue(frames, dropped=False):
    """Sends frames from A and tells how many came to each queue of B. All do, or none."""
    before = Delta(D1, B)
    queues = lambda: {q: n for q in range(4) if (n := before.take()[f"rx{q}_packets"])}
    send_raw(D0, frames, A)
    arrived = lambda: before.take()["rx_vport_unicast_packets"] >= len(frames)
    until(arrived, f"{len(frames)} frames at the port", 20)
    if dropped:
        time.sleep(0.15)
    else:
        until(lambda: sum(queues().values()) >= len(frames), f"{len(frames)} frames in queues", 20)
    equal(before.take()["rx_vport_unicast_packets"], len(frames), "frames at the port")
    return queues()


def goes(frame, queue, what, n=7):
    """All frames like this go to a queue, or none arrives."""
    got = by_queue([frame] * n, dropped=queue is None)
    equal(got, {} if queue is None else {queue: n}, f"queues of {what}")


def rule(text, ns=B, dev=D1):
    """Adds a rule and returns its location."""
    said = run(f"ethtool -N {dev} flow-type {text}", ns)
    found = [w for w in said.split() if w.isdigit()]
    return int(found[-1]) if found else int(text.split()[-1])


def drop_rule(location):
    run(f"ethtool -N {D1} delete {location}", B)


def locations():
    return [int(l.split()[1]) for l in run(f"ethtool -n {D1}", B).splitlines() if l.startswith("Filter:")]


with check("rules can be had"):
    run(f"ethtool -K {D1} ntuple on", B)
    features = json.loads(run(f"ethtool --json -k {D1}", B))[0]
    require(features["ntuple-filters"]["active"], "ntuple is off")
    # All that no rule has goes to queue 0.
    run(f"ethtool -X {D1} equal 1", B)
    goes(packet(), 0, "a packet without rules")
    goes(six(proto=TCP), 0, "an IPv6 packet without rules")

other = "52:54:00:00:00:77"
# What the rule says, a frame that has it, and frames that just do not.
RULES = (
    ("ether dst %s" % M1, packet(), []),
    ("ether src %s" % M0, packet(), [packet(smac=other)]),
    ("ether proto 0x86dd", six(), [packet()]),
    ("ether src 52:54:00:00:00:00 m 00:00:00:ff:ff:ff", packet(), [packet(smac="52:55:00:00:00:01")]),
    ("ether src %s proto 0x0800" % M0, packet(), [six(), packet(smac=other)]),
    ("ip4 src-ip 10.0.0.1", packet(), [packet(src="10.0.0.3"), six()]),
    ("ip4 dst-ip 10.0.0.2", packet(proto=TCP), [packet(dst="10.0.0.9")]),
    ("ip4 src-ip 10.0.0.1 dst-ip 10.0.0.2", packet(proto=132), [packet(src="10.0.0.9")]),
    ("ip4 src-ip 10.0.4.0 m 0.0.3.255", packet(src="10.0.7.9"), [packet(src="10.0.8.1")]),
    ("ip4 l4proto 1", packet(proto=1), [packet(), packet(proto=TCP)]),
    ("tcp4 dst-port 6000", packet(proto=TCP), [packet(), packet(proto=TCP, dport=6001), six(proto=TCP)]),
    ("tcp4 src-port 5000 dst-port 6000", packet(proto=TCP), [packet(proto=TCP, sport=5001)]),
    ("tcp4 src-ip 10.0.0.1 dst-ip 10.0.0.2 src-port 5000 dst-port 6000", packet(proto=TCP), [packet(proto=TCP, src="10.0.0.3")]),
    ("tcp4 dst-port 0x1700 m 0x00ff", packet(proto=TCP, dport=0x1799), [packet(proto=TCP, dport=0x1855)]),
    ("udp4 dst-port 6000", packet(), [packet(proto=TCP), packet(dport=6001), six()]),
    ("udp4 src-ip 10.0.0.0 m 0.0.0.255 dst-port 6000", packet(src="10.0.0.200"), [packet(src="10.0.1.1")]),
    ("udp4 src-port 4992 m 0x000f", packet(sport=5007), [packet(sport=5008)]),
    ("ip6 src-ip fd00::1", six(), [six(src="fd00::3"), packet()]),
    ("ip6 dst-ip fd00::2 l4proto 253", six(proto=253), [six(), six(proto=TCP)]),
    ("ip6 src-ip fd00:1:2:3:: m ::ffff:ffff:ffff:ffff", six(src="fd00:1:2:3:4::5"), [six(src="fd00:1:2:4::1")]),
    ("tcp6 dst-port 6000", six(proto=TCP), [six(), packet(proto=TCP)]),
    ("tcp6 src-ip fd00::1 dst-ip fd00::2 src-port 5000 dst-port 6000", six(proto=TCP), [six(proto=TCP, sport=5001)]),
    ("udp6 dst-port 6000", six(), [six(proto=TCP), six(dport=6001), packet()]),
    ("udp6 src-ip fd00::1 src-port 5000", six(), [six(src="fd00::3")]),
    ("udp4 dst-port 6000 vlan 100 m 0xf000", packet(vlan=100), [packet(), packet(vlan=101)]),
    ("ip6 dst-ip fd00::2 vlan 100 m 0xf000", six(vlan=100), [six()]),
    ("ether proto 0x0800 vlan 100 m 0xf000", packet(vlan=100), [packet()]),
    ("udp4 dst-port 6000 dst-mac %s" % M1, packet(), [packet(dport=6001)]),
)
run(f"ip link add link {D1} name v100 type vlan id 100", B)
run("ip link set v100 up", B)
run(f"ip link add link {D1} name v101 type vlan id 101", B)
run("ip link set v101 up", B)

for i, (text, yes, no) in enumerate(RULES):
    with check(f"rule {text}"):
        queue = 1 + i % 3
        at = rule(f"{text} action {queue}")
        try:
            equal(by_queue([yes] * 5 + no), {queue: 5} | ({0: len(no)} if no else {}), "packets of the queues")
        finally:
            drop_rule(at)
        goes(yes, 0, "the packet without the rule", 3)

with check("rules that drop"):
    for text, yes in (("udp4 dst-port 6000", packet()), ("tcp6 src-port 5000", six(proto=TCP)), ("ether src %s" % M0, packet())):
        at = rule(f"{text} action -1")
        goes(yes, None, text)
        drop_rule(at)
        goes(yes, 0, f"{text}, deleted")

with check("locations"):
    equal(rule("udp4 dst-port 6001 action 1 loc 7"), 7, "location")
    equal(rule("udp4 dst-port 6002 action 2 loc 1000"), 1000, "location")
    equal(sorted(locations()), [7, 1000], "locations")
    goes(packet(dport=6001), 1, "rule 7")
    goes(packet(dport=6002), 2, "rule 1000")
    # One that is there is replaced.
    rule("udp4 dst-port 6003 action 3 loc 7")
    goes(packet(dport=6001), 0, "the former rule 7")
    goes(packet(dport=6003), 3, "rule 7")
    text = run(f"ethtool -n {D1} rule 7", B)
    require("Dest port: 6003 mask: 0x0" in text and "Direct to queue 3" in text and "UDP over IPv4" in text, text)
    drop_rule(7)
    drop_rule(1000)
    equal(locations(), [], "locations")
    require(attempt(f"ethtool -N {D1} delete 7", B).status != 0, "a rule that is not there was deleted")

with check("the rule that says more wins, whatever its location"):
    places = [rule(t) for t in (
        "udp4 dst-port 6000 action 1 loc 1",
        "udp4 dst-port 6000 src-port 5000 action 2 loc 2",
        "udp4 dst-port 6000 src-port 5000 src-ip 10.0.0.1 action 3 loc 3",
        "ip4 src-ip 10.0.0.1 action -1 loc 0",
    )]
    goes(packet(), 3, "four fields")
    goes(packet(src="10.0.0.3"), 2, "three fields")
    goes(packet(src="10.0.0.3", sport=5001), 1, "two fields")
    goes(packet(proto=TCP), None, "a rule of addresses")
    drop_rule(3)
    goes(packet(), 2, "three fields, without the fourth")
    for at in places[:2] + places[3:]:
        drop_rule(at)

with check("a hundred rules"):
    places = [rule(f"udp4 dst-port {7000 + i} action {i % 4}") for i in range(100)]
    equal(len(set(places)), 100, "locations")
    equal(sorted(locations()), sorted(places), "locations that are listed")
    equal(by_queue([packet(dport=7000 + i) for i in range(100)]), {q: 25 for q in range(4)}, "packets of the queues")
    for at in places[::2]:
        drop_rule(at)
    equal(by_queue([packet(dport=7000 + i) for i in range(100)]), {0: 50, 1: 25, 3: 25}, "packets after half of them went")
    for at in places[1::2]:
        drop_rule(at)

with check("rules outlast what reopens the channels"):
    at = rule("udp4 dst-port 6000 action 3")
    for command in (f"ethtool -G {D1} rx 256", f"ip link set {D1} mtu 3000", f"ethtool -L {D1} combined 4", f"ip link set {D1} mtu 1500"):
        run(command, B)
        until(lambda: carrier(D1, B) and carrier(D0, A), "carrier")
        goes(packet(), 3, f"the rule after {command}")
    run(f"ip link set {D1} down", B)
    run(f"ip link set {D1} up", B)
    until(lambda: carrier(D1, B) and carrier(D0, A), "carrier")
    run(f"ip addr add {V6 % 2}/64 dev {D1} nodad", B)  # IPv6 addresses go with the interface
    goes(packet(), 3, "the rule after down and up")
    r = attempt(f"ethtool -L {D1} combined 2", B)
    require(r.status != 0, "the queue of a rule could be taken away")
    drop_rule(at)

with check("what cannot be is refused"):
    for text in ("udp4 dst-port 6000 action 9", "udp4 tos 4 dst-port 6000 action 1", "udp4 dst-port 6000 action 1 loc 1024"):
        require(attempt(f"ethtool -N {D1} flow-type {text}", B).status != 0, f"{text} was taken")
    equal(locations(), [], "locations")

# ------------------------------------------------------------ RSS contexts

KEY = bytes(random.Random("context").randrange(256) for _ in range(40))


def context_new(more=""):
    said = run(f"ethtool -X {D1} context new {more}", B)
    return int(said.split()[-1])


def symmetric_of(context):
    """Whether a context hashes both directions of a flow alike; older ethtools know the bit by its number only."""
    text = run(f"ethtool -x {D1} context {context}", B)
    return "symmetric-or-xor: on" in text or "RSS input transformation: 0x2" in text


def rss_of(context):
    return *rss_config(D1, B, context), symmetric_of(context)


def expected_spread(flows, key, table, symmetric):
    """Packets of each queue, by the hash as it is defined."""
    found = {}
    for src, dst, sport, dport in flows:
        q = table[toeplitz(key, rss_input(src, dst, sport, dport, symmetric)) % len(table)]
        found[q] = found.get(q, 0) + 1
    return found


def spreads(context, dport, ports=True, n=120):
    """Flows that a context's rule takes go where the context's key and table say."""
    key, table, symmetric = rss_of(context)
    for make, form in ((packet, V4), (six, V6)):
        flows = [(form % 1, form % 2, 20000 + 7 * i, dport) for i in range(n)]
        frames = [make(sport=s, dport=d) for _, _, s, d in flows]
        hashed = flows if ports else [f[:2] + (None, None) for f in flows]
        equal(by_queue(frames), expected_spread(hashed, key, table, symmetric), f"packets of the queues, context {context}")


with check("a context of its own queues"):
    c = context_new("start 2 equal 2")
    equal(set(rss_of(c)[1]), {2, 3}, "queues in its table")
    four = rule(f"udp4 dst-port 6000 context {c}")
    both = rule(f"udp6 dst-port 6000 context {c}")
    text = run(f"ethtool -n {D1} rule {four}", B)
    require(f"RSS Context ID: {c}" in text or f"RSS Context {c}" in text, f"the rule does not name its context: {text}")
    spreads(c, 6000)
    goes(packet(dport=6001), 0, "a packet without the rule")

with check("its table changes"):
    run(f"ethtool -X {D1} context {c} weight 1 2 0 5", B)
    equal(set(rss_of(c)[1]), {0, 1, 3}, "queues in its table")
    spreads(c, 6000)
    run(f"ethtool -X {D1} context {c} equal 4", B)
    spreads(c, 6000)

with check("its key changes, the others' do not"):
    main = rss_config(D1, B)
    run(f"ethtool -X {D1} context {c} hkey {KEY.hex(':')}", B)
    equal(rss_of(c)[0], KEY, "its key")
    equal(rss_config(D1, B), main, "key and table of the main context")
    spreads(c, 6000)

with check("its hash without symmetry"):
    run(f"ethtool -X {D1} context {c} xfrm none", B)
    equal(symmetric_of(c), False, "symmetric")
    spreads(c, 6000)

with check("its hash fields"):
    for kind in ("udp4", "udp6"):
        run(f"ethtool -N {D1} rx-flow-hash {kind} sd context {c}", B)
    spreads(c, 6000, ports=False)
    text = run(f"ethtool -n {D1} rx-flow-hash udp4", B)
    require("L4 bytes 0 & 1" in text, f"the main context changed: {text}")
    for kind in ("udp4", "udp6"):
        run(f"ethtool -N {D1} rx-flow-hash {kind} sdfn context {c}", B)
    spreads(c, 6000)

with check("a context that a rule uses stays"):
    require(attempt(f"ethtool -X {D1} context {c} delete", B).status != 0, "it could be deleted")
    spreads(c, 6000)
    drop_rule(four)
    drop_rule(both)
    run(f"ethtool -X {D1} context {c} delete", B)
    goes(packet(), 0, "a packet after the context")
    require(attempt(f"ethtool -x {D1} context {c}", B).status != 0, "it is still there")

with check("as many contexts as the driver has"):
    contexts = []
    for i in range(7):
        n = context_new(f"hkey {bytes([i + 1] * 20 + [i + 77] * 20).hex(':')} start {i % 4} equal {1 + i % (4 - i % 4)}")
        contexts.append((n, rule(f"udp4 dst-port {8000 + i} context {n}"), rule(f"udp6 dst-port {8000 + i} context {n}"), 8000 + i))
    for n, _, _, port in contexts:
        spreads(n, port, n=20)
    for n, four, six_rule, _ in contexts:
        drop_rule(four)
        drop_rule(six_rule)
        run(f"ethtool -X {D1} context {n} delete", B)

with check("a table of no queue of its own"):
    run(f"ethtool -X {D1} default", B)
    equal(set(rss_config(D1, B)[1]), {0, 1, 2, 3}, "queues of the main table")

# ------------------------------------------------------------ accelerated RFS



with check("accelerated RFS takes flows to their readers' CPUs"):
    write("/proc/sys/net/core/rps_sock_flow_entries", "4096")
    # Sysfs shows the netdevs of the namespace that it was mounted in.
    os.makedirs("/tmp/sys-b", exist_ok=True)
    run("mount -t sysfs none /tmp/sys-b", B)
    for q in range(4):
        write(f"/tmp/sys-b/class/net/{D1}/queues/rx-{q}/rps_flow_cnt", "1024")
    before = Delta(D1, B)
    for kind, form in ((socket.SOCK_DGRAM, V4), (socket.SOCK_DGRAM, V6), (socket.SOCK_STREAM, V4), (socket.SOCK_STREAM, V6)):
        for cpu in range(4):
            port = 21000 + cpu + 10 * (kind == socket.SOCK_STREAM) + 20 * (form is V6)
            d = new_socket(kind, form % 2, B)
            d.bind((form % 2, port))
            s = new_socket(kind, form % 2, A)
            s.bind((form % 1, port + 1000))
            os.sched_setaffinity(0, {cpu})
            if kind == socket.SOCK_STREAM:
                d.listen(1)
                s.connect((form % 2, port))
                reader, _ = d.accept()
            else:
                # The kernel keeps the CPU of connected readers only.
                s.connect((form % 2, port))
                d.connect((form % 1, port + 1000))
                reader = d

            def exchange(n):
                for _ in range(n):
                    s.send(bytes(500))
                    reader.recv(500)

            exchange(5)
            # The rule is made by a work item; then every packet has to come to the CPU's queue.
            def steered():
                at = Delta(D1, B)
                exchange(20)
                c = at.take()
                return c[f"rx{cpu}_packets"] >= 20 and sum(c[f"rx{q}_packets"] for q in range(4) if q != cpu) <= 2

            until(steered, f"packets of port {port} in queue {cpu}", 5)
            for x in {s, d, reader}:
                x.close()
    os.sched_setaffinity(0, range(4))
    c = before.take()
    # By the key of RSS, another one at each boot, many or few of them come to the right queue
    # without a rule: its hash of ports that follow each other goes through the queues in turn.
    require(c["rx_arfs_add"] >= 1, f"rules added: {c['rx_arfs_add']}")
    equal(c["rx_arfs_err"], 0, "rules that failed")
    say({k: v for k, v in c.items() if k.startswith("rx_arfs")})

with check("a reader that moves takes its flow with it"):
    d = new_socket(socket.SOCK_DGRAM, V4 % 2, B)
    d.bind((V4 % 2, 21500))
    s = new_socket(socket.SOCK_DGRAM, V4 % 2, A)
    s.bind((V4 % 1, 22500))
    s.connect((V4 % 2, 21500))
    d.connect((V4 % 1, 22500))
    before = Delta(D1, B)
    # Back to a CPU that had it a moment ago the kernel does not take it.
    for cpu in range(4):
        os.sched_setaffinity(0, {cpu})

        def moved():
            at = Delta(D1, B)
            for _ in range(20):
                s.send(b"x")
                d.recv(10)
            c = at.take()
            say(f"cpu {cpu}: {[c[f'rx{q}_packets'] for q in range(4)]} {[c[f'rx_arfs_{n}'] for n in ('add', 'request_in', 'request_out', 'expired', 'err')]}")
            return c[f"rx{cpu}_packets"] >= 20

        until(moved, f"the flow in queue {cpu}", 5)
    os.sched_setaffinity(0, range(4))
    c = before.take()
    equal(c["rx_arfs_request_in"], c["rx_arfs_request_out"], "moves in and out")
    require(c["rx_arfs_request_in"] + c["rx_arfs_add"] >= 3, f"moves: {c['rx_arfs_request_in']}, rules {c['rx_arfs_add']}")

with check("ntuple off takes them away"):
    write("/proc/sys/net/core/rps_sock_flow_entries", "0")
    at = rule("udp4 dst-port 6000 action -1")
    run(f"ethtool -K {D1} ntuple off", B)
    tcp(V4 % 2, 1 << 20, A, B)
    tcp(V6 % 1, 1 << 20, B, A)
    run(f"ethtool -K {D1} ntuple on", B)
    goes(packet(), None, "a rule after off and on")
    drop_rule(at)

finish()
