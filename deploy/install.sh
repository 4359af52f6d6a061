#!/bin/sh
# Installs, upgrades or removes Driftless on this machine. POSIX sh, nothing but the base system.
# `install.sh --help` says all.
set -eu

BIN=/usr/local/bin
SHARE=/usr/local/share/driftless
ETC=/etc/driftless
UNITS=/etc/systemd/system
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

usage() {
    cat <<'TEXT'
Installs Driftless on this machine, upgrades it, or removes it. Run it as root. Doing it again changes
nothing that is right already, and restarts nothing then; a configuration that is there is never
overwritten.

  install.sh coordinator [options]     the coordinator, on the server
  install.sh agent [options]           the agent, on a gateway
  install.sh remove [coordinator|agent] [--purge]
                                       programs and units; --purge also data, configuration and users,
                                       but for backups below the coordinator's directory

Options of both:
  --from DIR             where the built programs are; else beside this script, else target/release
  --root DIR             prepare a file system below DIR (an image): no users, nothing is started
  --no-start             do not enable or start the service
  --dry-run              only say what would be done
Of the coordinator:
  --listen ADDR:PORT     where agents connect, UDP (else 0.0.0.0:4433)
  --api ADDR:PORT        where the API listens, TCP (else 127.0.0.1:4480)
  --backup-dir DIR       where it makes a backup every day (else none)
Of the agent:
  --name NAME            the gateway's name
  --coordinator HOST:PORT
                         the coordinator; several are tried in turn. Without one the gateway works alone
  --token-file FILE      the token of `driftless token create`; - reads it from standard input
  --authority HEX        the authority's fingerprint as `driftless serve` or `doctor` shows it, or its
                         beginning (8 digits at least): a token of another fleet is refused
  --label KEY=VALUE      for placement; may be repeated

Examples:
  sudo deploy/install.sh coordinator --backup-dir /var/lib/driftless/backups
  sudo deploy/install.sh agent --name gw-7 --coordinator cloud.example:4433 --token-file token
  sudo deploy/install.sh agent --from new/       # an upgrade: keeps configuration and data
  deploy/install.sh agent --name gw-7 --root image/
  sudo deploy/install.sh remove agent

Exit codes: 0 done, 1 failed, 2 wrong usage
TEXT
}

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$1" >&2; exit "${2:-1}"; }
usage_error() { fail "$1 (install.sh --help shows all options)" 2; }

# Runs a command, or says that it would.
act() {
    if [ "$dry" = yes ]; then say "would run: $*"; else "$@"; fi
}
# Says what was done.
did() { [ "$dry" = yes ] || say "$*"; }

# --- the command line ---------------------------------------------------------------------------

role='' what='' from='' root='' start=yes dry=no purge=no changed=no
listen='' api='' backup_dir='' name='' coordinators='' token_file='' authority='' labels=''

need() { [ $# -ge 2 ] && [ -n "$2" ] || usage_error "$1 needs a value"; }

# What goes into a TOML text in quotes and through sed must be harmless in both.
plain() {
    case $2 in
        *[!A-Za-z0-9._:/@\ +\[\]-]*) usage_error "$1: '$2' holds a character that cannot be written here" ;;
    esac
}

add() { # LIST TEXT: the list with the text behind it
    if [ -n "$1" ]; then printf '%s, %s' "$1" "$2"; else printf '%s' "$2"; fi
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --no-start) start=no; shift; continue ;;
            --dry-run) dry=yes; shift; continue ;;
            --purge) purge=yes; shift; continue ;;
            --*) need "$@" ;;
            coordinator | agent | remove) take_word "$1"; shift; continue ;;
            *) usage_error "'$1' is not known" ;;
        esac
        case $1 in
            --from) from=$2 ;;
            --root) root=$2 ;;
            --listen) plain "$1" "$2"; listen=$2 ;;
            --api) plain "$1" "$2"; api=$2 ;;
            --backup-dir) take_backup_dir "$2" ;;
            --name) plain "$1" "$2"; name=$2 ;;
            --coordinator) plain "$1" "$2"; coordinators=$(add "$coordinators" "\"$2\"") ;;
            --token-file) token_file=$2 ;;
            --authority) authority=$(printf '%s' "$2" | tr -d ': …' | tr 'A-F' 'a-f') ;;
            --label) take_label "$2" ;;
            *) usage_error "'$1' is not known" ;;
        esac
        shift 2
    done
}

take_word() {
    if [ -z "$role" ]; then role=$1
    elif [ "$role" = remove ] && [ -z "$what" ] && [ "$1" != remove ]; then what=$1
    else usage_error "'$1' is one word too many"
    fi
}

