package environ

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// secretOf makes what fetch gives for one --path, from JSON.
func secretOf(t testing.TB, name, data string) Fetched {
	t.Helper()
	var values map[string]vault.Value
	if err := json.Unmarshal([]byte(data), &values); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	p := vault.Path{Mount: "m", Name: name}
	return Fetched{Source: Source{Path: p}, Secret: &vault.Secret{Path: p, Version: 3, Values: values}}
}

func keyOf(t testing.TB, variable, key string, f Fetched) Fetched {
	t.Helper()
	f.Source.Name, f.Source.Key = variable, key
	return f
}

func TestBuildEnv(t *testing.T) {
	app := secretOf(t, "app", `{"B":"b","a":"a","LIST":[1]}`)
	db := secretOf(t, "db", `{"B":"other","D":""}`)
	absent := Fetched{Source: Source{Path: vault.Path{Mount: "m", Name: "gone"}, Optional: true}}
	inherited := []string{"PATH=/bin", "B=old", "VAULT_TOKEN=t", "X=1", "X=2", "NOEQ", "NOEQ=yes", "HOME=/h", "BAO_TOKEN", "VAULTEXEC_JWT=j"}
	for _, c := range []struct {
		name  string
		got   []Fetched
		rules Rules
		want  []string // the environment
		strip []string
	}{
		{"plain", []Fetched{app}, Rules{}, []string{"PATH=/bin", "X=1", "NOEQ", "NOEQ=yes", "HOME=/h", "B=b", "LIST=[1]", "a=a"}, []string{"BAO_TOKEN", "VAULTEXEC_JWT", "VAULT_TOKEN"}},
		{"keep existing", []Fetched{app}, Rules{KeepExisting: true, KeepToken: true}, []string{"PATH=/bin", "B=old", "VAULT_TOKEN=t", "X=1", "NOEQ", "NOEQ=yes", "HOME=/h", "BAO_TOKEN", "VAULTEXEC_JWT=j", "LIST=[1]", "a=a"}, nil},
		{"clean", []Fetched{db}, Rules{CleanEnv: true, Pass: []string{"X"}}, []string{"PATH=/bin", "X=1", "HOME=/h", "B=other", "D="}, nil},
		{"a passed credential is stripped all the same", nil, Rules{CleanEnv: true, Pass: []string{"VAULT_*"}}, []string{"PATH=/bin", "HOME=/h"}, []string{"VAULT_TOKEN"}},
		{"first", []Fetched{app, db}, Rules{CleanEnv: true, OnCollision: CollisionFirst}, []string{"PATH=/bin", "HOME=/h", "B=b", "D=", "LIST=[1]", "a=a"}, nil},
		{"last", []Fetched{app, db}, Rules{CleanEnv: true, OnCollision: CollisionLast}, []string{"PATH=/bin", "HOME=/h", "B=other", "D=", "LIST=[1]", "a=a"}, nil},
		{"prefix, capitals, filter", []Fetched{app, absent, keyOf(t, "one", "B", db)}, Rules{CleanEnv: true, Prefix: "P_", Upcase: true, Only: []string{"[a-zA-Z]"}, Exclude: []string{"B"}}, []string{"PATH=/bin", "HOME=/h", "P_A=a", "one=other"}, nil},
		{"the same secret twice", []Fetched{app, app}, Rules{CleanEnv: true}, []string{"PATH=/bin", "HOME=/h", "B=b", "LIST=[1]", "a=a"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := slices.Clone(inherited)
			env, err := Build(c.got, c.rules, inherited)
			if err != nil {
				t.Fatal(err)
			}
			if got := env.Strings(); !slices.Equal(got, c.want) {
				t.Errorf("\n got %q\nwant %q", got, c.want)
			}
			if !slices.Equal(env.Stripped, c.strip) {
				t.Errorf("stripped %q, want %q", env.Stripped, c.strip)
			}
			if !slices.Equal(before, inherited) {
				t.Error("the inherited environment was changed")
			}
			again, err := Build(c.got, c.rules, inherited)
			if err != nil || !env.Equal(again) {
				t.Error("the same input gives another environment")
			}
		})
	}
}

