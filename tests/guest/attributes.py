"""What the eswitch's manager sets of a slice, seen in the guest and on the wire."""

import re

from slice_lab import *

for ns in (PEER, "s4", "s5"):
    add_ns(ns)
functions()
far = next(iter(netdevs_inside(PEER, PF[1])))


def attach(index, sfnum, ns, *words):
    """A slice with these attributes, and the netdev of its driver in a namespace."""
    add(index, sfnum, mac_of_slice(sfnum))
    if words:
        set_slice(index, *words)
    set_slice(index, "state", "active")
    reaches(index, "active/attached")
    return into(sfnum, ns, f"10.0.0.{sfnum}")


def refused(sfnum):
    """Frames of a slice's port that were not what its manager allows."""
    said = json.loads(ask("ctl " + json.dumps(["show", "vports", "--json"]))["out"])["vports"]
    return next(v["refused"] for v in said if v["port"] == f"pf0sf{sfnum}")


EARLY = KERNEL >= (6, 10)
words = ("mtu", "1400") + (("max_io_eqs", "1") if EARLY else ())
dev = attach(100, 4, "s4", *words)
other = attach(101, 5, "s5")

with check("a driver finds the largest MTU, and longer frames do not pass"):
    equal(json.loads(run(f"ip -j -d link show {dev}", "s4"))[0]["max_mtu"], 1400, "the largest MTU")
    # The driver begins with 1500 whatever it has read.
    run(f"ip link set {dev} mtu 1400", "s4")
    require(attempt(f"ip link set {dev} mtu 1401", "s4").status != 0, "a larger MTU is taken")
    equal(json.loads(run(f"ip -j -d link show {other}", "s5"))[0]["max_mtu"], 9978, "that of the other one")
    ping("10.0.0.100", 1372, ns="s4", more="-M do")
    before = refused(4)["too_long"]
    # Who does not know of it sends what does not arrive.
    unanswered = attempt("ping -U -c 2 -W 1 -M do -s 1373 10.0.0.4", PEER)
    require(unanswered.status != 0, "a longer frame arrived")
    require(refused(4)["too_long"] >= before + 2, f"frames that were too long: {refused(4)} after {before}")
    tcp("10.0.0.100", 1 << 19, "s4", PEER)

with check("a driver has no more channels than event queues"):
    if not EARLY:
        skip("the driver asks for the number of event queues since 6.10")
    # What is possible comes first, then what is set.
    count = lambda d, ns: int(re.search(r"Combined:\s*(\d+)", run(f"ethtool -l {d}", ns))[1])
    # Three or four event queues are for other things, by how the driver was built.
    require(count(dev, "s4") in (1, 2), f"{count(dev, 's4')} channels of a slice with one event queue for them")
    require(count(other, "s5") > 2, f"{count(other, 's5')} channels of the other one")

with check("frames from other addresses are dropped while they are checked"):
    spoofed = lambda: raw_frame(mac_of(far, PEER), "02:00:00:00:00:99", 0x88B5, bytes(60))
    own = lambda: raw_frame(mac_of(far, PEER), mac_of_slice(4), 0x88B5, bytes(60))

    def arrives():
        capture = Capture(far, "ether proto 0x88b5", ns=PEER, direction="in")
        send_raw(dev, [spoofed(), own(), spoofed()], "s4")
        time.sleep(1)
        return [f[6:12].hex(":") for _, f in capture.frames()]

    equal(len(arrives()), 3, "frames that arrive unchecked")
    set_slice(100, "spoof_check", "on")
    equal(arrives(), [mac_of_slice(4)], "where checked frames come from")
    equal(refused(4)["spoofed"], 2, "frames that were refused")
    ping("10.0.0.100", 1000, ns="s4")
    set_slice(100, "spoof_check", "off")
    equal(len(arrives()), 3, "frames that arrive unchecked")

