"""The host that manages an eswitch with two virtio slices, whose machine is killed and comes back."""

from peer import *

PEER = "peer"
SLICES = {9: "02:00:00:00:00:09", 10: "02:00:00:00:00:0a"}

add_ns(PEER)
far = netdev_of(PF[1])
run(f"ip link set {far} netns {PEER}")
set_up(far, "198.18.0.1/24", ns=PEER)
switchdev(PF[0])
uplink = netdev_of(PF[0])
handles, reps = {}, {}

with check("an SF of a virtio slice's number is a representor, and no device of this host"):
    for sfnum, mac in SLICES.items():
        handle = run(f"devlink port add pci/{PF[0]} flavour pcisf pfnum 0 sfnum {sfnum}").split(": ")[0]
        handles[sfnum], reps[sfnum] = handle, until(lambda: port_of(handle).get("netdev"), "the representor")
        equal(port_of(handle)["function"]["hw_addr"], mac, "address, which the device's configuration gives")
        equal(state_of(handle), "inactive/detached", "state")
        run(f"devlink port function set {handle} state active")
    bridge("br0", uplink, *reps.values())
    run("ip addr add 198.18.0.3/24 dev br0")
    until(lambda: carrier(far, PEER), "the cable")
    time.sleep(1)
    for sfnum in SLICES:
        require(sf_auxiliary(PF[0], sfnum) is None, f"SF {sfnum} has an auxiliary device")

with inside(PEER):
    server = listen()
server.settimeout(200 * PATIENCE)
tell("a.listens")

for life in ("first", "second"):
    with check(f"attached in the {life} life of the machine"):
        for handle in handles.values():
            until(lambda: state_of(handle) == "active/attached", f"the machine at {handle}", 150)
    with check(f"tcp both ways in its {life} life"):
        s, _ = server.accept()
        s.settimeout(90 * PATIENCE)
        before = counters(far, PEER)
        take(s)
        give(s)
        ping("198.18.0.2", ns=PEER)
        ping("198.18.0.2")
        after = counters(far, PEER)
        # What the machine sends and gets in large frames, the port and the card see in segments.
        for name in ("tx_packets_phy", "rx_packets_phy"):
            grew = after[name] - before[name]
            require(grew >= SIZE // 1500, f"{name} grew by {grew} for {SIZE} bytes")
        s.close()
    tell(f"a.{life}")
    if life == "first":
        continue
    told("b.done")
    with check("who deactivates a slice detaches it, and its machine loses the link"):
        handle = handles[9]
        run(f"devlink port function set {handle} state inactive")
        until(lambda: state_of(handle) == "inactive/detached", "its end", 20)
        tell("a.inactive")
        told("b.down")
        unreachable("198.18.0.2", ns=PEER)
        run(f"devlink port function set {handle} state active")
        until(lambda: state_of(handle) == "active/attached", "its return", 60)
        tell("a.active")
        told("b.up")
        ping("198.18.0.2", ns=PEER)
    tell("a.end")

with check("slices go while their machine runs"):
    for handle in handles.values():
        run(f"devlink port function set {handle} state inactive")
        until(lambda: state_of(handle) == "inactive/detached", "its end", 20)
        run(f"devlink port del {handle}")

finish()
