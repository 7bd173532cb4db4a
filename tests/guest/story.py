"""One SF from nothing to nothing, with its states, what it reaches and what it does not."""

from lab import *

needs_sfs()

PEER = "peer"
AUX = "/sys/bus/auxiliary"

for name in (PEER, "x", "y"):
    add_ns(name)
quieten()
D0, D1 = netdev_of(PF[0]), netdev_of(PF[1])
run(f"ip link set {D1} netns {PEER}")
set_up(D1, "10.0.0.100/24", ns=PEER)

with check("no SFs without switchdev"):
    r = attempt(f"devlink port add pci/{PF[0]} flavour pcisf pfnum 0 sfnum 1")
    require(r.status != 0 and "switchdev" in r.err, r.err)

with check("switchdev"):
    switchdev(PF[0])
    equal(devlink(f"dev eswitch show pci/{PF[0]}")["dev"][f"pci/{PF[0]}"]["mode"], "switchdev", "mode")
    set_up(D0, "10.0.0.1/24")
    until(lambda: carrier(D0), "carrier of the uplink")
    tcp("10.0.0.100", 1 << 20, None, PEER)
    udp("10.0.0.100", (0, 1472, 1473, 20000), None, PEER)
    run(f"ip addr flush dev {D0}")

# ------------------------------------------------------------ states

with check("a new port is inactive and detached"):
    x = Sf(PF[0], 88, "00:00:00:00:88:88")
    port = port_of(x.handle)
    equal((port["flavour"], port["controller"], port["pfnum"], port["sfnum"]), ("pcisf", 0, 0, 88), "port")
    require(not port.get("external"), "the port is external")
    equal(read(f"/sys/class/net/{x.rep}/phys_port_name"), "pf0sf88", "port name of the representor")
    equal(read(f"/sys/class/net/{x.rep}/phys_switch_id"), read(f"/sys/class/net/{D0}/phys_switch_id"), "switch of the representor")
    equal(state_of(x.handle), "inactive/detached", "state")
    function = port["function"]
    equal(function["hw_addr"], "00:00:00:00:88:88", "hw_addr")
    if kernel_has("mlx5_devlink_port_fn_roce_get"):
        equal(function["roce"], "disable", "roce")
    if kernel_has("mlx5_devlink_port_fn_max_io_eqs_get"):
        require("max_io_eqs" in function, f"function attributes are {function}")
    equal(x._aux(), None, "auxiliary device")

with check("a number is taken once"):
    r = attempt(f"devlink port add pci/{PF[0]} flavour pcisf pfnum 0 sfnum 88")
    require(r.status != 0 and "SF already exist. Choose different sfnum" in r.err, r.err)

with check("active and detached while nobody probes"):
    write(f"{AUX}/drivers_autoprobe", "0")
    x.activate()
    time.sleep(0.5)
    equal(state_of(x.handle), "active/detached", "state")
    require(not os.path.exists(f"{AUX}/devices/{x.aux}/driver"), "somebody probed")
    run(f"devlink port function set {x.handle} state active")  # once more changes nothing
    equal(state_of(x.handle), "active/detached", "state")

with check("inactive again without ever a driver"):
    run(f"devlink port function set {x.handle} state inactive")
    until(lambda: x._aux() is None, "the end of the auxiliary device")
    equal(state_of(x.handle), "inactive/detached", "state")
    x.activate()
    equal(state_of(x.handle), "active/detached", "state")

with check("active and attached with a driver"):
    write(f"{AUX}/drivers_probe", x.aux)
    until(lambda: state_of(x.handle) == "active/attached", "active/attached")

with check("a driver that leaves and returns"):
    write(f"{AUX}/drivers/mlx5_core.sf/unbind", x.aux)
    until(lambda: state_of(x.handle) == "active/detached", "active/detached")
    write(f"{AUX}/drivers/mlx5_core.sf/bind", x.aux)
    until(lambda: state_of(x.handle) == "active/attached", "active/attached")

