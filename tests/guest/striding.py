"""Receive queues whose buffers take many frames, and TCP segments that are joined in them.

The device offers them (`striding_rq=1`), and the driver then prefers them.
"""

from queues import *
from xdp import Program

SIZES = (0, 1, 18, 100, 198, 199, 214, 215, 470, 726, 1458, 1472, 1473, 4000, 20000, 65507)


def flag(n):
    return private_flag(DEVS[n], "rx_striding_rq", (A, B)[n])


DEVS = connect()
both_families(DEVS)

with check("the driver takes striding queues by itself"):
    for n in (0, 1):
        equal(flag(n), "on", "rx_striding_rq")

with check("frames of all sizes"):
    d = deltas(DEVS)
    for size in SIZES:
        ping(FOUR % 2, size, ns=A)
        ping(SIX % 1, min(size, 65487), ns=B)
    udp(FOUR % 2, SIZES, A, B)
    sound(*d)

with check("tcp both ways"):
    d = deltas(DEVS)
    streams()
    equal([c["rx_lro_packets"] for c in sound(*d)], [0, 0], "joined segments without LRO")

with check("a flood"):
    d = deltas(DEVS)
    equal(ping(FOUR % 2, 1400, 1000, ns=A, more="-i 0.002"), 1000, "answers")
    sound(*d)

with check("rings of all sizes"):
    for size in (8192, 64, 512, 1024):
        ring(DEVS, size)
        d = deltas(DEVS)
        ping(FOUR % 2, 3000, ns=A)
        tcp(FOUR % 2, 1 << 20, A, B)
        tcp(FOUR % 1, 1 << 20, B, A)
        sound(*d)

with check("queues of single frames, and back"):
    for state in ("off", "on"):
        private(DEVS, "rx_striding_rq", state)
        d = deltas(DEVS)
        streams(1 << 20)
        sound(*d)

with check("a jumbo MTU, whose frames take many strides"):
    mtu(DEVS, 9000)
    d = deltas(DEVS)
    for size in (1472, 4000, 8972):
        ping(FOUR % 2, size, 20, ns=A, more="-M do")
    streams()
    cut = sound(*d)
    require(sum(c["rx_mpwqe_filler_cqes"] for c in cut) > 0, "no strides were passed over")
    mtu(DEVS, 1500)

with check("an XDP program sees each frame"):
    with Program(Program.PASS).on(DEVS[1], B):
        d = deltas(DEVS)
        ping(FOUR % 2, 1400, 20, ns=A)
        tcp(FOUR % 2, 1 << 20, A, B)
        sound(*d)
    with Program(Program.DROP).on(DEVS[1], B):
        unreachable(FOUR % 2, A)
    meet(DEVS)
    ping(FOUR % 2, ns=A)

# ------------------------------------------------------------ LRO


def joins(what, *ways, least=50):
    """TCP in these ways, after which segments have been joined and none is missing."""
    settled((DEVS[0], A), (DEVS[1], B))
    d = deltas(DEVS)
    for to, src, dst in ways:
        tcp(to, 8 << 20, src, dst)
    c = sound(*d)
    receivers = {1 if dst == B else 0 for _, _, dst in ways}
    for n in receivers:
        require(c[n]["rx_lro_packets"] >= least, f"{what}: {c[n]['rx_lro_packets']} joined")
        require(c[n]["rx_lro_bytes"] >= least << 14, f"{what}: {c[n]['rx_lro_bytes']} bytes joined")
        say(f"  {what}: {c[n]['rx_packets']} segments, {c[n]['rx_lro_packets']} times joined")
    for n in (0, 1):
        # Groups that the other one has not joined are not for it.
        sent, got = c[1 - n]["tx_vport_unicast_packets"], c[n]["rx_packets"] + c[n]["rx_out_of_buffer"]
        equal(c[n]["rx_vport_unicast_packets"], sent, f"{what}: counted by the vport")
        require(got >= sent, f"{what}: {got} segments received of {sent}")



with check("LRO: segments are joined, and each is counted"):
    for n in (0, 1):
        lro(DEVS, n, "on")
    meet(DEVS)
    joins("IPv4", (FOUR % 2, A, B))
    joins("IPv4 back", (FOUR % 1, B, A))
    joins("IPv6", (SIX % 2, A, B), (SIX % 1, B, A))

