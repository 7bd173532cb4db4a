"""32 SFs on PF0 and 4 on PF1, all attached, all busy at the same time."""

from lab import *

needs_sfs()

N0, N1 = 32, 4
SIZE = 10_000_000

quieten()
D = [netdev_of(pci) for pci in PF]

with check("switchdev on both functions"):
    for pci in PF:
        switchdev(pci)

sfs = [[], []]
with check(f"{N0} and {N1} SFs"):
    for pf, count in ((0, N0), (1, N1)):
        for i in range(count):
            # Every other one has the address that the device or the driver gives it.
            mac = f"00:00:00:00:{pf + 1:02x}:{i:02x}" if i % 2 else None
            sfs[pf].append(Sf(PF[pf], 1000 + i, mac))
    equal(len([p for p in ports().values() if p["flavour"] == "pcisf"]), N0 + N1, "ports of SFs")

every = [(pf, i, sf) for pf in (0, 1) for i, sf in enumerate(sfs[pf])]
name = lambda pf, i: f"s{pf}-{i}"
address = lambda pf, i: f"10.{pf}.0.{i + 1}"

with check("all are activated"):
    for _, _, sf in every:
        sf.activate()
    for _, _, sf in every:
        until(lambda: state_of(sf.handle) == "active/attached", f"active/attached of {sf.sfnum}", 60)

with check("all have Ethernet"):
    halves = [every[0::2], every[1::2]]
    all_of([lambda h=h: [sf.start() for _, _, sf in h] for h in halves], "Ethernet of the SFs")
    for pf, i, sf in every:
        add_ns(name(pf, i))
        sf.into(name(pf, i), f"{address(pf, i)}/8")
    macs = {mac_of(sf.dev, sf.ns) for _, _, sf in every}
    equal(len(macs), len(every), "different addresses")

with check("bridges"):
    for pf in (0, 1):
        bridge(f"br{pf}", D[pf], *[sf.rep for sf in sfs[pf]])
    for pf, i, sf in every:
        until(lambda: carrier(sf.dev, sf.ns), f"carrier of {sf.sfnum}")

with check("everyone reaches everyone's neighbour"):
    for i in range(N0):
        ping(address(0, (i + 1) % N0), 1473, ns=name(0, i))
        ping(address(1, i % N1), ns=name(0, i))

with check(f"{N0} transfers of {SIZE} bytes at the same time"):
    def job(i):
        # Half of them to another SF of the same function, the others over the cable, both ways.
        if i % 2:
            tcp(address(0, i - 1), SIZE, name(0, i), name(0, i - 1), seconds=240)
        elif i % 4:
            tcp(address(1, i // 4 % N1), SIZE, name(0, i), name(1, i // 4 % N1), seconds=240)
        else:
            tcp(address(0, i), SIZE, name(1, i // 4 % N1), name(0, i), seconds=240)

    start = time.monotonic()
    all_of([lambda i=i: job(i) for i in range(N0)], "transfers", 240)
    took = time.monotonic() - start
    say(f"  {N0 * SIZE * 8 / took / 1e6:.0f} Mbit/s in all")

with check("all are still attached and without errors"):
    states = {h: p.get("function", {}).get("opstate") for h, p in ports().items()}
    for n, (pf, i, sf) in enumerate(every):
        equal(states[sf.handle], "attached", f"state of {sf.sfnum}")
        if n % 5:
            continue
        c = counters(sf.dev, sf.ns)
        for what in ("rx_wqe_err", "tx_cqe_err", "tx_recover", "rx_recover", "tx_queue_dropped"):
            equal(c[what], 0, f"{what} of {sf.sfnum}")
    health = run("devlink health show")
    require("state error" not in health, health)

with check("half of them go, the others work on"):
    for _, _, sf in every[::2]:
        sf.deactivate()
        sf.delete()
    for i in range(1, N0, 2):
        ping(address(0, (i + 2) % N0), ns=name(0, i))

with check("and return"):
    for _, i, sf in every[:8:2]:
        again = Sf(PF[0], 2000 + i)
        again.up(name(0, i), f"{address(0, i)}/8")
        run(f"ip link set {again.rep} master br0 up")
        until(lambda: carrier(again.dev, again.ns), "carrier")
        tcp(address(0, i + 1), 1 << 19, name(0, i), name(0, i + 1))

with check("legacy mode ends them all"):
    for pci in PF:
        switchdev(pci, "legacy")
    equal([p for p in ports().values() if p["flavour"] == "pcisf"], [], "ports of SFs")
    until(lambda: not [a for a in os.listdir("/sys/bus/auxiliary/devices") if ".sf." in a], "the end of the SFs")

finish()
