"""Open vSwitch with hw-offload=true between SF representors and the uplink: what it learns of
flows goes into hardware, and software sees no more of them; also through VXLAN."""

from offload import *

ADDRESSES = {"a": "10.3.0.1", "b": "10.3.0.2", "far": "10.3.0.100"}
RUN = "/var/run/openvswitch"

# Since then tc matches on the flags of tunnels, and Open vSwitch 3.5 does for every one. The driver
# has no such match (mlx5e_tc_tun_parse() refuses it): tunnels that end here are then software's.
FLAGS = KERNEL >= (6, 11)

net = Switch(2)
A, B = net.sfs


def program(name):
    """Where the package has it; nobody made the links of its alternatives."""
    for at in ("/usr/sbin", "/usr/bin", "/usr/lib/openvswitch-switch", "/usr/lib/openvswitch-common"):
        if os.path.exists(f"{at}/{name}"):
            return f"{at}/{name}"
    raise Wrong(f"there is no {name}")


def vsctl(words):
    return run(f"ovs-vsctl --timeout=60 {words}")


def flows(kind="offloaded"):
    """Flows of the datapath; those without packets do not matter."""
    return [l for l in run(f"ovs-appctl dpctl/dump-flows type={kind}").splitlines() if "packets:" in l]


def packets(line):
    return int(line.split("packets:")[1].split(",")[0])


