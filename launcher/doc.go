// Package launcher is the life of a run: from references to secrets to an environment to a command.
//
// Run finds the program first (exec.go), so that a wrong name costs no login. A worker logs in and reads all secrets at
// the same time (fetch.go; folder.go finds those of a folder). The main goroutine waits for signals meanwhile: one that
// ends vaultexec ends it within 200 ms. Where there is nothing to put in order, the kernel ends it at once
// (signals.go). The secrets become one environment (internal/environ, which is pure), or every reason why they do not
// is reported at once. Then vaultexec becomes the command (exec.go), or stays as its parent (supervise.go) where
// something has to be done for it later.
//
// As a parent, the main goroutine, locked to the main thread, owns the child. It alone starts, reaps and kills it
// (child.go; stub.go is what the child itself has to do before the command). It alone signals, stops and resumes it
// (job.go, tty.go). It waits for events in one loop (supervise.go): signals to pass on (signals.go), ended processes,
// one timer, and what the watcher sends. The listening sockets of --listen outlive the child (sockets.go).
//
// The watcher (watch.go) is a goroutine that looks at the secrets (look.go), keeps leases alive (tend.go), and reads
// everything when it is told to (reread.go). It has one record for each path (record.go): the newest state that was
// seen, what was read last and what of it works, the lease (lease.go), trouble, and the path's own time to try again.
// The environment that is wanted is a pure function of the records (records.go). The watcher decides nothing.
//
// A state machine without a clock or a process of its own decides what to do about an event (machine.go; events.go has what
// goes in and what comes out, change.go is the way of a change through it, questions.go what others may ask it).
// supervise.go carries out its actions; files.go writes the files, at the moment that put.go says, hook.go runs
// the hook, decisions.go and ends.go write the lines of the log. Nothing is taken from the running child before
// everything new was read and makes a valid environment. What fails to work is replaced by what worked before.
//
// With --restart-order start-first there are two commands for a while. handover.go is that part of the machine, and
// second.go carries it out: each command is a value of the type child, and one of them serves. divert.go has new connections
// wait for the next command before one is told to stop, where there is only one at a time. ready.go decides when the
// new one is ready by what warming.go finds out, commandnotify.go hears what commands say, sockets.go has the sockets
// that both share or have each.
//
// With --restart-lock a fleet shares a few places, and a change waits for one of them (state queueing). turn.go is that part of the
// machine. queue.go takes, keeps and gives back a place in a goroutine of its own (place.go), by an engine of internal/restartlock.
//
// With --status a server (internal/statusserver) answers what others ask, from a snapshot that the main goroutine publishes
// after each event (status.go; snapshot.go makes it, looks.go has what the watcher adds).
//
// On a terminal a second process of ours may live in the command's group for a while, to see its keys (witness.go).
// Another ends the command's group when vaultexec was killed and could not (guard.go). The log names what outlives a
// command (survivors.go); PID 1 ends it at the end (pid1.go). Orphans are reaped before there is a command, too
// (orphans.go). shutdown.go is the end of a run.
//
// With --mask, what the command prints goes through vaultexec (output.go, stream.go; internal/mask finds the values).
// On a terminal that takes a second vaultexec behind a terminal of its own (inner.go). The first one only passes on
// (relay_linux.go, keyboard_linux.go).
//
//	                                                                       diverting ──┐
//	                                                                           ▲       ▼
//	starting ──▶ running ──▶ settling ──▶ waiting ──▶ queueing ──▶ reading ──▶ hooking ──▶ stopping
//	   ▲            ▲            ▲           ▲           │  ▲         │           │           │
//	   │            │            │           └────────── │  └──────── │ ─ failed ─┤           │
//	   │            │            └──────── moving ───────┴────────────┤           │           │
//	   │            └────────────── nothing to be done ───────────────┴─ signal: ─┘           │
//	   │                                                                                      │
//	   └──── next command ────── clearing ◀───────────────────────────────────────────────────┘
//	                              │    ▲
//	             ended ◀──────────┘    └── ending ◀── SIGTERM, from running to diverting
//
// A change that comes when it cannot be acted on (while everything is read, by the hook, between two children) is kept,
// and leads to settling as soon as the child runs undisturbed. A change that comes with a time by which the child must
// be told to stop, because its credentials end, is not postponed beyond that. A change goes through queueing with --restart-lock.
// Every way from state to state with one
// command (a handover that fails while credentials end goes from running to waiting, too):
//
//	starting  → running settling ended
//	running   → settling ending clearing
//	settling  → waiting queueing reading ending clearing
//	waiting   → queueing reading ending clearing
//	queueing  → running settling reading ending clearing
//	reading   → running settling queueing hooking ending clearing
//	hooking   → running settling waiting queueing diverting stopping ending clearing
//	diverting → stopping ending clearing
//	stopping  → clearing
//	ending    → clearing
//	clearing  → starting ended
package launcher
