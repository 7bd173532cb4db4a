"""Netdevs, PCI functions, ports of devlink and SFs."""

import contextlib
import json
import os

from basics import *

# Earlier drivers give a page away twice where the completion of a receive buffer is lost.
SURVIVES_LOST_COMPLETIONS = KERNEL >= (6, 12)

# mlx5_core registers max_local_SFs.
SF_RESOURCES = KERNEL >= (6, 2)


def netdev_of(pci):
    """The netdev of a PCI function."""
    names = os.listdir(f"/sys/bus/pci/devices/{pci}/net")
    # In switchdev mode representors are there too: the uplink's port name is pN.
    for name in names:
        with contextlib.suppress(OSError):
            port = read(f"/sys/class/net/{name}/phys_port_name")
            if port.startswith("p") and port[1:].isdigit():
                return name
    require(len(names) == 1, f"{pci} has the netdevs {names}")
    return names[0]


def mac_of(dev, ns=None):
    return link_of(dev, ns)["address"]


def link_of(dev, ns=None):
    return json.loads(run(f"ip -j -s -d link show dev {dev}", ns))[0]


def carrier(dev, ns=None):
    """Whether there is a carrier and the kernel has taken note: until then, up to a second after
    the driver said so, it drops what is sent."""
    link = link_of(dev, ns)
    return "LOWER_UP" in link["flags"] and link["operstate"] in ("UP", "UNKNOWN")


def private_flag(dev, name, ns=None):
    """A private flag of the driver, "on" or "off"."""
    for line in run(f"ethtool --show-priv-flags {dev}", ns).splitlines():
        what, _, state = line.partition(":")
        if what.strip() == name:
            return state.strip()
    raise Wrong(f"{dev} has no private flag {name}")


def set_up(dev, *addresses, ns=None, mtu=None):
    """A netdev with addresses, up."""
    for a in addresses:
        run(f"ip addr add {a} dev {dev}" + (" nodad" if ":" in a else ""), ns)
    if mtu:
        run(f"ip link set {dev} mtu {mtu}", ns)
    run(f"ip link set {dev} up", ns)


def flr(pci):
    """A function level reset that the kernel is asked for, and no other way of resetting it."""
    write(f"/sys/bus/pci/devices/{pci}/reset_method", "flr")
    write(f"/sys/bus/pci/devices/{pci}/reset", "1")


# ---------------------------------------------------------------- devlink and SFs


def devlink(command):
    return json.loads(run(f"devlink -j {command}"))


def ports():
    """All ports of devlink by handle."""
    return devlink("port show")["port"]


def port_of(handle):
    """One port; None if it is not there."""
    r = attempt(f"devlink -j port show {handle}")
    return json.loads(r.out)["port"][handle] if r.status == 0 else None


def state_of(handle):
    """`state/opstate` of a port function."""
    function = (port_of(handle) or {}).get("function", {})
    return f"{function.get('state')}/{function.get('opstate')}"


def switchdev(pf, mode="switchdev"):
    run(f"devlink dev eswitch set pci/{pf} mode {mode}")


def sf_auxiliary(pf, sfnum):
    """The auxiliary device of an SF, if there is one."""
    for name in os.listdir("/sys/bus/auxiliary/devices"):
        if not name.startswith("mlx5_core.sf."):
            continue
        at = f"/sys/bus/auxiliary/devices/{name}"
        with contextlib.suppress(OSError):
            same_pf = os.path.realpath(at).split("/")[-2] == pf
            if same_pf and int(read(f"{at}/sfnum")) == sfnum:
                return name
    return None


def netdevs_inside(ns, pci):
    """The netdevs of a function that are in a namespace: what a kernel adds to each namespace by
    itself is none of its."""
    return [l["ifname"] for l in json.loads(run("ip -j -d link", ns)) if l.get("parentdev") == pci]


def auxiliary_netdev(aux):
    """The netdev of an auxiliary device, if there is one."""
    with contextlib.suppress(OSError):
        return os.listdir(f"/sys/bus/auxiliary/devices/{aux}/net")[0]
    return None


class Sf:
    """A sub-function, from `devlink port add` on."""

    def __init__(self, pf, sfnum, mac=None, add=True):
        self.pf, self.sfnum = pf, sfnum
        number = int(pf.rsplit(".", 1)[1])
        if add:
            said = run(f"devlink port add pci/{pf} flavour pcisf pfnum {number} sfnum {sfnum}")
            self.handle = said.split(": ")[0]
        else:
            self.handle = next(h for h, p in ports().items() if h.startswith(f"pci/{pf}/") and p.get("sfnum") == sfnum)
        self.rep = until(lambda: port_of(self.handle).get("netdev"), "the representor")
        self.aux = None
        self.dev = None
        self.ns = None
        if mac:
            run(f"devlink port function set {self.handle} hw_addr {mac}")

    @staticmethod
    def found(pf, sfnum):
        """One that somebody else added."""
        return Sf(pf, sfnum, add=False)

    def activate(self):
        run(f"devlink port function set {self.handle} state active")
        self.aux = until(self._aux, f"the auxiliary device of SF {self.sfnum}")

    def _aux(self):
        return sf_auxiliary(self.pf, self.sfnum)

    def start(self):
        """Its Ethernet device, which a light probe leaves out."""
        parameter = f"auxiliary/{self.aux} name enable_eth"
        until(lambda: attempt(f"devlink dev param show {parameter}").status == 0, f"the driver of {self.aux}")
        run(f"devlink dev param set {parameter} value true cmode driverinit")
        run(f"devlink dev reload auxiliary/{self.aux}")
        self.dev = until(self._dev, f"the netdev of {self.aux}")

    def _dev(self):
        return auxiliary_netdev(self.aux)

    def into(self, ns, *addresses, mtu=None):
        """Its netdev in a namespace, up, with addresses."""
        run(f"ip link set {self.dev} netns {ns}")
        self.ns = ns
        set_up(self.dev, *addresses, ns=ns, mtu=mtu)

    def up(self, ns, *addresses):
        """All of the way to a netdev with addresses in a namespace."""
        self.activate()
        self.start()
        self.into(ns, *addresses)

    def deactivate(self):
        run(f"devlink port function set {self.handle} state inactive")
        self.dev = self.ns = None

    def delete(self):
        run(f"devlink port del {self.handle}")


def bridge(name, *members):
    run(f"ip link add {name} type bridge mcast_snooping 0")
    for m in members:
        run(f"ip link set {m} master {name}")
        run(f"ip link set {m} up")
    run(f"ip link set {name} up")
