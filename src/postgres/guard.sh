# Runs a server that must not outlive the process that started it.
# Standard input is a pipe whose other end only that process holds. However it ends, the pipe closes,
# the read returns, and the server stops. The server is our child, so its process id cannot come to
# belong to another process while we wait for it.
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -INT "$server"; } 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
