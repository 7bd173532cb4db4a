"""A machine whose devices are slices of an eswitch that is nobody's host's: two virtual
functions and a virtio device, a life that ends in the middle of traffic, and another one."""

from slice_lab import *

A, B, V = 100, 101, 102
VF = dict(zip((A, B), PF))
ADDRESS = {A: "10.0.0.1", B: "10.0.0.2", V: "10.0.0.3"}
NS = {A: "a", B: "b", V: "v"}
VIRTIO = os.environ["SFNIC_NET0"]
LIFE = os.environ["LIFE"]


def device(n):
    with contextlib.suppress(OSError, Wrong):
        return netdev_of(VF[n])
    return None


def up(n):
    """A function's netdev in its namespace, with a link."""
    dev = until(lambda: device(n), f"the netdev of slice {n}", 150)
    run(f"ip link set {dev} netns {NS[n]}")
    set_up(dev, ADDRESS[n] + "/24", ns=NS[n])
    until(lambda: carrier(dev, NS[n]), "the carrier")
    return dev


def driver(n, word):
    write(f"/sys/bus/pci/drivers/mlx5_core/{word}", VF[n])


def traffic():
    ping(ADDRESS[B], 1400, ns="a")
    tcp(ADDRESS[B], 1 << 20, "a", "b")
    tcp(ADDRESS[A], 1 << 20, "b", "a")


def machine():
    """What the device knows of the virtio device's driver, and what passed."""
    vports = json.loads(ask("ctl " + json.dumps(["show", "vports", "--json"]))["out"])["vports"]
    return next(v for v in vports if v["port"] == "pf0sf3")


for ns in NS.values():
    add_ns(ns)
run(f"ip link set {VIRTIO} netns v")
set_up(VIRTIO, ADDRESS[V] + "/24", ns="v")

if LIFE == "first":
    with check("a driver waits for a slice that is not active, and not for others"):
        equal(read(f"/sys/bus/pci/devices/{PF[0]}/device"), "0x101e", "device id")
        equal((state(A), state(B)), ("active/detached", "inactive/detached"), "slices")
        loading = subprocess.Popen(["modprobe", "mlx5_core"])
        reaches(A, "active/attached")
        time.sleep(1)
        equal(state(B), "inactive/detached", "the other one")
        set_slice(B, "hw_addr", "02:00:00:00:00:65")
        set_slice(B, "state", "active")
        reaches(B, "active/attached")
        loading.wait(60)
else:
    with check("the next life of the machine finds them again"):
        equal((state(A), state(B)), ("active/detached", "active/detached"), "slices")
        run("modprobe mlx5_core")
        for n in (A, B):
            reaches(n, "active/attached")

with check("frames between slices, without a host"):
    for n in (A, B):
        # There is no host that sets the port up.
        set_slice(n, "link", "up")
    dev = {n: up(n) for n in (A, B)}
    equal(mac_of(dev[B], "b"), "02:00:00:00:00:65", "address")
    traffic()

