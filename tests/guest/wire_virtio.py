"""A virtio network device whose other end is the wire of a physical function."""

from peer import *

life = os.environ["LIFE"]
dev = os.environ["SFNIC_NET0"]
told("a.listens")
set_up(dev, "198.18.0.2/24")

with check("checksums and segments are left to the wire"):
    features = run(f"ethtool -k {dev}")
    for name in ("tx-checksum-ip-generic", "tx-tcp-segmentation", "rx-checksumming", "tx-tcp6-segmentation"):
        require(f"{name}: on" in features, name)
with check("tcp both ways"):
    s = connect("198.18.0.1")
    before = link_of(dev)["stats64"]["rx"]["packets"]
    give(s)
    take(s)
    came = link_of(dev)["stats64"]["rx"]["packets"] - before
    # With an acknowledgement for every second segment at worst.
    require(came < SIZE // 1500 * 2 // 3, f"{came} frames for {SIZE} bytes: they were cut")
told(f"a.{life}")
if life == "first":
    die()
finish()
