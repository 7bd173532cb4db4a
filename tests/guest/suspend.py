"""Suspend and resume, from the kernel's rehearsals to sleep itself, with both functions and
then with switchdev and SFs, traffic before and after."""

from lab import *
from fabric import PEER, Fabric

STATES = read("/sys/power/state").split()
RTC = "/sys/class/rtc/rtc0/wakealarm"
KEYBOARD = "/sys/devices/platform/i8042/serio0/power/wakeup"
EBUSY = 16


def sleep_once(state, rehearse="none", mode=None):
    """Goes to sleep and comes back: by itself if it is a rehearsal, else by the clock or, from
    sleep in which the machine idles and its clock is not heard, by a key."""
    if mode:
        write("/sys/power/mem_sleep", mode)
    write("/sys/power/pm_test", rehearse)
    before = read("/sys/power/suspend_stats/success")
    if rehearse == "none" and state == "mem":
        write(RTC, "0")
        write(RTC, "+4")
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
    if "mem" in STATES:
        yield "mem", "none", "deep"
    yield "freeze", "none", None


write(KEYBOARD, "enabled")
ask("keys")
# The shared folder does not outlast sleep: its driver has nothing for it.
os.chdir("/")
run("umount /host")

with check("this kernel sleeps"):
    require("freeze" in STATES, f"/sys/power/state has {STATES}")
    require(os.path.exists(RTC), "no clock to wake by")
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
    key, table = rss_config(D0)
    run(f"ethtool -X {D0} weight 3 1")
    run(f"ip link set {D0} mtu 4000")
    run(f"ethtool -K {D0} ntuple on")
    run(f"ethtool -N {D0} flow-type udp4 dst-port 6000 action -1 loc 3")
    changed = rss_config(D0)
    sleep_once("freeze")
    equal(link_of(D0)["mtu"], 4000, "MTU")
    equal(rss_config(D0), changed, "key and table")
    traffic()
    s, d = new_socket(socket.SOCK_DGRAM, "10.0.0.1", PEER), new_socket(socket.SOCK_DGRAM, "10.0.0.1")
    d.bind(("", 6000))
    d.settimeout(1)
    s.sendto(b"x", ("10.0.0.1", 6000))
    with contextlib.suppress(TimeoutError):
        d.recv(10)
        raise Wrong("the dropping rule is not there")
    run(f"ethtool -N {D0} delete 3")
    run(f"ip link set {D0} mtu 1500")

with check("functions: asleep in the middle of traffic"):
    stream = Stream("10.0.0.2", None, PEER)
    until(lambda: stream.done > 2, "traffic")
    sleep_once("freeze")
    n = stream.done
    until(lambda: stream.done > n + 2, "traffic afterwards", 30)
    stream.end()

run(f"ip addr flush dev {D0}")
run(f"ip netns del {PEER}")
until(lambda: netdev_of(PF[1]), "the netdev's return")

with check("switchdev with SFs"):
    f = Fabric()
    f.traffic(1 << 20)

for state, rehearse, mode in (("mem", "devices", "deep"), ("freeze", "none", None)):
    with check(f"SFs: {state}, {'for good' if rehearse == 'none' else 'rehearsed up to ' + rehearse}"):
        sleep_once(state, rehearse, mode)
        say(json.dumps({h: p.get("function") for h, p in ports().items() if p["flavour"] == "pcisf"}))
        say(run(f"devlink dev eswitch show pci/{PF[0]}"))

finish()
