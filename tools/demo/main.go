// Command demo shows vaultexec at work, with a real Vault and nothing else installed: it builds vaultexec and a sample
// web app, starts Vault, writes four secrets, and runs the app with three of them. It checks what it shows, and leaves
// neither a process nor a file behind, also when it is interrupted. With -keep, Vault and the app run on until Ctrl-C.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

const (
	mount = "agenticverz"
	lasts = 24 * time.Hour // a token
)

type secret struct {
	path string
	keys []string
}

var secrets = []secret{
	{"app-prod", []string{"AOS_API_KEY", "MACHINE_SECRET_TOKEN", "OIDC_CLIENT_SECRET"}},
	{"database", []string{"POSTGRES_USER", "POSTGRES_PASSWORD", "DATABASE_URL",
		"KEYCLOAK_DB_USER", "KEYCLOAK_DB_PASSWORD"}},
	{"external-apis", []string{"ANTHROPIC_API_KEY"}},
	{"keycloak-admin", []string{"KEYCLOAK_ADMIN", "KEYCLOAK_ADMIN_PASSWORD"}},
}

// The app gets the first three. Nobody gave it the last one.
var wanted, withheld = secrets[:3], secrets[3]

func main() { os.Exit(run()) }

var keep = flag.Bool("keep", false, "leave Vault and the app running until Ctrl-C")

func run() int {
	flag.Parse()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		s := <-signals
		cancel(interrupted{s.(syscall.Signal)})
		signal.Stop(signals) // the next one ends the demo without cleaning up
	}()

	err := demo(ctx)
	vaulttest.Shutdown()
	var by interrupted
	switch {
	case errors.As(context.Cause(ctx), &by) && errors.Is(err, errKept):
		say("Vault, the app and their files are gone again")
		return 0
	case errors.As(context.Cause(ctx), &by):
		fmt.Printf("\n%v: everything that was started is gone again\n", by)
		return 128 + int(by.Signal)
	case err != nil:
		fmt.Fprintf(os.Stderr, "demo: %s\n", vaulttest.Redact(err.Error()))
		return 1
	}
	say("Vault, the app and their files are gone again")
	return 0
}

type interrupted struct{ syscall.Signal }

func (i interrupted) Error() string { return "interrupted by " + i.Signal.String() }

// say prints a headline.
func say(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }

// show prints text that belongs to a headline.
func show(text string) {
	for line := range strings.Lines(text) {
		fmt.Print("   " + strings.TrimRight(line, "\n") + "\n")
	}
}

func demo(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "vaultexec-demo-")
	if err != nil {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	say("building vaultexec and the sample app")
	vaultexec, app := filepath.Join(dir, "vaultexec"), filepath.Join(dir, "app")
	if err := build(ctx, ".", vaultexec); err != nil {
		return err
	}
	if err := build(ctx, "./tools/demo/app", app); err != nil {
		return err
	}
	say("looking for the Vault to talk to (built from its Go module at the first time, which takes some minutes)")
	bin, err := vaulttest.BinaryContext(ctx)
	if err != nil {
		return err
	}
	show(bin)

	srv, token, err := vault(ctx)
	if err != nil {
		return err
	}
	defer srv.Stop()
	setup, err := handOver(srv, dir)
	if err != nil {
		return err
	}

	// What a shell that calls vaultexec has: where Vault is, a token, and no secret.
	env := []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "VAULT_ADDR=" + srv.Addr,
		"VAULT_TOKEN=" + token}
	if err := launch(ctx, vaultexec, env); err != nil {
		return err
	}
	if err := refuse(ctx, vaultexec, env); err != nil {
		return err
	}
	return rotate(ctx, srv, vaultexec, env, setup)
}

// handOver writes what a shell needs to go on with the demo's Vault: where it is, and a token that may do everything with
// the demo's secrets. The file can be read by its owner alone, and ends with the demo.
func handOver(srv *vaulttest.Server, dir string) (file string, err error) {
	policy := fmt.Sprintf("path %q { capabilities = [\"create\", \"read\", \"update\", \"patch\", \"delete\", \"list\"] }", mount+"/*")
	if _, err := srv.TryMust("PUT", "sys/policies/acl/demo-operator", map[string]string{"policy": policy}); err != nil {
		return "", err
	}
	token, err := srv.TryToken(vaulttest.TokenOpts{Policies: []string{"demo-operator"}, TTL: lasts})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "env")
	text := fmt.Sprintf("export PATH='%s':\"$PATH\" VAULT_ADDR='%s' VAULT_TOKEN='%s' VAULTEXEC_MOUNT='%s'\n",
		strings.ReplaceAll(dir, "'", `'\''`), srv.Addr, token, mount)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

