# shellcheck shell=bash
# For bash 4.4 and later. Everything below works under `set -u` and `set -e`, and needs no variable to be set.
#
# Each agent has a function of the name of its program. It runs in a subshell, so that nothing of it stays in the shell; its
# variables begin with _terok_ and are not exported.

# Reads the options of the wrapper, which come before those of the agent. Sets _terok_timeout, _terok_fresh and _terok_rest.
_terok_options() { # NAME ARGUMENT…
  local name=$1
  shift
  _terok_timeout='' _terok_fresh='' _terok_resumed=''
  while [ "$#" -gt 0 ]; do
    case $1 in
    --terok-timeout)
      case ${2-} in
      '' | *[!0-9]* | ??????????*)
        echo "terok: $name: --terok-timeout needs a whole number of seconds, and got '${2-}'" >&2
        return 2
        ;;
      esac
      _terok_timeout=$2
      shift 2
      ;;
    --terok-new-session)
      _terok_fresh=1
      shift
      ;;
    *) break ;;
    esac
  done
  _terok_rest=("$@")
}

# The agent's own help, with what the wrapper adds to it.
_terok_help() { # NAME RESUMES FLAG
  local code=0
  echo "terok wraps '$1' in this container. Before the options of the agent it takes:"
  echo "  --terok-timeout SECONDS  run without a terminal, and stop after that time (0: never)"
  if [ -n "$2" ]; then echo "  --terok-new-session      begin a new conversation; do not resume the recorded one"; fi
  echo
  command "$1" "$3" || code=$?
  echo
  echo "These options are those of the terok wrapper and of '$1'. Without the wrapper: command $1"
  return "$code"
}

# Credentials are the host's.
_terok_refuse() { # NAME
  echo "terok: credentials are kept outside of this container, so '$1' cannot log in or out here." >&2
  echo "terok: on the host, run: terok auth $1" >&2
}

# Sets author and committer of git, for the shell that it is called in.
_terok_apply_git_identity() { # AGENT-NAME AGENT-EMAIL
  local human=${HUMAN_GIT_NAME:-Nobody} human_email=${HUMAN_GIT_EMAIL:-nobody@localhost}
  unset GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL
  case ${TEROK_GIT_AUTHORSHIP:-agent-human} in
  agent-human | agent) export GIT_AUTHOR_NAME="$1" GIT_AUTHOR_EMAIL="$2" ;;
  *) export GIT_AUTHOR_NAME="$human" GIT_AUTHOR_EMAIL="$human_email" ;;
  esac
  case ${TEROK_GIT_AUTHORSHIP:-agent-human} in
  human-agent | agent) export GIT_COMMITTER_NAME="$1" GIT_COMMITTER_EMAIL="$2" ;;
  *) export GIT_COMMITTER_NAME="$human" GIT_COMMITTER_EMAIL="$human_email" ;;
  esac
}

# An image may bring a helper of its own. A word that is no authorship is no reason to commit under a wrong name.
_terok_identity() { # AGENT-NAME AGENT-EMAIL SHARE
  case ${TEROK_GIT_AUTHORSHIP:-agent-human} in
  agent-human | human-agent | agent | human) ;;
  *)
    echo "terok: TEROK_GIT_AUTHORSHIP is '$TEROK_GIT_AUTHORSHIP': set agent-human, human-agent, agent or human" >&2
    return 2
    ;;
  esac
  if [ -r "$3/terok-env-git-identity.sh" ]; then
    # shellcheck source=/dev/null
    . "$3/terok-env-git-identity.sh"
  fi
  _terok_apply_git_identity "$1" "$2"
}

# Whether the recorded conversation is resumed: by a start without arguments, and by a run without a terminal. Arguments that
# say themselves what is resumed are left alone. Sets _terok_resumed.
_terok_resumes() { # SESSION-FILE WORD CONTINUE-FLAG ARGUMENT…
  local file=$1 word=$2 again=$3 argument
  shift 3
  _terok_resumed=''
  if [ -n "$_terok_fresh" ] || [ ! -s "$file" ]; then return 1; fi
  if [ -z "$_terok_timeout" ] && [ "$#" -gt 0 ]; then return 1; fi
  for argument in "$@"; do
    case $argument in "$word" | "$word="* | "${again:-$word}") return 1 ;; esac
  done
  IFS= read -r _terok_resumed <"$file" || [ -n "$_terok_resumed" ]
}

# Sub-agents: their file, where the agent takes one, which is with one of some words; and else an argument, which has an end.
_terok_subagents() { # FILE WORDS ARGUMENT…
  local file=$1 words=" $2 " argument LC_ALL=C text
  shift 2
  for argument in "$@"; do
    case $words in *" $argument "*)
      _terok_args+=(--agents "$file")
      return 0
      ;;
    esac
  done
  text=$(cat -- "$file") || return 0
  if [ "${#text}" -gt 131071 ]; then
    echo "terok: the sub-agents in $file are too long for a command line, and left out" >&2
    return 0
  fi
  _terok_args+=(--agents "$text")
}

