"""Each auxiliary device's driver leaves and comes back while the others carry traffic."""

from lab import *
from fabric import PEER, SFS, Fabric

AUX = "/sys/bus/auxiliary"


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


f = Fabric()
with check("who is there"):
    f.traffic()
    have = auxiliaries()
    value("auxiliary", have)
    kinds = {n.rsplit(".", 1)[0] for n in have}
    require({"mlx5_core.eth", "mlx5_core.sf", "mlx5_core.eth-rep"} <= kinds, f"kinds of auxiliary devices: {kinds}")

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
        stream = Stream("10.0.0.100", "s0", PEER)
        unbind(name, driver)
        time.sleep(0.3)
        bind(name, driver)
        stream.end()
        done.append(name)
    value("others", done)
    f.traffic()

with check("Ethernet of the function that has the SFs"):
    # The representors are its netdevs: they go with it, the SFs stay.
    name = eth_of(PF[0])
    stream = Stream("10.0.0.100", PEER, PEER)
    unbind(name, "mlx5_core.eth")
    equal([state_of(sf.handle) for sf in f.sfs], ["active/attached"] * SFS, "states of the SFs")
    bind(name, "mlx5_core.eth")
    uplink = until(lambda: netdev_of(PF[0]), "the uplink")
    stream.end()
    for sf in f.sfs:
        sf.rep = until(lambda: (port_of(sf.handle) or {}).get("netdev"), "the representor")
    bridge("br1", uplink, *[sf.rep for sf in f.sfs])
    until(lambda: carrier(uplink), "the carrier of the uplink")
    f.traffic()

with check("representors' driver"):
    name = next((n for n in auxiliaries() if n.startswith("mlx5_core.eth-rep.") and PF[0] in path_of(n)), None)
    require(name, "no auxiliary device for representors")
    unbind(name, "mlx5_core.eth-rep")
    bind(name, "mlx5_core.eth-rep")
    for sf in f.sfs:
        sf.rep = until(lambda: (port_of(sf.handle) or {}).get("netdev"), "the representor")
    for member in [netdev_of(PF[0])] + [sf.rep for sf in f.sfs]:
        attempt(f"ip link set {member} master br1")
        run(f"ip link set {member} up")
    f.traffic()

finish()