func TestBuildEnvFaults(t *testing.T) {
	got := []Fetched{
		secretOf(t, "bad", `{"a-b":"1","1x":"1","":"1","LD_X":"1","NULL":null,"NUL":"a\u0000","OK":"1"}`),
		secretOf(t, "twin", `{"OK":"1"}`),
		keyOf(t, "MISSING", "KO", secretOf(t, "twin", `{"OK":"1"}`)),
		secretOf(t, "long", `{"L":"`+strings.Repeat("x", maxArgStrlen-2)+`"}`),
	}
	env, err := Build(got, Rules{}, nil)
	if env != nil {
		t.Error("an environment comes with the failures")
	}
	text := ""
	for _, f := range fault.All(err) {
		text += f.Error() + "\n"
	}
	for _, want := range []string{
		`cannot use m/bad@3#a-b: "a-b" is not a variable name`, `m/bad@3#1x: "1x" is`, `m/bad@3#: "" is not`, `m/bad@3#LD_X: LD_X changes which code runs`,
		"m/bad@3#NULL: the value is null", "m/bad@3#NUL: the value holds a NUL byte", "cannot set OK: both m/bad@3#OK and m/twin@3#OK give it",
		"cannot use m/twin@3#KO: no such key", "m/long@3#L: L would be 131073 bytes; a variable may have 131072",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if n := len(fault.All(err)); n != 9 {
		t.Errorf("%d failures, want 9", n)
	}
}

func TestDangerousNames(t *testing.T) {
	for _, n := range []string{"LD_PRELOAD", "LD_AUDIT", "LD_X", "DYLD_INSERT_LIBRARIES", "PATH", "IFS", "BASH_ENV", "NODE_OPTIONS", "PYTHONPATH", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GCONV_PATH", "GLIBC_TUNABLES", "HOME", "SHELL"} {
		if !IsDangerous(n, nil) {
			t.Errorf("%s is not refused", n)
		}
		if IsDangerous(n, []string{"X", n}) || IsDangerous(n, []string{"*"}) {
			t.Errorf("%s cannot be allowed", n)
		}
	}
	for _, n := range []string{"API_KEY", "LD", "XLD_PRELOAD", "ld_preload", "PATHS", "DATABASE_URL", "PORT", "TZ"} {
		if IsDangerous(n, nil) {
			t.Errorf("%s is refused", n)
		}
	}
	seen := map[string]bool{}
	for _, g := range DangerousNames() {
		for n := range strings.FieldsSeq(g[1]) {
			if begin := strings.TrimSuffix(n, "*"); !IsName(begin) || seen[n] {
				t.Errorf("%q is no name or prefix, or appears twice", n)
			}
			seen[n] = true
		}
	}
}

// Lists that others have published, word by word.
var (
	// glibc's sysdeps/generic/unsecvars.h, and other names that its dynamic linker reads.
	unsecvars = `GCONV_PATH GETCONF_DIR GLIBC_TUNABLES HOSTALIASES LD_AUDIT LD_BIND_NOT LD_BIND_NOW LD_DEBUG LD_DEBUG_OUTPUT LD_DYNAMIC_WEAK LD_HWCAP_MASK LD_LIBRARY_PATH
		LD_ORIGIN_PATH LD_PRELOAD LD_PROFILE LD_PROFILE_OUTPUT LD_SHOW_AUXV LD_VERBOSE LD_WARN LOCALDOMAIN LOCPATH MALLOC_TRACE NIS_PATH NLSPATH RESOLV_HOST_CONF RES_OPTIONS TMPDIR TZDIR`
	// sudo's initial_badenv_table (plugins/sudoers/env.c); X stands for what its * takes.
	sudoDelete = `LDR_X BASH_FUNC_X IFS CDPATH LOCALDOMAIN RES_OPTIONS HOSTALIASES NLSPATH PATH_LOCALE LD_X _RLDX SHLIB_PATH LIBPATH AUTHSTATE DYLD_X KRB5_CONFIGX KRB5_KTNAME VAR_ACE USR_ACE DLC_ACE TERMINFO
		TERMINFO_DIRS TERMPATH TERMCAP ENV BASH_ENV PS4 GLOBIGNORE BASHOPTS SHELLOPTS JAVA_TOOL_OPTIONS PERLIO_DEBUG PERLLIB PERL5LIB PERL5OPT PERL5DB FPATH NULLCMD READNULLCMD ZDOTDIR TMPPREFIX
		PYTHONHOME PYTHONPATH PYTHONINSPECT PYTHONUSERBASE RUBYLIB RUBYOPT`
	sudoCheck = `COLORTERM LANG LANGUAGE LC_ALL LC_X LINGUAS TERM`
	// Variables that were seen to run code in a plain command, or are read as options by the program named in the manual.
	tried = `npm_config_node_options NPM_CONFIG_SCRIPT_SHELL Npm_Config_Git MAKEFLAGS GNUMAKEFLAGS PS1 TAR_OPTIONS RSYNC_CONNECT_PROG RSYNC_RSH LESS LESSOPEN VIMINIT EXINIT PSQL_PAGER PSQLRC
		GIT_DIR GIT_CONFIG_PARAMETERS PYTEST_ADDOPTS GOFLAGS RUSTC_WRAPPER CARGO_BUILD_RUSTC XDG_CONFIG_HOME MAILPATH OMP_TOOL_LIBRARIES BASH_FUNC_ls UNZIP XZ_OPT PIP_INDEX_URL`
	data = `HTTP_PROXY https_proxy NO_PROXY SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE CURL_CA_BUNDLE GIT_SSL_CAINFO KUBECONFIG DOCKER_HOST AWS_ACCESS_KEY_ID AWS_CA_BUNDLE
		AWS_SECRET_ACCESS_KEY GOOGLE_APPLICATION_CREDENTIALS PGHOST PGPASSWORD PGSSLKEY MYSQL_PWD REDIS_URL NPM_TOKEN NODE_AUTH_TOKEN CARGO_REGISTRY_TOKEN COMPOSER_AUTH BUNDLE_GITHUB__COM GIT_TOKEN
		GH_TOKEN HOMEBREW_GITHUB_API_TOKEN TF_VAR_x MIX_ENV RAILS_ENV NODE_ENV APP_ENV DJANGO_SETTINGS_MODULE LISTEN_ADDR NOTIFY_URL WATCHDOG_URL GRAFANA_TOKEN`
)

func TestPublishedNames(t *testing.T) {
	for name := range strings.FieldsSeq(unsecvars + " " + sudoDelete + " " + tried) {
		if !IsDangerous(name, nil) {
			t.Errorf("%s is not refused", name)
		}
		if IsDangerous(name, []string{name}) {
			t.Errorf("%s cannot be allowed", name)
		}
	}
	for name := range strings.FieldsSeq(sudoCheck) {
		for value, refused := range map[string]bool{"de_DE.UTF-8": false, "xterm-256color": false, "/tmp/evil": true, "%s%n": true, "../x": true} {
			if why, _ := refusal(name, value, nil); (why != "") != refused {
				t.Errorf("%s=%s: %q", name, value, why)
			}
		}
	}
	for value, refused := range map[string]bool{"Europe/Berlin": false, "UTC": false, ":America/New_York": false, "CET-1CEST,M3.5.0,M10.5.0/3": false, "/tmp/evil": true, ":/tmp/evil": true, "../../tmp/evil": true} {
		if why, _ := refusal("TZ", value, nil); (why != "") != refused {
			t.Errorf("TZ=%s: %q", value, why)
		}
	}
	if why, _ := refusal("ANYTHING", "() { :; }; touch /tmp/evil", nil); why == "" {
		t.Error("a function of a shell is not refused")
	}
	for name := range strings.FieldsSeq(data) {
		if why, _ := refusal(name, "value", nil); why != "" {
			t.Errorf("%s is refused: %s", name, why)
		}
	}
	for _, name := range []string{"VAULT_ADDR", "VAULT_TOKEN", "VAULT_X", "BAO_ADDR", "VAULTEXEC_PATH", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if why, _ := refusal(name, "value", []string{"*", name}); why == "" {
			t.Errorf("%s is taken from a secret", name)
		}
	}
}

// TestCheckSize: what passes is taken by the kernel, and what is refused is close to what the kernel refuses.
func TestCheckSize(t *testing.T) {
	const stack = 1 << 20 // a quarter is 256 KiB
	argv := []string{"/bin/true", strings.Repeat("a", 1000)}
	at := func(size int) *Env {
		env := &Env{inherit: []string{"SMALL=1"}}
		for i := 0; size > 0; i++ {
			n := min(size, 100000)
			env.Vars = append(env.Vars, Variable{Name: fmt.Sprintf("V%d", i), Value: vault.NewText(strings.Repeat("x", n)), Origin: "m/p#k"})
			size -= n
		}
		return env
	}
	low, high := 0, 1<<20 // the largest that passes
	for high-low > 1 {
		mid := (low + high) / 2
		if CheckSize(at(mid), argv, stack) == nil {
			low = mid
		} else {
			high = mid
		}
	}
	start := func(size int) error {
		// sh is started under this process's limit, and the limit that it sets holds for its own exec.
		cmd := exec.Command("/bin/sh", "-c", `ulimit -s 1024; exec "$0" "$@"`, argv[0], argv[1])
		cmd.Env = at(size).Strings()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := start(low); err != nil {
		t.Errorf("%d bytes pass the check and not the kernel: %v", low, err)
	}
	if err := start(low + 16384); err == nil {
		t.Errorf("%d bytes fail the check, and 16 KiB more pass the kernel", low)
	}
	f := fault.Of(CheckSize(at(low+1), argv, stack))
	var taken, limit int
	if _, err := fmt.Sscanf(f.Why, "arguments and environment take %d bytes of at most %d", &taken, &limit); err != nil || taken != limit+1 {
		t.Errorf("%d bytes are too many by one: %s", low+1, f.Why)
	}
	if f.Kind != fault.Value || !strings.Contains(f.Hint, "V0 (m/p#k, 100000 bytes), V1 (m/p#k, 100000 bytes), V2 (m/p#k, ") || strings.Contains(f.Error()+f.Hint, "xxx") {
		t.Errorf("%v; %s", f, f.Hint)
	}
}

// FuzzBuildEnv: whatever Vault and the caller hold, either there is an environment that execve takes, each name in it once,
// or there are failures that show no value.
func FuzzBuildEnv(f *testing.F) {
	f.Add("KEY", "value", "other", "value2", "KEY=old\x00VAULT_TOKEN=t\x00X", "", false, false)
	f.Add("a-b", "v", "LD_PRELOAD", "x", "=odd\x00==\x00\x00A=1\x00A=2", "P_", true, true)
	f.Add("", "", "NUL", "a\x00b", "PATH=/bin", "1", false, true)
	f.Add("ключ", "\xff", "key", "v", "key=1\x00KEY=2", "", true, false)
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, inherited, prefix string, upcase, keep bool) {
		const canary = "canary-that-is-never-printed-"
		v1, v2 = canary+v1, canary+v2
		encode := func(k, v string) string {
			b, _ := json.Marshal(map[string]string{k: v})
			return string(b)
		}
		env, err := Build(
			[]Fetched{secretOf(t, "one", encode(k1, v1)), secretOf(t, "two", encode(k2, v2))},
			Rules{Prefix: prefix, Upcase: upcase, KeepExisting: keep, OnCollision: CollisionLast},
			strings.Split(inherited, "\x00"),
		)
		if err != nil {
			for _, f := range fault.All(err) {
				if strings.Contains(f.Error()+f.Hint, canary) || f.Kind.Code() != 123 {
					t.Errorf("%d %v; %s", f.Kind.Code(), f, f.Hint)
				}
			}
			return
		}
		seen := map[string]bool{}
		for _, kv := range env.Strings() {
			name, _, ok := strings.Cut(kv, "=")
			if strings.IndexByte(kv, 0) >= 0 || ok && seen[name] || ok && slices.Contains(credentialNames, name) && !strings.Contains(kv, canary) {
				t.Errorf("%q in %q", kv, env.Strings())
			}
			seen[name] = seen[name] || ok
		}
		for _, v := range env.Vars {
			if !IsName(v.Name) || IsDangerous(v.Name, nil) || !seen[v.Name] {
				t.Errorf("variable %q", v.Name)
			}
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", env.Vars, env.Vars, env.Vars), canary) {
			t.Error("a value is printed")
		}
	})
}

// What a leased secret would give cannot be told without making a lease: check does not call it missing.
func TestJudgeable(t *testing.T) {
	required := []string{"A", "USER"}
	one := []Source{{Name: "USER", Key: "username"}}
	if got := Judgeable(required, one); !slices.Equal(got, []string{"A"}) {
		t.Errorf("beside one key: %q", got)
	}
	if got := Judgeable(required, append(one, Source{})); len(got) != 0 {
		t.Errorf("beside a whole Secret: %q", got)
	}
	if got := Judgeable(required, nil); !slices.Equal(got, required) {
		t.Errorf("beside nothing: %q", got)
	}
}
