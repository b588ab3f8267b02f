# Sourced by the suites: an S3 server, a vault, a mount of it, and nothing left at the end.
#
#     begin NAME "$@"                reads --quick, makes $scratch (its own directory), starts the server, mounts $mnt
#     step SECONDS WHAT COMMAND...   runs a command or a function with a time limit; its output goes to the log
#     remount                        unmounts (until everything is in the bucket), drops the page cache, mounts
#     finish TEXT                    unmounts, checks the bucket, prints the one line of the suite
#     helpers                        pids of what a suite itself keeps running: ended before the last unmount
#
# Progress goes to standard error, the one line to standard output. The log stays in target/suites/NAME.log; what
# fails shows the end of it. S3VAULT_BIN names the program, if not target/release/s3vault.
set -euo pipefail
# Steps are functions that run in a shell of their own, so everything here is exported.
set -a

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=${XDG_CACHE_HOME:-$HOME/.cache}/s3vault-tools
program=$(realpath "${S3VAULT_BIN:-$root/target/release/s3vault}")
LC_ALL=C.UTF-8

say() { echo "$suite: $* ($(date +%T))" >&2; }

# Runs the program as a user with a home directory of their own.
s3vault() {
    env -i PATH="$PATH" HOME="$scratch/home" S3VAULT_MACHINE_ID="suites-$scratch" S3VAULT_RECOVERY_FILE=- AWS_ACCESS_KEY_ID=bench \
        AWS_SECRET_ACCESS_KEY=secret-of-the-bench AWS_EC2_METADATA_DISABLED=true \
        "$program" --passphrase-file "$scratch/home/passphrase" "$@"
}

# need COMMAND PACKAGE ...: installs missing Debian packages.
need() {
    local missing=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    [ "${#missing[@]}" = 0 ] || step 600 "installing ${missing[*]}" "$root/scripts/install-packages" "${missing[@]}"
}

# cargo_tool NAME VERSION: installs a program from crates.io as $tools/NAME-VERSION/bin/NAME. Not optimised, since it
# mostly waits for us.
cargo_tool() {
    [ -x "$tools/$1-$2/bin/$1" ] && return
    step 1200 "building $1 $2" env CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        cargo install --locked --root "$tools/$1-$2" --version "$2" "$1"
}

step() {
    local limit=$1 what=$2 status=0
    shift 2
    say "$what"
    echo "== $what: $* ($(date +%T))" >>"$log"
    local command=("$@")
    [ "$(type -t "$1")" != function ] || command=(bash -euo pipefail -c '"$@"' bash "$@")
    # In the background, so that a signal to the suite ends it at once.
    timeout -k 20 "$limit" "${command[@]}" >>"$log" 2>&1 </dev/null &
    running=$!
    wait "$running" || status=$?
    running=''
    [ ! -s "$scratch/daemon" ] || note_memory
    [ "$status" = 0 ] && return
    [ "$status" != 124 ] || echo "(ended after $limit s)" >>"$log"
    fail "$what: status $status"
}

fail() {
    trap - ERR
    failed="$*"
    exit 1
}

# drop_caches: makes the next reads come from the file system, not from the kernel's page cache.
drop_caches() { [ "$(id -u)" != 0 ] || echo 3 >/proc/sys/vm/drop_caches; }

mount_it() {
    s3vault mount "$mnt" $mount_options
    s3vault status --json "$mnt" | python3 -c 'import json, sys; print(json.load(sys.stdin)["mounts"][0]["pid"])' \
        >"$scratch/daemon"
}

umount_it() {
    note_memory
    s3vault umount "$mnt"
}

# Notes the peak resident memory of a daemon of this suite, in MiB.
note_memory() {
    local status=/proc/$(cat "$scratch/daemon")/status now peak
    # After the daemon has ended there is nothing to note.
    now=$(awk '/^VmHWM/ { print int($2 / 1024) }' "$status" 2>/dev/null) || return 0
    peak=$(cat "$scratch/peak")
    [ "${now:-0}" -le "$peak" ] || { echo "$now" >"$scratch/peak" && say "the daemon had $now MiB"; }
}

remount() {
    step 600 "unmounting" umount_it
    drop_caches
    step 180 "mounting" mount_it
}

# The size of the server's files, in bytes.
bucket_size() { du -sb --apparent-size "$scratch/server/weed" | cut -f1; }

