"""tc flower: what a rule does. Each action's frames come out as they should be, byte for byte
with right checksums, are counted by the hardware, and the representor hears nothing."""

from flower_lab import *

x, y, wire = two_sfs()
ENDS = (x, y, wire)
N = 3
T, V6 = dict(proto=TCP), dict(v=6)
S = ETH_P_8021AD


def numbered(*kinds, n=N):
    return [frame(**k, number=i * n + j) for i, k in enumerate(kinds) for j in range(n)]


def to(*ends):
    """Copies to all of these, the last one by redirection."""
    mirror = "".join(f"action mirred egress mirror dev {e.rep} pipe " for e in ends[:-1])
    return mirror + f"action mirred egress redirect dev {ends[-1].rep}"


def acts(name, match, action, sent, expected, slow=(), protocol="ip", sender=x, says=None):
    """Frames under a rule. `expected`: for each end the kinds of frames that it hears."""
    with check(name):
        rule = Rule(sender.rep, match, action, protocol)
        try:
            rule.require_in_hw()
            frames = numbered(*sent)
            switched(ENDS, sender, frames, {e: numbered(*k) for e, k in expected.items()}, numbered(*slow))
            rule.counted(frames)
            silence(ENDS)
        finally:
            clear(sender.rep)


# ------------------------------------------------------------ where to

acts("drop", "", "action drop", [{}, T], {})
acts("trap", "", "action trap", [{}, T], {}, slow=[{}, T])
acts("redirect", "", to(y), [{}, T], {y: [{}, T]})
acts("redirect to the wire", "", to(wire), [{}, T], {wire: [{}, T]})
acts("redirect from the wire", "", to(x), [{}, T], {x: [{}, T]}, sender=wire)
acts("back where it came from, the wire", "", to(wire), [{}], {wire: [{}]}, sender=wire)
acts("mirror to an SF and the wire", "", to(y, wire), [{}, T], {y: [{}, T], wire: [{}, T]})
acts("mirror to two SFs from the wire", "", to(x, y), [{}, T], {x: [{}, T], y: [{}, T]}, sender=wire)
GROUP, ALL = dict(dst="01:00:5e:00:00:05", daddr="224.0.0.5"), dict(dst="ff:ff:ff:ff:ff:ff", daddr="255.255.255.255")
acts("a group is replicated", "dst_mac 01:00:5e:00:00:05", to(y, wire), [GROUP], {y: [GROUP], wire: [GROUP]})
acts("a broadcast from the wire is replicated", "dst_mac ff:ff:ff:ff:ff:ff", to(x, y), [ALL], {x: [ALL], y: [ALL]}, sender=wire)
acts("large frames", "", to(y), [dict(size=1400), dict(size=1400, **T)], {y: [dict(size=1400), dict(size=1400, **T)]})

# ------------------------------------------------------------ VLANs

push = lambda vid, prio=0, p="802.1q": f"action vlan push id {vid} priority {prio} protocol {p} pipe "
acts("VLAN push", "", push(5, 3) + to(y), [{}, T], {y: [dict(tags=[tag(5, 3)]), dict(tags=[tag(5, 3)], **T)]})
acts("VLAN push on the way to the wire", "", push(5) + to(wire), [{}], {wire: [dict(tags=[tag(5)])]})
acts("VLAN push from the wire", "", push(5) + to(y), [{}], {y: [dict(tags=[tag(5)])]}, sender=wire)
acts("VLAN push of a service tag", "", push(5, p="802.1ad") + to(wire), [{}], {wire: [dict(tags=[tag(5, tpid=S)])]})
acts("VLAN push on a tagged frame", "vlan_id 7", push(5, p="802.1ad") + to(y), [dict(tags=[tag(7)])], {y: [dict(tags=[tag(5, tpid=S), tag(7)])]}, protocol="802.1q")
acts("two VLAN pushes", "", push(7) + push(5, p="802.1ad") + to(wire), [{}], {wire: [dict(tags=[tag(5, tpid=S), tag(7)])]})
acts("two VLAN pushes from the wire", "", push(7) + push(5, 6) + to(x), [{}], {x: [dict(tags=[tag(5, 6), tag(7)])]}, sender=wire)
acts("VLAN pop", "vlan_id 5", "action vlan pop pipe " + to(y), [dict(tags=[tag(5, 2)])], {y: [{}]}, protocol="802.1q")
acts("VLAN pop from the wire", "vlan_id 5", "action vlan pop pipe " + to(y), [dict(tags=[tag(5)], **T)], {y: [T]}, protocol="802.1q", sender=wire)
QQ = dict(tags=[tag(5, tpid=S), tag(7)])
acts("VLAN pop of the outer tag", "vlan_id 5", "action vlan pop pipe " + to(wire), [QQ], {wire: [dict(tags=[tag(7)])]}, protocol="802.1ad")
acts("two VLAN pops", "vlan_id 5 vlan_ethtype 802.1q cvlan_id 7", "action vlan pop pipe action vlan pop pipe " + to(y), [QQ], {y: [{}]}, protocol="802.1ad")
acts("VLAN modify", "vlan_id 5", "action vlan modify id 9 protocol 802.1q pipe " + to(y), [dict(tags=[tag(5)])], {y: [dict(tags=[tag(9)])]}, protocol="802.1q")
acts("VLAN modify keeps the priority", "vlan_id 5 vlan_prio 3", "action vlan modify id 9 protocol 802.1q priority 3 pipe " + to(wire),
     [dict(tags=[tag(5, 3)])], {wire: [dict(tags=[tag(9, 3)])]}, protocol="802.1q")

