package cli

const statusHelp = `How --status works: vaultexec answers over HTTP what it and its command do.

  --status unix:/run/app/status.sock   or with ,mode=0660; 0600 otherwise
  --status 127.0.0.1:9641              HOST:PORT; :9641 is every address

  /livez     200 while vaultexec's main loop turns; never depends on Vault
  /readyz    200 when the command is ready (--ready), or was started where no
             --ready is given, and nothing ends it; else 503 and why. With
             --max-age 10m also 503 when a path was looked at longer ago
  /status    everything, as JSON; vaultexec ps shows it
  /metrics   the same for Prometheus, as OpenMetrics or text
  /refresh   POST, over the unix socket only: look at the secrets now

It is for a supervised command: vaultexec stays as its parent. The address is bound
before Vault is asked, and answers from then on; one in use is an error (125). The
command does not inherit the socket, and the file is removed at the end.

No answer has a value, a token or the id of a lease in it. Names of paths and
versions are there, and there is no login: anyone who can connect can read them. An
address beyond this machine draws a warning (--allow-http turns it off). Over TCP a
request has to name an IP address, localhost or the host of --status, so that no web
page in a browser can read it under a name of its own.

Do not let a liveness probe restart what /readyz reports: with --max-age an outage of
Vault would end every command that could have gone on without it. Use /livez for
liveness, and /readyz where traffic may be taken away. docs/status.md has a probe for
Kubernetes, every field and every metric.
`
