package cli

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// FuzzConfig: whatever stands in a configuration file, reading it and using what it says neither panics nor takes long, and no
// error repeats a token that stands in it, as a key, as a value or in between. TOKEN stands for one.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"", "# nothing\n", "mount: a\npaths: [a, b]\nenv: {A: x#y}\n", "mount: TOKEN\n", "TOKEN: x\n", "? [TOKEN]\n: x\n", "path: [TOKEN, [TOKEN]]\n",
		"paths: &a [x]\nprofiles: {d: {path: *a}}\n", "a: &a [*a]\n", "<<: {a: b}\n", "wait: TOKEN\nkv-version: 'TOKEN '\non-change: TOKEN x\nstop-signal: -TOKEN\n",
		"env:\n- TOKEN\n- TOKEN=x\n- A=TOKEN\n- A=${TOKEN}\n- A=${x#TOKEN|TOKEN}\n", "file: [TOKEN, A=TOKEN]\ncommand: [TOKEN, 1, true, ~]\n", "command: TOKEN\n", "profiles: {TOKEN: {TOKEN: TOKEN}}\n",
		"a: !!float TOKEN\nb: !TOKEN x\nc: !!binary TOKEN\n", "%TOKEN\n---\n", "a: *TOKEN\n", "a: 'TOKEN\n", "a: [TOKEN\n", "---\na: b\n---\nTOKEN\n", "address: http://x:TOKEN@h\nproxy: TOKEN\n",
		"auth: TOKEN\nrole: TOKEN\nusername: a/TOKEN\nauth-mount: //TOKEN\nmount: //TOKEN\nprefix: TOKEN-\nonly: ['[TOKEN']\n", "token-file: TOKEN\nca-cert: x/TOKEN\n", "\xff\xfeT\x00", "a: \"\\0\"\n",
		strings.Repeat("[", 20000), strings.Repeat("? ", 5000), strings.Repeat("a: &a\n ", 500), strings.Repeat("- ", 3000) + "x", "a: " + strings.Repeat("\"", 3000),
	} {
		f.Add([]byte(s))
	}
	token := "hvs." + vaulttest.Canary("token")[:28]
	token = strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return 'x'
	}, token)
	if !vault.IsToken(token) {
		f.Fatal("the stand-in is no token")
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		text := strings.ReplaceAll(string(src), "TOKEN", token)
		if len(text) > maxConfig {
			return
		}
		start := time.Now()
		c, faults := parseConfig("conf/vaultexec.yaml", []byte(text))
		for _, e := range faults {
			checkText(t, e, token)
			if e.Kind != fault.Usage {
				t.Errorf("a failure of kind %s", e.Kind)
			}
		}
		if len(faults) > 0 {
			return
		}
		for _, sec := range append([]section{c.top}, values(c.profiles)...) {
			a := newApp([]string{"HOME=/nonexistent", "VAULT_TOKEN=x"}, io.Discard, io.Discard)
			s := &settings{opts: options, given: newGiven(), environ: a.getenv, file: sec}
			sec["env-file"] = nil // reads
			a.launchOptions(s)
			a.session(s)
			for _, e := range s.faults {
				checkText(t, e, token)
			}
		}
		if d := time.Since(start); d > 20*time.Second { // a hang, not a slow machine
			t.Errorf("it took %s", d)
		}
	})
}

