"""SFs that carry traffic while the device's process is replaced by another one, twice."""

from fabric import *
from peer import tell

with check("four SFs that carry traffic"):
    f = Fabric()
    f.traffic()

for n in range(2):
    with check(f"checked streams through an SF while the process is replaced, time {n + 1}"):
        f.flood()
        checked = Stream("10.0.0.100", "s0", PEER)
        until(lambda: checked.done > 0, "checked transfers")
        tell(f"runs.{n}")
        until(lambda: os.path.exists(f"/host/taken.{n}"), "another process")
        before = checked.done
        until(lambda: checked.done >= before + 2, "transfers behind it")
        tcp("10.0.0.2", 1 << 20, "s0", "s1")
        say(f"{checked.end()} transfers, {before} of them before it was known")
        f.quiet()

with check("all SFs and what they are told by the new process"):
    f.traffic()
    for i, sf in enumerate(f.sfs):
        equal(state_of(sf.handle), "active/attached", f"state of SF {i}")
    run(f"ethtool -S {netdev_of(PF[0])}")

with check("an SF goes, and a new one comes"):
    old = f.sfs.pop()
    old.deactivate()
    until(lambda: state_of(old.handle) == "inactive/detached", "the end of an SF")
    new = Sf(PF[0], 120, "00:00:00:00:01:20")
    new.activate()
    new.start()
    new.into("s3", "10.0.0.20/24")
    run(f"ip link set {new.rep} up master br0")
    until(lambda: carrier(new.dev, "s3"), "the carrier of the new SF")
    tcp("10.0.0.100", 1 << 20, "s3", PEER)

finish()