# real_tree DIR MIB: copies real files of this machine (programs, libraries, headers, texts) up to MIB. Not while
# another suite installs packages.
real_tree() {
    mkdir -p "$1" "$tools"
    exec 9>"$tools/apt.lock"
    flock --shared 9
    { find /usr/lib/python3* /usr/include /usr/share /usr/lib /usr/bin -xdev -type f -size -8M -printf '%s %p\n' || true; } |
        awk -v limit="$2" '!seen[$2]++ && NF == 2 { sum += $1; if (sum > limit * 1048576) exit; print $2 }' >"$1.list"
    tar -C / -cf - --files-from=<(sed 's,^/,,' "$1.list") | tar -C "$1" -xf -
    exec 9>&-
    rm "$1.list"
}

# same A B [OPTION of rsync]: checks that two trees are identical in content (with holes as zeros), owners, modes,
# times, links, xattrs and ACLs.
same() {
    local differ
    differ=$(rsync -aHAXnic --delete --modify-window=-1 "${@:3}" "$1/" "$2/")
    [ -z "$differ" ] || { echo "$1 and $2 differ: $differ"; return 1; }
}

begin() {
    suite=$1 quick='' mnt='' failed='' server='' running='' helpers='' begun=$SECONDS mount_options=${mount_options:-}
    case "${2:-}" in
    '') ;;
    --quick) quick=1 ;;
    *) echo "usage: scripts/suites/$suite [--quick]" >&2 && exit 2 ;;
    esac
    mkdir -p "$root/target/suites"
    log=$root/target/suites/$suite.log
    : >"$log"
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/s3vault-suite-$suite.XXXXXX")
    chmod 755 "$scratch"
    trap cleanup EXIT
    trap 'failed="line $LINENO of the suite"' ERR
    trap 'failed=interrupted; exit 1' INT TERM HUP
    [ -x "$program" ] || fail "$program is not there"
    mkdir -p "$tools"
    step 600 "tools" flock "$tools/tools.lock" "$root/scripts/install-test-tools"
    need rsync rsync setfacl acl setfattr attr
    mnt=$scratch/vault
    mkdir -m 700 "$scratch/home"
    echo "of the suites" >"$scratch/home/passphrase"
    echo 0 >"$scratch/peak"
    : >"$scratch/port"
    setpriv --pdeathsig TERM python3 "$root/scripts/weed.py" "$scratch/server" >"$scratch/port" 2>>"$log" &
    server=$!
    step 180 "SeaweedFS" bash -c 'until [ -s "$scratch/port" ]; do kill -0 "$server" && sleep 0.1; done'
    step 180 "init" s3vault init --bucket s3://bench/suite --endpoint-url "http://127.0.0.1:$(cat "$scratch/port")"
    step 180 "mounting" mount_it
}

finish() {
    local text=$1 where
    where=(--bucket s3://bench/suite --endpoint-url "http://127.0.0.1:$(cat "$scratch/port")")
    step 900 "unmounting" umount_it
    step 900 "checking the bucket" s3vault check "${where[@]}" --read-data
    [ "$(cat "$scratch/peak")" -le 300 ] || fail "the daemon had $(cat "$scratch/peak") MiB resident: more than 300"
    echo "$suite: $text; $((SECONDS - begun)) s, daemon at most $(cat "$scratch/peak") MiB"
}

cleanup() {
    local status=$?
    set +eu
    trap - ERR EXIT
    [ -z "$running" ] || { kill "$running"; wait "$running"; } 2>/dev/null
    # The log of a daemon is worth keeping only if something failed.
    if [ -n "$failed" ] || [ "$status" != 0 ]; then
        status=1
        { echo "== the daemon's log"; tail -n 40 "$scratch"/home/.local/state/s3vault/*/daemon.log; } >>"$log" 2>/dev/null
        echo "--- $log ends:" >&2
        tail -n "${S3VAULT_SUITES_TAIL:-100}" "$log" >&2
        echo "$suite: FAILED: ${failed:-status $status}"
    fi
    [ -z "$helpers" ] || { kill $helpers; wait $helpers; } 2>/dev/null
    if [ -n "$mnt" ] && grep -qs " $mnt fuse" /proc/mounts; then
        timeout -k 5 60 bash -c 's3vault umount --force "$mnt"' >>"$log" 2>&1
        grep -qs " $mnt fuse" /proc/mounts && umount -l "$mnt"
    fi
    [ ! -s "$scratch/daemon" ] || end_daemon "$(cat "$scratch/daemon")"
    [ -z "$server" ] || { kill "$server"; wait "$server"; } 2>/dev/null
    rm -rf --one-file-system "$scratch"
    exit "$status"
}

# end_daemon PID: waits for the daemon of this suite to end, then kills it if it has not.
end_daemon() {
    local n
    for n in $(seq 100); do
        grep -qsF "daemon" "/proc/$1/cmdline" && grep -qsF "$mnt" "/proc/$1/cmdline" || return 0
        sleep 0.1
    done
    kill -9 "$1"
}