with check("LRO: other frames are as before"):
    d = deltas(DEVS)
    for size in SIZES:
        ping(FOUR % 2, size, ns=A)
    udp(FOUR % 2, SIZES, A, B)
    sound(*d)

with check("LRO: many streams at once"):
    d = deltas(DEVS)
    all_of([lambda: tcp(FOUR % 2, 2 << 20, A, B), lambda: tcp(FOUR % 1, 2 << 20, B, A)] * 4, "streams")
    sound(*d)

with check("LRO: a VLAN's netdev takes it off, as the kernel has it; frames keep and lose their tags"):
    for n, ns in ((0, A), (1, B)):
        run(f"ip link add link {DEVS[n]} name v7 type vlan id 7", ns)
        set_up("v7", f"10.7.0.{n + 1}/24", ns=ns)
    for state in ("off", "on"):
        run(f"ethtool -K {DEVS[1]} rxvlan {state}", B)
        joins(f"rxvlan {state}", ("10.7.0.2", A, B), least=0)
    for n, ns in ((0, A), (1, B)):
        run("ip link del v7", ns)
        lro(DEVS, n, "on")
    meet(DEVS)

with check("LRO: without checksums for the device, without TSO"):
    run(f"ethtool -K {DEVS[0]} tso off tx off", A)
    # Frames of a doorbell each are joined only where the device finds several at a time.
    joins("plain", (FOUR % 2, A, B), least=0)
    run(f"ethtool -K {DEVS[0]} tx on tso on", A)

with check("LRO: a jumbo MTU"):
    mtu(DEVS, 9000)
    joins("jumbo", (FOUR % 2, A, B), (FOUR % 1, B, A))
    mtu(DEVS, 1500)

with check("LRO: off again"):
    for n in (0, 1):
        lro(DEVS, n, "off")
    meet(DEVS)
    d = deltas(DEVS)
    streams(1 << 20)
    equal([c["rx_lro_packets"] for c in sound(*d)], [0, 0], "joined segments")

with check("LRO: on while nobody listens, and through a reload of the driver"):
    lro(DEVS, 1, "on")
    DEVS = reload()
    both_families(DEVS)
    equal([flag(n) for n in (0, 1)], ["on", "on"], "rx_striding_rq")
    streams(1 << 20)
    lro(DEVS, 1, "on")
    meet(DEVS)
    joins("again", (FOUR % 2, A, B))

# ------------------------------------------------------------ sub-functions

with check("sub-functions: striding queues, LRO"):
    needs("mlx5_sf_table_init", "SFs")
    for ns in ("x", "y"):
        add_ns(ns)
    run(f"ip link set {DEVS[0]} netns 1", A)
    switchdev(PF[0])
    uplink = netdev_of(PF[0])
    x, y = Sf(PF[0], 88, "00:00:00:00:88:88"), Sf(PF[0], 89, "00:00:00:00:89:89")
    x.up("x", "10.0.0.11/24")
    y.up("y", "10.0.0.12/24")
    bridge("br0", uplink, x.rep, y.rep)
    for sf, ns in ((x, "x"), (y, "y")):
        until(lambda: carrier(sf.dev, ns), "the carrier of the SF")
        equal(private_flag(sf.dev, "rx_striding_rq", ns), "on", "rx_striding_rq of the SF")
    until(lambda: carrier(DEVS[1], B), "the carrier of the other function")
    for lro_state in ("off", "on"):
        run(f"ethtool -K {x.dev} lro {lro_state}", "x")
        until(lambda: carrier(x.dev, "x"), "the carrier of the SF")
        before = Delta(x.dev, "x")
        for size in SIZES:
            ping("10.0.0.11", size, ns="y")
        tcp("10.0.0.11", 4 << 20, "y", "x")
        tcp("10.0.0.12", 4 << 20, "x", "y")
        tcp("10.0.0.11", 4 << 20, B, "x")
        tcp(FOUR % 2, 4 << 20, "x", B)
        c, = sound(before)
        equal(c["rx_lro_packets"] > 50, lro_state == "on", "were segments joined")
    run("ip link del br0")
    for sf in (x, y):
        sf.deactivate()
        until(lambda: state_of(sf.handle) == "inactive/detached", "the end of the SF")
        sf.delete()
    switchdev(PF[0], "legacy")

finish()
