"""A physical function at a switch, in a machine that is killed; or in its next life."""

import threading

from peer import *

life = os.environ["LIFE"]
until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{PF[0]}/net"), "a netdev")
dev = netdev_of(PF[0])
set_up(dev, "198.18.0.2/24")
until(lambda: carrier(dev), "the link", 150)

if life == "first":
    told("a.listens")
    s = connect("198.18.0.1")
    data = os.urandom(1 << 16)
    while True:
        s.sendall(data)

told("a.alone")
with check("traffic in the second life"):
    s = connect("198.18.0.1")
    give(s)
    take(s)
    s.close()

with check("the other one is away for a while, and this one does not mind"):
    flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stop = threading.Event()

    def send():
        while not stop.is_set():
            with contextlib.suppress(OSError):
                flood.sendto(bytes(1400), ("198.18.0.1", 9))
            time.sleep(0.0005)

    sender = threading.Thread(target=send)
    sender.start()
    told("a.back", 150)
    stop.set()
    sender.join()
    require(carrier(dev), "no link")
    ping("198.18.0.1", count=3)
tell("b.done")
finish()
