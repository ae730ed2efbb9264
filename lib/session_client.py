"""The import path that executors use, `from session_client import SessionClient`; the code is in sdk/python."""

import os
import sys

# realpath: lib/ or one of its files may be a link.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "sdk", "python"))

from agentrunner.session_client import (  # noqa: E402, F401
    ANSWER_MAX_BYTES,
    TIMEOUT_S,
    SessionClient,
    SessionError,
)
