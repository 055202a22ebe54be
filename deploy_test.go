package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"

	"github.com/agenticverz/vaultexec/internal/dotenv"
	"github.com/agenticverz/vaultexec/internal/enginetest"
	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/restartlock"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// deployed reads a file of deploy/, with what stands for this machine's paths and ports replaced. Everything that is to be
// replaced must be there: a file that was edited is not tested with what it no longer says.
func deployed(t vaulttest.TB, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("deploy", name))
	if err != nil {
		t.Fatalf("%v", err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(b), replace[i]) {
			t.Fatalf("deploy/%s does not say %q", name, replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(string(b))
}

// production starts a server with deploy/vault.hcl.
func production(t vaulttest.TB) *vaulttest.Server {
	t.Helper()
	ca := vaulttest.NewCA(t, "story CA")
	cert := ca.Server(t, vaulttest.CertOpts{})
	return vaulttest.Configured(t, ca, func(dir string, port int) string {
		data := filepath.Join(dir, "data")
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatalf("%v", err)
		}
		return deployed(t, "vault.hcl", "/var/lib/vault", data,
			"0.0.0.0:8200", fmt.Sprint("127.0.0.1:", port), "0.0.0.0:8201", fmt.Sprint("127.0.0.1:", port+1),
			"https://127.0.0.1:8200", fmt.Sprint("https://127.0.0.1:", port), "https://127.0.0.1:8201", fmt.Sprint("https://127.0.0.1:", port+1),
			"/etc/vault.d/tls/cert.pem", cert.CertFile, "/etc/vault.d/tls/key.pem", cert.KeyFile)
	})
}

// cleanLog fails for a setting that the server does not know.
func cleanLog(t *testing.T, srv *vaulttest.Server) {
	t.Helper()
	log := srv.Log()
	if vaulttest.OpenBao(t) { // which locks no memory, and says so
		log = regexp.MustCompile(`(?m)^.*disable_mlock.*$`).ReplaceAllString(log, "")
	}
	for _, text := range []string{"unknown", "unsupported", "deprecated"} {
		if strings.Contains(log, text) {
			t.Errorf("the server complains about its configuration:\n%s", srv.Log())
		}
	}
}

func TestDeployVaultBoots(t *testing.T) {
	t.Parallel()
	t.Run("production", func(t *testing.T) {
		t.Parallel()
		srv := production(t)
		srv.Init(t, 5, 3)
		srv.Unseal(t)
		cleanLog(t, srv)
		// Telemetry is open, as the file says, and speaks Prometheus.
		if status, _ := srv.DoAs(t, "", "GET", "sys/metrics?format=prometheus", nil); status != http.StatusOK {
			t.Errorf("no metrics: status %d", status)
		}
	})
	t.Run("development", func(t *testing.T) {
		t.Parallel()
		srv := vaulttest.Configured(t, nil, func(dir string, port int) string {
			if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			return deployed(t, "vault-dev.hcl", "127.0.0.1:8200", fmt.Sprint("127.0.0.1:", port), "127.0.0.1:8201", fmt.Sprint("127.0.0.1:", port+1))
		})
		srv.Init(t, 1, 1)
		srv.Unseal(t)
		cleanLog(t, srv)
	})
}

// TestStory runs testdata/story.
func TestStory(t *testing.T) {
	t.Parallel()
	vaultBinary, err := vaulttest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for name, path := range map[string]string{"vault": vaultBinary, "vaultexec": vaulttest.Build(t, ".")} {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	deploy, err := filepath.Abs("deploy")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"server": positive(cmdServer), "learn": positive(cmdLearn), "learn-env": positive(cmdLearnEnv), "operator-token": positive(cmdOperatorToken),
	}
	for name, f := range scriptCommands {
		if !strings.HasPrefix(name, "vault") {
			commands[name] = f
		}
	}
	testscript.RunT(redacted{t}, testscript.Params{
		Condition: func(cond string) (bool, error) { return scriptCondition(cond, 2) },
		Dir:       filepath.Join("testdata", "story"), Cmds: commands, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			srv := production(&setupTB{env: env})
			s := &script{t: env.T(), name: "TestStory", srv: srv, jobs: map[string]*job{}}
			env.Values[scriptKey{}] = s
			env.Defer(s.stopJobs)
			home := filepath.Join(env.WorkDir, ".home")
			state := strings.NewReplacer("https://", "", ":", "_").Replace(srv.Addr)
			for name, value := range map[string]string{
				"PATH": bin + string(filepath.ListSeparator) + env.Getenv("PATH"), "HOME": home, "GORACE": vaulttest.Gorace,
				"VAULT_ADDR": srv.Addr, "VAULT_CACERT": srv.CACert, "VAULTEXEC_MOUNT": "agenticverz",
				"DEPLOY": deploy, "AUDIT_FILE": filepath.Join(env.WorkDir, "audit.log"),
				"OPERATOR": "ada", "OPERATOR_PASSWORD_FILE": filepath.Join(env.WorkDir, "operator-password"),
				"STATE": filepath.Join(home, ".local", "state", "vaultexec", state),
			} {
				env.Setenv(name, value)
			}
			return os.Mkdir(home, 0o700)
		},
	})
}