with check("inactive: attached until the driver has left"):
    write(f"{AUX}/drivers_autoprobe", "1")
    x.start()
    order = ["active/attached", "inactive/attached", "inactive/detached"]
    seen = [state_of(x.handle)]

    def left():
        # Looked at without a pause, since what is between may be short.
        s = state_of(x.handle)
        if seen[-1] != s:
            seen.append(s)
        return s == order[-1]

    setting = subprocess.Popen(["devlink", "port", "function", "set", x.handle, "state", "inactive"])
    until(left, order[-1], pause=0)
    equal(setting.wait(60), 0, "status of devlink")
    say(f"seen: {seen}")
    require(seen == [s for s in order if s in seen] and seen[-1] == order[-1], f"states were {seen}")
    until(lambda: x._aux() is None, "the end of the auxiliary device")

with check("deleted"):
    x.delete()
    equal(port_of(x.handle), None, "port")
    require(not os.path.exists(f"/sys/class/net/{x.rep}"), "the representor is still there")

with check("deleted while it is active, attached and in use"):
    x = Sf(PF[0], 88, "00:00:00:00:88:88")
    x.up("x", "10.0.1.2/24")
    set_up(x.rep, "10.0.1.1/24")
    until(lambda: carrier(x.dev, "x"), "carrier")
    until(lambda: carrier(x.rep), "carrier of the representor")
    ping("10.0.1.2")
    aux = x.aux
    x.delete()
    equal(port_of(x.handle), None, "port")
    until(lambda: not os.path.exists(f"{AUX}/devices/{aux}"), "the end of the auxiliary device")
    # Its number is free once the driver has heard that the function is detached.
    add = f"devlink port add pci/{PF[0]} flavour pcisf pfnum 0 sfnum 88"
    until(lambda: attempt(add).status == 0, "the end of the SF")
    Sf.found(PF[0], 88).delete()

# ------------------------------------------------------------ traffic

with check("SF and representor reach each other"):
    x = Sf(PF[0], 88, "00:00:00:00:88:88")
    x.up("x", "10.0.1.2/24", "fd01::2/64")
    equal(state_of(x.handle), "active/attached", "state")
    equal(mac_of(x.dev, "x"), "00:00:00:00:88:88", "address of the netdev")
    require("driver: mlx5_core" in run(f"ethtool -i {x.dev}", "x"), "driver")
    set_up(x.rep, "10.0.1.1/24", "fd01::1/64")
    until(lambda: carrier(x.dev, "x"), "carrier of the SF")
    until(lambda: carrier(x.rep), "carrier of the representor")
    for size in (0, 18, 19, 1472, 1473, 9000, 65507):
        ping("10.0.1.2", size)
        ping("10.0.1.1", size, ns="x")
    ping("fd01::2", 3000)
    tcp("10.0.1.2", 2 << 20, None, "x")
    tcp("10.0.1.1", 2 << 20, "x", None)
    tcp("fd01::2", 1 << 20, None, "x")

with check("counters of SF and representor agree"):
    for a in ("x", None):
        run(f"ip neigh replace 10.0.1.{1 if a else 2} lladdr {mac_of(x.rep) if a else '00:00:00:00:88:88'} dev {x.dev if a else x.rep} nud permanent", a)
    time.sleep(1)
    for src, dst, to in (("x", None, "10.0.1.1"), (None, "x", "10.0.1.2")):
        sf, rep = Delta(x.dev, "x"), Delta(x.rep)
        udp(to, [0, 17, 18, 500, 1472] * 40, src, dst)
        settled((x.dev, "x"), (x.rep, None))
        sf, rep = sf.take(), rep.take()
        expected = (200, sum(max(60, n + 42) for n in (0, 17, 18, 500, 1472)) * 40)
        one, other = ("tx", "rx") if src == "x" else ("rx", "tx")
        pair = lambda c, form: (c[form % "packets"], c[form % "bytes"])
        equal(pair(sf, one + "_%s"), expected, f"{one} frames and bytes of the SF's driver")
        equal(pair(sf, one + "_vport_unicast_%s"), expected, f"{one} frames and bytes of the SF's vport")
        equal(pair(rep, other + "_%s"), expected, f"{other} frames and bytes of the representor's driver")
        equal(pair(rep, f"vport_{other}_%s"), expected, f"{other} frames and bytes of the SF's vport as its switch counts")

