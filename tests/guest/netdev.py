"""The netdevs of PF0 and PF1, each in a namespace of its own, joined by the cable."""

from lab import *

A, B = "a", "b"
V4, V6 = "10.0.0.%d", "fd00::%d"

D0, D1 = netdev_of(PF[0]), netdev_of(PF[1])
for ns, dev, n in ((A, D0, 1), (B, D1, 2)):
    add_ns(ns)
    run(f"ip link set {dev} netns {ns}")
    set_up(dev, V4 % n + "/24", V6 % n + "/64", ns=ns)
M0, M1 = mac_of(D0, A), mac_of(D1, B)
BOTH = ((D0, A), (D1, B))


def wait_carrier():
    for dev, ns in BOTH:
        until(lambda: carrier(dev, ns), f"the carrier of {dev}")


def works(size=1 << 20):
    """Traffic both ways by both families."""
    wait_carrier()
    ping(V4 % 2, ns=A)
    ping(V6 % 1, ns=B)
    tcp(V4 % 2, size, A, B)
    tcp(V6 % 1, size, B, A)


with check("carrier"):
    wait_carrier()

with check("ethtool DEV tells speed and link"):
    for dev, ns in BOTH:
        text = run(f"ethtool {dev}", ns)
        for line in ("Speed: 100000Mb/s", "Duplex: Full", "Link detected: yes"):
            require(line in text, f"no {line!r} in {text!r}")

with check("ethtool -i"):
    text = run(f"ethtool -i {D0}", A)
    require("driver: mlx5_core" in text and f"bus-info: {PF[0]}" in text, text)
    require("firmware-version: 22.41.1000" in text, text)

with check("offered features"):
    features = json.loads(run(f"ethtool --json -k {D0}", A))[0]
    for name in (
        "rx-checksumming",
        "tx-checksumming",
        "tx-checksum-ip-generic",
        "scatter-gather",
        "tcp-segmentation-offload",
        "tx-tcp-segmentation",
        "tx-tcp6-segmentation",
        "rx-vlan-offload",
        "tx-vlan-offload",
        "rx-vlan-filter",
        "receive-hashing",
        "highdma",
    ):
        require(features[name]["active"], f"{name} is off")
    equal(features["ntuple-filters"], {"active": False, "fixed": False, "requested": False}, "ntuple-filters")

with check("ethtool -l"):
    text = run(f"ethtool -l {D0}", A)
    equal(text.count("Combined:\t4"), 2, "channels, at most and now")
    equal(len(os.listdir(f"/sys/bus/pci/devices/{PF[0]}/msi_irqs")) >= 5, True, "vectors for 4 channels")

with check("ethtool -g"):
    ring = json.loads(run(f"ethtool --json -g {D0}", A))[0]
    equal((ring["rx-max"], ring["tx-max"], ring["rx"], ring["tx"]), (8192, 8192, 1024, 1024), "rings")

with check("ethtool -x"):
    key, table = rss_config(D0, A)
    equal((len(key), len(table)), (40, 256), "sizes of key and table")
    equal(table, [i % 4 for i in range(256)], "table")

# ------------------------------------------------------------ reachability

with check("ping of all sizes, IPv4"):
    for size in (0, 1, 8, 16, 17, 18, 19, 100, 1471, 1472, 1473, 1480, 2952, 2953, 9000, 32768, 65506, 65507):
        ping(V4 % 2, size, ns=A)

with check("ping of all sizes, IPv6"):
    for size in (0, 1, 8, 100, 1451, 1452, 1453, 2900, 9000, 32768, 65487):
        ping(V6 % 1, size, ns=B)

with check("a flood of pings"):
    equal(ping(V4 % 2, 1400, 500, ns=A, more="-i 0.002"), 500, "answers")