# The unit shuts most of the file system to the coordinator.
take_backup_dir() {
    plain --backup-dir "$1"
    case $1 in
        *[\ \[\]]* | */../* | */..) usage_error "--backup-dir: '$1' cannot be written into a unit" ;;
        /home | /home/* | /root | /root[/]* | /run/user/* | /tmp | /tmp/* | /var/tmp | /var/tmp/*)
            usage_error "--backup-dir: the service sees nothing of $1; take a directory of its own, as \
/var/lib/driftless/backups or /srv/driftless" ;;
        /*) backup_dir=$1 ;;
        *) usage_error "--backup-dir: write it from / on and not '$1'" ;;
    esac
}

take_label() {
    plain --label "$(printf '%s' "$1" | tr -d =)"
    case $1 in
        ?*=*) labels=$(add "$labels" "\"${1%%=*}\" = \"${1#*=}\"") ;;
        *) usage_error "--label: write KEY=VALUE and not '$1'" ;;
    esac
}

# Options of the other role are mistakes, not wishes to be left aside.
check_options() {
    case $role in
        coordinator) other="$name$coordinators$token_file$authority$labels" ;;
        agent) other="$listen$api$backup_dir" ;;
        remove) other="$name$coordinators$token_file$authority$labels$listen$api$backup_dir$from" ;;
        *) usage >&2; exit 2 ;;
    esac
    [ -z "$other" ] || usage_error "an option does not belong to '$role'"
    [ "$role" = remove ] || [ "$purge" = no ] || usage_error "--purge belongs to 'remove'"
    [ -z "$token_file" ] || [ -n "$coordinators" ] || [ -f "$root$ETC/agent.toml" ] ||
        usage_error "--token-file needs --coordinator"
    if [ -n "$root" ]; then
        start=no
        [ -d "$root" ] || fail "$root is no directory"
        root=$(CDPATH='' cd -- "$root" && pwd)
    elif [ "$dry" = no ] && [ "$(id -u)" != 0 ]; then
        fail "only root can install; repeat it with sudo, or prepare a directory with --root"
    fi
}

# --- what is installed ----------------------------------------------------------------------------

of_role() { # ROLE: sets what belongs to it
    case $1 in
        coordinator) program=driftless user=driftless mode=0750 unit=driftless-coordinator ;;
        agent) program=driftless-agent user=driftless-agent mode=0711 unit=driftless-agent ;;
    esac
    state=/var/lib/$user
}

find_program() {
    for dir in "$from" "$here" "$here/../target/release"; do
        if [ -n "$dir" ] && [ -f "$dir/$program" ]; then
            built=$dir/$program
            return
        fi
        [ -z "$from" ] || break
    done
    fail "there is no $program in ${from:-$here or target/release}; build it (cargo build --release \
-p driftless -p edge-agent), or name its directory with --from"
}

owner() { # as --root has no users of its own: whoever calls
    if [ -z "$root" ]; then printf '%s' "-o $1 -g $2"; fi
}

directory() { # PATH MODE USER
    # shellcheck disable=SC2046 # two words or none
    act install -d -m "$2" $(owner "$3" "$3") "$root$1"
}

file() { # FROM PATH MODE
    if cmp -s "$1" "$root$2"; then return; fi
    act install -d -m 0755 "$root$(dirname "$2")"
    # aside and renamed: a program that runs, or a power cut, never meets half a file
    act install -m "$3" "$1" "$root$2.new"
    act mv -f "$root$2.new" "$root$2"
    changed=yes
    did "installed $2"
}

install_program() {
    target=$root$BIN/$program
    if [ -f "$target" ] && ! cmp -s "$built" "$target"; then
        act cp -p "$target" "$target.previous"
        did "kept the program of before as $BIN/$program.previous"
    fi
    file "$built" "$BIN/$program" 0755
}

make_user() {
    [ -z "$root" ] || return 0
    if id "$user" >/dev/null 2>&1; then return; fi
    shell=/usr/sbin/nologin
    [ -x "$shell" ] || shell=/bin/false
    if command -v useradd >/dev/null; then
        act useradd --system --user-group --no-create-home --home-dir "$state" --shell "$shell" "$user"
    else
        # BusyBox makes no group of its own for a user
        grep -q "^$user:" /etc/group || act addgroup -S "$user"
        act adduser -S -D -H -h "$state" -s "$shell" -G "$user" "$user"
    fi
    did "made the user $user"
}

set_key() { # FILE KEY VALUE: sets a key of the published configuration
    if ! grep -q "^#$2 = " "$1"; then fail "the configuration has no key $2"; fi
    sed "s|^#$2 = .*|$2 = $3|" "$1" >"$1.set"
    mv -f "$1.set" "$1"
}

# A new program is put in place only if it takes the configuration that is there.
check_configuration() {
    config=$ETC/$role.toml
    [ -f "$root$config" ] || return 0
    "$built" config check --config "$root$config" >/dev/null ||
        fail "$config has mistakes (above), and nothing was changed: mend them, then do this again"
}

install_configuration() {
    before=$changed
    file "$here/$role.toml" "$SHARE/$role.toml" 0644
    changed=$before # nobody reads the example
    directory "$ETC" 0755 root
    if [ -f "$root$config" ]; then
        [ -z "$listen$api$backup_dir$name$coordinators$labels" ] ||
            say "kept $config as it is: change it there ($SHARE/$role.toml shows every key)"
    else
        draft=$(mktemp)
        cp "$here/$role.toml" "$draft"
        [ -z "$listen" ] || set_key "$draft" listen "\"$listen\""
        [ -z "$api" ] || set_key "$draft" api "\"$api\""
        [ -z "$backup_dir" ] || set_key "$draft" dir "\"$backup_dir\""
        [ -z "$name" ] || set_key "$draft" name "\"$name\""
        [ -z "$coordinators" ] || set_key "$draft" coordinator "[$coordinators]"
        [ -z "$coordinators" ] || set_key "$draft" token_file "\"$state/token\""
        [ -z "$labels" ] || set_key "$draft" labels "{$labels}"
        "$built" config check --config "$draft" >/dev/null || { rm -f "$draft"; exit 1; }
        file "$draft" "$config" 0644
        rm -f "$draft"
    fi
}

# A directory outside the coordinator's own is opened to the service by a drop-in.
install_backup_dir() {
    [ -n "$backup_dir" ] || return 0
    # the service's user may have put a link there, and root would follow it
    [ ! -L "$root$backup_dir" ] || fail "$backup_dir is a link: name the directory that it leads to"
    directory "$backup_dir" 0700 "$user"
    case $backup_dir in "$state"/*) return ;; esac
    draft=$(mktemp)
    printf '[Service]\nReadWritePaths=-%s\n' "$backup_dir" >"$draft"
    file "$draft" "$UNITS/$unit.service.d/backups.conf" 0644
    rm -f "$draft"
}

read_token() {
    token=''
    [ -n "$token_file" ] || return 0
    if [ "$token_file" = - ]; then token=$(cat); else token=$(cat -- "$token_file"); fi
    token=$(printf '%s' "$token" | tr -d ' \t\r\n')
    case $token in
        dft1-*-*-*-*) ;;
        *) fail "what $token_file holds is no enrolment token: one begins with dft1-" ;;
    esac
    [ -n "$authority" ] || return 0
    [ "${#authority}" -ge 8 ] || usage_error "--authority: give 8 digits at least"
    found=${token#dft1-}
    found=${found%%-*}
    case $found in
        "$authority"*) ;;
        *) fail "the token is of another fleet: its authority is $found" ;;
    esac
}

enrolled() { [ -f "$root$state/pki/node.crt" ]; }

# A configuration that is kept must name the token, or nobody would ever use and remove it.
check_joining() {
    [ -n "$token$coordinators" ] && [ -f "$root$ETC/agent.toml" ] || return 0
    ! enrolled || return 0
    for key in coordinator token_file; do
        grep -q "^$key = " "$root$ETC/agent.toml" || fail "$ETC/agent.toml is kept as it is and has \
no $key. For this gateway to join, write into it
  coordinator = [${coordinators:-\"HOST:PORT\"}]
  token_file = \"$state/token\"
and do this again"
    done
}

# A gateway that is to join and has nothing to enrol with would be started again and again.
check_token() {
    if [ -n "$token" ] || enrolled || [ -f "$root$state/token" ] || [ -f "$root$state/identity.json" ]; then
        return 0
    fi
    [ -n "$coordinators" ] || grep -qs "^token_file = " "$root$ETC/agent.toml" || return 0
    [ "$start" = no ] || usage_error "this gateway is not enrolled: give --token-file, too \
(\`driftless token create\` makes the token), or --no-start"
    say "missing: $state/token, with a token of \`driftless token create\`; the agent does not start without it"
}

install_token() {
    [ -n "$token" ] || return 0
    if enrolled; then
        say "this gateway is enrolled already; the token is not used"
        return
    fi
    if [ "$dry" = yes ]; then say "would write the token to $state/token"; return; fi
    # Tasks may write into $state: it is made beside it and renamed, which follows no link of theirs.
    draft=$(mktemp "$root$(dirname "$state")/token.XXXXXX")
    printf '%s\n' "$token" >"$draft"
    [ -n "$root" ] || chown "$user:$user" "$draft"
    mv -fT "$draft" "$root$state/token" || { rm -f "$draft"; fail "the token cannot be written"; }
    changed=yes
    say "put the token into $state/token: the next start enrols with it and removes it"
}

has_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

start_service() {
    [ "$start" = yes ] || return 0
    if ! has_systemd; then
        say "systemd does not run here. Let your service manager run this as the user $user, again when it ends:"
        say "  $BIN/$(sed -n "s|^ExecStart=$BIN/||p" "$here/systemd/$unit.service")"
        [ "$role" = agent ] || say "  with STATE_DIRECTORY=$state in its environment"
        return
    fi
    act systemctl daemon-reload
    act systemctl enable --quiet "$unit"
    if [ "$changed" = no ] && systemctl is-active --quiet "$unit"; then
        say "$unit runs, and nothing was changed (systemctl restart $unit takes a changed configuration over)"
        return
    fi
    # waits until it says that it is ready
    act systemctl restart "$unit" || fail "$unit does not start: journalctl -u $unit says why"
    did "$unit runs"
}

next_step() {
    [ -z "$root" ] || return 0
    case $role in
        coordinator) say "next: driftless doctor; then driftless token create --name GATEWAY" ;;
        agent) say "next: driftless-agent check; driftless-agent status" ;;
    esac
}

install_role() {
    of_role "$role"
    find_program
    read_token
    if [ "$role" = agent ] && [ -z "$name" ] && [ ! -f "$root$ETC/agent.toml" ]; then
        usage_error "the agent needs --name"
    fi
    check_configuration
    if [ "$role" = agent ]; then
        check_joining
        check_token
    fi
    make_user
    install_program
    directory "$state" "$mode" "$user"
    install_backup_dir
    install_configuration
    [ "$role" = coordinator ] || install_token
    file "$here/systemd/$unit.service" "$UNITS/$unit.service" 0644
    start_service
    next_step
}

# --- removing -------------------------------------------------------------------------------------

remove_role() {
    of_role "$1"
    if [ -z "$root" ] && has_systemd && [ -f "$UNITS/$unit.service" ]; then
        act systemctl disable --quiet --now "$unit"
    fi
    for path in "$UNITS/$unit.service" "$UNITS/$unit.service.d/backups.conf" "$BIN/$program" "$BIN/$program.previous" "$SHARE/$1.toml"; do
        if [ -e "$root$path" ]; then
            act rm -f "$root$path"
            did "removed $path"
        fi
    done
    act_quietly rmdir "$root$SHARE"
    act_quietly rmdir "$root$UNITS/$unit.service.d"
    if [ -z "$root" ] && has_systemd; then act systemctl daemon-reload; fi
    if [ "$purge" = yes ]; then purge_role "$1"; else keep_role "$1"; fi
}

act_quietly() { # not empty, or not there: both are right
    if [ "$dry" = no ]; then "$@" 2>/dev/null || :; fi
}

keep_role() {
    for path in "$state" "$ETC/$1.toml"; do
        if [ -e "$root$path" ]; then say "kept $path (--purge removes it)"; fi
    done
}

# Backups are what a purge by mistake is mended with: they stay, as root's.
purge_state() {
    backups=$root$state/backups
    if [ -L "$backups" ] || [ -z "$(ls -A "$backups" 2>/dev/null)" ]; then
        act rm -rf "$root$state"
        did "removed $state"
        return
    fi
    act find "$root$state" -mindepth 1 -maxdepth 1 ! -name backups -exec rm -rf {} +
    [ -n "$root" ] || act chown -hR 0:0 "$state"
    did "removed what was in $state, but for $state/backups: it holds backups with the fleet's keys"
}

purge_role() {
    if [ -e "$root$state" ]; then purge_state; fi
    if [ -e "$root$ETC/$1.toml" ]; then
        act rm -f "$root$ETC/$1.toml"
        did "removed $ETC/$1.toml"
    fi
    act_quietly rmdir "$root$ETC"
    if [ -z "$root" ] && id "$user" >/dev/null 2>&1; then
        deleter=userdel
        command -v userdel >/dev/null || deleter=deluser
        if act "$deleter" "$user"; then
            did "removed the user $user"
        else
            fail "the user $user stays: end its processes, then $deleter $user"
        fi
    fi
}

parse "$@"
check_options
case $role in
    remove) for each in ${what:-coordinator agent}; do remove_role "$each"; done ;;
    *) install_role ;;
esac
