package cli

const readyHelp = `How --ready works: when a command counts as ready.

--restart-order start-first starts the new command beside the old one, and stops the
old one when the new one is ready. With --ready, systemd also hears READY=1 only
when the first command is ready (Type=notify).

  auto             what vaultexec sees of it (the default)
  notify           it sends READY=1 to NOTIFY_SOCKET (sd_notify(3))
  http:/healthz    it answers a request with a status from 200 to 399
  tcp              it accepts a connection
  after:10s        this time has passed
  exec:PROGRAM     this program exits with 0. Otherwise it runs again one second
                   later. VAULTEXEC_PID is the command's process; it gets no secrets

auto needs --listen, or sockets from systemd. A command is ready when its processes
wait for connections on each of them. If that does not show within two seconds, the
command has to answer a request for / with a status below 500, or accept a
connection, at each socket of its own. READY=1 counts where none of this can be
known, and where there is no socket.

http: and tcp reach the new command alone: the kernel gives it the connections from
one source port. http: uses the first --listen. Where both commands share a socket
(unix sockets, sockets from systemd, systems other than Linux), the old one could
answer: --ready-address names an address that only the new command has.

A command gets NOTIFY_SOCKET with --ready auto, with --ready notify, and with
start-first. If vaultexec has a NOTIFY_SOCKET of its own, it forwards STATUS (not
with --mask), EXTEND_TIMEOUT_USEC, WATCHDOG and FDSTORE to systemd; MAINPID never.
EXTEND_TIMEOUT_USEC also extends --ready-timeout.
`
