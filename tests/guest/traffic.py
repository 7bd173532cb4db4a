"""Traffic that is compared byte by byte, and captures."""

import hashlib
import os
import socket
import struct
import subprocess
import threading
import time

from basics import *


def ping(to, size=56, count=2, ns=None, more="", lost_ok=False):
    """Echo requests, whose data ping compares itself. Returns how many were answered.

    Once ping has seen an answer, it waits for the last one no longer than the time between
    requests or twice the longest way so far: on a busy machine that may be too short, and says
    nothing. Then they are sent again with seconds between.

    -U: it takes the time itself. For the kernel's time stamps the kernel changes its own
    instructions at the start and the end of each ping, which emulated CPUs do not always survive
    while frames arrive (README.md)."""
    for between in (0.02, 2):
        r = attempt(f"ping -n -U -s {size} -c {count} -i {between} -W {10 * PATIENCE:.0f} {more} {to}", ns)
        received = next((int(l.split(",")[1].split()[0]) for l in r.out.splitlines() if "received" in l), None)
        require(received is not None, f"ping {to}: {r.err.strip() or r.out.strip()}")
        require("wrong data" not in r.out, f"ping {to} of {size}: {r.out}")
        if lost_ok or received == count:
            return received
    raise Wrong(f"answers of {to} to {count} pings of {size} bytes: {received}")


def unreachable(to, ns=None):
    """Nobody answers at an address."""
    equal(ping(to, count=2, ns=ns, more="-i 0.2 -W 1", lost_ok=True), 0, f"answers of {to}")


_ports = iter(range(20000, 60000))


def tcp(to, size, src=None, dst=None, seconds=120):
    """Sends random bytes by TCP from one namespace to an address in another, and compares
    their hashes. Returns Mbit/s."""
    # What is long is made of equal pieces: the machine's memory is not.
    piece = os.urandom(min(size, 1 << 24))
    whole, rest = divmod(size, max(len(piece), 1))
    pieces = [piece] * whole + [piece[:rest]]
    sent = hashlib.sha256()
    for p in pieces:
        sent.update(p)
    listener = new_socket(socket.SOCK_STREAM, to, dst)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((to, next(_ports)))
    listener.listen(1)
    client = new_socket(socket.SOCK_STREAM, to, src)
    client.settimeout(seconds * PATIENCE)
    start = time.monotonic()
    client.connect(listener.getsockname()[:2])
    server, _ = listener.accept()
    server.settimeout(seconds * PATIENCE)
    problem = []

    def send():
        try:
            for p in pieces:
                client.sendall(p)
            client.shutdown(socket.SHUT_WR)
        except OSError as e:
            problem.append(e)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    h, got = hashlib.sha256(), 0
    try:
        while piece := server.recv(1 << 18):
            h.update(piece)
            got += len(piece)
        server.sendall(h.digest())
        echoed = client.recv(32)
    except OSError as e:
        raise Wrong(f"tcp to {to}: {e} after {got} of {size} bytes; sender: {problem}") from None
    took = time.monotonic() - start
    sender.join(10)
    for s in (client, server, listener):
        s.close()
    require(not problem, f"tcp to {to}: {problem} after {got} of {size} bytes")
    equal(got, size, f"bytes received from tcp to {to}")
    equal(echoed, sent.digest(), f"hash of {size} bytes by tcp to {to}")
    return size * 8 / took / 1e6


def udp(to, sizes, src=None, dst=None, tries=1):
    """Sends datagrams one by one and compares each."""
    a, b = new_socket(socket.SOCK_DGRAM, to, src), new_socket(socket.SOCK_DGRAM, to, dst)
    for s in (a, b):
        s.settimeout(20 * PATIENCE)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    b.bind((to, next(_ports)))
    for size in sizes:
        payload = os.urandom(size)
        for left in reversed(range(tries)):
            a.sendto(payload, b.getsockname()[:2])
            try:
                got = b.recv(1 << 17)
            except TimeoutError:
                require(left, f"udp of {size} bytes to {to} did not come")
                continue
            break
        equal(hashlib.sha256(got).hexdigest(), hashlib.sha256(payload).hexdigest(), f"hash of {size} bytes by udp")
    a.close()
    b.close()


