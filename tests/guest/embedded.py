"""An eswitch that is not the host's: slices are added, configured and activated by `sfnic ctl`,
and the host sees them come and go without an agent in it."""

from slice_lab import *

for ns in (PEER, "s4", "s5", "s8"):
    add_ns(ns)


def mask_interrupts(pci):
    """The function raises no interrupt any more, whatever its driver wants (MSI-X function
    mask): it hears of nothing."""
    msix, function_mask = 0x11, 0x4000
    with open(f"/sys/bus/pci/devices/{pci}/config", "r+b", buffering=0) as f:
        config = f.read(256)
        at = config[0x34]
        while config[at] != msix:
            at = config[at + 1]
            require(at, "no MSI-X")
        control = struct.unpack_from("<H", config, at + 2)[0]
        f.seek(at + 2)
        f.write(struct.pack("<H", control | function_mask))


if BOOT == 1:
    functions()

    with check("the host's driver manages no eswitch"):
        equal([p for p in ports().values() if p["flavour"] == "pcisf"], [], "ports of SFs")
        require(attempt(f"devlink dev eswitch set pci/{PF[0]} mode switchdev").status != 0, "it is in switchdev mode")
        r = attempt(f"devlink port add pci/{PF[0]} flavour pcisf pfnum 0 sfnum 4")
        require(r.status != 0, "the host added an SF")

    with check("a slice is added: inactive, detached"):
        add(100, 4, mac_of_slice(4))
        shows(100, 4, "inactive", "detached")
        require(auxiliary(4) is None, "the host sees it")

    with check("an active slice is attached by the host's own driver"):
        set_slice(100, "state", "active")
        reaches(100, "active/attached")
        shows(100, 4, "active", "attached")
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
        shows(100, 4, "inactive", "detached")
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
        shows(101, 5, "inactive", "detaching")
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

    with check("a slice whose driver left is active and detached"):
        add(102, 6, mac_of_slice(6))
        add(103, 7, mac_of_slice(7))
        set_slice(103, "state", "active")
        reaches(103, "active/attached")
        write("/sys/bus/auxiliary/drivers/mlx5_core.sf/unbind", auxiliary(7))
        reaches(103, "active/detached")
        shows(103, 7, "active", "detached")

    with check("a host that hears of nothing does not let go, and nobody reaches what it holds"):
        add(104, 8, mac_of_slice(8))
        set_slice(104, "state", "active")
        reaches(104, "active/attached")
        into(8, "s8", "10.0.0.8")
        ping("10.0.0.8", 1000, ns=PEER)
        # No fault of the device: the host's own doing, of its function and all its SFs.
        mask_interrupts(PF[0])
        set_slice(104, "state", "inactive")
        shows(104, 8, "inactive", "detaching")
        kinds = {o["kind"] for o in inside_of(8)}
        require({"sq", "rq", "mkey"} <= kinds, f"its driver has {kinds}")
        unreachable("10.0.0.8", PEER)
        for words in (("state", "active"), ("mtu", "1400")):
            require("detaching" in set_slice(104, *words, status=1), "why it is refused")
        require("detaching" in ctl("slice", "del", f"{DEV}/104", status=1), "why it cannot be deleted")
        ctl("slice", "add", DEV, "flavour", "pcisf", "pfnum", 0, "sfnum", 8, "index", 300, status=1)
        time.sleep(3)
        shows(104, 8, "inactive", "detaching")

    with check("slices in every state before the host dies"):
        states = {n: state(n) for n in range(100, 105)}
        wanted = {
            100: "active/attached",
            101: "inactive/detaching",
            102: "inactive/detached",
            103: "active/detached",
            104: "inactive/detaching",
        }
        equal(states, wanted, "states")
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
    reaches(103, "active/attached")
    shows(104, 8, "inactive", "detached")
    equal(inside_of(8), [], "objects of the slice that the dead host had")
    require(not any(auxiliary(n) for n in (5, 6, 8)), "the host sees inactive slices")
    set_slice(104, "state", "active")
    reaches(104, "active/attached")
    into(8, "s8", "10.0.0.8")
    ping("10.0.0.8", 1000, ns=PEER)
    into(4, "s4", "10.0.0.4")
    set_slice(101, "state", "active")
    reaches(101, "active/attached")
    into(5, "s5", "10.0.0.5")
    tcp("10.0.0.5", 1 << 19, "s4", "s5")
    tcp("10.0.0.4", 1 << 19, PEER, "s4")

with check("slices are activated while the host has no driver"):
    run("modprobe -r mlx5_ib mlx5_core")
    for n in (100, 101, 103, 104):
        reaches(n, "active/detached")
    shows(100, 4, "active", "detached")
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
    for n in (100, 102, 103, 104):
        set_slice(n, "state", "inactive")
        reaches(n, "inactive/detached")
    for n in range(100, 105):
        ctl("slice", "del", f"{DEV}/{n}")
        ctl("slice", "show", f"{DEV}/{n}", status=1)
    until(lambda: not any(auxiliary(n) for n in range(4, 9)), "the end of all auxiliary devices")

finish()
