"""Drivers that come and go: unload, reload, reset, removal, reboot, always with traffic."""

from lab import *

A, B = "a", "b"
FOUR, SIX = "10.0.0.%d", "fd00::%d"


def netdevs():
    """Both netdevs, once they are there."""
    for pci in PF:
        until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{pci}/net"), f"a netdev of {pci}")
    return [netdev_of(pci) for pci in PF]


def connect():
    """The netdevs in their namespaces, with addresses, and a carrier."""
    devs = netdevs()
    for ns, dev, n in ((A, devs[0], 1), (B, devs[1], 2)):
        run(f"ip link set {dev} netns {ns}")
        set_up(dev, FOUR % n + "/24", SIX % n + "/64", ns=ns)
    for ns, dev in ((A, devs[0]), (B, devs[1])):
        until(lambda: carrier(dev, ns), f"the carrier of {dev}")
    return devs


def traffic(size=1 << 19):
    ping(FOUR % 2, 2000, ns=A)
    tcp(FOUR % 2, size, A, B)
    tcp(SIX % 1, size, B, A)


def flood():
    """A sender that does not care what becomes of its datagrams."""
    code = "import socket,os\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nb=os.urandom(1400)\n"
    code += "while 1:\n try: s.sendto(b,('%s',9))\n except OSError: __import__('time').sleep(.01)\n"
    started = []
    for ns, to in ((A, FOUR % 2), (B, FOUR % 1)):
        with inside(ns):
            started.append(subprocess.Popen(["python3", "-c", code % to], stderr=subprocess.DEVNULL))
    time.sleep(0.5)
    return started


def end(processes):
    for p in processes:
        p.kill()
        p.wait()


def driver(pci, action):
    write(f"/sys/bus/pci/drivers/mlx5_core/{action}", pci)


for ns in (A, B):
    add_ns(ns)

if BOOT == 1:
    with check("probe and traffic"):
        connect()
        traffic(4 << 20)

    with check("what devlink tells of the device"):
        for pci in PF:
            info = devlink(f"dev info pci/{pci}")["info"][f"pci/{pci}"]
            equal(info["driver"], "mlx5_core", "driver")
            equal(info["versions"]["running"]["fw"], "22.41.1000", "running firmware")
            equal(info["versions"]["stored"]["fw"], "22.41.1000", "stored firmware")
            if SF_RESOURCES and kernel_has("mlx5_sf_table_init"):
                resources = devlink(f"resource show pci/{pci}")["resources"][f"pci/{pci}"]
                sizes = {r["name"]: r["size"] for r in resources}
                equal(sizes["max_local_SFs"], 64, "SFs that the device can have")
        equal({p["flavour"] for p in ports().values()}, {"physical"}, "flavours of the ports")
        health = run("devlink health show")
        require("state error" not in health, health)

    with check("20 times rmmod and modprobe"):
        for n in range(20):
            busy = flood() if n % 4 == 3 else []
            run("modprobe -r mlx5_core")
            end(busy)
            require(not os.path.exists("/sys/module/mlx5_core"), "mlx5_core is still there")
            run("modprobe mlx5_core")
            connect()
            traffic()

    with check("devlink dev reload"):
        for n in range(3):
            for pci in PF:
                run(f"devlink dev reload pci/{pci}")
            connect()
            traffic()

    with check("devlink dev reload of one function under traffic"):
        busy = flood()
        run(f"devlink dev reload pci/{PF[0]}")
        end(busy)
        dev = netdev_of(PF[0])
        run(f"ip link set {dev} netns {A}")
        set_up(dev, FOUR % 1 + "/24", SIX % 1 + "/64", ns=A)
        until(lambda: carrier(dev, A), "carrier")
        traffic()

    with check("the reset is a function level reset"):
        for pci in PF:
            require("flr" in read(f"/sys/bus/pci/devices/{pci}/reset_method").split(), "no FLR")

    with check("unbind, FLR, bind"):
        for n in range(3):
            busy = flood() if n else []
            for pci in PF:
                driver(pci, "unbind")
            end(busy)
            for pci in PF:
                flr(pci)
            for pci in PF:
                driver(pci, "bind")
            connect()
            traffic()

    with check("FLR of one function leaves the other alone"):
        driver(PF[1], "unbind")
        flr(PF[1])
        names = netdevs_inside(A, PF[0])
        equal(len(names), 1, "netdevs of the other function")
        until(lambda: not carrier(names[0], A), "loss of carrier")
        counters(names[0], A)
        driver(PF[1], "bind")
        until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{PF[1]}/net"), "a netdev")
        dev = netdev_of(PF[1])
        run(f"ip link set {dev} netns {B}")
        set_up(dev, FOUR % 2 + "/24", SIX % 2 + "/64", ns=B)
        until(lambda: carrier(dev, B), "carrier")
        until(lambda: carrier(names[0], A), "carrier")
        traffic()

    with check("removal from the bus and discovery"):
        for pci in PF:
            write(f"/sys/bus/pci/devices/{pci}/remove", "1")
        require(not os.path.exists(f"/sys/bus/pci/devices/{PF[0]}"), "the function is still there")
        write("/sys/bus/pci/rescan", "1")
        connect()
        traffic()

    with check("a reset by the root port"):
        port = os.path.basename(os.path.dirname(os.path.realpath(f"/sys/bus/pci/devices/{PF[0]}")))
        for pci in PF:
            write(f"/sys/bus/pci/devices/{pci}/remove", "1")
        run(f"setpci -s {port} BRIDGE_CONTROL=0040:0040")
        time.sleep(0.01)
        run(f"setpci -s {port} BRIDGE_CONTROL=0000:0040")
        time.sleep(0.2)
        write("/sys/bus/pci/rescan", "1")
        connect()
        traffic()

    say("reboot under traffic")
    flood()
    sys.stdout.flush()
    time.sleep(0.5)
    run("busybox reboot -f")
    time.sleep(60)

elif BOOT == 2:
    with check("traffic after a reboot under traffic"):
        connect()
        traffic(4 << 20)
    flood()
    sys.stdout.flush()
    time.sleep(0.5)
    # The machine is reset as it is: no driver is told.
    write("/proc/sys/kernel/sysrq", "1")
    write("/proc/sysrq-trigger", "b")
    time.sleep(60)

else:
    with check("traffic after a machine reset under traffic"):
        equal(BOOT, 3, "boots")
        connect()
        traffic(4 << 20)
    with check("power-off under traffic"):
        flood()
    finish()