with check("isolation: without a bridge an SF reaches its representor alone"):
    run(f"ip addr flush dev {x.rep}")
    run("ip addr flush dev " + x.dev, "x")
    y = Sf(PF[0], 89, "00:00:00:00:88:89")
    y.up("y", "10.0.0.4/24")
    run(f"ip link set {y.rep} up")
    set_up(x.dev, "10.0.0.3/24", ns="x")
    for sf in (x, y):
        until(lambda: carrier(sf.dev, sf.ns), "carrier")
    places = {"its representor": (x.rep, None), "another representor": (y.rep, None), "the uplink": (D0, None), "another SF": (y.dev, "y"), "the wire": (D1, PEER)}
    captures = {k: Capture(dev, "ether src 00:00:00:00:88:88", ns) for k, (dev, ns) in places.items()}
    time.sleep(0.3)
    unreachable("10.0.0.4", "x")
    unreachable("10.0.0.100", "x")
    broadcast = raw_frame("ff:ff:ff:ff:ff:ff", "00:00:00:00:88:88", 0x88B5, bytes(range(100)))
    group = raw_frame("01:00:5e:01:02:03", "00:00:00:00:88:88", 0x88B5, bytes(100))
    direct = raw_frame("00:00:00:00:88:89", "00:00:00:00:88:88", 0x88B5, bytes(100))
    to_peer = raw_frame(mac_of(D1, PEER), "00:00:00:00:88:88", 0x88B5, bytes(100))
    sent = [broadcast, group, direct, to_peer] * 5
    send_raw(x.dev, sent, "x")
    for place, capture in captures.items():
        frames = [f for _, f in capture.frames(len(sent) if place == "its representor" else 0)]
        if place == "its representor":
            equal([f for f in frames if f[12:14] == b"\x88\xb5"], sent, f"frames at {place}")
            require(any(f[12:14] == b"\x08\x06" for f in frames), "no ARP request at its representor")
        else:
            equal(frames, [], f"frames at {place}")

with check("isolation: what comes from outside reaches the uplink alone"):
    captures = {k: Capture(dev, "ether proto 0x88b5", ns) for k, (dev, ns) in places.items() if k != "the wire"}
    time.sleep(0.3)
    outside = mac_of(D1, PEER)
    sent = [raw_frame(to, outside, 0x88B5, bytes(60)) for to in ("ff:ff:ff:ff:ff:ff", "00:00:00:00:88:88", "00:00:00:00:88:89")] * 5
    send_raw(D1, sent, PEER)
    for place, capture in captures.items():
        count = len(sent) if place == "the uplink" else 0
        equal(len(capture.frames(count)), count, f"frames at {place}")

with check("a bridge joins them"):
    bridge("br0", D0, x.rep, y.rep)
    for size in (0, 18, 1472, 1473, 65507):
        ping("10.0.0.100", size, ns="x")
        ping("10.0.0.4", size, ns="x")
    for size, src, dst, to in ((4 << 20, "x", PEER, "10.0.0.100"), (4 << 20, PEER, "x", "10.0.0.3"), (4 << 20, "x", "y", "10.0.0.4"), (4 << 20, "y", PEER, "10.0.0.100")):
        say(f"  {src} to {dst}: {tcp(to, size, src, dst):.0f} Mbit/s")
    udp("10.0.0.4", (0, 1472, 30000, 65507), "x", "y")
    fdb = run("bridge fdb show br br0")
    for mac in ("00:00:00:00:88:88", "00:00:00:00:88:89", mac_of(D1, PEER)):
        require(mac in fdb, f"the bridge did not learn {mac}: {fdb}")

