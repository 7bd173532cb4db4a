"""Each auxiliary device's driver leaves and comes back while the others carry traffic."""

from lab import *
from fabric import PEER, SFS, Fabric

AUX = "/sys/bus/auxiliary"
# Since there is a folder of an auxiliary device's interrupts, it is made once a device and
# goes with the driver (`irq_dir_exists` stays set): the next driver of the same device cannot
# make event queues. A new device, from a new activation, has a folder again.
KEEPS_IRQS = kernel_has("auxiliary_device_sysfs_irq_add")


def auxiliaries():
    """Names of the auxiliary devices that have a driver, with the driver's."""
    found = {}
    for name in sorted(os.listdir(f"{AUX}/devices")):
        with contextlib.suppress(OSError):
            found[name] = os.path.basename(os.readlink(f"{AUX}/devices/{name}/driver"))
    return found


def path_of(name):
    return os.path.realpath(f"{AUX}/devices/{name}")


def unbind(name, driver):
    write(f"{AUX}/drivers/{driver}/unbind", name)
    require(not os.path.exists(f"{AUX}/devices/{name}/driver"), f"{name} still has a driver")


def bind(name, driver):
    write(f"{AUX}/drivers/{driver}/bind", name)
    equal(os.path.basename(os.readlink(f"{AUX}/devices/{name}/driver")), driver, f"the driver of {name}")


def eth_of(parent):
    """The auxiliary device that is the Ethernet side of a PCI function or an SF."""
    names = [n for n in os.listdir(f"{AUX}/devices") if n.startswith("mlx5_core.eth.")]
    return next(n for n in names if os.path.basename(os.path.dirname(path_of(n))) == parent)


# Before Linux 6.11 mlx5_ib makes queue pairs when it attaches, which are not there yet.
RDMA = KERNEL >= (6, 11)
if RDMA:
    run("modprobe mlx5_ib")
f = Fabric()
with check("who is there"):
    f.traffic()
    have = auxiliaries()
    value("auxiliary", have)
    kinds = {n.rsplit(".", 1)[0] for n in have}
    wanted = {"mlx5_core.eth", "mlx5_core.sf", "mlx5_core.eth-rep"}
    wanted |= {"mlx5_core.rdma", "mlx5_core.rdma-rep"} if RDMA else set()
    require(wanted <= kinds, f"kinds of auxiliary devices: {kinds}")

# Traffic of the other SFs and of the peer has to go on.
for n in range(3):
    with check(f"Ethernet of an SF, time {n}"):
        sf = f.sfs[0]
        name = eth_of(sf.aux)
        streams = [Stream("10.0.0.100", f"s{i}", PEER) for i in (1, 2)]
        unbind(name, "mlx5_core.eth")
        require(sf.dev not in os.listdir("/sys/class/net"), "the netdev is still there")
        unreachable("10.0.0.1", f"s{SFS - 1}")
        bind(name, "mlx5_core.eth")
        sf.dev = until(sf._dev, "the netdev")
        sf.into("s0", "10.0.0.1/24")
        until(lambda: carrier(sf.dev, "s0"), "carrier")
        for s in streams:
            s.end()
        f.traffic()

for n in range(3):
    with check(f"an SF's own driver, time {n}"):
        sf = f.sfs[1]
        streams = [Stream("10.0.0.100", f"s{i}", PEER) for i in (0, 2)]
        unbind(sf.aux, "mlx5_core.sf")
        until(lambda: state_of(sf.handle) == "active/detached", "the state of the SF")
        unreachable("10.0.0.2", "s3")
        if KEEPS_IRQS:
            sf.deactivate()
            until(lambda: state_of(sf.handle) == "inactive/detached", "the state of the SF")
            sf.activate()
        else:
            bind(sf.aux, "mlx5_core.sf")
        until(lambda: state_of(sf.handle) == "active/attached", "the state of the SF")
        sf.start()
        sf.into("s1", "10.0.0.2/24")
        until(lambda: carrier(sf.dev, "s1"), "carrier")
        for s in streams:
            s.end()
        f.traffic()

for n in range(3):
    with check(f"Ethernet of the other function, time {n}"):
        name = eth_of(PF[1])
        stream = Stream("10.0.0.2", "s0", "s1")
        unbind(name, "mlx5_core.eth")
        unreachable("10.0.0.100", "s0")
        bind(name, "mlx5_core.eth")
        dev = until(lambda: netdev_of(PF[1]), "the netdev")
        run(f"ip link set {dev} netns {PEER}")
        set_up(dev, "10.0.0.100/24", ns=PEER)
        until(lambda: carrier(dev, PEER), "carrier")
        stream.end()
        f.traffic()

with check("every other auxiliary device"):
    done = []
    for name, driver in auxiliaries().items():
        kind = name.rsplit(".", 1)[0]
        if kind in ("mlx5_core.eth", "mlx5_core.sf", "mlx5_core.eth-rep"):
            continue
        # Up to 6.x mlx5_ib puts its own page of doorbells where mlx5_core keeps its
        # (`mlx5_ib_stage_uar_init`), which then is not there when that leaves.
        if kind == "mlx5_core.rdma" and KERNEL < (7, 0):
            continue
        stream = Stream("10.0.0.100", "s0", PEER)
        unbind(name, driver)
        time.sleep(0.3)
        bind(name, driver)
        stream.end()
        done.append(name)
    value("others", done)
    f.traffic()

# The representors' driver (mlx5_core.eth-rep) leaves with the function's Ethernet. Alone it can
# only leave: it takes the uplink's netdev out of the kernel's register and does not put it back
# (`mlx5e_vport_uplink_rep_unload`).

with check("Ethernet of the function that has the SFs"):
    # The representors go with it, the SFs stay; the kernel makes representors again when the
    # function is loaded again.
    if KERNEL < (7, 0):
        skip("this kernel destroys what its representors still use, and then does not get over it")
    name = eth_of(PF[0])
    stream = Stream("10.0.0.100", PEER, PEER)
    unbind(name, "mlx5_core.eth")
    equal([state_of(sf.handle) for sf in f.sfs], ["active/attached"] * SFS, "states of the SFs")
    bind(name, "mlx5_core.eth")
    until(lambda: netdev_of(PF[0]), "the function's netdev")
    stream.end()
    f.let_go()
    run(f"devlink dev reload pci/{PF[0]}")
    run(f"ip -n {PEER} link set {netdevs_inside(PEER, PF[1])[0]} netns 1")
    f = Fabric()
    f.traffic()

finish()