for tso, tx, rx in (("on", "on", "on"), ("off", "on", "on"), ("off", "off", "on"), ("on", "on", "off"), ("off", "off", "off")):
    with check(f"tcp with tso {tso}, tx checksum {tx}, rx checksum {rx}"):
        for dev, ns in BOTH:
            run(f"ethtool -K {dev} tx {tx}", ns)
            run(f"ethtool -K {dev} tso {tso} rx {rx}", ns)
        d0, d1 = Delta(D0, A), Delta(D1, B)
        for to, src, dst in ((V4 % 2, A, B), (V6 % 2, A, B), (V4 % 1, B, A), (V6 % 1, B, A)):
            say(f"  {to} {tcp(to, 3 << 20, src, dst):.0f} Mbit/s")
        udp(V4 % 2, (1, 1472, 5000), A, B)
        for c in (d0.take(), d1.take()):
            equal(c["tx_tso_packets"] > 0, tso == "on", "were there TSO packets")
            equal(c["tx_csum_partial"] > 0, tx == "on", "were there checksums for the device")
            checked = c["rx_csum_complete"] + c["rx_csum_unnecessary"]
            equal(checked > 0, rx == "on", "were checksums checked by the device")
            if rx == "on":
                require(c["rx_csum_none"] < 100, f"{c['rx_csum_none']} packets without checked checksum")
with check("offloads are on again"):
    for dev, ns in BOTH:
        run(f"ethtool -K {dev} tx on rx on tso on", ns)

with check("udp fragments, IPv4"):
    udp(V4 % 2, (0, 1, 17, 18, 19, 1472, 1473, 2952, 2953, 4000, 9000, 30000, 65000, 65507), A, B)
with check("udp fragments, IPv6"):
    udp(V6 % 1, (0, 1, 1452, 1453, 4000, 9000, 30000, 65000, 65487), B, A)

with check("udp segmentation offload"):
    a, b = new_socket(socket.SOCK_DGRAM, V4 % 2, A), new_socket(socket.SOCK_DGRAM, V4 % 2, B)
    b.bind((V4 % 2, 7000))
    a.setsockopt(socket.SOL_UDP, 103, 1000)  # UDP_SEGMENT
    payload = os.urandom(20500)
    before = Delta(D0, A)
    a.sendto(payload, (V4 % 2, 7000))
    pieces = [b.recv(4096) for _ in range(21)]
    equal([len(p) for p in pieces], [1000] * 20 + [500], "sizes of the segments")
    equal(b"".join(pieces), payload, "data")
    equal(before.take()["tx_tso_packets"], 1, "packets that the device segmented")

with check("wrong checksums are not let through"):
    def with_udp_sum(good):
        ip = lambda a: socket.inet_aton(a)
        body = struct.pack(">HHHH", 9, 7001, 8 + 64, 0) + bytes(64)
        def fold(data):
            s = sum(struct.unpack(f">{len(data) // 2}H", data))
            while s >> 16:
                s = (s & 0xFFFF) + (s >> 16)
            return ~s & 0xFFFF
        pseudo = ip(V4 % 1) + ip(V4 % 2) + struct.pack(">HH", 17, len(body))
        check_sum = fold(pseudo + body) ^ (0 if good else 0x0101)
        body = body[:6] + struct.pack(">H", check_sum) + body[8:]
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0) + ip(V4 % 1) + ip(V4 % 2)
        head = head[:10] + struct.pack(">H", fold(head)) + head[12:]
        return raw_frame(M1, M0, 0x0800, head + body)

    b = new_socket(socket.SOCK_DGRAM, V4 % 2, B)
    b.bind((V4 % 2, 7001))
    b.settimeout(0.5)
    for good in (True, False, False, True):
        send_raw(D0, [with_udp_sum(good)], A)
        try:
            b.recv(2000)
            came = True
        except TimeoutError:
            came = False
        equal(came, good, f"was a datagram with {'right' if good else 'wrong'} checksum delivered")

# ------------------------------------------------------------ VLAN

with check("VLAN"):
    for dev, ns, n in ((D0, A, 1), (D1, B, 2)):
        run(f"ip link add link {dev} name v100 type vlan id 100", ns)
        run(f"ip link add link {dev} name v4094 type vlan id 4094", ns)
        set_up("v100", f"10.1.0.{n}/24", f"fd01::{n}/64", ns=ns)
        set_up("v4094", f"10.2.0.{n}/24", ns=ns)
    ping("10.1.0.2", ns=A)
    ping("10.2.0.1", ns=B)
    time.sleep(1)  # what the new netdevs say by themselves
    d0, d1 = Delta(D0, A), Delta(D1, B)
    for size in (0, 18, 1472, 1473, 20000):
        ping("10.1.0.2", size, ns=A)
        ping("10.2.0.1", size, ns=B)
    c0, c1 = d0.take(), d1.take()
    require(c0["tx_added_vlan_packets"] > 50, "the device added no tags")
    equal(c1["rx_removed_vlan_packets"], c0["tx_added_vlan_packets"], "tags removed of those added")
    equal(c1["rx_bytes"] + 4 * c1["rx_removed_vlan_packets"], c1["rx_vport_unicast_bytes"] + c1["rx_vport_broadcast_bytes"], "bytes with tags")
    tcp("10.1.0.2", 2 << 20, A, B)
    tcp("fd01::1", 2 << 20, B, A)

