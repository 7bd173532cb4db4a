"""Suspend and resume, from the kernel's rehearsals to sleep itself, with traffic before and
after.

In switchdev mode the driver cannot sleep: it takes the representors away first, which puts the
uplink's netdev back to work behind the back of its own suspend (`mlx5e_rep_remove`, then
`mlx5e_suspend`), so that its queues are there when their event queues should go."""

from lab import *

PEER = "peer"
STATES = read("/sys/power/state").split()
KEYBOARD = "/sys/devices/platform/i8042/serio0/power/wakeup"
EBUSY = 16


def sleep_once(state, rehearse="none", mode=None):
    """Goes to sleep and comes back: by itself if it is a rehearsal, else by a key: this
    machine's clock is not heard while it idles."""
    if mode:
        write("/sys/power/mem_sleep", mode)
    write("/sys/power/pm_test", rehearse)
    # Keys are pressed all the time: in a rehearsal they would keep the machine awake.
    write(KEYBOARD, "enabled" if rehearse == "none" else "disabled")
    before = read("/sys/power/suspend_stats/success")
    for left in reversed(range(10)):
        try:
            write("/sys/power/state", state)
            break
        except OSError as e:
            # A key that is pressed too early keeps the machine awake.
            if e.errno != EBUSY or not left:
                raise
        finally:
            if rehearse != "none":
                write("/sys/power/pm_test", "none")
    equal(int(read("/sys/power/suspend_stats/success")), int(before) + 1, f"successes of {state}, {rehearse}")


def ways():
    """What this kernel can do."""
    for rehearse in ("freezer", "devices", "platform", "processors", "core"):
        if "mem" in STATES:
            yield "mem", rehearse, "deep"
    # Not sleep in which the machine's memory alone is powered: it is for a firmware to wake
    # from, and this machine boots without one.
    yield "freeze", "none", None


# The kernel asks whether the host is at the other end of a port before it gives room for the
# answer (`virtcons_restore`), and whoever writes to the port then waits forever: this test too.
if KERNEL >= (7, 3):
    skip_all("Linux 7.3 loses its virtio console when it sleeps, and with it what this would say")

ask("keys")
# The shared folder does not outlast sleep: its driver has nothing for it.
os.chdir("/")
run("umount /host")

with check("this kernel sleeps"):
    require("freeze" in STATES, f"/sys/power/state has {STATES}")
    require(os.path.exists(KEYBOARD), "no keyboard to wake by")
    for level in ("devices", "core"):
        require(level in read("/sys/power/pm_test"), "no rehearsals: CONFIG_PM_DEBUG")

D0, D1 = netdev_of(PF[0]), netdev_of(PF[1])
add_ns(PEER)
run(f"ip link set {D1} netns {PEER}")
set_up(D0, "10.0.0.1/24", "fd00::1/64")
set_up(D1, "10.0.0.2/24", "fd00::2/64", ns=PEER)


def traffic():
    until(lambda: carrier(D0) and carrier(D1, PEER), "carrier", 20)
    ping("10.0.0.2")
    tcp("10.0.0.2", 1 << 20, None, PEER)
    tcp("10.0.0.1", 1 << 20, PEER, None)
    tcp("fd00::2", 1 << 19, None, PEER)


with check("traffic before"):
    traffic()

for state, rehearse, mode in ways():
    with check(f"functions: {state}, {'for good' if rehearse == 'none' else 'rehearsed up to ' + rehearse}"):
        sleep_once(state, rehearse, mode)
        traffic()

with check("functions: what was set is there afterwards"):
    # The driver makes its receive side again, with the usual table of queues and no rules.
    for dev, ns in ((D0, None), (D1, PEER)):
        run(f"ip link set {dev} mtu 4000", ns)
    run(f"ethtool -G {D0} rx 512 tx 256")
    sleep_once("freeze")
    for dev, ns in ((D0, None), (D1, PEER)):
        equal(link_of(dev, ns)["mtu"], 4000, f"MTU of {dev}")
    rings = json.loads(run(f"ethtool --json -g {D0}"))[0]
    equal((rings["rx"], rings["tx"]), (512, 256), "rings")
    traffic()
    ping("10.0.0.2", 3900, more="-M do")

with check("functions: asleep in the middle of traffic"):
    stream = Stream("10.0.0.2", None, PEER)
    until(lambda: stream.done > 2, "traffic")
    sleep_once("freeze")
    n = stream.done
    until(lambda: stream.done > n + 2, "traffic afterwards", 30)
    stream.end()

finish()
