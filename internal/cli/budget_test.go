package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// What a launch may cost, in figures that are the same on every machine; times are measured by `make bench` and judged by
// nobody here. A limit that is passed for a good reason is raised in the commit that has the reason. (Requests of a watch:
// TestWatchCost and TestOutageCost; memory, threads and wake-ups beside a command: TestCost of e2e/process. Instructions are not
// counted: virtual machines have no counter for them, and under valgrind a Go program's threads wait for each other.)
const (
	mostInitAllocs   = 5130       // before main; 4662 when this was written
	mostInitBytes    = 528_000    // 480 kB
	mostLaunchAllocs = 350        // from the command line to a connection that is set up; 276, 284 with the race detector
	mostSize         = 14_000_000 // 13.8 MB with scan, which starts git (os/exec); 13.5 before it
	mostDependencies = 6          // direct ones of the product
	launchTimeout    = "60s"      // of a request that waits for the others
)

// All paths are read at the same time, in one request each, with no request but the login before and the token's
// revocation after them. The connections for the reads stand when the login is answered.
func TestBudgetOfRequests(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	policy := sc.Policy(fmt.Sprintf("path %q { capabilities = [\"read\"] }", mount+"/data/*"))
	for i := range 10 {
		srv.PutKV(t, mount, "app-"+strconv.Itoa(i), map[string]string{fmt.Sprintf("KEY_%d", i): vaulttest.Canary("budget")})
	}
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
	auth, _, roleID, secretID := sc.AppRole(policy)
	for _, n := range []int{1, 2, 10} {
		for login, env := range map[string][]string{
			"token":   {"VAULT_TOKEN=" + token},
			"approle": {"VAULTEXEC_ROLE_ID=" + roleID, "VAULTEXEC_SECRET_ID=" + secretID, "VAULTEXEC_AUTH_MOUNT=" + auth},
		} {
			t.Run(fmt.Sprint(login, n), func(t *testing.T) {
				t.Parallel()
				proxy := vaulttest.NewProxy(t, srv)
				proxy.On(vaulttest.Under(mount+"/data/"), together(n))
				// The connections for the reads are made during the login: no round trip of their own.
				proxy.On(vaulttest.Under("auth/"+auth+"/login"), func(p *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
					if !wait.For(20*time.Second, func() bool { return p.Conns() == n }) {
						t.Errorf("%d connections during the login, want %d", p.Conns(), n)
					}
					next.ServeHTTP(w, r)
				})
				args := []string{"--mount", mount, "--timeout", launchTimeout, "--wait", "0", "--allow-http"}
				for i := range n {
					args = append(args, "--path", "app-"+strconv.Itoa(i))
				}
				cmd := exec.Command(vaulttest.Build(t, "."), append(args, "--", "/bin/sh", "-c", ":")...)
				cmd.Env = append([]string{"VAULT_ADDR=" + proxy.Addr, "HOME=" + t.TempDir(), "GORACE=" + vaulttest.Gorace}, env...)
				if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
					t.Fatalf("%v: %s", err, vaulttest.Redact(string(out)))
				}
				var other []string
				reads := 0
				for _, r := range proxy.Requests() {
					if strings.HasPrefix(r.Path, mount+"/data/") {
						reads++
						continue
					}
					other = append(other, r.Path)
				}
				want := ""
				if login == "approle" {
					want = "auth/" + auth + "/login auth/token/revoke-self"
				}
				if reads != n || strings.Join(other, " ") != want {
					t.Errorf("%d reads and %q, want %d and %q", reads, other, n, want)
				}
				if c := proxy.Conns(); c > max(n, 1) {
					t.Errorf("%d connections for %d paths", c, n)
				}
			})
		}
	}
}

// together answers no read before n of them are under way.
func together(n int) vaulttest.Behaviour {
	var arrived atomic.Int64
	all := make(chan struct{})
	return func(_ *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
		if arrived.Add(1) == int64(n) {
			close(all)
		}
		select {
		case <-all:
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}
}

// One static binary, and not a large one, as make build makes it. What packages do before main is paid at each start, also by
// those who do not use them: a regular expression in a package variable is the common way to it.
func TestBudgetOfRelease(t *testing.T) {
	t.Parallel()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	bin := asReleased(ctx, t, root)
	info, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f MiB", float64(info.Size())/(1<<20))
	if info.Size() > mostSize {
		t.Errorf("%d bytes, at most %d", info.Size(), mostSize)
	}
	cmd := exec.CommandContext(ctx, bin, "--version")
	cmd.Env = []string{"GODEBUG=inittrace=1"}
	var trace strings.Builder
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	bytes, allocs, packages := 0, 0, 0
	for line := range strings.SplitSeq(trace.String(), "\n") {
		// init net/http @1.2 ms, 0.1 ms clock, 4712 bytes, 49 allocs
		f := strings.Fields(line)
		if len(f) < 11 || f[0] != "init" {
			continue
		}
		b, err := strconv.Atoi(f[7])
		a, aerr := strconv.Atoi(f[9])
		if err != nil || aerr != nil {
			t.Fatalf("not understood: %s", line)
		}
		bytes, allocs, packages = bytes+b, allocs+a, packages+1
	}
	t.Logf("%d packages, %d bytes, %d allocations", packages, bytes, allocs)
	if packages < 20 || allocs > mostInitAllocs || bytes > mostInitBytes {
		t.Errorf("%d packages make %d allocations of %d bytes before main, at most %d of %d:\n%s", packages, allocs, bytes, mostInitAllocs, mostInitBytes, &trace)
	}
}

// asReleased builds the program as make build does.
func asReleased(ctx context.Context, t *testing.T, root string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "vaultexec")
	if err := vaulttest.GoBuild(ctx, root, bin, false, "-trimpath", "-tags", makeTags(t, root), "-ldflags", "-s -w", "."); err != nil {
		t.Fatal(err)
	}
	return bin
}

