package launcher

import (
	"maps"
	"slices"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/statusserver"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// What the watcher tells the main goroutine for --status: every look, not only those with news. Without --status there is no
// book, and nothing is kept.

// view is what the watcher knows. It is never changed after it was sent.
type view struct {
	paths    map[vault.Path]glance
	order    []vault.Path
	leases   []leaseEnd
	refused  []string
	failures map[string]int // by kind
}

// glance is what looks have found out about one path.
type glance struct {
	newest  vault.Marker
	watched bool
	looked  time.Time // the last time that Vault answered; zero for never
	failure *statusserver.Failure
	failing bool
}

// leaseEnd is when the present lease of a path ends.
type leaseEnd struct {
	path vault.Path
	ends time.Time
}

// lookBook records looks and their results. It belongs to the watcher's goroutine. All methods of a nil one do nothing.
type lookBook struct {
	out      chan *view // holds the newest
	clean    func(string) string
	looks    map[vault.Path]glance
	failures map[string]int
}

func newLookBook(out chan *view, clean func(string) string) *lookBook {
	return &lookBook{out: out, clean: clean, looks: map[vault.Path]glance{}, failures: map[string]int{}}
}

// note records the result of a look at a path, or of a read of it.
func (b *lookBook) note(p vault.Path, err error, now time.Time) {
	if b == nil {
		return
	}
	g := b.looks[p]
	if err == nil {
		g.looked, g.failing = now, false
	} else {
		g.failure, g.failing = failureOf(fault.Of(err), now, b.clean), true
		b.failures[g.failure.Kind]++
	}
	b.looks[p] = g
}

// failureOf is a failure as --status shows it.
func failureOf(f *fault.Error, at time.Time, clean func(string) string) *statusserver.Failure {
	return &statusserver.Failure{At: statusserver.At(at), Kind: statusserver.KindOf(f.Kind.String()), Text: clean(f.Error())}
}

// show sends a view. It replaces an older one that was not taken yet.
func (b *lookBook) show(w *watcher) {
	if b == nil {
		return
	}
	v := &view{paths: map[vault.Path]glance{}, failures: maps.Clone(b.failures)}
	for _, r := range w.records.all() {
		g := b.looks[r.path]
		g.newest, g.watched = r.newest, w.watches() && r.watched()
		g.failing = g.failing || r.trouble.err != nil
		if f := r.trouble.err; f != nil && g.failure == nil {
			g.failure = failureOf(fault.Of(f), time.Now(), b.clean)
		}
		v.paths[r.path] = g
		v.order = append(v.order, r.path)
		if r.lease != nil {
			v.leases = append(v.leases, leaseEnd{r.path, r.lease.ends})
		}
	}
	for p := range b.looks { // a secret that has left its folder
		if _, there := v.paths[p]; !there {
			delete(b.looks, p)
		}
	}
	for text := range w.refused {
		v.refused = append(v.refused, b.clean(text))
	}
	slices.Sort(v.refused)
	select {
	case <-b.out:
	default:
	}
	b.out <- v // nobody else sends
}