with check("who is not trusted gets no frames of others"):
    def overheard():
        capture = Capture(dev, "ether proto 0x88b5", ns="s4", direction="in")
        stranger = raw_frame("02:00:00:00:00:98", mac_of(far, PEER), 0x88B5, bytes(60))
        group = raw_frame("01:00:5e:00:00:77", mac_of(far, PEER), 0x88B5, bytes(60))
        send_raw(far, [stranger, group], PEER)
        time.sleep(1)
        return len(capture.frames())

    equal(slice_of(100)["trust"], False, "trust of a new slice")
    equal(overheard(), 0, "frames of others without trust")
    set_slice(100, "trust", "on")
    equal(overheard(), 2, "frames of others with trust")
    set_slice(100, "trust", "off")
    equal(overheard(), 0, "frames of others without trust")

with check("a slice is in a VLAN that it does not know of"):
    run(f"ip link add link {far} name v7 type vlan id 7", PEER)
    set_up("v7", "10.7.0.100/24", ns=PEER)
    set_up(dev, "10.7.0.4/24", ns="s4")
    set_slice(100, "vlan", "7", "qos", "3")
    capture = Capture(far, "vlan 7 and icmp", ns=PEER, direction="in")
    ping("10.7.0.100", 1000, ns="s4")
    seen = capture.frames(1)
    tags = {f[12:16].hex() for _, f in seen}
    equal(tags, {"8100" + f"{3 << 13 | 7:04x}"}, "tags on the wire")
    unreachable("10.0.0.100", "s4")
    unreachable("10.0.0.5", "s4")
    tcp("10.7.0.100", 1 << 19, "s4", PEER)
    tcp("10.7.0.4", 1 << 19, PEER, "s4")
    # A neighbour in the same VLAN; one of its own making is refused.
    set_slice(101, "vlan", "7")
    ping("10.0.0.5", 1000, ns="s4")
    send_raw(dev, [raw_frame(mac_of(other, "s5"), mac_of_slice(4), 0x8100, bytes([0, 7, 0x88, 0xB5]) + bytes(60))], "s4")
    until(lambda: refused(4)["tagged"] >= 1, "that its own tag is refused")
    for n in (100, 101):
        set_slice(n, "vlan", "none", "qos", "0")
    ping("10.0.0.100", 1000, ns="s4")
    ping("10.0.0.5", 1000, ns="s4")

with check("a slice sends no faster than it may"):
    # What took longer was a busy machine; faster it must not be.
    size, rate = 1 << 20, 8
    set_slice(100, "tx_max", f"{rate}mbit")
    equal(slice_of(100)["tx_max"], rate * 1_000_000, "the rate")
    got = tcp("10.0.0.100", size, "s4", PEER)
    say(f"{got:.1f} Mbit/s")
    require(got <= rate * 1.1, f"{got:.1f} Mbit/s though {rate} are allowed")
    # What comes to it has no such limit, and is acknowledged.
    tcp("10.0.0.4", size, PEER, "s4")
    set_slice(100, "tx_max", "none", "tx_share", "100mbit")
    tcp("10.0.0.100", size, "s4", PEER)
    set_slice(100, "tx_share", "none")

with check("what is set outlives the driver"):
    set_slice(100, "spoof_check", "on", "tx_max", "1gbit")
    run("modprobe -r mlx5_ib mlx5_core")
    run("modprobe mlx5_core")
    functions()
    reaches(100, "active/attached")
    s = slice_of(100)
    equal((s["spoof_check"], s["tx_max"], s["mtu"], s["hw_addr"]), (True, 10**9, 1400, mac_of_slice(4)), "the slice")
    dev = into(4, "s4", "10.0.0.4")
    equal(json.loads(run(f"ip -j -d link show {dev}", "s4"))[0]["max_mtu"], 1400, "the largest MTU")
    run(f"ip link set {dev} mtu 1400", "s4")
    tcp("10.0.0.100", 1 << 19, "s4", PEER)

with check("slices are deleted"):
    remove(100, 101)

finish()
