"""Commands that fail or come late, objects that run out, events that are lost, a device that
says it is ill: what the driver makes of it, and that everything works afterwards."""

from lab import *
from pair import A, B, connect, reload, reporter, traffic

devs = connect()
with check("traffic before any fault"):
    traffic()

with check("a command that fails is an error of the user's request"):
    run(f"ip link set {devs[0]} down", A)
    with fault("fail CREATE_CQ pf=0 times=1") as struck:
        r = attempt(f"ip link set {devs[0]} up", A)
        require(r.status != 0, "the netdev came up without a completion queue")
    equal(struck(), 1, "how often it struck")
    run(f"ip link set {devs[0]} up", A)
    until(lambda: carrier(devs[0], A), "the carrier")
    traffic()

with check("objects that run out are an error of the user's request"):
    run(f"ip link set {devs[0]} down", A)
    with fault("exhaust sq pf=0") as struck:
        r = attempt(f"ip link set {devs[0]} up", A)
        require(r.status != 0, "the netdev came up without a send queue")
    require(struck() > 0, "no send queue was asked for")
    run(f"ip link set {devs[0]} up", A)
    until(lambda: carrier(devs[0], A), "the carrier")
    traffic()

with check("commands that are late are waited for"):
    with fault("delay any ms=300 pf=1 times=10") as struck:
        run(f"ip link set {devs[1]} down", B)
        run(f"ip link set {devs[1]} up", B)
    equal(struck(), 10, "how many were late")
    until(lambda: carrier(devs[1], B), "the carrier")

with check("a function that says it is ill is reported"):
    before = reporter(PF[1], "fw").get("error", 0)
    with fault("set health syndrome=1 ext=0x8a pf=1"):
        until(lambda: reporter(PF[1], "fw").get("error", 0) > before, "an error of the fw reporter")
        said = run(f"devlink health diagnose pci/{PF[1]} reporter fw")
        require("Syndrome: 1" in said, said)
    said = run(f"devlink health diagnose pci/{PF[1]} reporter fw")
    require("Syndrome: 0" in said, said)

with check("everything works after all of them"):
    equal(ask("faults"), [], "faults that are left")
    reload()
    traffic()

finish()
