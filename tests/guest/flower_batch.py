"""tc flower: as many rules as RULES says, in one batch; samples of them forward, all of them go,
and the device has what it had before."""

from flower_lab import *

RULES = int(os.environ.get("RULES", "20000"))
SAMPLES = 40

x, y, wire = two_sfs()
ENDS = (x, y, wire)
address = lambda i: f"10.{64 + (i >> 16)}.{i >> 8 & 0xFF}.{i & 0xFF}"


def batch(lines):
    start = time.monotonic()
    write("/tmp/batch", "\n".join(lines) + "\n")
    run("tc -batch /tmp/batch", seconds=1500)
    return time.monotonic() - start


def things():
    """What PF0 has in the device, by kind."""
    return ask("objects")["pf0/0x0"]


before, memory = things(), [ask("memory")["anonymous"]]

with check(f"{RULES} rules in one batch"):
    took = batch(f"filter add dev {x.rep} ingress prio 1 protocol ip handle {i + 1:#x} flower skip_sw dst_ip {address(i)} "
                 f"action mirred egress redirect dev {y.rep}" for i in range(RULES))
    say(f"{RULES / took:.0f} rules a second in")
    value("rules_in_a_second", round(RULES / took))
    memory.append(ask("memory")["anonymous"])
    now = things()
    require(now["FlowEntry"] >= before["FlowEntry"] + RULES, f"the device has {now}, before it had {before}")

with check("samples of them forward"):
    random.seed(5)
    chosen = sorted(random.sample(range(RULES), SAMPLES)) + [0, RULES - 1]
    sent = [frame(daddr=address(i), number=i) for i in chosen]
    stray = [frame(daddr=address(RULES))]
    switched(ENDS, x, sent + stray, {y: sent}, stray)
    for i in chosen[:5] + chosen[-1:]:
        def told():
            shown = json.loads(run(f"tc -s -j filter get dev {x.rep} ingress prio 1 protocol ip handle {i + 1:#x} flower"))
            o = next(f["options"] for f in shown if "options" in f)
            require(o["in_hw"], f"rule {i}: {o}")
            return o["actions"][0]["stats"].get("hw_packets", 0)
        until(lambda: told() == chosen.count(i), f"the packet of rule {i} in its counter", 60)

with check("half of them go one by one, the others stay"):
    took = batch(f"filter del dev {x.rep} ingress prio 1 protocol ip handle {i + 1:#x} flower" for i in range(0, RULES, 2))
    say(f"{RULES / 2 / took:.0f} rules a second out")
    gone = [f for i, f in zip(chosen, sent) if i % 2 == 0]
    left = [f for i, f in zip(chosen, sent) if i % 2]
    switched(ENDS, x, sent, {y: left}, gone)

with check("all go, and nothing of them is left in the device"):
    start = time.monotonic()
    clear(x.rep)
    say(f"{RULES / 2 / (time.monotonic() - start):.0f} rules a second out, all at once")
    switched(ENDS, x, sent, {}, sent)
    kinds = ("FlowEntry", "FlowGroup", "FlowTable", "ModifyHeader")
    only = lambda o: {k: o.get(k, 0) for k in kinds}
    until(lambda: only(things()) == only(before), f"the objects of before, {only(before)}, not {only(things())},", 60)
    # The driver keeps a few bulks of counters for the next rule.
    bulks = lambda o: o.get("FlowCounterBulk", 0)
    until(lambda: bulks(things()) <= bulks(before) + 2, "the end of the counters", 60)
    memory.append(ask("memory")["anonymous"])
    say(f"KiB of the device before, with the rules, after: {memory}")
    value("memory", memory)

finish()