def begin():
    for at in (RUN, "/etc/openvswitch", "/var/log/openvswitch"):
        os.makedirs(at, exist_ok=True)
    run("modprobe openvswitch")
    run("ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema")
    # Their output is not waited for: daemons keep it open.
    detached = dict(check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([program("ovsdb-server"), f"--remote=punix:{RUN}/db.sock", "--pidfile", "--detach", "--log-file"], **detached)
    run("ovs-vsctl --no-wait init")
    run("ovs-vsctl --no-wait set Open_vSwitch . other_config:hw-offload=true")
    subprocess.run([program("ovs-vswitchd"), "--pidfile", "--detach", "--log-file"], **detached)


def all_offloaded(src, dst, traffic):
    """IPv4 flows of both directions are in hardware, and none of the two is in software, once
    there was enough traffic: what goes idle before it is in hardware is given up."""
    def there():
        traffic()
        macs = (src, dst)
        mine = lambda kind: [f for f in flows(kind) if "eth_type(0x0800)" in f and all(m in f for m in macs) and packets(f) > 0]
        return len(mine("offloaded")) >= 2 and not mine("non-offloaded")
    until(there, f"flows between {src} and {dst} in hardware")


def bypass(address, src, dst, srcmac, dstmac):
    """Traffic between two ends: after its first packets hardware has it all."""
    # A frame may be on its way through software while its flow goes to hardware.
    all_offloaded(srcmac, dstmac, lambda: ping(address, ns=src, more="-i 0.2 -W 2", count=5, lost_ok=True))
    # Unasked ARP, and what revalidates a flow, may come.
    with net.in_hardware(most=30):
        tcp(address, 4 << 20, src, dst)
        udp(address, range(100, 1400, 13), src, dst)
    # 4 MiB of TCP in one direction, and the datagrams.
    counted = lambda: sum(packets(f) for f in flows() if f"eth(src={srcmac},dst={dstmac})" in f)
    until(lambda: counted() > 2900, "the counters of flows in hardware", 30)


with check("Open vSwitch runs"):
    # Its tc rules are its own.
    for dev in [net.uplink] + [sf.rep for sf in net.sfs]:
        run(f"tc qdisc del dev {dev} ingress")
    begin()
    vsctl("add-br br0")
    for dev in [net.uplink] + [sf.rep for sf in net.sfs]:
        vsctl(f"add-port br0 {dev}")
    for sf, end in ((A, "a"), (B, "b")):
        run(f"ip addr add {ADDRESSES[end]}/24 dev {sf.dev}", sf.ns)
    run(f"ip addr add {ADDRESSES['far']}/24 dev {net.far}", PEER)
    value("version", run("ovs-vsctl --version").splitlines()[0])

MACS = {"a": mac_of(A.dev, A.ns), "b": mac_of(B.dev, B.ns), "far": mac_of(net.far, PEER)}
SPACES = {"a": A.ns, "b": B.ns, "far": PEER}

for src, dst in (("a", "b"), ("a", "far"), ("far", "b")):
    with check(f"from {src} to {dst}"):
        bypass(ADDRESSES[dst], SPACES[src], SPACES[dst], MACS[src], MACS[dst])

with check("an OpenFlow rule that changes takes effect"):
    a, b = (new_socket(socket.SOCK_DGRAM, ADDRESSES["b"], ns) for ns in (A.ns, B.ns))
    b.bind((ADDRESSES["b"], 7))
    b.settimeout(1)

    def comes():
        a.sendto(b"x", (ADDRESSES["b"], 7))
        try:
            return b.recv(10) == b"x"
        except TimeoutError:
            return False

    until(comes, "a datagram")
    run("ovs-ofctl add-flow br0 priority=100,udp,tp_dst=7,actions=drop")
    until(lambda: not comes(), "the rule")
    # In hardware, that is: software sees none of what is dropped.
    dropped = lambda: any("actions:drop" in f and "udp" in f for f in flows())
    until(lambda: not comes() and dropped(), "the rule in hardware")
    with net.in_hardware(most=2):
        for _ in range(50):
            a.sendto(b"x", (ADDRESSES["b"], 7))
    run("ovs-ofctl --strict del-flows br0 priority=100,udp,tp_dst=7")
    until(comes, "a datagram once the rule has gone")

with check("connection tracking"):
    needs("mlx5_tc_ct_init", "CONFIG_MLX5_TC_CT")
    for flow in ("priority=10,ip,ct_state=-trk,actions=ct(table=1)", "priority=1,actions=NORMAL",
                 "table=1,priority=10,ip,ct_state=+trk+new,actions=ct(commit),NORMAL",
                 "table=1,priority=10,ip,ct_state=+trk+est,actions=NORMAL", "table=1,priority=1,actions=drop"):
        run(["ovs-ofctl", "add-flow", "br0", flow])
    c = new_socket(socket.SOCK_STREAM, ADDRESSES["b"], B.ns)
    c.bind((ADDRESSES["b"], 6000))
    c.listen(1)
    out = new_socket(socket.SOCK_STREAM, ADDRESSES["b"], A.ns)
    out.connect((ADDRESSES["b"], 6000))
    back, _ = c.accept()

    def megabyte(a, b):
        sender = threading.Thread(target=a.sendall, args=(b"m" * (1 << 20),), daemon=True)
        sender.start()
        got = 0
        while got < 1 << 20:
            got += len(b.recv(1 << 16))
        sender.join(10)

    def quiet():
        before = net.software()
        megabyte(out, back)
        megabyte(back, out)
        after = net.software()
        return all(after[d] - before[d] < 20 for d in before)

    until(quiet, "two megabytes that software does not see", 60)
    require(any("ct_state(" in f for f in flows()), f"no tracked flow in hardware: {flows()}")
    for s in (out, back, c):
        s.close()
    run("ovs-ofctl del-flows br0")
    run("ovs-ofctl add-flow br0 actions=NORMAL")

with check("VXLAN between the two ends of the cable"):
    vsctl(f"del-port br0 {net.uplink}")
    set_up(net.uplink, "172.16.0.1/24")
    run(f"ip addr flush dev {net.far}", PEER)
    set_up(net.far, "172.16.0.2/24", ns=PEER)
    vsctl("add-port br0 vx0 -- set interface vx0 type=vxlan options:local_ip=172.16.0.1 options:remote_ip=172.16.0.2 options:key=42")
    run("ip link add vx type vxlan id 42 local 172.16.0.2 remote 172.16.0.1 dstport 4789", PEER)
    set_up("vx", f"{ADDRESSES['far']}/24", ns=PEER, mtu=1400)
    for sf in net.sfs:
        run(f"ip link set {sf.dev} mtu 1400", sf.ns)
        run(f"ip neigh flush dev {sf.dev}", sf.ns)
    for end, sf in (("a", A), ("b", B)):
        if not FLAGS:
            bypass(ADDRESSES["far"], sf.ns, PEER, MACS[end], mac_of("vx", PEER))
            continue
        # Out in hardware, in by software.
        ping(ADDRESSES["far"], ns=sf.ns, more="-i 0.2 -W 5", count=5)
        mine = lambda kind, mark: [f for f in flows(kind) if mark in f and MACS[end] in f and "eth_type(0x0800)" in f]
        until(lambda: mine("offloaded", "set(tunnel(") and mine("non-offloaded", "),tunnel("), "a flow each way", 30)
        tcp(ADDRESSES["far"], 1 << 20, sf.ns, PEER)
        tcp(ADDRESSES[end], 1 << 20, PEER, sf.ns)
        until(lambda: sum(packets(f) for f in mine("offloaded", "set(tunnel(")) > 700, "the counter of the flow out", 30)

with check("flows go with the bridge"):
    vsctl("del-br br0")
    left = run(f"tc -j filter show dev {A.rep} ingress")
    require(json.loads(left or "[]") == [], f"rules that are left: {left}")

finish()