with check("VLAN without offloads"):
    for dev, ns in BOTH:
        run(f"ethtool -K {dev} rxvlan off txvlan off", ns)
    d0, d1 = Delta(D0, A), Delta(D1, B)
    ping("10.1.0.2", 1473, ns=A)
    tcp("10.1.0.2", 1 << 20, A, B)
    tcp("10.2.0.1", 1 << 20, B, A)
    c0, c1 = d0.take(), d1.take()
    equal((c0["tx_added_vlan_packets"], c1["rx_removed_vlan_packets"]), (0, 0), "tags added and removed")
    for dev, ns in BOTH:
        run(f"ethtool -K {dev} rxvlan on txvlan on", ns)
    ping("10.1.0.2", 1473, ns=A)

with check("a VLAN that nobody wants is filtered"):
    run(f"ip link add link {D0} name v300 type vlan id 300", A)
    set_up("v300", "10.3.0.1/24", ns=A)
    run("ip neigh add 10.3.0.2 lladdr " + M1 + " dev v300", A)
    d1 = Delta(D1, B)
    attempt("ping -U -c 5 -i 0.02 -W 1 10.3.0.2", A)
    equal(d1.take()["rx_packets"], 0, "packets received")
    run("ip link del v300", A)

with check("stacked VLANs"):
    for dev, ns, n in ((D0, A, 1), (D1, B, 2)):
        run(f"ip link add link {dev} name s200 type vlan proto 802.1ad id 200", ns)
        run("ip link set s200 up", ns)
        # The driver leaves room for one tag; striding queues drop what is longer.
        run("ip link add link s200 name q201 mtu 1496 type vlan id 201", ns)
        set_up("q201", f"10.4.0.{n}/24", ns=ns)
    ping("10.4.0.2", 1000, ns=A)
    tcp("10.4.0.2", 1 << 20, A, B)
    for dev, ns in BOTH:
        run("ip link del s200", ns)

with check("VLANs come and go"):
    for dev, ns in BOTH:
        run("ip link del v100", ns)
        run("ip link del v4094", ns)
    works()

# ------------------------------------------------------------ multicast and promiscuous

GROUP = "239.1.2.3"
GROUP_MAC = "01:00:5e:01:02:03"


def listens(to, wanted=True):
    """Waits until B's function takes frames to this address, or does not any more: its driver
    sets filters in its own time."""

    def look():
        d1 = Delta(D1, B)
        send_raw(D0, [raw_frame(to, M0, 0x88B5, bytes(46))], A)
        settled((D0, A), (D1, B))
        return (d1.take()["rx_packets"] > 0) == wanted

    until(look, f"a filter of {to}")


with check("multicast reaches who joined"):
    b = new_socket(socket.SOCK_DGRAM, V4 % 2, B)
    b.bind(("", 7002))
    b.settimeout(2)
    a = new_socket(socket.SOCK_DGRAM, V4 % 1, A)
    a.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(V4 % 1))
    d1 = Delta(D1, B)
    for i in range(10):
        a.sendto(b"early", (GROUP, 7002))
    time.sleep(0.2)
    equal(d1.take()["rx_packets"], 0, "packets received before joining")
    member = socket.inet_aton(GROUP) + socket.inet_aton(V4 % 2)
    b.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    listens(GROUP_MAC)
    d0, d1 = Delta(D0, A), Delta(D1, B)
    for i in range(10):
        a.sendto(b"%d" % i, (GROUP, 7002))
        equal(b.recv(100), b"%d" % i, "multicast datagram")
    c0, c1 = d0.take(), d1.take()
    equal(c0["tx_vport_multicast_packets"], 10, "multicast sent")
    equal(c1["rx_vport_multicast_packets"], 10, "multicast received")
    equal((c0["tx_multicast_phy"], c1["rx_multicast_phy"]), (10, 10), "multicast of the ports")
    b.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, member)

