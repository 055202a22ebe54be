package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// exampleRig is a Vault with what the examples name, and the environment of somebody who may read it.
type exampleRig struct {
	srv  *vaulttest.Server
	home string
	env  []string // without any login
	jwt  string   // for the roles ci and migrate
	auth string   // the mount of its method
}

func newExampleRig(t *testing.T) *exampleRig {
	t.Helper()
	srv := vaulttest.NewDev(t) // the examples name the mount agenticverz
	srv.MountKV(t, "agenticverz", 2)
	for path, user := range map[string]string{"app-dev": "", "app-test": "", "database": "POSTGRES_USER", "deploy": "DEPLOY_USER"} {
		secret := map[string]string{"API_KEY": vaulttest.Canary(path)}
		if user != "" {
			secret = map[string]string{user: "ada", "POSTGRES_PASSWORD": vaulttest.Canary("password")}
		}
		if path == "deploy" {
			secret = map[string]string{user: "ada", "DEPLOY_TOKEN": vaulttest.Canary("deploy")}
		}
		srv.PutKV(t, "agenticverz", path, secret)
	}
	sc := srv.Scope(t)
	policy := sc.ReadPolicy("agenticverz", "database", "deploy")
	mount, jwt := jwtMethod(t, srv, sc, policy)
	for _, role := range []string{"ci", "migrate"} {
		srv.Must(t, "POST", "auth/"+mount+"/role/"+role, map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": policy})
	}
	r := &exampleRig{srv: srv, home: t.TempDir(), jwt: jwt, auth: mount}
	bin := t.TempDir()
	if err := os.Symlink(vaulttest.BuildStatic(t, "."), filepath.Join(bin, "vaultexec")); err != nil {
		t.Fatal(err)
	}
	// The programs of the images and units.
	for _, name := range []string{"server", "migrate", "report"} {
		vaulttest.WriteFile(t, filepath.Join(bin, name), "#!/bin/sh\n: \"${POSTGRES_PASSWORD:?}\"\necho \""+name+" as $POSTGRES_USER\"\n", 0o755)
	}
	r.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + r.home, "GORACE=" + vaulttest.Gorace, "VAULT_ADDR=" + srv.Addr, "VAULTEXEC_AUTH_MOUNT=" + mount}
	return r
}

// login is the environment of a developer after `vault login`.
func (r *exampleRig) login(t *testing.T) []string {
	t.Helper()
	vaulttest.WriteFile(t, filepath.Join(r.home, ".vault-token"), r.srv.RootToken, 0o600)
	return r.env
}

// run starts a command line of an example and wants its line of output. No value may be in it.
func (r *exampleRig) run(t *testing.T, dir string, env []string, want string, argv ...string) {
	t.Helper()
	cmd := exec.Command(lookPath(env, argv[0]), argv[1:]...)
	cmd.Dir, cmd.Env = filepath.Join("examples", dir), env
	out, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile("(?m)"+want).Match(out) || vaulttest.Redact(string(out)) != string(out) {
		t.Errorf("%v: %v, want %q in\n%s", argv, err, want, vaulttest.Redact(string(out)))
	}
}

// lookPath finds a program in the PATH of env; exec.Command would look in this process's.
func lookPath(env []string, name string) string {
	for _, kv := range env {
		path, ok := strings.CutPrefix(kv, "PATH=")
		for _, dir := range filepath.SplitList(path) {
			if file := filepath.Join(dir, name); ok && vaulttest.Exists(file) {
				return file
			}
		}
	}
	return name
}

// example reads a YAML file.
func example(t *testing.T, file string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("examples", file))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return doc
}

// at goes down into a document.
func at(t *testing.T, v any, keys ...any) any {
	t.Helper()
	for _, k := range keys {
		switch k := k.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k < len(l) {
				v = l[k]
			} else {
				v = nil
			}
		}
	}
	if v == nil {
		t.Fatalf("there is no %v", keys)
	}
	return v
}