// build builds one of this module's programs.
func build(ctx context.Context, pkg, out string) error {
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		return err
	}
	if err := vaulttest.GoBuild(ctx, root, out, false, "-trimpath", "-ldflags", "-s -w", pkg); err != nil {
		return fmt.Errorf("cannot build %s: %w", pkg, err)
	}
	return nil
}

// vault starts Vault with the secrets, and makes a token that may read those that the app needs.
func vault(ctx context.Context) (*vaulttest.Server, string, error) {
	srv, err := vaulttest.StartDev()
	if err != nil {
		return nil, "", err
	}
	token, err := fill(ctx, srv)
	if err != nil {
		srv.Stop()
		return nil, "", err
	}
	return srv, token, nil
}

func fill(ctx context.Context, srv *vaulttest.Server) (token string, err error) {
	_, health, err := srv.Call(ctx, "", "GET", "sys/health", nil)
	if err != nil {
		return "", fmt.Errorf("cannot ask Vault how it is: %w", err)
	}
	say("Vault %v runs at %s", health["version"], srv.Addr)

	say("four secrets with random values, in KV version 2 at the mount %s", mount)
	if err := srv.TryMountKV(mount, 2); err != nil {
		return "", err
	}
	for _, s := range secrets {
		values := map[string]string{}
		for _, k := range s.keys {
			values[k] = rand.Text()
		}
		if _, err := srv.TryPutKV(mount, s.path, values); err != nil {
			return "", err
		}
		show(fmt.Sprintf("%-15s %s", s.path, strings.Join(s.keys, " ")))
	}

	say("a token that may read three of them, and do nothing else")
	var policy strings.Builder
	for _, s := range wanted {
		fmt.Fprintf(&policy, "path %q { capabilities = [\"read\"] }\n", mount+"/data/"+s.path)
	}
	show(policy.String())
	body := map[string]string{"policy": policy.String()}
	if _, err := srv.TryMust("PUT", "sys/policies/acl/demo", body); err != nil {
		return "", err
	}
	return srv.TryToken(vaulttest.TokenOpts{Policies: []string{"demo"}, NoDefault: true, TTL: lasts})
}

// launch runs the app through vaultexec and looks at it and at the shell beside it.
func launch(ctx context.Context, vaultexec string, env []string) error {
	args := []string{"--mount", mount}
	var names []string
	for _, s := range wanted {
		args = append(args, "--path", s.path)
		names = append(names, s.keys...)
	}
	args = append(args, "--", "app")
	say("$ vaultexec %s", strings.Join(args, " "))

	cmd := exec.Command(vaultexec, args...)
	cmd.Env, cmd.Stderr = env, os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which then stops the app
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := vaulttest.StartTied(cmd); err != nil {
		return fmt.Errorf("cannot start vaultexec: %w", err)
	}
	stop := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	defer stop()
	go func() {
		<-ctx.Done()
		_ = cmd.Process.Signal(syscall.SIGTERM) // the read below then ends
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("the app did not start: %w", err))
	}
	url := strings.TrimSpace(line)
	show(fmt.Sprintf("the app runs as process %d, which was vaultexec's", cmd.Process.Pid))

	say("$ curl %s          (the app tells the names of its variables)", url)
	answer, err := get(ctx, url)
	if err != nil {
		return fmt.Errorf("cannot ask the app: %w", err)
	}
	show(answer)
	has := strings.Fields(answer)
	for _, n := range names {
		if !slices.Contains(has, n) {
			return fmt.Errorf("the app lacks %s", n)
		}
	}
	if slices.Contains(has, "VAULT_TOKEN") {
		return errors.New("the app has the token")
	}
	show("all " + fmt.Sprint(len(names)) + " are there, and Vault's token is not")

	grep := "env | grep -E '^(" + strings.Join(names, "|") + ")='"
	say("$ %s          (in the shell that called)", grep)
	shell := exec.CommandContext(ctx, "sh", "-c", grep)
	shell.Env = env
	found, err := shell.Output()
	var exit *exec.ExitError
	if len(found) > 0 || !errors.As(err, &exit) || exit.ExitCode() != 1 {
		return errors.Join(ctx.Err(), errors.New("the calling shell has the secrets"))
	}
	show("nothing")
	return nil
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// refuse shows what happens with the secret that the token may not read.
func refuse(ctx context.Context, vaultexec string, env []string) error {
	args := []string{"--mount", mount, "--path", withheld.path, "--", "app"}
	say("$ vaultexec %s          (nobody allowed that one)", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, vaultexec, args...)
	cmd.Env = env
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 121 {
		return errors.Join(ctx.Err(), fmt.Errorf("vaultexec should end with code 121, but: %v\n%s", err, text))
	}
	show(string(text))
	show("exit code 121, and nothing was started")
	return nil
}
