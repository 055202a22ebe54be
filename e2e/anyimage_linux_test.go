package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/agenticverz/vaultexec/internal/podmantest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// deploy/*-any-image.yaml with podman: an image of vaultexec alone, and one that has never heard of it.

// foreignProgram stands for the image's own program. What it should have is in WANT; it prints no secret.
const foreignProgram = `[ "$API_KEY" = "$WANT" ] && echo secret
[ -z "$VAULT_TOKEN$VAULTEXEC_ROLE_ID" ] && echo alone
cat /vaultexec/vaultexec >/dev/null 2>&1 || echo unreadable
( : >/vaultexec/new ) 2>/dev/null || echo unwritable
trap 'echo told; exit 42' TERM
echo ready
while :; do sleep 0.1; done`

// foreignSays is what it prints then.
var foreignSays = []string{"secret", "alone", "unreadable", "unwritable", "ready"}

// anyImage is podman with both images under the names of deploy/, and a Vault with what the file names.
func anyImage(t *testing.T) (p *podmantest.Podman, srv *vaulttest.Server, value string) {
	t.Helper()
	p = podmantest.New(t)
	p.Build(t, "registry.example/vaultexec:0.2.0", `FROM scratch
COPY vaultexec /vaultexec
COPY --chown=65532:65532 install /install
USER 65532:65532
ENTRYPOINT ["/vaultexec"]
`, map[string]string{"vaultexec": vaulttest.BuildStatic(t, "."), "install/": ""})
	p.Foreign(t, "registry.example/foreign:1.0.0", "sh", "cat", "sleep")
	srv = vaulttest.NewDev(t) // the files name the mount agenticverz
	srv.MountKV(t, "agenticverz", 2)
	value = vaulttest.Canary("API_KEY")
	srv.PutKV(t, "agenticverz", "app-prod", map[string]any{"API_KEY": value})
	srv.PutKV(t, "agenticverz", "database", map[string]any{"POSTGRES_PASSWORD": vaulttest.Canary("password")})
	return p, srv, value
}

// says waits until a container has printed that it is ready, and wants it to have said all that.
func says(t *testing.T, p *podmantest.Podman, container string, want []string) {
	t.Helper()
	var lines []string
	last := want[len(want)-1]
	wait.Until(t, time.Minute, container+" to say "+last, func() bool {
		lines = strings.Fields(p.Must(t, "logs", container))
		return slices.Contains(lines, last) || len(lines) > len(want) || p.Must(t, "inspect", "--format", "{{.State.Status}}", container) == "exited\n"
	})
	if !slices.Equal(lines, want) {
		t.Errorf("%s says %q, want %q", container, vaulttest.Redact(strings.Join(lines, " ")), want)
	}
}

// stopped tells a container to end by its pod or by itself, and wants its program's own code, at once.
func stopped(t *testing.T, p *podmantest.Podman, container string, stop ...string) {
	t.Helper()
	begun := time.Now()
	p.Must(t, stop...)
	if d := time.Since(begun); d > 15*time.Second {
		t.Errorf("the stop took %v", d)
	}
	if code := p.Must(t, "inspect", "--format", "{{.State.ExitCode}}", container); code != "42\n" {
		t.Errorf("it ended with %s", code)
	}
	if out := p.Must(t, "logs", container); !strings.Contains(out, "\nready\ntold\n") {
		t.Errorf("it says %s", vaulttest.Redact(out))
	}
}

func TestDeployKubernetesAnyImage(t *testing.T) {
	t.Parallel()
	p, srv, value := anyImage(t)
	p.Pods(t)
	text, err := os.ReadFile("deploy/kubernetes-any-image.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment map[string]any
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc map[string]any
		if err := dec.Decode(&doc); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		deployment = doc
	}
	if deployment["kind"] != "Deployment" {
		t.Fatalf("the last document is a %v", deployment["kind"])
	}
	spec := at(t, deployment, "spec", "template", "spec").(map[string]any)

	// What a cluster has and podman has not: the service account's token, the map with the CA, the name of Vault's service. The
	// requests of the kubernetes method are those of the jwt method, which stands in for it.
	ca := vaulttest.NewCA(t, "cluster")
	proxy := vaulttest.NewTLSProxy(t, srv, ca.Server(t, vaulttest.CertOpts{}))
	sc := srv.Scope(t)
	mount, jwt := jwtMethod(t, srv, sc, sc.ReadPolicy("agenticverz", "app-prod", "database"))
	host := map[string]string{"vault-token": "token", "vault-ca": "ca.crt"}
	for i, v := range at(t, spec, "volumes").([]any) {
		name := at(t, v, "name").(string)
		file, ok := host[name]
		if !ok {
			continue
		}
		dir := t.TempDir()
		content := jwt
		if file == "ca.crt" {
			b, err := os.ReadFile(ca.File)
			if err != nil {
				t.Fatal(err)
			}
			content = string(b)
		}
		vaulttest.WriteFile(t, filepath.Join(dir, file), content, 0o644)
		at(t, spec, "volumes").([]any)[i] = map[string]any{"name": name, "hostPath": map[string]any{"path": dir}}
		delete(host, name)
	}
	if len(host) > 0 {
		t.Fatalf("no volumes %v", host)
	}
	app := at(t, spec, "containers", 0).(map[string]any)
	env := at(t, app, "env").([]any)
	for _, e := range env {
		if e := e.(map[string]any); e["name"] == "VAULT_ADDR" {
			e["value"] = proxy.Addr
		}
	}
	app["env"] = append(env, map[string]any{"name": "VAULTEXEC_AUTH_MOUNT", "value": mount}, map[string]any{"name": "WANT", "value": value})
	app["args"] = []any{"/bin/sh", "-c", foreignProgram}
	spec["hostNetwork"], spec["restartPolicy"] = true, "Never"
	pod, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "pod"}, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.Dir, "pod.json")
	vaulttest.WriteFile(t, file, string(pod), 0o600)
	if out, err := p.Do("kube", "play", file); err != nil {
		t.Fatalf("podman kube play: %v\n%s", err, vaulttest.Redact(out))
	}
	says(t, p, "pod-app", foreignSays)
	stopped(t, p, "pod-app", "pod", "stop", "--time", "30", "pod")
}

