package restartlock

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

const (
	// leaseLifetime is that of client-go's leader election.
	leaseLifetime = 15 * time.Second
	// outcomesKey is an annotation of the Lease of place 0.
	outcomesKey = "vaultexec.io/outcomes"
	// microTime is how Kubernetes writes its MicroTime.
	microTime = "2006-01-02T15:04:05.000000Z07:00"
	manifest  = "deploy/kubernetes-restart-lock.yaml"
)

// leases keeps the places as Leases of coordination.k8s.io/v1, as client-go's leader election does. Others who hold one that way, and
// who look at it, see nothing new.
type leases struct {
	peer
	name, namespace string
	folder          string // the pod's service account
	allow           []int
	identity        string
	lifetime        time.Duration
	places          map[int]*sight
}

// sight is what this process knows of a place.
type sight struct {
	lease
	since time.Time // when its spec was first seen as it is, by the clock of this process
	held  bool
}

// lease is a Lease: the whole object as it was read, so that what others have written into it stays.
type lease struct {
	object, meta, spec map[string]json.RawMessage
}

func openKubernetes(s Spec, env func(string) string, folder string, allow []int) (Engine, error) {
	const outside = "a pod with a service account has this file; with automountServiceAccountToken: false, --service-account names its folder"
	e := &leases{name: s.Name, namespace: s.Namespace, folder: folder, allow: allow, identity: newIdentity(),
		lifetime: leaseLifetime, places: map[int]*sight{}}
	e.peer.name = s.String()
	e.who, e.ca = "the API server of Kubernetes", filepath.Join(folder, "ca.crt")
	host, port := env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, e.unusable("--restart-lock", "KUBERNETES_SERVICE_HOST or _PORT is not set", "every pod has them; outside of Kubernetes a fleet can use consul:NAME")
	}
	e.base = &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
	if e.namespace == "" {
		b, err := e.readFile(filepath.Join(folder, "namespace"), outside, allow)
		if err != nil {
			return nil, err
		}
		e.namespace = strings.TrimSpace(string(b))
		if !looksLike(label, e.namespace) {
			return nil, e.unusable(strconv.Quote(filepath.Join(folder, "namespace")), "it holds no namespace", "name it: kubernetes:NAMESPACE/"+s.Name)
		}
		e.peer.name = Spec{s.Scheme, e.namespace, s.Name}.String()
	}
	e.dial = func() (*http.Transport, error) {
		pool := x509.NewCertPool() // those of the system do not count
		if err := e.roots(pool, e.ca, outside, allow); err != nil {
			return nil, err
		}
		return &http.Transport{DialContext: (&net.Dialer{Timeout: dialLimit}).DialContext,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}}, nil
	}
	if _, err := e.token(); err != nil {
		return nil, err
	}
	return e, e.open()
}

// token reads the token, which kubelet replaces about every hour.
func (e *leases) token() (secret, error) {
	b, err := e.readFile(filepath.Join(e.folder, "token"), "the pod has no service account's token", e.allow)
	if err != nil {
		return secret{}, err
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		f := e.unusable(strconv.Quote(filepath.Join(e.folder, "token")), "it holds no token", "kubelet writes one there")
		f.Passing = token == ""
		return secret{}, f
	}
	return newSecret(token), nil
}

// Name is "kubernetes:NAMESPACE/NAME".
func (e *leases) Name() string { return e.peer.name }

// Lifetime is leaseDurationSeconds.
func (e *leases) Lifetime() time.Duration { return e.lifetime }

func (e *leases) leaseName(place int) string { return e.name + "-" + strconv.Itoa(place) }

