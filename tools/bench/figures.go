package main

import (
	"fmt"
	"strings"
)

// figures is the table of the README.
func (r *report) figures() string {
	var b strings.Builder
	fmt.Fprintf(&b,
		"%s, %s; commit %s, %s. Medians; the quartiles and everything else are in docs/bench.json.\n\n| | vaultexec | beside |\n|---|---|---|\n",
		r.Date, r.Machine, r.Commit, r.Go)
	line := func(section, key, what string, beside ...string) {
		f, ok := r.find(section, key)
		if !ok {
			return
		}
		var others []string
		for i := 0; i+1 < len(beside); i += 2 {
			if o, ok := r.find(section, beside[i]); ok {
				others = append(others, fmt.Sprintf("%s %s", beside[i+1], value(o)))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", what, value(f), strings.Join(others, ", "))
	}
	peers := []string{"http-token-2-bare", "bare Go program", "envconsul", "envconsul",
		"secret-init", "secret-init", "vault-agent", "vault agent", "tini", "tini (no secrets)"}
	line("launch", "http-token-2", "launch with 2 paths, to the command's first statement", peers...)
	line("launch", "http-token-2-cpu", "the same, CPU", "http-token-2-bare-cpu", "bare Go program",
		"vault-agent-cpu", "vault agent")
	line("launch", "http-token-100", "launch with 100 paths", "http-token-100-bare", "bare Go program")
	line("launch", "tls-approle-2", "launch with 2 paths, TLS, AppRole", "tls-approle-2-bare", "bare Go program")
	line("ending", "supervise", "a whole run with 2 paths of a command that ends at once, --supervise", "replace", "--replace",
		"tini", "tini (no secrets)")
	line("launch", "http-token-2-delay-trips", "round trips for that at 20 ms, token")
	line("launch", "http-approle-2-delay-trips", "round trips with AppRole: connect, log in, read, revoke")
	line("startup", "size-vaultexec", "size of the program", "size-bare", "bare Go program")
	line("supervise", "idle-rss", "resident beside an idle command")
	line("supervise", "idle-anon", "of which anonymous")
	line("supervise", "idle-wakeups", "wake-ups a minute when idle (the Go runtime's)")
	line("supervise", "poll-tls-cpu-path", "CPU a look at one path, TLS")
	line("supervise", "signal-vaultexec", "forwarding a signal", "signal-tini", "tini",
		"signal-dumb-init", "dumb-init", "signal-the command itself", "none")
	line("restart", "own",
		"from a change in Vault to the new process's first answer, not counting interval and settle time")
	line("handover", "start-first-failed", "requests that fail in ten rotations under load, start-first",
		"stop-first-failed", "stop-first", "unheld-failed", "without --listen", "envconsul-failed", "envconsul")
	line("handover", "start-first-wait", "the longest wait of a request meanwhile",
		"start-first-quiet", "before", "stop-first-wait", "stop-first")
	line("scale", "cpu-request", "Vault's CPU for one look, audit log on")
	line("scan", "vaultexec-speed", "vaultexec scan: 200 values in every form, in the source of Go", "grep-speed", "grep -r -F, as they are")
	var absent []string
	for _, s := range r.Sections {
		for _, a := range s.Absent {
			if !strings.Contains(strings.Join(absent, " "), a) {
				absent = append(absent, a)
			}
		}
	}
	if len(absent) > 0 {
		fmt.Fprintf(&b, "\nNot on that machine, and so not measured: %s.\n", strings.Join(absent, ", "))
	}
	return b.String()
}

func value(r row) string {
	text := strings.TrimSpace(number(r.Median) + " " + r.Unit)
	if strings.HasPrefix(r.Key, "signal-") {
		text += fmt.Sprintf(" (99 %%: %s)", number(r.P99))
	}
	return text
}
