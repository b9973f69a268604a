"""`python -m dissect` in a process that has imported everything: `stand_in.py SOCKET ARGUMENTS...`.

What listens at SOCKET (`tests.support.processes.as_process`) gets arguments, folder, environment and open
streams, and answers with the exit status.
"""

import json
import os
import socket
import sys
import time


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


streams = [number for number in range(3) if is_open(number)]  # first: the socket would have a number that is free
request = {"args": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ), "streams": streams}
with socket.socket(socket.AF_UNIX) as server:
    for _ in range(6_000):  # a minute
        try:
            server.connect(sys.argv[1])
            break
        except OSError:
            time.sleep(0.01)
    socket.send_fds(server, [b"!"], streams) if streams else server.send(b"!")
    server.sendall(json.dumps(request).encode() + b"\n")
    status = int(server.makefile().readline())
os._exit(status)
