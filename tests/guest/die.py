"""Traffic of SFs that goes on until the machine is gone."""

from lab import *
from fabric import Fabric

with check("SFs with traffic"):
    f = Fabric()
    f.traffic()
    f.flood()

time.sleep(1)
die()