func words(t *testing.T, v any) []string {
	t.Helper()
	var out []string
	for _, w := range v.([]any) {
		out = append(out, w.(string))
	}
	return out
}

// variables makes an environment of a document's, with this test's address; what stands for a file of a machine that is not
// this one is replaced.
func variables(vars map[string]any, addr string, files map[string]string) []string {
	var env []string
	for name, v := range vars {
		value, _ := v.(string)
		if name == "VAULT_ADDR" {
			value = addr
		}
		for from, to := range files {
			value = strings.ReplaceAll(value, from, to)
		}
		env = append(env, name+"="+value)
	}
	return env
}

func TestExampleMakefile(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	program, env := needs.Program(t, "make"), r.login(t)
	r.run(t, "makefile", env, "^serving as ada$", program, "-s", "run")
	r.run(t, "makefile", env, "^migrating as ada$", program, "-s", "migrate")
	r.run(t, "makefile", env, "agenticverz/database", program, "-s", "names")
}

func TestExampleNPMScripts(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	program := needs.Program(t, "npm")
	needs.Program(t, "node")
	env := append(r.login(t), "NO_UPDATE_NOTIFIER=1", "npm_config_update_notifier=false")
	r.run(t, "npm-scripts", env, "^serving as ada$", program, "start")
	r.run(t, "npm-scripts", env, "pass 1$", program, "test")
}

// JSON as VS Code reads it: with comments on lines of their own, and commas at the end.
var jsonc = regexp.MustCompile(`(?m)^\s*//.*$`)

func TestExampleVSCode(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	needs.Program(t, "node")
	b, err := os.ReadFile("examples/vscode/.vscode/launch.json")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`,(\s*[\]}])`).ReplaceAllString(jsonc.ReplaceAllString(string(b), ""), "$1")
	var launch struct {
		Version        string
		Configurations []struct {
			Type, Request, RuntimeExecutable, Program string
			RuntimeArgs                               []string
		}
	}
	if err := json.Unmarshal([]byte(text), &launch); err != nil || launch.Version != "0.2.0" || len(launch.Configurations) != 1 {
		t.Fatalf("%v %+v", err, launch)
	}
	c := launch.Configurations[0]
	if c.Type != "node" || c.Request != "launch" {
		t.Errorf("%+v", c)
	}
	// As VS Code starts it: runtimeExecutable runtimeArgs program, with the debugger brought in by NODE_OPTIONS.
	argv := append(append([]string{c.RuntimeExecutable}, c.RuntimeArgs...), strings.ReplaceAll(c.Program, "${workspaceFolder}/", ""))
	r.run(t, "vscode", append(r.login(t), "NODE_OPTIONS=--require ./server.js"), "^serving as ada$", argv...)
}

func TestExampleCompose(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	doc := example(t, "compose/compose.yaml")
	app := at(t, doc, "services", "app")
	token := filepath.Join(t.TempDir(), "token")
	vaulttest.WriteFile(t, token, r.srv.RootToken, 0o600)
	if name := at(t, app, "secrets", 0); at(t, doc, "secrets", name, "file") != "${HOME}/.vault-token" {
		t.Error("the secret is not the Vault CLI's token")
	}
	env := append(r.env, variables(at(t, app, "environment").(map[string]any), r.srv.Addr, map[string]string{"/run/secrets/vault-token": token})...)
	r.run(t, "compose", env, "^server as ada$", append(words(t, at(t, app, "entrypoint")), words(t, at(t, app, "command"))...)...)
	if docker, err := exec.LookPath("docker"); err == nil && exec.Command(docker, "compose", "version").Run() == nil {
		if out, err := exec.Command(docker, "compose", "-f", "examples/compose/compose.yaml", "config", "-q").CombinedOutput(); err != nil {
			t.Errorf("docker compose config: %s", out)
		}
	}
}

