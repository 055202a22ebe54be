package restartlock

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/enginetest"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

type object = map[string]any

func leasePath(ns, name string) string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + ns + "/leases/" + name
}

// A Lease is written as client-go's leader election writes it, and what others have put into it stays.
func TestLeaseOfOthers(t *testing.T) {
	t.Parallel()
	k := enginetest.SharedKubernetes(t)
	ns := k.Namespace(t)
	k.Leases(t, ns, "api", 1)
	pod := k.Account(t, ns, enginetest.Rule("api", 1))
	l := k.Lease(t, ns, "api", 0)
	meta := l["metadata"].(object)
	meta["labels"] = object{"team": "shop"}
	meta["annotations"] = object{"example.com/note": "line <one>\nline \"two\""}
	meta["finalizers"] = []string{"example.com/keep"}
	l["spec"] = object{"leaseTransitions": 41}
	k.Must(t, "PUT", leasePath(ns, "api-0"), l)

	e, ctx := opened(t, "kubernetes:"+ns+"/api", pod.Getenv, pod.Dir), inTime(t)
	if e.Name() != "kubernetes:"+ns+"/api" {
		t.Errorf("its name is %s", e.Name())
	}
	others := func(when string) object {
		t.Helper()
		l := k.Lease(t, ns, "api", 0)
		meta, spec := l["metadata"].(object), l["spec"].(object)
		if meta["labels"].(object)["team"] != "shop" || meta["annotations"].(object)["example.com/note"] != "line <one>\nline \"two\"" ||
			meta["finalizers"].([]any)[0] != "example.com/keep" {
			t.Errorf("%s: %v", when, l)
		}
		return spec
	}
	take(t, e, 0, true)
	spec := others("taken")
	for _, name := range []string{"acquireTime", "renewTime"} {
		if at, err := time.Parse("2006-01-02T15:04:05.000000Z", spec[name].(string)); err != nil || time.Since(at).Abs() > patience {
			t.Errorf("%s is %v", name, spec[name])
		}
	}
	if spec["leaseDurationSeconds"] != 15.0 || spec["leaseTransitions"] != 42.0 || spec["acquireTime"] != spec["renewTime"] {
		t.Errorf("taken: %v", spec)
	}
	must(t, "Renew", e.Renew(ctx, 0))
	renewed := others("renewed")
	if renewed["acquireTime"] != spec["acquireTime"] || renewed["renewTime"] == spec["renewTime"] || renewed["leaseTransitions"] != 42.0 {
		t.Errorf("renewed: %v after %v", renewed, spec)
	}
	// Who writes a label meanwhile does not take the place away.
	l = k.Lease(t, ns, "api", 0)
	l["metadata"].(object)["labels"].(object)["more"] = "x"
	k.Must(t, "PUT", leasePath(ns, "api-0"), l)
	must(t, "Renew", e.Renew(ctx, 0))
	must(t, "Leave", e.Leave(ctx, Outcome{Set: "x"}))
	must(t, "Renew", e.Renew(ctx, 0))
	l = k.Lease(t, ns, "api", 0)
	l["metadata"].(object)["labels"].(object)["more"] = "y"
	k.Must(t, "PUT", leasePath(ns, "api-0"), l)
	must(t, "Release", e.Release(ctx, 0))
	given := others("given back")
	if _, held := given["holderIdentity"]; held && given["holderIdentity"] != "" || given["leaseDurationSeconds"] != 1.0 || given["leaseTransitions"] != 42.0 {
		t.Errorf("given back: %v", given)
	}
	if after := k.Lease(t, ns, "api", 0)["metadata"].(object)["labels"].(object); after["more"] != "y" {
		t.Errorf("labels: %v", after)
	}
}

