"""tc flower: what a rule matches on. Each match forwards from one SF to the other what it is
for, and nothing else; the rest comes to the representor."""

from flower_lab import *

x, y, wire = two_sfs()
ENDS = (x, y, wire)
N = 3
f = frame


def numbered(kinds, first=0):
    """N frames of each kind, all of them different."""
    return [frame(**k, number=first + i * N + n) for i, k in enumerate(kinds) for n in range(N)]


def matches(name, match, hits, misses, protocol="all", sender=x, to=y):
    with check(f"match {name}"):
        rule = Rule(sender.rep, match, f"action mirred egress redirect dev {to.rep}", protocol)
        try:
            rule.require_in_hw()
            yes, no = numbered(hits), numbered(misses, 1000)
            # In turns, so that neither profits from what is known of the other.
            both = [v for pair in zip(yes, no) for v in pair]
            both += yes[len(no):] + no[len(yes):]
            switched(ENDS, sender, both, {to: yes}, no)
            rule.counted(yes)
            silence(ENDS)
        finally:
            clear(sender.rep)


# ------------------------------------------------------------ Ethernet

D, S = "02:00:00:00:00:0b", "02:00:00:00:00:0a"
matches("dst_mac", f"dst_mac {D}", [{}, dict(v=6)], [dict(dst="02:00:00:00:00:0c"), dict(dst="02:00:00:00:01:0b")])
matches("dst_mac masked", "dst_mac 02:00:00:00:00:00/ff:ff:ff:00:00:00", [dict(dst="02:00:00:77:88:99")], [dict(dst="02:00:01:00:00:0b")])
matches("src_mac", f"src_mac {S}", [{}], [dict(src="02:00:00:00:00:1a"), dict(src="06:00:00:00:00:0a")])
matches("a multicast address", "dst_mac 01:00:5e:00:00:05", [dict(dst="01:00:5e:00:00:05")], [dict(dst="01:00:5e:00:00:06"), {}])
matches("the broadcast address", "dst_mac ff:ff:ff:ff:ff:ff", [dict(dst="ff:ff:ff:ff:ff:ff")], [dict(dst="ff:ff:ff:ff:ff:fe")])
matches("ethertype", "", [dict(v=None, ethertype=0x88B5)], [dict(v=None, ethertype=0x88B6), {}], protocol="0x88b5")
matches("ethertype ARP", "", [dict(v=None, ethertype=ETH_P_ARP)], [{}], protocol="arp")
matches("ethertype IPv4", "", [{}, dict(proto=TCP), dict(fragment=(0, 1))], [dict(v=6), dict(v=None, ethertype=ETH_P_ARP), dict(tags=[tag(5)])], protocol="ip")
matches("ethertype IPv6", "", [dict(v=6)], [{}, dict(v=6, tags=[tag(5)])], protocol="ipv6")
matches("anything", "", [{}, dict(v=6), dict(v=None, ethertype=0x88B5), dict(tags=[tag(5)])], [])

# ------------------------------------------------------------ VLANs

matches("vlan_id", "vlan_id 5", [dict(tags=[tag(5)]), dict(tags=[tag(5, 3)], v=6)], [dict(tags=[tag(6)]), {}, dict(tags=[tag(5, tpid=ETH_P_8021AD)])], protocol="802.1q")
matches("vlan_prio", "vlan_prio 3", [dict(tags=[tag(5, 3)]), dict(tags=[tag(0, 3)])], [dict(tags=[tag(5, 2)]), {}], protocol="802.1q")
matches("vlan_ethtype and an address", "vlan_id 5 vlan_ethtype ip dst_ip 10.2.0.2", [dict(tags=[tag(5)])], [dict(tags=[tag(5)], daddr="10.2.0.3"), dict(tags=[tag(5)], v=6), {}, dict(tags=[tag(6)])], protocol="802.1q")
matches("a service tag", "vlan_id 5", [dict(tags=[tag(5, tpid=ETH_P_8021AD)])], [dict(tags=[tag(5)]), dict(tags=[tag(6, tpid=ETH_P_8021AD)])], protocol="802.1ad")
QQ = lambda a, b, **k: dict(tags=[tag(a, tpid=ETH_P_8021AD), tag(b)], **k)
matches("two tags", "vlan_id 5 vlan_ethtype 802.1q cvlan_id 7", [QQ(5, 7), QQ(5, 7, v=6)], [QQ(5, 8), QQ(6, 7), dict(tags=[tag(5, tpid=ETH_P_8021AD)])], protocol="802.1ad")
matches("two tags, an address inside", "vlan_id 5 vlan_ethtype 802.1q cvlan_id 7 cvlan_ethtype ip dst_ip 10.2.0.2 ip_proto udp dst_port 2000",
        [QQ(5, 7)], [QQ(5, 7, dport=2001), QQ(5, 7, daddr="10.2.0.3"), QQ(5, 7, proto=TCP)], protocol="802.1ad")
