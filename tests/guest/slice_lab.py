"""An eswitch that is not the host's: `sfnic ctl` from outside, the slices that it manages, and
what the host's driver makes of them."""

from lab import *

DEV = "pci/0000:06:00.0"
PEER = "peer"


def ctl(*words, status=0):
    """`sfnic ctl` on the device; what it prints, as JSON if it is, or what it complains of."""
    said = ask("ctl " + json.dumps([str(w) for w in words]))
    equal(said["status"], status, f"status of {words}: {said['err']}")
    if status:
        lines = said["err"].strip().splitlines()
        equal(len(lines), 1, f"lines of {lines}")
        return lines[0]
    return json.loads(said["out"]) if said["out"].startswith("{") else said["out"]


def slice_of(index):
    return ctl("slice", "show", f"{DEV}/{index}", "-j")["slice"][f"{DEV}/{index}"]


def shows(index, sfnum, state, opstate):
    """`slice show` prints the slice in the RFC's shape: these keys with these values."""
    s = slice_of(index)
    wanted = {
        "flavour": "pcisf",
        "pfnum": 0,
        "sfnum": sfnum,
        "hw_addr": mac_of_slice(sfnum),
        "state": state,
        "opstate": opstate,
    }
    equal({k: s.get(k) for k in wanted}, wanted, f"slice {index}")
    text = ctl("slice", "show", f"{DEV}/{index}")
    for key, want in wanted.items():
        require(f" {key} {want}" in text, f"no {key} {want} in {text!r}")


def state(index):
    s = slice_of(index)
    return f"{s['state']}/{s['opstate']}"


def set_slice(index, *words, status=0):
    return ctl("slice", "set", f"{DEV}/{index}", *words, status=status)


def reaches(index, wanted):
    until(lambda: state(index) == wanted, f"{wanted} of slice {index}, which is {state(index)}", 60)


def remove(*indices):
    """Slices are deactivated, let go of, and deleted."""
    for n in indices:
        set_slice(n, "state", "inactive")
        reaches(n, "inactive/detached")
        ctl("slice", "del", f"{DEV}/{n}")


def inside_of(sfnum):
    """The objects of a slice's function, as `sfnic ctl show objects` has them."""
    said = json.loads(ask("ctl " + json.dumps(["show", "objects", "--json"]))["out"])["objects"]
    return [o for o in said if o["port"] == f"pf0sf{sfnum}"]


def add(index, sfnum, mac):
    said = ctl("slice", "add", DEV, "flavour", "pcisf", "pfnum", 0, "sfnum", sfnum, "index", index)
    require(said.startswith(f"{DEV}/{index}: "), said)
    set_slice(index, "hw_addr", mac)


def auxiliary(sfnum):
    """The auxiliary device of an SF, if there is one."""
    return sf_auxiliary(PF[0], sfnum)


def into(sfnum, ns, address):
    """The netdev of an SF, which its driver made by itself, in a namespace."""
    dev = until(lambda: auxiliary_netdev(auxiliary(sfnum)), f"the netdev of SF {sfnum}")
    run(f"ip link set {dev} netns {ns}")
    set_up(dev, address + "/24", ns=ns)
    until(lambda: carrier(dev, ns), f"the carrier of {dev}")
    return dev


def mac_of_slice(n):
    return f"00:00:00:00:88:{n:02x}"


def functions():
    """Both functions' netdevs with addresses, the other one's in a namespace of its own."""
    set_up(netdev_of(PF[0]), "10.0.0.1/24")
    dev = netdev_of(PF[1])
    run(f"ip link set {dev} netns {PEER}")
    set_up(dev, "10.0.0.100/24", ns=PEER)
    until(lambda: carrier(dev, PEER), "the carrier")
