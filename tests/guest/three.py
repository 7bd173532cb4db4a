"""What the three machines know of each other."""

from frames import *

MEMBERS = (1, 88, 99)
MAC = {n: f"02:00:00:00:00:{n:02x}" for n in (1, 2, 88, 99)}
ADDRESS = {n: f"198.18.0.{n}" for n in MAC}
EACH = 5


def frames_from(n, to):
    return [frame(MAC[to], MAC[n], size=60 + 200 * i, number=n << 16 | to << 8 | i) for i in range(EACH)]


def frames_of(n):
    """What a port sends: to each of the others."""
    return [f for to in MAC if to != n for f in frames_from(n, to)]


def frames_for(n):
    """What it gets: of each other member of the bridge."""
    return [f for who in MEMBERS if who != n for f in frames_from(who, n)]
