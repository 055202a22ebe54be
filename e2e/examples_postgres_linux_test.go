package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// The example makes a login of PostgreSQL for a program, from nothing, and replaces it before it ends; what is in the
// database afterwards is what was there before.
func TestExamplePostgres(t *testing.T) {
	t.Parallel()
	needs.Program(t, "postgres")
	needs.Program(t, "initdb")
	needs.Program(t, "psql")
	pg, srv := vaulttest.NewPostgres(t), vaulttest.NewDevWithPlugin(t, vaulttest.PostgresPlugin)
	server, err := vaulttest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for name, to := range map[string]string{"vaultexec": vaulttest.BuildStatic(t, "."), "vault": server} {
		if err := os.Symlink(to, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	host, port, _ := strings.Cut(pg.Addr, ":")
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GORACE=" + vaulttest.Gorace,
		"VAULT_ADDR=" + srv.Addr, "PGHOST=" + host, "PGPORT=" + port, "PGSSLMODE=disable"}

	setup := exec.Command("examples/postgres-dynamic/setup.sh")
	setup.Env = append(env[:len(env):len(env)], "VAULT_TOKEN="+srv.RootToken, "PGUSER=postgres", "PGPASSWORD="+pg.Password, "TTL=4s", "MAX_TTL=8s")
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("setup.sh: %v\n%s", err, vaulttest.Redact(string(out)))
	}

	run := exec.Command("examples/postgres-dynamic/run.sh")
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{"app-db"}})
	run.Env = append(env[:len(env):len(env)], "VAULT_TOKEN="+token, "VAULTEXEC_STOP_TIMEOUT=1s", "VAULTEXEC_MIN_UPTIME=0", "VAULTEXEC_SETTLE=100ms")
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	run.Stderr = &log
	if err := vaulttest.StartTied(run); err != nil {
		t.Fatal(err)
	}
	stopped := time.AfterFunc(limit, func() { _ = run.Process.Kill() }) // then the lines end, and the test fails
	defer stopped.Stop()
	line := regexp.MustCompile(`^(v-token-app-\w+-\d+) valid until (20.*)$`)
	logins, ends := map[string]bool{}, map[string]bool{}
	for lines := bufio.NewScanner(out); len(logins) < 3 && lines.Scan(); {
		m := line.FindStringSubmatch(lines.Text())
		if m == nil {
			t.Fatalf("app prints %q", lines.Text())
		}
		logins[m[1]], ends[m[2]] = true, true
	}
	_ = run.Process.Signal(syscall.SIGTERM)
	_ = run.Wait()
	if len(logins) < 3 || len(ends) <= len(logins) || strings.Contains(log.String(), "FATAL") {
		t.Errorf("%d logins, of which the ends moved %d times, want 3 of them\n%s", len(logins), len(ends)-len(logins),
			vaulttest.Redact(log.String()[max(log.Len()-2000, 0):]))
	}
	told := 0
	for line := range strings.Lines(read(t, "docs/leases.md")) {
		text, _, _ := strings.Cut(strings.TrimSpace(line), "=") // up to the name of its first attribute
		if strings.HasPrefix(line, "    vaultexec: ") {
			told++
			if !strings.Contains(log.String(), text+"=") {
				t.Errorf("docs/leases.md shows a line that the log has not: %s", text)
			}
		}
	}
	if told == 0 {
		t.Error("docs/leases.md shows no line of the log")
	}
	var left [][]string
	if !wait.For(limit, func() bool {
		left = pg.Query(t, "select rolname from pg_roles where rolname like 'v-%'")
		return len(left) == 0
	}) {
		t.Errorf("the database still has %v", left)
	}
	if rows := pg.Query(t, "select rolsuper, rolcreatedb from pg_roles where rolname = 'vault'"); strings.Join(rows[0], "") != "ff" {
		t.Errorf("Vault's own login may do too much: %v", rows)
	}
}

// What docs/leases.md tells to type is what the example does: all the lines of its blocks that are no output.
func TestLeasesPageIsTheExample(t *testing.T) {
	t.Parallel()
	var files strings.Builder
	for _, name := range []string{"setup.sh", "policy.hcl", "run.sh"} {
		files.WriteString(read(t, "examples/postgres-dynamic/"+name))
	}
	have := strings.Join(strings.Fields(files.String()), " ")
	n := 0
	for block := range strings.SplitSeq(read(t, "docs/leases.md"), "\n\n") {
		if !strings.HasPrefix(block, "    vault ") && !strings.HasPrefix(block, "    path ") && !strings.HasPrefix(block, "    exec vaultexec ") {
			continue
		}
		n++
		if words := strings.Join(strings.Fields(block), " "); !strings.Contains(have, words) {
			t.Errorf("not in examples/postgres-dynamic: %s", words)
		}
	}
	if n < 3 {
		t.Errorf("%s blocks, which cannot be all", strconv.Itoa(n))
	}
}