# ------------------------------------------------------------ pedit

edit = lambda *what: "action pedit ex " + " ".join(f"munge {w}" for w in what) + " pipe "
sums = lambda what: f"action csum {what} pipe "


def edits(name, match, what, before, after, protocol="ip", check=None, sender=x, end=y):
    acts(f"pedit {name}", match, edit(*what) + (sums(check) if check else "") + to(end), before, {end: after}, protocol=protocol, sender=sender)


edits("eth dst", "", ["eth dst set 02:aa:bb:cc:dd:ee"], [{}, T], [dict(dst="02:aa:bb:cc:dd:ee"), dict(dst="02:aa:bb:cc:dd:ee", **T)])
edits("eth src", "", ["eth src set 02:aa:bb:cc:dd:ee"], [V6], [dict(src="02:aa:bb:cc:dd:ee", **V6)], protocol="ipv6")
edits("eth type", "", ["eth type set 0x88b6"], [dict(v=None, ethertype=0x88B5)], [dict(v=None, ethertype=0x88B6)], protocol="0x88b5")
UDP4, TCP4 = "ip_proto udp", "ip_proto tcp"
edits("ip src", UDP4, ["ip src set 192.0.2.1"], [{}], [dict(saddr="192.0.2.1")], check="ip and udp")
edits("ip dst", TCP4, ["ip dst set 192.0.2.1"], [T], [dict(daddr="192.0.2.1", **T)], check="ip and tcp")
edits("ip ttl set", UDP4, ["ip ttl set 7"], [{}], [dict(ttl=7)], check="ip")
edits("ip ttl dec", UDP4, ["ip ttl dec"], [{}, dict(ttl=2)], [dict(ttl=63), dict(ttl=1)], check="ip")
edits("ip dscp", UDP4, ["ip dsfield set 0xb8 retain 0xfc"], [dict(tos=1), dict(tos=0xFE)], [dict(tos=0xB9), dict(tos=0xBA)], check="ip")
edits("ip6 src", UDP4, ["ip6 src set fd0a:1:2:3:4:5:6:7"], [V6], [dict(saddr="fd0a:1:2:3:4:5:6:7", **V6)], protocol="ipv6", check="udp")
edits("ip6 dst", TCP4, ["ip6 dst set fd0a::7"], [dict(v=6, proto=TCP)], [dict(v=6, proto=TCP, daddr="fd0a::7")], protocol="ipv6", check="tcp")
edits("ip6 hoplimit set", UDP4, ["ip6 hoplimit set 9"], [V6], [dict(ttl=9, **V6)], protocol="ipv6")
edits("ip6 hoplimit dec", UDP4, ["ip6 hoplimit dec"], [V6], [dict(ttl=63, **V6)], protocol="ipv6")
edits("udp ports", UDP4, ["udp sport set 77", "udp dport set 78"], [{}], [dict(sport=77, dport=78)], check="udp")
edits("udp ports over IPv6", UDP4, ["udp sport set 77", "udp dport set 78"], [V6], [dict(sport=77, dport=78, **V6)], protocol="ipv6")
edits("tcp ports", TCP4, ["tcp sport set 77", "tcp dport set 78"], [T], [dict(sport=77, dport=78, **T)], check="tcp")
edits("tcp flags", TCP4, ["tcp flags set 0x11"], [T], [dict(flags=0x11, **T)])
edits("a router's hop", "ip_proto tcp dst_ip 10.2.0.2", ["eth dst set 02:aa:bb:cc:dd:ee", "eth src set 02:aa:bb:cc:dd:01", "ip ttl dec"],
      [T], [dict(dst="02:aa:bb:cc:dd:ee", src="02:aa:bb:cc:dd:01", ttl=63, **T)], check="ip", end=wire)
