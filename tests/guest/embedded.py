"""An eswitch that is not the host's: slices are added, configured and activated by `sfnic ctl`,
and the host sees them come and go without an agent in it."""

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


def state(index):
    s = slice_of(index)
    return f"{s['state']}/{s['opstate']}"


def set_slice(index, *words, status=0):
    return ctl("slice", "set", f"{DEV}/{index}", *words, status=status)


def reaches(index, wanted):
    until(lambda: state(index) == wanted, f"{wanted} of slice {index}, which is {state(index)}", 60)


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


for ns in (PEER, "s4", "s5"):
    add_ns(ns)


def functions():
    """Both functions' netdevs with addresses, the other one's in a namespace of its own."""
    set_up(netdev_of(PF[0]), "10.0.0.1/24")
    dev = netdev_of(PF[1])
    run(f"ip link set {dev} netns {PEER}")
    set_up(dev, "10.0.0.100/24", ns=PEER)
    until(lambda: carrier(dev, PEER), "the carrier")


if BOOT == 1:
    functions()

    with check("the host's driver manages no eswitch"):
        equal([p for p in ports().values() if p["flavour"] == "pcisf"], [], "ports of SFs")
        require(attempt(f"devlink dev eswitch set pci/{PF[0]} mode switchdev").status != 0, "it is in switchdev mode")
        r = attempt(f"devlink port add pci/{PF[0]} flavour pcisf pfnum 0 sfnum 4")
        require(r.status != 0, "the host added an SF")

    with check("a slice is added: inactive, detached"):
        add(100, 4, mac_of_slice(4))
        got = slice_of(100)
        wanted = {"flavour": "pcisf", "pfnum": 0, "sfnum": 4, "hw_addr": mac_of_slice(4), "state": "inactive", "opstate": "detached"}
        equal({k: got[k] for k in wanted}, wanted, "the slice")
        require(auxiliary(4) is None, "the host sees it")

    with check("an active slice is attached by the host's own driver"):
        set_slice(100, "state", "active")
        reaches(100, "active/attached")
        dev = into(4, "s4", "10.0.0.4")
        equal(mac_of(dev, "s4"), mac_of_slice(4), "its address")

    with check("frames are switched between slices, the function and the wire"):
        add(101, 5, mac_of_slice(5))
        set_slice(101, "state", "active")
        reaches(101, "active/attached")
        into(5, "s5", "10.0.0.5")
        for address in ("10.0.0.1", "10.0.0.5", "10.0.0.100"):
            ping(address, 1000, ns="s4")
        tcp("10.0.0.5", 1 << 19, "s4", "s5")
        tcp("10.0.0.100", 1 << 19, "s4", PEER)
        tcp("10.0.0.4", 1 << 19, PEER, "s4")

    with check("the link of a slice is the manager's"):
        set_slice(100, "link", "down")
        until(lambda: not carrier(dev, "s4"), "no carrier")
        set_slice(100, "link", "auto")
        until(lambda: carrier(dev, "s4"), "the carrier")
        ping("10.0.0.5", 100, ns="s4")

    with check("what is not allowed is refused in one line"):
        require("inactive" in ctl("slice", "del", f"{DEV}/100", status=1), "deleted while active")
        require("flavour" in ctl("slice", "add", DEV, "flavour", "pcixf", "pfnum", 0, "sfnum", 9, status=2), "a flavour")
        ctl("slice", "add", DEV, "flavour", "pcisf", "pfnum", 7, "sfnum", 9, status=2)
        ctl("slice", "add", DEV, "flavour", "pcisf", "pfnum", 0, "sfnum", 4, "index", 104, status=1)
        set_slice(100, "hw_addr", "00:00:00:00:88", status=2)
        set_slice(100, "state", "on", status=2)
        require("always active" in set_slice(0, "state", "inactive", status=1), "the state of a physical function")
        ctl("slice", "show", f"{DEV}/999", status=1)
        equal(state(100), "active/attached", "the slice")

    with check("an inactive slice is detached by the host's own driver"):
        set_slice(100, "state", "inactive")
        reaches(100, "inactive/detached")
        until(lambda: auxiliary(4) is None, "the end of the auxiliary device")
        unreachable("10.0.0.4", "s5")
        set_slice(100, "state", "active")
        reaches(100, "active/attached")
        into(4, "s4", "10.0.0.4")
        tcp("10.0.0.5", 1 << 19, "s4", "s5")

    with check("a slice that the host does not let go of is detaching, and nothing of it works"):
        number = ask("fault add hold detach pf=0 sfnum=5")
        require(isinstance(number, int), number)
        set_slice(101, "state", "inactive")
        time.sleep(2)
        equal(state(101), "inactive/detaching", "the slice")
        require(auxiliary(5) is not None, "the auxiliary device is gone")
        require("detaching" in set_slice(101, "state", "active", status=1), "why it cannot be activated")
        require("detach" in ctl("slice", "del", f"{DEV}/101", status=1), "why it cannot be deleted")
        unreachable("10.0.0.5", "s4")
        unreachable("10.0.0.4", "s5")
        # Its driver leaves of its own accord, and the device does not hear of it.
        aux = auxiliary(5)
        write("/sys/bus/auxiliary/drivers/mlx5_core.sf/unbind", aux)
        require(auxiliary_netdev(aux) is None, "its driver is still there")
        equal(state(101), "inactive/detaching", "the slice that its driver left")
        require("detaching" in set_slice(101, "state", "active", status=1), "why it cannot be activated")
        ping("10.0.0.100", 1000, ns="s4")

    with check("slices in every state before the host dies"):
        add(102, 6, mac_of_slice(6))
        states = {n: state(n) for n in (100, 101, 102)}
        equal(states, {100: "active/attached", 101: "inactive/detaching", 102: "inactive/detached"}, "states")
    # At once, so that no driver detaches anything.
    write("/proc/sysrq-trigger", "b")
    time.sleep(60)

with check("the reset of its function frees a slice, the others are as they were"):
    for one in ask("faults"):
        ask(f"fault del {one['id']}")
    functions()
    reaches(100, "active/attached")
    equal(state(101), "inactive/detached", "the slice that the host held on to")
    equal(state(102), "inactive/detached", "the slice that it never had")
    require(auxiliary(5) is None and auxiliary(6) is None, "the host sees inactive slices")
    into(4, "s4", "10.0.0.4")
    set_slice(101, "state", "active")
    reaches(101, "active/attached")
    into(5, "s5", "10.0.0.5")
    tcp("10.0.0.5", 1 << 19, "s4", "s5")
    tcp("10.0.0.4", 1 << 19, PEER, "s4")

with check("slices are activated while the host has no driver"):
    run("modprobe -r mlx5_ib mlx5_core")
    for n in (100, 101):
        reaches(n, "active/detached")
    set_slice(102, "state", "active")
    set_slice(101, "state", "inactive")
    run("modprobe mlx5_core")
    functions()
    reaches(100, "active/attached")
    reaches(102, "active/attached")
    equal(state(101), "inactive/detached", "the inactive one")
    into(4, "s4", "10.0.0.4")
    into(6, "s5", "10.0.0.6")
    tcp("10.0.0.6", 1 << 19, "s4", "s5")

with check("slices are deleted"):
    for n in (100, 102):
        set_slice(n, "state", "inactive")
        reaches(n, "inactive/detached")
    for n in (100, 101, 102):
        ctl("slice", "del", f"{DEV}/{n}")
        ctl("slice", "show", f"{DEV}/{n}", status=1)
    until(lambda: not any(auxiliary(n) for n in (4, 5, 6)), "the end of all auxiliary devices")

finish()
