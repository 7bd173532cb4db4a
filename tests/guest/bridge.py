"""A bridge in the device: entries of the FDB that come, stay with traffic, and age; VLANs that are
filtered, added and taken away; frames to all and to groups. What the device forwards, the
representors do not see."""

from lab import *
from frames import Ear, frame, tag

needs_sfs()
if not kernel_has("mlx5_esw_bridge_init"):
    skip_all("mlx5_core was built without CONFIG_MLX5_BRIDGE")

PEER = "peer"
BR = "br0"
GROUP = "239.1.1.1"
GROUP_MAC = "01:00:5e:01:01:01"
N = 50

quieten()
add_ns(PEER)
for pci in PF:
    until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{pci}/net"), f"a netdev of {pci}")
FAR = netdev_of(PF[1])
run(f"ip link set {FAR} netns {PEER}")
set_up(FAR, "10.0.0.100/24", ns=PEER)
switchdev(PF[0])
UPLINK = netdev_of(PF[0])
SFS = {}
for i, name in enumerate(("x", "y", "z")):
    sf = SFS[name] = Sf(PF[0], 20 + i, f"00:00:00:00:03:0{i}")
    sf.up(add_ns(name), f"10.0.0.{i + 1}/24")
x, y, z = SFS.values()
MAC = {name: f"00:00:00:00:03:0{i}" for i, name in enumerate(SFS)}
MAC[PEER] = mac_of(FAR, PEER)
IP = {"x": "10.0.0.1", "y": "10.0.0.2", "z": "10.0.0.3", PEER: "10.0.0.100"}
bridge(BR, UPLINK, x.rep, y.rep, z.rep)
for sf in SFS.values():
    until(lambda: carrier(sf.dev, sf.ns), f"the carrier of {sf.dev}")
until(lambda: carrier(UPLINK) and carrier(FAR, PEER), "the carrier of the cable")


def entries(mac, vid=None):
    """The bridge's entries of an address, those that were learnt."""
    found = [e for e in json.loads(run(f"bridge -j fdb show br {BR}")) if e["mac"] == mac and "permanent" not in e.get("state", "")]
    return [e for e in found if e.get("master") == BR and (vid is None or e.get("vlan") == vid)]


def in_device(name, vid=None):
    return any("offload" in e.get("flags", []) for e in entries(MAC[name], vid))


def learnt(*names, vid=None):
    for name in names:
        until(lambda: in_device(name, vid), f"the entry of {name} in the device")


@contextlib.contextmanager
def in_hardware(most=16):
    """What happens inside is nothing that software sees, but for what kernels say by themselves."""
    devs = [UPLINK] + [sf.rep for sf in SFS.values()]
    seen = lambda: {d: (c := counters(d))["rx_packets"] + c["tx_packets"] for d in devs}
    before = seen()
    yield
    after = seen()
    grown = {d: after[d] - before[d] for d in devs if after[d] - before[d] > most}
    require(not grown, f"frames that software saw: {grown}, at most {most} were to be expected")


def frames_to(dst, src, tags=(), first=0):
    return [frame(dst=dst, src=src, tags=tags, number=first + i) for i in range(N)]


def arrive(sent, dev, ns, ears, to):
    """Frames that are sent arrive at the ears of `to`, once each, and nowhere else."""
    for ear in ears.values():
        ear.take()
    send_raw(dev, sent, ns)
    got = {name: ear.take(len(sent) if name in to else 0) for name, ear in ears.items()}
    time.sleep(0.5)
    for name, ear in ears.items():
        heard = got[name] + ear.take()
        if name in to:
            equal(sorted(heard), sorted(to[name]), f"what {name} hears")
        else:
            equal(len(heard), 0, f"frames at {name}")


def arp(how):
    """Stations that say nothing by themselves, or do again."""
    for name, dev in [(name, sf.dev) for name, sf in SFS.items()] + [(PEER, FAR)]:
        run(f"ip link set {dev} arp {how}", name)


EARS = {name: Ear(sf.dev, name) for name, sf in SFS.items()}
EARS[PEER] = Ear(FAR, PEER)

