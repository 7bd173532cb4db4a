"""Interrupts and events that are lost: the driver finds out what hangs, repairs it, and says
so in its health reporters."""

from lab import *
from pair import A, B, FOUR, connect, traffic, vectors

devs = connect()


def tx_reporter():
    """The reporter of the first function's send queues."""
    all = devlink("health show")["health"]
    # Newer kernels have it at the auxiliary device of the netdev.
    place = lambda handle: os.path.realpath(f"/sys/bus/{'/devices/'.join(handle.split('/')[:2])}")
    mine = [r for handle, rs in all.items() if PF[0] in place(handle) for r in rs if r["reporter"] == "tx"]
    require(mine, f"no tx reporter among {all}")
    return mine[0]


def crowd():
    """More frames than a send queue holds, if nobody takes them: from many sockets, for each has
    room for some of its own only."""
    for _ in range(60):
        s = new_socket(socket.SOCK_DGRAM, FOUR % 2, A)
        s.setblocking(False)
        with contextlib.suppress(OSError):
            for _ in range(200):
                s.sendto(bytes(1400), (FOUR % 2, 9))
        s.close()


with check("traffic before any fault"):
    traffic()

with check("a send queue that hangs is found and repaired"):
    before = tx_reporter()
    # No answer to the sender's question for the address would keep it from sending.
    run(f"ip neigh replace {FOUR % 2} lladdr {mac_of(devs[1], B)} dev {devs[0]} nud permanent", A)
    with contextlib.ExitStack() as stack:
        # Sent and received frames share the channel's event queue (one CPU, one channel), which
        # waits for the driver once its interrupt is lost: nothing but the timeout of the send
        # queue finds it.
        lost = [f"lose interrupt pf=0 vector={v} times=1" for v in vectors(PF[0], "comp")]
        counts = [stack.enter_context(fault(what)) for what in lost]
        end = time.monotonic() + 400
        while tx_reporter()["recover"] == before["recover"]:
            crowd()
            time.sleep(1)
            require(time.monotonic() < end, "the tx reporter recovered nothing in 400 s")
        require(sum(c() for c in counts) > 0, "no interrupt was lost")
    require(tx_reporter()["error"] > before["error"], f"{tx_reporter()} after {before}")
    traffic()

with check("a command whose interrupt is lost is looked for"):
    with fault(f"lose interrupt pf=1 vector={vectors(PF[1], 'async')[0]} times=1") as struck:
        # Commands alone: an event of another kind has the same vector and would help.
        run(f"ethtool {devs[1]}", B)
        equal(struck(), 1, "how often it struck")
    traffic()

finish()
