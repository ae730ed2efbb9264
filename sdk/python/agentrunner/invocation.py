"""The document that an executor reads on stdin, schema 2.0. Reads exactly what lib/invocation.ts reads, with its errors."""

import json
import re
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, Dict, List, Optional

STDIN_MAX_BYTES = 8 * 1024 * 1024


class InvocationError(ValueError):
    """An invocation that cannot be used. The message names the field, what belongs there and what was found."""


@dataclass(frozen=True)
class McpServer:
    """One MCP server: url and headers of an "http" or "sse" one, command, args and env of a "stdio" one."""

    type: str
    url: Optional[str]
    headers: Dict[str, str]
    command: Optional[str]
    args: List[str]
    env: Dict[str, str]


@dataclass(frozen=True)
class AgentBlueprint:
    name: str
    system_prompt: str
    mcp_servers: Dict[str, McpServer]
    output_schema: Optional[Dict[str, Any]] = None


@dataclass(frozen=True)
class Callback:
    child_session_ids: List[str]


@dataclass(frozen=True)
class ExecutorInvocation:
    """What the runner asks of this process. What the document left out is None here, or its default."""

    schema_version: str
    mode: str
    session_id: str
    prompt: str
    project_dir: str
    agent_blueprint: Optional[AgentBlueprint]
    metadata: Dict[str, Any]
    run_id: Optional[str]
    attempt: int
    session_name: str
    executor_session_id: Optional[str]
    executor_config: Dict[str, Any]
    parameters: Dict[str, Any]
    parent_session_id: Optional[str]
    callback: Optional[Callback]

    @classmethod
    def from_stdin(cls, stdin: Optional[BinaryIO] = None) -> "ExecutorInvocation":
        """Reads stdin to its end, at most 8 MiB. Raises InvocationError."""
        data = (stdin or sys.stdin.buffer).read(STDIN_MAX_BYTES + 1)
        if len(data) > STDIN_MAX_BYTES:
            raise InvocationError(f"invocation: longer than {STDIN_MAX_BYTES} bytes")
        try:
            return cls.parse(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvocationError("invocation: not UTF-8") from error

    @classmethod
    def parse(cls, text: str) -> "ExecutorInvocation":
        """Reads the text of a document. Raises InvocationError."""
        field = _fields_of(_parse_json(text), "invocation")
        # First of all: of another major version nothing else need be as it is here.
        schema_version = field("schema_version", _version)
        session_id = field("session_id", _filled)
        return cls(
            schema_version=schema_version,
            mode=field("mode", _one_of("start", "resume")),
            session_id=session_id,
            prompt=field("prompt", _string),
            project_dir=field("project_dir", _filled),
            agent_blueprint=field("agent_blueprint", _optional(_blueprint)),
            metadata=field("metadata", _object),
            run_id=field("run_id", _optional(_filled)),
            attempt=field("attempt", _optional(_positive, 1)),
            session_name=field("session_name", _optional(_filled, session_id)),
            executor_session_id=field("executor_session_id", _optional(_filled)),
            executor_config=field("executor_config", _optional(_object, {})),
            parameters=field("parameters", _optional(_object, {})),
            parent_session_id=field("parent_session_id", _optional(_filled)),
            callback=field("callback", _optional(_callback)),
        )


_ABSENT = object()
_Read = Callable[[Any, str], Any]


def _blueprint(value: Any, at: str) -> AgentBlueprint:
    field = _fields_of(value, at)
    return AgentBlueprint(
        name=field("name", _filled),
        system_prompt=field("system_prompt", _string),
        mcp_servers=field("mcp_servers", _map_of(_server)),
        output_schema=field("output_schema", _optional(_object)),
    )


def _server(value: Any, at: str) -> McpServer:
    field = _fields_of(value, at)
    kind = field("type", _one_of("http", "sse", "stdio"))
    if kind != "stdio":
        return McpServer(kind, field("url", _filled), field("headers", _optional(_strings, {})), None, [], {})
    command, args = field("command", _filled), field("args", _optional(_list_of(_string), []))
    return McpServer(kind, None, {}, command, args, field("env", _optional(_strings, {})))


def _callback(value: Any, at: str) -> Callback:
    return Callback(_fields_of(value, at)("child_session_ids", _list_of(_filled)))


def _fields_of(value: Any, at: str) -> Callable[[str, _Read], Any]:
    fields = _object(value, at)
    return lambda name, read: read(fields.get(name, _ABSENT), f"{at}.{name}")


def _object(value: Any, at: str) -> Dict[str, Any]:
    return value if isinstance(value, dict) else _refuse(at, "an object", value)


def _string(value: Any, at: str) -> str:
    return value if isinstance(value, str) else _refuse(at, "a string", value)


def _filled(value: Any, at: str) -> str:
    return value if isinstance(value, str) and value else _refuse(at, "a non-empty string", value)


def _version(value: Any, at: str) -> str:
    known = isinstance(value, str) and re.fullmatch(r"2\.[0-9]+", value)
    return value if known else _refuse(at, 'a version "2.x"', value)


def _positive(value: Any, at: str) -> int:
    # A JSON reader makes a float of 1.0 and Python an int of true.
    whole = value.is_integer() if isinstance(value, float) else type(value) is int
    return int(value) if whole and value > 0 else _refuse(at, "a positive integer", value)


def _strings(value: Any, at: str) -> Dict[str, str]:
    return _map_of(_string)(value, at)


def _one_of(*choices: str) -> _Read:
    expected = " or ".join(f'"{choice}"' for choice in choices)
    return lambda value, at: value if value in choices else _refuse(at, expected, value)


def _optional(read: _Read, default: Any = None) -> _Read:
    return lambda value, at: default if value is _ABSENT else read(value, at)


def _list_of(read: _Read) -> _Read:
    def read_list(value: Any, at: str) -> List[Any]:
        if not isinstance(value, list):
            _refuse(at, "a list", value)
        return [read(item, f"{at}[{index}]") for index, item in enumerate(value)]

    return read_list


def _map_of(read: _Read) -> _Read:
    return lambda value, at: {key: read(item, f"{at}.{key}") for key, item in _object(value, at).items()}


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvocationError(f"invocation: expected one JSON document, found {_described(text)}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refuse(at: str, expected: str, value: Any) -> Any:
    raise InvocationError(f"{at}: expected {expected}, found {_described(value)}")


def _described(value: Any) -> str:
    """A value in a few words. Of a string, which may be a prompt, only the first 40 characters are shown."""
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 40 else value[:40] + "…", ensure_ascii=False)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return "a number"
    return "nothing" if value is _ABSENT else "a list" if isinstance(value, list) else "an object"
