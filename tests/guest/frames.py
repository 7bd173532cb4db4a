"""Frames made from their fields, and sockets that hear them: for tests that compare what
arrives with what should, byte for byte. A frame of `frame(...)` carries a mark; an `Ear`
hears those only."""

from lab import *

MARK = b"sfnicFLO"
ETH_P_ALL, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q, ETH_P_8021AD = 3, 0x0806, 0x0800, 0x86DD, 0x8100, 0x88A8
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58


def sum16(data):
    """The Internet checksum's sum, not yet complemented."""
    data += b"\0" * (len(data) % 2)
    s = sum(struct.unpack(f">{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xFFFF) + (s >> 16)
    return s


def checksum(data):
    return ~sum16(data) & 0xFFFF


def tag(vid, prio=0, tpid=ETH_P_8021Q):
    """A VLAN tag for `frame`."""
    return (tpid, prio << 13 | vid)


def frame(dst="02:00:00:00:00:0b", src="02:00:00:00:00:0a", tags=(), ethertype=None, v=4, saddr=None, daddr=None,
          tos=0, ttl=64, proto=UDP, sport=1000, dport=2000, flags=0x18, kind=8, code=0, fragment=None, labels=(), size=64, number=0):
    """A frame with right lengths and checksums. `v` is the version of IP, or None for
    something else of that `ethertype`; `tags` are the VLAN tags, the outer one first;
    `fragment` is (offset in 8 bytes, more)."""
    mac = lambda m: bytes.fromhex(m.replace(":", ""))
    data = MARK + struct.pack(">I", number) + bytes(i & 0xFF for i in range(max(0, size - 12)))
    if ethertype is None:
        ethertype = {4: ETH_P_IP, 6: ETH_P_IPV6}[v]
    head = mac(dst) + mac(src)
    for tpid, tci in tags:
        head += struct.pack(">HH", tpid, tci)
    head += struct.pack(">H", ethertype)
    for i, (label, tc, lttl) in enumerate(labels):
        head += struct.pack(">I", label << 12 | tc << 9 | (i == len(labels) - 1) << 8 | lttl)
    if v is None:
        return head + data
    s = socket.inet_pton(socket.AF_INET if v == 4 else socket.AF_INET6, saddr or ("10.1.0.1" if v == 4 else "fd01::1"))
    d = socket.inet_pton(socket.AF_INET if v == 4 else socket.AF_INET6, daddr or ("10.2.0.2" if v == 4 else "fd02::2"))
    pseudo = lambda n: s + d + (struct.pack(">HH", proto, n) if v == 4 else struct.pack(">II", n, proto))
    if fragment and fragment[0]:
        l4 = data
    elif proto == TCP:
        h = lambda c: struct.pack(">HHIIHHHH", sport, dport, 7, 9, 5 << 12 | flags, 512, c, 0)
        l4 = h(checksum(pseudo(20 + len(data)) + h(0) + data)) + data
    elif proto == UDP:
        h = lambda c: struct.pack(">HHHH", sport, dport, 8 + len(data), c)
        l4 = h(checksum(pseudo(8 + len(data)) + h(0) + data) or 0xFFFF) + data
    elif proto in (ICMP, ICMPV6):
        h = lambda c: struct.pack(">BBHI", kind, code, c, 5)
        l4 = h(checksum((b"" if proto == ICMP else pseudo(8 + len(data))) + h(0) + data)) + data
    else:
        l4 = data
    if v == 4:
        offset = (fragment[0] | fragment[1] << 13) if fragment else 0
        h = lambda c: struct.pack(">BBHHHBBH", 0x45, tos, 20 + len(l4), 1, offset, ttl, proto, c) + s + d
        return head + h(checksum(h(0))) + l4
    extension = b""
    if fragment:
        extension = struct.pack(">BBHI", proto, 0, fragment[0] << 3 | fragment[1], 1)
    h6 = struct.pack(">IHBB", 6 << 28 | tos << 20, len(extension) + len(l4), 44 if fragment else proto, ttl)
    return head + h6 + s + d + extension + l4


class Ear:
    """Hears the marked frames that come in at a netdev, with their tags."""

    SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 1, 8, 23
    VLAN_VALID, TPID_VALID = 0x10, 0x40

    def __init__(self, dev, ns=None, promisc=True):
        self.name = dev
        # What GRO joins would not be what came.
        run(f"ethtool -K {dev} gro off", ns)
        with inside(ns):
            self.socket = s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            index = socket.if_nametoindex(dev)
        s.bind((dev, ETH_P_ALL))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        s.setsockopt(self.SOL_PACKET, self.PACKET_AUXDATA, 1)
        s.setsockopt(self.SOL_PACKET, self.PACKET_IGNORE_OUTGOING, 1)
        if promisc:
            s.setsockopt(self.SOL_PACKET, self.PACKET_ADD_MEMBERSHIP, struct.pack("iHH8s", index, 1, 0, b""))
        s.setblocking(False)

    def _heard(self):
        out = []
        while True:
            try:
                data, more, _, _ = self.socket.recvmsg(1 << 16, 256)
            except BlockingIOError:
                return out
            if MARK not in data:
                continue
            for level, kind, value in more:
                if (level, kind) == (self.SOL_PACKET, self.PACKET_AUXDATA):
                    status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value[:20])
                    if status & self.VLAN_VALID:
                        tpid = tpid if status & self.TPID_VALID else ETH_P_8021Q
                        data = data[:12] + struct.pack(">HH", tpid, tci) + data[12:]
            out.append(data)

    def take(self, count=0, seconds=20):
        """What was heard since the last time, as soon as there are so many."""
        out, end = self._heard(), time.monotonic() + seconds
        while len(out) < count and time.monotonic() < end:
            time.sleep(0.005)
            out += self._heard()
        return out


def same(got, expected, what):
    """Both lists have the same frames, in any order."""
    left, missing = list(got), []
    for f in expected:
        if f in left:
            left.remove(f)
        else:
            missing.append(f)
    if missing or left:
        said = [f"{len(missing)} of {len(expected)} are missing, {len(left)} are too many"]
        said += [f"missing {missing[0].hex()}"] if missing else []
        said += [f"came {left[0].hex()}"] if left else []
        raise Wrong(f"frames at {what}: " + "; ".join(said))