def all_of(jobs, what, seconds=240):
    """Runs functions at the same time; all have to succeed."""
    wrong = []

    def one(job):
        try:
            job()
        except Exception as e:
            wrong.append(f"{type(e).__name__}: {e}")

    threads = [threading.Thread(target=one, args=(j,), daemon=True) for j in jobs]
    for t in threads:
        t.start()
    end = time.monotonic() + seconds * PATIENCE
    for t in threads:
        t.join(max(0, end - time.monotonic()))
    alive = sum(t.is_alive() for t in threads)
    require(not alive, f"{what}: {alive} of {len(threads)} did not end within {seconds} s")
    require(not wrong, f"{what}: {len(wrong)} of {len(threads)}: {'; '.join(wrong[:3])}")


class Stream:
    """Traffic that goes on in the background: small hash-checked transfers, one after another."""

    def __init__(self, to, src=None, dst=None, size=1 << 19):
        self.args = (to, size, src, dst)
        self.stop = False
        self.done = 0
        self.wrong = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stop:
            try:
                tcp(*self.args, seconds=20)
                self.done += 1
            except Exception as e:
                self.wrong = self.wrong or e
                return

    def end(self):
        """It has to have worked; returns how many transfers there were."""
        self.stop = True
        self.thread.join(30)
        require(self.wrong is None, f"background traffic: {self.wrong}")
        require(self.done > 0, "background traffic did not get on")
        return self.done


def raw_frame(dst, src, ethertype, payload):
    mac = lambda m: bytes.fromhex(m.replace(":", ""))
    return mac(dst) + mac(src) + struct.pack(">H", ethertype) + payload


def send_raw(dev, frames, ns=None):
    """Sends frames as they are."""
    with inside(ns):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((dev, 0))
    for f in frames:
        s.send(f)
    s.close()


class Capture:
    """tcpdump on a netdev. `frames(least)` waits until it has so many, ends it and gives (length,
    bytes) of each frame."""

    def __init__(self, dev, what="", ns=None, promisc=True, snap=128, direction="inout"):
        self.file = f"/tmp/{ns or 'init'}-{dev}-{next(_ports)}.pcap"
        # Immediate mode: what is in a block that is not full yet would be lost at the end.
        words = ["tcpdump", "-n", "-U", "--immediate-mode", "-i", dev, "-s", str(snap), "-w", self.file, "-Q", direction, "-B", "8192"]
        words += ([] if promisc else ["-p"]) + what.split()
        with inside(ns):
            self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        while line and "listening on" not in line:
            line = self.process.stderr.readline()
        require(line, "tcpdump did not start")

    def frames(self, least=0):
        if least:
            try:
                until(lambda: len(self._written()) >= least, f"{least} frames", 10)
            except Wrong:
                pass  # who asked tells which ones are missing
        time.sleep(0.3)
        self.process.terminate()
        _, err = self.process.communicate(timeout=10 * PATIENCE)
        dropped = next((int(l.split()[0]) for l in err.splitlines() if "dropped by kernel" in l), 0)
        equal(dropped, 0, "frames that tcpdump missed")
        frames = self._written()
        os.unlink(self.file)
        return frames

    def _written(self):
        """The frames that are in the file as a whole."""
        with open(self.file, "rb") as f:
            data = f.read()
        frames, at = [], 24
        while at + 16 <= len(data):
            _, _, kept, length = struct.unpack_from("<IIII", data, at)
            at += 16 + kept
            if at <= len(data):
                frames.append((length, data[at - kept : at]))
        return frames
