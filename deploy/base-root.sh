#!/bin/sh
# Makes a directory that can be a container's base image, out of this machine's own programs: for
# places without a registry. POSIX sh and ldd.
set -eu

usage() {
    cat <<'TEXT'
Copies programs of this machine, with the libraries that they need, into a directory.

  base-root.sh DIR [PROGRAM...]       PROGRAM: a name in PATH, or a path. `sh`, `mkdir` and `chown`, and
                                      what the built programs need, are always there

Example: images of both without a registry
  deploy/base-root.sh /tmp/base env cat sleep python3
  tar -C /tmp/base -c . | podman import - driftless-base
  podman build --format docker --build-arg BASE=localhost/driftless-base \
      -f deploy/Containerfile.coordinator -t driftless target/release
TEXT
}

copy() { # PATH: with its directories, behind links
    [ ! -e "$root$1" ] || return 0
    mkdir -p "$root$(dirname "$1")"
    cp -L "$1" "$root$1"
}

libraries() { # PROGRAM: what ldd names, one a line; a static program has none
    ldd "$1" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p'
}

program() {
    path=$(command -v "$1") || { echo "error: there is no program $1" >&2; exit 1; }
    case $path in /*) ;; *) path=/bin/$1 ;; esac # a builtin of this shell
    copy "$path"
    for library in $(libraries "$path"); do copy "$library"; done
}

case ${1:-} in
    '' | -h | --help) usage; exit 0 ;;
esac
mkdir -p "$1"
root=$(CDPATH='' cd -- "$1" && pwd)
shift
# As on this machine: /bin may be a link to /usr/bin.
for dir in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$dir" ]; then
        mkdir -p "$root/usr/$dir"
        ln -sfn "$(readlink "/$dir")" "$root/$dir"
    fi
done
mkdir -p "$root/tmp" "$root/etc" "$root/proc" "$root/dev" "$root/sys"
chmod 1777 "$root/tmp"
printf 'root:x:0:0::/root:/bin/sh\ndriftless:x:10001:10001::/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\ndriftless:x:10001:\n' >"$root/etc/group"
for each in sh mkdir chown "$@"; do program "$each"; done
# Rust programs need these beside the C library, and names need to be resolved.
for library in $(ldconfig -p 2>/dev/null | sed -n 's/.*lib\(gcc_s\.so\.1\|m\.so\.6\|nss_dns\.so\.2\|nss_files\.so\.2\|resolv\.so\.2\) .*=> //p'); do
    copy "$library"
done
echo "made $root; next: tar -C $root -c . | podman import - driftless-base"
