"""A physical function at a switch; who is at its other port is killed in the middle of traffic,
and comes back. Then the driver of this one is removed while the other one sends."""

from peer import *


def begin():
    until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{PF[0]}/net"), "a netdev")
    dev = netdev_of(PF[0])
    set_up(dev, "198.18.0.1/24")
    until(lambda: carrier(dev), "the link", 150)
    return dev


dev = begin()
server = listen()
server.settimeout(150)
tell("a.listens")

with check("traffic until the peer is killed"):
    s, _ = server.accept()
    s.settimeout(1)
    tell("a.runs")
    came = 0
    with contextlib.suppress(TimeoutError):
        while data := s.recv(1 << 16):
            came += len(data)
    require(came > 1 << 20, f"{came} bytes before it was killed")
    require(carrier(dev), "a switch that one port of has nobody has a link all the same")
    unreachable("198.18.0.2")
    s.close()
told("b.killed")
tell("a.alone")

with check("traffic with the one that came back"):
    s, _ = server.accept()
    s.settimeout(90)
    take(s)
    give(s)
    ping("198.18.0.2")
    s.close()

with check("the driver is removed while the other one sends, and comes back"):
    run("modprobe -r mlx5_ib mlx5_core")
    time.sleep(1)
    run("modprobe mlx5_core")
    dev = begin()
    ping("198.18.0.2", count=3)
tell("a.back")
told("b.done", 60)
finish()
