"""The same with switchdev on and four attached SFs that carry traffic."""

from lab import *
from fabric import PEER, Fabric


def gone():
    """Nothing of the SFs is left."""
    until(lambda: not [a for a in os.listdir("/sys/bus/auxiliary/devices") if a.startswith("mlx5_core.sf.")], "the end of the SFs")
    equal([p for p in ports().values() if p["flavour"] == "pcisf"], [], "ports of SFs")


if BOOT == 1:
    ROUNDS = int(os.environ.get("ROUNDS", "20"))
    with check("switchdev, four SFs, traffic"):
        f = Fabric()
        f.traffic(1 << 20)

    with check(f"{ROUNDS} times rmmod and modprobe with SFs under traffic"):
        for n in range(ROUNDS):
            f.flood()
            f.let_go()
            run("modprobe -r mlx5_core")
            f.quiet()
            gone()
            run("modprobe mlx5_core")
            f = Fabric()
            f.traffic()

    with check("devlink dev reload with SFs under traffic"):
        f.flood()
        f.let_go()
        for pci in PF:
            done = attempt(f"devlink dev reload pci/{pci}")
            if "when SFs are allocated" in done.err:
                say("this kernel wants the SFs' drivers gone before it reloads their function's")
                f.detach()
                done = attempt(f"devlink dev reload pci/{pci}")
            equal(done.status, 0, f"status of reload: {done.err}")
        f.quiet()
        gone()
        say(run(f"devlink dev eswitch show pci/{PF[0]}"))
        f = Fabric()
        f.traffic()

    with check("unbind, FLR, bind with SFs under traffic"):
        f.flood()
        f.let_go()
        for pci in PF:
            write("/sys/bus/pci/drivers/mlx5_core/unbind", pci)
        f.quiet()
        gone()
        for pci in PF:
            flr(pci)
            write("/sys/bus/pci/drivers/mlx5_core/bind", pci)
        f = Fabric()
        f.traffic()

    with check("switchdev to legacy and back with SFs under traffic"):
        f.flood()
        f.let_go()
        run("ip link del br0")
        switchdev(PF[0], "legacy")
        f.quiet()
        gone()
        run(f"ip link set {netdev_of(PF[1])} netns {PEER}") if os.listdir(f"/sys/bus/pci/devices/{PF[1]}/net") else None
        dev = netdev_of(PF[0])
        set_up(dev, "10.0.0.1/24")
        until(lambda: carrier(dev), "carrier")
        tcp("10.0.0.100", 1 << 19, None, PEER)
        run(f"ip addr flush dev {dev}")
        write("/sys/bus/pci/drivers/mlx5_core/unbind", PF[1])
        write("/sys/bus/pci/drivers/mlx5_core/bind", PF[1])
        f = Fabric()
        f.traffic()

    f.flood()
    f.let_go()
    sys.stdout.flush()
    time.sleep(0.5)
    run("busybox reboot -f")
    time.sleep(60)

elif BOOT == 2:
    with check("after a reboot with SFs under traffic"):
        f = Fabric()
        f.traffic(1 << 20)
        f.flood()
    sys.stdout.flush()
    time.sleep(0.5)
    write("/proc/sys/kernel/sysrq", "1")
    write("/proc/sysrq-trigger", "b")
    time.sleep(60)

else:
    with check("after a machine reset with SFs under traffic"):
        equal(BOOT, 3, "boots")
        f = Fabric()
        f.traffic(1 << 20)
    finish()
