"""The import path that executors use, `from executor_config import get_api_url`; the code is in sdk/python."""

import os
import sys

# realpath: lib/ or one of its files may be a link.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "sdk", "python"))

from agentrunner.executor_config import (  # noqa: E402, F401
    DEFAULT_API_URL,
    get_api_url,
    get_attempt,
    get_run_id,
    get_session_dir,
    get_session_id,
    get_session_name,
    get_token,
)