// The kubernetes method's requests are those of the jwt method, which stands in for it here; login_test.go has the method
// itself.
func TestExampleKubernetes(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	doc := example(t, "kubernetes/job.yaml")
	if at(t, doc, "apiVersion") != "batch/v1" || at(t, doc, "kind") != "Job" || at(t, doc, "spec", "template", "spec", "restartPolicy") != "Never" {
		t.Error("not a Job")
	}
	container := at(t, doc, "spec", "template", "spec", "containers", 0)
	file := filepath.Join(t.TempDir(), "token")
	vaulttest.WriteFile(t, file, r.jwt, 0o600)
	// The token is projected for Vault alone, to where the variable says.
	volume := at(t, doc, "spec", "template", "spec", "volumes", 0)
	source := at(t, volume, "projected", "sources", 0, "serviceAccountToken")
	mount := at(t, container, "volumeMounts", 0)
	if at(t, mount, "name") != at(t, volume, "name") || at(t, source, "audience") != "vault" {
		t.Error("no token for Vault is mounted")
	}
	env := r.env
	projected := at(t, mount, "mountPath").(string) + "/" + at(t, source, "path").(string)
	for _, e := range at(t, container, "env").([]any) {
		env = append(env, variables(map[string]any{at(t, e, "name").(string): at(t, e, "value")}, r.srv.Addr, map[string]string{projected: file})...)
	}
	if !slices.Contains(env, "VAULTEXEC_JWT_FILE="+file) {
		t.Error("the token is not where it is looked for")
	}
	r.run(t, "kubernetes", env, "^migrate as ada$", append(words(t, at(t, container, "command")), words(t, at(t, container, "args"))...)...)
}

func TestExampleSystemd(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	b, err := os.ReadFile("examples/systemd/report.service")
	if err != nil {
		t.Fatal(err)
	}
	sc := r.srv.Scope(t)
	auth, _, roleID, secretID := sc.AppRole(sc.ReadPolicy("agenticverz", "database"))
	vaulttest.Secret(roleID)
	credentials := t.TempDir()
	vaulttest.WriteFile(t, filepath.Join(credentials, "secret-id"), secretID, 0o600)
	vars := map[string]any{}
	for _, m := range regexp.MustCompile(`(?m)^Environment=([A-Z_]+)=(\S+)$`).FindAllStringSubmatch(string(b), -1) {
		vars[m[1]] = m[2]
	}
	env := append(r.env, variables(vars, r.srv.Addr, map[string]string{"%d": credentials, "3f6e0a2c-report": roleID})...)
	m := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(string(b))
	if m == nil || !strings.Contains(string(b), "\nLoadCredential=secret-id:") {
		t.Fatal("the unit starts nothing")
	}
	r.run(t, "systemd", append(env, "VAULTEXEC_AUTH_MOUNT="+auth), "^report as ada$", strings.Fields(strings.ReplaceAll(m[1], "/usr/local/bin/", ""))...)
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return // not on every machine, and of no use in a container
	}
	dir := t.TempDir()
	for _, name := range []string{"report.service", "report.timer"} {
		unit, err := os.ReadFile(filepath.Join("examples/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		vaulttest.WriteFile(t, filepath.Join(dir, name), strings.ReplaceAll(string(unit), "/usr/local/bin/vaultexec", "/bin/true"), 0o600)
	}
	out, err := exec.Command(analyze, "verify", filepath.Join(dir, "report.service"), filepath.Join(dir, "report.timer")).CombinedOutput()
	if err != nil || strings.Contains(string(out), "report.") {
		t.Errorf("systemd-analyze verify: %v %s", err, out)
	}
	vaulttest.WellConfined(t, analyze, filepath.Join(dir, "report.service"))
}

// GitHub's endpoint for identities is played; Vault checks the JWT that it gives.
func TestExampleGitHubActions(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	needs.Program(t, "curl")
	needs.Program(t, "jq")
	doc := example(t, "github-actions/deploy.yaml")
	job := at(t, doc, "jobs", "deploy")
	if at(t, job, "permissions", "id-token") != "write" {
		t.Error("the job may not ask for its identity")
	}
	identity := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "bearer request-token" || req.URL.Query().Get("audience") != "vault" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"value": r.jwt})
	}))
	defer identity.Close()
	env := append(r.env, variables(at(t, job, "env").(map[string]any), r.srv.Addr, nil)...)
	env = append(env, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=request-token", "ACTIONS_ID_TOKEN_REQUEST_URL="+identity.URL+"/token?v=1")
	// As GitHub starts it.
	r.run(t, "github-actions", env, "^deploying as ada$", "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", at(t, job, "steps", 1, "run").(string))
}

