package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Credentials that end by themselves: a real PostgreSQL, Vault's own plugin for it, and a program that opens a new
// connection for every question and so notices a dead password within 50 ms.

// leased is a vaultexec whose command has credentials of PostgreSQL.
type leased struct {
	*watched
	pg *vaulttest.Postgres
	db string // the database engine's mount
}

// Servers for newLeased: the second one can be killed, sealed and restored.
var (
	inMemory = vaulttest.NewDevWithPlugin
	onDisk   = vaulttest.RaftWithPlugin
)

// newLeased starts a PostgreSQL and a Vault. The role app gives credentials for ttl, renewable up to most. The token may
// do what the guide says: read them, renew and revoke their leases; and look them up if lookup is true.
func newLeased(t *testing.T, start func(vaulttest.TB, string) *vaulttest.Server, lookup bool, ttl, most time.Duration) *leased {
	t.Helper()
	needs.Program(t, "postgres")
	needs.Program(t, "initdb")
	l := &leased{watched: watchOn(t, start(t, vaulttest.PostgresPlugin), 2), pg: vaulttest.NewPostgres(t)}
	l.db = l.scope.Name("db")
	l.srv.MountPostgres(t, l.db, l.pg)
	l.srv.PostgresRole(t, l.db, "app", ttl, most)
	l.allow(true, lookup)
	l.env = append(l.env, "PGADDR="+l.pg.Addr)
	return l
}

// allow writes the policy: the KV mount, if kv is true, and the leases.
func (l *leased) allow(kv, lookup bool) {
	l.t.Helper()
	hcl := fmt.Sprintf("path \"%s/creds/*\" { capabilities = [\"read\"] }\npath \"%[1]s/static-creds/*\" { capabilities = [\"read\"] }\n", l.db)
	paths := []string{"sys/leases/renew", "sys/leases/revoke", "sys/capabilities-self"} // the last one as the policy default
	if lookup {
		paths = append(paths, "sys/leases/lookup")
	}
	for _, path := range paths {
		hcl += fmt.Sprintf("path %q { capabilities = [\"update\"] }\n", path)
	}
	if kv {
		hcl += l.rules(true)
	}
	l.srv.Policy(l.t, l.policy, hcl)
}

// run starts vaultexec with the querier and the credentials of the role app.
func (l *leased) run(args ...string) {
	l.t.Helper()
	l.runWith("creds/app", args...)
}

// runWith is run with credentials from elsewhere in the database engine. Later options win.
func (l *leased) runWith(path string, args ...string) {
	l.t.Helper()
	path = "/" + l.db + "/" + path
	all := []string{"--env", "PGUSER=" + path + "#username", "--env", "PGPASSWORD=" + path + "#password",
		"--timeout", "3s", "--log-level", "debug", "--log-format", "json"}
	for option, value := range map[string]string{"--stop-timeout": "2s", "--settle": "100ms", "--min-uptime": "0"} {
		if !slices.Contains(args, option) {
			all = append(all, option, value)
		}
	}
	l.launch(append(append(all, args...), "--", vaulttest.Build(l.t, "e2e/querier"))...)
	l.t.Cleanup(func() { // before launch's own, which looks for secrets in the log
		passwords, _ := os.ReadFile(l.record() + ".passwords")
		vaulttest.Secret(strings.Fields(string(passwords))...)
	})
	l.waitAnswer(1)
}

// waitAnswer waits until the nth command has had an answer from the database.
func (l *leased) waitAnswer(n int) {
	l.t.Helper()
	l.waitStarts(n)
	user := l.starts()[n-1].a
	l.until("an answer for the new credentials", func() bool { return l.noted("asked ", "|"+user) > 0 })
}

// until asks less often than watched's: most conditions here cost a process of PostgreSQL's or a request.
func (l *leased) until(what string, cond func() bool) {
	l.t.Helper()
	l.watched.until(what, seldom(cond))
}

// seldom asks cond 20 times a second at the most.
func seldom(cond func() bool) func() bool {
	var last time.Time
	return func() bool {
		if time.Since(last) < 50*time.Millisecond {
			return false
		}
		last = time.Now()
		return cond()
	}
}

// noted counts the lines of the record that begin and end like this.
func (l *leased) noted(begin, end string) int {
	text, _ := os.ReadFile(l.record())
	n := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, begin) && strings.HasSuffix(line, end) {
			n++
		}
	}
	return n
}

// refusal is a question that was not answered.
type refusal struct {
	at         time.Time
	code, user string
}

// login reports whether it was the login that was refused: for the password, or for a role that goes away just then.
func (r refusal) login() bool { return strings.HasPrefix(r.code, "28") }

