"""Compressed completions of received frames (`cqe_compression=1`), which the driver uses when
it is told to, with queues of single frames and with striding ones.
"""

from queues import *
from xdp import Program

SIZES = (0, 1, 18, 100, 470, 1458, 1472, 1473, 4000, 65507)


def whole(*deltas):
    """As `sound`, and every frame arrived with the checksums it was sent with."""
    found = sound(*deltas)
    no_checksum_errors()
    for n in (0, 1):
        sent, got = found[1 - n]["tx_vport_unicast_packets"], found[n]["rx_vport_unicast_packets"]
        equal(got, sent, "frames counted by the vports")
    return found


def compressed(d, least=100):
    """Completions were compressed, and several frames in one session."""
    for c in whole(*d):
        blocks, frames = c["rx_cqe_compress_blks"], c["rx_cqe_compress_pkts"]
        say(f"  {frames} of {c['rx_packets']} frames in {blocks} sessions")
        require(frames >= least and frames >= 2 * blocks, f"{frames} frames in {blocks} sessions")


DEVS = connect()
both_families(DEVS)

with check("off by default, and nothing is compressed"):
    for n, ns in ((0, A), (1, B)):
        equal(private_flag(DEVS[n], "rx_cqe_compress", ns), "off", "rx_cqe_compress")
    d = deltas(DEVS)
    traffic_of_all_kinds(SIZES)
    equal([c["rx_cqe_compress_blks"] for c in whole(*d)], [0, 0], "sessions")

for striding in ("off", "on"):
    queues = "striding queues" if striding == "on" else "queues of single frames"
    with check(f"{queues}: traffic of all kinds"):
        private(DEVS, "rx_striding_rq", striding)
        private(DEVS, "rx_cqe_compress", "on")
        d = deltas(DEVS)
        traffic_of_all_kinds(SIZES)
        compressed(d)

    with check(f"{queues}: many streams at once"):
        d = deltas(DEVS)
        all_of([lambda: tcp(FOUR % 2, 2 << 20, A, B), lambda: tcp(FOUR % 1, 2 << 20, B, A)] * 3, "streams")
        compressed(d)

    with check(f"{queues}: rings of all sizes"):
        for size in (8192, 64, 1024):
            ring(DEVS, size)
            d = deltas(DEVS)
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
            d = deltas(DEVS)
            all_of([lambda: tcp("10.7.0.2", 1 << 20, A, B), lambda: tcp(FOUR % 2, 1 << 20, A, B)], "streams")
            whole(*d)
        for n, ns in ((0, A), (1, B)):
            run("ip link del v7", ns)

    with check(f"{queues}: a jumbo MTU, and an XDP program"):
        mtu(DEVS, 9000)
        d = deltas(DEVS)
        ping(FOUR % 2, 8972, 10, ns=A, more="-M do")
        streams(2 << 20)
        whole(*d)
        mtu(DEVS, 1500)
        with Program(Program.PASS).on(DEVS[1], B):
            meet(DEVS)
            tcp(FOUR % 2, 1 << 20, A, B)
        meet(DEVS)

with check("LRO beside it"):
    for n in (0, 1):
        lro(DEVS, n, "on")
    meet(DEVS)
    d = deltas(DEVS)
    streams()
    require(all(c["rx_lro_packets"] > 20 for c in whole(*d)), "no segments were joined")
    for n in (0, 1):
        lro(DEVS, n, "off")
    meet(DEVS)

with check("off again, and through a reload of the driver"):
    private(DEVS, "rx_cqe_compress", "off")
    d = deltas(DEVS)
    traffic_of_all_kinds(SIZES)
    equal([c["rx_cqe_compress_blks"] for c in whole(*d)], [0, 0], "sessions")
    DEVS = reload()
    both_families(DEVS)
    private(DEVS, "rx_cqe_compress", "on")
    d = deltas(DEVS)
    streams(2 << 20)
    compressed(d)

finish()
