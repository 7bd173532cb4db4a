"""Runs the kernel's own tests of network drivers in the guest. The arguments are programs
below the tree of self-tests, each as PROGRAM:SECONDS.

PF0 is the device under test, PF1 the remote end, in a namespace of its own. What a program
says goes to /host/suite.log between two lines of ours, `suite: begin PROGRAM` and
`suite: end PROGRAM STATUS SECONDS`; the kernel's log gets the first one too, so that its
lines can be told apart. STATUS is `timeout` if the program took too long. Progress is on
standard error.
"""

import contextlib
import fnmatch
import os
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = "/tmp/linux"
TESTS = f"{TREE}/tools/testing/selftests"
REMOTE = "remote"
# Other networks than those that the tests give to insides of tunnels.
LOCAL = {"4": "10.64.0.1", "6": "2001:db8:1::1"}
FAR = {"4": "10.64.0.2", "6": "2001:db8:1::2"}
RETRIES = int(os.environ.get("SUITE_RETRIES", "0"))
# Patterns of cases whose end is known: no second try helps them.
KNOWN = os.environ.get("SUITE_KNOWN", "").split()
LOG = open(f"{HERE}/suite.log", "a+", buffering=1)


def run(*words, ns=None, check=True):
    words = (["ip", "netns", "exec", ns] if ns else []) + list(words)
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def netdev_of(pci):
    return os.listdir(f"/sys/bus/pci/devices/{pci}/net")[0]


def say(line):
    print(line, file=LOG, flush=True)


def progress(line):
    print(line, file=sys.stderr, flush=True)


def settle(dev, ns, addresses):
    """A netdev up, with its addresses, whatever the test before did to it."""
    # Some tests take the link down and up and go on to use the address.
    run("sysctl", "-qw", f"net.ipv6.conf.{dev}.keep_addr_on_down=1", ns=ns)
    run("ip", "link", "set", dev, "up", "mtu", "1500", ns=ns)
    for family, address in addresses.items():
        length = "24" if family == "4" else "64"
        more = ["nodad"] if family == "6" else []
        run("ip", f"-{family}", "addr", "replace", f"{address}/{length}", "dev", dev, *more, ns=ns)


def linked():
    """Do the two ends reach each other, by both families?"""
    for _ in range(100):
        pings = [subprocess.run(["ping", "-c1", "-W1", a], capture_output=True) for a in FAR.values()]
        if not any(p.returncode for p in pings):
            return True
        time.sleep(0.1)
    return False


def attempt(program, words, folder, seconds, env):
    """Runs a program once; gives the names of the cases that failed."""
    say(f"suite: begin {program}")
    with open("/dev/kmsg", "w") as f:
        f.write(f"<6>suite: begin {program}\n")
    LOG.seek(0, os.SEEK_END)
    at, start = LOG.tell(), time.monotonic()
    # A session of its own, so that nothing that it started outlives it.
    p = subprocess.Popen(
        words, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=LOG, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        status = p.wait(seconds)
    except subprocess.TimeoutExpired:
        status = "timeout"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    say(f"\nsuite: end {program} {status} {time.monotonic() - start:.1f}")
    LOG.seek(at)
    failed = [line.split(None, 3)[3].split(" # ")[0].strip() for line in LOG if re.match(r"not ok \d+ ", line)]
    LOG.seek(0, os.SEEK_END)
    progress(f"{program}: {status}, {time.monotonic() - start:.0f} s" + (f", failed: {' '.join(failed)}" if failed else ""))
    return [f for f in failed if not any(fnmatch.fnmatchcase(f, k) for k in KNOWN)]


def main():
    dev, far = netdev_of(os.environ["SFNIC_PF0"]), netdev_of(os.environ["SFNIC_PF1"])
    shutil.copytree(f"{HERE}/linux", TREE, symlinks=True)
    env = dict(
        os.environ,
        NETIF=dev,
        LOCAL_V4=LOCAL["4"],
        LOCAL_V6=LOCAL["6"],
        REMOTE_V4=FAR["4"],
        REMOTE_V6=FAR["6"],
        REMOTE_TYPE="netns",
        REMOTE_ARGS=REMOTE,
        LOCAL_PREFIX_V6="2001:db8:2::0/64",
        PYTHONDONTWRITEBYTECODE="1",
    )
    run("ip", "netns", "add", REMOTE)
    run("ip", "link", "set", "lo", "up", ns=REMOTE)
    run("ip", "link", "set", far, "netns", REMOTE)
    # Some tests want CPUs that no receive queue interrupts.
    queues = max(1, os.cpu_count() - 2)
    for word in sys.argv[1:]:
        program, _, seconds = word.partition(":")
        folder, name = os.path.split(f"{TESTS}/{program}")
        words = [f"./{name}"] if os.access(f"{folder}/{name}", os.X_OK) else ["python3", name]
        if program == "ethtool-t":
            folder, words = "/", ["ethtool", "-t", dev, "offline"]
        elif not os.path.exists(f"{folder}/{name}"):
            say(f"suite: begin {program}\nthis kernel does not have it\nsuite: end {program} 4 0")
            continue
        cases = []
        for _ in range(RETRIES + 1):
            settle(dev, None, LOCAL)
            settle(far, REMOTE, FAR)
            subprocess.run(["ethtool", "-L", dev, "combined", str(queues)], capture_output=True)
            if not linked():
                say("suite: the two ends do not reach each other")
                return 3
            # Cases are chosen by their names without the program's.
            chosen = [w for c in cases for w in ("-t", c.partition(".")[2])]
            cases = attempt(program, words + chosen, folder, float(seconds), env)
            if not cases:
                break
    return 0


sys.exit(main())
