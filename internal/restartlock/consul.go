package restartlock

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

const (
	// sessionTTL is how long a session lives without a renewal, at least: Consul ends it after one to two of these. The shortest that
	// Consul takes is 10s, if nobody has changed session_ttl_min.
	sessionTTL = 15 * time.Second
	// lockDelay is how long a place stays nobody's after its holder's session has ended by itself; Consul's own default. The holder may
	// be cut off rather than dead, and then has this long to notice. A place that is given back has no delay.
	lockDelay = 15 * time.Second
)

// consul keeps the places as keys that a session holds.
// https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions
type consul struct {
	peer
	settings
	key      string // of the lock; each place has one below it
	identity string
	ttl      time.Duration
	delay    time.Duration // lockDelay, but in tests
	session  string        // there is one only while a place is taken and held
	held     bool          // it is known to hold a place
}

// Name is "consul:NAME".
func (e *consul) Name() string { return e.peer.name }

// Lifetime is the TTL of the session, the least that Consul promises.
func (e *consul) Lifetime() time.Duration { return e.ttl }

func (e *consul) place(n int) string { return e.key + "/" + strconv.Itoa(n) }

func (e *consul) outcomesKey() string { return e.key + "/outcomes" }

// pair is a key with its value, as Consul writes it.
type pair struct {
	Value       []byte
	Session     string
	ModifyIndex uint64
}

// holding is the value of a place's key, for people.
type holding struct {
	Holder string    `json:"holder"`
	Since  time.Time `json:"since"`
}

// call sends a request and returns the answer of status 200, or of 404 where absent is allowed.
func (e *consul) call(ctx context.Context, what, method, path string, query url.Values, body []byte) (answer, error) {
	token, err := e.credential()
	if err != nil {
		return answer{}, err
	}
	a, err := e.ask(ctx, what, method, path, e.scoped(query), body, func(h http.Header) { e.sign(h, token) })
	switch {
	case err != nil || a.status == http.StatusOK || a.status == http.StatusNotFound:
		return a, err
	case a.status == http.StatusUnauthorized:
		return a, e.fault(fault.BadToken, what, "HTTP 401 from "+e.base.Host, "what stands before Consul wants other credentials: CONSUL_HTTP_AUTH")
	case a.status == http.StatusForbidden:
		return a, e.denied(what, path, a.body)
	case a.status == http.StatusBadRequest && bytes.Contains(a.body, []byte("Enterprise")):
		return a, e.fault(fault.Usage, what, "this Consul has no namespaces and partitions", "unset CONSUL_NAMESPACE and CONSUL_PARTITION")
	}
	return a, e.failed(what, a)
}

// denied names the rule that is missing. Consul says "ACL not found" of a token that it does not know.
func (e *consul) denied(what, path string, body []byte) error {
	if bytes.Contains(body, []byte("ACL not found")) {
		return e.fault(fault.BadToken, what, "Consul does not know the token", "give another one in CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE")
	}
	resource, rule := "the keys", `key_prefix "`+e.key+`/" { policy = "write" }`
	if isSession(path) {
		resource, rule = "sessions", `session_prefix "" { policy = "write" }`
	}
	hint := "add to its policy: " + rule
	if !e.hasToken() {
		hint = "give one in CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE, with a policy that has: " + rule
	}
	return e.fault(fault.Denied, what, "the token does not allow it for "+resource, hint)
}

// read reads a key. The second result is false when there is none.
func (e *consul) read(ctx context.Context, what, key string) (pair, bool, error) {
	a, err := e.call(ctx, what, http.MethodGet, "/v1/kv/"+key, nil, nil)
	switch {
	case err != nil:
		return pair{}, false, err
	case a.status == http.StatusNotFound && a.header.Get("X-Consul-Index") != "":
		return pair{}, false, nil
	case a.status == http.StatusNotFound:
		return pair{}, false, e.foreign(what, "HTTP 404")
	}
	var list []pair
	if json.Unmarshal(a.body, &list) != nil || len(list) != 1 {
		return pair{}, false, e.foreign(what, "no key in the answer")
	}
	return list[0], true, nil
}

// write writes a key, under a condition that Consul says the outcome of.
func (e *consul) write(ctx context.Context, what, key, condition, of string, value []byte) (bool, error) {
	a, err := e.call(ctx, what, http.MethodPut, "/v1/kv/"+key, url.Values{condition: {of}}, value)
	if err != nil {
		return false, err
	}
	switch said := string(bytes.TrimSpace(a.body)); {
	case a.status == http.StatusOK && said == "true":
		return true, nil
	case a.status == http.StatusOK && said == "false":
		return false, nil
	}
	return false, e.foreign(what, "neither true nor false in the answer")
}

// start makes a session.
//
// It has no checks, so that it lives by its renewals alone. With Consul's default, serfHealth, it would also end when the servers lose
// sight of the agent that made it, by a packet of UDP or two, or by an update of the agent, while the holder lives and restarts its
// command. What serfHealth gains is some seconds after the death of a whole machine.
func (e *consul) start(ctx context.Context, what string) error {
	a, err := e.call(ctx, what, http.MethodPut, "/v1/session/create", nil, raw(map[string]any{
		"Name": "vaultexec restart lock " + e.key, "TTL": e.ttl.String(), "LockDelay": e.delay.String(),
		"Behavior": "release", "NodeChecks": []string{},
	}))
	if err != nil {
		return err
	}
	var made struct{ ID string }
	if json.Unmarshal(a.body, &made) != nil || !isID(made.ID) {
		return e.foreign(what, "no session in the answer")
	}
	e.session = made.ID
	return nil
}

