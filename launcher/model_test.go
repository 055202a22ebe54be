package launcher

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// model is what a Vault does as far as this test needs it: versions, logins, leases that end with their tokens, refusals,
// outages, snapshots. It runs on the clock of a bubble.
type model struct {
	mu     sync.Mutex
	rnd    *rand.Rand
	kv     map[string][]modelVersion
	denied map[string]bool // "kv/a", "db/creds/app"
	away   bool
	noRole bool
	tokens map[string]time.Time // when they end
	leases map[string]*modelLease
	saved  *model // a snapshot

	count    int
	made     []time.Time // when credentials were
	requests int
}

type modelVersion struct {
	value   string
	created time.Time
	gone    bool
}

type modelLease struct {
	token        string
	ends, latest time.Time
}

const (
	modelTTL      = 5 * time.Minute
	modelMaxTTL   = 15 * time.Minute
	modelTokenTTL = 20 * time.Minute
)

func newModel(rnd *rand.Rand) *model {
	return &model{rnd: rnd, kv: map[string][]modelVersion{}, denied: map[string]bool{}, tokens: map[string]time.Time{},
		leases: map[string]*modelLease{}}
}

func (m *model) put(path, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kv[path] = append(m.kv[path], modelVersion{value: value, created: time.Now()})
}

// change does something to the model.
func (m *model) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// snapshot keeps the state of now; restore brings it back, and forgets what was made since.
func (m *model) snapshot() {
	c := &model{kv: map[string][]modelVersion{}, leases: map[string]*modelLease{}}
	for p, v := range m.kv {
		c.kv[p] = append([]modelVersion(nil), v...)
	}
	for id, l := range m.leases {
		copied := *l
		c.leases[id] = &copied
	}
	m.saved = c
}

func (m *model) restore() {
	if m.saved != nil {
		m.kv, m.leases, m.saved = m.saved.kv, m.saved.leases, nil
	}
}

// alive reports whether the credentials of a lease work.
func (m *model) alive(id string) bool {
	l := m.leases[id]
	return l != nil && time.Now().Before(l.ends) && time.Now().Before(m.tokens[l.token])
}

func (m *model) isAlive(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alive(id)
}

func (m *model) howMany() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for id := range m.leases {
		if m.alive(id) {
			n++
		}
	}
	return n
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	status, answer := m.answer(r.Method, strings.TrimPrefix(r.URL.Path, "/v1/"), r.Header.Get("X-Vault-Token"), body)
	w.WriteHeader(status)
	if answer != nil {
		answer["request_id"] = "x"
		_ = json.NewEncoder(w).Encode(answer)
	}
}

type obj = map[string]any

func failure(text string) obj { return obj{"errors": []string{text}} }

const policyDenial = "1 error occurred:\n\t* permission denied\n\n"

func (m *model) answer(method, path, token string, body obj) (int, obj) {
	m.requests++
	now := time.Now()
	if m.away {
		return 503, failure("Vault is sealed")
	}
	if path == "auth/approle/login" {
		m.count++
		token = fmt.Sprintf("token-%d", m.count)
		m.tokens[token] = now.Add(modelTokenTTL)
		return 200, obj{"auth": obj{"client_token": token, "lease_duration": int(modelTokenTTL / time.Second), "renewable": false, "token_type": "service"}}
	}
	if now.After(m.tokens[token]) {
		return 403, failure("permission denied")
	}
	id, _ := body["lease_id"].(string)
	mount, name, _ := strings.Cut(path, "/")
	switch {
	case path == "auth/token/revoke-self":
		delete(m.tokens, token)
		return 204, nil
	case path == "sys/capabilities-self":
		return 200, obj{"data": obj{"sys/leases/revoke": []string{"update"}}}
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		if strings.HasPrefix(path, "sys/internal/ui/mounts/db/") {
			return 200, obj{"data": obj{"path": "db/", "type": "database"}}
		}
		return 200, obj{"data": obj{"path": "kv/", "type": "kv", "options": obj{"version": "2"}}}
	case strings.HasPrefix(path, "sys/leases/"):
		l := m.leases[id]
		switch {
		case l == nil || !m.alive(id):
			return 400, failure("lease not found")
		case path == "sys/leases/revoke":
			delete(m.leases, id)
			return 204, nil
		case path == "sys/leases/lookup":
			return 200, obj{"data": obj{"id": id, "ttl": int(l.ends.Sub(now) / time.Second)}}
		}
		answer := obj{"lease_id": id, "renewable": true}
		l.ends = now.Add(modelTTL)
		if l.ends.After(l.latest) {
			l.ends = l.latest
			answer["warnings"] = []string{"TTL of ... exceeded the effective max_ttl of ...; TTL value is capped accordingly"}
		}
		answer["lease_duration"] = int(l.ends.Sub(now) / time.Second)
		return 200, answer
	case mount == "db":
		if m.denied[path] {
			return 403, failure(policyDenial)
		}
		if m.noRole {
			return 400, failure("unknown role: app")
		}
		m.count++
		id = fmt.Sprintf("db/creds/app/%d", m.count)
		m.leases[id] = &modelLease{token: token, ends: now.Add(modelTTL), latest: now.Add(modelMaxTTL)}
		m.made = append(m.made, now)
		return 200, obj{"lease_id": id, "lease_duration": int(modelTTL / time.Second), "renewable": true, "data": obj{"USER": id}}
	case mount == "kv":
		kind, name, _ := strings.Cut(name, "/")
		if m.denied["kv/"+name] {
			return 403, failure(policyDenial)
		}
		return m.secret(kind, name)
	}
	return 404, failure("no handler for route")
}

func (m *model) secret(kind, name string) (int, obj) {
	list := m.kv[name]
	if len(list) == 0 {
		return 404, obj{"errors": []string{}}
	}
	v := list[len(list)-1]
	deletion := ""
	if v.gone {
		deletion = v.created.Format(time.RFC3339Nano)
	}
	meta := obj{"version": len(list), "created_time": v.created.Format(time.RFC3339Nano), "deletion_time": deletion, "destroyed": false}
	if kind == "metadata" {
		return 200, obj{"data": obj{"current_version": len(list), "versions": obj{fmt.Sprint(len(list)): meta}}}
	}
	if v.gone {
		return 404, obj{"data": obj{"data": nil, "metadata": meta}}
	}
	return 200, obj{"data": obj{"data": obj{strings.ToUpper(name): v.value}, "metadata": meta}}
}