func (r refusal) String() string { return r.at.Format(time.TimeOnly) + " " + r.code + " " + r.user }

func (l *leased) failures() (list []refusal) {
	text, _ := os.ReadFile(l.record())
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "fail "); ok {
			f := strings.SplitN(rest, "|", 4)
			at, _ := time.Parse(time.RFC3339Nano, f[0])
			list = append(list, refusal{at, f[1], f[2]})
		}
	}
	return list
}

func (l *leased) wantFailures(n int) {
	l.t.Helper()
	if got := l.failures(); len(got) != n {
		l.t.Errorf("%d questions failed, want %d; the first: %v", len(got), n, got[:min(len(got), 3)])
	}
}

// at is when a command started.
func (s started) at() time.Time {
	at, _ := time.Parse(time.RFC3339Nano, s.c)
	return at
}

// roles lists the roles that Vault has made in the database.
func (l *leased) roles() ([]string, error) {
	rows, err := l.pg.TryQuery("select rolname from pg_roles where rolname like 'v-%' order by oid") // the newest is the last
	var names []string
	for _, row := range rows {
		names = append(names, row[0])
	}
	return names, err
}

// validUntil is when the password of a role ends by the database's own clock.
func (l *leased) validUntil(user string) string {
	l.t.Helper()
	rows := l.pg.Query(l.t, "select rolvaliduntil at time zone 'utc' from pg_roles where rolname = '"+user+"'")
	if len(rows) != 1 {
		return "no such role"
	}
	return rows[0][0]
}

// waitNoRole waits until the database has no role of Vault's.
func (l *leased) waitNoRole() {
	l.t.Helper()
	var left []string
	ok := wait.For(limit, seldom(func() bool {
		roles, err := l.roles()
		left = roles
		return err == nil && len(roles) == 0
	}))
	if !ok {
		l.t.Errorf("the database still has %v", left)
	}
}

// reads counts the requests for new credentials.
func (l *leased) reads() int {
	return l.proxy.Count(func(r vaulttest.Request) bool { return r.Path == l.db+"/creds/app" })
}

// asked counts the requests whose path has this in it.
func (l *leased) asked(path string) int {
	return l.proxy.Count(func(r vaulttest.Request) bool { return strings.Contains(r.Path, path) })
}

// end ends vaultexec, and the querier with 0.
func (l *leased) end() {
	l.t.Helper()
	l.signal(syscall.SIGTERM)
	l.finish("0")
}

// warnings are the lines of the log that somebody is woken up by.
func (l *leased) warnings() (list []string) {
	for _, line := range l.lines("") {
		if level := line.str("level"); level == "WARN" || level == "ERROR" {
			list = append(list, line.str("msg"))
		}
	}
	return list
}

// wantWarnings wants one warning at least and most at the most.
func (l *leased) wantWarnings(most int) {
	l.t.Helper()
	if list := l.warnings(); len(list) == 0 || len(list) > most {
		l.t.Errorf("%d warnings, want 1 to %d:\n%s", len(list), most, vaulttest.Redact(strings.Join(list, "\n")))
	}
}

// sample is what roles there were at a time.
type sample struct {
	at    time.Time
	roles []string
}