matches("cvlan_prio", "vlan_id 5 vlan_ethtype 802.1q cvlan_prio 2", [dict(tags=[tag(5, tpid=ETH_P_8021AD), tag(9, 2)])], [QQ(5, 9)], protocol="802.1ad")

# ------------------------------------------------------------ IP

matches("IPv4 source", "src_ip 10.1.0.1", [{}], [dict(saddr="10.1.0.2"), dict(v=6)], protocol="ip")
matches("IPv4 destination and prefix", "dst_ip 10.2.0.0/16", [{}, dict(daddr="10.2.255.1", proto=TCP)], [dict(daddr="10.3.0.2")], protocol="ip")
matches("both IPv4 addresses by prefix", "src_ip 10.0.0.0/9 dst_ip 10.2.0.2/31", [dict(saddr="10.127.7.1"), dict(daddr="10.2.0.3")], [dict(saddr="10.128.7.1"), dict(daddr="10.2.0.4")], protocol="ip")
matches("IPv6 source", "src_ip fd01::1", [dict(v=6)], [dict(v=6, saddr="fd01::2"), dict(v=6, saddr="fd01:0:0:1::1"), {}], protocol="ipv6")
matches("IPv6 destination and prefix", "dst_ip fd02::/32", [dict(v=6), dict(v=6, daddr="fd02:0:1:2:3:4:5:6")], [dict(v=6, daddr="fd02:1::2")], protocol="ipv6")
matches("ip_proto TCP", "ip_proto tcp", [dict(proto=TCP)], [{}, dict(proto=ICMP)], protocol="ip")
matches("ip_proto of IPv6", "ip_proto udp", [dict(v=6)], [dict(v=6, proto=TCP), {}], protocol="ipv6")
matches("ip_proto SCTP", "ip_proto sctp", [dict(proto=132)], [{}, dict(proto=133)], protocol="ip")
matches("ip_tos", "ip_tos 0x28", [dict(tos=0x28)], [dict(tos=0x2C), {}, dict(tos=0x29)], protocol="ip")
matches("ip_tos, DSCP alone", "ip_tos 0x28/0xfc", [dict(tos=0x28), dict(tos=0x2B)], [dict(tos=0x2C)], protocol="ip")
matches("ip_tos, ECN alone", "ip_tos 0x2/0x3", [dict(tos=0x2), dict(tos=0x2A)], [dict(tos=0x28), dict(tos=3)], protocol="ip")
matches("traffic class of IPv6", "ip_tos 0x28/0xfc", [dict(v=6, tos=0x28)], [dict(v=6, tos=0x30)], protocol="ipv6")
matches("ip_ttl", "ip_ttl 5", [dict(ttl=5)], [dict(ttl=6), {}], protocol="ip")
matches("ip_ttl masked", "ip_ttl 0x10/0xf0", [dict(ttl=0x1F)], [dict(ttl=0x20)], protocol="ip")
matches("hop limit", "ip_ttl 5", [dict(v=6, ttl=5)], [dict(v=6, ttl=4)], protocol="ipv6")
F1, F2 = dict(fragment=(0, 1)), dict(fragment=(8, 0))
matches("fragments", "ip_flags frag", [F1, F2], [{}], protocol="ip")
matches("no fragments", "ip_flags nofrag", [{}], [F1, F2], protocol="ip")
matches("fragments of IPv6", "ip_flags frag", [dict(v=6, **F1), dict(v=6, **F2)], [dict(v=6)], protocol="ipv6")

# ------------------------------------------------------------ transport

