"""PF1 as a peer, and four SFs of PF0 that reach it and each other."""

from lab import *

needs_sfs()

PEER = "peer"
SFS = 4


# 7.3 waits for itself where the driver of a physical function leaves while one of its SFs is
# attached: the SF's devlink wants the function's lock for its own end (`devl_rate_lock`), and
# who holds it waits for just that.
WAITS_FOR_ITSELF = KERNEL == (7, 3)


class Fabric:
    """PF1 in a namespace; PF0's uplink and four SFs on a bridge, each SF in a namespace."""

    def __init__(self):
        for ns in [PEER] + [f"s{i}" for i in range(SFS)]:
            if not os.path.exists(f"/run/netns/{ns}"):
                add_ns(ns)
        for pci in PF:
            until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{pci}/net"), f"a netdev of {pci}")
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

    def let_go(self):
        """Before the function's driver leaves: the SFs go first where the kernel needs it."""
        if WAITS_FOR_ITSELF:
            self.detach()

    def detach(self):
        """The SFs' drivers leave."""
        for sf in self.sfs:
            sf.deactivate()
            until(lambda: state_of(sf.handle) == "inactive/detached", f"the end of {sf.aux}")

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
