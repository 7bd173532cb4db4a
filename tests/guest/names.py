"""Names that systemd-udevd gives the netdevs: from the slot, the port and the representor's
port name, the same after every reload. The guest has the package udev."""

from lab import *


def settle():
    run("udevadm trigger --action=add --subsystem-match=net --subsystem-match=auxiliary")
    run("udevadm settle --timeout=60", seconds=90)


def named(name, what):
    until(lambda: os.path.exists(f"/sys/class/net/{name}"), f"{what} with the name {name}", 20)
    return name


def udev(name):
    lines = run(f"udevadm info /sys/class/net/{name}").splitlines()
    return dict(l[3:].split("=", 1) for l in lines if l.startswith("E: "))


# Before 6.11 mlx5_ib makes XRC queues when it is loaded, which the device does not have; udevd
# loads it for every function, and switchdev mode needs what it has loaded.
HAS_RDMA = KERNEL >= (6, 11)
if not HAS_RDMA:
    os.makedirs("/etc/modprobe.d", exist_ok=True)
    with open("/etc/modprobe.d/mlx5_ib.conf", "w") as f:
        f.write("blacklist mlx5_ib\n")

with check("systemd-udevd runs"):
    subprocess.run(["/usr/lib/systemd/systemd-udevd", "--daemon"], check=True)
    settle()

# 0000:01:00.1 is enp1s0f1, and port 1 of that function np1.
BASE = [f"enp{int(pci[5:7], 16)}s{int(pci[8:10], 16)}f{pci[-1]}" for pci in PF]

with check("names of the functions"):
    for i, pci in enumerate(PF):
        dev = netdev_of(pci)
        value(f"function{i}", {"name": dev, "properties": {k: v for k, v in udev(dev).items() if k.startswith("ID_NET")}})
        port = read(f"/sys/class/net/{dev}/phys_port_name")
        equal(port, f"p{i}", "phys_port_name")
        named(f"{BASE[i]}np{i}", pci)

def rdma():
    """Waits for mlx5_ib at both functions. Before and while it is on its way to a function in
    switchdev mode, the kernel makes no representors there, and 6.12 does not make up for it."""
    devices = "/sys/class/infiniband"
    if HAS_RDMA:
        until(lambda: os.path.isdir(devices) and len(os.listdir(devices)) == len(PF), "both RDMA devices")


with check("names of the uplink and of representors in switchdev mode"):
    rdma()
    switchdev(PF[0])
    run("udevadm settle --timeout=60", seconds=90)
    named(f"{BASE[0]}np0", "the uplink")
    rdma()
    # A name has 15 characters: in this slot there is room for SF numbers of one digit.
    sfs = [Sf(PF[0], n, f"00:00:00:00:02:{n:02x}") for n in (8, 9)]
    run("udevadm settle --timeout=60", seconds=90)
    for sf in sfs:
        equal(port_of(sf.handle)["netdev"], named(f"{BASE[0]}npf0sf{sf.sfnum}", "the representor"), "netdev of the port")

with check("names of SFs' netdevs"):
    for sf in sfs:
        sf.activate()
        sf.start()
        run("udevadm settle --timeout=60", seconds=90)
        sf.dev = sf._dev()
        value(f"sf{sf.sfnum}", {"name": sf.dev, "properties": {k: v for k, v in udev(sf.dev).items() if k.startswith("ID_NET")}})
        # Its parent is no PCI function but an auxiliary device, for which udev has no path
        # names: the address is what can name it.
        equal(udev(sf.dev).get("ID_NET_NAME_MAC"), f"enx00000000020{sf.sfnum}", "the name by address")
        require("ID_NET_NAME_PATH" not in udev(sf.dev), "udev has a path name for an SF now: check it here")

with check("the same names after a reload"):
    before = sorted(n for n in os.listdir("/sys/class/net") if n.startswith("enp"))
    for sf in sfs:
        run(f"devlink dev reload auxiliary/{sf.aux}")
    run("udevadm settle --timeout=60", seconds=90)
    equal(sorted(n for n in os.listdir("/sys/class/net") if n.startswith("enp")), before, "names")
    for sf in sfs:
        sf.delete()
    switchdev(PF[0], "legacy")
    run("udevadm settle --timeout=60", seconds=90)
    named(f"{BASE[0]}np0", "the function in legacy mode")
    run(f"devlink dev reload pci/{PF[1]}")
    run("udevadm settle --timeout=60", seconds=90)
    named(f"{BASE[1]}np1", "the other function")

finish()
