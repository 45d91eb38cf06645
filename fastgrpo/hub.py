"""The Hugging Face Hub where it cannot be reached: seen at once, instead of after a minute of its library's retries."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

OFFLINE, ENDPOINT = "HF_HUB_OFFLINE", "https://huggingface.co"
SECONDS = 5.0


def offline_without_hub() -> None:
    """Where the Hub does not answer, this process and those it starts use what was downloaded before, and nothing else.

    Called before Hugging Face's libraries are imported, which look at the environment then. Behind a proxy nothing is assumed.
    """
    if OFFLINE in os.environ or getproxies():
        return
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or ENDPOINT)
    try:
        socket.create_connection((hub.hostname, hub.port or (80 if hub.scheme == "http" else 443)), timeout=SECONDS).close()
    except OSError:
        os.environ[OFFLINE] = "1"