// composeService is what the file says of one service, and all that this test makes something of.
type composeService struct {
	Image       string
	Entrypoint  []string
	Command     []string
	Environment map[string]string
	User        string
	Secrets     []string
	Volumes     []string
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Restart     string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	NetworkMode string   `yaml:"network_mode"`
	StopGrace   string   `yaml:"stop_grace_period"`
}

// run is the command line of podman for it.
func (s composeService) run(t *testing.T, name, network string, secrets map[string]string, more ...string) []string {
	t.Helper()
	if s.NetworkMode != "" {
		network = s.NetworkMode
	}
	args := append([]string{"run", "--name", name, "--network", network}, more...)
	if s.ReadOnly {
		args = append(args, "--read-only")
	}
	if s.User != "" {
		args = append(args, "--user", s.User)
	}
	if s.Entrypoint != nil {
		b, err := json.Marshal(s.Entrypoint)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--entrypoint", string(b))
	}
	for option, list := range map[string][]string{"--volume": s.Volumes, "--cap-drop": s.CapDrop, "--security-opt": s.SecurityOpt} {
		for _, v := range list {
			args = append(args, option, strings.Replace(v, "no-new-privileges:true", "no-new-privileges", 1))
		}
	}
	for _, secret := range s.Secrets {
		args = append(args, "--volume", secrets[secret]+":/run/secrets/"+secret+":ro")
	}
	for k, v := range s.Environment {
		args = append(args, "--env", k+"="+v)
	}
	return append(append(args, s.Image), s.Command...)
}

func TestDeployComposeAnyImage(t *testing.T) {
	t.Parallel()
	p, srv, value := anyImage(t)
	text, err := os.ReadFile("deploy/compose-any-image.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sc := srv.Scope(t)
	auth, _, roleID, secretID := sc.AppRole(sc.ReadPolicy("agenticverz", "app-prod", "database"))
	credentials := t.TempDir()
	for name, content := range map[string]string{"app-role-id": roleID, "app-secret-id": secretID} {
		file := filepath.Join(credentials, name)
		vaulttest.WriteFile(t, file, content, 0o600)
		if err := os.Chown(file, 10001, 10001); err != nil {
			t.Fatal(err)
		}
	}
	// As compose replaces variables.
	set := map[string]string{"VAULT_ADDR": srv.Addr, "CREDENTIALS": credentials}
	replaced := regexp.MustCompile(`\$\{(\w+):([?-])([^}]*)\}`).ReplaceAllStringFunc(string(text), func(ref string) string {
		m := regexp.MustCompile(`^\$\{(\w+):([?-])([^}]*)\}$`).FindStringSubmatch(ref)
		if v, ok := set[m[1]]; ok || m[2] == "?" {
			return v
		}
		return m[3]
	})
	var file struct {
		Name     string
		Services map[string]composeService
		Secrets  map[string]struct{ File string }
		Volumes  map[string]any
	}
	dec := yaml.NewDecoder(strings.NewReader(replaced))
	dec.KnownFields(true) // what this test would pass over is an error
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	once, app := file.Services["vaultexec"], file.Services["app"]
	if len(file.Services) != 2 || app.DependsOn["vaultexec"].Condition != "service_completed_successfully" || once.Restart != "no" {
		t.Fatalf("the app does not wait for its vaultexec: %+v", file.Services)
	}
	if _, ok := file.Volumes["vaultexec"]; !ok {
		t.Error("there is no volume")
	}
	secrets := map[string]string{}
	for name, s := range file.Secrets {
		secrets[name] = s.File
	}
	install := once.run(t, "vaultexec", "host", nil, "--rm")
	if out := p.Must(t, install...); !strings.HasPrefix(out, "/install/vaultexec v") {
		t.Errorf("it says %q", out)
	}
	app.Command = []string{"/bin/sh", "-c", foreignProgram}
	app.Environment["WANT"], app.Environment["VAULTEXEC_AUTH_MOUNT"] = value, auth
	limit, err := time.ParseDuration(app.StopGrace)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := p.Do(app.run(t, "app", "host", secrets, "--detach")...); err != nil {
		t.Fatalf("podman run: %v\n%s", err, vaulttest.Redact(out))
	}
	says(t, p, "app", foreignSays)
	p.Must(t, install...) // over the copy that runs
	stopped(t, p, "app", "stop", "--time", fmt.Sprint(int(limit.Seconds())), "app")
}
