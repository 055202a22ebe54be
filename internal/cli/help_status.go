package cli

const statusHelp = `How --status works: vaultexec answers over HTTP what it and its command are doing.

  --status unix:/run/app/status.sock   or with ,mode=0660; 0600 otherwise
  --status 127.0.0.1:9641              HOST:PORT; :9641 is every address

  /livez     200 while vaultexec's main loop responds; never depends on Vault
  /readyz    200 when the command is ready (without --ready: when it was started);
             503 and the reason while it is not, and while it is being stopped. With
             --max-age 10m also 503 when the last look at a path is longer ago
  /status    everything, as JSON; vaultexec ps shows it
  /metrics   the same for Prometheus, as OpenMetrics or text
  /refresh   POST, over the unix socket only: look at the secrets now

With --status vaultexec stays as the command's parent. It binds the address before it
asks Vault, and answers from then on; an address in use is an error (125). The command
does not inherit the socket, and vaultexec removes the file at the end.

No answer has a value, a token or the id of a lease. Names of paths and keys, versions
and times are there, and there is no login: anyone who can connect can read them. An
address that other machines can reach causes a warning; --allow-http silences it.
Over TCP a request must name an IP address, localhost or the host of --status, so
that no web page in a browser can read it under its own name (DNS rebinding).

For liveness use /livez, and /readyz for readiness only. With --max-age, a liveness
probe of /readyz would let an outage of Vault restart every command, though each could
have run on. docs/status.md has probes for Kubernetes, every field and every metric.
`
