"""tc flower on a netdev that is no representor: rules of the function's own receive side."""

from flower_lab import *

SO_RCVMARK = 75
N = 3
add_ns("x")
add_ns("y")
quieten()
devs = [netdev_of(p) for p in PF]
for d, ns in zip(devs, "xy"):
    run(f"ip link set {d} netns {ns}")
    set_up(d, ns=ns)
SENDER, DEV = devs
for d, ns in zip(devs, "xy"):
    until(lambda: carrier(d, ns), f"the carrier of {d}")
run(f"ethtool -K {DEV} hw-tc-offload on", "y")
run(f"tc qdisc add dev {DEV} clsact", "y")
ear = Ear(DEV, "y")
with inside("x"):
    mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
mouth.bind((SENDER, 0))


# The driver leads frames of its rules past what makes a netdev promiscuous.
OWN = mac_of(DEV, "y")


def numbered(**kind):
    return [frame(**{"dst": OWN, **kind}, number=n) for n in range(N)]


def arrives(sent, expected):
    ear.take()
    for f in sent:
        mouth.send(f)
    same(ear.take(len(expected)), expected, DEV)


def rule(match, action, protocol="ip", prio=1, chain=0):
    return Rule(DEV, match, action, protocol, prio=prio, chain=chain, ns="y")


with check("drop"):
    r = rule("ip_proto udp dst_port 2000", "action drop")
    r.require_in_hw()
    drop, keep = numbered(), numbered(dport=7)
    arrives(drop + keep, keep)
    r.counted(drop)
clear(DEV, ns="y")

with check("pedit"):
    r = rule("ip_proto udp", "action pedit ex munge eth src set 02:aa:bb:cc:dd:ee munge ip ttl set 9 munge udp dport set 5 pipe action csum ip and udp pipe action ok")
    r.require_in_hw()
    sent = numbered()
    arrives(sent, numbered(src="02:aa:bb:cc:dd:ee", ttl=9, dport=5))
    r.counted(sent)
clear(DEV, ns="y")

with check("skbedit mark"):
    if KERNEL < (5, 19):
        skip("marks of received frames cannot be asked for")
    r = rule("ip_proto udp", "action skbedit mark 0x123")
    r.require_in_hw()
    ear.socket.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
    ear.take()
    sent = numbered()
    for f in sent + numbered(proto=TCP):
        mouth.send(f)
    heard = {}

    def hear():
        with contextlib.suppress(BlockingIOError):
            while True:
                data, more, _, _ = ear.socket.recvmsg(1 << 16, 256)
                if MARK in data:
                    marks = [struct.unpack("=I", v)[0] for level, kind, v in more if (level, kind) == (socket.SOL_SOCKET, 36)]
                    heard.setdefault(data[23], []).append(marks)
        return sum(map(len, heard.values())) >= 2 * N

    until(hear, "the frames", 20)
    equal(heard, {UDP: [[0x123]] * N, TCP: [[0]] * N}, "marks by protocol")
    r.counted(sent)
clear(DEV, ns="y")

with check("chains"):
    gate = rule(f"dst_mac {OWN}", "action goto chain 3")
    end = rule("ip_proto udp dst_port 2000", "action drop", chain=3)
    drop, keep = numbered(), numbered(dport=7)
    arrives(drop + keep, keep)
    gate.counted(drop + keep)
    end.counted(drop)
for chain in (3, 0):
    run(f"tc filter del dev {DEV} ingress chain {chain}", "y")

with check("tags"):
    r = rule("vlan_id 5 vlan_ethtype ip", "action drop", "802.1q")
    drop, keep = numbered(tags=[tag(5)]), numbered(tags=[tag(6)])
    arrives(drop + keep + numbered(), keep + numbered())
    r.counted(drop)
clear(DEV, ns="y")

with check("what a card without hairpins does not forward"):
    refused(DEV, "", f"action mirred egress redirect dev {DEV}", "ip", ns="y")

finish()