// cmdServer kills and restarts the server, or puts a new one in its place.
func cmdServer(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 1, "server kill|restart|new")
	switch args[0] {
	case "kill":
		s.srv.Kill()
	case "restart":
		s.srv.Restart(scriptTB{ts})
	case "new":
		s.srv = production(scriptTB{ts})
		ts.Setenv("VAULT_ADDR", s.srv.Addr)
		ts.Setenv("VAULT_CACERT", s.srv.CACert)
	default:
		ts.Fatalf("server kill|restart|new")
	}
}

var learnable = regexp.MustCompile(`[A-Za-z0-9+/=._-]{30,}`)

// cmdLearn makes the secrets in a file known to secretfree.
func cmdLearn(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 1, "learn FILE")
	s.know(learnable.FindAllString(ts.ReadFile(args[0]), -1))
}

// cmdLearnEnv does the same for the values of a .env file.
func cmdLearnEnv(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 1, "learn-env FILE")
	vars, err := dotenv.Parse(ts.ReadFile(args[0]), dotenv.Options{})
	ts.Check(err)
	for _, v := range vars {
		s.know([]string{v})
	}
}

func (s *script) know(secrets []string) {
	s.canary = append(s.canary, secrets...)
	vaulttest.Secret(secrets...)
}

// cmdOperatorToken logs in as the operator, as the Vault CLI would.
func cmdOperatorToken(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 1, "operator-token VARIABLE")
	password := strings.TrimSpace(ts.ReadFile("operator-password"))
	out, err := s.srv.TryMust("POST", "auth/userpass/login/ada", map[string]string{"password": password})
	ts.Check(err)
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	s.know([]string{token})
	ts.Setenv(args[0], token)
}