func values[K comparable, V any](m map[K]V) (list []V) {
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

func checkText(t *testing.T, e *fault.Error, secret string) {
	t.Helper()
	if strings.Contains(e.Error()+e.Hint, secret) {
		t.Errorf("an error repeats a token: %s", strings.ReplaceAll(e.Error()+"; "+e.Hint, secret, "TOKEN"))
	}
	if e.What == "" || strings.HasSuffix(e.Error(), ": ") {
		t.Errorf("an empty text: %q", e.Error())
	}
}

// Every option with a variable may stand in a file, and is found there with its line.
func TestConfigKnowsEveryOption(t *testing.T) {
	t.Parallel()
	for _, o := range configOptions() {
		value := "1"
		c, faults := parseConfig("f.yaml", []byte("# comment\n"+o.name+": '"+value+"'\n"))
		if words := strings.Split(o.arg, "|"); len(faults) > 0 && len(words) > 1 {
			value = words[0]
			c, faults = parseConfig("f.yaml", []byte("# comment\n"+o.name+": "+value+"\n"))
		}
		if len(faults) > 0 {
			t.Errorf("%s: %v", o.name, fault.Join(faults))
			continue
		}
		s := &settings{opts: []option{o}, given: newGiven(), environ: func(string) string { return "" }, file: c.top}
		got := s.one(o.name)
		if o.arg == "FILE" || o.arg == "DIR" {
			value = "1" // in the folder of the file, which is this one
		}
		if got.text != value || got.place != "f.yaml:2" || got.origin != fromFile {
			t.Errorf("%s: %+v", o.name, got)
		}
		s.environ = func(string) string { return "variable" }
		if got := s.one(o.name); got.origin != fromVariable || got.text != "variable" {
			t.Errorf("%s: a variable does not win: %+v", o.name, got)
		}
		_ = flagValue{s.given, o}.Set("option")
		if got := s.one(o.name); got.origin != fromOption || got.text != "option" {
			t.Errorf("%s: an option does not win: %+v", o.name, got)
		}
	}
	for _, name := range []string{"help", "version", "dry-run", "config", "profile", "reveal", "overwrite", "json"} {
		if _, faults := parseConfig("f.yaml", []byte(name+": true\n")); len(faults) != 1 {
			t.Errorf("%s may stand in a file", name)
		}
	}
}

// Values are what they look like, whatever YAML takes them for; names of files belong to the folder of the file.
func TestConfigValues(t *testing.T) {
	t.Parallel()
	c, faults := parseConfig("/etc/app/v.yaml", []byte(`
wait: 010
kv-version: 2
paths:
  - 1.10
  - 0x1F
  - 2001-12-14
  - "a: b"
command: [a, 8000, true, 1e3, ~x, "", "two  words", 'it''s']
ca-cert: ca.pem
ca-path: /abs
client-key: ../key
on-change-hook: ./hook
file: [A, B=run/b, "C:base64=/c"]
env-files: [x.env]
username: ""
watch: false
profiles:
  empty:
`))
	if len(faults) > 0 {
		t.Fatal(fault.Join(faults))
	}
	for name, want := range map[string]string{
		"wait": "010", "kv-version": "2", "path": "1.10|0x1F|2001-12-14|a: b", "command": "a|8000|true|1e3|~x||two  words|it's",
		"ca-cert": "/etc/app/ca.pem", "ca-path": "/abs", "client-key": "/etc/key", "on-change-hook": "/etc/app/hook", "file": "A|B=/etc/app/run/b|C:base64=/c", "env-file": "/etc/app/x.env",
		"username": "", "watch": "false",
	} {
		var got []string
		for _, v := range c.top[name] {
			got = append(got, v.text)
		}
		if strings.Join(got, "|") != want || c.top[name] == nil {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if c.profiles["empty"] == nil {
		t.Error("an empty profile is none")
	}
	if c, faults := parseConfig("v.yaml", []byte(`{"path": [], "profiles": {"a": {"on-change-hook": "notify"}}}`)); len(faults) > 0 || c.top["path"] == nil || c.profiles["a"]["on-change-hook"][0].text != "notify" {
		t.Errorf("JSON: %v %v", c, faults)
	}
}

// What logs in is said by the option, else by a variable, else by the file, also where they name different methods.
func TestConfigLogin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file, args, environ string
		want                      vault.Method
	}{
		{"file", "role-id: a\nsecret-id-file: b\n", "", "", vault.AuthAppRole},
		{"half of each", "role-id: a\n", "", "VAULTEXEC_SECRET_ID=b", vault.AuthAppRole},
		{"a token wins over the file's method", "role-id: a\nsecret-id-file: b\n", "", "VAULT_TOKEN=x", vault.AuthToken},
		{"a variable's method wins over the file's token", "token-file: a\n", "", "VAULTEXEC_JWT=x", vault.AuthJWT},
		{"an option's wins over the file's token", "token-file: a\n", "--jwt-file=x", "", vault.AuthJWT},
		{"an option's wins over the file's method", "role-id: a\n", "--jwt-file=x", "", vault.AuthJWT},
		{"the method that the file names", "auth: approle\nrole-id: a\nsecret-id-file: b\n", "", "VAULT_TOKEN=x", vault.AuthAppRole},
		{"an option over that", "auth: approle\nrole-id: a\n", "--auth=token", "VAULT_TOKEN=x", vault.AuthToken},
		{"the secret id's form", "auth: approle\nrole-id: a\nwrapped-secret-id-file: b\n", "", "VAULTEXEC_SECRET_ID=x", vault.AuthAppRole},
	} {
		conf, faults := parseConfig("f.yaml", []byte(c.file))
		if len(faults) > 0 {
			t.Fatal(fault.Join(faults))
		}
		a := newApp([]string{c.environ}, io.Discard, io.Discard)
		s := &settings{opts: options, given: newGiven(), environ: a.getenv, file: conf.top}
		if name, value, ok := strings.Cut(strings.TrimPrefix(c.args, "--"), "="); ok {
			_ = flagValue{s.given, s.option(name)}.Set(value)
		}
		login := a.loginConfig(s, false)
		if login.Method != c.want || len(s.faults) > 0 {
			t.Errorf("%s: %s %v", c.name, login.Method, fault.Join(s.faults))
		}
		if c.name == "the secret id's form" && (login.SecretID == nil || login.WrappedSecretID != nil) {
			t.Errorf("%s: the file's is taken", c.name)
		}
	}
}

// A file that was named by mistake is not shown.
func TestConfigOfAnotherKind(t *testing.T) {
	for _, src := range []string{"root:$6$salt$hash:20228:0:99999:7::\n", "postgres://ann:pass@db: x\n", "two words: x\n"} {
		_, faults := parseConfig("file", []byte(src))
		if len(faults) != 1 || !strings.HasPrefix(faults[0].What, "file:1: a key is no option") {
			t.Errorf("%d failures, %v", len(faults), faults)
		}
	}
	if _, faults := parseConfig("file", []byte("pth: x\n")); len(faults) != 1 || !strings.Contains(faults[0].What, "pth is no option") {
		t.Errorf("a word is not named: %v", faults)
	}
}
