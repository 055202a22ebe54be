package vault

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

func away(why string) error { return &fault.Error{Kind: fault.Away, What: "cannot read m/p", Why: why} }

// TestPatience: how often, for how long, and what is said.
func TestPatience(t *testing.T) {
	denied := &fault.Error{Kind: fault.Denied, What: "cannot read m/p", Why: "no"}
	for _, c := range []struct {
		name     string
		wait     time.Duration
		fails    int // attempts that fail, then success
		with     error
		attempts int
		took     [2]time.Duration
		why      string // of the failure; "" for success
		notices  int
	}{
		{"success", time.Minute, 0, nil, 1, [2]time.Duration{0, 0}, "", 0},
		{"one attempt", 0, 9, away("gone"), 1, [2]time.Duration{0, 0}, "gone", 0},
		{"permanent", time.Minute, 9, denied, 1, [2]time.Duration{0, 0}, "no", 0},
		{"one of several permanent", time.Minute, 9, fault.List{away("gone").(*fault.Error), denied}, 1, [2]time.Duration{0, 0}, "gone", 0},
		{"comes back", time.Minute, 3, away("gone"), 4, [2]time.Duration{350 * time.Millisecond, 750 * time.Millisecond}, "", 1},
		{"gives up", time.Minute, 1 << 30, away("gone"), -1, [2]time.Duration{time.Minute, time.Minute}, "gone, for 1m0s", 1},
		{"shorter than the first delay", 20 * time.Millisecond, 1 << 30, away("gone"), 1, [2]time.Duration{20 * time.Millisecond, 20 * time.Millisecond}, "gone, for 20ms", 1},
		{"for ever", Forever, 1000, away("gone"), 1001, [2]time.Duration{2400 * time.Second, 5000 * time.Second}, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, n, notices := time.Now(), 0, 0
				err := Patience{Wait: c.wait, Notice: func(*fault.Error) { notices++ }}.Do(t.Context(), func(context.Context) error {
					if n++; n <= c.fails {
						return c.with
					}
					return nil
				})
				took := time.Since(begin)
				if c.attempts > 0 && n != c.attempts || c.attempts < 0 && (n < 12 || n > 40) {
					t.Errorf("%d attempts", n)
				}
				if took < c.took[0] || took > c.took[1] {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				if notices != c.notices {
					t.Errorf("%d notices, want %d", notices, c.notices)
				}
				if (err == nil) != (c.why == "") || err != nil && !strings.HasSuffix(fault.All(err)[0].Why, c.why) {
					t.Errorf("%v, want %q", err, c.why)
				}
			})
		})
	}
}

func TestPatienceRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, n := time.Now(), 0
		_ = Patience{Wait: Forever}.Do(t.Context(), func(context.Context) error {
			if n++; n == 1 {
				return &fault.Error{Kind: fault.Away, RetryAfter: 90 * time.Second}
			}
			return nil
		})
		if took := time.Since(begin); took != 90*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestPatienceCancelled: who does not want to wait any more does not.
func TestPatienceCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		begin := time.Now()
		err := Patience{Wait: Forever}.Do(ctx, func(context.Context) error { return away("gone") })
		if took := time.Since(begin); took != 7*time.Second || fault.Of(err).Why != "gone" {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// TestPatienceShared: the time that the login took is gone for the reading.
func TestPatienceShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Patience{Wait: 10 * time.Second, Start: time.Now()}
		begin := time.Now()
		time.Sleep(8 * time.Second)
		if err := p.Do(t.Context(), func(context.Context) error { return away("gone") }); err == nil || time.Since(begin) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// TestPatienceNewCause: a new cause is told, and the end names the cause, not the cut-off last attempt.
func TestPatienceNewCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		n := 0
		err := Patience{Wait: 30 * time.Second, Notice: func(f *fault.Error) { told = append(told, f.Why) }}.Do(t.Context(), func(ctx context.Context) error {
			if n++; n < 3 {
				return away("refused")
			}
			if n < 5 {
				return away("sealed")
			}
			<-ctx.Done()
			return away("no answer in time")
		})
		if strings.Join(told, " ") != "refused sealed" || fault.Of(err).Why != "sealed, for 30s" {
			t.Errorf("told %q, %v", told, err)
		}
	})
}

func TestBackoff(t *testing.T) {
	for n := 1; n < 200; n++ {
		limit := min(firstDelay<<min(n-1, 20), lastDelay)
		for range 20 {
			if d := backoff(n); d < limit/2 || d > limit+1 {
				t.Fatalf("backoff(%d) = %v, want between %v and %v", n, d, limit/2, limit)
			}
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for h, want := range map[string]time.Duration{
			"": 0, "0": 0, "-5": 0, "7": 7 * time.Second, "999999": time.Hour, "soon": 0, "1.5": 0,
			time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat): 30 * time.Second,
			time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):       0,
			time.Now().Add(48 * time.Hour).UTC().Format(http.TimeFormat):   time.Hour,
		} {
			if got := retryAfter(&http.Response{Header: http.Header{"Retry-After": {h}}}); got != want {
				t.Errorf("Retry-After %q means %v, want %v", h, got, want)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	names := []string{"app-prod", "database", "external-apis", "folder/"}
	for in, want := range map[string]string{"app-prd": "app-prod", "databse": "database", "DATABASE": "database", "foldr": "folder/", "zzz": "", "": "", "keycloak": ""} {
		if got := Nearest(in, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestRulesHaveTexts: every rule of the tables has a kind, and says something or leaves it to the server.
func TestRulesHaveTexts(t *testing.T) {
	for _, r := range append(append([]rule{}, answers...), logins...) {
		if r.kind == 0 || r.status < 400 {
			t.Errorf("%+v", r)
		}
	}
	if !errors.Is(&fault.Error{Err: context.Canceled}, context.Canceled) {
		t.Error("a cause is not found")
	}
}