with check("what the bridge learns is in the device"):
    for a, b in (("x", PEER), ("y", PEER), ("x", "y"), ("z", PEER)):
        ping(IP[b], ns=a)
    learnt("x", "y", "z", PEER)
    with in_hardware():
        ping(IP["y"], count=N, ns="x")
        ping(IP[PEER], count=N, ns="x")
        tcp(IP["y"], 2 << 20, "x", "y")
        tcp(IP[PEER], 2 << 20, "y", PEER)
        tcp(IP["x"], 2 << 20, PEER, "x")

with check("a known address is heard by its owner alone, an unknown one and all stations by all"):
    to_y = frames_to(MAC["y"], MAC["x"])
    with in_hardware():
        arrive(to_y, x.dev, "x", EARS, {"y": to_y})
    for dst in ("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:77", "01:00:5e:7f:00:01"):
        sent = frames_to(dst, MAC["x"])
        arrive(sent, x.dev, "x", EARS, {name: sent for name in ("y", "z", PEER)})

with check("a station that moves is heard at its new place"):
    moved = "02:00:00:00:00:99"
    send_raw(x.dev, frames_to(MAC[PEER], moved), "x")
    to_it = frames_to(moved, MAC[PEER])
    arrive(to_it, FAR, PEER, EARS, {"x": to_it})
    send_raw(y.dev, frames_to(MAC[PEER], moved), "y")
    until(lambda: any(e["ifname"] == y.rep for e in entries(moved)), "the entry at the new place")
    arrive(to_it, FAR, PEER, EARS, {"y": to_it})

with check("entries stay with traffic in hardware, and age without"):
    run(f"ip link set {BR} type bridge ageing_time 1000")
    end = time.monotonic() + 25 * PATIENCE
    while time.monotonic() < end:
        with in_hardware():
            ping(IP["y"], ns="x")
        require(in_device("x") and in_device("y"), "an entry with traffic is gone")
        time.sleep(1)
    until(lambda: not entries("02:00:00:00:00:99"), "the end of the station that moved")
    arp("off")
    until(lambda: not entries(MAC["x"]) and not entries(MAC["y"]), "the end of entries without traffic", 120)
    arp("on")
    run(f"ip link set {BR} type bridge ageing_time 30000")
    ping(IP["y"], ns="x")
    learnt("x", "y")

with check("groups: members hear, others do not"):
    needs("mlx5_esw_bridge_mcast_enable", "multicast offload")
    run(f"ip link set {BR} type bridge mcast_snooping 1 mcast_querier 1 mcast_startup_query_count 1 mcast_query_response_interval 10")
    for rep in (x.rep, y.rep):
        run(f"bridge mdb add dev {BR} port {rep} grp {GROUP} permanent")

    def groups():
        shown = json.loads(run("bridge -j -d mdb show"))
        return {e["port"] for b in shown for e in b.get("mdb", []) if e["grp"] == GROUP and "offload" in e.get("flags", [])}

    until(lambda: groups() == {x.rep, y.rep}, "the group in the device")
    ping(IP[PEER], ns="x")
    learnt(PEER)
    sent = [frame(dst=GROUP_MAC, src=MAC[PEER], daddr=GROUP, number=i) for i in range(N)]
    with in_hardware():
        arrive(sent, FAR, PEER, EARS, {"x": sent, "y": sent})
    run(f"bridge mdb del dev {BR} port {x.rep} grp {GROUP} permanent")
    until(lambda: groups() == {y.rep}, "the group without x")
    arrive(sent, FAR, PEER, EARS, {"y": sent})
    run(f"bridge mdb del dev {BR} port {y.rep} grp {GROUP} permanent")
    run(f"ip link set {BR} type bridge mcast_snooping 0")

