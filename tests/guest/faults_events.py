"""Completions and events that are lost, come twice or change places: the driver makes up for
them, and what frames carry is whole."""

from lab import *
from pair import A, B, FOUR, connect, reload, traffic


@contextlib.contextmanager
def pings():
    """Echo requests of both all the while: whatever a channel sends next has an event, which makes
    up for one that is lost."""
    words = "ip netns exec {} ping -n -q -U -i 0.05 {}".format
    both = [subprocess.Popen(words(*end).split(), stdout=subprocess.DEVNULL) for end in ((A, FOUR % 2), (B, FOUR % 1))]
    try:
        yield
    finally:
        for one in both:
            one.terminate()
            one.wait()


def both_ways():
    tcp(FOUR % 2, 1 << 19, A, B)
    tcp(FOUR % 1, 1 << 19, B, A)


def traffic_under(text, most, what):
    """Traffic, and a fault that strikes more than `most` times."""
    with fault(text) as struck:
        both_ways()
        ping(FOUR % 2, 1000, count=5, ns=A)
    require(struck() > most, f"only {struck()} {what}")


def restart(dev, ns):
    """The netdev's queues are made anew."""
    run(f"ip link set {dev} down", ns)
    run(f"ip link set {dev} up", ns)


devs = connect()
with check("traffic before any fault"):
    traffic()

with check("completions that are lost: TCP sends again what was in them"):
    if not SURVIVES_LOST_COMPLETIONS:
        skip("before 6.12: the driver gives a page away twice where the completion of a buffer is lost")
    with pings(), fault("lose completion pf=0 every=61 times=20") as struck:
        while struck() < 20:
            both_ways()
    both_ways()

with check("what they held is freed with their queues"):
    restart(devs[0], A)
    until(lambda: carrier(devs[0], A) and carrier(devs[1], B), "the carrier")
    traffic()

with check("an event of a completion queue that is lost: the next one does"):
    for pf in (0, 1):
        with pings(), fault(f"lose event COMPLETION pf={pf} times=1") as struck:
            until(lambda: struck() == 1, "a completion's event")
            both_ways()

with check("events of completion queues that come twice"):
    traffic_under("duplicate event COMPLETION", 20, "came twice")

with check("events of ports that come twice"):
    with fault("duplicate event PORT_CHANGE") as struck, fault("flap link pf=0 down=300 up=300 times=2"):
        until(lambda: struck() >= 4, "the carrier's changes")
        until(lambda: carrier(devs[0], A) and carrier(devs[1], B), "the carrier afterwards")
    traffic()

with check("events of completion queues that change places"):
    traffic_under("reorder event COMPLETION every=2 ms=20", 10, "were held back")

with check("events of commands, ports and all else that change places"):
    with fault("reorder event any p=0.3 seed=5 ms=20") as struck:
        for dev, ns in zip(devs, (A, B)):
            restart(dev, ns)
        until(lambda: carrier(devs[0], A) and carrier(devs[1], B), "the carrier")
        traffic()
    require(struck() > 10, f"only {struck()} were held back")

with check("everything works after all of them"):
    equal(ask("faults"), [], "faults that are left")
    devs = reload()
    both_ways()
    traffic()

finish()
