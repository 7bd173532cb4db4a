"""One flow from an SF to another through a router: the guest's kernel between the two
representors, or the device by tc's rules that do the same. For `sfnic bench offload`, which
says by PLAN what to measure, and reads a `value run` for each measurement.

Both ways the receiver gets the same frames. Its own counters tell what arrived. UDP frames end
in the receiver's driver, by an XDP program that drops them: what a socket would do with them
is no part of it."""

from lab import *
from xdp import Program

needs_sfs()
needs_tc()

PLAN = json.loads(os.environ["PLAN"])
X, Y = "10.1.0.2", "10.2.0.2"
UDP_PORT, TCP_PORT = 9, 5201
# Frames that pktgen sends at once; its pauses are between bursts.
BURST = 16

quieten()
for ns in "xy":
    add_ns(ns)
switchdev(PF[0])
sfs = [Sf(PF[0], 88 + i, f"00:00:00:00:88:0{i}") for i in range(2)]
for i, (sf, ns) in enumerate(zip(sfs, "xy")):
    sf.up(ns, f"10.{i + 1}.0.2/24")
    set_up(sf.rep, f"10.{i + 1}.0.1/24")
    run(f"ethtool -K {sf.rep} hw-tc-offload on")
    run(f"tc qdisc add dev {sf.rep} clsact")
    until(lambda: carrier(sf.dev, ns) and carrier(sf.rep), f"the carrier of {sf.dev} and {sf.rep}")
    # Nobody asks for an address while frames are counted.
    run(f"ip neigh replace 10.{i + 1}.0.1 lladdr {mac_of(sf.rep)} dev {sf.dev} nud permanent", ns)
    run(f"ip neigh replace 10.{i + 1}.0.2 lladdr {mac_of(sf.dev, ns)} dev {sf.rep} nud permanent")
    run(f"ip route add default via 10.{i + 1}.0.1", ns)
x, y = sfs
write("/proc/sys/net/ipv4/ip_forward", "1")
# Only when all is up do frames count.
until(lambda: ping(Y, 1400, ns="x", lost_ok=True) == 2, "an answer through the router")


def arrived():
    """When, and the frames and bytes that the receiver has so far; of dropped frames no bytes."""
    now = counters(y.dev, "y")
    return time.monotonic(), now["rx_packets"] + now["rx_xdp_drop"], now["rx_bytes"]


def slow():
    """Frames that the kernel has got from the two representors."""
    return sum(counters(sf.rep)["rx_packets"] for sf in sfs)


def rules():
    """One rule a way: what a router does to a frame, and out at the other representor."""
    for a, b, to in ((x, y, Y), (y, x, X)):
        run(f"tc filter add dev {a.rep} ingress protocol ip prio 1 flower skip_sw dst_ip {to} "
            f"action pedit ex munge eth src set {mac_of(b.rep)} munge eth dst set {mac_of(b.dev, b.ns)} munge ip ttl dec pipe "
            f"action csum ip pipe action mirred egress redirect dev {b.rep}")
        require(shown(a).get("in_hw"), f"the rule at {a.rep} is not in hardware")


def shown(sf):
    filters = json.loads(run(f"tc -s -j filter show dev {sf.rep} ingress"))
    return next(f["options"] for f in filters if "keys" in f.get("options", {}))


def no_rules():
    for sf in sfs:
        run(f"tc filter del dev {sf.rep} ingress")


def pktgen(file, *lines):
    with inside("x"):
        for line in lines:
            write(f"/proc/thread-self/net/pktgen/{file}", line + "\n")


