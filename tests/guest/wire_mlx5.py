"""A physical function whose wire leads to another machine, which is killed and comes back."""

from peer import *

dev = netdev_of(PF[0])
set_up(dev, "198.18.0.1/24")
server = listen()
server.settimeout(150)

with check("no link without a peer"):
    require(not carrier(dev), "there is a link")
tell("a.listens")

for life in ("first", "second"):
    with check(f"link up in the {life} life of the peer"):
        until(lambda: carrier(dev), "the link", 150)
    with check(f"tcp both ways in its {life} life"):
        s, _ = server.accept()
        s.settimeout(90 * PATIENCE)
        before = counters(dev)
        take(s)
        give(s)
        ping("198.18.0.2")
        after = counters(dev)
        # The wire carries large frames; the card counts their segments.
        for name in ("tx_packets_phy", "rx_packets_phy"):
            grew = after[name] - before[name]
            require(grew >= SIZE // 1500, f"{name} grew by {grew} for {SIZE} bytes")
        equal(after["rx_discards_phy"] - before["rx_discards_phy"], 0, "frames that nobody took")
    tell(f"a.{life}")
    with check(f"link down at the end of its {life} life"):
        until(lambda: not carrier(dev), "the end of the link", 60)
    s.close()

finish()
