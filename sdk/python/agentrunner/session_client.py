"""Reads sessions from the coordinator: Connect's JSON over HTTP, with nothing but the standard library.

Requests and answers are dictionaries with the field names of proto/agentrunner/v1/session_service.proto. A field that
has its default value is left out of an answer: read with .get().
"""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, Dict, Iterator, Optional, Sequence

from . import executor_config

TIMEOUT_S = 30.0
ANSWER_MAX_BYTES = 32 * 1024 * 1024

# What an answer means that does not come from the coordinator but from something between: the Connect protocol's table.
_CODE_BY_STATUS = {400: "internal", 401: "unauthenticated", 403: "permission_denied", 404: "unimplemented"}
_CODE_BY_STATUS.update({status: "unavailable" for status in (429, 502, 503, 504)})


class SessionError(Exception):
    """A call that failed. `code` is that of Connect, such as "not_found"; "unavailable" means: try again later."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class SessionClient:
    """Calls the coordinator that started this run, as this run, unless told otherwise. Every call raises SessionError."""

    def __init__(
        self, api_url: Optional[str] = None, token: Optional[str] = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._api_url = (api_url or executor_config.get_api_url()).rstrip("/")
        self._token = token or executor_config.get_token()
        self._timeout_s = timeout_s

    def get_session(self, session_id: str = "", session_name: str = "") -> Dict[str, Any]:
        """One session, by id or by name."""
        return self._call("GetSession", session_id=session_id, session_name=session_name).get("session", {})

    def list_sessions(
        self, statuses: Sequence[str] = (), parent_session_id: str = "", page_size: int = 0
    ) -> Iterator[Dict[str, Any]]:
        """Sessions, newest first; fetches page after page as they are consumed."""
        token = ""
        while True:
            page = self._call(
                "ListSessions",
                statuses=list(statuses),
                parent_session_id=parent_session_id,
                page_size=page_size,
                page_token=token,
            )
            yield from page.get("sessions", [])
            if not page.get("next_page_token"):
                return
            token = _advanced(token, page["next_page_token"])

    def list_session_events(
        self, session_id: str, run_id: str = "", cursor: str = "", page_size: int = 0
    ) -> Iterator[Dict[str, Any]]:
        """Events that are stored, oldest first; continue behind one with its `cursor`."""
        while True:
            page = self._call(
                "ListSessionEvents", session_id=session_id, run_id=run_id, cursor=cursor, page_size=page_size
            )
            yield from page.get("events", [])
            if not page.get("more"):
                return
            cursor = _advanced(cursor, page.get("next_cursor", ""))

    def get_session_result(self, session_id: str, run_id: str = "") -> Dict[str, Any]:
        """Result of a run, by default of the last one that ended: run_id, state, result {text, data}, failure, message."""
        return self._call("GetSessionResult", session_id=session_id, run_id=run_id)

    def _call(self, method: str, **fields: Any) -> Dict[str, Any]:
        headers = {"Content-Type": "application/json", "Connect-Protocol-Version": "1"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        body = json.dumps({name: value for name, value in fields.items() if value}).encode()
        url = f"{self._api_url}/agentrunner.v1.SessionService/{method}"
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                return _document(_read(response))
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except TimeoutError as error:
            raise SessionError("deadline_exceeded", f"no answer from {url} within {self._timeout_s} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise SessionError("unavailable", f"cannot reach {url}: {error}") from error


def _advanced(before: str, after: str) -> str:
    if before == after:
        raise SessionError("internal", f"the answer says that more follows, but stays at {after!r}")
    return after


def _read(response: http.client.HTTPResponse) -> bytes:
    data = response.read(ANSWER_MAX_BYTES + 1)
    # A read with a limit does not say that the connection broke off; `length` is what has not come yet.
    if response.length and len(data) <= ANSWER_MAX_BYTES:
        raise http.client.IncompleteRead(data, response.length)
    return data


def _document(data: bytes) -> Dict[str, Any]:
    if len(data) > ANSWER_MAX_BYTES:
        raise SessionError("resource_exhausted", f"the answer is longer than {ANSWER_MAX_BYTES} bytes")
    try:
        document = json.loads(data)
    except ValueError as error:
        raise SessionError("internal", f"the answer is not JSON: {data[:80]!r}") from error
    if not isinstance(document, dict):
        raise SessionError("internal", f"the answer is not a JSON object: {data[:80]!r}")
    return document


def _refusal(error: urllib.error.HTTPError) -> SessionError:
    """The error of Connect in the answer, or what the status says when another server answered."""
    code = _CODE_BY_STATUS.get(error.code, "unknown")
    try:
        details = _document(error.read(ANSWER_MAX_BYTES))
    except SessionError as stranger:
        return SessionError(code, f"HTTP {error.code}; {stranger.message}")
    return SessionError(str(details.get("code", code)), str(details.get("message", f"HTTP {error.code}")))