edits("address and port at once", UDP4, ["ip src set 192.0.2.1", "ip dst set 192.0.2.2", "udp sport set 5", "udp dport set 6"],
      [dict(size=40), dict(size=701)], [dict(saddr="192.0.2.1", daddr="192.0.2.2", sport=5, dport=6, size=s) for s in (40, 701)], check="ip and udp", sender=wire, end=x)

# ------------------------------------------------------------ together

acts("each copy by itself: as it was, then tagged and rewritten", UDP4,
     f"action mirred egress mirror dev {y.rep} pipe " + edit("eth dst set 02:aa:bb:cc:dd:ee") + push(5) + to(wire),
     [{}], {y: [{}], wire: [dict(dst="02:aa:bb:cc:dd:ee", tags=[tag(5)])]})
acts("rewritten, then copied", UDP4, edit("eth dst set 02:aa:bb:cc:dd:ee") + to(x, y), [{}],
     {e: [dict(dst="02:aa:bb:cc:dd:ee")] for e in (x, y)}, sender=wire)
acts("pop, rewrite, push", "vlan_id 5 vlan_ethtype ip ip_proto udp", "action vlan pop pipe " + edit("ip dst set 192.0.2.1") + sums("ip and udp") + to(y),
     [dict(tags=[tag(5)])], {y: [dict(daddr="192.0.2.1")]}, protocol="802.1q")

with check("edits in one chain are matched in the next"):
    first = Rule(x.rep, UDP4, edit("eth dst set 02:aa:bb:cc:dd:ee", "udp dport set 7") + "action goto chain 2", "ip")
    second = Rule(x.rep, "dst_mac 02:aa:bb:cc:dd:ee ip_proto udp dst_port 7", push(9) + to(wire), "ip", chain=2)
    sent, out = numbered({}), numbered(dict(dst="02:aa:bb:cc:dd:ee", dport=7, tags=[tag(9)]))
    switched(ENDS, x, sent, {wire: out}, [])
    first.counted(sent)
    second.counted(numbered(dict(dst="02:aa:bb:cc:dd:ee", dport=7)))
for chain in (2, 0):
    run(f"tc filter del dev {x.rep} ingress chain {chain}")

with check("TCP both ways through rules alone"):
    for end, address in ((x, "10.9.0.1/24"), (y, "10.9.0.2/24")):
        set_up(end.dev, address, ns=end.ns)
    rules = [Rule(a.rep, "", to(b), p, prio=n) for a, b in ((x, y), (y, x)) for n, p in ((1, "ip"), (2, "arp"))]
    tcp("10.9.0.2", 4 << 20, "x", "y")
    tcp("10.9.0.1", 4 << 20, "y", "x")
    for r in rules:
        r.require_in_hw()
        equal(r.in_software(), 0, "packets in software")
    # The driver asks for counters once a second.
    until(lambda: rules[0].hw()[1] > 4 << 20, "the bytes of the rule", 20)
    for end in (x, y):
        run(f"ip addr flush dev {end.dev}", end.ns)
clear(x.rep, y.rep)

# ------------------------------------------------------------ what a card does not do

with check("actions that the card does not have stay in software"):
    for match, action, protocol, why in (
        ("ip_proto udp", sums("ip and udp") + to(y), "ip", "only offloaded with pedit"),
        ("ip_proto udp", edit("ip ihl set 6") + to(y), "ip", ""),
        ("ip_proto tcp", edit("ip tos set 3 retain 0x3") + to(y), "ip", ""),
        ("", edit("ip src set 192.0.2.1") + to(y), "ip", "non TCP/UDP"),
        ("vlan_id 5", "action vlan modify id 9 priority 4 protocol 802.1q pipe " + to(y), "802.1q", "Changing VLAN prio"),
        ("", push(1) + push(2) + push(3) + to(y), "ip", ""),
        ("", to(y, y), "ip", "duplicate output"),
        ("", "action police rate 1mbit burst 10k conform-exceed drop/pipe " + to(y), "ip", ""),
        ("", "action sample rate 2 group 5 " + to(y), "ip", ""),
        ("", "action skbedit mark 5", "ip", ""),
    ):
        refused(x.rep, match, action, protocol, why)

with check("an edit for both inside and outside stays in software"):
    if KERNEL < (6, 12):
        skip("this kernel's driver does not tell an SF from the wire there")
    refused(x.rep, "ip_proto udp", edit("eth dst set 02:aa:bb:cc:dd:ee") + to(y, wire), "ip")

finish()
