"""The module that the tests fork: says where it is, and waits if it is told to."""

import os
import signal


def main() -> None:
    """Print what the environment says, and whether this is a session of its own."""
    os.write(1, f"{os.environ['SAYS']} {os.getsid(0) == os.getpid()} {sorted(os.environ)}\n".encode())
    if os.environ["SAYS"] == "wait":
        signal.pause()
