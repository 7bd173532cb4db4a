"""Frames that are lost, changed or late on the wire, links that go and come back: traffic
gets through whole, and the driver has nothing to complain about."""

from lab import *
from pair import A, B, FOUR, connect


def counter(dev, name, ns):
    return int(run(f"ip netns exec {ns} cat /sys/class/net/{dev}/{name}"))


devs = connect()

with check("traffic before any fault"):
    ping(FOUR % 2, 1000, count=5, ns=A)
    tcp(FOUR % 2, 1 << 20, A, B)

with check("frames are lost, TCP is not"):
    with fault("drop frames pf=1 p=0.02 seed=1") as struck:
        tcp(FOUR % 2, 1 << 20, A, B)
        tcp(FOUR % 1, 1 << 20, B, A)
    require(struck() > 0, "no frame was dropped")

with check("frames are changed, and whoever looks at checksums notices"):
    with fault("corrupt frames pf=0 p=0.02 seed=2") as struck:
        tcp(FOUR % 2, 1 << 20, A, B)
        tcp(FOUR % 1, 1 << 20, B, A)
    require(struck() > 0, "no frame was changed")

with check("frames are late"):
    with fault("delay frames pf=0 ms=20") as struck:
        ping(FOUR % 2, 1000, count=5, ns=A)
        tcp(FOUR % 2, 1 << 18, A, B)
    require(struck() > 0, "no frame was held up")

with check("a wire that takes nothing"):
    with fault("drop frames pf=0 way=out"):
        unreachable(FOUR % 2, A)
    ping(FOUR % 2, ns=A)

with check("a link that flaps"):
    before = counter(devs[0], "carrier_down_count", A)
    with fault("flap link pf=0 down=500 up=1500 times=3") as struck:
        until(lambda: counter(devs[0], "carrier_down_count", A) >= before + 3, "the third time that the carrier goes")
        equal(struck(), 3, "how often the link went")
        until(lambda: carrier(devs[0], A) and carrier(devs[1], B), "the carrier afterwards")
    ping(FOUR % 2, ns=A)

with check("a link that is down as long as the fault"):
    with fault("flap link pf=1"):
        until(lambda: not carrier(devs[0], A) and not carrier(devs[1], B), "the carrier's end")
        unreachable(FOUR % 2, A)
    until(lambda: carrier(devs[0], A) and carrier(devs[1], B), "the carrier afterwards")

with check("traffic after all of them"):
    equal(ask("faults"), [], "faults that are left")
    ping(FOUR % 2, 1000, count=5, ns=A)
    tcp(FOUR % 2, 1 << 20, A, B)

finish()
