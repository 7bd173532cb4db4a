"""Tunnels in hardware: tc rules put SFs' frames into VXLAN, Geneve and GRE and take them out,
over IPv4 and IPv6; the far end of the cable is the kernel's own tunnel in another namespace."""

from offload import *

INNER = ("10.1.0.1", "10.1.0.100")
# Addresses of nobody: who gets a frame for them says nothing.
NOBODY = ("10.1.0.77", "10.1.0.78")
UNDERLAY = {4: ("172.16.0.1", "172.16.0.2"), 6: ("fd00::1", "fd00::2")}
MTU = 1400

net = Switch(2, mtu=MTU)
SF, OTHER = net.sfs
REP = SF.rep
SFMAC = mac_of(SF.dev, SF.ns)
for n, (here, there) in enumerate(UNDERLAY.values()):
    bits = 64 if n else 24
    set_up(net.uplink, f"{here}/{bits}")
    set_up(net.far, f"{there}/{bits}", ns=PEER)
    neighbour(net.uplink, there, mac_of(net.far, PEER))
    neighbour(net.far, here, mac_of(net.uplink), PEER)
run(f"ip addr add {INNER[0]}/24 dev {SF.dev}", SF.ns)


class Kind:
    """A kind of tunnel: its netdevs at both ends, and what its header looks like."""

    def __init__(self, name, here, there, key, port, protocol, header):
        self.name, self.here, self.there = name, here, there
        self.key, self.port, self.protocol, self.header = key, port, protocol, header

    def tunnel(self, more=""):
        return f"id {self.key} " + (f"dst_port {self.port} " if self.port else "") + more


def vxlan_header(key):
    return struct.pack(">II", 0x08 << 24, key << 8)


