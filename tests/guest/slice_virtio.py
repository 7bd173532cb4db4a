"""A machine with two virtio network devices that are slices of another machine's eswitch."""

from peer import *

life = os.environ["LIFE"]
first, second = os.environ["SFNIC_NET0"], os.environ["SFNIC_NET1"]
told("a.listens")
OTHER = "other"
add_ns(OTHER)
set_up(first, "198.18.0.2/24")
run(f"ip link set {second} netns {OTHER}")
set_up(second, "198.18.0.4/24", ns=OTHER)

with check("addresses and offloads are the slice's"):
    equal(mac_of(first), "02:00:00:00:00:09", "address")
    features = run(f"ethtool -k {first}")
    for name in ("tx-checksum-ip-generic", "tx-tcp-segmentation", "rx-checksumming", "tx-tcp6-segmentation"):
        require(f"{name}: on" in features, name)
    require("Combined:\t2" in run(f"ethtool -l {first}"), "two queue pairs")
with check("tcp both ways with the function at the cable's other end"):
    s = connect("198.18.0.1")
    before = link_of(first)["stats64"]["rx"]["packets"]
    give(s)
    take(s)
    s.close()
    came = link_of(first)["stats64"]["rx"]["packets"] - before
    require(came < SIZE // 1500 * 2 // 3, f"{came} frames for {SIZE} bytes: they were cut")
with check("the representors' kernel answers"):
    ping("198.18.0.3")
with check("large frames go from one slice to the other whole"):
    before = link_of(second, OTHER)["stats64"]["rx"]["packets"]
    tcp("198.18.0.4", SIZE, dst=OTHER)
    came = link_of(second, OTHER)["stats64"]["rx"]["packets"] - before
    require(came < SIZE // 16384, f"{came} frames for {SIZE} bytes")
    tcp("198.18.0.2", SIZE, src=OTHER)
told(f"a.{life}")
if life == "first":
    die()
tell("b.done")
with check("the link follows the slice's state"):
    told("a.inactive")
    until(lambda: not carrier(first), "the end of the link", 20)
    tell("b.down")
    told("a.active")
    until(lambda: carrier(first), "the link", 60)
    tell("b.up")
told("a.end")
finish()