// sampling looks at the roles ten times a second until the returned function is called.
func (l *leased) sampling() func() []sample {
	var list []sample
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			at := time.Now()
			if roles, err := l.roles(); err == nil {
				list = append(list, sample{at, roles})
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	once := sync.OnceFunc(func() { close(stop); wg.Wait() })
	l.t.Cleanup(once)
	return func() []sample { once(); return list }
}

// stray looks for a time at which there was a role but those of the command that ran and of its neighbour: the one that
// had just ended, or the one that was about to start. It returns what was wrong, or "".
func stray(samples []sample, starts []started) string {
	for _, s := range samples {
		runs := 0
		for runs+1 < len(starts) && starts[runs+1].at().Before(s.at) {
			runs++
		}
		for i, role := range s.roles {
			of := slices.IndexFunc(starts, func(st started) bool { return st.a == role })
			next := of < 0 && runs == len(starts)-1 && i == len(s.roles)-1 // of a command that was never started
			if !next && (of < runs-1 || of > runs+1) {
				return fmt.Sprintf("at %s, after start %d, there was the role %s of start %d", s.at.Format(time.TimeOnly), runs+1, role, of+1)
			}
		}
		if len(s.roles) > 2 {
			return fmt.Sprintf("at %s there were %d roles", s.at.Format(time.TimeOnly), len(s.roles))
		}
	}
	return ""
}

// TestStray: the check of TestPostgresReplacement sees what it is for.
func TestStray(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	var starts []started
	for i, user := range []string{"a", "b", "c", "d"} {
		starts = append(starts, started{a: user, c: at(10 * i).Format(time.RFC3339Nano)})
	}
	for _, c := range []struct {
		at    int
		roles string
		bad   bool
	}{
		{1, "a", false}, {9, "a b", false}, {11, "a b", false}, {15, "b", false}, {19, "b c", false}, {39, "d", false},
		{45, "d e", false}, {45, "", false},
		{11, "a b c", true}, {21, "a c", true}, {9, "a c", true}, {35, "b d", true}, {15, "b x", true}, {45, "e d", true},
		{45, "c d e", true},
	} {
		samples := []sample{{at(0), []string{"a"}}, {at(c.at), strings.Fields(c.roles)}}
		if got := stray(samples, starts); (got != "") != c.bad {
			t.Errorf("roles %q at %d: %q", c.roles, c.at, got)
		}
	}
}

// replaces runs a command for so long. Its credentials are replaced at least want times, no question fails, there is no role
// but those of the commands, and none at the end.
func (l *leased) replaces(length time.Duration, want int, options ...string) ([]started, []sample) {
	t := l.t
	t.Helper()
	samples := l.sampling()
	begin := time.Now()
	l.run(options...)
	wait.For(length, func() bool {
		select {
		case <-l.done:
			return true
		default:
			return time.Since(begin) > length
		}
	})
	l.end()
	starts := l.starts()
	if got := len(starts) - 1; got < want {
		t.Errorf("%d replacements in %v, want %d at least", got, length, want)
	}
	l.wantFailures(0)
	l.waitNoRole()
	list := samples()
	if len(list) < 100 {
		t.Fatalf("only %d looks at the roles", len(list))
	}
	if what := stray(list, starts); what != "" {
		t.Error(what)
	}
	if n := l.reads(); n > len(starts)+1 {
		t.Errorf("%d credentials were made for %d commands", n, len(starts))
	}
	t.Logf("%d replacements, %d answers at least", len(starts)-1, 20*l.noted("asked ", "")-20*len(starts))
	return starts, list
}

// TestPostgresReplacement: no question is ever refused for a dead password, however often the credentials are replaced,
// without --watch; and no role outlives its command. With VAULTEXEC_TEST_SOAK=1 it takes ten minutes.
func TestPostgresReplacement(t *testing.T) {
	t.Parallel()
	ttl, most, length, want := 8*time.Second, 24*time.Second, 80*time.Second, 3
	if soak {
		ttl, most, length, want = 20*time.Second, 60*time.Second, 10*time.Minute, 9
	}
	l := newLeased(t, inMemory, false, ttl, most)
	starts, _ := l.replaces(length, want)
	users := map[string]bool{}
	for _, s := range starts {
		users[s.a] = true
	}
	if len(users) != len(starts) {
		t.Errorf("%d starts with %d different credentials", len(starts), len(users))
	}
	if n := l.asked("sys/leases/revoke"); n < len(starts) {
		t.Errorf("%d leases were revoked, want %d", n, len(starts))
	}
}

// The last credentials end with vaultexec, hours before their time: by the lease, or by the token that it obtained.
func TestPostgresNoRoleIsLeft(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"token", "approle"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			l := newLeased(t, inMemory, false, time.Hour, 2*time.Hour)
			if how == "approle" {
				mount, _, roleID, secretID := l.scope.AppRole(l.policy, "default")
				l.token = ""
				l.env = append(l.env, "VAULTEXEC_AUTH_MOUNT="+mount, "VAULTEXEC_ROLE_ID="+roleID, "VAULTEXEC_SECRET_ID="+secretID)
			}
			l.run()
			if roles, err := l.roles(); err != nil || len(roles) != 1 {
				t.Fatalf("roles %v, %v, want one", roles, err)
			}
			l.end()
			l.waitNoRole()
			l.wantFailures(0)
		})
	}
}

// After a SIGKILL nobody renews the lease: the role is gone when its time is over, and so is the command.
func TestPostgresKilled(t *testing.T) {
	t.Parallel()
	const ttl = 4 * time.Second
	l := newLeased(t, inMemory, false, ttl, time.Hour)
	l.run()
	first := l.validUntil(l.last().a)
	l.until("a renewal", func() bool { return l.validUntil(l.last().a) > first }) // until that, the first ttl would do
	l.wantStarts(1)
	killed := time.Now()
	l.signal(syscall.SIGKILL)
	l.finish("signal KILL")
	l.waitNoRole()
	if took := time.Since(killed); took > ttl+5*time.Second {
		t.Errorf("the role was there for %v", took)
	}
	l.wantFailures(0)
}