// A second run finishes what a first one began, wherever that was cut short; and OpenBao's refusal of audit devices by API is
// no failure.
func TestBootstrapIsFinishedBySecondRun(t *testing.T) {
	t.Parallel()
	vaultBinary, err := vaulttest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	srv := production(t)
	dir, bin := t.TempDir(), t.TempDir()
	// The command that FAIL begins fails; OpenBao's refusal is played.
	wrapper := fmt.Sprintf(`#!/bin/sh
if [ -n "$FAIL" ]; then
	case "$*" in "$FAIL"*) exit 9 ;; esac
fi
case "$*" in
'audit enable'*) echo 'cannot enable audit device via API; use declarative, config-based audit device management instead' >&2; exit 2 ;;
esac
exec '%s' "$@"
`, vaultBinary)
	if err := os.WriteFile(filepath.Join(bin, "vault"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	bootstrap, _ := filepath.Abs("deploy/bootstrap")
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(vaulttest.Canary("operator")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(fail string) (string, error) {
		cmd := exec.Command(bootstrap)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + bin + ":" + filepath.Dir(vaulttest.Build(t, ".")) + ":" + os.Getenv("PATH"), "HOME=" + dir, "GORACE=" + vaulttest.Gorace,
			"VAULT_ADDR=" + srv.Addr, "VAULT_CACERT=" + srv.CACert, "FAIL=" + fail,
			"KEYS_FILE=" + filepath.Join(dir, "keys.json"), "CREDENTIALS=" + filepath.Join(dir, "credentials"),
			"OPERATOR=ada", "OPERATOR_PASSWORD_FILE=" + password}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, point := range []string{"operator init -key", "secrets enable", "auth enable", "policy write rotator", "write -f -field=secret_id auth/approle/role/rotator", "auth enable userpass", "write auth/userpass/users/ada", "token revoke"} {
		if out, err := run(point); err == nil {
			t.Errorf("it did not notice the failure of %q:\n%s", point, out)
		}
	}
	out, err := run("")
	if err != nil || !strings.Contains(out, "OpenBao takes audit devices from its configuration file only") || !strings.Contains(out, "the root token is revoked") {
		t.Errorf("%v\n%s", err, vaulttest.Redact(out))
	}
	if out, err = run(""); err != nil || !strings.Contains(out, "everything was done before") {
		t.Errorf("%v\n%s", err, vaulttest.Redact(out))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "credentials", "*-id"))
	if len(files) != 4 {
		t.Errorf("credentials: %v", files)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || len(b) < 30 {
			t.Errorf("%s is empty", f)
		}
	}
}

// TestDeployFilesOfOthers: what somebody has prepared, and could read, gets no key share, credential or snapshot. A script plays
// the Vault: what counts is where its answers go.
func TestDeployFilesOfOthers(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	const fake = `#!/bin/sh
case "$*" in
'operator init -status') [ -e "$STATE/initialized" ] || exit 2 ;;
'operator init'*) : >"$STATE/initialized"; printf '{\n  "unseal_keys_b64": ["a share"],\n  "root_token": "a token"\n}\n' ;;
*role_id*) echo 'a role id' ;;
*secret_id*) echo 'a secret id' ;;
*'snapshot save'*) for file; do :; done; echo 'a snapshot' >"$file" ;;
esac
`
	for name, text := range map[string]string{"vault": fake, "vaultexec": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	deploy, err := filepath.Abs("deploy")
	if err != nil {
		t.Fatal(err)
	}
	type place struct {
		dir, victim string
		*testing.T
	}
	run := func(p *place, script string, args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(deploy, script), args...)
		cmd.Dir = p.dir
		cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + p.dir, "STATE=" + bin + "/" + filepath.Base(p.victim),
			"KEYS_FILE=keys/k.json", "CREDENTIALS=" + filepath.Join(p.dir, "credentials"), "OPERATOR=ada", "OPERATOR_PASSWORD_FILE=" + filepath.Join(p.dir, "password")}
		if err := os.MkdirAll(bin+"/"+filepath.Base(p.victim), 0o700); err != nil {
			p.Fatal(err)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	mode := func(p *place, path string, mode os.FileMode) {
		p.Helper()
		if err := os.Chmod(filepath.Join(p.dir, path), mode); err != nil {
			p.Fatal(err)
		}
	}
	prepare := func(p *place, path string, text string) {
		p.Helper()
		vaulttest.WriteFile(p.T, filepath.Join(p.dir, path), text, 0o600)
		mode(p, path, 0o666)
	}
	link := func(p *place, path string) {
		p.Helper()
		if err := os.Symlink(p.victim, filepath.Join(p.dir, path)); err != nil {
			p.Fatal(err)
		}
	}
	const refused = "others may change"
	for name, c := range map[string]struct {
		prepare func(p *place)
		want    string
	}{
		"nothing":                             {func(*place) {}, ""},
		"a group of the owner's own":          {func(p *place) { mode(p, "keys", 0o775) }, ""},
		"a sticky folder":                     {func(p *place) { mode(p, "keys", 0o777|os.ModeSticky) }, ""},
		"a file for the keys":                 {func(p *place) { prepare(p, "keys/k.json", "") }, ""},
		"a link for the keys":                 {func(p *place) { link(p, "keys/k.json") }, ""},
		"a file for the keys without a token": {func(p *place) { prepare(p, "keys/k.json.new", "") }, ""},
		"a link for them":                     {func(p *place) { link(p, "keys/k.json.new") }, ""},
		"files for the role ids": {func(p *place) {
			prepare(p, "credentials/app-role-id", "")
			prepare(p, "credentials/rotator-role-id", "x")
		}, ""},
		"a link for a role id":          {func(p *place) { link(p, "credentials/app-role-id") }, ""},
		"a file for a secret id":        {func(p *place) { prepare(p, "credentials/app-secret-id", "") }, ""},
		"a secret id of others' choice": {func(p *place) { prepare(p, "credentials/app-secret-id", "chosen") }, ""},
		"the keys' folder":              {func(p *place) { mode(p, "keys", 0o777) }, refused},
		"the credentials' folder":       {func(p *place) { mode(p, "credentials", 0o777) }, refused},
		"a folder above":                {func(p *place) { mode(p, ".", 0o777) }, refused},
		"the password":                  {func(p *place) { mode(p, "password", 0o666) }, refused},
		"another's folder for the keys": {func(p *place) {
			if os.Geteuid() != 0 {
				p.Skip("as root only: makes a folder of another's")
			}
			if err := os.Chown(filepath.Join(p.dir, "keys"), 4242, 4242); err != nil {
				p.Fatal(err)
			}
		}, refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &place{t.TempDir(), filepath.Join(t.TempDir(), strings.Trim(regexp.MustCompile(`[^a-z]+`).ReplaceAllString(name, "-"), "-")), t}
			vaulttest.WriteFile(t, p.victim, "", 0o600)
			vaulttest.WriteFile(t, filepath.Join(p.dir, "password"), "a password", 0o600)
			for _, d := range []string{"keys", "credentials"} {
				if err := os.Mkdir(filepath.Join(p.dir, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			c.prepare(p)
			out, err := run(p, "bootstrap")
			files := map[string]string{"keys/k.json": "a share", "credentials/app-role-id": "a role id", "credentials/app-secret-id": "a secret id", "credentials/rotator-role-id": "a role id", "credentials/rotator-secret-id": "a secret id"}
			if c.want != "" {
				if err == nil || !strings.Contains(out, c.want) {
					t.Errorf("%v\n%s", err, out)
				}
				for f := range files {
					if b, _ := os.ReadFile(filepath.Join(p.dir, f)); len(b) > 0 {
						t.Errorf("%s was written: %q", f, b)
					}
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for f, content := range files {
				b, err := os.ReadFile(filepath.Join(p.dir, f))
				info, lerr := os.Lstat(filepath.Join(p.dir, f))
				if err != nil || lerr != nil || !strings.Contains(string(b), content) || strings.Contains(string(b), "a token") || info.Mode() != 0o600 {
					t.Errorf("%s: %v, %v: %q", f, info, err, b)
				}
			}
			if b, err := os.ReadFile(p.victim); err != nil || len(b) > 0 {
				t.Errorf("what a link leads to holds %q: %v", b, err)
			}
			if left, _ := filepath.Glob(filepath.Join(p.dir, "*", ".*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			// The snapshots' folder, as the others.
			for _, open := range []bool{true, false} {
				m := os.FileMode(0o755)
				if open {
					m = 0o777
				}
				mode(p, "credentials", m)
				out, err := run(p, "backup", "credentials")
				snapshots, _ := filepath.Glob(filepath.Join(p.dir, "credentials", "*.snap"))
				if open != (err != nil && strings.Contains(out, refused) && len(snapshots) == 0) || !open && len(snapshots) != 1 {
					t.Errorf("backup, open %v: %v %v\n%s", open, err, snapshots, out)
				}
			}
		})
	}
}

func TestDeployScripts(t *testing.T) {
	shellcheck := needs.Program(t, "shellcheck")
	if out, err := exec.Command(shellcheck, "deploy/bootstrap", "deploy/backup", "deploy/restore").CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
}

type object = map[string]any

// at is what stands in a document below these keys.
func at(v any, keys ...any) any {
	for _, k := range keys {
		switch k := k.(type) {
		case string:
			m, _ := v.(object)
			v = m[k]
		case int:
			l, _ := v.([]any)
			if k >= len(l) {
				return nil
			}
			v = l[k]
		}
	}
	return v
}

// documents are those of a file of YAML in deploy/.
func documents(t *testing.T, name string) (docs []any) {
	t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(deployed(t, name)))
	dec.KnownFields(true)
	for {
		var d object
		err := dec.Decode(&d)
		if err == io.EOF {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		docs = append(docs, d)
	}
}

// The API server takes the manifest of the restart lock, and its service account may do what a holder does, with all its places.
func TestDeployRestartLock(t *testing.T) {
	t.Parallel()
	k := enginetest.SharedKubernetes(t)
	const ns = "agenticverz"
	k.Must(t, "POST", "/api/v1/namespaces", object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": ns}})
	plural := map[string]string{"Lease": "leases", "ServiceAccount": "serviceaccounts", "Role": "roles", "RoleBinding": "rolebindings", "Deployment": "deployments"}
	create := func(doc object) (int, string) {
		t.Helper()
		version, _ := doc["apiVersion"].(string)
		base := "/apis/" + version
		if version == "v1" {
			base = "/api/v1"
		}
		status, b, err := k.Do("POST", base+"/namespaces/"+ns+"/"+plural[fmt.Sprint(doc["kind"])]+"?fieldValidation=Strict", doc)
		if err != nil {
			t.Fatal(err)
		}
		return status, string(b)
	}
	var leases []string
	var deployment any
	for _, doc := range documents(t, "kubernetes-restart-lock.yaml") {
		doc := doc.(object)
		if doc["kind"] == "Role" { // strict it is
			doc["rule"] = doc["rules"]
			if status, answer := create(doc); status != http.StatusBadRequest || !strings.Contains(answer, "unknown field") {
				t.Errorf("a field that there is not: status %d: %s", status, answer)
			}
			delete(doc, "rule")
		}
		if status, answer := create(doc); status != http.StatusCreated {
			t.Fatalf("%v: status %d: %s", doc["kind"], status, answer)
		}
		switch doc["kind"] {
		case "Lease":
			leases = append(leases, at(doc, "metadata", "name").(string))
		case "Deployment":
			deployment = at(doc, "spec", "template", "spec")
		}
	}
	command, _ := at(deployment, "containers", 0, "command").([]any)
	line := fmt.Sprint(command...)
	lock, limit := optionOf(command, "--restart-lock"), optionOf(command, "--restart-limit")
	if lock != "kubernetes:api" || limit != fmt.Sprint(len(leases)) || strings.Join(leases, " ") != "api-0 api-1 api-2" {
		t.Fatalf("%s for the Leases %v", line, leases)
	}
	pod := k.Pod(t, ns, fmt.Sprint(at(deployment, "serviceAccountName")))
	spec, err := restartlock.Parse(lock)
	if err != nil {
		t.Fatal(err)
	}
	e, err := restartlock.Open(spec, pod.Getenv, pod.Dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for place := range leases {
		if err := e.Check(ctx, place); err != nil {
			t.Errorf("place %d: %v", place, err)
		}
	}
	if v, err := e.Look(ctx, 0); err != nil || !v.Free {
		t.Fatalf("%+v, %v", v, err)
	}
	if taken, err := e.Take(ctx, 0); err != nil || !taken {
		t.Errorf("taken: %v, %v", taken, err)
	}
	if err := e.Release(ctx, 0); err != nil {
		t.Error(err)
	}
}

// optionOf is the value of an option in a command line, "" when it is not there.
func optionOf(command []any, name string) string {
	for i, word := range command[:max(0, len(command)-1)] {
		if word == name {
			return fmt.Sprint(command[i+1])
		}
	}
	return ""
}

// The manifests parse, and say what they are for.
func TestDeployManifests(t *testing.T) {
	compose := documents(t, "compose.yaml")[0]
	if image, _ := at(compose, "services", "vault", "image").(string); !regexp.MustCompile(`^hashicorp/vault:\d+\.\d+\.\d+$`).MatchString(image) {
		t.Errorf("the image of Vault is not pinned: %q", image)
	}
	if f, _ := at(compose, "services", "app", "build", "dockerfile").(string); f == "" || !vaulttest.Exists(f) {
		t.Errorf("the app is built from %q, which there is not", f)
	}
	if at(compose, "services", "vault", "ports", 0) != "127.0.0.1:8200:8200" {
		t.Error("Vault is offered to other machines")
	}
	if docker, err := exec.LookPath("docker"); err == nil && exec.Command(docker, "compose", "version").Run() == nil {
		for _, file := range []string{"compose.yaml", "compose-any-image.yaml"} {
			cmd := exec.Command(docker, "compose", "-f", "deploy/"+file, "config", "-q")
			cmd.Env = append(os.Environ(), "CREDENTIALS=/nowhere", "VAULT_ADDR=https://vault.example:8200")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("docker compose config: %s", out)
			}
		}
	}
	kube := documents(t, "kubernetes.yaml")
	if len(kube) != 2 || at(kube[1], "kind") != "Deployment" {
		t.Fatalf("%d documents", len(kube))
	}
	pod := at(kube[1], "spec", "template", "spec")
	if at(pod, "containers", 0, "terminationMessagePolicy") != "FallbackToLogsOnError" {
		t.Error("kubectl describe would not show why vaultexec gave up")
	}
	if at(pod, "serviceAccountName") != at(kube[0], "metadata", "name") {
		t.Error("the pod has another service account")
	}
}

// The unit says what its comments say, systemd understands it, and vaultexec takes the options: of the line that starts it, and
// of those that may stand in its place.
func TestDeployUnit(t *testing.T) {
	t.Parallel()
	analyze := needs.Program(t, "systemd-analyze")
	unit := deployed(t, "app.service")
	for _, want := range []string{"KillMode=mixed", "Type=notify", "NotifyAccess=main", "WatchdogSec=30", "TimeoutStartSec=90",
		"RestartPreventExitStatus=121 122 123 125 126 127", "LoadCredential=", "Environment=VAULTEXEC_WAIT="} {
		if !strings.Contains(unit, "\n"+want) {
			t.Errorf("the unit lacks %s", want)
		}
	}
	starts := regexp.MustCompile(`(?m)^(?:# )?ExecStart=/usr/local/bin/vaultexec (.*) -- /usr/local/bin/app$`).FindAllStringSubmatch(unit, -1)
	if len(starts) != 3 || strings.Count(unit, "ExecStart=") != 3 {
		t.Fatalf("%d ways to start", len(starts))
	}
	verify := func(t *testing.T, text string) string {
		file := filepath.Join(t.TempDir(), "app.service")
		vaulttest.WriteFile(t, file, strings.NewReplacer("/usr/local/bin/vaultexec", "/bin/true", "/usr/local/bin/app", "/bin/true").Replace(text), 0o600)
		vaulttest.WellConfined(t, analyze, file)
		out, err := exec.Command(analyze, "verify", file).CombinedOutput()
		if err != nil || strings.Contains(string(out), "app.service:") {
			return fmt.Sprintf("%v %s", err, out)
		}
		return ""
	}
	for _, start := range starts {
		t.Run(start[1], func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(unit, "\nExecStart=", "\n# ExecStart=", 1)
			line := "\n# " + strings.TrimPrefix(start[0], "# ") + "\n"
			if strings.Count(text, line) != 1 {
				t.Fatalf("no line %q", line)
			}
			if out := verify(t, strings.Replace(text, line, "\n"+strings.TrimPrefix(line, "\n# "), 1)); out != "" {
				t.Errorf("systemd-analyze verify: %s", out)
			}
			options := strings.Fields(strings.ReplaceAll(start[1], " :8000 ", " unix:"+filepath.Join(t.TempDir(), "socket")+" "))
			cmd := exec.Command(vaulttest.Build(t, "."), append(options, "--wait", "0", "--", "true")...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x", "VAULTEXEC_WAIT=10m",
				"VAULTEXEC_MOUNT=agenticverz", "VAULTEXEC_PATH=app-prod,database", "GORACE=" + vaulttest.Gorace}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // start-first refuses a terminal that is shared
			if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 120 {
				t.Errorf("it ends with %v, and not because there is no Vault: %s", cmd.ProcessState, out)
			}
		})
	}
	for _, change := range [][2]string{{"NotifyAccess=main", "NotifyAccess=mine"}, {"WatchdogSec=30", "WatchdogSec=often"}, {"Type=notify", "Type=notified"}} {
		if verify(t, strings.Replace(unit, change[0], change[1], 1)) == "" {
			t.Errorf("systemd-analyze takes %s", change[1])
		}
	}
}
