package fleet

import (
	"slices"
	"strconv"
	"testing"

	"github.com/agenticverz/vaultexec/internal/enginetest"
)

// leases is a lock in Kubernetes.
type leases struct {
	k         *enginetest.Kubernetes
	pod       *enginetest.Account
	namespace string
	limit     int
}

func newLeases(t *testing.T, k *enginetest.Kubernetes, limit int) lock {
	t.Helper()
	l := &leases{k: k, namespace: k.Namespace(t), limit: limit}
	k.Leases(t, l.namespace, "api", limit)
	l.pod = k.Account(t, l.namespace, enginetest.Rule("api", limit))
	return l
}

func (l *leases) url() string    { return "kubernetes:api" }
func (l *leases) env() []string  { return l.pod.Env }
func (l *leases) engine() engine { return l.k }
func (l *leases) args() []string {
	return []string{"--restart-limit", strconv.Itoa(l.limit), "--service-account", l.pod.Dir}
}

func (l *leases) holders() []string {
	list, _ := l.k.Holders(l.namespace, "api", l.limit) // while it is away nobody can tell
	return held(list)
}

// sessions is a lock in Consul.
type sessions struct {
	c     *enginetest.Consul
	name  string
	token string
	limit int
}

func newSessions(t *testing.T, c *enginetest.Consul, limit int) lock {
	t.Helper()
	s := &sessions{c: c, name: c.Name(), limit: limit}
	s.token = c.Token(t, enginetest.Policy(s.name))
	return s
}

func (s *sessions) url() string    { return "consul:" + s.name }
func (s *sessions) env() []string  { return s.c.Env(s.token) }
func (s *sessions) engine() engine { return s.c }
func (s *sessions) args() []string { return []string{"--restart-limit", strconv.Itoa(s.limit)} }

func (s *sessions) holders() []string {
	list, _ := s.c.Holders(s.name, s.limit)
	return held(list)
}

// held are the places that somebody has.
func held(list []string) []string {
	return slices.DeleteFunc(list, func(by string) bool { return by == "" })
}

// onEach runs a test with a lock in each engine. alone asks for a server of the test's own, which it may stop.
func onEach(t *testing.T, limit int, alone bool, f func(t *testing.T, l lock)) {
	t.Run("kubernetes", func(t *testing.T) {
		t.Parallel()
		if alone {
			f(t, newLeases(t, enginetest.NewKubernetes(t), limit))
			return
		}
		f(t, newLeases(t, enginetest.SharedKubernetes(t), limit))
	})
	t.Run("consul", func(t *testing.T) {
		t.Parallel()
		if alone {
			f(t, newSessions(t, enginetest.NewConsul(t), limit))
			return
		}
		f(t, newSessions(t, enginetest.SharedConsul(t), limit))
	})
}
