"""One end of a wire between two machines: checked transfers, whatever the netdev is."""

from lab import *

PORT = 7000
SIZE = int(os.environ.get("SIZE_MIB", "24")) << 20


def listen():
    s = new_socket(socket.SOCK_STREAM, "0.0.0.0")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", PORT))
    s.listen(1)
    return s


def connect(to):
    def once():
        s = new_socket(socket.SOCK_STREAM, to)
        s.settimeout(3)
        try:
            s.connect((to, PORT))
        except OSError:
            s.close()
            return None
        s.settimeout(90 * PATIENCE)
        return s

    return until(once, f"a connection to {to}", 90)


def take(s):
    """Takes so many bytes and answers with their hash."""
    h, got = hashlib.sha256(), 0
    while got < SIZE:
        piece = s.recv(1 << 18)
        require(piece, f"the stream ended after {got} bytes")
        h.update(piece)
        got += len(piece)
    equal(got, SIZE, "bytes")
    s.sendall(h.digest())


def give(s):
    """Sends so many bytes, whose hash has to come back."""
    piece = os.urandom(1 << 20)
    h = hashlib.sha256()
    for _ in range(SIZE >> 20):
        s.sendall(piece)
        h.update(piece)
    equal(s.recv(32), h.digest(), "hash that the peer has of what was sent")


def tell(name):
    """Tells the other machine, by the folder that both have."""
    write(f"/host/{name}", "x")


def told(name, seconds=150):
    until(lambda: os.path.exists(f"/host/{name}"), f"word of {name}", seconds)
