package cli

const listeningHelp = `How --listen works: vaultexec holds the listening socket, the command inherits it.

  --listen :8000                       every address of this machine, IPv4 and IPv6
  --listen 127.0.0.1:8000, --listen [::1]:8000, --listen HOST:8000
  --listen unix:/run/app/app.sock,mode=0660
  --listen web=:8000                   with a name

The socket stays open while --watch restarts the command. A connection that
arrives in between waits in the queue and is not refused. The old command answers
the requests that have reached it (Linux, TCP) before it is told to stop.
vaultexec binds the address before it asks Vault, so that an address in use is an
error at once (125), and starts to listen when it starts the command. On SIGTERM
it closes the socket: new connections are refused and do not wait for a command
that is ending.

The command gets the sockets as descriptors, from 3 on in the order of the
options, by the protocol of systemd's socket activation: LISTEN_FDS, LISTEN_PID,
LISTEN_FDNAMES. Sockets that vaultexec itself got from systemd come first. For a
socket with a name, VAULTEXEC_FD_WEB holds the number. The command must not bind
the address itself:

  gunicorn                             takes it as it is; give no address
  puma --bind-to-activated-sockets only
  php-fpm with FPM_SOCKETS=ADDRESS=3 in its environment, and listen = ADDRESS
  uvicorn --fd 3, hypercorn --bind fd://3, node: server.listen({fd: 3})
  nginx with NGINX='3;' in its environment and --stop-signal QUIT
  haproxy: bind fd@3, and --stop-signal USR1
  Go: net.FileListener(os.NewFile(3, "")), or coreos/go-systemd

  vaultexec --path app-prod --watch --listen :8000 -- uvicorn --fd 3 app:app

With --restart-order start-first the new command starts beside the old one. It
gets a socket of its own for the same address (Linux, TCP), and new connections
go there once it is ready; --ready says when that is (see vaultexec help ready).
The old command first serves what waits in its queue, and is then told to stop. A
new command that exits, or is not ready within --ready-timeout (60s), is stopped,
and the old one runs on. Do not use this order for a command that migrates a
database when it starts, or that must be the only one. While both run, they need
twice the memory.

What this cannot prevent: a server that ends closes its idle connections, and a
client that sends on one at that moment has to repeat the request. On a unix
socket or one of systemd's, some servers also close connections that they have
just accepted (uvicorn, Shutdown of Go's net/http).

A socket file that nobody serves any more is replaced; one that is served is an
error. vaultexec removes the file at the end, unless it became the command.
`
