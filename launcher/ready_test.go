package launcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/serving"
)

func TestParseReady(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Ready{
		"auto": {}, "notify": {By: ReadyNotify}, "tcp": {By: ReadyTCP},
		"http:/": {By: ReadyHTTP, Path: "/"}, "http:/healthz?full=1:2": {By: ReadyHTTP, Path: "/healthz?full=1:2"},
		"after:1m30s": {By: ReadyAfter, After: 90 * time.Second}, "after:0s": {By: ReadyAfter},
		"exec:./check it": {By: ReadyExec, Program: "./check it"},
	} {
		if got, err := ParseReady(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "Auto", "auto:", "notify:x", "tcp:80", "http", "http:", "http:healthz", "http://x/y z",
		"http:/a b", "http:/a\r\nX: y", "http:/ä", "after", "after:", "after:5", "after:-1s", "exec", "exec:", "HTTP:/"} {
		if got, err := ParseReady(text); err == nil || fault.Of(err).Hint == "" {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, ok := range map[string]bool{"127.0.0.1:9000": true, ":9000": true, "unix:/run/x": true, "a=:9000": false,
		"9000": false, "unix:/x,mode=0600": false, "": false} {
		if got, err := ParseReadyAddress(text); (err == nil) != ok || err == nil && got.String() != text {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// What is ready, for each way and each piece of evidence.
func TestIsReady(t *testing.T) {
	t.Parallel()
	waits, accepted, answered := serving.Signs{Waits: true}, serving.Signs{Accepted: true}, serving.Signs{Answered: true}
	one := func(s ...seen) []seen { return s }
	for name, c := range map[string]struct {
		ready Ready
		is    evidence
		want  bool
	}{
		"notify":                            {Ready{By: ReadyNotify}, evidence{says: true}, true},
		"notify, only seen":                 {Ready{By: ReadyNotify}, evidence{sockets: one(seen{Signs: waits})}, false},
		"after":                             {Ready{By: ReadyAfter}, evidence{over: true}, true},
		"after, too early":                  {Ready{By: ReadyAfter}, evidence{says: true}, false},
		"exec":                              {Ready{By: ReadyExec}, evidence{ran: true}, true},
		"exec, not yet":                     {Ready{By: ReadyExec}, evidence{says: true, over: true}, false},
		"http":                              {Ready{By: ReadyHTTP}, evidence{sockets: one(seen{Signs: answered})}, true},
		"http, only accepted":               {Ready{By: ReadyHTTP}, evidence{sockets: one(seen{Signs: accepted})}, false},
		"http, only seen":                   {Ready{By: ReadyHTTP}, evidence{says: true, sockets: one(seen{Signs: waits})}, false},
		"http, nowhere":                     {Ready{By: ReadyHTTP}, evidence{says: true}, false},
		"tcp":                               {Ready{By: ReadyTCP}, evidence{sockets: one(seen{Signs: accepted})}, true},
		"tcp, one of two":                   {Ready{By: ReadyTCP}, evidence{sockets: one(seen{Signs: accepted}, seen{Signs: waits})}, false},
		"tcp, nowhere":                      {Ready{By: ReadyTCP}, evidence{}, false},
		"auto, nothing":                     {Ready{}, evidence{}, false},
		"auto, says so":                     {Ready{}, evidence{says: true}, true},
		"auto, says so and is not seen":     {Ready{}, evidence{says: true, sockets: one(seen{})}, false},
		"auto, says so and is seen":         {Ready{}, evidence{says: true, sockets: one(seen{Signs: waits})}, true},
		"auto, says so and is hidden":       {Ready{}, evidence{says: true, sockets: one(seen{blind: true})}, true},
		"auto, says so where none is":       {Ready{}, evidence{says: true, sockets: one(seen{never: true})}, true},
		"auto, says so, could be asked":     {Ready{}, evidence{says: true, sockets: one(seen{blind: true, probed: true})}, false},
		"auto, hidden and silent":           {Ready{}, evidence{sockets: one(seen{blind: true})}, false},
		"auto, waits":                       {Ready{}, evidence{sockets: one(seen{Signs: waits})}, true},
		"auto, answers":                     {Ready{}, evidence{sockets: one(seen{Signs: answered, blind: true})}, true},
		"auto, accepts":                     {Ready{}, evidence{sockets: one(seen{Signs: accepted})}, true},
		"auto, one of two":                  {Ready{}, evidence{sockets: one(seen{Signs: waits}, seen{})}, false},
		"auto, one of two, says so":         {Ready{}, evidence{says: true, sockets: one(seen{Signs: waits}, seen{})}, false},
		"auto, two by different ways":       {Ready{}, evidence{sockets: one(seen{Signs: waits}, seen{Signs: answered})}, true},
		"auto, says so, one hidden, one is": {Ready{}, evidence{says: true, sockets: one(seen{blind: true}, seen{Signs: waits})}, true},
	} {
		if got := c.ready.isReady(c.is); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for status, want := range map[int]string{0: "", 101: "", 200: "auto http", 302: "auto http", 401: "auto", 404: "auto", 500: "", 503: ""} {
		var got []string
		for name, r := range map[string]Ready{"auto": {}, "http": {By: ReadyHTTP}} {
			if r.accepts(status) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%d: %v", status, got)
		}
	}
}

// What can never be known is said at once, with another way; what may be known is waited for. What is late says what is
// missing.
func TestNotReady(t *testing.T) {
	t.Parallel()
	at := func(s seen) []seen { s.name = "127.0.0.1:80"; return []seen{s} }
	for name, c := range map[string]struct {
		ready          Ready
		is             evidence
		hopeless, late string // a part of the text and hint; "" for none
	}{
		"notify":                   {Ready{By: ReadyNotify}, evidence{told: true}, "", "no READY=1"},
		"notify, not heard":        {Ready{By: ReadyNotify}, evidence{}, "after:10s", ""},
		"http":                     {Ready{By: ReadyHTTP, Path: "/up"}, evidence{sockets: at(seen{probed: true, last: "status 503"})}, "", "GET /up at 127.0.0.1:80: status 503"},
		"http, shared":             {Ready{By: ReadyHTTP}, evidence{told: true, sockets: at(seen{})}, "share the socket of 127.0.0.1:80", ""},
		"tcp, no socket":           {Ready{By: ReadyTCP}, evidence{told: true}, "--ready-address", ""},
		"tcp":                      {Ready{By: ReadyTCP}, evidence{sockets: at(seen{probed: true})}, "", "nobody accepts"},
		"exec":                     {Ready{By: ReadyExec, Program: "p"}, evidence{last: "exit code 3"}, "", "p: exit code 3"},
		"exec, runs":               {Ready{By: ReadyExec, Program: "p"}, evidence{}, "", "p has not ended"},
		"auto":                     {Ready{}, evidence{sockets: at(seen{})}, "", "none of its processes waits for connections at 127.0.0.1:80"},
		"auto, asked":              {Ready{}, evidence{sockets: at(seen{probed: true, last: "status 502"})}, "", "a request there: status 502"},
		"auto, no socket":          {Ready{}, evidence{}, "after:10s", ""},
		"auto, no socket, told":    {Ready{}, evidence{told: true}, "", "after:10s"},
		"auto, hidden":             {Ready{}, evidence{sockets: at(seen{blind: true})}, "", "cannot be seen"},
		"auto, no /proc":           {Ready{}, evidence{sockets: at(seen{never: true})}, "after:10s", ""},
		"auto, no /proc, told":     {Ready{}, evidence{told: true, sockets: at(seen{never: true})}, "", "no READY=1 came"},
		"auto, no /proc but asked": {Ready{}, evidence{sockets: at(seen{never: true, probed: true})}, "", "127.0.0.1:80"},
	} {
		text := func(err error) string {
			if err == nil {
				return ""
			}
			return fmt.Sprintf("%v\n%s", err, fault.Of(err).Hint)
		}
		got := text(c.ready.hopeless(c.is))
		if (got == "") != (c.hopeless == "") || !strings.Contains(got, c.hopeless) {
			t.Errorf("%s: hopeless: %q", name, got)
		}
		if got := text(c.ready.late(c.is, time.Minute)); !strings.Contains(got, c.late) || !strings.Contains(got, "1m0s") || fault.Of(c.ready.late(c.is, 0)).Hint == "" {
			t.Errorf("%s: late: %q", name, got)
		}
	}
}

// The program of --ready exec: gets no secret and no credential.
func TestReadyEnv(t *testing.T) {
	t.Parallel()
	got := readyEnv([]string{"PATH=/bin", "VAULT_TOKEN=t", "SECRET=old", "VAULTEXEC_PID=1"},
		func(name string) bool { return name == "SECRET" }, 42)
	if strings.Join(got, " ") != "PATH=/bin VAULTEXEC_PID=42" {
		t.Errorf("%q", got)
	}
}

// A command gets a NOTIFY_SOCKET of vaultexec's only where somebody listens.
func TestWantsNotify(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    Options
		want bool
	}{
		"nobody":                   {Options{}, false},
		"start-first":              {Options{StartFirst: true}, true},
		"start-first, tcp":         {Options{StartFirst: true, Ready: Ready{By: ReadyTCP, Given: true}}, false},
		"start-first, pass":        {Options{StartFirst: true, PassNotify: true}, false},
		"--ready notify":           {Options{Ready: Ready{By: ReadyNotify, Given: true}}, true},
		"--ready auto":             {Options{Ready: Ready{Given: true}}, true},
		"--ready after, supervise": {Options{Ready: Ready{By: ReadyAfter, Given: true}}, false},
	} {
		if got := (&launch{Options: c.o}).wantsNotify(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
