#!/usr/bin/env python3
"""The guest's half of the TAP benchmark: prints one JSON object a line.

SFNIC_TAPBENCH is the plan, made by the host: NICs by their drivers, addresses, what to do.
"""
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time

PORT = 5201


def say(**facts):
    print(json.dumps(facts), flush=True)


def run(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def netdev(driver):
    """The one network interface that a driver has."""
    for name in sorted(os.listdir("/sys/class/net")):
        link = f"/sys/class/net/{name}/device/driver"
        if os.path.exists(link) and os.path.basename(os.readlink(link)) == driver:
            return name
    sys.exit(f"no interface of the driver {driver}")


def until(condition, what):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (got := condition()) is not None:
            return got
        time.sleep(0.1)
    sys.exit(f"it never came: {what}")


def is_uplink(name):
    """Whether a netdev is that of a physical port."""
    try:
        return re.fullmatch(r"p\d+", open(f"/sys/class/net/{name}/phys_port_name").read().strip()) is not None
    except OSError:
        return False


def sub_function(uplink):
    """An SF whose representor is on a bridge with the uplink's: its netdev, its representor. The
    driver gives the bridge's entries to the device, which then passes frames on by itself."""
    pci = os.path.basename(os.readlink(f"/sys/class/net/{uplink}/device"))
    run("devlink", "dev", "eswitch", "set", f"pci/{pci}", "mode", "switchdev")
    said = run("devlink", "port", "add", f"pci/{pci}", "flavour", "pcisf", "pfnum", "0", "sfnum", "88")
    handle = said.split(": ")[0]
    port = until(lambda: json.loads(run("devlink", "-j", "port", "show", handle))["port"][handle].get("netdev"), "the representor")
    function = ("devlink", "port", "function", "set", handle)
    run(*function, "hw_addr", "00:00:00:00:88:88")
    run(*function, "state", "active")
    devices = "/sys/bus/auxiliary/devices"
    aux = until(lambda: next((n for n in os.listdir(devices) if n.startswith("mlx5_core.sf.")), None), "the SF")
    if not os.path.isdir(f"{devices}/{aux}/net"):
        # Where the parent manages the eswitch the driver leaves the netdev out at first.
        name = f"auxiliary/{aux}"
        show = ["devlink", "dev", "param", "show", name, "name", "enable_eth"]
        until(lambda: True if subprocess.run(show, capture_output=True).returncode == 0 else None, "the SF's driver")
        run("devlink", "dev", "param", "set", name, "name", "enable_eth", "value", "true", "cmode", "driverinit")
        run("devlink", "dev", "reload", name)
    dev = until(lambda: next(iter(os.listdir(f"{devices}/{aux}/net")), None) if os.path.isdir(f"{devices}/{aux}/net") else None, "the SF's netdev")
    uplink = until(lambda: next(filter(is_uplink, os.listdir(f"/sys/bus/pci/devices/{pci}/net")), None), "the uplink")
    run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
    for member in (uplink, port):
        run("ip", "link", "set", member, "master", "br0")
        run("ip", "link", "set", member, "up")
    run("ip", "link", "set", "br0", "up")
    return dev, port


def through_kernel(representor):
    """Frames of an SF that the guest's kernel passed on: the representor's own, not the vport's."""
    counted = dict(re.findall(r"^ *(\S+): (\d+)$", run("ethtool", "-S", representor), re.M))
    return sum(int(counted[name]) for name in ("rx_packets", "tx_packets"))


def reach(nic):
    """Waits until the host answers: links take a while to come up."""
    for _ in range(100):
        done = subprocess.run(["ping", "-q", "-c", "1", "-W", "1", nic["host"]], stdout=subprocess.DEVNULL)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    sys.exit(f"{nic['name']}: the host does not answer")


def ping(nic, count):
    text = run("ping", "-q", "-c", str(count), "-i", "0.02", nic["host"])
    low, mean, high, spread = map(float, re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+) ms", text).groups())
    got = int(re.search(r"(\d+) received", text).group(1))
    say(kind="ping", nic=nic["name"], sent=count, received=got, min_ms=low, avg_ms=mean, max_ms=high, mdev_ms=spread)


def exactly(peer, size):
    data = b""
    while len(data) < size:
        piece = peer.recv(size - len(data))
        if not piece:
            sys.exit("the host hung up")
        data += piece
    return data


def stream(nic, direction, seconds, size):
    """One transfer; the host has the clock, as the guest's may be emulated."""
    peer = socket.create_connection((nic["host"], PORT), timeout=60)
    peer.sendall(direction[0].encode() + struct.pack(">II", int(seconds * 1000), size))
    count = 0
    if direction == "send":
        data = bytes(size)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    else:
        data = bytearray(size)
        end = False
        while not end and (got := peer.recv_into(data)):
            count += got
            end = data[got - 1] == 1
        peer.sendall(struct.pack(">Q", count))
    count, elapsed = struct.unpack(">QQ", exactly(peer, 16))
    peer.close()
    say(kind="stream", nic=nic["name"], direction=direction, size=size, bytes=count, seconds=elapsed / 1e9)


def main():
    plan = json.loads(os.environ["SFNIC_TAPBENCH"])
    for nic in plan["nics"]:
        run("modprobe", nic["driver"])
    time.sleep(0.2)
    representors = {}
    for nic in plan["nics"]:
        name = netdev(nic["driver"])
        if nic["sf"]:
            name, representors[nic["name"]] = sub_function(name)
        if nic["lro"]:
            run("ethtool", "-K", name, "lro", "on")
            if "large-receive-offload: on" not in run("ethtool", "-k", name):
                sys.exit(f"{nic['name']}: LRO stays off")
        run("ip", "addr", "add", nic["guest"] + "/30", "dev", name)
        run("ip", "link", "set", name, "up")
    for nic in plan["nics"]:
        reach(nic)
        ping(nic, plan["pings"])
    before = {name: through_kernel(port) for name, port in representors.items()}
    for size in plan["sizes"]:
        for turn in range(plan["repeat"]):
            for direction in ("send", "receive"):
                # Another one begins each time: what drifts with time hits all alike.
                for n in range(len(plan["nics"])):
                    stream(plan["nics"][(n + turn) % len(plan["nics"])], direction, plan["seconds"], size)
    for name, port in representors.items():
        say(kind="kernel", nic=name, frames=through_kernel(port) - before[name])


main()