// A release leaves net/http's own HTTP/2 out, and speaks HTTP/2 all the same: many reads over TLS are one connection.
func TestReleaseSpeaksHTTP2(t *testing.T) {
	t.Parallel()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	srv := vaulttest.Raft(t, vaulttest.RaftOpts{TLS: true})
	srv.Init(t, 1, 1)
	srv.Unseal(t)
	srv.MountKV(t, "secret", 2)
	var args []string
	for i := range 8 {
		srv.PutKV(t, "secret", fmt.Sprint("app-", i), map[string]string{fmt.Sprint("KEY_", i): vaulttest.Canary("http2")})
		args = append(args, "--path", fmt.Sprint("app-", i))
	}
	relay, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	var made atomic.Int32
	go func() {
		for {
			here, err := relay.Accept()
			if err != nil {
				return
			}
			made.Add(1)
			there, err := net.Dial("tcp", strings.TrimPrefix(srv.Addr, "https://"))
			if err != nil {
				here.Close()
				continue
			}
			go func() { _, _ = io.Copy(there, here); there.Close() }()
			go func() { _, _ = io.Copy(here, there); here.Close() }()
		}
	}()
	cmd := exec.CommandContext(ctx, asReleased(ctx, t, root), append(args, "--wait", "0", "--", "/bin/sh", "-c", ":")...)
	cmd.Env = []string{"VAULT_ADDR=https://" + relay.Addr().String(), "VAULT_TOKEN=" + srv.RootToken, "VAULT_CACERT=" + srv.CACert, "HOME=" + t.TempDir()}
	if out, err := cmd.CombinedOutput(); err != nil || made.Load() != 1 {
		t.Errorf("%v, %d connections: %s", err, made.Load(), vaulttest.Redact(string(out)))
	}
}

// makeTags are the build tags of the Makefile.
func makeTags(t *testing.T, root string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\nTAGS ")
	line, _, _ := strings.Cut(rest, "\n")
	_, tags, ok2 := strings.Cut(line, "?= ")
	if !ok || !ok2 {
		t.Fatal("the Makefile has no TAGS")
	}
	return tags
}

// The part of a launch that neither the network nor the kernel has a share in.
func TestBudgetOfAllocations(t *testing.T) {
	environ := []string{"PATH=/bin", "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=none", "HOME=/nonexistent"}
	unsetVaultVariables(os.Environ()) // or a client cannot be made
	head := []string{"vaultexec", "--mount", "agenticverz", "--path", "app-prod", "--path", "database"}
	n := testing.AllocsPerRun(50, func() {
		a := newApp(environ, io.Discard, io.Discard)
		a.head, a.command = head[1:], []string{"/bin/true"}
		g, launches := newGiven(), 0
		parser := a.parser(g)
		parser.Action = func(*cli.Context) error { // as launch does
			launches++
			s := &settings{opts: options, given: g, environ: a.getenv}
			if err := a.begin(s); err != nil {
				return err
			}
			o := a.launchOptions(s)
			o.Session = a.session(s)
			if len(s.faults) > 0 || len(o.Sources) != 2 {
				return fmt.Errorf("%d sources, %v", len(o.Sources), s.faults)
			}
			return nil
		}
		if err := parser.Run(head); err != nil || launches != 1 {
			t.Fatal(launches, err)
		}
	})
	t.Logf("%.0f allocations", n)
	if n > mostLaunchAllocs {
		t.Errorf("%.0f allocations, at most %d", n, mostLaunchAllocs)
	}
}

// The first block of go.mod is the product's own.
func TestBudgetOfDependencies(t *testing.T) {
	t.Parallel()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "require (\n")
	block, _, ok2 := strings.Cut(rest, "\n)")
	modules := strings.Split(block, "\n")
	if !ok || !ok2 || len(modules) > mostDependencies || strings.Contains(block, "// indirect") {
		t.Errorf("at most %d direct dependencies:\n%s", mostDependencies, block)
	}
}
