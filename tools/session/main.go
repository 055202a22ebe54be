//go:build linux

// Command session records the terminal session of the README, and the pictures of the guide: it types the commands below
// into a shell on a real terminal, against a real Vault, and draws what was seen: the session as an SVG that plays it, the
// others as they stand.
//
//	go run ./tools/session docs
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// step is one line that is typed.
type step struct {
	line  string
	until string // what has to be seen before the next one is typed; "" for the prompt
}

// The files that the session finds, beside the .env file with random values.
var files = map[string]string{
	"app":    "#!/bin/sh\necho \"app: process $$ has $(env | cut -d= -f1 | grep -E 'AOS|MACHINE|OIDC|POSTGRES' | sort | tr '\\n' ' ')\"\n",
	"server": "#!/bin/sh\necho \"server: process $$ is ready\"\nexec sleep 600\n",
}

// recording is one drawing.
type recording struct {
	file    string
	columns uint16
	still   bool   // nothing appears one after the other
	before  []step // what is not in it
	steps   []step
}

// The terminal of a picture is one of 80 columns.
var recordings = []recording{
	{file: "session.svg", columns: 104, steps: session},
	{file: "status.svg", columns: 80, still: true, steps: []step{{line: "vaultexec status"}}},
	{file: "check.svg", columns: 80, still: true, steps: []step{{line: "vaultexec check --path app-prod --path database --path keycloak-admin"}}},
	{file: "diff.svg", columns: 80, still: true, steps: []step{{line: "vaultexec diff .env app-prod"}, {line: "vaultexec diff app-prod@1 app-prod --all"}}},
	{file: "ps.svg", columns: 80, still: true,
		before: []step{{line: "vaultexec --path app-prod --path database --watch --status 127.0.0.1:9641 -- ./server &", until: "is ready"}},
		steps:  []step{{line: "vaultexec ps 127.0.0.1:9641"}}},
}

var session = []step{
	{line: "vaultexec import app-prod .env"},
	{line: "vaultexec check --path app-prod --path database"},
	{line: "vaultexec --path app-prod --path database -- ./app"},
	{line: `echo "in this shell: ${AOS_API_KEY-nothing}"`},
	{line: "vaultexec --path app-prod --watch --interval 1s -- ./server &", until: "is ready"},
	{line: "vaultexec rotate app-prod AOS_API_KEY", until: "(?s)restarting.*is ready"},
	{line: "kill %1; wait", until: `(?s)wait.*\$ $`},
	{line: "vaultexec --path keycloak-admin -- ./app; echo \"exit code $?\""},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "session: write it as session FOLDER")
		os.Exit(2)
	}
	err := record(os.Args[1])
	vaulttest.Shutdown()
	if err != nil {
		fmt.Fprintln(os.Stderr, "session:", vaulttest.Redact(err.Error()))
		os.Exit(1)
	}
}

func record(out string) error {
	dir, err := os.MkdirTemp("", "vaultexec-session-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	env, values, err := prepare(dir)
	if err != nil {
		return err
	}
	for _, r := range recordings {
		svg, err := r.record(filepath.Join(dir, "work"), env)
		if err != nil {
			return err
		}
		for _, v := range values { // it is going to be public
			if strings.Contains(svg, v) {
				return errors.New("a value was seen in " + r.file)
			}
		}
		if err := os.WriteFile(filepath.Join(out, r.file), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// record types one recording, and draws it.
func (r recording) record(dir string, env []string) (string, error) {
	shell, err := openShell(dir, env, r.columns)
	if err != nil {
		return "", err
	}
	defer shell.close()
	for _, s := range r.before {
		if err := shell.play(s); err != nil {
			return "", err
		}
	}
	shell.skip()
	for _, s := range r.steps {
		if err := shell.play(s); err != nil {
			return "", err
		}
	}
	return draw(shell.lines(r.steps), int(r.columns), r.still), nil
}

// prepare builds vaultexec, starts Vault and returns the environment of the shell, and what must not be seen in it.
func prepare(dir string) (env, values []string, err error) {
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		return nil, nil, err
	}
	bin, work := filepath.Join(dir, "bin"), filepath.Join(dir, "work")
	for _, d := range []string{bin, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, nil, err
		}
	}
	err = vaulttest.GoBuild(context.Background(), root, filepath.Join(bin, "vaultexec"), false, "-trimpath",
		"-ldflags", "-s -w", ".")
	if err != nil {
		return nil, nil, fmt.Errorf("cannot build vaultexec: %w", err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o755); err != nil {
			return nil, nil, err
		}
	}
	secret := func() string {
		values = append(values, rand.Text())
		return values[len(values)-1]
	}
	dotenv := ""
	for _, name := range []string{"AOS_API_KEY", "MACHINE_SECRET_TOKEN", "OIDC_CLIENT_SECRET"} {
		dotenv += name + "=" + secret() + "\n"
	}
	if err := os.WriteFile(filepath.Join(work, ".env"), []byte(dotenv), 0o600); err != nil {
		return nil, nil, err
	}
	srv, err := vaulttest.StartDev()
	if err != nil {
		return nil, nil, err
	}
	if err := srv.TryMountKV("agenticverz", 2); err != nil {
		return nil, nil, err
	}
	for path, name := range map[string]string{
		"database": "POSTGRES_PASSWORD", "keycloak-admin": "KEYCLOAK_ADMIN_PASSWORD"} {
		if _, err := srv.TryPutKV("agenticverz", path, map[string]string{name: secret()}); err != nil {
			return nil, nil, err
		}
	}
	rules := `
path "agenticverz/data/app-prod"     { capabilities = ["create", "read", "update", "patch"] }
path "agenticverz/data/database"     { capabilities = ["read"] }
path "agenticverz/metadata/app-prod" { capabilities = ["read"] }
path "agenticverz/metadata/database" { capabilities = ["read"] }
`
	if _, err := srv.TryMust("PUT", "sys/policies/acl/developer", map[string]string{"policy": rules}); err != nil {
		return nil, nil, err
	}
	token, err := srv.TryToken(vaulttest.TokenOpts{Policies: []string{"developer"}, TTL: 8 * time.Hour})
	if err != nil {
		return nil, nil, err
	}
	values = append(values, token)
	return []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + work, "TERM=xterm", "LANG=C.UTF-8",
		"PS1=" + prompt, "HISTFILE=",
		"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token, "VAULTEXEC_MOUNT=agenticverz",
	}, values, nil
}
