"""The import path that executors use, `from invocation import ExecutorInvocation`; the code is in sdk/python."""

import os
import sys

# realpath: lib/ or one of its files may be a link.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "sdk", "python"))

from agentrunner.invocation import (  # noqa: E402, F401
    STDIN_MAX_BYTES,
    AgentBlueprint,
    Callback,
    ExecutorInvocation,
    InvocationError,
    McpServer,
)
