"""Both functions, each in a namespace of its own, at the two ends of the cable."""

import re

from lab import *

A, B = "a", "b"
FOUR = "10.0.0.%d"

for ns in (A, B):
    add_ns(ns)


def join(n):
    """The netdev of a function in its namespace, with an address."""
    until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{PF[n]}/net"), f"a netdev of {PF[n]}")
    dev = netdev_of(PF[n])
    ns = (A, B)[n]
    run(f"ip link set {dev} netns {ns}")
    set_up(dev, FOUR % (n + 1) + "/24", ns=ns)
    return dev


def devices(n):
    """The netdevs of a function in its namespace."""
    return netdevs_inside((A, B)[n], PF[n])


def meet(devs):
    """Both have a carrier."""
    for ns, dev in zip((A, B), devs):
        until(lambda: carrier(dev, ns), f"the carrier of {dev}")


def connect():
    """The netdevs of both in their namespaces, with addresses and a carrier."""
    devs = [join(0), join(1)]
    meet(devs)
    return devs


def reload():
    """The driver goes and comes back, and so do both netdevs."""
    run("modprobe -r mlx5_ib mlx5_core")
    run("modprobe mlx5_core")
    return connect()


def reporter(pci, name):
    """A health reporter of a function."""
    return devlink(f"health show pci/{pci} reporter {name}")["health"][f"pci/{pci}"][0]


def vectors(pci, kind):
    """The interrupt vectors of a function that are for `kind`, "async" or "comp": which of them
    is which has changed between kernels."""
    lines = [line for line in read("/proc/interrupts").splitlines() if f"mlx5_{kind}" in line and pci in line]
    # Its number among all of the machine (before 6.2) has the vector in the low bits.
    found = [int(re.search(r"(\d+)-edge", line)[1]) & 0x7FF for line in lines]
    require(found, f"no {kind} interrupt of {pci}")
    return found


def traffic():
    """Frames of all sizes, both ways, and what they carry is whole."""
    ping(FOUR % 2, 1000, ns=A)
    tcp(FOUR % 2, 1 << 19, A, B)