// So do fields that this program knows nothing of: of a newer Kubernetes, or of one with an alpha feature switched on.
func TestLeaseWithUnknownFields(t *testing.T) {
	t.Parallel()
	const text = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","new":{"a":[1.0,"<"]},"metadata":{"name":"api-0","resourceVersion":"7","newer":12345678901234567890},` +
		`"spec":{"strategy":"OldestEmulationVersion","newest":null,"holderIdentity":"other"}}`
	l, err := decodeLease([]byte(text), "api-0")
	must(t, "decode", err)
	l = l.with(map[string]any{"holderIdentity": "me"}).annotated("vaultexec.io/x", "y")
	const want = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"annotations":{"vaultexec.io/x":"y"},"name":"api-0","newer":12345678901234567890,"resourceVersion":"7"},` +
		`"new":{"a":[1.0,"\u003c"]},"spec":{"holderIdentity":"me","newest":null,"strategy":"OldestEmulationVersion"}}`
	if got := string(l.encode()); got != want {
		t.Errorf("%s", got)
	}
	for _, wrong := range []string{"", "[]", "{}", `{"kind":"Lease"}`, `{"kind":"Lease","metadata":{"name":"api-1","resourceVersion":"7"}}`, `{"kind":"Lease","metadata":{"name":"api-0"}}`,
		`{"kind":"Lease","metadata":{"name":"api-0","resourceVersion":"7"},"spec":"x"}`} {
		if _, err := decodeLease([]byte(wrong), "api-0"); err == nil {
			t.Errorf("a Lease: %s", wrong)
		}
	}
}

// A holder whose clock is an hour off is alive as long as it renews, and dead when it does not: renewTime is not compared with a clock.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	k := enginetest.SharedKubernetes(t)
	for name, off := range map[string]time.Duration{"behind": -time.Hour, "ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := k.Namespace(t)
			k.Leases(t, ns, "api", 1)
			pod := k.Account(t, ns, enginetest.Rule("api", 1))
			e, ctx := opened(t, "kubernetes:api", pod.Getenv, pod.Dir), inTime(t)
			write := func(seconds int) {
				l := k.Lease(t, ns, "api", 0)
				now := stamp(time.Now().Add(off))
				l["spec"] = object{"holderIdentity": "other", "leaseDurationSeconds": seconds, "acquireTime": now, "renewTime": now}
				k.Must(t, "PUT", leasePath(ns, "api-0"), l)
			}
			write(3600)
			if v, err := e.Look(ctx, 0); err != nil || v.Free || v.Holder != "other" {
				t.Fatalf("%+v, %v", v, err)
			}
			take(t, e, 0, false)
			write(1)
			began := time.Now()
			v, err := e.Look(ctx, 0)
			must(t, "Look", err)
			if v.Free && time.Since(began) < time.Second {
				t.Errorf("free %v after the first look at it", time.Since(began))
			}
			wait.Until(t, patience, "the end of the other's second", func() bool {
				v, err := e.Look(ctx, 0)
				must(t, "Look", err)
				// An annotation is no sign of life.
				l := k.Lease(t, ns, "api", 0)
				l["metadata"].(object)["annotations"] = object{"x": time.Now().String()}
				k.Must(t, "PUT", leasePath(ns, "api-0"), l)
				return v.Free
			})
			if waited := time.Since(began); waited < time.Second {
				t.Errorf("free after %v", waited)
			}
			take(t, e, 0, true)
		})
	}
}

// A place that this process has without its knowledge, because the answer was lost, is free for it and for nobody else. One that an
// earlier process of this host has is another's.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	k := enginetest.SharedKubernetes(t)
	ns := k.Namespace(t)
	k.Leases(t, ns, "api", 1)
	pod := k.Account(t, ns, enginetest.Rule("api", 1))
	e, earlier, ctx := opened(t, "kubernetes:api", pod.Getenv, pod.Dir).(*leases), opened(t, "kubernetes:api", pod.Getenv, pod.Dir).(*leases), inTime(t)
	if e.identity == earlier.identity {
		t.Fatal("two processes have one identity")
	}
	take(t, earlier, 0, true)
	if v, err := e.Look(ctx, 0); err != nil || v.Free {
		t.Errorf("of an earlier process: %+v, %v", v, err)
	}
	must(t, "Release", earlier.Release(ctx, 0))
	take(t, e, 0, true)
	e.places = map[int]*sight{} // as after a failure of Take
	if v, err := e.Look(ctx, 0); err != nil || !v.Free {
		t.Errorf("its own: %+v, %v", v, err)
	}
	take(t, e, 0, true)
	e.places = map[int]*sight{}
	must(t, "Release", e.Release(ctx, 0))
	if holders, err := k.Holders(ns, "api", 1); err != nil || holders[0] != "" {
		t.Errorf("%q, %v", holders, err)
	}
}

func TestKubernetesDenies(t *testing.T) {
	t.Parallel()
	k := enginetest.SharedKubernetes(t)
	ns := k.Namespace(t)
	k.Leases(t, ns, "api", 2)
	rule := func(verb string) string {
		return "add to its Role in " + ns + `: {apiGroups: ["coordination.k8s.io"], resources: ["leases"], resourceNames: ["api-1"], verbs: ["` + verb + `"]}`
	}
	for name, c := range map[string]struct {
		rules []map[string]any
		hint  string
	}{
		"no role":       {nil, rule("get")},
		"get alone":     {[]map[string]any{enginetest.Rule("api", 2, "get")}, rule("update")},
		"update alone":  {[]map[string]any{enginetest.Rule("api", 2, "update")}, rule("get")},
		"another place": {[]map[string]any{enginetest.Rule("api", 1)}, rule("get")},
		"both":          {[]map[string]any{enginetest.Rule("api", 2)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := k.Account(t, ns, c.rules...)
			e := opened(t, "kubernetes:api", pod.Getenv, pod.Dir)
			err := e.Check(inTime(t), 1)
			if c.hint == "" {
				must(t, "Check", err)
				return
			}
			if f := fault.Of(err); err == nil || f.Kind != fault.Denied || f.Hint != c.hint || !strings.Contains(f.Error(), "kubernetes:"+ns+"/api") {
				t.Errorf("%v (%s)", err, f.Hint)
			}
			noSecret(t, err)
		})
	}
}

func TestKubernetesRefuses(t *testing.T) {
	t.Parallel()
	k := enginetest.SharedKubernetes(t)
	ns := k.Namespace(t)
	k.Leases(t, ns, "api", 1)
	pod := k.Account(t, ns, enginetest.Rule("api", 3))
	good := k.Account(t, ns, enginetest.Rule("api", 1))
	e, ctx := opened(t, "kubernetes:api", pod.Getenv, pod.Dir), inTime(t)
	must(t, "Check", e.Check(ctx, 0))

	err := e.Check(ctx, 2)
	if f := fault.Of(err); err == nil || f.Kind != fault.Missing || !strings.Contains(f.Why, "api-2") || !strings.Contains(f.Hint, manifest) {
		t.Errorf("without the Lease: %v", err)
	}
	if _, err := os.Stat(filepath.Join("..", "..", manifest)); err != nil {
		t.Errorf("the manifest of the hint: %v", err)
	}

	pod.SetToken(t, "not-a-token")
	_, err = e.Look(ctx, 0)
	if f := fault.Of(err); err == nil || f.Kind != fault.BadToken || f.Hint == "" {
		t.Errorf("with a wrong token: %v", err)
	}
	noSecret(t, err)
	token, err := os.ReadFile(filepath.Join(good.Dir, "token"))
	must(t, "the token", err)
	pod.SetToken(t, string(token)) // read anew
	must(t, "Check with the new token", e.Check(ctx, 0))

	// A CA that is replaced by a wrong one counts from the next connection on, and the right one again.
	ca := filepath.Join(pod.Dir, "ca.crt")
	right, err := os.ReadFile(ca)
	must(t, "the CA", err)
	vaulttest.WriteFile(t, ca, string(vaulttest.NewCA(t, "another CA").PEM), 0o600)
	wrong := opened(t, "kubernetes:api", pod.Getenv, pod.Dir)
	_, err = wrong.Look(ctx, 0)
	if f := fault.Of(err); err == nil || f.Kind != fault.Address || !strings.Contains(f.Why, "is not trusted") || !strings.Contains(f.Hint, "ca.crt") {
		t.Errorf("with a wrong CA: %v", err)
	}
	vaulttest.WriteFile(t, ca, string(right), 0o600)
	_, err = wrong.Look(ctx, 0)
	must(t, "Look with the right CA", err)

	// The Lease that is deleted under a holder is lost.
	take(t, e, 0, true)
	if status, _, err := k.Do("DELETE", leasePath(ns, "api-0"), nil); err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %v", status, err)
	}
	if err := e.Renew(ctx, 0); !errors.Is(err, ErrLost) {
		t.Errorf("Renew: %v", err)
	}
	must(t, "Release", e.Release(ctx, 0))
}

// What is no API server is not believed, whatever it says.
func TestNotKubernetes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		kind    fault.Kind
		after   time.Duration
	}{
		"a page":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>a-marker")) }, fault.Address, 0},
		"another object": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"kind":"Pod","x":"a-marker"}`)) }, fault.Address, 0},
		"another Lease": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"kind":"Lease","metadata":{"name":"a-marker","resourceVersion":"1"}}`))
		}, fault.Address, 0},
		"no answer's end": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, mostAnswer+1)) }, fault.Address, 0},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://a-marker/", http.StatusTemporaryRedirect)
		}, fault.Address, 0},
		"404 of a proxy": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a-marker", 404) }, fault.Address, 0},
		"403 of a proxy": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a-marker", http.StatusForbidden) }, fault.Address, 0},
		"503":            {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a-marker", http.StatusServiceUnavailable) }, fault.Away, 0},
		"too many, by its own word": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
			_, _ = w.Write([]byte(`{"kind":"Status","message":"a-marker"}`))
		}, fault.Away, 7 * time.Second},
		"an admission policy": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = w.Write([]byte(`{"kind":"Status","message":"a-marker"}`))
		}, fault.Denied, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := played(t, c.handler)
			_, err := e.Look(inTime(t), 0)
			f := fault.Of(err)
			if err == nil || f.Kind != c.kind || f.RetryAfter != c.after || strings.Contains(f.Error()+f.Hint, "a-marker") {
				t.Errorf("%v (%s), after %v", err, f.Hint, f.RetryAfter)
			}
		})
	}
}

// An answer that does not end ends with ctx.
func TestAnswerWithoutEnd(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	e := played(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("{"))
		w.(http.Flusher).Flush()
		close(begun)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(inTime(t))
	go func() { <-begun; cancel() }()
	if _, err := e.Look(ctx, 0); !fault.Is(err, fault.Away) || fault.Of(err).Why != "cancelled" {
		t.Errorf("%v", err)
	}
}