with check("all multicast"):
    run(f"ip link set {D1} allmulticast on", B)
    listens("01:00:5e:7f:00:ff")
    d1 = Delta(D1, B)
    send_raw(D0, [raw_frame("01:00:5e:7f:00:%02x" % i, M0, 0x88B5, bytes(50)) for i in range(10)], A)
    until(lambda: d1.take()["rx_packets"] == 10, "multicast of all groups")
    run(f"ip link set {D1} allmulticast off", B)
    listens("01:00:5e:7f:00:ff", False)

with check("broadcast"):
    d0, d1 = Delta(D0, A), Delta(D1, B)
    send_raw(D0, [raw_frame("ff:ff:ff:ff:ff:ff", M0, 0x88B5, bytes(50))] * 10, A)
    until(lambda: d1.take()["rx_packets"] == 10, "broadcast")
    equal(d0.take()["tx_vport_broadcast_packets"], 10, "broadcast sent")
    equal(d1.take()["rx_vport_broadcast_packets"], 10, "broadcast received")

with check("frames for others only when promiscuous"):
    frames = [raw_frame("52:54:00:99:00:%02x" % i, M0, 0x88B5, bytes(50 + i)) for i in range(20)]
    quiet = Capture(D1, "ether proto 0x88b5", B, promisc=False)
    d1 = Delta(D1, B)
    send_raw(D0, frames, A)
    equal(len(quiet.frames()), 0, "frames captured without promiscuous mode")
    equal(d1.take()["rx_packets"], 0, "frames received without promiscuous mode")
    stranger = "52:54:00:99:01:00"
    run(f"ip link set {D1} promisc on", B)
    listens(stranger)
    capture = Capture(D1, "ether proto 0x88b5", B)
    send_raw(D0, frames, A)
    got = capture.frames(len(frames))
    equal([f[:14] for _, f in got], [f[:14] for f in frames], "headers captured")
    equal([l for l, _ in got], [max(60, len(f)) for f in frames], "lengths captured")
    run(f"ip link set {D1} promisc off", B)
    listens(stranger, False)
    d1 = Delta(D1, B)
    send_raw(D0, frames, A)
    time.sleep(0.2)
    equal(d1.take()["rx_packets"], 0, "frames received after promiscuous mode")

with check("another MAC address"):
    run(f"ip link set {D1} address 52:54:00:aa:bb:cc", B)
    run("ip neigh flush all", A)
    works()
    listens(M1, False)
    d1 = Delta(D1, B)
    send_raw(D0, [raw_frame(M1, M0, 0x88B5, bytes(50))] * 5, A)
    time.sleep(0.2)
    equal(d1.take()["rx_packets"], 0, "frames received for the old address")
    run(f"ip link set {D1} address {M1}", B)
    run("ip neigh flush all", A)
    works()

# ------------------------------------------------------------ MTU

with check("MTU 9000"):
    for dev, ns in BOTH:
        run(f"ip link set {dev} mtu 9000", ns)
    wait_carrier()
    for size in (1472, 1473, 4096, 8971, 8972):
        ping(V4 % 2, size, ns=A, more="-M do")
    ping(V4 % 2, 65507, ns=A)
    tcp(V4 % 2, 4 << 20, A, B)
    tcp(V6 % 1, 4 << 20, B, A)
    udp(V4 % 2, (8972, 8973, 65507), A, B)

with check("the greatest MTU"):
    greatest = link_of(D0, A)["max_mtu"]
    require(greatest >= 9000, f"max_mtu is {greatest}")
    for dev, ns in BOTH:
        run(f"ip link set {dev} mtu {greatest}", ns)
    wait_carrier()
    ping(V4 % 2, greatest - 28, ns=A, more="-M do")

