"""Compressed completions of received frames (`cqe_compression=1`), which the driver uses when
it is told to, with queues of single frames and with striding ones.
"""

from pair import *
from xdp import Program

SIX = "fd00::%d"
SIZES = (0, 1, 18, 100, 470, 1458, 1472, 1473, 4000, 65507)


def both_families():
    for n, ns in ((0, A), (1, B)):
        attempt(f"ip addr add {SIX % (n + 1)}/64 dev {DEVS[n]} nodad", ns)


def private(name, state):
    """Sets a flag of both and checks it."""
    for n, ns in ((0, A), (1, B)):
        run(f"ethtool --set-priv-flags {DEVS[n]} {name} {state}", ns)
        equal(private_flag(DEVS[n], name, ns), state, name)
    meet(DEVS)


def deltas():
    return Delta(DEVS[0], A), Delta(DEVS[1], B)


def sound(*deltas):
    """Nothing went wrong in the driver's queues; returns what was counted."""
    settled((DEVS[0], A), (DEVS[1], B))
    found = [d.take() for d in deltas]
    for c in found:
        for name in ("rx_wqe_err", "rx_recover", "tx_recover", "rx_buff_alloc_err"):
            equal(c.get(name, 0), 0, name)
    for ns in (A, B):
        text = run("nstat -asz UdpInCsumErrors TcpInCsumErrors IcmpInCsumErrors", ns)
        equal(re.findall(r"(\d+) +0\.0", text), ["0", "0", "0"], "checksum errors")
    for n in (0, 1):
        sent, got = found[1 - n]["tx_vport_unicast_packets"], found[n]["rx_vport_unicast_packets"]
        equal(got, sent, "frames counted by the vports")
    return found


def transfers(size=4 << 20):
    for to, src, dst in ((FOUR % 2, A, B), (FOUR % 1, B, A), (SIX % 2, A, B), (SIX % 1, B, A)):
        say(f"  {to} {tcp(to, size, src, dst):.0f} Mbit/s")


def traffic_of_all_kinds():
    for size in SIZES:
        ping(FOUR % 2, size, ns=A)
    udp(FOUR % 2, SIZES, A, B)
    udp(SIX % 1, SIZES[:-1], B, A)
    transfers()


def compressed(d, least=100):
    """Completions were compressed, and several frames in one session."""
    for c in sound(*d):
        blocks, frames = c["rx_cqe_compress_blks"], c["rx_cqe_compress_pkts"]
        say(f"  {frames} of {c['rx_packets']} frames in {blocks} sessions")
        require(frames >= least and frames >= 2 * blocks, f"{frames} frames in {blocks} sessions")


DEVS = connect()
both_families()

with check("off by default, and nothing is compressed"):
    for n, ns in ((0, A), (1, B)):
        equal(private_flag(DEVS[n], "rx_cqe_compress", ns), "off", "rx_cqe_compress")
    d = deltas()
    traffic_of_all_kinds()
    equal([c["rx_cqe_compress_blks"] for c in sound(*d)], [0, 0], "sessions")

for striding in ("off", "on"):
    queues = "striding queues" if striding == "on" else "queues of single frames"
    with check(f"{queues}: traffic of all kinds"):
        private("rx_striding_rq", striding)
        private("rx_cqe_compress", "on")
        d = deltas()
        traffic_of_all_kinds()
        compressed(d)

    with check(f"{queues}: many streams at once"):
        d = deltas()
        all_of([lambda: tcp(FOUR % 2, 2 << 20, A, B), lambda: tcp(FOUR % 1, 2 << 20, B, A)] * 3, "streams")
        compressed(d)

    with check(f"{queues}: rings of all sizes"):
        for size in (8192, 64, 1024):
            for n, ns in ((0, A), (1, B)):
                run(f"ethtool -G {DEVS[n]} rx {size}", ns)
            meet(DEVS)
            d = deltas()
            ping(FOUR % 2, 3000, ns=A)
            tcp(FOUR % 2, 1 << 20, A, B)
            tcp(FOUR % 1, 1 << 20, B, A)
            compressed(d, 20)

    with check(f"{queues}: a VLAN, whose tag is stripped or not"):
        for n, ns in ((0, A), (1, B)):
            run(f"ip link add link {DEVS[n]} name v7 type vlan id 7", ns)
            set_up("v7", f"10.7.0.{n + 1}/24", ns=ns)
        for state in ("off", "on"):
            run(f"ethtool -K {DEVS[1]} rxvlan {state}", B)
            meet(DEVS)
            d = deltas()
            all_of([lambda: tcp("10.7.0.2", 1 << 20, A, B), lambda: tcp(FOUR % 2, 1 << 20, A, B)], "streams")
            sound(*d)
        for n, ns in ((0, A), (1, B)):
            run("ip link del v7", ns)

    with check(f"{queues}: a jumbo MTU, and an XDP program"):
        for n, ns in ((0, A), (1, B)):
            run(f"ip link set {DEVS[n]} mtu 9000", ns)
        meet(DEVS)
        d = deltas()
        ping(FOUR % 2, 8972, 10, ns=A, more="-M do")
        transfers(2 << 20)
        sound(*d)
        for n, ns in ((0, A), (1, B)):
            run(f"ip link set {DEVS[n]} mtu 1500", ns)
        with Program(Program.PASS).on(DEVS[1], B):
            meet(DEVS)
            tcp(FOUR % 2, 1 << 20, A, B)
        meet(DEVS)

with check("LRO beside it"):
    for n, ns in ((0, A), (1, B)):
        run(f"ethtool -K {DEVS[n]} lro on", ns)
    meet(DEVS)
    d = deltas()
    transfers()
    require(all(c["rx_lro_packets"] > 20 for c in sound(*d)), "no segments were joined")
    for n, ns in ((0, A), (1, B)):
        run(f"ethtool -K {DEVS[n]} lro off", ns)
    meet(DEVS)

with check("off again, and through a reload of the driver"):
    private("rx_cqe_compress", "off")
    d = deltas()
    traffic_of_all_kinds()
    equal([c["rx_cqe_compress_blks"] for c in sound(*d)], [0, 0], "sessions")
    DEVS = reload()
    both_families()
    private("rx_cqe_compress", "on")
    d = deltas()
    transfers(2 << 20)
    compressed(d)

finish()