with check("VLANs are filtered, added and taken away"):
    run(f"ip link set {BR} type bridge vlan_filtering 1 vlan_default_pvid 0")
    for rep in (x.rep, y.rep):
        run(f"bridge vlan add dev {rep} vid 10 pvid untagged")
    run(f"bridge vlan add dev {z.rep} vid 20 pvid untagged")
    for vid in (10, 20):
        run(f"bridge vlan add dev {UPLINK} vid {vid}")
        run(f"ip link add link {FAR} name v{vid} type vlan id {vid}", PEER)
    set_up("v10", "10.10.0.100/24", ns=PEER)
    set_up("v20", "10.20.0.100/24", ns=PEER)
    for name, address in (("x", "10.10.0.1/24"), ("y", "10.10.0.2/24"), ("z", "10.20.0.3/24")):
        run(f"ip addr add {address} dev {SFS[name].dev}", name)
    ping("10.10.0.2", ns="x")
    ping("10.10.0.100", ns="x")
    ping("10.10.0.100", ns="y")
    ping("10.20.0.100", ns="z")
    learnt("x", "y", PEER, vid=10)
    learnt("z", PEER, vid=20)
    with in_hardware():
        ping("10.10.0.2", count=N, ns="x")
        ping("10.10.0.100", size=1472, count=N, ns="x")
        ping("10.20.0.100", count=N, ns="z")
        tcp("10.10.0.100", 2 << 20, "x", PEER)
        tcp("10.10.0.1", 2 << 20, PEER, "x")

with check("tags are there on the wire, and not behind it, to the byte"):
    out = frames_to(MAC[PEER], MAC["x"])
    tagged = frames_to(MAC[PEER], MAC["x"], tags=(tag(10),))
    with in_hardware():
        arrive(out, x.dev, "x", EARS, {PEER: tagged})
        arrive(frames_to(MAC["z"], MAC[PEER], tags=(tag(20),)), FAR, PEER, EARS, {"z": frames_to(MAC["z"], MAC[PEER])})

with check("who is in another VLAN, or in none, is not heard"):
    for dev, ns, sent, to in (
        (x.dev, "x", frames_to(MAC["z"], MAC["x"]), {"y": frames_to(MAC["z"], MAC["x"]), PEER: frames_to(MAC["z"], MAC["x"], tags=(tag(10),))}),
        (x.dev, "x", frames_to(MAC[PEER], MAC["x"], tags=(tag(30),)), {}),
        (FAR, PEER, frames_to(MAC["x"], MAC[PEER]), {}),
        (FAR, PEER, frames_to(MAC["x"], MAC[PEER], tags=(tag(20),)), {"z": frames_to(MAC["x"], MAC[PEER])}),
        (FAR, PEER, frames_to(MAC["x"], MAC[PEER], tags=(tag(30),)), {}),
    ):
        arrive(sent, dev, ns, EARS, to)

with check("a port that leaves a VLAN is not heard there any more"):
    run(f"bridge vlan del dev {y.rep} vid 10")
    sent = frames_to(MAC["y"], MAC["x"])
    arrive(sent, x.dev, "x", EARS, {PEER: frames_to(MAC["y"], MAC["x"], tags=(tag(10),))})
    ping("10.10.0.100", ns="x")
    run(f"bridge vlan add dev {y.rep} vid 10 pvid untagged")
    until(lambda: ping("10.10.0.2", ns="x", lost_ok=True) == 2, "answers in the VLAN")

with check("a VLAN that a station tags itself"):
    for dev in (x.rep, UPLINK):
        run(f"bridge vlan add dev {dev} vid 30")
    run(f"ip link add link {x.dev} name v30 type vlan id 30", "x")
    run(f"ip link add link {FAR} name v30 type vlan id 30", PEER)
    set_up("v30", "10.30.0.1/24", ns="x")
    set_up("v30", "10.30.0.100/24", ns=PEER)
    ping("10.30.0.100", ns="x")
    learnt("x", PEER, vid=30)
    with in_hardware():
        ping("10.30.0.100", count=N, ns="x")
        tcp("10.30.0.100", 2 << 20, "x", PEER)

with check("without the bridge nobody is heard, and nothing stays in the device"):
    run(f"ip link del {BR}")
    arrive(frames_to(MAC["y"], MAC["x"]), x.dev, "x", EARS, {})
    for sf in SFS.values():
        sf.deactivate()
        until(lambda: state_of(sf.handle) == "inactive/detached", f"the end of {sf.aux}")
        sf.delete()
    switchdev(PF[0], "legacy")

finish()
