package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// action.yml and templates/vaultexec.yml, as far as a runner can be stood in for: this test replaces the expressions and starts the
// shells as GitHub's and GitLab's runners do. The release comes from a server of the test, the job's identity, too; Vault is real.

const ciRelease = "v9.8.7"

// ciRig is a release, an identity, and a Vault that knows it.
type ciRig struct {
	*exampleRig
	value    string            // of DEPLOY_TOKEN
	files    map[string][]byte // of the release
	server   *httptest.Server
	asked    int // for the identity
	temp     string
	archive  string
	checksum string
}

func newCIRig(t *testing.T) *ciRig {
	t.Helper()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		needs.Missing(t, "a machine that there are releases for")
	}
	r := &ciRig{exampleRig: newExampleRig(t), value: vaulttest.Canary("ci"), temp: t.TempDir()}
	vaulttest.Secret(r.jwt)
	r.srv.PutKV(t, "agenticverz", "deploy", map[string]string{"DEPLOY_USER": "ada", "DEPLOY_TOKEN": r.value})
	// The archive has the form of tools/dist, whose own test knows it.
	base := "vaultexec_" + ciRelease + "_linux_" + runtime.GOARCH
	program, err := os.ReadFile(vaulttest.BuildStatic(t, "."))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, f := range []struct {
		name    string
		mode    int64
		content []byte
	}{{"LICENSE", 0o644, []byte("x")}, {"vaultexec", 0o711, program}} {
		err = w.WriteHeader(&tar.Header{Name: base + "/" + f.name, Mode: f.mode, Size: int64(len(f.content)), Format: tar.FormatUSTAR})
		if err == nil {
			_, err = w.Write(f.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	r.archive, r.checksum = base+".tar.gz", fmt.Sprintf("%x", sha256.Sum256(b.Bytes()))
	r.files = map[string][]byte{r.archive: b.Bytes(),
		"SHA256SUMS": fmt.Appendf(nil, "%064x  another_%s\n%s  %s\n", 1, r.archive, r.checksum, r.archive)}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			r.asked++
			if req.Header.Get("Authorization") != "bearer request-token" || req.URL.Query().Get("audience") != "vault" || req.URL.Query().Get("v") != "1" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"count": 1, "value": r.jwt})
			return
		}
		content, ok := r.files[strings.TrimPrefix(req.URL.Path, "/releases/"+ciRelease+"/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(content)
	}))
	t.Cleanup(r.server.Close)
	return r
}

// inputs are those of a job that works, but for these.
func (r *ciRig) inputs(authMount string, more map[string]string) map[string]string {
	in := map[string]string{"version": ciRelease, "releases": r.server.URL + "/releases/", "address": r.srv.Addr, "role": "ci", authMount: r.auth,
		"mount": "agenticverz", "paths": "deploy", "run": ciScript}
	maps.Copy(in, more)
	return in
}

// ciScript is what a job runs: it shows its secret, in a form that a mask has to know, and looks for what it should not have.
const ciScript = `test "$(printf %s "$DEPLOY_TOKEN" | sha256sum)" = "$WANT" && echo "has it"
echo "shows <$DEPLOY_TOKEN>"
echo "again '$(printf %s "$DEPLOY_TOKEN" | base64 | tr -d '\n')'" >&2
env | grep -E '^(VAULTEXEC_JWT|VAULT_TOKEN|ACTIONS_ID_TOKEN|INPUT_)' && echo "has too much"
sh -c 'exit 7'`

// environ is that of a job, with this PATH.
func (r *ciRig) environ(path string, more ...string) []string {
	want := fmt.Sprintf("WANT=%x  -", sha256.Sum256([]byte(r.value)))
	return append([]string{"PATH=" + path, "HOME=" + r.home, "GORACE=" + vaulttest.Gorace, want}, more...)
}

