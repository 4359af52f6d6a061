#!/bin/sh
# Makes the data directories of this folder with the programs of a release:
#   tests/compat/make.sh FOLDER_OF_THE_PROGRAMS tests/compat/RELEASE
# What tasks wait for is the file `go` beside the data directory that they run in. No key is kept:
# the tests make an authority of their own and give the nodes certificates of it.
set -eu
bin=$(cd "$1" && pwd)
mkdir -p "$2"
to=$(cd "$2" && pwd)
tmp=$(mktemp -d)
chmod 755 "$tmp"
pids=
end_all() { # also the tasks that killed agents leave: their homes lie here
    for pid in $pids; do kill -9 "$pid" 2>/dev/null || true; done
    for at in /proc/[0-9]*; do
        if tr '\0' '\n' 2>/dev/null <"$at/environ" | grep -q "^HOME=$tmp/"; then
            kill -9 "${at#/proc/}" 2>/dev/null || true
        fi
    done
}
trap 'end_all; rm -rf "$tmp"' EXIT
export DRIFTLESS_DATA="$tmp/coordinator" NO_COLOR=1
d="$bin/driftless"
a="$bin/driftless-agent"

wait_for() { # what is waited for, a command
    n=0
    until sh -c "$2" >/dev/null 2>&1; do
        n=$((n + 1))
        [ "$n" -lt 600 ] || { echo "waited in vain for $1" >&2; exit 1; }
        sleep 0.1
    done
}
agent() { # name, further arguments
    name=$1
    shift
    "$a" run --data "$tmp/$name" --stop-grace 1 --redial-max 1 --idle-timeout 2 --cpus 4 "$@" 2>>"$tmp/$name.log" &
    pids="$pids $!"
    eval "pid_$(echo "$name" | tr - _)=$!"
    wait_for "$name" "'$a' status --data '$tmp/$name'"
}
enrol() { # name, further arguments
    name=$1
    shift
    token=$("$d" token create --name "$name")
    agent "$name" --name "$name" --coordinator "$(cat "$tmp/coordinator/quic.addr")" --token "$token" "$@"
    wait_for "$name online" "'$d' node get $name --json | grep -q online"
}

"$d" serve --data "$tmp/coordinator" --listen 127.0.0.1:0 --api 127.0.0.1:0 2>"$tmp/coordinator.log" &
pids="$pids $!"
serve=$!
wait_for "the coordinator" "test -e '$tmp/coordinator/api.addr'"
enrol gw-0 --label role=a
enrol gw-1 --label role=b
enrol gw-2 --label role=c
enrol gw-3 --label role=d
"$d" node forget gw-3
"$d" token create --name gw-9 --expires 365d >/dev/null
"$d" token create --expires 1s >/dev/null

hold='w=work; until [ -e "${HOME%%/"$w"/*}/../go" ]; do sleep 0.05; done'
printf 'a,b\n1,2\n' >"$tmp/stations.csv"
cat >"$tmp/finished.yaml" <<SPEC
name: finished
description: two gateways, a sent file, an output that crosses, a task that fails first
tasks:
  read:
    shell: cat stations.csv > table; echo read
    inputs: [{name: stations.csv, path: stations.csv}]
    outputs: [table]
    placement: {labels: {role: a}}
  count:
    shell: wc -l < table > lines; [ "\$DRIFTLESS_ATTEMPT" != 1 ]
    inputs: [table]
    outputs: [lines]
    retry: {max_attempts: 3, initial_interval: 10ms}
    placement: {labels: {role: b}}
SPEC
cat >"$tmp/running.yaml" <<SPEC
name: running
tasks:
  first: {shell: echo first > one, outputs: [one], placement: {labels: {role: a}}}
  waits: {shell: '$hold; cat one > two', inputs: [one], outputs: [two], side_effects: idempotent, placement: {labels: {role: a}}}
  last: {shell: cat two, inputs: [two], placement: {labels: {role: b}}}
