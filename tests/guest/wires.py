"""Both functions at a switch, with links of different speeds, and wires that are impaired while
they run."""

import re
import time

from lab import *
from pair import A, B, FOUR, connect


def ctl(*words):
    """`sfnic ctl` on the device; what it prints, as JSON if it is."""
    said = ask("ctl " + json.dumps([str(w) for w in words]))
    equal(said["status"], 0, f"status of {words}: {said['err']}")
    return json.loads(said["out"]) if said["out"].startswith("{") else said["out"]


def frames(port, way):
    """What became of the frames that were not left alone."""
    return ctl("wire", "show", port, "-j")["wire"][0][way]["frames"]


@contextlib.contextmanager
def wire(port, *words):
    """A wire that is impaired for a while; what it did to frames in both directions meanwhile."""
    before = {way: frames(port, way) for way in ("in", "out")}
    ctl("wire", "set", port, *words)
    try:
        yield lambda what: sum(frames(port, way)[what] - before[way][what] for way in before)
    finally:
        ctl("wire", "set", port, "off")


def rtt(ns, to, count=3):
    """The shortest round trip time in milliseconds."""
    return float(re.search(r"= ([\d.]+)/", run(f"ping -q -U -c {count} -i 0.1 {to}", ns))[1])


devs = connect()

with check("links have the speed that was configured"):
    for dev, ns, speed in zip(devs, (A, B), (25000, 10000)):
        equal(int(re.search(r"Speed: (\d+)Mb/s", run(f"ethtool {dev}", ns))[1]), speed, f"speed of {dev}")
    modes = run(f"ethtool {devs[1]}", B)
    require("10000base" in modes and "25000base" not in modes, f"modes of a 10G port: {modes}")

with check("traffic through the switch"):
    for size in (0, 1000, 20000):
        ping(FOUR % 2, size, ns=A)
    tcp(FOUR % 2, 1 << 22, A, B)
    tcp(FOUR % 1, 1 << 22, B, A)

with check("the switch knows both"):
    (switch,) = ctl("show", "switches", "-j")["switches"]
    found = {s["mac"]: s["port"] for s in switch["stations"]}
    equal(found, {mac_of(devs[0], A): "p0", mac_of(devs[1], B): "p1"}, "stations")
    require(all(p["up"] for p in switch["ports"]), f"a port is down: {switch['ports']}")

with check("delay, on one way and on both"):
    with wire("p0", "out", "delay=60ms"):
        require(rtt(A, FOUR % 2) >= 60, "a frame was too early")
    with wire("p0", "delay=60ms", "jitter=10ms", "seed=1"):
        require(rtt(A, FOUR % 2) >= 100, "a frame was too early")
        tcp(FOUR % 2, 1 << 18, A, B)

with check("loss: of some frames, and of all"):
    with wire("p1", "loss=0.02", "seed=2") as count:
        tcp(FOUR % 2, 1 << 21, A, B)
        tcp(FOUR % 1, 1 << 21, B, A)
        require(count("lost") > 0, "no frame was lost")
    for way in ("in", "out"):
        with wire("p1", way, "loss=1"):
            unreachable(FOUR % 2, A)
    ping(FOUR % 2, ns=A)

with check("frames that arrive twice"):
    with wire("p1", "in", "duplicate=1") as count:
        said = run(f"ping -U -c 3 {FOUR % 2}", A)
        require("DUP!" in said, f"nothing came twice: {said}")
        tcp(FOUR % 2, 1 << 20, A, B)
        require(count("duplicated") > 0, "no frame was duplicated")

with check("frames that overtake, and frames that are changed"):
    with wire("p0", "out", "delay=3ms", "reorder=0.1", "corrupt=0.01", "seed=3") as count:
        tcp(FOUR % 2, 1 << 21, A, B)
        require(count("reordered") > 0 and count("corrupted") > 0, "no frame was reordered or changed")

with check("a slow wire"):
    with wire("p0", "out", "rate=20M", "queue=20ms"):
        begun = time.monotonic()
        tcp(FOUR % 2, 1 << 21, A, B)
        took = time.monotonic() - begun
        require(took >= (8 << 21) / 20e6 * 0.9, f"2 MiB took {took} s at 20 Mbit/s")

with check("no trace of all that"):
    for port in ctl("wire", "show", "-j")["wire"]:
        equal([port[way]["impair"] for way in ("in", "out")], ["off", "off"], port["port"])
    ping(FOUR % 2, 1000, count=5, ns=A)
    tcp(FOUR % 2, 1 << 22, A, B)

finish()