def geneve_header(key, options=b""):
    return struct.pack(">BBHI", len(options) // 4, 0, 0x6558, key << 8) + options


def gre_header(key):
    return struct.pack(">HHI", 0x2000, 0x6558, key)


KINDS = [
    Kind("vxlan", "type vxlan dstport 4789 external {zero}", "type vxlan id 42 dstport 4789 {ends} {zero}", 42, 4789, 17, vxlan_header(42)),
    Kind("vxlan8472", "type vxlan dstport 8472 external {zero}", "type vxlan id 43 dstport 8472 {ends} {zero}", 43, 8472, 17, vxlan_header(43)),
    Kind("geneve", "type geneve dstport 6081 external {zero}", "type geneve id 44 remote {remote} dstport 6081 {zero}", 44, 6081, 17, geneve_header(44)),
    Kind("gre", "type {gre} external", "type {gre} key 45 {ends}", 45, None, 47, gre_header(45)),
]


class Tunnel:
    """A tunnel between the eswitch and the far end, with a rule for each direction."""

    def __init__(self, kind, version):
        self.kind, self.version = kind, version
        self.local, self.remote = UNDERLAY[version]
        six = version == 6
        words = {
            "zero": "udp6zerocsumtx udp6zerocsumrx" if six else "",
            "gre": "ip6gretap" if six else "gretap",
            "ends": f"local {self.remote} remote {self.local}",
            "remote": self.local,
        }
        # Hardware sends and takes no checksum of the outer UDP.
        self.dev, self.end = "tun", "tun"
        run(f"ip link add {self.dev} {kind.here.format(**words)}")
        run(f"ip link set {self.dev} up mtu {MTU}")
        run(f"ip link add {self.end} {kind.there.format(**words)}", PEER)
        set_up(self.end, f"{INNER[1]}/24", ns=PEER, mtu=MTU)
        run(f"tc qdisc add dev {self.dev} ingress")
        self.endmac = mac_of(self.end, PEER)
        neighbour(SF.dev, INNER[1], self.endmac, SF.ns)
        neighbour(self.end, INNER[0], SFMAC, PEER)

    def encap(self, more="", match=None, before="", pref=None):
        match = match or f"dst_mac {self.endmac} src_mac {SFMAC}"
        set_key = f"action tunnel_key set src_ip {self.local} dst_ip {self.remote} {self.kind.tunnel(more)} nocsum"
        return Rule(REP, match, f"{before} {set_key} action mirred egress redirect dev {self.dev}", pref=pref)

    def decap(self, more="", actions=None, protocol="ip"):
        match = f"enc_src_ip {self.remote} enc_dst_ip {self.local} enc_key_id {self.kind.key}"
        if self.kind.port:
            match += f" enc_dst_port {self.kind.port}"
        return Rule(self.dev, f"{match} {more}", actions or f"action tunnel_key unset action mirred egress redirect dev {REP}", protocol=protocol)

    def outer(self, inner, dmac, smac, sport=0, header=None, back=False):
        """The whole frame as it has to be on the cable."""
        body = (header or self.kind.header) + inner
        if self.kind.protocol == 17:
            body = struct.pack(">HHHH", sport, self.kind.port, 8 + len(body), 0) + body
        src, dst = (self.remote, self.local) if back else (self.local, self.remote)
        return raw_frame(dmac, smac, 0x86DD if self.version == 6 else 0x0800, ip_header(src, dst, self.kind.protocol, len(body)) + body)

    def sport(self, frame):
        at = 54 if self.version == 6 else 34
        return struct.unpack_from(">H", frame, at)[0] if self.kind.protocol == 17 else 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.delete()

    def delete(self):
        flush(REP)
        run(f"ip link del {self.dev}")
        run(f"ip link del {self.end}", PEER)


def inner_frames(tunnel, back=False, sizes=(0, 1, 18, 400, MTU - 28)):
    """UDP frames of several sizes with right checksums."""
    dmac, smac = (SFMAC, tunnel.endmac) if back else (tunnel.endmac, SFMAC)
    return [udp_frame(dmac, smac, *NOBODY, 7000, 7001, os.urandom(n)) for n in sizes]


def out_exactly(t, rule, header=None, dmac=None):
    """Frames of the SF are on the cable as they have to be, and counted."""
    frames = inner_frames(t)
    padded = [f.ljust(60, b"\0") for f in frames]
    watch = Capture(net.far, f"ether src {mac_of(net.uplink)}", PEER, snap=2000)
    with net.in_hardware(), rule.counts(len(frames), sum(map(len, padded))):
        send_raw(SF.dev, frames, SF.ns)
    got = [f for _, f in watch.frames(len(frames))]
    ports = {t.sport(f) for f in got}
    equal(len(ports), 1, "UDP source ports of one flow")
    require(t.kind.protocol != 17 or min(ports) >= 0xC000, f"UDP source port {ports}")
    want = [t.outer(f, dmac or mac_of(net.far, PEER), mac_of(net.uplink), min(ports), header) for f in padded]
    equal([f.hex() for f in got], [f.hex() for f in want], "frames on the cable")


def in_exactly(t, rule, header=None):
    """Frames of the far end reach the SF as they were before the tunnel, and are counted."""
    frames = inner_frames(t, back=True)
    outer = [t.outer(f, mac_of(net.uplink), mac_of(net.far, PEER), 50000, header, back=True) for f in frames]
    watch = Capture(SF.dev, f"ether src {t.endmac}", SF.ns, snap=2000, direction="in")
    with net.in_hardware(), rule.counts(len(frames), sum(max(60, len(f)) for f in outer)):
        send_raw(net.far, outer, PEER)
    # What is left of the padding of a short frame on the cable is its own business.
    got = [f for _, f in watch.frames(len(frames))]
    equal([g[: len(f)].hex() for g, f in zip(got, frames)], [f.hex() for f in frames], "frames behind the tunnel")
    equal(len(got), len(frames), "frames behind the tunnel")


for kind in KINDS:
    for version in (4, 6):
        name = f"{kind.name} over IPv{version}"
        t = None
        with check(f"{name}: rules in hardware"):
            t = Tunnel(kind, version)
            out, back = t.encap().offloaded(), t.decap().offloaded()
        if t is None:
            continue
        with check(f"{name}: out"):
            out_exactly(t, out)
        with check(f"{name}: in"):
            in_exactly(t, back)
        with check(f"{name}: TCP both ways"):
            before = net.software(), out.counted()[0], back.counted()[0]
            tcp(INNER[1], 4 << 20, SF.ns, PEER)
            tcp(INNER[0], 4 << 20, PEER, SF.ns)
            ping(INNER[1], 1000, ns=SF.ns)
            grown = {d: n - before[0][d] for d, n in net.software().items()}
            require(all(n < 10 for n in grown.values()), f"frames that software saw: {grown}")
            until(lambda: out.counted()[0] - before[1] > 3000 and back.counted()[0] - before[2] > 3000, "counters of 8 MiB of TCP")
        with check(f"{name}: rules go"):
            t.delete()


# ---------------------------------------------------------------- what else a rule can be


def vxlan():
    return Tunnel(KINDS[0], 4)


with check("the tunnel's own TTL and TOS"), vxlan() as t:
    rule = t.encap("tos 0x28 ttl 9").offloaded()
    watch = Capture(net.far, f"ether src {mac_of(net.uplink)}", PEER, snap=2000)
    with net.in_hardware(), rule.counts(1):
        send_raw(SF.dev, inner_frames(t, sizes=(40,)), SF.ns)
    [(_, got)] = watch.frames(1)
    equal((got[15], got[22], checksum(got[14:34])), (0x28, 9, 0), "TOS, TTL and checksum")

with check("decap by inner headers"), vxlan() as t:
    # One UDP port goes to the SF, the other one to a second SF, the rest to nobody.
    to = lambda rep: f"action tunnel_key unset action mirred egress redirect dev {rep}"
    one = t.decap(f"dst_mac {SFMAC} src_mac {t.endmac} dst_ip {NOBODY[1]}/32 ip_proto udp dst_port 7001").offloaded()
    two = t.decap("ip_proto udp dst_port 7002", to(OTHER.rep)).offloaded()
    none = t.decap("ip_proto udp", "action drop").offloaded()
    frames = [udp_frame(SFMAC, t.endmac, *NOBODY, 7000, 7001 + n % 3, bytes([n]) * 30) for n in range(9)]
    outer = [t.outer(f, mac_of(net.uplink), mac_of(net.far, PEER), 50000, back=True) for f in frames]
    first = Capture(SF.dev, f"ether src {t.endmac}", SF.ns, direction="in")
    second = Capture(OTHER.dev, f"ether src {t.endmac}", OTHER.ns, direction="in")
    with net.in_hardware(), one.counts(3), two.counts(3), none.counts(3):
        send_raw(net.far, outer, PEER)
    equal([f for _, f in first.frames(3)], frames[0::3], "frames of the first SF")
    equal([f for _, f in second.frames(3)], frames[1::3], "frames of the second SF")

with check("header rewriting before encap and after decap"), vxlan() as t:
    edit = "action pedit ex munge ip dst set 10.9.9.9 munge ip ttl set 5 munge udp dport set 99 pipe action csum ip udp pipe"
    rule = t.encap(match=f"dst_mac {t.endmac} ip_proto udp", before=edit).offloaded()
    frame = udp_frame(t.endmac, SFMAC, *NOBODY, 7000, 7001, b"x" * 100)
    want = udp_frame(t.endmac, SFMAC, NOBODY[0], "10.9.9.9", 7000, 99, b"x" * 100, ttl=5)
    watch = Capture(net.far, f"ether src {mac_of(net.uplink)}", PEER, snap=2000)
    with net.in_hardware(), rule.counts(1):
        send_raw(SF.dev, [frame], SF.ns)
    [(_, got)] = watch.frames(1)
    equal(got, t.outer(want, mac_of(net.far, PEER), mac_of(net.uplink), t.sport(got)), "the frame on the cable")
    new = "00:00:00:00:77:77"
    edit = f"action pedit ex munge eth dst set {new} munge ip src set 10.8.8.8 pipe action csum ip udp pipe"
    rule = t.decap("ip_proto udp", f"action tunnel_key unset pipe {edit} action mirred egress redirect dev {REP}").offloaded()
    frame = udp_frame(SFMAC, t.endmac, *NOBODY, 7000, 7001, b"y" * 100)
    want = udp_frame(new, t.endmac, "10.8.8.8", NOBODY[1], 7000, 7001, b"y" * 100)
    watch = Capture(SF.dev, f"ether src {t.endmac}", SF.ns, direction="in", snap=2000)
    with net.in_hardware(), rule.counts(1):
        send_raw(net.far, [t.outer(frame, mac_of(net.uplink), mac_of(net.far, PEER), 50000, back=True)], PEER)
    equal([f for _, f in watch.frames(1)], [want], "the frame behind the tunnel")

with check("a mirror beside the tunnel, and two tunnels from one rule"), vxlan() as t:
    frame = udp_frame(t.endmac, SFMAC, *NOBODY, 7000, 7001, b"z" * 50)
    key = lambda n: f"action tunnel_key set src_ip {t.local} dst_ip {t.remote} id {n} dst_port 4789 nocsum"
    rule = Rule(REP, "ip_proto udp", f"action mirred egress mirror dev {OTHER.rep} pipe {key(1)} pipe action mirred egress mirror dev tun pipe {key(2)} pipe action mirred egress redirect dev tun").offloaded()
    there, other = Capture(net.far, f"ether src {mac_of(net.uplink)}", PEER, snap=2000), Capture(OTHER.dev, f"ether src {SFMAC}", OTHER.ns, direction="in")
    with net.in_hardware():
        send_raw(SF.dev, [frame], SF.ns)
        time.sleep(1)
    equal([f for _, f in other.frames(1)], [frame], "the mirror")
    got = [f for _, f in there.frames(2)]
    want = [t.outer(frame, mac_of(net.far, PEER), mac_of(net.uplink), t.sport(g), vxlan_header(n)) for g, n in zip(got, (1, 2))]
    equal(sorted(f.hex() for f in got), sorted(f.hex() for f in want), "frames of two tunnels")

with check("out of the tunnel into a chain"), vxlan() as t:
    first = Rule(t.dev, f"enc_src_ip {t.remote} enc_dst_ip {t.local} enc_key_id 42 enc_dst_port 4789", "action goto chain 3").offloaded()
    second = Rule(t.dev, f"enc_src_ip {t.remote} enc_dst_ip {t.local} enc_key_id 42 enc_dst_port 4789 ip_proto udp dst_port 7001", f"action tunnel_key unset pipe action mirred egress redirect dev {REP}", chain=3).offloaded()
    frames = inner_frames(t, back=True)
    watch = Capture(SF.dev, f"ether src {t.endmac}", SF.ns, direction="in", snap=2000)
    with net.in_hardware(), second.counts(len(frames)):
        send_raw(net.far, [t.outer(f, mac_of(net.uplink), mac_of(net.far, PEER), 50000, back=True) for f in frames], PEER)
    equal([f[: len(w)] for (_, f), w in zip(watch.frames(len(frames)), frames)], frames, "frames behind the tunnel")
    # What no rule of the chain is for goes on in software, with the tunnel's key: a filter of
    # software finds it there.
    soft = Rule(t.dev, "enc_key_id 42 ip_proto icmp skip_hw", "action drop", chain=3)
    ping(INNER[0], count=2, ns=PEER, more="-i 0.2 -W 1", lost_ok=True)
    stats = soft.show()["actions"][0]["stats"]
    equal(stats["packets"], 2, "packets that software finished")

with check("neighbours: a rule waits for one, and follows it"), vxlan() as t:
    run(f"ip neigh del {UNDERLAY[4][1]} dev {net.uplink}")
    run(f"ip addr add 172.16.0.3/24 dev {net.far}", PEER)
    t.remote = "172.16.0.3"
    rule = t.encap()
    t.remote = UNDERLAY[4][1]
    watch = Capture(net.far, "udp port 4789", PEER, snap=2000)
    frame = udp_frame(t.endmac, SFMAC, *NOBODY, 7000, 7001, b"n" * 50)

    def arrives():
        send_raw(SF.dev, [frame], SF.ns)
        time.sleep(0.2)
        return json.loads(run(f"ip -j neigh show 172.16.0.3 dev {net.uplink}"))[0].get("lladdr")

    # Until the neighbour answers, software sends, which asks for it.
    until(arrives, "the neighbour")
    until(lambda: (send_raw(SF.dev, [frame], SF.ns), rule.counted()[0])[1], "the rule in hardware")
    rule.offloaded()
    require(watch.frames(1), "nothing came")
    before, after = mac_of(net.far, PEER), "52:54:00:5f:99:99"
    run(f"ip link set {net.far} address {after}", PEER)
    run(f"ip neigh replace 172.16.0.3 lladdr {after} dev {net.uplink} nud reachable")
    time.sleep(1)
    watch = Capture(net.far, f"ether src {mac_of(net.uplink)} and udp port 4789", PEER, snap=2000)
    with rule.counts(3):
        send_raw(SF.dev, [frame] * 3, SF.ns)
    equal({f[:6] for _, f in watch.frames(3)}, {mac_bytes(after)}, "where frames are sent to")
    run(f"ip link set {net.far} address {before}", PEER)
    run(f"ip neigh replace 172.16.0.3 lladdr {before} dev {net.uplink} nud reachable")
    run(f"ip addr del 172.16.0.3/24 dev {net.far}", PEER)
    neighbour(net.uplink, UNDERLAY[4][1], before)

with check("Geneve with an option"), Tunnel(KINDS[2], 4) as t:
    option = struct.pack(">HBB", 0x0102, 0x80, 1) + bytes.fromhex("1234abcd")
    rule = t.encap("geneve_opts 0102:80:1234abcd").offloaded()
    out_exactly(t, rule, geneve_header(44, option))
    right = t.decap("geneve_opts 0102:80:1234abcd").offloaded()
    other = t.decap("geneve_opts 0102:80:1234abce", "action drop").offloaded()
    in_exactly(t, right, geneve_header(44, option))
    wrong = struct.pack(">HBB", 0x0102, 0x80, 1) + bytes.fromhex("1234abce")
    frames = inner_frames(t, back=True)
    with net.in_hardware(), right.counts(0), other.counts(len(frames)):
        send_raw(net.far, [t.outer(f, mac_of(net.uplink), mac_of(net.far, PEER), 50000, geneve_header(44, wrong), back=True) for f in frames], PEER)

with check("what a card does not offload is refused"), Tunnel(KINDS[2], 4) as t:
    def refused(dev, match):
        # The driver says why; the suite lists it.
        rule = Rule(dev, match, out)
        require(rule.show().get("not_in_hw"), f"in hardware: {match}")
        rule.delete()

    out = f"action tunnel_key unset action mirred egress redirect dev {REP}"
    ends = f"enc_src_ip {t.remote} enc_dst_ip {t.local} enc_dst_port 6081 enc_key_id 44"
    # An option with two words of data, one of zeros, and a second kind of option.
    refused(t.dev, f"{ends} geneve_opts 0102:80:1234abcd12345678")
    refused(t.dev, f"{ends} geneve_opts 0102:80:00000000")
    first = t.decap("geneve_opts 0102:80:1234abcd").offloaded()
    refused(t.dev, f"{ends} geneve_opts 0102:81:1234abcd")
    first.delete()
    # There is room for three ports of VXLAN beside IANA's.
    for port in range(5001, 5005):
        run(f"ip link add vx{port} type vxlan dstport {port} external")
        run(f"ip link set vx{port} up")
        run(f"tc qdisc add dev vx{port} ingress")
    try:
        match = f"enc_src_ip {t.remote} enc_dst_ip {t.local} enc_key_id 1 enc_dst_port"
        for port in range(5001, 5004):
            Rule(f"vx{port}", f"{match} {port}", out).offloaded()
        refused("vx5004", f"{match} 5004")
        # Once one of them goes there is.
        run("ip link del vx5002")
        run("ip link set vx5004 down")
        run("ip link set vx5004 up")
        Rule("vx5004", f"{match} 5004", out).offloaded()
    finally:
        for port in range(5001, 5005):
            attempt(f"ip link del vx{port}")

finish()
