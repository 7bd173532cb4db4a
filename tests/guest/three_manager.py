"""The first of three machines at one eswitch: it has the physical function with two SFs, and
manages the eswitch. A slice is another machine's virtual function (88), one is a virtio network
device of the third (99). Three of the four are in a bridge; SF 2 is not."""

from frames import *
from peer import tell, told
from three import *

for n in (1, 2):
    add_ns(f"s{n}")
quieten()
switchdev(PF[0])
sfs = {n: Sf(PF[0], n, MAC[n]) for n in (1, 2)}
others = {n: Sf(PF[0], n) for n in (88, 99)}

with check("slices of other machines are representors, and no devices of this one"):
    for n, slice in others.items():
        equal(port_of(slice.handle)["function"]["hw_addr"], MAC[n], "address, which the device's configuration gives")
        run(f"devlink port function set {slice.handle} state active")
    for n, sf in sfs.items():
        sf.up(f"s{n}", f"{ADDRESS[n]}/24")
    bridge("br0", sfs[1].rep, others[88].rep, others[99].rep)
    run(f"ip link set {sfs[2].rep} up")
    for n, slice in others.items():
        require(sf_auxiliary(PF[0], n) is None, f"{n} has an auxiliary device")
tell("a.ready")

with check("their machines attach"):
    for n, slice in others.items():
        until(lambda: state_of(slice.handle) == "active/attached", f"{n}, which is {state_of(slice.handle)}", 150)
    for n, slice in others.items():
        require(sf_auxiliary(PF[0], n) is None, f"{n} has an auxiliary device")

with check("whoever is in the bridge reaches the others of it, and nobody else"):
    told("b.up")
    told("c.up")
    for n in (88, 99):
        ping(ADDRESS[n], 1400, ns="s1")
        unreachable(ADDRESS[n], ns="s2")
    unreachable(ADDRESS[1], ns="s2")
    unreachable(ADDRESS[2], ns="s1")

with check("frames arrive as they were sent, where they should and nowhere else"):
    # All addresses are known; what is for another one is for nobody.
    for rep in (sfs[1].rep, others[88].rep, others[99].rep):
        run(f"bridge link set dev {rep} flood off mcast_flood off")
    ears = {n: Ear(sfs[n].dev, f"s{n}") for n in (1, 2)}
    tell("a.listens")
    told("b.listens")
    told("c.listens")
    tell("a.sends")
    for n in (1, 2):
        send_raw(sfs[n].dev, frames_of(n), f"s{n}")
    same(ears[1].take(len(frames_for(1))), frames_for(1), "SF 1")
    told("b.heard")
    told("c.heard")
    equal(ears[2].take(), [], "frames at SF 2")
tell("a.heard")

with check("tcp between the other two"):
    told("b.tcp")

with check("a slice that is taken back has no link, and is free when its machine lets go"):
    sf = others[88]
    sf.deactivate()
    require(state_of(sf.handle).startswith("inactive/"), state_of(sf.handle))
    unreachable(ADDRESS[88], ns="s1")
    ping(ADDRESS[99], ns="s1")
    tell("a.inactive")
    until(lambda: state_of(sf.handle) == "inactive/detached", f"its end: {state_of(sf.handle)}", 120)
    sf.delete()
    again = Sf(PF[0], 88)
    equal(state_of(again.handle), "inactive/detached", "state of a new one")
    again.delete()

finish()