// ran wants the outcome of ciScript.
func (r *ciRig) ran(t *testing.T, out string, err error) {
	t.Helper()
	state, ok := err.(*exec.ExitError)
	if !ok || state.ExitCode() != 7 {
		t.Errorf("it ends with %v, want code 7", err)
	}
	for _, want := range []string{"vaultexec v", "has it\n", "shows <***>\n", "again '***"} {
		if !strings.Contains(out, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if strings.Contains(out, "has too much") || vaulttest.Redact(out) != out || strings.Contains(out, "request-token") {
		t.Error("the log shows a secret, or the script has a credential")
	}
	if t.Failed() {
		t.Log(vaulttest.Redact(out))
	}
}

// actionFile is what a composite action says.
type actionFile struct {
	Inputs map[string]struct {
		Description, Default string
		Required             bool
	}
	Outputs map[string]struct{ Description, Value string }
	Runs    struct {
		Using string
		Steps []struct {
			Name, ID, If, Shell, Run string
			Env                      map[string]string
		}
	}
}

func readAction(t *testing.T) (a actionFile) {
	t.Helper()
	b, err := os.ReadFile("action.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	if a.Runs.Using != "composite" || len(a.Runs.Steps) != 2 {
		t.Fatalf("%+v", a.Runs)
	}
	return a
}

var githubExpression = regexp.MustCompile(`\$\{\{ *(.*?) *\}\}`)

// run carries out the steps as GitHub's runner does, and returns the log and the folders that were added to PATH.
func (a actionFile) run(t *testing.T, r *ciRig, inputs map[string]string, environ ...string) (log, path string, err error) {
	t.Helper()
	for name := range inputs {
		if _, ok := a.Inputs[name]; !ok {
			t.Fatalf("there is no input %q", name)
		}
	}
	dir := t.TempDir()
	outputs := map[string]string{}
	evaluate := func(expression string) string {
		if name, ok := strings.CutPrefix(expression, "inputs."); ok {
			if _, there := a.Inputs[name]; !there {
				t.Fatalf("there is no input %q", name)
			}
			if v, given := inputs[name]; given {
				return v
			}
			return a.Inputs[name].Default
		}
		v, ok := outputs[expression]
		if !ok {
			t.Fatalf("nothing says what %q is", expression)
		}
		return v
	}
	var out bytes.Buffer
	for i, step := range a.Runs.Steps {
		if step.If == "inputs.run != ''" {
			if evaluate("inputs.run") == "" {
				continue
			}
		} else if step.If != "" {
			t.Fatalf("this test does not know %q", step.If)
		}
		script := filepath.Join(dir, fmt.Sprint("step", i, ".sh"))
		vaulttest.WriteFile(t, script, step.Run, 0o600)
		files := map[string]string{}
		for _, name := range []string{"GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_ENV"} {
			files[name] = filepath.Join(dir, fmt.Sprint(name, i))
			vaulttest.WriteFile(t, files[name], "", 0o600)
		}
		arch := map[string]string{"amd64": "X64", "arm64": "ARM64"}[runtime.GOARCH]
		cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", script)
		cmd.Dir = r.temp
		cmd.Env = append(r.environ(path+os.Getenv("PATH"), "RUNNER_OS=Linux", "RUNNER_ARCH="+arch, "RUNNER_TEMP="+r.temp), environ...)
		for name, file := range files {
			cmd.Env = append(cmd.Env, name+"="+file)
		}
		for name, value := range step.Env {
			cmd.Env = append(cmd.Env, name+"="+githubExpression.ReplaceAllStringFunc(value, func(e string) string {
				return evaluate(githubExpression.FindStringSubmatch(e)[1])
			}))
		}
		cmd.Stdout, cmd.Stderr = &out, &out
		err = cmd.Run()
		read := func(name string) []string {
			b, rerr := os.ReadFile(files[name])
			if rerr != nil {
				t.Fatal(rerr)
			}
			return strings.Fields(string(b))
		}
		for _, line := range read("GITHUB_OUTPUT") {
			name, value, _ := strings.Cut(line, "=")
			outputs["steps."+step.ID+".outputs."+name] = value
		}
		for _, folder := range read("GITHUB_PATH") {
			path = folder + ":" + path
		}
		if left := read("GITHUB_ENV"); len(left) > 0 {
			t.Errorf("every later step has %v", left)
		}
		if err != nil {
			break
		}
	}
	return out.String(), path, err
}

func TestAction(t *testing.T) {
	t.Parallel()
	needs.Program(t, "curl")
	a, r := readAction(t), newCIRig(t)
	identity := []string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN=request-token", "ACTIONS_ID_TOKEN_REQUEST_URL=" + r.server.URL + "/token?v=1"}
	log, path, err := a.run(t, r, r.inputs("auth-mount", nil), identity...)
	r.ran(t, log, err)
	info, serr := os.Stat(filepath.Join(strings.TrimSuffix(path, ":"), "vaultexec"))
	if serr != nil || info.Mode() != 0o711 {
		t.Errorf("%v %v", info, serr)
	}
	// What is given to the job counts where no input is; the checksum counts in place of the release's own.
	delete(r.files, "SHA256SUMS")
	env := append(identity, "VAULT_ADDR="+r.srv.Addr, "VAULTEXEC_ROLE=ci", "VAULTEXEC_AUTH_MOUNT="+r.auth, "VAULTEXEC_MOUNT=agenticverz", "VAULTEXEC_ENV=DEPLOY_TOKEN=deploy#DEPLOY_TOKEN")
	log, _, err = a.run(t, r, map[string]string{"version": ciRelease, "releases": r.server.URL + "/releases", "checksum": r.checksum, "run": ciScript}, env...)
	r.ran(t, log, err)

	// Nothing is run, and nobody asks for the identity.
	r.asked = 0
	if log, path, err := a.run(t, r, map[string]string{"version": ciRelease, "releases": r.server.URL + "/releases", "checksum": r.checksum}, identity...); err != nil || path == "" || r.asked > 0 {
		t.Errorf("%v, %q, %d times: %s", err, path, r.asked, log)
	}
	for name, c := range map[string]struct {
		inputs map[string]string
		env    []string
		want   string
	}{
		"no checksum":      {nil, identity, "cannot fetch SHA256SUMS"},
		"another checksum": {map[string]string{"checksum": strings.Repeat("0", 64)}, identity, "has the checksum " + r.checksum + ", and not 00000"},
		"no such release":  {map[string]string{"version": "v0.0.1", "checksum": r.checksum}, identity, "cannot fetch vaultexec_v0.0.1"},
		"a version":        {map[string]string{"version": "../v0.0.1"}, identity, "version has to be that of a release"},
		"no identity":      {map[string]string{"checksum": r.checksum}, nil, "the job has no identity: it needs permissions: {id-token: write}"},
		"refused":          {map[string]string{"checksum": r.checksum, "audience": "b&audience=vault"}, identity, "GitHub does not give the job its identity"},
		"no such role":     {map[string]string{"checksum": r.checksum, "role": "none"}, identity, "vaultexec: cannot log in"},
	} {
		log, _, err := a.run(t, r, r.inputs("auth-mount", c.inputs), c.env...)
		if err == nil || !strings.Contains(log, c.want) || strings.Contains(log, "has it") || vaulttest.Redact(log) != log {
			t.Errorf("%s: %v %s", name, err, vaulttest.Redact(log))
		}
	}
	// A line for another file does not count, and neither does a file that was changed.
	r.files["SHA256SUMS"] = fmt.Appendf(nil, "%s  another_%s\n", r.checksum, r.archive)
	if log, path, err := a.run(t, r, r.inputs("auth-mount", nil), identity...); err == nil || !strings.Contains(log, "and not one of SHA256SUMS") || path != "" {
		t.Errorf("%v %s", err, vaulttest.Redact(log))
	}
	if left, err := filepath.Glob(r.temp + "/vaultexec-*/*"); err != nil || slices.ContainsFunc(left, func(f string) bool { return filepath.Base(f) != "bin" }) {
		t.Errorf("left behind: %v", left)
	}
}

// The examples have inputs that there are, and with them they run, but for where the release and Vault are.
func TestExamplesOfActionAndComponent(t *testing.T) {
	t.Parallel()
	needs.Program(t, "curl")
	r := newCIRig(t)
	script, err := os.ReadFile("examples/github-actions/deploy.sh")
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.WriteFile(t, filepath.Join(r.temp, "deploy.sh"), string(script), 0o755)
	of := func(v any, authMount string) map[string]string {
		inputs := map[string]string{}
		for name, value := range v.(map[string]any) {
			inputs[name] = value.(string)
		}
		if !strings.HasPrefix(inputs["version"], "v") || inputs["address"] == "" {
			t.Errorf("%v", inputs)
		}
		maps.Copy(inputs, map[string]string{"version": ciRelease, "releases": r.server.URL + "/releases", "address": r.srv.Addr, authMount: r.auth})
		return inputs
	}
	job := at(t, example(t, "github-actions/deploy-by-action.yaml"), "jobs", "deploy")
	if at(t, job, "permissions", "id-token") != "write" || !strings.HasPrefix(at(t, job, "steps", 1, "uses").(string), "agenticverz/vaultexec@") {
		t.Errorf("%v", job)
	}
	log, _, err := readAction(t).run(t, r, of(at(t, job, "steps", 1, "with"), "auth-mount"),
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=request-token", "ACTIONS_ID_TOKEN_REQUEST_URL="+r.server.URL+"/token?v=1")
	if err != nil || !strings.HasSuffix(log, "\ndeploying as ada\n") {
		t.Errorf("%v %s", err, vaulttest.Redact(log))
	}
	include := at(t, example(t, "gitlab-ci/by-component.gitlab-ci.yml"), "include", 0)
	name, built := component(t, of(at(t, include, "inputs"), "auth_mount"))
	if name != "deploy" || at(t, built, "image") != "registry.example/deploy:1.0.0" || !strings.HasSuffix(at(t, include, "component").(string), "/agenticverz/vaultexec/vaultexec@v0.2.0") {
		t.Errorf("%s %v", name, include)
	}
	out, err := r.gitlab(t, built, []string{"bash", "-eo", "pipefail", "-c"}, os.Getenv("PATH"))
	if err != nil || !strings.HasSuffix(out, "\ndeploying as ada\n") {
		t.Errorf("%v %s", err, vaulttest.Redact(out))
	}
}

// TestActionTakesInputsAsData: whatever an input says, it is no part of a script.
func TestActionTakesInputsAsData(t *testing.T) {
	t.Parallel()
	needs.Program(t, "curl")
	a, r := readAction(t), newCIRig(t)
	identity := []string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN=request-token", "ACTIONS_ID_TOKEN_REQUEST_URL=" + r.server.URL + "/token?v=1"}
	mark := filepath.Join(r.temp, "executed")
	for name := range a.Inputs {
		for _, text := range []string{`"; touch ` + mark + `; "`, "$(touch " + mark + ")", "'; touch " + mark + "; '", "x\ntouch " + mark, "`touch " + mark + "`"} {
			if name == "run" {
				continue // which is to be executed
			}
			log, _, _ := a.run(t, r, r.inputs("auth-mount", map[string]string{name: text}), identity...)
			if vaulttest.Exists(mark) {
				t.Fatalf("%s: %q was executed: %s", name, text, vaulttest.Redact(log))
			}
		}
	}
}

// runTexts are the scripts in a document: of every key with one of these names.
func runTexts(v any, keys ...string) (texts []string) {
	switch v := v.(type) {
	case map[string]any:
		for k, child := range v {
			if slices.Contains(keys, k) {
				switch child := child.(type) {
				case string:
					texts = append(texts, child)
					continue
				case []any:
					for _, line := range child {
						if s, ok := line.(string); ok {
							texts = append(texts, s)
						}
					}
					continue
				}
			}
			texts = append(texts, runTexts(child, keys...)...)
		}
	case []any:
		for _, child := range v {
			texts = append(texts, runTexts(child, keys...)...)
		}
	}
	return texts
}

// No expression of a runner is within a script, where it would be code: not in what others use, and not in this repository's
// own workflows. What is left is what a shell reads, and shellcheck has nothing to say to that.
func TestScriptsOfCIHaveNoExpressions(t *testing.T) {
	t.Parallel()
	shellcheck := needs.Program(t, "shellcheck")
	files := []string{"action.yml", "templates/vaultexec.yml", "examples/github-actions/deploy.yaml", "examples/gitlab-ci/.gitlab-ci.yml"}
	examples, err := filepath.Glob("examples/*/*by-*.y*ml")
	if err != nil {
		t.Fatal(err)
	}
	workflows, err := filepath.Glob(".github/workflows/*")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range slices.Concat(files, examples, workflows) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for dec := yaml.NewDecoder(bytes.NewReader(b)); ; {
			var doc map[string]any
			if err := dec.Decode(&doc); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if runs, ok := doc["runs"]; ok { // the input of that name is no script of the action's
				doc = map[string]any{"runs": runs}
			}
			delete(doc, "spec")
			for _, text := range runTexts(doc, "run", "script", "before_script", "after_script") {
				found++
				if strings.Contains(text, "${{") || strings.Contains(text, "$[[") {
					t.Errorf("%s has an expression in a script: %s", file, text)
				}
				shell := "bash"
				if strings.HasPrefix(file, "templates") {
					shell = "sh"
				}
				cmd := exec.Command(shellcheck, "--shell", shell, "-")
				cmd.Stdin = strings.NewReader(text)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %s", file, out)
				}
			}
		}
	}
	if found < 8 {
		t.Errorf("%d scripts, which cannot be all", found)
	}
}

var gitlabExpression = regexp.MustCompile(`\$\[\[ *inputs\.(\w+) *\]\]`)

// component is the job that GitLab makes of the component, by its name.
func component(t *testing.T, inputs map[string]string) (name string, job map[string]any) {
	t.Helper()
	b, err := os.ReadFile("templates/vaultexec.yml")
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var head struct {
		Spec struct {
			Inputs map[string]struct {
				Description, Regex string
				Default            *string
			}
		}
	}
	var body any
	if err := dec.Decode(&head); err != nil {
		t.Fatal(err)
	}
	if err := dec.Decode(&body); err != nil {
		t.Fatal(err)
	}
	for name := range inputs {
		if _, ok := head.Spec.Inputs[name]; !ok {
			t.Fatalf("there is no input %q", name)
		}
	}
	var fill func(v any) any
	fill = func(v any) any {
		switch v := v.(type) {
		case string: // after the document was read, as GitLab does it
			return gitlabExpression.ReplaceAllStringFunc(v, func(e string) string {
				name := gitlabExpression.FindStringSubmatch(e)[1]
				spec, ok := head.Spec.Inputs[name]
				value, given := inputs[name]
				switch {
				case !ok, !given && spec.Default == nil:
					t.Fatalf("no input %q", name)
				case !given:
					value = *spec.Default
				}
				if !regexp.MustCompile(spec.Regex).MatchString(value) {
					t.Fatalf("GitLab refuses %s %q", name, value)
				}
				return value
			})
		case map[string]any:
			filled := map[string]any{}
			for k, child := range v {
				filled[fill(k).(string)] = fill(child)
			}
			return filled
		case []any:
			for i := range v {
				v[i] = fill(v[i])
			}
		}
		return v
	}
	jobs := fill(body).(map[string]any)
	if len(jobs) != 1 {
		t.Fatalf("%d jobs", len(jobs))
	}
	for name, v := range jobs {
		return name, v.(map[string]any)
	}
	return "", nil
}

// gitlab runs the job as GitLab's runner does, with this shell, and returns its log.
func (r *ciRig) gitlab(t *testing.T, job map[string]any, shell []string, path string) (string, error) {
	t.Helper()
	env := r.environ(path, "TMPDIR="+r.temp, "VAULTEXEC_JWT="+r.jwt)
	for name, v := range at(t, job, "variables").(map[string]any) {
		if at(t, v, "expand") != false {
			t.Errorf("GitLab would look for variables in the value of %s", name)
		}
		env = append(env, name+"="+at(t, v, "value").(string))
	}
	cmd := exec.Command(shell[0], append(shell[1:], strings.Join(words(t, at(t, job, "script")), "\n"))...)
	cmd.Dir, cmd.Env = r.temp, env
	out, err := cmd.CombinedOutput()
	if left, _ := filepath.Glob(r.temp + "/tmp.*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return string(out), err
}

func TestGitLabComponent(t *testing.T) {
	t.Parallel()
	curl, busybox := needs.Program(t, "curl"), needs.Program(t, "busybox")
	r := newCIRig(t)
	run := func(shell []string, path string, more map[string]string) (string, error) {
		inputs := r.inputs("auth_mount", more)
		name, job := component(t, inputs)
		if name != "vaultexec" || at(t, job, "id_tokens", "VAULTEXEC_JWT", "aud") != "vault" {
			t.Errorf("the job %s asks for no identity", name)
		}
		return r.gitlab(t, job, shell, path)
	}
	// An image like Alpine's: busybox, its shell and its wget.
	alpine := t.TempDir()
	if out, err := exec.Command(busybox, "--install", "-s", alpine).CombinedOutput(); err != nil {
		t.Fatalf("busybox --install: %v %s", err, out)
	}
	for name, c := range map[string]struct {
		shell []string
		path  string
	}{
		"bash":    {[]string{"bash", "-eo", "pipefail", "-c"}, os.Getenv("PATH")},
		"sh":      {[]string{"/bin/sh", "-e", "-c"}, filepath.Dir(curl) + ":" + os.Getenv("PATH")},
		"busybox": {[]string{alpine + "/sh", "-e", "-c"}, alpine},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(c.shell, c.path, nil)
			r.ran(t, out, err)
			if out, err := run(c.shell, c.path, map[string]string{"checksum": strings.Repeat("0", 64)}); err == nil || !strings.Contains(out, "has the checksum "+r.checksum+", and not 00000") {
				t.Errorf("another checksum: %v %s", err, vaulttest.Redact(out))
			}
			if out, err := run(c.shell, c.path, map[string]string{"version": "v0.0.1"}); err == nil || !strings.Contains(out, "vaultexec: cannot fetch vaultexec_v0.0.1_linux_") {
				t.Errorf("no such release: %v %s", err, vaulttest.Redact(out))
			}
		})
	}
	mark := filepath.Join(r.temp, "executed")
	for _, name := range []string{"checksum", "releases", "address", "role", "auth_mount", "mount", "paths", "env"} {
		for _, text := range []string{`"; touch ` + mark + `; "`, "$(touch " + mark + ")", "`touch " + mark + "`"} {
			out, _ := run([]string{alpine + "/sh", "-e", "-c"}, alpine, map[string]string{name: text})
			if vaulttest.Exists(mark) {
				t.Fatalf("%s: %q was executed: %s", name, text, vaulttest.Redact(out))
			}
		}
	}
}