SPEC
cat >"$tmp/paused.yaml" <<SPEC
name: paused
tasks:
  waits: {shell: '$hold', placement: {labels: {role: b}}, side_effects: idempotent}
  next: {shell: echo next, needs: [waits], placement: {labels: {role: b}}}
SPEC
cat >"$tmp/cancelled.yaml" <<SPEC
name: cancelled
tasks: {waits: {shell: sleep 1000, placement: {labels: {role: b}}}}
SPEC
{
    echo 'name: many'
    echo 'defaults: {placement: {labels: {role: a}}}'
    echo 'tasks:'
    i=0
    while [ $i -lt 300 ]; do
        echo "  t$i: {command: [/bin/true]}"
        i=$((i + 1))
    done
} >"$tmp/many.yaml"
printf 'name: local\ntasks:\n  one: {shell: echo here > here, outputs: [here]}\n' >"$tmp/local.yaml"
printf 'name: local-open\ntasks:\n  waits: {shell: %s, side_effects: idempotent}\n' "'$hold'" >"$tmp/local-open.yaml"

"$d" submit "$tmp/finished.yaml" --file "stations.csv=$tmp/stations.csv" --wait --timeout 60s >/dev/null
"$d" submit "$tmp/many.yaml" --wait --timeout 120s >/dev/null
"$a" submit "$tmp/local.yaml" --data "$tmp/gw-0" >/dev/null
sleep 12 # a snapshot packs what is there
running=$("$d" submit "$tmp/running.yaml")
paused=$("$d" submit "$tmp/paused.yaml")
cancelled=$("$d" submit "$tmp/cancelled.yaml")
"$a" submit "$tmp/local-open.yaml" --data "$tmp/gw-0" >/dev/null
wait_for "a task" "'$d' task get $running waits --json | grep -q '\"state\":\"running\"'"
wait_for "a task" "'$d' task get $paused waits --json | grep -q '\"state\":\"running\"'"
wait_for "a task" "'$d' task get $cancelled waits --json | grep -q '\"state\":\"running\"'"
"$d" run pause "$paused" >/dev/null
"$d" run cancel "$cancelled" --reason "no need" >/dev/null
wait_for "the cancel" "'$d' run get $cancelled --json | grep -q '\"state\":\"cancelled\"'"

# a second machine under the identity of gw-2
cp -r "$tmp/gw-2" "$tmp/gw-2-copy"
rm "$tmp/gw-2-copy/agent.sock"
"$a" run --data "$tmp/gw-2-copy" --redial-max 1 2>>"$tmp/gw-2-copy.log" &
pids="$pids $!"
wait_for "the quarantine" "'$d' waits list --json | grep -q gw-2"
sleep 2

views="$tmp/views"
mkdir "$views"
for what in "run list" "node list" "waits list"; do
    "$d" $what --json >"$views/$(echo "$what" | tr ' ' -).json"
done
"$d" run list --json | sed 's/^{"id":"\([0-9a-f]*\)".*/\1/' | while read -r run; do
    "$d" task list "$run" --json
done >"$views/task-list.json"
for gateway in gw-0 gw-1; do
    "$a" ps --all --json --data "$tmp/$gateway" >"$views/$gateway-ps.json"
done
for pid in $pids; do [ "$pid" = "$serve" ] || kill -9 "$pid"; done
sleep 0.5
kill -9 "$serve"
for data in coordinator gw-0 gw-1 views; do
    rm -rf "$tmp/$data/authority" "$tmp/$data/pki" "$tmp/$data/reserve" "$tmp/$data/agent.sock"
    rm -f "$tmp/$data"/*.addr "$tmp/$data/lock" "$tmp/$data/agent.lock"
    tar -C "$tmp" --sparse --sort=name --owner=0 --group=0 --mtime=@0 -cf - "$data" | zstd -19 -q -o "$to/$data.tar.zst" -f
done
ls -l "$to"