# The first message of the task, once: it is moved away before the start. Sets _terok_first.
_terok_initial_prompt() { # FILE CONSUMED-FILE
  local LC_ALL=C text
  if [ ! -s "$1" ]; then return 1; fi
  text=$(cat -- "$1" && printf .) || return 1
  mv -f -- "$1" "$2" || return 1
  text=${text%.}
  # Linux hands no longer argument to a program.
  if [ "${#text}" -gt 131000 ]; then
    text="Your task is in the file $2, because it is too long for a command line. Read all of it and do it."
  fi
  # What begins so would be taken for an option.
  case $text in -*) text=" $text" ;; esac
  _terok_first=$text
}

# Runs the agent, for a limited time when there is a limit. Says how to go on when what it resumed may be gone.
_terok_run() { # NAME ARGUMENT…
  local code=0
  if [ -n "$_terok_timeout" ]; then
    _terok_limited "$_terok_timeout" "$@" || code=$?
  else
    command "$@" || code=$?
  fi
  # Beyond 123: the time was up, the program cannot be started, or a signal ended it.
  if [ "$code" -gt 0 ] && [ "$code" -lt 124 ] && [ -n "$_terok_resumed" ]; then
    echo "terok: $1 exited with status $code; the wrapper had resumed session $_terok_resumed." >&2
    echo "terok: if that conversation is gone, begin a new one: $1 --terok-new-session" >&2
  fi
  return "$code"
}

# In a process group of its own, which is ended as a whole: asked at first, and killed 10 seconds later.
_terok_limited() { # SECONDS NAME ARGUMENT…
  local seconds=$1 agent timer code=0 cause='' limit
  shift
  limit=$seconds
  # For ever: a hundred years.
  if [ "$((10#$seconds))" -eq 0 ]; then limit=3155760000; fi
  # Who reads from a terminal of another group is stopped until the time is up.
  if [ -t 0 ]; then exec </dev/null; fi
  set -m
  command "$@" <&0 &
  agent=$!
  set +m
  sleep "$limit" >/dev/null 2>&1 &
  timer=$!
  # No signal to our group reaches the agent's. The timer ends with it, and so does the wait for either.
  trap 'cause=130; kill "$timer" 2>/dev/null' INT
  trap 'cause=143; kill "$timer" 2>/dev/null' TERM
  trap 'cause=129; kill "$timer" 2>/dev/null' HUP
  wait -n "$agent" "$timer" 2>/dev/null || code=$?
  if [ -n "$cause" ]; then
    code=$cause
  elif kill -0 "$agent" 2>/dev/null; then
    code=124
    echo "terok: $1 was stopped after $seconds seconds (--terok-timeout)" >&2
  fi
  kill "$timer" 2>/dev/null || :
  _terok_end_group "$agent"
  wait 2>/dev/null || :
  trap - INT TERM HUP
  return "$code"
}

_terok_end_group() { # GROUP
  local tries=0
  kill -TERM -- "-$1" 2>/dev/null || return 0
  # What is stopped hears of it when it goes on.
  kill -CONT -- "-$1" 2>/dev/null || :
  while [ "$tries" -lt 100 ] && kill -0 -- "-$1" 2>/dev/null; do
    sleep 0.1
    tries=$((tries + 1))
  done
  kill -KILL -- "-$1" 2>/dev/null || :
}

# Whoever reads the file sees the old id or the new one.
_terok_store() { # FILE ID
  printf '%s\n' "$2" >"$1.$BASHPID.tmp" && mv -f -- "$1.$BASHPID.tmp" "$1"
}

# The agent starts without it as well.
_terok_link() { # PLUGIN FOLDER
  if mkdir -p -- "$2" && ln -sf -- "$1" "$2/terok-session.mjs"; then return 0; fi
  echo "terok: the conversation is not recorded: $2 cannot be written" >&2
}

# Remembers when the run began, to tell its log from older ones.
_terok_scan_begin() { # NAME SESSION-FILE FOLDER PATTERN KEY
  _terok_scan=("$@")
  _terok_marker=$(mktemp "${TMPDIR:-/tmp}/terok-run.XXXXXX") || _terok_marker=''
}

