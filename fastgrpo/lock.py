"""One run, one process: a directory's lock names its owner, and ends with it, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from fastgrpo.errors import InputError


class Lock:
    """Held from its making until `close`, or the end of the process. Raises InputError, naming the owner, where another has it."""

    def __init__(self, path: Path):
        self.file = path.open("a+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.seek(0)
            owner = self.file.read().strip() or "another process"
            self.file.close()
            raise InputError(f"run_dir={path.parent} is in use by {owner}: wait for it, end it, or choose another") from None
        self.file.truncate(0)  # a lock that a dead process left holds nobody off
        host, since = socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S")
        self.file.write(json.dumps({"process": os.getpid(), "host": host, "since": since}) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
