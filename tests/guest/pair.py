"""Both functions, each in a namespace of its own, at the two ends of the cable."""

from lab import *

A, B = "a", "b"
FOUR = "10.0.0.%d"

for ns in (A, B):
    add_ns(ns)


def connect():
    """The netdevs of both in their namespaces, with addresses and a carrier."""
    devs = [netdev_of(pci) for pci in PF]
    for ns, dev, n in ((A, devs[0], 1), (B, devs[1], 2)):
        run(f"ip link set {dev} netns {ns}")
        set_up(dev, FOUR % n + "/24", ns=ns)
    for ns, dev in ((A, devs[0]), (B, devs[1])):
        until(lambda: carrier(dev, ns), f"the carrier of {dev}")
    return devs


def traffic():
    ping(FOUR % 2, 1000, ns=A)
    tcp(FOUR % 2, 1 << 19, A, B)
