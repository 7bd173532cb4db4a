"""What a netdev counts, and how it hashes."""

import socket
import struct
import time

from basics import *

# Since then the kernel knows what the guest's ethtool asks for along with any setting of RSS.
SETS_RSS = KERNEL >= (6, 8)


def counters(dev, ns=None):
    """What `ethtool -S` shows."""
    found = {}
    for line in run(f"ethtool -S {dev}", ns).splitlines()[1:]:
        name, _, number = line.rpartition(":")
        found[name.strip()] = int(number)
    return found


class Delta:
    """By how much counters grew."""

    def __init__(self, dev, ns=None):
        self.dev, self.ns = dev, ns
        self.before = counters(dev, ns)

    def take(self):
        after = counters(self.dev, self.ns)
        return {k: v - self.before.get(k, 0) for k, v in after.items()}


def settled(*netdevs):
    """Waits until the packet counters of (netdev, namespace) do not change any more: what was
    sent may still be on its way on a busy machine."""
    def now():
        return [{k: v for k, v in counters(*n).items() if k.endswith("_packets")} for n in netdevs]

    last = now()
    for _ in range(60):
        time.sleep(0.3)
        last, before = now(), last
        if last == before:
            return
    raise Wrong("packet counters do not settle")


def toeplitz(key, data):
    """The RSS hash, bit by bit as it is defined: for each set bit of the data, the 32 bits
    of the key that start at its position."""
    stream = int.from_bytes(key, "big")
    bits = len(key) * 8
    result = 0
    for i in range(len(data) * 8):
        if data[i // 8] >> (7 - i % 8) & 1:
            result ^= stream >> (bits - 32 - i) & 0xFFFFFFFF
    return result


def rss_input(src, dst, sport=None, dport=None, symmetric=False):
    """What is hashed of a packet. Symmetric: the OR and the XOR of each pair of fields in
    their places (RXH_XFRM_SYM_OR_XOR)."""
    pack = lambda a: socket.inet_pton(family_of(a), a)
    pairs = [(pack(src), pack(dst))]
    if sport is not None:
        pairs.append((struct.pack(">H", sport), struct.pack(">H", dport)))
    out = b""
    for a, b in pairs:
        if symmetric:
            a, b = bytes(x | y for x, y in zip(a, b)), bytes(x ^ y for x, y in zip(a, b))
        out += a + b
    return out


def rss_config(dev, ns=None, context=None):
    """Key and table that `ethtool -x` shows."""
    text = run(f"ethtool -x {dev}" + (f" context {context}" if context else ""), ns)
    above, _, below = text.partition("RSS hash key:\n")
    rows = (line.partition(":") for line in above.splitlines())
    table = [int(n) for head, _, rest in rows if head.strip().isdigit() for n in rest.split()]
    return bytes.fromhex(below.splitlines()[0].replace(":", "")), table


def set_rss(dev, words, ns=None):
    """The RSS key or table of a netdev."""
    if not SETS_RSS:
        skip("the guest's ethtool sets RSS on kernels from 6.8 on")
    run(f"ethtool -X {dev} {words}", ns)
