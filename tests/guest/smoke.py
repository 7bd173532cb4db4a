"""Both functions probe, and frames cross the cable."""

from lab import *

A, B = "a", "b"
D = [netdev_of(pci) for pci in PF]

with check("carrier"):
    for ns, dev, n in ((A, D[0], 1), (B, D[1], 2)):
        add_ns(ns)
        run(f"ip link set {dev} netns {ns}")
        set_up(dev, f"10.0.0.{n}/24", ns=ns)
    for ns, dev in ((A, D[0]), (B, D[1])):
        until(lambda: carrier(dev, ns), f"the carrier of {dev}")

with check("ping"):
    for size in (0, 1472, 9000):
        ping("10.0.0.2", size, ns=A)

with check("tcp both ways"):
    tcp("10.0.0.2", 1 << 20, A, B)
    tcp("10.0.0.1", 1 << 20, B, A)

finish()