# The id of the conversation whose log the run has written goes into the session file. Logs of another directory are not
# looked at. Where several runs wrote at the same time nobody knows which is ours, and the file stays as it is.
_terok_scan_end() { # NAME SESSION-FILE FOLDER PATTERN KEY
  local name=$1 file=$2 log known='' found='' count=0
  if [ -z "$_terok_marker" ]; then return 0; fi
  if [ -s "$file" ]; then IFS= read -r known <"$file" || :; fi
  while IFS= read -r log; do
    _terok_log_id "$log" "$5" || continue
    if [ "$_terok_id" = "$known" ]; then
      count=0
      break
    fi
    if [ "$_terok_id" != "$found" ]; then count=$((count + 1)); fi
    found=$_terok_id
  done <<<"$(find "$3" -type f -name "$4" -newer "$_terok_marker" 2>/dev/null)"
  rm -f -- "$_terok_marker"
  case $count in
  0) ;;
  1) _terok_store "$file" "$found" || echo "terok: the id of this conversation could not be kept in $file" >&2 ;;
  *) echo "terok: $count conversations of $name were written at the same time: which is this one is not known" >&2 ;;
  esac
}

# Sets _terok_id to the id in the beginning of a log of this directory.
_terok_log_id() { # LOG KEY
  local head pattern="\"$2\"[[:space:]]*:[[:space:]]*\"([A-Za-z0-9_.:-]+)\""
  if [ ! -f "$1" ]; then return 1; fi
  head=$(head -c 65536 -- "$1" | tr -d '\0') || return 1
  case $head in
  *'"cwd"'* | *'"working_directory"'*) case $head in *"\"$PWD\""*) ;; *) return 1 ;; esac ;;
  esac
  if [[ $head =~ $pattern ]]; then _terok_id=${BASH_REMATCH[1]}; else return 1; fi
}

# What is left to do when the agent has ended, however it has.
_terok_at_exit() {
  if [ -n "${_terok_scan[*]-}" ]; then _terok_scan_end "${_terok_scan[@]}"; fi
  if [ -n "${_terok_prompt_file-}" ]; then rm -f -- "$_terok_prompt_file"; fi
}

# A list that a program writes, when it is missing or older than a day. What it says is nobody's business here.
_terok_model_cache() { # PROGRAM FILE
  if ! command -v "$1" >/dev/null 2>&1; then return 0; fi
  if [ ! -f "$2" ] || [ -n "$(find "$2" -mmin +1440 2>/dev/null)" ]; then
    command "$1" </dev/null >/dev/null 2>&1 || :
  fi
}

# The instructions as a system prompt of the task. Sets _terok_prompt_id and _terok_prompt_file.
_terok_system_prompt() { # INSTRUCTIONS FOLDER
  case ${TASK_ID-} in '' | .* | *[!A-Za-z0-9._-]*) return 1 ;; esac
  if [ ! -f "$1" ]; then return 1; fi
  mkdir -p -- "$2" && cp -- "$1" "$2/terok-task-$TASK_ID.md" || return 1
  _terok_prompt_id=terok-task-$TASK_ID
  _terok_prompt_file=$2/$_terok_prompt_id.md
}

# Puts a folder into the list `trusted` of a TOML file, once, and leaves the rest of the file as it is. Where that cannot be
# done the agent asks.
_terok_trust() { # FILE FOLDER
  if ! command -v python3 >/dev/null 2>&1; then return 0; fi
  mkdir -p -- "${1%/*}" || return 0
  (
    if command -v flock >/dev/null 2>&1; then flock -w 10 9 || exit 0; fi
    python3 - "$1" "$2" <<'PYTHON' || :
import os, re, sys

try:
    import tomllib
except ImportError:
    sys.exit("terok: Python 3.11 is needed to trust the workspace: the agent may ask")
path, folder = sys.argv[1:]
try:
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
except FileNotFoundError:
    text = ""
except (OSError, UnicodeDecodeError) as error:
    sys.exit(f"terok: {path} cannot be read, and is not changed: {error}")


def trusted(text):
    folders = tomllib.loads(text).get("trusted")
    return isinstance(folders, list) and folder in folders


word = '"' + folder.replace("\\", "\\\\").replace('"', '\\"') + '"'
try:
    if trusted(text):
        sys.exit(0)
    into = re.sub(r"(?m)^(trusted[ \t]*=[ \t]*\[)", lambda found: found[1] + word + ", ", text, count=1)
    # A key of no table stands before all tables.
    new = into if into != text and trusted(into) else f"trusted = [{word}]\n{text}"
    if not trusted(new):
        sys.exit(f"terok: {path} has no list of trusted folders that can be added to")
except tomllib.TOMLDecodeError as error:
    sys.exit(f"terok: {path} is no list of trusted folders, and is not changed: {error}")
aside = f"{path}.{os.getpid()}.tmp"
with open(aside, "w", encoding="utf-8", newline="") as file:
    file.write(new)
os.replace(aside, path)
PYTHON
  ) 9>"$1.lock" || :
}
