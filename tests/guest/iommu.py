"""Both functions behind an IOMMU that takes every mapping away at once: the driver's rings,
buffers and pages are mapped page by page, and nothing else is there."""

from lab import *
from fabric import PEER, Fabric

GROUPS = [os.path.realpath(f"/sys/bus/pci/devices/{pci}/iommu_group") for pci in PF]

with check("the functions are behind the IOMMU, strictly"):
    for group in GROUPS:
        equal(read(f"{group}/type"), "DMA", f"domain of {group}")
    line = read("/proc/cmdline")
    require("iommu.strict=1" in line, line)

D0, D1 = netdev_of(PF[0]), netdev_of(PF[1])
add_ns(PEER)
run(f"ip link set {D1} netns {PEER}")
set_up(D0, "10.0.0.1/24", "fd00::1/64")
set_up(D1, "10.0.0.2/24", "fd00::2/64", ns=PEER)


def traffic(size=1 << 19):
    until(lambda: carrier(D0) and carrier(D1, PEER), "carrier", 30)
    for length in (0, 1472, 9000, 30000):
        ping("10.0.0.2", length)
    tcp("10.0.0.2", size, None, PEER)
    tcp("fd00::1", size, PEER, None)
    udp("10.0.0.2", (1, 1472, 4000, 20000), None, PEER)


with check("traffic"):
    traffic(1 << 20)

with check("traffic with jumbo frames"):
    for dev, ns in ((D0, None), (D1, PEER)):
        run(f"ip link set {dev} mtu 9000", ns)
    traffic()
    for dev, ns in ((D0, None), (D1, PEER)):
        run(f"ip link set {dev} mtu 1500", ns)

with check("down and up, other rings"):
    for rings in (256, 1024):
        run(f"ethtool -G {D0} rx {rings} tx {rings}")
        run(f"ip link set {D0} down")
        run(f"ip link set {D0} up")
        run("ip addr replace fd00::1/64 dev " + D0 + " nodad")
        traffic(1 << 18)

with check("rmmod and modprobe"):
    run("modprobe -r mlx5_ib")
    run("modprobe -r mlx5_core", seconds=120)
    run("modprobe mlx5_core", seconds=120)
    for pci in PF:
        until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{pci}/net"), f"a netdev of {pci}", 60)
    dev = netdev_of(PF[1])
    run(f"ip link set {dev} netns {PEER}")
    set_up(netdev_of(PF[0]), "10.0.0.1/24", "fd00::1/64")
    set_up(dev, "10.0.0.2/24", "fd00::2/64", ns=PEER)
    traffic(1 << 18)
    run(f"ip addr flush dev {D0}")
    run(f"ip netns del {PEER}")
    until(lambda: netdev_of(PF[1]), "the netdev's return")

with check("switchdev and SFs"):
    f = Fabric()
    f.traffic(1 << 17)

finish()