with check("frames greater than the peer's MTU are dropped and counted"):
    run(f"ip link set {D1} mtu 1500", B)
    wait_carrier()
    d1 = Delta(D1, B)
    equal(ping(V4 % 2, 8000, 5, ns=A, more="-M do -W 1", lost_ok=True), 0, "answers")
    c1 = d1.take()
    equal(c1["rx_packets"], 0, "packets received")
    equal(c1.get("rx_oversize_pkts_phy", 0) + c1.get("rx_discards_phy", 0), 5, "oversize frames counted")
    ping(V4 % 2, 1472, ns=A)

with check("MTU 1500 again"):
    run(f"ip link set {D0} mtu 1500", A)
    works()

# ------------------------------------------------------------ what can be changed

with check("rings"):
    for rx, tx in ((256, 256), (8192, 8192), (1024, 1024)):
        run(f"ethtool -G {D0} rx {rx} tx {tx}", A)
        ring = json.loads(run(f"ethtool --json -g {D0}", A))[0]
        equal((ring["rx"], ring["tx"]), (rx, tx), "rings")
        works()

with check("channels"):
    for n in (1, 3, 4):
        run(f"ethtool -L {D0} combined {n}", A)
        require(f"Combined:\t{n}\n" in run(f"ethtool -l {D0}", A).split("Current")[1], "channels did not change")
        equal(set(rss_config(D0, A)[1]), set(range(n)), "queues in the indirection table")
        works()

with check("RSS key and indirection"):
    set_rss(D1, f"hkey {':'.join('%02x' % (i * 7 & 255) for i in range(40))} weight 5 1 1 1", B)
    key, table = rss_config(D1, B)
    equal(key, bytes(i * 7 & 255 for i in range(40)), "key")
    require(table.count(0) > 150 and set(table) == {0, 1, 2, 3}, f"table is {table}")
    works()
    set_rss(D1, "default", B)
    equal(rss_config(D1, B)[1], [i % 4 for i in range(256)], "default table")
    works()

with check("ntuple rules"):
    run(f"ethtool -K {D1} ntuple on", B)
    run(f"ethtool -N {D1} flow-type udp4 dst-port 7003 action 3 loc 5", B)
    run(f"ethtool -N {D1} flow-type udp4 dst-port 7004 action -1 loc 6", B)
    text = run(f"ethtool -n {D1}", B)
    require("Total 2 rules" in text, text)
    a, b = new_socket(socket.SOCK_DGRAM, V4 % 2, A), new_socket(socket.SOCK_DGRAM, V4 % 2, B)
    d1 = Delta(D1, B)
    for i in range(50):
        a.sendto(b"x", (V4 % 2, 7003))
    settled((D0, A), (D1, B))
    equal(d1.take()["rx3_packets"], 50, "packets in the queue of the rule")
    d1 = Delta(D1, B)
    for i in range(50):
        a.sendto(b"x", (V4 % 2, 7004))
    settled((D0, A), (D1, B))
    equal(d1.take()["rx_packets"], 0, "packets of the rule that drops")
    run(f"ethtool -N {D1} delete 5", B)
    run(f"ethtool -N {D1} delete 6", B)
    run(f"ethtool -K {D1} ntuple off", B)
    works()

# ------------------------------------------------------------ carrier

with check("admin down takes the peer's carrier"):
    downs = counters(D1, B).get("link_down_events_phy", 0)
    for _ in range(3):
        run(f"ip link set {D0} down", A)
        until(lambda: not carrier(D1, B), "loss of carrier")
        text = run(f"ethtool {D1}", B)
        require("Link detected: no" in text, text)
        run(f"ip link set {D0} up", A)
        until(lambda: carrier(D1, B), "carrier")
        until(lambda: carrier(D0, A), "carrier")
    require("Link detected: yes" in run(f"ethtool {D1}", B), "no link")
    run(f"ip addr add {V6 % 1}/64 dev {D0} nodad", A)  # IPv6 addresses go with the interface
    works()
    equal(counters(D1, B).get("link_down_events_phy", 0) - downs, 3, "times that the link went down")

with check("no errors were counted"):
    for dev, ns in BOTH:
        c = counters(dev, ns)
        for name in ("rx_wqe_err", "tx_cqe_err", "tx_recover", "rx_recover", "rx_buff_alloc_err", "tx_queue_dropped"):
            equal(c[name], 0, f"{name} of {dev}")
        health = run("devlink health show")
        require("error 0" in health and "state error" not in health, health)

finish()