@contextlib.contextmanager
def udp_frames(size, rate):
    """Frames of `size` bytes without their check sequence, as fast as can be or at a rate."""
    pace = [f"ratep {max(1, round(rate / BURST))}"] if rate else ["delay 0"]
    pktgen(x.dev, f"pkt_size {size}", "count 0", "clone_skb 1000", f"burst {BURST}", f"dst {Y}", f"dst_mac {mac_of(x.rep)}",
           f"udp_dst_min {UDP_PORT}", f"udp_dst_max {UDP_PORT}", *pace)
    with inside("x"):
        sender = subprocess.Popen(["sh", "-c", "echo start > /proc/net/pktgen/pgctrl"])
    try:
        yield
    finally:
        pktgen("pgctrl", "stop")
        sender.wait(60)


@contextlib.contextmanager
def tcp_stream():
    """As much TCP as can be."""
    with inside("y"):
        server = subprocess.Popen(["iperf3", "-s", "-1", "-p", str(TCP_PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    def listening():
        with inside("y"):
            return any(f":{TCP_PORT:04X} " in line for line in read("/proc/thread-self/net/tcp").splitlines() + read("/proc/thread-self/net/tcp6").splitlines())
    until(listening, "the receiver")
    with inside("x"):
        client = subprocess.Popen(["iperf3", "-c", Y, "-p", str(TCP_PORT), "-t", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        for p in (client, server):
            p.terminate()
            p.wait(60)


def once(mode, traffic, size, flow, paced):
    """One measurement; the frames a second that arrived."""
    quiet()
    with flow:
        time.sleep(0.5)
        kernel = slow()
        t0, f0, b0 = arrived()
        time.sleep(PLAN["seconds"])
        t1, f1, b1 = arrived()
        kernel = slow() - kernel
    fps = (f1 - f0) / (t1 - t0)
    count = b1 - b0 if traffic == "tcp" else (f1 - f0) * size
    say(f"{mode} {traffic} {size}{' paced' if paced else ''}: {fps:.0f} frames a second, {kernel} by the kernel")
    require(f1 > f0, f"nothing arrived of {traffic} {size}, {mode}")
    if mode == "offloaded":
        # Frames that were under way, none of the flow's.
        require(kernel <= (f1 - f0) // 1000, f"the kernel got {kernel} frames of {f1 - f0} that rules should have switched")
    else:
        require(kernel >= (f1 - f0) * 0.9, f"the kernel got {kernel} frames of {f1 - f0} that it should have switched")
    value("run", dict(mode=mode, traffic=traffic, size=size, paced=paced, seconds=t1 - t0, frames=f1 - f0, bytes=count, kernel_frames=kernel))
    return fps


def quiet():
    """Waits until nothing arrives any more."""
    last = None
    for _ in range(200):
        last, before = arrived()[1], last
        if last == before:
            return
        time.sleep(0.1)
    raise Wrong("frames of the last measurement still arrive")


def measure(mode, traffic, size):
    if traffic == "tcp":
        once(mode, traffic, size, tcp_stream(), False)
        return
    with drop.on(y.dev, "y"):
        until(lambda: carrier(y.dev, "y"), f"the carrier of {y.dev}")
        fps = once(mode, traffic, size, udp_frames(size, None), False)
        # A sender that outruns the router takes its CPU: the same with little more than arrived.
        once(mode, traffic, size, udp_frames(size, fps * 1.2), True)


with check("the flow by the kernel and by the device"):
    r = attempt("modprobe pktgen")
    require(r.status == 0, f"{os.uname().release} has no pktgen: it needs CONFIG_NET_PKTGEN")
    pktgen("kpktgend_0", "rem_device_all", f"add_device {x.dev}")
    drop = Program(Program.DROP)
    for turn in range(PLAN["repeat"]):
        for traffic, size in [("udp", size) for size in PLAN["sizes"]] + [("tcp", 0)]:
            for mode in ("software", "offloaded") if turn % 2 == 0 else ("offloaded", "software"):
                if mode == "offloaded":
                    rules()
                measure(mode, traffic, size)
                if mode == "offloaded":
                    packets = lambda: shown(x)["actions"][0]["stats"].get("hw_packets", 0)
                    until(lambda: packets() > 0, "packets in the rule's hardware counter")
                    no_rules()
finish()
