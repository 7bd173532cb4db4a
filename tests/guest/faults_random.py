"""Twenty faults by chance, one after another, while frames flow and somebody changes settings:
whatever they did, a reload of the driver brings both functions back.

The same SEED has the same faults; SFNIC_SEED of the program that runs the guest is another one."""

from lab import *
from pair import A, B, FOUR, connect, devices, join, reporter, traffic, vectors

SEED = int(os.environ.get("SEED", "1"))
ROUNDS = 20
FATAL = "fw_fatal"
chance = random.Random(SEED)


def some(pf):
    """A fault of a function, and whether the driver has to recover from it."""
    p, seed, n = chance.choice((0.02, 0.1, 0.3)), chance.randrange(1000), chance.randrange(1, 30)
    command = chance.choice(("any", "CREATE_CQ", "CREATE_SQ", "CREATE_RQ", "CREATE_TIR", "MODIFY_RQ", "CREATE_MKEY"))
    kind = chance.choice(("cq", "sq", "rq", "rqt", "tir", "tis", "mkey", "flow_rule", "flow_table", "q_counter"))
    event = chance.choice(("COMPLETION", "PORT_CHANGE"))
    way = chance.choice(("in", "out"))
    may = [
        f"fail {command} p={p} seed={seed} status={chance.choice(('INTERNAL', 'NO_RESOURCES', 'BAD_PARAM', 'BAD_RES_STATE'))}",
        f"delay any ms={n}",
        f"exhaust {kind} limit={chance.randrange(3)}",
        f"lose event {event} times={n % 3 + 1}",
        f"duplicate event {event} p={p} seed={seed}",
        f"reorder event any p={p} seed={seed} ms={n}",
        f"lose completion every={n + 20}" if SURVIVES_LOST_COMPLETIONS else f"delay any ms={n}",
        f"lose interrupt vector={chance.choice(VECTORS[pf])} times=1",
        "stop health",
        f"set health syndrome={n} ext={seed}",
        f"drop frames way={way} p={p} seed={seed}",
        f"corrupt frames way={way} p={p} seed={seed}",
        f"delay frames way={way} ms={n} p={p} seed={seed}",
        f"flap link down={n * 10} up=100 times=3",
    ]
    fatal = [
        f"set health syndrome={n} severity=3 rfr=1",
        "reset",
        "lose pcie",
        "lose dma",
    ]
    wants = chance.random() < 0.2
    return chance.choice(fatal if wants else may), wants


class Noise:
    """Traffic that may fail, but never tells lies."""

    def __init__(self):
        self.stop, self.done, self.lie = False, 0, None
        jobs = [(FOUR % 2, A, B), (FOUR % 1, B, A)]
        self.threads = [threading.Thread(target=self._run, args=job, daemon=True) for job in jobs]
        for t in self.threads:
            t.start()

    def _run(self, to, src, dst):
        while not self.stop:
            try:
                tcp(to, 1 << 15, src, dst, seconds=2)
                self.done += 1
            except Wrong as e:
                if "hash of" in str(e):
                    self.lie = e
            except OSError:
                time.sleep(0.05)

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join(10)


def device(n):
    """The netdev of a function in its namespace; one that the driver made anew gets there first."""
    with contextlib.suppress(OSError, Wrong, KeyError):
        if os.listdir(f"/sys/bus/pci/devices/{PF[n]}/net"):
            join(n)
    return next(iter(devices(n)), None)


def meddle(n):
    """What somebody may do to a netdev."""
    what = chance.choice(("restart", "mtu", "channels", "rings", "statistics", "nothing"))
    dev, ns = device(n), (A, B)[n]
    say(f"{what} of {dev}")
    if not dev:
        return
    if what == "restart":
        attempt(f"ip link set {dev} down", ns)
        attempt(f"ip link set {dev} up", ns)
    elif what == "mtu":
        attempt(f"ip link set {dev} mtu {chance.choice((1500, 3000, 9000))}", ns)
    elif what == "channels":
        attempt(f"ethtool -L {dev} combined {chance.choice((1, 2))}", ns)
    elif what == "rings":
        attempt(f"ethtool -G {dev} rx {chance.choice((256, 512, 1024))}", ns)
    elif what == "statistics":
        attempt(f"ethtool -S {dev}", ns)


def recovered(pf, before):
    """The driver dealt with what was fatal, one way or the other."""
    now = reporter(PF[pf], FATAL)
    return now["recover"] > before["recover"] and now["state"] == "healthy"


def strike(number):
    pf = chance.randrange(2)
    text, fatal = some(pf)
    say(f"fault {number}: {text} pf={pf}")
    before = reporter(PF[pf], FATAL) if fatal else None
    with fault(f"{text} pf={pf}") as struck:
        if fatal:
            time.sleep(0.3)
            if text == "lose pcie":
                # Devlink is locked while the driver waits for the bus.
                until(lambda: not devices(pf), "the end of the netdev")
            if "health" in text:
                until(lambda: recovered(pf, before), "recovery by a reset of the firmware")
        else:
            meddle(chance.randrange(2))
            time.sleep(0.4)
        say(f"struck {struck()} times")
    if text == "lose dma":
        # Its queues are in error for good.
        flr(PF[pf])
    if fatal:
        until(lambda: recovered(pf, before), f"recovery from {text}")
    for n in (0, 1):
        device(n)


connect()
# Without those of commands: the driver would notice after a minute.
VECTORS = [vectors(pci, "comp") for pci in PF]
for pci in PF:
    run(f"devlink health set pci/{pci} reporter {FATAL} grace_period 0 auto_recover true")

with check("traffic before any fault"):
    traffic()

value("seed", SEED)
noise = Noise()
with check(f"twenty faults by chance, seed {SEED}"):
    for number in range(1, ROUNDS + 1):
        strike(number)
noise.end()
say(f"{noise.done} transfers got through")
with check("what came through was whole"):
    require(noise.lie is None, f"{noise.lie}")
    require(noise.done > 0, "nothing came through")

with check("a reload of the driver brings it back"):
    equal(ask("faults"), [], "faults that are left")
    run("modprobe -r mlx5_ib mlx5_core")
    left = {f: {k: n for k, n in kinds.items() if n} for f, kinds in ask("objects").items()}
    equal({f: kinds for f, kinds in left.items() if kinds}, {}, "objects without a driver")
    run("modprobe mlx5_core")
    connect()
    for _ in range(3):
        traffic()
        tcp(FOUR % 1, 1 << 19, B, A)

finish()
