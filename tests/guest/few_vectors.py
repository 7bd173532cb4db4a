"""As many SFs as the device can have, and fewer interrupts than they want."""

from lab import *

needs_sfs()

PEER = "peer"
quieten()
add_ns(PEER)
D0, D1 = netdev_of(PF[0]), netdev_of(PF[1])
run(f"ip link set {D1} netns {PEER}")
set_up(D1, "10.0.0.100/24", ns=PEER)

COUNT = int(os.environ["MAX_SFS"])

with check("the capacity is told"):
    if not SF_RESOURCES:
        skip(f"mlx5_core of {os.uname().release} has no devlink resources of SFs")
    resources = devlink(f"resource show pci/{PF[0]}")["resources"][f"pci/{PF[0]}"]
    told = next(r["size"] for r in resources if r["name"] == "max_local_SFs")
    equal(told, COUNT, "max_local_SFs")

with check("as many SFs as there can be, with traffic"):
    switchdev(PF[0])
    sfs = [Sf(PF[0], i) for i in range(COUNT)]
    for i, sf in enumerate(sfs):
        add_ns(f"s{i}")
        sf.up(f"s{i}", f"10.0.0.{i + 1}/24")
    bridge("br0", D0, *[sf.rep for sf in sfs])
    for i, sf in enumerate(sfs):
        until(lambda: carrier(sf.dev, sf.ns), f"carrier of {i}")
        equal(state_of(sf.handle), "active/attached", f"state of {i}")

    def job(i):
        tcp("10.0.0.100", 1 << 20, f"s{i}", PEER)
        tcp(f"10.0.0.{(i + 1) % COUNT + 1}", 1 << 20, f"s{i}", f"s{(i + 1) % COUNT}")

    all_of([lambda i=i: job(i) for i in range(COUNT)], "traffic", 120)

with check("interrupts are shared"):
    vectors = os.listdir(f"/sys/bus/pci/devices/{PF[0]}/msi_irqs")
    most = int(os.environ["VECTORS"])
    require(len(vectors) <= most, f"{len(vectors)} vectors of {most}")
    # Each SF wants a vector for its events and one a CPU.
    require(most < 3 * COUNT, "there would be vectors for all")
    say(run("grep mlx5 /proc/interrupts"))

with check("one more is refused as the kernel refuses it"):
    r = attempt(f"devlink port add pci/{PF[0]} flavour pcisf pfnum 0 sfnum 999")
    equal((r.status, r.err.strip()), (1, "kernel answers: No space left on device"), "refusal")
    equal(len([p for p in ports().values() if p["flavour"] == "pcisf"]), COUNT, "ports of SFs")
    ping("10.0.0.100", ns="s0")

with check("one goes, one comes"):
    sfs[1].delete()
    new = Sf.found(PF[0], 999) if until(lambda: attempt(f"devlink port add pci/{PF[0]} flavour pcisf pfnum 0 sfnum 999").status == 0, "a free place") else None
    new.up("s1", "10.0.0.2/24")
    run(f"ip link set {new.rep} master br0 up")
    until(lambda: carrier(new.dev, new.ns), "carrier")
    run("ip neigh flush all", "s0")
    tcp("10.0.0.1", 1 << 20, "s1", "s0")

finish()
