"""What a runner tells an executor through its environment (design section 5)."""

import os
from typing import Optional

DEFAULT_API_URL = "http://localhost:8765"


def get_api_url() -> str:
    """Address of the coordinator, without a slash at its end."""
    return (os.environ.get("AGENT_ORCHESTRATOR_API_URL") or DEFAULT_API_URL).rstrip("/")


def get_token() -> Optional[str]:
    """Run token: good for this run's own session and its children, while the run's lease lives."""
    return os.environ.get("AGENT_ORCHESTRATOR_TOKEN") or None


def get_session_id() -> Optional[str]:
    return os.environ.get("AGENT_SESSION_ID") or None


def get_session_name() -> Optional[str]:
    return os.environ.get("AGENT_SESSION_NAME") or get_session_id()


def get_session_dir() -> Optional[str]:
    """Folder of this session alone, which its later runs on this machine find again."""
    return os.environ.get("AGENT_SESSION_DIR") or None


def get_run_id() -> Optional[str]:
    return os.environ.get("AGENT_RUN_ID") or None


def get_attempt() -> int:
    """Number of this attempt, from 1."""
    return int(os.environ.get("AGENT_RUN_ATTEMPT") or 1)
