"""What the scripts of offloaded flows share: one function's eswitch with SFs, the other one as
the far end of the cable; rules of tc with their hardware counters; frames byte by byte."""

import gzip

from lab import *
from frames import checksum

needs_sfs()
needs_tc()

PEER = "peer"


def option(name):
    """Whether the kernel was built with an option; a stock kernel tells nothing."""
    try:
        with gzip.open("/proc/config.gz", "rt") as f:
            return any(line.startswith((f"CONFIG_{name}=y", f"CONFIG_{name}=m")) for line in f)
    except OSError:
        return False


class Switch:
    """PF0 in switchdev mode with some SFs, each in a namespace; PF1 in a namespace."""

    def __init__(self, sfs, mtu=None):
        quieten()
        add_ns(PEER)
        for pci in PF:
            until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{pci}/net"), f"a netdev of {pci}")
        self.far = netdev_of(PF[1])
        run(f"ip link set {self.far} netns {PEER}")
        run(f"ip link set {self.far} up", ns=PEER)
        switchdev(PF[0])
        self.uplink = netdev_of(PF[0])
        run(f"ip link set {self.uplink} up")
        self.sfs = [Sf(PF[0], 10 + i, f"00:00:00:00:02:{i:02x}") for i in range(sfs)]
        for i, sf in enumerate(self.sfs):
            sf.activate()
            sf.start()
            sf.into(add_ns(f"s{i}"), mtu=mtu)
            run(f"ip link set {sf.rep} up")
        until(lambda: carrier(self.uplink) and carrier(self.far, PEER), "the carrier of the cable")
        for sf in self.sfs:
            until(lambda: carrier(sf.dev, sf.ns), f"the carrier of {sf.dev}")
        for dev in [self.uplink] + [sf.rep for sf in self.sfs]:
            run(f"ethtool -K {dev} hw-tc-offload on")
            run(f"tc qdisc add dev {dev} ingress")

    def software(self):
        """Frames that netdevs of the host's side have seen in software: the uplink's and the
        representors' own counters, not those of the vports behind them."""
        seen = {}
        for dev in [self.uplink] + [sf.rep for sf in self.sfs]:
            now = counters(dev)
            seen[dev] = now["rx_packets"] + now["tx_packets"]
        return seen

    @contextlib.contextmanager
    def in_hardware(self, most=2):
        """What happens inside is nothing that software sees, but for so many frames a netdev: a
        question for a neighbour comes when it is due."""
        before = self.software()
        yield
        after = self.software()
        grown = {d: after[d] - before[d] for d in before if after[d] - before[d] > most}
        require(not grown, f"frames that software saw: {grown}, at most {most} were to be expected")


def neighbour(dev, address, mac, ns=None):
    """An address that needs no asking."""
    run(f"ip neigh replace {address} lladdr {mac} dev {dev} nud permanent", ns)


class Rule:
    """A filter of tc at the ingress of a netdev."""

    _next = iter(range(1, 30000))

    def __init__(self, dev, match, actions, protocol="ip", chain=0, pref=None, kind="flower"):
        self.dev, self.chain = dev, chain
        self.pref = pref or next(self._next)
        run(f"tc filter add dev {dev} ingress chain {chain} protocol {protocol} pref {self.pref} {kind} {match} {actions}")

    def show(self):
        shown = json.loads(run(f"tc -j -s filter show dev {self.dev} ingress chain {self.chain} pref {self.pref}"))
        found = [f["options"] for f in shown if f.get("options", {}).get("actions")]
        require(found, f"no rule {self.pref} at {self.dev}: {shown}")
        return found[0]

    def offloaded(self):
        """It has to be in hardware."""
        options = self.show()
        require(options.get("in_hw") and options.get("in_hw_count", 1) > 0, f"not in hardware: {options}")
        return self

    def counted(self):
        """Packets and bytes that hardware has counted. The driver asks for them now and then."""
        stats = self.show()["actions"][-1]["stats"]
        return stats.get("hw_packets", 0), stats.get("hw_bytes", 0)

    @contextlib.contextmanager
    def counts(self, packets, octets=None):
        """What happens inside is so many packets and bytes in hardware, no more and no fewer."""
        # The driver asks the device once a second: what was sent before may still come.
        before = self.settled()
        yield
        until(lambda: self.counted()[0] - before[0] >= packets, f"{packets} packets on the counter of {self.dev} {self.pref}", 30)
        got = tuple(a - b for a, b in zip(self.settled(), before))
        want = (packets, got[1] if octets is None else octets)
        equal(got, want, f"packets and bytes on the hardware counter of {self.dev} {self.pref}")

    def settled(self):
        last = None
        while last != (last := self.counted()):
            time.sleep(1.2)
        return last

    def delete(self):
        run(f"tc filter del dev {self.dev} ingress chain {self.chain} pref {self.pref}")


def flush(*devs):
    """No rules any more, of any chain."""
    for dev in devs:
        run(f"tc qdisc del dev {dev} ingress")
        run(f"tc qdisc add dev {dev} ingress")


# ---------------------------------------------------------------- frames

_send_raw = send_raw


def send_raw(dev, frames, ns=None):
    """Sends frames as they are, in this order: one CPU has one send queue."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        _send_raw(dev, frames, ns)
    finally:
        os.sched_setaffinity(0, cpus)


def mac_bytes(mac):
    return bytes.fromhex(mac.replace(":", ""))


def ip_header(src, dst, protocol, length, ttl=64, ident=0, flags=0, tos=0):
    """IPv4 or IPv6 before `length` bytes."""
    a, b = (socket.inet_pton(family_of(x), x) for x in (src, dst))
    if family_of(src) == socket.AF_INET6:
        return struct.pack(">IHBB", 6 << 28 | tos << 20, length, protocol, ttl) + a + b
    head = struct.pack(">BBHHHBBH", 0x45, tos, 20 + length, ident, flags, ttl, protocol, 0) + a + b
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:]


def udp_packet(src, dst, sport, dport, payload, **ip):
    """IP and UDP with a right checksum."""
    size = 8 + len(payload)
    a, b = (socket.inet_pton(family_of(x), x) for x in (src, dst))
    head = struct.pack(">HHHH", sport, dport, size, 0)
    total = checksum(a + b + struct.pack(">II", size, 17) + head + payload) or 0xFFFF
    return ip_header(src, dst, 17, size, **ip) + head[:6] + struct.pack(">H", total) + payload


def udp_frame(dmac, smac, src, dst, sport, dport, payload, **ip):
    ethertype = 0x86DD if ":" in src else 0x0800
    return raw_frame(dmac, smac, ethertype, udp_packet(src, dst, sport, dport, payload, **ip))