with check("the bridge is in the device"):
    # What the driver offloaded is marked so, and passes the representors by.
    fdb = run("bridge fdb show br br0")
    require("offload" in fdb, fdb)
    until(lambda: "00:00:00:00:88:88" in "".join(l for l in run("bridge fdb show br br0").splitlines() if "offload" in l), "an offloaded entry")
    ping("10.0.0.4", ns="x")
    before = Delta(x.rep)
    tcp("10.0.0.4", 2 << 20, "x", "y")
    seen = before.take()["rx_packets"]
    require(seen < 100, f"{seen} frames of a transfer went through the representor")

with check("VLANs across the bridge"):
    for ns, dev, n in (("x", x.dev, 3), ("y", y.dev, 4), (PEER, D1, 100)):
        run(f"ip link add link {dev} name v7 type vlan id 7", ns)
        set_up("v7", f"10.7.0.{n}/24", ns=ns)
    ping("10.7.0.4", 1473, ns="x")
    ping("10.7.0.100", 1473, ns="x")
    tcp("10.7.0.100", 1 << 20, "x", PEER)

with check("leaving the bridge separates"):
    run(f"ip link set {x.rep} nomaster")
    unreachable("10.0.0.100", "x")
    ping("10.0.0.100", ns="y")
    run(f"ip link set {x.rep} master br0")
    until(lambda: ping("10.0.0.100", ns="x", lost_ok=True) == 2, "answers across the bridge")

with check("multiple queues of an SF"):
    text = run(f"ethtool -l {x.dev}", "x")
    require("Combined:\t2" in text, text)
    run(f"ethtool -L {x.dev} combined 1", "x")
    tcp("10.0.0.4", 1 << 20, "x", "y")
    run(f"ethtool -G {x.dev} rx 512 tx 512", "x")
    tcp("10.0.0.3", 1 << 20, "y", "x")

with check("devlink reload of an SF under traffic"):
    with inside("x"):
        busy = subprocess.Popen(["ping", "-q", "-U", "-f", "10.0.0.4"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    run(f"devlink dev reload auxiliary/{x.aux}")
    busy.kill()
    busy.wait()
    x.dev = until(x._dev, "the netdev")
    x.into("x", "10.0.0.3/24")
    until(lambda: carrier(x.dev, "x"), "carrier")
    tcp("10.0.0.4", 1 << 20, "x", "y")

with check("another address of an SF"):
    x.deactivate()
    until(lambda: state_of(x.handle) == "inactive/detached", "inactive/detached")
    run(f"devlink port function set {x.handle} hw_addr 00:00:00:00:77:77")
    x.up("x", "10.0.0.3/24")
    equal(mac_of(x.dev, "x"), "00:00:00:00:77:77", "address of the netdev")
    until(lambda: carrier(x.dev, "x"), "carrier")
    run("ip neigh flush all", "y")
    tcp("10.0.0.4", 1 << 20, "x", "y")
    tcp("10.0.0.3", 1 << 20, "y", "x")

with check("fewer event queues for an SF"):
    needs("mlx5_devlink_port_fn_max_io_eqs_set", "devlink port function max_io_eqs")
    y.deactivate()
    until(lambda: state_of(y.handle) == "inactive/detached", "inactive/detached")
    run(f"devlink port function set {y.handle} max_io_eqs 1")
    equal(port_of(y.handle)["function"]["max_io_eqs"], 1, "max_io_eqs")
    y.up("y", "10.0.0.4/24")
    require("Combined:\t1" in run(f"ethtool -l {y.dev}", "y"), "channels")
    until(lambda: carrier(y.dev, "y"), "carrier")
    tcp("10.0.0.4", 1 << 20, "x", "y")

with check("the end of the story"):
    for sf in (x, y):
        sf.deactivate()
        until(lambda: state_of(sf.handle) == "inactive/detached", "inactive/detached")
        sf.delete()
    equal([p for p in ports().values() if p["flavour"] == "pcisf"], [], "ports of SFs")
    run("ip link del br0")
    switchdev(PF[0], "legacy")
    dev = netdev_of(PF[0])
    set_up(dev, "10.0.0.1/24")
    until(lambda: carrier(dev), "carrier")
    tcp("10.0.0.100", 1 << 20, None, PEER)

finish()
