"""What tests of kinds of queues share: both families between the functions, and counters of both
ends that have nothing wrong in them."""

from pair import *

SIX = "fd00::%d"


def both_families(devs):
    for n, ns in ((0, A), (1, B)):
        attempt(f"ip addr add {SIX % (n + 1)}/64 dev {devs[n]} nodad", ns)


def private(devs, name, state):
    """Sets a flag of both and checks it."""
    for dev, ns in zip(devs, (A, B)):
        run(f"ethtool --set-priv-flags {dev} {name} {state}", ns)
        equal(private_flag(dev, name, ns), state, name)
    meet(devs)


def ring(devs, size):
    """Sets the size of both receive rings."""
    for dev, ns in zip(devs, (A, B)):
        run(f"ethtool -G {dev} rx {size}", ns)
    meet(devs)


def mtu(devs, size):
    for dev, ns in zip(devs, (A, B)):
        run(f"ip link set {dev} mtu {size}", ns)
    meet(devs)


def lro(devs, n, state):
    """Switches LRO of a function and checks that it is as wanted."""
    ns = (A, B)[n]
    run(f"ethtool -K {devs[n]} lro {state}", ns)
    got = json.loads(run(f"ethtool --json -k {devs[n]}", ns))[0]["large-receive-offload"]["active"]
    equal(got, state == "on", "LRO")


def no_checksum_errors():
    """Nobody has ever got a wrong checksum."""
    for ns in (A, B):
        text = run("nstat -asz UdpInCsumErrors TcpInCsumErrors IcmpInCsumErrors", ns)
        equal(re.findall(r"(\d+) +0\.0", text), ["0", "0", "0"], "checksum errors")


def deltas(devs):
    return Delta(devs[0], A), Delta(devs[1], B)


def sound(*deltas):
    """Nothing went wrong in the driver's queues; returns what was counted."""
    settled(*((d.dev, d.ns) for d in deltas))
    found = [d.take() for d in deltas]
    for c in found:
        for name in ("rx_wqe_err", "rx_recover", "tx_recover", "rx_buff_alloc_err", "tx_cqe_err"):
            equal(c.get(name, 0), 0, name)
        equal(c.get("rx_oversize_pkts_sw_drop", c.get("rx_oversize_pkts_sw", 0)), 0, "frames longer than the MTU")
    return found


def streams(size=4 << 20):
    """TCP both ways, by both families."""
    for to, src, dst in ((FOUR % 2, A, B), (FOUR % 1, B, A), (SIX % 2, A, B), (SIX % 1, B, A)):
        say(f"  {to} {tcp(to, size, src, dst):.0f} Mbit/s")


def traffic_of_all_kinds(sizes, size=4 << 20):
    """Echoes and datagrams of all these sizes, and streams."""
    for n in sizes:
        ping(FOUR % 2, n, ns=A)
    udp(FOUR % 2, sizes, A, B)
    udp(SIX % 1, sizes[:-1], B, A)
    streams(size)
