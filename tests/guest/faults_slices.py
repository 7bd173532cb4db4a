"""A function that is reset behind its driver's back while its SFs run: the driver recovers, and
the slices, which are not the driver's, attach again."""

from slice_lab import *
from pair import reporter

FATAL = "fw_fatal"

for ns in (PEER, "s4", "s5"):
    add_ns(ns)
functions()
run(f"devlink health set pci/{PF[0]} reporter {FATAL} grace_period 0 auto_recover true")

with check("two slices with traffic between them"):
    for index, sfnum in ((100, 4), (101, 5)):
        add(index, sfnum, mac_of_slice(sfnum))
        set_slice(index, "state", "active")
        reaches(index, "active/attached")
        into(sfnum, f"s{sfnum}", f"10.0.0.{sfnum}")
    tcp("10.0.0.5", 1 << 19, "s4", "s5")
    tcp("10.0.0.100", 1 << 19, "s4", PEER)

with check("a reset detaches them, and the driver that recovers attaches them again"):
    before = reporter(PF[0], FATAL)["recover"]
    with fault("reset pf=0") as struck:
        equal(struck(), 1, "how often it was reset")
        until(lambda: reporter(PF[0], FATAL)["recover"] > before, "recovery", 180)
    equal(reporter(PF[0], FATAL)["state"], "healthy", "the reporter's state")
    for n in (100, 101):
        reaches(n, "active/attached")

with check("everything works after it"):
    equal(ask("faults"), [], "faults that are left")
    until(lambda: attempt(f"ls /sys/bus/pci/devices/{PF[0]}/net").status == 0, "the netdev")
    set_up(netdev_of(PF[0]), "10.0.0.1/24")
    until(lambda: carrier(netdev_of(PF[0])), "the carrier")
    for sfnum in (4, 5):
        into(sfnum, f"s{sfnum}", f"10.0.0.{sfnum}")
    tcp("10.0.0.5", 1 << 19, "s4", "s5")
    tcp("10.0.0.100", 1 << 19, "s4", PEER)
    tcp("10.0.0.4", 1 << 19, PEER, "s4")

with check("an inactive one is let go of"):
    remove(100, 101)

finish()
