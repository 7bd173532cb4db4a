"""A guest on a device that another guest left in the middle of things."""

from lab import *
from fabric import Fabric

with check("no SFs of the other guest"):
    equal([p for p in ports().values() if p["flavour"] == "pcisf"], [], "ports of SFs")
    equal(devlink(f"dev eswitch show pci/{PF[0]}")["dev"][f"pci/{PF[0]}"]["mode"], "legacy", "mode")

with check("SFs with traffic"):
    f = Fabric()
    f.traffic(1 << 20)

finish()