T = dict(proto=TCP)
matches("UDP dst_port", "ip_proto udp dst_port 2000", [{}], [dict(dport=2001), T, F2], protocol="ip")
matches("UDP src_port", "ip_proto udp src_port 1000", [{}], [dict(sport=1001)], protocol="ip")
matches("TCP ports", "ip_proto tcp src_port 1000 dst_port 2000", [T], [{}, dict(proto=TCP, sport=1), dict(proto=TCP, dport=1)], protocol="ip")
matches("TCP ports over IPv6", "ip_proto tcp dst_port 2000", [dict(v=6, **T)], [dict(v=6), dict(v=6, proto=TCP, dport=1)], protocol="ipv6")
matches("ports masked", "ip_proto udp dst_port 0x1000/0xf000", [dict(dport=0x1234), dict(dport=0x1FFF)], [dict(dport=0x2000)], protocol="ip")
matches("tcp_flags", "ip_proto tcp tcp_flags 0x2/0x12", [dict(proto=TCP, flags=2), dict(proto=TCP, flags=0xC2)], [dict(proto=TCP, flags=0x12), dict(proto=TCP, flags=0x10)], protocol="ip")
matches("tcp_flags of IPv6", "ip_proto tcp tcp_flags 0x1", [dict(v=6, proto=TCP, flags=1)], [dict(v=6, proto=TCP, flags=0x11)], protocol="ipv6")
I, I6 = lambda k, c=0: dict(proto=ICMP, kind=k, code=c), lambda k, c=0: dict(v=6, proto=ICMPV6, kind=k, code=c)
matches("ICMP type", "ip_proto icmp type 8", [I(8), I(8, 3)], [I(0), {}], protocol="ip")
matches("ICMP type and code", "ip_proto icmp type 3 code 4", [I(3, 4)], [I(3, 5), I(4, 4)], protocol="ip")
matches("ICMPv6 type and code", "ip_proto icmpv6 type 135 code 0", [I6(135)], [I6(136), I6(135, 1)], protocol="ipv6")
matches("everything at once", f"dst_mac {D} src_mac {S} src_ip 10.1.0.1 dst_ip 10.2.0.2 ip_proto tcp ip_tos 0x28 ip_ttl 9 src_port 1000 dst_port 2000 tcp_flags 0x18",
        [dict(proto=TCP, tos=0x28, ttl=9)], [dict(proto=TCP, tos=0x28, ttl=8), dict(proto=TCP, tos=0x28, ttl=9, flags=0x10), dict(tos=0x28, ttl=9)], protocol="ip")

# ------------------------------------------------------------ other ways

matches("on the way to the wire", "ip_proto udp dst_port 2000", [{}], [dict(dport=1), T], protocol="ip", to=wire)
matches("on the way from the wire", "ip_proto udp dst_port 2000", [{}], [dict(dport=1), T], protocol="ip", sender=wire, to=x)
matches("tags from the wire", "vlan_id 5 vlan_ethtype 802.1q cvlan_id 7", [QQ(5, 7)], [QQ(5, 8), {}], protocol="802.1ad", sender=wire, to=y)
matches("groups from the wire", "dst_mac 33:33:00:00:00:05", [dict(v=6, dst="33:33:00:00:00:05")], [dict(v=6, dst="33:33:00:00:00:06")], sender=wire, to=y)
matches("in the other direction", f"dst_mac {S}", [dict(dst=S, src=D)], [dict(dst=D)], sender=y, to=x)

# ------------------------------------------------------------ several rules

REDIRECT = f"action mirred egress redirect dev {y.rep}"

with check("the first priority wins"):
    drop = Rule(x.rep, "dst_ip 10.2.0.0/24", "action drop", "ip", prio=1)
    rest = Rule(x.rep, "dst_ip 10.2.0.0/16", REDIRECT, "ip", prio=2)
    first, second = numbered([{}]), numbered([dict(daddr="10.2.1.1")])
    switched(ENDS, x, first + second, {y: second}, [])
    drop.counted(first)
    rest.counted(second)
    silence(ENDS)
    drop.delete()
    switched(ENDS, x, first, {y: first}, [])
    rest.counted(first + second)
clear(x.rep)

