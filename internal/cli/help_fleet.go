package cli

const fleetHelp = `How --restart-lock works: few of a fleet restart at once.

  vaultexec --path app --watch --restart-lock kubernetes:api --restart-limit 3 -- ...

After a change, vaultexec takes one of --restart-limit places before it does
anything, and holds it until the new command has passed its --probation. The others
wait. The secrets are read after the place is taken, so that a command starts with
the newest. What expires does not wait: a command whose credentials end is restarted
in time, with a place or without. A process that starts needs no place, and takes what
is newest.

  kubernetes:NAME        the Leases NAME-0, NAME-1 ... of this pod's namespace, or
                         of another: kubernetes:NAMESPACE/NAME. The manifest makes
                         them; a Role allows get and update for these names
  consul:NAME            the keys NAME/0, NAME/1 ... of Consul, at CONSUL_HTTP_ADDR

A holder that dies loses its place: after 15 seconds with Kubernetes, after 30 to 45
with Consul (a session may live for twice its TTL, and a lock delay of 15 seconds
follows). Clocks of machines need not agree. A place that is lost while a restart is
under way does not stop the restart.

If no place is free within --restart-lock-wait (10 minutes; 0 waits for ever), the
change is made without one. With --restart-lock-required it goes on waiting, and
says so. A lock that is away makes a change late, and never loses it.

With --canary, the first that gets a place tries the change, and leaves the outcome
there: which versions, good or bad, who tried them and when, and no value. When they
were good the others follow. When they were bad nobody else tries them, until they
change again. Secrets without versions (KV version 1) are changed in turn, and not
tried for the others.

vaultexec check says whether the lock can be used, and which rule is missing.
docs/fleets.md has the manifest, and docs/scale.md what a lock costs.
`
