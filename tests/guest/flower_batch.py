"""tc flower: as many rules as RULES says, in one batch; samples of them forward, all of them go,
and the device has what it had before. ROUNDS says how often; a suite that is alone in its
process sees by ALONE that the device's memory comes back."""

from flower_lab import *

RULES = int(os.environ.get("RULES", "20000"))
ROUNDS = int(os.environ.get("ROUNDS", "1"))
ALONE = os.environ.get("ALONE") == "1"
SAMPLES = 40

x, y, wire = two_sfs()
ENDS = (x, y, wire)
address = lambda i: f"10.{64 + (i >> 16)}.{i >> 8 & 0xFF}.{i & 0xFF}"


def commands():
    """Commands so far, and the seconds that the device took for them."""
    lines = ask("ctl " + json.dumps(["metrics"]))["out"].splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if line.startswith("sfnic_command_duration_seconds_"))
    sums = [sum(float(v) for k, v in told.items() if k.startswith(f"sfnic_command_duration_seconds_{s}")) for s in ("count", "sum")]
    return int(sums[0]), sums[1]


def timed(what, count, work):
    """How long it takes, how much of that in the device."""
    n, busy = commands()
    start = time.monotonic()
    work()
    took = time.monotonic() - start
    m, more = commands()
    say(f"{count / took:.0f} rules a second {what}: {m - n} commands, {100 * (more - busy) / took:.1f} % of the time in the device")
    return round(count / took)


def batch(lines):
    write("/tmp/batch", "\n".join(lines) + "\n")
    run("tc -batch /tmp/batch", seconds=1500)


def things():
    """What PF0 has in the device, by kind."""
    return ask("objects")["pf0/0x0"]


def memory():
    """KiB that the device has allocated."""
    return ask("memory")["anonymous"]


def told(i, count):
    """The hardware has rule `i`, and has counted so many packets of it."""
    shown = json.loads(run(f"tc -s -j filter get dev {x.rep} ingress prio 1 protocol ip handle {i + 1:#x} flower"))
    o = next(f["options"] for f in shown if "options" in f)
    require(o["in_hw"], f"rule {i}: {o}")
    return o["actions"][0]["stats"].get("hw_packets", 0) == count


KINDS = ("FlowEntry", "FlowGroup", "FlowTable", "ModifyHeader")
only = lambda o: {k: o.get(k, 0) for k in KINDS}
bulks = lambda o: o.get("FlowCounterBulk", 0)
before, kept = things(), [memory()]


def life(again):
    """From no rule to no rule. `kept` gets the memory with the rules, and after them."""
    with check(f"{RULES} rules in one batch{again}"):
        lines = (f"filter add dev {x.rep} ingress prio 1 protocol ip handle {i + 1:#x} flower skip_sw dst_ip {address(i)} "
                 f"action mirred egress redirect dev {y.rep}" for i in range(RULES))
        value("rules_in_a_second", timed("in", RULES, lambda: batch(lines)))
        now = things()
        require(now["FlowEntry"] >= before["FlowEntry"] + RULES, f"the device has {now}, before it had {before}")
        kept.append(memory())

    random.seed(5)
    chosen = sorted(random.sample(range(RULES), SAMPLES)) + [0, RULES - 1]
    sent = [frame(daddr=address(i), number=i) for i in chosen]
    with check(f"samples of them forward{again}"):
        stray = [frame(daddr=address(RULES))]
        switched(ENDS, x, sent + stray, {y: sent}, stray)
        for i in chosen[:5] + chosen[-1:]:
            until(lambda: told(i, chosen.count(i)), f"the packet of rule {i} in its counter", 60)

    with check(f"half of them go one by one, the others stay{again}"):
        lines = (f"filter del dev {x.rep} ingress prio 1 protocol ip handle {i + 1:#x} flower" for i in range(0, RULES, 2))
        value("rules_out_a_second", timed("out", RULES / 2, lambda: batch(lines)))
        gone = [f for i, f in zip(chosen, sent) if i % 2 == 0]
        left = [f for i, f in zip(chosen, sent) if i % 2]
        switched(ENDS, x, sent, {y: left}, gone)

    with check(f"all go, and nothing of them is left in the device{again}"):
        timed("out, all at once", RULES / 2, lambda: run(f"tc filter del dev {x.rep} ingress", seconds=1500))
        switched(ENDS, x, sent, {}, sent)
        until(lambda: only(things()) == only(before), f"the objects of before, {only(before)}, not {only(things())},", 60)
        # The driver keeps a few bulks of counters for the next rule.
        until(lambda: bulks(things()) <= bulks(before) + 2, "the end of the counters", 60)
        kept.append(memory())


for n in range(ROUNDS):
    life(f", time {n + 1}" if n else "")
    say(f"KiB of the device before, with the rules, after them, …: {kept}")
value("memory", kept)

if ALONE:
    with check("the device's memory comes back"):
        start, full = kept[0], kept[1]
        for after in kept[2::2]:
            require(after - start < (full - start) / 4, f"KiB before, with the rules, after them, …: {kept}")

finish()