with check("many rules of one mask"):
    many = 64
    for i in range(many):
        Rule(x.rep, f"dst_ip 10.2.1.{i}", REDIRECT, "ip")
    sent = {i: [frame(daddr=f"10.2.1.{i}", number=n) for n in range(i % 5)] for i in range(many)}
    stray = numbered([dict(daddr="10.2.1.200")])
    frames = [f for i in reversed(range(many)) for f in sent[i]]
    switched(ENDS, x, frames + stray, {y: frames}, stray)

    def told():
        shown = json.loads(run(f"tc -s -j filter show dev {x.rep} ingress"))
        shown = [f["options"] for f in shown if "keys" in f.get("options", {})]
        require(all(o["in_hw"] for o in shown), "a rule is not in hardware")
        return {int(o["keys"]["dst_ip"].split(".")[3]): o["actions"][0]["stats"].get("hw_packets", 0) for o in shown}

    expected = {i: len(f) for i, f in sent.items()}
    until(lambda: told() == expected, "the count of each rule", 20)
clear(x.rep)

with check("chains"):
    gate = Rule(x.rep, f"dst_mac {D}", "action goto chain 1", "ip")
    one = Rule(x.rep, "ip_proto udp dst_port 2000", "action goto chain 7", "ip", chain=1)
    two = Rule(x.rep, "dst_ip 10.2.0.2", REDIRECT, "ip", chain=7)
    for r in (gate, one, two):
        r.require_in_hw()
    all_three = numbered([{}])
    # What chain 1 or 7 have nothing for goes on in software.
    in_one, in_none = numbered([T], 100), numbered([dict(dst="02:00:00:00:00:99")], 200)
    in_two = numbered([dict(daddr="10.2.0.9")], 300)
    switched(ENDS, x, all_three + in_one + in_none + in_two, {y: all_three}, in_one + in_none + in_two)
    gate.counted(all_three + in_one + in_two)
    one.counted(all_three + in_two)
    two.counted(all_three)

with check("software goes on in the chain where hardware had nothing"):
    if KERNEL < (6, 12):
        # Later ones offload tc only with it.
        skip("6.1 is built without NET_TC_SKB_EXT, by which software learns of the chain")
    soft = Rule(x.rep, "ip_proto tcp", "action drop", "ip", chain=1, prio=2, skip="skip_hw")
    missed = numbered([T], 400)
    before = gate.hw()[0]
    switched(ENDS, x, missed, {}, missed)
    until(lambda: soft.action_stats()["packets"] == N, "software's rule in chain 1", 10)
    until(lambda: gate.hw()[0] == before + N, "the count of chain 0's rule", 20)
    equal(gate.action_stats(0)["packets"], gate.hw()[0], "packets of chain 0's rule, none of them in software,")
for chain in (7, 1, 0):
    run(f"tc filter del dev {x.rep} ingress chain {chain}")

with check("an idle rule ages, a busy one does not"):
    rule = Rule(x.rep, "", REDIRECT, "ip")
    sent = numbered([{}])
    switched(ENDS, x, sent, {y: sent}, [])
    rule.counted(sent)
    idle = lambda: rule.shown()["actions"][0]["last_used"]
    until(lambda: idle() >= 4, "an idle time of four seconds", 30)
    was = idle()
    switched(ENDS, x, sent, {y: sent}, [])
    rule.counted(sent + sent)
    require(idle() < was, f"last used {idle()} s ago, {was} s before it was used again")
clear(x.rep)

with check("a rule for hardware and software counts once"):
    rule = Rule(x.rep, "", REDIRECT, "ip", skip="")
    rule.require_in_hw()
    sent = numbered([{}])
    switched(ENDS, x, sent, {y: sent}, [])
    rule.counted(sent)
clear(x.rep)

# ------------------------------------------------------------ what a card does not do

with check("what a card does not match on stays in software"):
    for protocol, match, why in (
        ("ip", "ip_proto udp dst_port 2000-3000", "Unsupported key"),
        ("ip", "ip_flags firstfrag", ""),
        ("ip", "ip_proto sctp dst_port 5", "Only UDP and TCP"),
        ("arp", "arp_op request", "Unsupported key"),
        ("mpls_uc", "mpls_label 16", "MPLS"),
    ):
        refused(x.rep, match, REDIRECT, protocol, why)

with check("software forwards what stayed in software"):
    # The driver takes no range of ports.
    rule = Rule(x.rep, "ip_proto udp dst_port 2000-3000", REDIRECT, "ip", skip="")
    sent, stray = numbered([{}]), numbered([dict(dport=1999)])
    switched(ENDS, x, sent + stray, {y: sent}, sent + stray)
    equal(rule.action_stats()["packets"], N, "packets of software's rule")
clear(x.rep)

finish()
