# Starts servers for the scripts that ask them; sourced, with "$binary" and the folder "$work" set.
#
#   serve NAME [OPTION ...]     waits for the server's address, which it leaves in "$work/NAME"

servers=()
trap 'for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done' EXIT

serve() {
    local name="$1" server
    shift
    rm -f "$work/$name"
    nice "$binary" serve --port 0 "$@" >"$work/$name" 2>"$work/$name.log" &
    server=$!
    servers+=("$server")
    for _ in $(seq 1 300); do
        [[ -s $work/$name ]] && return
        kill -0 "$server" 2>/dev/null || { cat "$work/$name.log" >&2; exit 1; }
        sleep 0.1
    done
    printf '%s: the server did not start\n' "${0##*/}" >&2
    exit 1
}