func TestExampleGitLabCI(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	job := at(t, example(t, "gitlab-ci/.gitlab-ci.yml"), "deploy")
	env := append(r.env, variables(at(t, job, "variables").(map[string]any), r.srv.Addr, nil)...)
	for name := range at(t, job, "id_tokens").(map[string]any) {
		env = append(env, name+"="+r.jwt)
	}
	r.run(t, "gitlab-ci", env, "^deploying as ada$", "bash", "-eo", "pipefail", "-c", strings.Join(words(t, at(t, job, "script")), "\n"))
}

// value is one that the rig has written.
func (r *exampleRig) value(t *testing.T, path, key string) string {
	t.Helper()
	return at(t, r.srv.Must(t, "GET", "agenticverz/data/"+path, nil), "data", "data", key).(string)
}

// scanExample runs the scan of an example in a repository that has the secret in its history alone, and in one that has not.
func (r *exampleRig) scanExample(t *testing.T, env []string, path, key string, argv ...string) {
	t.Helper()
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command(needs.Program(t, "git"), args...)
		cmd.Dir, cmd.Env = dir, append(env, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args, err, out)
		}
	}
	scan := func() (string, error) {
		cmd := exec.Command(lookPath(env, argv[0]), argv[1:]...)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		if vaulttest.Redact(string(out)) != string(out) {
			t.Errorf("%v shows a secret: %s", argv, vaulttest.Redact(string(out)))
		}
		return string(out), err
	}
	git("init", "-q")
	vaulttest.WriteFile(t, filepath.Join(dir, "file"), "x\n", 0o600)
	git("add", "-A")
	git("commit", "-q", "-m", "first")
	if out, err := scan(); err != nil {
		t.Errorf("%v: %v: %s", argv, err, out)
	}
	value := r.value(t, path, key)
	vaulttest.WriteFile(t, filepath.Join(dir, "file"), "x\nkey: "+base64.StdEncoding.EncodeToString([]byte(value)), 0o600)
	git("add", "-A")
	git("commit", "-q", "-m", "second")
	git("revert", "--no-edit", "HEAD")
	if out, err := scan(); err == nil || !strings.Contains(out, "found in plain text: 1 of ") {
		t.Errorf("%v: %v: %s", argv, err, out)
	}
}

func TestExampleScanInCI(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	job := at(t, example(t, "gitlab-ci/.gitlab-ci.yml"), "scan")
	env := append(slices.Clone(r.env), variables(at(t, job, "variables").(map[string]any), r.srv.Addr, nil)...)
	for name := range at(t, job, "id_tokens").(map[string]any) {
		env = append(env, name+"="+r.jwt)
	}
	r.scanExample(t, env, "deploy", "DEPLOY_TOKEN", "bash", "-eo", "pipefail", "-c", strings.Join(words(t, at(t, job, "script")), "\n"))

	needs.Program(t, "curl")
	needs.Program(t, "jq")
	identity := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"value": r.jwt})
	}))
	defer identity.Close()
	job = at(t, example(t, "github-actions/scan.yaml"), "jobs", "scan")
	env = append(slices.Clone(r.env), variables(at(t, job, "env").(map[string]any), r.srv.Addr, nil)...)
	env = append(env, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=request-token", "ACTIONS_ID_TOKEN_REQUEST_URL="+identity.URL+"/token?v=1")
	r.scanExample(t, env, "deploy", "DEPLOY_TOKEN", "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", at(t, job, "steps", 1, "run").(string))
}

