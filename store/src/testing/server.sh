# A PostgreSQL server of the tests' own: server.sh BIN FOLDER TEMPLATE [FSYNC]
#
# FSYNC is off, unless it is measured: on then, as people run it.
#
# The template is an empty database cluster beside the test's program, made by whoever comes first: it takes longer than
# most tests.
#
# Reads commands, answers each with a line. Whoever started it holds the other end of its input: when that is closed,
# whatever became of its owner, the server ends and its folder goes.
set -u
bin=$1 folder=$2 template=$3 fsync=${4:-off}

# The server does not run as root.
as_server() {
  if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; else "$@"; fi
}

prepare() {
  if [ ! -d "$template" ]; then
    as_server "$bin/initdb" -D "$folder/data" -N -A trust -U muster -E UTF8 --locale=C </dev/null >"$folder/log" 2>&1 ||
      return 1
    # Another test may have been faster: the same comes to the same.
    cp -a "$folder/data" "$template.$$" && mv -T "$template.$$" "$template" 2>/dev/null || rm -rf "$template.$$"
    return 0
  fi
  cp -a "$template" "$folder/data"
}

start() {
  as_server "$bin/pg_ctl" -w -s -D "$folder/data" -l "$folder/data/log" start -o "-k '$folder' -c listen_addresses='' \
    -c fsync=$fsync -c full_page_writes=$fsync -c shared_buffers=16MB -c max_connections=50 -c autovacuum=off" \
    </dev/null >/dev/null 2>>"$folder/log"
}

# Every process of the server: it answers nothing while it is stopped, and loses nothing.
signal() {
  server=$(head -n 1 "$folder/data/postmaster.pid")
  # shellcheck disable=SC2046
  kill "-$1" "$server" $(ps -o pid= --ppid "$server")
}

if [ "$(id -u)" = 0 ]; then chown postgres "$folder"; fi
cd "$folder" || exit 1
prepare && start && echo started || {
  echo "failed: $(tail -n 3 "$folder/log" | tr '\n' ' ')"
  rm -rf "$folder"
  exit 1
}

while read -r command; do
  case "$command" in
    start) start ;;
    kill) as_server "$bin/pg_ctl" -s -D "$folder/data" -m immediate stop </dev/null >>"$folder/log" 2>&1 ;;
    freeze) signal STOP ;;
    thaw) signal CONT ;;
  esac
  echo "$?"
done
signal CONT 2>/dev/null
as_server "$bin/pg_ctl" -s -D "$folder/data" -m immediate stop </dev/null >/dev/null 2>&1
cd / && rm -rf "$folder"
