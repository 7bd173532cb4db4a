"""Send WQEs of several frames: of the stack's, and of an XDP program's that sends frames back.

The device offers them (`enhanced_multi_pkt_send_wqe=1`), and the driver then uses them.
"""

from queues import *
from xdp import Program

SIZES = (0, 1, 18, 100, 470, 1458, 1472, 1473, 4000, 65507)
FLAGS = ("skb_tx_mpwqe", "xdp_tx_mpwqe")


def flags(n):
    return [private_flag(DEVS[n], name, (A, B)[n]) for name in FLAGS]


def datagrams(to, size, senders, seconds=3):
    """UDP as fast as it goes, by several senders on one queue."""
    port = next(_PORTS)
    with inside(B):
        server = subprocess.Popen(["iperf3", "-s", "-1", "-p", str(port)], stdout=subprocess.DEVNULL)
    until(lambda: f":{port} " in run("ss -tln", B), "iperf3's server")
    run(f"iperf3 -c {to} -p {port} -u -b 0 -l {size} -P {senders} -t {seconds}", A)
    server.wait(20)


_PORTS = iter(range(6000, 7000))

DEVS = connect()
both_families(DEVS)

with check("the driver uses them by itself"):
    for n in (0, 1):
        equal(flags(n), ["on", "on"], "private flags")

with check("traffic of all kinds, checksums by the device"):
    d = deltas(DEVS)
    traffic_of_all_kinds(SIZES, 2 << 20)
    for c in sound(*d):
        require(c["tx_mpwqe_blks"] > 50, f"{c['tx_mpwqe_blks']} WQEs")
        require(c["tx_mpwqe_pkts"] >= c["tx_mpwqe_blks"], "frames of the WQEs")
        require(c["tx_csum_partial"] > 50, "checksums left to the device")
    no_checksum_errors()

with check("many frames in a WQE"):
    run(f"ethtool -L {DEVS[0]} combined 1", A)
    meet(DEVS)
    d = deltas(DEVS)
    for size in (18, 700):
        datagrams(FOUR % 2, size, 4)
    a, b = sound(*d)
    blocks, frames = a["tx_mpwqe_blks"], a["tx_mpwqe_pkts"]
    say(f"  {frames} frames in {blocks} WQEs, {frames / max(blocks, 1):.2f} each")
    require(frames > 1.02 * blocks, "no WQE had several frames")
    sent, got = a["tx_vport_unicast_packets"], b["rx_vport_unicast_packets"]
    equal(got, sent, "frames that arrived")
    # What the kernels say of themselves, to groups, may come between both readings.
    sent, got = (c[f"{way}_packets_phy"] - c[f"{way}_multicast_phy"] - c[f"{way}_broadcast_phy"] for c, way in ((a, "tx"), (b, "rx")))
    equal(got, sent, "frames on the cable")
    run(f"ethtool -L {DEVS[0]} combined 2", A)
    meet(DEVS)

with check("payload while WQEs are full"):
    with inside(B):
        server = subprocess.Popen(["iperf3", "-s", "-1", "-p", "5999"], stdout=subprocess.DEVNULL)
    until(lambda: ":5999 " in run("ss -tln", B), "iperf3's server")
    with inside(A):
        flood = subprocess.Popen(
            ["iperf3", "-c", FOUR % 2, "-p", "5999", "-u", "-b", "0", "-l", "200", "-P", "2", "-t", "6"],
            stdout=subprocess.DEVNULL,
        )
    d = deltas(DEVS)
    tcp(FOUR % 2, 1 << 20, A, B)
    tcp(FOUR % 1, 1 << 20, B, A)
    udp(FOUR % 2, (1, 100, 1472), A, B, tries=20)
    flood.wait(60)
    server.wait(60)
    sound(*d)

with check("an XDP program sends frames back"):
    with Program(Program.TX).on(DEVS[1], B):
        meet(DEVS)
        d = deltas(DEVS)
        # To all, so that they leave the function again.
        to, sender = "ff:ff:ff:ff:ff:ff", mac_of(DEVS[0], A)
        sent = [raw_frame(to, sender, 0x88B5, os.urandom(46 + i * 7 % 1400)) for i in range(2000)]
        seen = Capture(DEVS[0], "ether proto 0x88b5", A, snap=2000, direction="in")
        for i in range(0, len(sent), 250):
            send_raw(DEVS[0], sent[i : i + 250], A)
            time.sleep(0.1)
        c = sound(*d)[1]
        got = [f for _, f in seen.frames()]
        blocks, frames = c["rx_xdp_tx_mpwqe"], c["rx_xdp_tx_xmit"]
        say(f"  {frames} frames in {blocks} WQEs, {c['rx_xdp_tx_inlnw']} of them inline; {len(got)} came back")
        require(frames >= 1900 and blocks > 0 and frames > blocks, f"{frames} frames in {blocks} WQEs")
        require(len(got) >= 1900, f"{len(got)} frames came back")
        require(set(got) <= set(sent), "frames came back changed")
    meet(DEVS)

with check("off, and on again"):
    for state in ("off", "on"):
        for name in FLAGS:
            private(DEVS, name, state)
        for n in (0, 1):
            equal(flags(n), [state] * 2, "private flags")
        d = deltas(DEVS)
        traffic_of_all_kinds(SIZES, 2 << 20)
        for c in sound(*d):
            equal(c["tx_mpwqe_blks"] > 0, state == "on", "were there WQEs of several frames")

with check("through a reload of the driver"):
    DEVS = reload()
    both_families(DEVS)
    d = deltas(DEVS)
    traffic_of_all_kinds(SIZES, 2 << 20)
    require(all(c["tx_mpwqe_blks"] > 50 for c in sound(*d)), "no WQE of several frames")

finish()
