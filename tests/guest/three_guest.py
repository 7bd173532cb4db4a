"""One of the other machines: its only network device is a slice of somebody else's eswitch."""

import peer
from peer import *
from three import *

me, number = os.environ["NAME"], int(os.environ["NUMBER"])
peer.SIZE = 4 << 20
quieten()
if me == "b":
    # A driver that comes earlier waits, and says so after 20 s.
    told("a.ready")
    run("modprobe mlx5_core")
    until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{PF[0]}/net"), "the netdev")
dev = os.environ.get("SFNIC_NET0") or netdev_of(PF[0])

with check("the device is the slice"):
    equal(mac_of(dev), MAC[number], "address")
    driver = run(f"ethtool -i {dev}").splitlines()[0].split()[-1]
    equal(driver, "mlx5_core" if me == "b" else "virtio_net", "driver")
    if me == "b":
        equal(read(f"/sys/bus/pci/devices/{PF[0]}/device"), "0x101e", "device id")
        equal([p["flavour"] for p in ports().values()], ["virtual"], "ports of devlink")

with check("the others of the bridge answer, and nobody else"):
    told("a.ready")
    set_up(dev, f"{ADDRESS[number]}/24")
    until(lambda: carrier(dev), "the link")
    ping(ADDRESS[1], 1400)
    tell(f"{me}.up")
    told(f"{'c' if me == 'b' else 'b'}.up")
    ping(ADDRESS[187 - number], 1400)
    unreachable(ADDRESS[2])

with check("frames arrive as they were sent"):
    told("a.listens")
    ear = Ear(dev)
    tell(f"{me}.listens")
    told("a.sends")
    send_raw(dev, frames_of(number))
    same(ear.take(len(frames_for(number))), frames_for(number), dev)
    time.sleep(0.5)
    same(ear.take(), [], f"{dev} afterwards")
    tell(f"{me}.heard")
    told("a.heard")

with check("tcp both ways"):
    if me == "b":
        server = listen()
        tell("b.serves")
        s, _ = server.accept()
        s.settimeout(90)
        take(s)
        give(s)
        tell("b.tcp")
    else:
        told("b.serves")
        s = connect(ADDRESS[88])
        give(s)
        take(s)
    s.close()

if me == "b":
    with check("no link once the slice is taken back"):
        told("a.inactive")
        until(lambda: not carrier(dev), "no carrier")
else:
    told("a.inactive")

finish()