with check("a virtio slice comes and goes with its state"):
    if LIFE == "first":
        require(not carrier(VIRTIO, "v") and state(V) == "inactive/detached", "it has a link before it is active")
    set_slice(V, "link", "up", "state", "active")
    reaches(V, "active/attached")
    until(lambda: carrier(VIRTIO, "v"), "its link")
    equal(mac_of(VIRTIO, "v"), "02:00:00:00:00:66", "address")
    before = machine()
    tcp(ADDRESS[V], 1 << 20, "a", "v")
    tcp(ADDRESS[A], 1 << 20, "v", "a")
    ping(ADDRESS[B], ns="v")
    after = machine()
    for name in ("rx", "tx"):
        # Large frames are one at the machine, and so many segments at the vport.
        frames, packets = (after["far"][f"{name}_frames"], after[f"{name}_packets"])
        require(after[f"{name}_bytes"] - before[f"{name}_bytes"] >= 1 << 20, f"{name} bytes: {before} {after}")
        require(packets - before[f"{name}_packets"] >= (1 << 20) // 1500, f"{name} packets: {before} {after}")
        require(frames > before["far"][f"{name}_frames"], f"frames: {before} {after}")
    require(after["far"]["up"] and after["far"]["errors"] == 0, f"{after}")
    said = ctl("metrics")
    require(f'sfnic_wire_up{{port="pf0sf3",' in said and 'sfnic_wire_frames_total{port="pf0sf3",' in said, said)
    set_slice(V, "state", "inactive")
    equal(state(V), "inactive/detached", "slice")
    until(lambda: not carrier(VIRTIO, "v"), "the end of its link", 20)
    until(lambda: not machine()["far"]["up"], "the end of its driver", 20)
    unreachable(ADDRESS[V], ns="a")
    set_slice(V, "state", "active")
    reaches(V, "active/attached")
    until(lambda: carrier(VIRTIO, "v"), "its link again")
    ping(ADDRESS[V], ns="a")

if LIFE == "first":
    with check("a virtual function has its own vectors, and no eswitch"):
        require(0 < len(os.listdir(f"/sys/bus/pci/devices/{VF[A]}/msi_irqs")) <= 9, "vectors")
        equal([p["flavour"] for p in ports().values()], ["virtual"] * 2, "ports")
        require(attempt(f"devlink dev eswitch set pci/{VF[A]} mode switchdev").status != 0, "it has an eswitch")
        require(attempt(f"devlink port add pci/{VF[A]} flavour pcisf pfnum 0 sfnum 9").status != 0, "it adds SFs")

    with check("a slice whose driver left is detached, and attached when it comes back"):
        driver(B, "unbind")
        reaches(B, "active/detached")
        unreachable(ADDRESS[B], ns="a")
        flr(VF[B])
        driver(B, "bind")
        reaches(B, "active/attached")
        dev[B] = up(B)
        traffic()

    with check("a slice that is taken back has no link, and is detaching until its driver lets go"):
        set_slice(B, "state", "inactive")
        equal(state(B), "inactive/detaching", "slice")
        until(lambda: not carrier(dev[B], "b"), "no carrier")
        unreachable(ADDRESS[B], ns="a")
        require("its guest has not let go" in set_slice(B, "state", "active", status=1), "why it cannot be activated")
        require("detaching" in ctl("slice", "del", f"{DEV}/{B}", status=1), "why it cannot be deleted")
        driver(B, "unbind")
        reaches(B, "inactive/detached")
        set_slice(B, "state", "active")
        driver(B, "bind")
        reaches(B, "active/attached")
        dev[B] = up(B)
        traffic()

    with check("slices are added and deleted meanwhile"):
        said = ctl("slice", "add", DEV, "flavour", "passthrough", "pfnum", 0, "sfnum", 4, "index", 103)
        require(" flavour passthrough " in said and "slice103.sock" in said, said)
        why = ctl("slice", "add", DEV, "flavour", "passthrough", "pfnum", 0, "sfnum", 1, status=1)
        require("sfnum 1 already" in why, why)
        ctl("slice", "del", f"{DEV}/103")
        ctl("slice", "show", f"{DEV}/103", status=1)
        traffic()
    Stream(ADDRESS[B], "a", "b")
    time.sleep(1)
    die()

with check("one that is deleted vanishes"):
    set_slice(A, "state", "inactive")
    driver(A, "unbind")
    reaches(A, "inactive/detached")
    ctl("slice", "del", f"{DEV}/{A}")
    with open(f"/sys/bus/pci/devices/{VF[A]}/config", "rb") as f:
        equal(f.read(4), b"\xff" * 4, "its configuration space")
    ping(ADDRESS[B], ns="b")
with check("so does the virtio slice"):
    require("active" in ctl("slice", "del", f"{DEV}/{V}", status=1), "why it cannot be deleted")
    set_slice(V, "state", "inactive")
    ctl("slice", "del", f"{DEV}/{V}")
    until(lambda: not carrier(VIRTIO, "v"), "the end of its link", 20)
    unreachable(ADDRESS[V], ns="b")
set_slice(B, "state", "inactive")
equal(state(B), "inactive/detaching", "the slice at the end")
die()
