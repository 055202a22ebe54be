package vault_test

import (
	"sync"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// Connections that die in silence are found out by one attempt, over HTTP/2 as over HTTP/1.1, and whatever stood beside it.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		srv  func(*testing.T) *vaulttest.Server
	}{
		{"HTTP/1.1", func(t *testing.T) *vaulttest.Server { return vaulttest.Dev(t) }},
		{"HTTP/2", func(t *testing.T) *vaulttest.Server { return tlsServer(t, nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := c.srv(t)
			front := vaulttest.NewFreezer(t, srv.Addr)
			client := newClient(t, vault.Config{Address: front.Addr, CACert: srv.CACert, Timeout: 2 * time.Second})
			client.SetToken(vault.NewText(srv.RootToken))
			look := func() error {
				_, err := client.LookupToken(t.Context())
				return err
			}
			var wg sync.WaitGroup
			for range 4 { // several connections over HTTP/1.1
				wg.Go(func() {
					if err := look(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			before := front.Conns()
			front.Freeze()
			refused(t, look(), fault.Away, "no answer in time")
			for range 3 {
				if err := look(); err != nil {
					t.Fatalf("still on a dead connection: %v", err)
				}
			}
			if n := front.Conns() - before; n != 1 {
				t.Errorf("%d new connections, want 1", n)
			}
		})
	}
}

// The wait for one of the connections is not the request's own time: all answers here come in time, and none is late.
func TestTimeoutIsTheRequestsOwn(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	p := vaulttest.NewProxy(t, r.srv)
	p.Set(vaulttest.Delay(700 * time.Millisecond))
	client := newClient(t, vault.Config{Address: p.Addr, Timeout: 2 * time.Second})
	client.SetToken(vault.NewText(r.srv.RootToken))
	if errs := together(100, func() error {
		_, err := client.Read(t.Context(), vault.Path{Mount: r.kv, Name: "app"}, vault.ReadOptions{KVVersion: 2})
		return err
	}); len(errs) > 0 {
		t.Errorf("%d of 100 requests failed: %v", len(errs), errs[0])
	}
}

// A Vault that never answers is no reason to wait for one round after the other.
func TestNoAnswerEndsTheQueue(t *testing.T) {
	t.Parallel()
	p := vaulttest.NewProxy(t, vaulttest.Dev(t))
	p.Set(vaulttest.BlackHole)
	client := newClient(t, vault.Config{Address: p.Addr, Timeout: 500 * time.Millisecond})
	errs := together(200, func() error {
		_, err := client.LookupToken(t.Context())
		return err
	})
	if len(errs) != 200 {
		t.Fatalf("%d of 200 requests failed", len(errs))
	}
	for _, err := range errs {
		refused(t, err, fault.Away, "no answer in time")
	}
	if n := len(p.Requests()); n > 100 {
		t.Errorf("%d requests were sent into the dark", n)
	}
}

func together(n int, f func() error) []error {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := f(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errs
}