// call sends a request for a Lease. found is false when somebody else has changed the object meanwhile.
func (e *leases) call(ctx context.Context, what, method string, place int, query url.Values, l lease) (got lease, found bool, err error) {
	token, err := e.token()
	if err != nil {
		return lease{}, false, err
	}
	var body []byte
	if method == http.MethodPut {
		body = l.encode()
	}
	name := e.leaseName(place)
	path := "/apis/coordination.k8s.io/v1/namespaces/" + e.namespace + "/leases/" + name
	a, err := e.ask(ctx, what, method, path, query, body, func(h http.Header) { h.Set("Authorization", "Bearer "+token.reveal()) })
	switch {
	case err != nil:
		return lease{}, false, err
	case a.status == http.StatusOK:
		if got, err := decodeLease(a.body, name); err == nil {
			return got, true, nil
		}
		return lease{}, false, e.foreign(what, "no Lease in the answer")
	}
	var status struct{ Kind, Message string }
	if json.Unmarshal(a.body, &status) != nil || status.Kind != "Status" {
		return lease{}, false, e.failed(what, a)
	}
	switch a.status {
	case http.StatusConflict:
		return lease{}, false, nil
	case http.StatusUnauthorized:
		err = e.fault(fault.BadToken, what, "the API server does not take the token of the service account",
			filepath.Join(e.folder, "token")+" must be of this cluster; kubelet replaces it before it ends")
	case http.StatusForbidden:
		err = e.denied(what, method, name, status.Message)
	case http.StatusNotFound:
		err = e.fault(fault.Missing, what, "there is no Lease "+name+" in the namespace "+e.namespace,
			"apply "+manifest+", which makes one for each place, with this name and namespace")
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		err = e.fault(fault.Usage, what, "the API server does not take the Lease "+name, "make it anew from "+manifest)
	default:
		err = e.failed(what, a)
	}
	return lease{}, false, err
}

// denied names the rule that is missing.
func (e *leases) denied(what, method, name, message string) error {
	verb := "get"
	if method == http.MethodPut {
		verb = "update"
	}
	hint := "add to its Role in " + e.namespace + `: {apiGroups: ["coordination.k8s.io"], resources: ["leases"], resourceNames: ["` + name +
		`"], verbs: ["` + verb + `"]}`
	if !strings.Contains(message, "cannot "+verb+" resource") { // the words of the authorizer; admission has others
		hint = "an admission policy of the cluster forbids it, and no Role helps"
	}
	return e.fault(fault.Denied, what, "the service account may not "+verb+" the Lease "+name, hint)
}

// see takes in a Lease that was read or written.
//
// A place is free when its holder has said nothing for as long as it promised, by the clock of this process alone: clocks differ, so
// renewTime is only compared with itself. What counts is the spec, as for client-go. Who writes an annotation does not renew.
func (e *leases) see(place int, l lease) *sight {
	s := e.places[place]
	if s == nil || string(s.object["spec"]) != string(l.object["spec"]) {
		s = &sight{lease: l, since: time.Now()}
		e.places[place] = s
	}
	s.lease = l
	s.held = s.held && l.holder() == e.identity
	return s
}

const (
	whatLook     = "look at the restart lock"
	whatTake     = "take a place of the restart lock"
	whatRenew    = "renew a place of the restart lock"
	whatRelease  = "give back a place of the restart lock"
	whatOutcomes = "read the outcomes at the restart lock"
	whatLeave    = "leave an outcome at the restart lock"
	whatCheck    = "use the restart lock"
)

// Look reads the Lease.
func (e *leases) Look(ctx context.Context, place int) (View, error) {
	l, _, err := e.call(ctx, whatLook, http.MethodGet, place, nil, lease{})
	if err != nil {
		return View{}, err
	}
	s := e.see(place, l)
	return View{Holder: cut(l.holder(), mostName+identityMore), Free: s.isFree(e)}, nil
}

// isFree includes a place that is this process's own without its knowledge: a request to take it whose answer was lost.
func (s *sight) isFree(e *leases) bool {
	holder := s.holder()
	return holder == "" || holder == e.identity && !s.held || time.Since(s.since) >= s.promised(e.lifetime)
}

