"""A function that is gone from its bus, reset behind its driver's back, ill beyond help, or cut
off from memory: the driver's health reporter finds out and brings it back."""

from lab import *
from pair import A, B, FOUR, connect, devices, join, meet, reload, reporter, traffic

FATAL = "fw_fatal"


@contextlib.contextmanager
def recovery():
    """The reporter brings the first function back meanwhile; its netdev is a new one."""
    before = reporter(PF[0], FATAL)
    yield
    until(lambda: reporter(PF[0], FATAL)["recover"] > before["recover"], f"recovery, after {before}", 120)
    now = reporter(PF[0], FATAL)
    equal(now["state"], "healthy", f"the reporter's state: {now}")
    devs[0] = join(0)
    meet(devs)


devs = connect()
# It would not recover what was recovered a minute ago.
run(f"devlink health set pci/{PF[0]} reporter {FATAL} grace_period 0 auto_recover true")

with check("traffic before any fault"):
    traffic()

with check("a reset behind the driver's back is found and made up for"):
    with recovery(), fault("reset pf=0") as struck:
        equal(struck(), 1, "how often it was reset")
        until(lambda: not carrier(devs[1], B), "the end of the other side's carrier")
    traffic()

with check("a function that is gone from its bus comes back"):
    with recovery(), fault("lose pcie pf=0"):
        # Devlink is locked while the driver waits for the bus.
        until(lambda: not devices(0), "the end of its netdev")
        unreachable(FOUR % 1, B)
    traffic()

with check("a firmware that asks for a reset gets one"):
    # It is well after that, though nobody took the fault out.
    with fault("set health syndrome=7 ext=0x8a severity=3 rfr=1 pf=0"), recovery():
        pass
    traffic()

with check("memory that cannot be reached: the function is of use again after its reset"):
    with fault("lose dma pf=0"):
        unreachable(FOUR % 2, A)
        unreachable(FOUR % 1, B)
    # Its queues may be in error for good, and no driver looks at that.
    with recovery():
        flr(PF[0])
    traffic()

with check("everything works after all of them"):
    equal(ask("faults"), [], "faults that are left")
    devs = reload()
    traffic()

finish()
