"""The driver's own dumps of its commands: the life of an SF, with mlx5_core's dynamic debug.

Prints the kernel's log, packed, in a line `dumps HEX`. DEBUG_MASK is mlx5_core's
debug_mask: 0 dumps whole entries and mailboxes, 1 the commands alone.
"""

import gzip

from lab import *

LOG = "/run/dumps"

quieten()
write("/proc/sys/kernel/printk", "3")
modules = read("/proc/modules")
for name in ("mlx5_ib", "mlx5_core"):
    if f"{name} " in modules:
        run(f"rmmod {name}")
# The log is to begin with a device as after power-on.
for pf in PF:
    flr(pf)
log = open(LOG, "w")
follow = subprocess.Popen(["dmesg", "--follow-new"], stdout=log)
time.sleep(0.5)

with check("the driver dumps from its first command on"):
    run(f"modprobe mlx5_core dyndbg=+p debug_mask={os.environ.get('DEBUG_MASK', '1')}", seconds=120)
    for pf in PF:
        until(lambda: netdev_of(pf), "a netdev", 60)

with check("the life of an SF"):
    add_ns("x")
    switchdev(PF[0])
    sf = Sf(PF[0], 88, "00:00:00:00:88:88")
    sf.activate()
    sf.start()
    sf.into("x", "10.0.1.2/24")
    set_up(sf.rep, "10.0.1.1/24")
    until(lambda: carrier(sf.dev, "x"), "carrier")
    ping("10.0.1.2", 1000)
    run(f"ethtool -S {netdev_of(PF[1])}")
    sf.deactivate()
    until(lambda: state_of(sf.handle) == "inactive/detached", "inactive/detached")
    sf.delete()
    switchdev(PF[0], "legacy")

with check("the driver leaves"):
    run("rmmod mlx5_core", seconds=120)

time.sleep(2)
follow.terminate()
follow.wait()
log.close()
with open(LOG, "rb") as f:
    kept = b"\n".join(line for line in f.read().split(b"\n") if b"dump" in line or b"cmd[" in line)
print("dumps " + gzip.compress(kept, 9).hex(), flush=True)
finish()