// end ends the session. One that holds nothing takes nothing with it; one that is not ended ends by its TTL.
func (e *consul) end(ctx context.Context, what string) error {
	id := e.session
	if id == "" {
		return nil
	}
	e.session, e.held = "", false
	_, err := e.call(ctx, what, http.MethodPut, "/v1/session/destroy/"+id, nil, nil)
	return err
}

// Look reads the key of the place.
func (e *consul) Look(ctx context.Context, place int) (View, error) {
	p, _, err := e.read(ctx, whatLook, e.place(place))
	if err != nil {
		return View{}, err
	}
	if p.Session == "" || p.Session == e.session && !e.held { // taken by a request whose answer was lost
		return View{Free: true}, nil
	}
	var h holding
	_ = json.Unmarshal(p.Value, &h) // somebody else may hold it for something else
	if h.Holder == "" {
		h.Holder = "session " + p.Session
	}
	return View{Holder: cut(h.Holder, mostName+identityMore)}, nil
}

// Take makes a session and has it acquire the key. After a failure nobody knows whether it has: then the session stays, and the next
// Take with it is either the same one or the first one.
func (e *consul) Take(ctx context.Context, place int) (bool, error) {
	if e.session != "" {
		renewed, err := e.renew(ctx, whatTake)
		if err != nil {
			return false, err
		}
		if !renewed {
			e.session = ""
		}
	}
	if e.session == "" {
		if err := e.start(ctx, whatTake); err != nil {
			return false, err
		}
	}
	taken, err := e.write(ctx, whatTake, e.place(place), "acquire", e.session, raw(holding{e.identity, time.Now().UTC().Truncate(time.Second)}))
	if err == nil && !taken {
		_ = e.end(ctx, whatTake)
	}
	e.held = taken
	return taken, err
}

// renew renews the session. false: there is no such session any more.
func (e *consul) renew(ctx context.Context, what string) (bool, error) {
	a, err := e.call(ctx, what, http.MethodPut, "/v1/session/renew/"+e.session, nil, nil)
	if err != nil || a.status == http.StatusNotFound {
		return false, err
	}
	var list []struct{ ID string }
	if json.Unmarshal(a.body, &list) != nil || len(list) != 1 || list[0].ID != e.session {
		return false, e.foreign(what, "no session in the answer")
	}
	return true, nil
}

// Renew renews the session and sees whether the key is still its own: an operator may have released it, or deleted it.
func (e *consul) Renew(ctx context.Context, place int) error {
	if e.session == "" {
		return ErrLost
	}
	renewed, err := e.renew(ctx, whatRenew)
	if err != nil {
		return err
	}
	if !renewed {
		e.session, e.held = "", false
		return ErrLost
	}
	p, _, err := e.read(ctx, whatRenew, e.place(place))
	if err == nil && p.Session != e.session {
		_ = e.end(ctx, whatRenew)
		return ErrLost
	}
	return err
}

// Release gives the key back before it ends the session: a session that ends with a key leaves the lock delay behind.
func (e *consul) Release(ctx context.Context, place int) error {
	if e.session == "" {
		return nil
	}
	if _, err := e.write(ctx, whatRelease, e.place(place), "release", e.session, nil); err != nil {
		return err
	}
	_ = e.end(ctx, whatRelease) // the place is free by now
	return nil
}

// Outcomes reads the key beside the places.
func (e *consul) Outcomes(ctx context.Context) ([]Outcome, error) {
	p, _, err := e.read(ctx, whatOutcomes, e.outcomesKey())
	return outcomes(p.Value), err
}

// Leave writes that key anew, if nobody else has meanwhile.
func (e *consul) Leave(ctx context.Context, o Outcome) error {
	for range mostTries {
		p, _, err := e.read(ctx, whatLeave, e.outcomesKey())
		if err != nil {
			return err
		}
		// Index 0 is a key that there is not.
		written, err := e.write(ctx, whatLeave, e.outcomesKey(), "cas", strconv.FormatUint(p.ModifyIndex, 10), added(p.Value, o))
		if err != nil || written {
			return err
		}
	}
	return e.fault(fault.Away, whatLeave, "others change it all the time", "look who does: consul kv get -detailed "+e.outcomesKey())
}

// Check reads the key, makes and ends a session, and asks for the key to be written if it is of an index that no key has: the token has
// to allow that before Consul compares.
func (e *consul) Check(ctx context.Context, place int) error {
	if _, _, err := e.read(ctx, whatCheck, e.place(place)); err != nil {
		return err
	}
	if _, err := e.write(ctx, whatCheck, e.place(place), "cas", strconv.FormatUint(math.MaxInt64, 10), nil); err != nil {
		return err
	}
	session, held := e.session, e.held
	if err := e.start(ctx, whatCheck); err != nil {
		return err
	}
	err := e.end(ctx, whatCheck)
	e.session, e.held = session, held
	return err
}
