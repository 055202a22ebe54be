package cli

const readyHelp = `How --ready works: when a command counts as ready.

--restart-order start-first starts the new command beside the old one. The old one
stops when the new one is ready. With --ready, systemd's unit is started when the
first command is ready, and not before (Type=notify).

  auto             what is seen of it (the default)
  notify           it sends READY=1 to NOTIFY_SOCKET (sd_notify(3))
  http:/healthz    a request is answered with a status from 200 to 399
  tcp              a connection is accepted
  after:10s        this time has passed
  exec:PROGRAM     this program ends with 0. It is run again one second later if not,
                   with VAULTEXEC_PID, the command's process, and without secrets

auto needs --listen. A command is ready when its processes wait for connections on
each of its sockets. Where that does not show for two seconds, a request for / has
to be answered with a status below 500, or a connection be taken. READY=1 counts
where none of this can be known, and where there is no --listen.

http: and tcp reach the new command alone: vaultexec has the kernel give it the
connections from one source port. HTTP is spoken at the first --listen. Where both
commands share a socket (unix sockets, those of systemd, other systems than Linux),
an answer could be the old one's. --ready-address names an address then that only
the new command has.

A command gets NOTIFY_SOCKET with --ready auto, with --ready notify, and with
start-first. What it says goes on to systemd where vaultexec has a socket of its
own: STATUS (not with --mask), EXTEND_TIMEOUT_USEC, WATCHDOG and FDSTORE; MAINPID
never. EXTEND_TIMEOUT_USEC gives it more time than --ready-timeout, too.
`
