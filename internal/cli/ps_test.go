package cli

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/statusserver"
)

var psNow = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func psAgo(d time.Duration) statusserver.Time { return statusserver.At(psNow.Add(-d)) }

// The screen, in a calm run, in trouble and at the end. Nothing is wider than 80 columns, and nothing steers a terminal.
func TestPSText(t *testing.T) {
	t.Parallel()
	since := psAgo(3 * time.Hour)
	calm := &statusserver.Snapshot{Phase: statusserver.Running,
		Command: statusserver.Command{Name: "uvicorn", PID: 4711, Started: since, Ready: true, Restarts: 1},
		Paths:   []statusserver.Path{{Path: "kv/app", Version: 7, Newest: 7, Created: psAgo(3 * time.Hour), Watched: true, LastLook: psAgo(12 * time.Second)}},
		Token:   &statusserver.Token{Method: "approle", Ends: psAgo(-41 * time.Minute), Renewals: 9},
		Leases:  []statusserver.Lease{{Path: "database/creds/app", Ends: psAgo(-90 * time.Second)}},
	}
	trouble := &statusserver.Snapshot{Phase: statusserver.Running,
		Command: statusserver.Command{Name: "app\x1b[2J", PID: 5, Started: since, Restarts: 3, Rollbacks: 2, LastExit: &statusserver.Exit{At: psAgo(time.Minute), Status: "exit code 3"}},
		Next:    &statusserver.Next{PID: 6, Started: psAgo(2 * time.Second)},
		Change:  &statusserver.Change{State: "waiting", Text: strings.Repeat("kv/app 3 → 4, ", 20), Until: psAgo(-5 * time.Second)},
		Refused: []string{"cannot use kv/x: null"},
		Paths: []statusserver.Path{
			{Path: "kv/" + strings.Repeat("long/", 20), Version: 3, Newest: 14, Created: psAgo(72 * time.Hour), Watched: true, LastLook: psAgo(10 * time.Minute), Failing: true, LastFailure: &statusserver.Failure{Kind: "away"}},
			{Path: "kv/gone", State: "deleted", LastLook: psAgo(time.Second)},
		},
		Token: &statusserver.Token{Method: "token", Failing: true, LastFailure: &statusserver.Failure{Text: "cannot renew the token"}},
	}
	for _, c := range []struct {
		name string
		of   *statusserver.Snapshot
		want string
	}{
		{"calm", calm, `uvicorn, pid 4711, SINCE, ready
1 restart

PATH      VERSION   AGE LAST LOOK  TROUBLE
kv/app          7    3h       12s

login: approle, token expires in 41m, 9 renewals
lease: database/creds/app, expires in 90s
`},
		{"trouble", trouble, `app\x1b[2J, pid 5, SINCE, not ready
3 restarts, 2 rollbacks, last exit 60s ago: exit code 3
next command: pid 6, started 2s ago
under way: waiting, at most 5s more: kv/app 3 → 4, kv/app 3 → 4, kv/app 3 → 4, …
not used: cannot use kv/x: null

PATH                                  VERSION   AGE LAST LOOK  TROUBLE
kv/long/long/long/long/long/long/…     3 → 14    3d       10m  away
kv/gone                                     -     -         -  deleted

login: token, 0 renewals, cannot renew the token
`},
		{"between two", &statusserver.Snapshot{Phase: statusserver.Restarting, Command: statusserver.Command{Name: "app"}}, "app, restarting\n0 restarts\n"},
		{"ending", &statusserver.Snapshot{Phase: statusserver.Ending, Command: statusserver.Command{Name: "app", PID: 1, Started: since}}, "app, pid 1, SINCE, ending\n0 restarts\n"},
	} {
		got := psText(screen{}, c.of, psNow)
		if want := strings.ReplaceAll(c.want, "SINCE", statusserver.RunningSince(since.Time)); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
	}
}

// What answers in place of a vaultexec, or as a later one, is an error and no screen.
func TestPSOfOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		why    string
	}{
		"another program": {200, `{"status":"ok"}`, "not a vaultexec"},
		"a page":          {200, "<html>", "not a vaultexec"},
		"null":            {200, "null", "not a vaultexec"},
		"an error":        {500, string((&statusserver.Snapshot{Program: "v1"}).JSON()), "not a vaultexec"},
		"a redirect":      {302, "", "not a vaultexec"},
		"a later format":  {200, `{"version":2,"vaultexec":"v9"}`, "format 2, and this vaultexec knows format 1"},
		"another shape":   {200, `{"version":1,"vaultexec":"v9","paths":{}}`, "not a vaultexec"},
		"this one":        {200, string((&statusserver.Snapshot{Program: "v1"}).JSON()), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer srv.Close()
			spec, err := statusAddress(strings.TrimPrefix(srv.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_, s, err := psAsk{spec: spec}.ask(context.Background())
			if c.why == "" && (err != nil || s.Program != "v1") || c.why != "" && (err == nil || !strings.Contains(fault.Of(err).Why, c.why)) {
				t.Errorf("%v, %+v", err, s)
			}
		})
	}
}

// --json passes on what a later vaultexec answers, in whatever form.
func TestPSOfLaterForm(t *testing.T) {
	t.Parallel()
	body := `{"version":2,"vaultexec":"v9","paths":{"kv/app":1}}` + "\n"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
	defer srv.Close()
	spec, err := statusAddress(strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := (psAsk{spec, true}).ask(context.Background()); err != nil || string(got) != body {
		t.Errorf("%q, %v", got, err)
	}
}

// A run that ends is no wrong address.
func TestPSFollowsToTheEnd(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	spec, err := statusAddress(strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	srv.Close()
	var out strings.Builder
	a := &app{ui: newUI(&out, &out)}
	body, s := []byte("{}"), &statusserver.Snapshot{Command: statusserver.Command{Name: "app"}}
	err = a.follow(context.Background(), psAsk{spec: spec}, func(_ []byte, s *statusserver.Snapshot, now time.Time) string { return psText(screen{}, s, now) }, body, s)
	if f := fault.Of(err); err == nil || f.Why != "the run has ended" || f.Hint != "" || f.Kind != fault.Usage {
		t.Errorf("%v", err)
	}
	if !strings.HasPrefix(out.String(), "app") {
		t.Errorf("%q", out.String())
	}
}

// On no terminal a block is printed when something has changed, and a look is no change.
func TestPSLasting(t *testing.T) {
	t.Parallel()
	at := func(look time.Duration, version int) *statusserver.Snapshot {
		return &statusserver.Snapshot{Paths: []statusserver.Path{{Path: "kv/app", Version: version, LastLook: psAgo(look)}}}
	}
	if lasting(at(1, 3)) != lasting(at(time.Hour, 3)) || lasting(at(1, 3)) == lasting(at(1, 4)) {
		t.Error("what a block is printed for")
	}
	s := at(time.Hour, 3)
	lasting(s)
	if !s.Paths[0].LastLook.Equal(psAgo(time.Hour).Time) {
		t.Error("the snapshot was changed")
	}
}
