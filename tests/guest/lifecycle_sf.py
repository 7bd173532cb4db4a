"""The same with switchdev on and four attached SFs that carry traffic."""

from lab import *

PEER = "peer"
SFS = 4


class Fabric:
    """PF1 in a namespace; PF0's uplink and four SFs on a bridge, each SF in a namespace."""

    def __init__(self):
        for pci in PF:
            until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{pci}/net"), f"a netdev of {pci}", 30)
        dev = netdev_of(PF[1])
        run(f"ip link set {dev} netns {PEER}")
        set_up(dev, "10.0.0.100/24", ns=PEER)
        switchdev(PF[0])
        self.sfs = [Sf(PF[0], 100 + i, f"00:00:00:00:01:{i:02x}") for i in range(SFS)]
        for sf in self.sfs:
            sf.activate()
        all_of([sf.start for sf in self.sfs], "Ethernet of the SFs")
        for i, sf in enumerate(self.sfs):
            sf.into(f"s{i}", f"10.0.0.{i + 1}/24")
        if os.path.exists("/sys/class/net/br0"):
            run("ip link del br0")
        bridge("br0", netdev_of(PF[0]), *[sf.rep for sf in self.sfs])
        for i, sf in enumerate(self.sfs):
            until(lambda: carrier(sf.dev, f"s{i}"), f"the carrier of SF {i}")
            equal(state_of(sf.handle), "active/attached", f"state of SF {i}")

    def traffic(self, size=1 << 18):
        """All SFs at the same time, with the peer and with each other."""
        def job(i):
            tcp("10.0.0.100", size, f"s{i}", PEER)
            tcp(f"10.0.0.{(i + 1) % SFS + 1}", size, f"s{i}", f"s{(i + 1) % SFS}")

        all_of([lambda i=i: job(i) for i in range(SFS)], "traffic of the SFs", 60)

    def flood(self):
        code = "import socket,os,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nb=os.urandom(1400)\n"
        code += "while 1:\n try: s.sendto(b,('10.0.0.100',9)); time.sleep(.0005)\n except OSError: time.sleep(.01)\n"
        self.busy = []
        for i in range(SFS):
            with inside(f"s{i}"):
                self.busy.append(subprocess.Popen(["python3", "-c", code], stderr=subprocess.DEVNULL))
        time.sleep(0.3)

    def quiet(self):
        for p in self.busy:
            p.kill()
            p.wait()


def gone():
    """Nothing of the SFs is left."""
    until(lambda: not [a for a in os.listdir("/sys/bus/auxiliary/devices") if a.startswith("mlx5_core.sf.")], "the end of the SFs")
    equal([p for p in ports().values() if p["flavour"] == "pcisf"], [], "ports of SFs")


for ns in [PEER] + [f"s{i}" for i in range(SFS)]:
    add_ns(ns)

if BOOT == 1:
    ROUNDS = int(os.environ.get("ROUNDS", "20"))
    with check("switchdev, four SFs, traffic"):
        f = Fabric()
        f.traffic(1 << 20)

    with check(f"{ROUNDS} times rmmod and modprobe with SFs under traffic"):
        for n in range(ROUNDS):
            f.flood()
            run("modprobe -r mlx5_core")
            f.quiet()
            gone()
            run("modprobe mlx5_core")
            f = Fabric()
            f.traffic()

    with check("devlink dev reload with SFs under traffic"):
        f.flood()
        for pci in PF:
            run(f"devlink dev reload pci/{pci}")
        f.quiet()
        gone()
        say(run(f"devlink dev eswitch show pci/{PF[0]}"))
        f = Fabric()
        f.traffic()

    with check("unbind, FLR, bind with SFs under traffic"):
        f.flood()
        for pci in PF:
            write("/sys/bus/pci/drivers/mlx5_core/unbind", pci)
        f.quiet()
        gone()
        for pci in PF:
            write(f"/sys/bus/pci/devices/{pci}/reset_method", "flr")
            write(f"/sys/bus/pci/devices/{pci}/reset", "1")
            write("/sys/bus/pci/drivers/mlx5_core/bind", pci)
        f = Fabric()
        f.traffic()

    with check("switchdev to legacy and back with SFs under traffic"):
        f.flood()
        run("ip link del br0")
        switchdev(PF[0], "legacy")
        f.quiet()
        gone()
        run(f"ip link set {netdev_of(PF[1])} netns {PEER}") if os.listdir(f"/sys/bus/pci/devices/{PF[1]}/net") else None
        dev = netdev_of(PF[0])
        set_up(dev, "10.0.0.1/24")
        until(lambda: carrier(dev), "carrier")
        tcp("10.0.0.100", 1 << 19, None, PEER)
        run(f"ip addr flush dev {dev}")
        write("/sys/bus/pci/drivers/mlx5_core/unbind", PF[1])
        write("/sys/bus/pci/drivers/mlx5_core/bind", PF[1])
        f = Fabric()
        f.traffic()

    f.flood()
    sys.stdout.flush()
    time.sleep(0.5)
    run("busybox reboot -f")
    time.sleep(60)

elif BOOT == 2:
    with check("after a reboot with SFs under traffic"):
        f = Fabric()
        f.traffic(1 << 20)
        f.flood()
    sys.stdout.flush()
    time.sleep(0.5)
    write("/proc/sys/kernel/sysrq", "1")
    write("/proc/sysrq-trigger", "b")
    time.sleep(60)

else:
    with check("after a machine reset with SFs under traffic"):
        equal(BOOT, 3, "boots")
        f = Fabric()
        f.traffic(1 << 20)
    finish()