// The hook refuses a commit with a secret and no other, as git starts it and as pre-commit does.
func TestExamplePreCommit(t *testing.T) {
	t.Parallel()
	r := newExampleRig(t)
	env := append(r.login(t), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	hook, err := filepath.Abs("examples/pre-commit/pre-commit")
	if err != nil {
		t.Fatal(err)
	}
	var ours []map[string]any
	if err := yaml.Unmarshal([]byte(read(t, ".pre-commit-hooks.yaml")), &ours); err != nil || len(ours) != 1 {
		t.Fatalf("%d hooks: %v", len(ours), err)
	}
	theirs := at(t, example(t, "pre-commit/.pre-commit-config.yaml"), "repos", 0, "hooks", 0).(map[string]any)
	value := r.value(t, "app-dev", "API_KEY")
	dir := t.TempDir()
	run := func(argv ...string) (string, error) {
		t.Helper()
		cmd := exec.Command(lookPath(env, argv[0]), argv[1:]...)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		if vaulttest.Redact(string(out)) != string(out) {
			t.Errorf("%v shows a secret: %s", argv, vaulttest.Redact(string(out)))
		}
		return string(out), err
	}
	git := func(args ...string) {
		t.Helper()
		if out, err := run(append([]string{needs.Program(t, "git")}, args...)...); err != nil {
			t.Fatalf("git %s: %v: %s", args, err, out)
		}
	}
	git("init", "-q")
	if err := os.Symlink(hook, filepath.Join(dir, ".git/hooks/pre-commit")); err != nil {
		t.Fatal(err)
	}
	entries := []string{theirs["entry"].(string), ours[0]["entry"].(string) + " --mount agenticverz --path app-dev"}
	vaulttest.WriteFile(t, filepath.Join(dir, "a.js"), "x\n", 0o600)
	git("add", "-A")
	for _, entry := range entries {
		if out, err := run("sh", "-c", entry); err != nil {
			t.Errorf("%s: %v: %s", entry, err, out)
		}
	}
	git("commit", "-q", "-m", "first")
	vaulttest.WriteFile(t, filepath.Join(dir, "a.js"), "x\nkey = '"+value+"'\n", 0o600)
	for _, args := range [][]string{{"-a"}, {"a.js"}} { // of which the second has an index of its own
		out, err := run(append([]string{needs.Program(t, "git"), "commit", "-m", "second"}, args...)...)
		if err == nil || !strings.Contains(out, "a.js:2: app-dev#API_KEY  plain\n") {
			t.Errorf("git commit %s: %v: %s", args, err, out)
		}
	}
	git("add", "-A")
	for _, entry := range entries {
		if out, err := run("sh", "-c", entry); err == nil || !strings.Contains(out, "a.js:2: app-dev#API_KEY  plain\n") {
			t.Errorf("%s: %v: %s", entry, err, out)
		}
	}
	git("checkout", "-q", "HEAD", "a.js")
	vaulttest.WriteFile(t, filepath.Join(dir, "b.js"), "y\n", 0o600)
	git("add", "-A")
	git("commit", "-q", "-m", "second")
}

// Each example has a page of at most a screen, and the list names each.
func TestExamplePages(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob("examples/*/README.md")
	if len(pages) != 11 {
		t.Errorf("%d examples", len(pages))
	}
	for _, file := range pages {
		page, err := os.ReadFile(file)
		if n := strings.Count(string(page), "\n"); err != nil || n > 24 {
			t.Errorf("%s: %d lines, %v", file, n, err)
		}
		if name := filepath.Base(filepath.Dir(file)); !strings.Contains(string(list), "("+name+")") {
			t.Errorf("examples/README.md does not name %s", name)
		}
	}
}
