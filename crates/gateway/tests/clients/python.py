"""A client on the package `websockets`: prints every message of a gateway as a line.

python python.py URL [COMMAND]
"""

import sys

from websockets.sync.client import connect

with connect(sys.argv[1]) as socket:
    for command in sys.argv[2:]:
        socket.send(command)
    for message in socket:
        print(message, flush=True)
