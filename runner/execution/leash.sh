#!/bin/sh
# Ends the executors of a runner that died: the runner holds the other end of stdin, and the kernel closes it with the
# runner, however that ends. Called with one argument, the entry `NAME=value` that every executor has in its environment.
# stdin: lines `+pgid` for a process group that begins and `-pgid` for one that is gone.
trap '' INT TERM HUP

marker=$1
groups=

while IFS= read -r line; do
  pgid=${line#?}
  # Group 0 would be our own, and 1 means every process.
  case $pgid in '' | 0* | 1 | *[!0-9]*) continue ;; esac
  others=
  for group in $groups; do
    [ "$group" = "$pgid" ] || others="$others $group"
  done
  case $line in
    +*) groups="$others $pgid" ;;
    -*) groups=$others ;;
  esac
done

if [ -n "$groups" ]; then
  for group in $groups; do kill -s TERM -- "-$group" 2>/dev/null; done
  sleep 1
  for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
fi

# What left its group. Twenty looks, because a process may fork while we read.
looks=0
while [ "$looks" -lt 20 ]; do
  marked=$(grep -lsF -- "$marker" /proc/[0-9]*/environ | sed 's|^/proc/||; s|/environ$||')
  [ -n "$marked" ] || break
  for pid in $marked; do kill -s KILL "$pid" 2>/dev/null; done
  looks=$((looks + 1))
  sleep 0.05 2>/dev/null || sleep 1
done
