"""SFs that come and go 200 times leave nothing in the device."""

from lab import *

needs_sfs()

ROUNDS = 200
quieten()
add_ns("x")
switchdev(PF[0])
objects, memory = [], []


def settled(name):
    """Objects when nothing is under way."""
    last = None
    for _ in range(50):
        now = ask("objects")
        if now == last:
            return now
        last = now
        time.sleep(0.1)
    raise Wrong(f"objects do not settle: {name}")


with check(f"{ROUNDS} lives of an SF"):
    baseline = settled("baseline")
    for n in range(ROUNDS):
        sf = Sf(PF[0], 1 + n % 7)
        sf.activate()
        if n % 10 == 9:
            # The whole of a life, with a netdev and traffic.
            sf.start()
            sf.into("x", "10.0.1.2/24")
            set_up(sf.rep, "10.0.1.1/24")
            until(lambda: carrier(sf.dev, "x"), "carrier")
            until(lambda: carrier(sf.rep), "carrier of the representor")
            ping("10.0.1.2", 1000)
        until(lambda: state_of(sf.handle) == "active/attached", "active/attached")
        sf.deactivate()
        until(lambda: state_of(sf.handle) == "inactive/detached", "inactive/detached")
        sf.delete()
        if n % 20 == 19:
            memory.append(ask("memory"))
            objects.append(settled(f"round {n}"))
    value("memory", memory)

with check("objects are what they were"):
    for n, o in enumerate(objects):
        equal(o, baseline, f"objects after {20 * (n + 1)} rounds")

with check("memory of the device does not grow"):
    grown = memory[-1]["anonymous"] - memory[0]["anonymous"]
    say(f"KiB: {[m['anonymous'] for m in memory]}")
    require(grown < 1024, f"{grown} KiB more after {ROUNDS} rounds than after 20")

finish()
