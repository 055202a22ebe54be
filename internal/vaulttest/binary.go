package vaulttest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How tools/vault is built; part of the name under which the result is kept.
var vaultBuild = []string{"-trimpath", "-tags", "minimal", "-ldflags", "-s -w"}

var binary struct {
	sync.Mutex
	path string
}

// Binary returns the server program: VAULTEXEC_TEST_VAULT (a vault or bao) where it is set, otherwise the one built
// from tools/vault. The first build takes minutes and reports on standard error. Its result is kept outside the tree,
// in $XDG_CACHE_HOME/vaultexec or ~/.cache/vaultexec, under a name that changes with Vault's version and Go's.
func Binary() (string, error) { return BinaryContext(context.Background()) }

// BinaryContext is Binary with a build that can be called off.
func BinaryContext(ctx context.Context) (string, error) {
	binary.Lock()
	defer binary.Unlock()
	if binary.path != "" {
		return binary.path, nil
	}
	path, err := findBinary(ctx)
	if err != nil {
		return "", err
	}
	binary.path = path
	return path, nil
}

// IsOpenBao reports whether the server under test is an OpenBao. It has what Vault's community edition has not,
// namespaces and standbys that answer reads, and it has no audit devices by API.
func IsOpenBao() (bool, error) {
	bin, err := Binary()
	if err != nil {
		return false, err
	}
	out, err := exec.Command(bin, "version").Output()
	if err != nil {
		return false, fmt.Errorf("%s version: %w", bin, err)
	}
	return strings.HasPrefix(string(out), "OpenBao"), nil
}

// OpenBao is IsOpenBao for a test.
func OpenBao(t TB) bool {
	t.Helper()
	yes, err := IsOpenBao()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return yes
}

func findBinary(ctx context.Context) (string, error) {
	if own := os.Getenv("VAULTEXEC_TEST_VAULT"); own != "" {
		path, err := exec.LookPath(own)
		if err != nil {
			return "", fmt.Errorf("VAULTEXEC_TEST_VAULT: %w", err)
		}
		return filepath.Abs(path)
	}
	return vaultTool.Path(ctx)
}

// Tool is a program that tests start, built from a module of its own in tools/.
type Tool struct {
	Name  string   // as progress names it: "Vault"
	Dir   string   // within tools/, and the first part of the name under which the result is kept
	Build []string // arguments of go build; part of that name, too
}

var vaultTool = Tool{"Vault", "vault", vaultBuild}

// Path returns the program, building it at the first use, which takes minutes and reports on standard error.
func (tool Tool) Path(ctx context.Context) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	src := filepath.Join(root, "tools", tool.Dir)
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	key, err := sourceKey(src, tool.Build)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, tool.Dir+"-"+key)
	if executable(path) {
		return path, nil
	}
	return path, buildTool(ctx, tool.Name, src, path, tool.Build, ".")
}

// sourceKey hashes what decides about the program that is built from a module.
func sourceKey(src string, build []string) (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.sum", "main.go"} {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return "", fmt.Errorf("cannot read the build recipe: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n", name, len(b))
		h.Write(b)
	}
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH, "build", strings.Join(build, " "))
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// buildTool builds pkg of the module in src into path. Several test binaries run at once: the first one builds, the
// others wait for it.
func buildTool(ctx context.Context, what, src, path string, args []string, pkg string) error {
	lock, err := waitForLock(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if executable(path) {
		return nil
	}
	leftovers, _ := filepath.Glob(path + ".part-*")
	for _, l := range leftovers { // of a build that was interrupted; nobody else is building, we hold the lock
		_ = os.RemoveAll(l)
	}

	part := fmt.Sprintf("%s.part-%d", path, os.Getpid())
	start := time.Now()
	progress("building %s into %s (once; several minutes, a few hundred modules)", what, path)
	stop := every(20*time.Second,
		func() { progress("still building %s (%v)", what, time.Since(start).Round(time.Second)) })
	err = GoBuild(ctx, src, part, false, append(args[:len(args):len(args)], pkg)...)
	stop()
	if err != nil {
		_ = os.Remove(part)
		return fmt.Errorf("cannot build %s: %w", what, err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("cannot keep the built %s: %w", what, err)
	}
	progress("%s is built (%v)", what, time.Since(start).Round(time.Second))
	return nil
}

func waitForLock(ctx context.Context, path string) (*os.File, error) {
	start := time.Now()
	stop := func() {}
	defer func() { stop() }()
	for told := false; ; told = true {
		f, err := lockFile(path, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		if !told {
			stop = every(20*time.Second, func() {
				progress("waiting for another process that builds %s (%v)", strings.TrimSuffix(filepath.Base(path), ".lock"), time.Since(start).Round(time.Second))
			})
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// every calls f at each interval until the returned function is called.
func every(d time.Duration, f func()) (stop func()) {
	tick, done := time.NewTicker(d), make(chan struct{})
	go func() {
		for {
			select {
			case <-tick.C:
				f()
			case <-done:
				return
			}
		}
	}()
	return func() { tick.Stop(); close(done) }
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vaulttest: "+format+"\n", args...)
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0
}

// CacheDir returns the folder, outside the tree, for what is expensive to build.
func CacheDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("cannot find a cache folder: %w", err)
		}
		base = filepath.Join(home, ".cache")
	}
	dir := filepath.Join(base, "vaultexec")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache folder: %w", err)
	}
	return dir, nil
}

// ModuleRoot returns the folder of this module's go.mod, looked for from the working directory upwards: the path that a
// compiled-in file name would give is gone after -trimpath.
func ModuleRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if f, err := os.Open(filepath.Join(dir, "go.mod")); err == nil {
			line, err := bufio.NewReader(f).ReadString('\n')
			_ = f.Close()
			if (err == nil || err == io.EOF) && strings.TrimSpace(line) == "module github.com/agenticverz/vaultexec" {
				return dir, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the vaultexec module", wd)
		}
	}
}
