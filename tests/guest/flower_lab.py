"""PF0 in switchdev mode with two SFs whose representors do nothing by themselves, PF1 on the
cable; flower rules, and what becomes of frames under them."""

from frames import *

needs_sfs()
needs_tc()


class End:
    """Somebody who sends frames into the eswitch and hears what comes out: an SF, or PF1 at
    the far end of the cable. `rep` stands for it in the eswitch."""

    def __init__(self, dev, ns, rep):
        self.dev, self.ns, self.rep = dev, ns, rep
        run(f"ip link set {rep} up")
        run(f"ethtool -K {rep} hw-tc-offload on")
        run(f"tc qdisc add dev {rep} clsact")
        until(lambda: carrier(dev, ns), f"the carrier of {dev}")
        until(lambda: carrier(rep), f"the carrier of {rep}")
        self.ear, self.slow = Ear(dev, ns), Ear(rep)
        with inside(ns):
            self.mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.mouth.bind((dev, 0))

    def send(self, *frames):
        for f in frames:
            self.mouth.send(f)


def two_sfs():
    """The ends `x` and `y`, SFs, and `wire`."""
    for ns in ("x", "y", "peer"):
        add_ns(ns)
    quieten()
    d0, d1 = netdev_of(PF[0]), netdev_of(PF[1])
    run(f"ip link set {d1} netns peer")
    set_up(d1, ns="peer")
    switchdev(PF[0])
    ends = []
    for i, ns in enumerate("xy"):
        sf = Sf(PF[0], 88 + i, f"00:00:00:00:88:0{i}")
        sf.up(ns)
        ends.append(End(sf.dev, ns, sf.rep))
    return (*ends, End(d1, "peer", d0))


class Rule:
    """A flower filter at a netdev's ingress."""

    def __init__(self, at, match, action, protocol="all", prio=1, chain=0, skip="skip_sw", ns=None):
        self.at, self.prio, self.chain, self.ns = at, prio, chain, ns
        self.words = f"{protocol} flower {match}"
        run(f"tc filter add dev {at} ingress chain {chain} prio {prio} protocol {protocol} flower {skip} {match} {action}", ns)

    def shown(self):
        filters = json.loads(run(f"tc -s -j filter show dev {self.at} ingress chain {self.chain} prio {self.prio}", self.ns))
        found = [f["options"] for f in filters if "options" in f and "keys" in f["options"]]
        require(found, f"there is no filter at {self.at}, prio {self.prio}: {filters}")
        return found[-1]

    def require_in_hw(self):
        o = self.shown()
        require(o.get("in_hw") and o.get("in_hw_count") == 1, f"{self.words}: {o}")

    def action_stats(self, which=-1):
        return self.shown()["actions"][which]["stats"]

    def hw(self):
        s = self.action_stats(0)
        return s.get("hw_packets", 0), s.get("hw_bytes", 0)

    def counted(self, frames):
        """The hardware has counted just these: the driver asks it once a second."""
        expected = (len(frames), sum(map(len, frames)))
        until(lambda: self.hw()[0] >= expected[0], f"{expected[0]} packets of {self.words}, not {self.hw()[0]},", 20)
        equal(self.hw(), expected, f"packets and bytes that {self.words} counted")
        equal(self.in_software(), 0, f"packets of {self.words} in software")

    def in_software(self):
        s = self.action_stats(0)
        return s["packets"] - s.get("hw_packets", 0)

    def delete(self):
        run(f"tc filter del dev {self.at} ingress chain {self.chain} prio {self.prio} protocol {self.words.split()[0]} flower", self.ns)


def clear(*devs, ns=None):
    """No filters."""
    for dev in devs:
        run(f"tc filter del dev {dev} ingress", ns)


def refused(at, match, action, protocol="all", why="", chain=0, ns=None):
    """The kernel does not take the rule to hardware, but to software it does."""
    line = f"dev {at} ingress chain {chain} prio 9 protocol {protocol} flower"
    r = attempt(f"tc filter add {line} skip_sw {match} {action}", ns)
    require(r.status != 0, f"{protocol} {match} {action} was taken to hardware")
    if why:
        require(why in r.err, f"{protocol} {match} {action}: {r.err}")
    run(f"tc filter add {line} {match} {action}", ns)
    shown = json.loads(run(f"tc -s -j filter show dev {at} ingress chain {chain} prio 9", ns))
    o = next(f["options"] for f in shown if "keys" in f.get("options", {}))
    require(o.get("not_in_hw") and not o.get("in_hw"), f"{protocol} {match} {action}: {o}")
    run(f"tc filter del dev {at} ingress chain {chain} prio 9", ns)


def switched(ends, sender, sent, expected, slow):
    """Frames that one end sends are heard by others: `expected` has a list of frames for each
    end that should hear any, `slow` those that its representor should."""
    for e in ends:
        e.ear.take(), e.slow.take()
    sender.send(*sent)
    for e in ends:
        want = expected.get(e, [])
        same(e.ear.take(len(want)), want, e.dev)
    want = list(slow)
    same(sender.slow.take(len(want)), want, f"the representor {sender.rep}")
    for e in ends:
        if e is not sender:
            same(e.slow.take(), [], f"the representor {e.rep}")


def silence(ends):
    """Nobody has heard anything since."""
    for e in ends:
        same(e.ear.take(), [], e.dev)
        same(e.slow.take(), [], f"the representor {e.rep}")
