"""A kernel that starts the next one, without a reset of the machine: the device is in the
state that the old driver left it in."""

import ctypes

from lab import *
from fabric import PEER, Fabric

KEXEC_FILE_LOAD = 320
REBOOT = 169
MAGIC = (0xFEE1DEAD, 672274793)
CMD_KEXEC = 0x45584543


def syscall(number, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    words = [a if isinstance(a, bytes) else ctypes.c_ulong(a) for a in args]
    if libc.syscall(ctypes.c_long(number), *words) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def next_kernel(clean):
    """Loads the kernel that runs and starts it."""
    line = read("/proc/cmdline").encode() + b"\0"
    with open("/host/boot/kernel", "rb") as kernel, open("/host/boot/initrd", "rb") as initrd:
        syscall(KEXEC_FILE_LOAD, kernel.fileno(), initrd.fileno(), len(line), line, 0)
    sys.stdout.flush()
    time.sleep(0.5)
    syscall(REBOOT, *MAGIC, CMD_KEXEC, 0)


def functions():
    for pci in PF:
        until(lambda: os.path.isdir(f"/sys/bus/pci/devices/{pci}/net"), f"a netdev of {pci}", 60)
    add_ns(PEER)
    dev, far = netdev_of(PF[0]), netdev_of(PF[1])
    run(f"ip link set {far} netns {PEER}")
    set_up(dev, "10.0.0.1/24")
    set_up(far, "10.0.0.2/24", ns=PEER)
    until(lambda: carrier(dev) and carrier(far, PEER), "carrier", 20)
    tcp("10.0.0.2", 1 << 20, None, PEER)
    tcp("10.0.0.1", 1 << 20, PEER, None)


if BOOT == 1:
    with check("the first kernel"):
        functions()
        stream = Stream("10.0.0.2", None, PEER)
        until(lambda: stream.done, "traffic")
    with check("the next kernel is started in the middle of traffic"):
        next_kernel(False)
elif BOOT == 2:
    with check("the second kernel"):
        functions()
        run("ip addr flush dev " + netdev_of(PF[0]))
        run(f"ip netns del {PEER}")
        until(lambda: netdev_of(PF[1]), "the netdev's return")
    with check("switchdev and SFs"):
        f = Fabric()
        f.traffic()
        f.flood()
        f.let_go()
    with check("the next kernel is started while SFs carry traffic"):
        next_kernel(True)
else:
    with check("the third kernel"):
        equal(BOOT, 3, "boots")
        f = Fabric()
        f.traffic(1 << 20)
    finish()