// Take writes this process into the Lease that was last read.
func (e *leases) Take(ctx context.Context, place int) (bool, error) {
	s := e.places[place]
	if s == nil || !s.isFree(e) {
		return false, nil
	}
	now := time.Now()
	l := s.lease.with(map[string]any{
		"holderIdentity": e.identity, "leaseDurationSeconds": seconds(e.lifetime), "leaseTransitions": s.number("leaseTransitions") + 1,
		"acquireTime": stamp(now), "renewTime": stamp(now),
	})
	l, done, err := e.call(ctx, whatTake, http.MethodPut, place, nil, l)
	if err != nil || !done {
		delete(e.places, place) // after a failure it may be taken after all: it has to be read again
		return false, err
	}
	e.see(place, l).held = true
	return true, nil
}

// Renew writes a new renewTime.
func (e *leases) Renew(ctx context.Context, place int) error {
	done, err := e.change(ctx, whatRenew, place, func() map[string]any {
		return map[string]any{"leaseDurationSeconds": seconds(e.lifetime), "renewTime": stamp(time.Now())}
	})
	switch {
	case fault.Is(err, fault.Missing): // somebody has deleted it, and with it the place
		return ErrLost
	case err == nil && !done:
		return ErrLost
	}
	return err
}

// Release does what client-go does with ReleaseOnCancel.
func (e *leases) Release(ctx context.Context, place int) error {
	_, err := e.change(ctx, whatRelease, place, func() map[string]any {
		now := stamp(time.Now())
		return map[string]any{"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
	})
	if fault.Is(err, fault.Missing) {
		return nil
	}
	return err
}

// change changes the spec of a place that this process holds. false: it does not. Somebody who has changed something else in the object
// has not taken the place, so it is read again then.
func (e *leases) change(ctx context.Context, what string, place int, spec func() map[string]any) (bool, error) {
	s := e.places[place]
	for range mostTries {
		if s == nil {
			l, _, err := e.call(ctx, what, http.MethodGet, place, nil, lease{})
			if err != nil {
				return false, err
			}
			s = e.see(place, l)
		}
		if s.holder() != e.identity {
			return false, nil
		}
		l, done, err := e.call(ctx, what, http.MethodPut, place, nil, s.lease.with(spec()))
		if err != nil {
			return false, err
		}
		if done {
			e.see(place, l)
			return true, nil
		}
		s = nil
	}
	return false, e.crowded(what)
}

func (e *leases) crowded(what string) error {
	return e.fault(fault.Away, what, "others change it all the time", "look who does: kubectl get lease --watch")
}

// Outcomes reads the annotation of place 0.
func (e *leases) Outcomes(ctx context.Context) ([]Outcome, error) {
	l, _, err := e.call(ctx, whatOutcomes, http.MethodGet, 0, nil, lease{})
	if err != nil {
		return nil, err
	}
	return outcomes([]byte(l.annotations()[outcomesKey])), nil
}

// Leave writes the annotation anew.
func (e *leases) Leave(ctx context.Context, o Outcome) error {
	for range mostTries {
		l, _, err := e.call(ctx, whatLeave, http.MethodGet, 0, nil, lease{})
		if err != nil {
			return err
		}
		l, done, err := e.call(ctx, whatLeave, http.MethodPut, 0, nil, l.annotated(outcomesKey, string(added([]byte(l.annotations()[outcomesKey]), o))))
		if err != nil {
			return err
		}
		if done {
			e.see(0, l) // with its new version: the next renewal goes by it
			return nil
		}
	}
	return e.crowded(whatLeave)
}

// Check reads the Lease and has the API server try to write it as it is.
func (e *leases) Check(ctx context.Context, place int) error {
	l, _, err := e.call(ctx, whatCheck, http.MethodGet, place, nil, lease{})
	if err != nil {
		return err
	}
	_, _, err = e.call(ctx, whatCheck, http.MethodPut, place, url.Values{"dryRun": {"All"}}, l)
	return err
}

func seconds(d time.Duration) int { return int(max(d, time.Second) / time.Second) }

func stamp(t time.Time) string { return t.UTC().Format(microTime) }
