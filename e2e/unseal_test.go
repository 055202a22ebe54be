package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// unsealer runs vaultexec unseal with the shares in a file or on standard input, and looks for shares in what it prints.
func unsealer(t *testing.T, srv *vaulttest.Server, keys string, args ...string) ended {
	t.Helper()
	i := invocation{args: append([]string{"unseal"}, args...), env: []string{"VAULT_ADDR=" + srv.Addr, "VAULT_CACERT=" + srv.CACert}, stdin: keys}
	e := i.run(t)
	for _, k := range srv.Keys {
		for _, form := range vaulttest.Forms(k) {
			if strings.Contains(e.out+e.errOut, form) {
				t.Error("a share is shown")
			}
		}
	}
	return e
}

func (e ended) check(t *testing.T, what string, code int, texts ...string) {
	t.Helper()
	if e.code != code {
		t.Errorf("%s: ended with %d, want %d:\n%s%s", what, e.code, code, vaulttest.Redact(e.out), vaulttest.Redact(e.errOut))
	}
	for _, text := range texts {
		if !strings.Contains(e.out+e.errOut, text) {
			t.Errorf("%s: %q is not in\n%s%s", what, text, vaulttest.Redact(e.out), vaulttest.Redact(e.errOut))
		}
	}
}

// initText is the output of `vault operator init`.
func initText(srv *vaulttest.Server) string {
	var b strings.Builder
	for i, k := range srv.Keys {
		fmt.Fprintf(&b, "Unseal Key %d: %s\n", i+1, k)
	}
	fmt.Fprintf(&b, "\nInitial Root Token: %s\n\nVault initialized with 5 key shares and a key threshold of 3. Please securely\ndistribute the key shares printed above.\n", srv.RootToken)
	return b.String()
}

func TestUnseal(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Raft(t, vaulttest.RaftOpts{TLS: true})
	unsealer(t, srv, "").check(t, "not initialized", 120, "it is not initialized", "vault operator init")
	invocation{args: []string{"status"}, env: []string{"VAULT_ADDR=" + srv.Addr, "VAULT_CACERT=" + srv.CACert}}.run(t).
		check(t, "status of a new server", 2, "initialized  no", "TLS 1.3, certificate until", "is not initialized")
	srv.Init(t, 5, 3)

	hexed := make([]string, len(srv.Keys))
	for i, k := range srv.Keys {
		raw, err := base64.StdEncoding.DecodeString(k)
		if err != nil {
			t.Fatal(err)
		}
		hexed[i] = hex.EncodeToString(raw)
		vaulttest.Secret(hexed[i])
	}
	cli, _ := json.Marshal(map[string]any{"unseal_keys_b64": srv.Keys, "unseal_keys_hex": hexed, "unseal_shares": 5, "unseal_threshold": 3, "recovery_keys_b64": []string{}, "root_token": srv.RootToken})
	api, _ := json.Marshal(map[string]any{"keys": hexed, "keys_base64": srv.Keys, "root_token": srv.RootToken})
	wrongRaw := []byte(strings.Repeat("not the right one", 2))[:33]
	wrong := base64.StdEncoding.EncodeToString(wrongRaw)

	seal := func() { srv.WaitActive(t); srv.Seal(t) }
	file := filepath.Join(t.TempDir(), ".vault-keys")
	write := func(text string, mode os.FileMode) {
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}

	// The forms in which people keep them.
	for name, text := range map[string]string{
		"init text":  initText(srv),
		"CLI JSON":   string(cli),
		"API JSON":   string(api),
		"KEY=value":  fmt.Sprintf("# keys\nUNSEAL_KEY_1=%s\nexport UNSEAL_KEY_2=\"%s\"\nkey3: %s\nROOT_TOKEN=%s\n", srv.Keys[0], srv.Keys[1], hexed[2], srv.RootToken),
		"plain":      strings.Join(srv.Keys[2:], "\r\n"),
		"with twins": srv.Keys[0] + "\n" + hexed[0] + "\n" + srv.Keys[1] + "\n" + srv.Keys[4] + "\n",
	} {
		write(text, 0o600)
		unsealer(t, srv, "", "--keys-file", file).check(t, name, 0, "progress 1/3", "progress 2/3", "unsealed")
		srv.WaitActive(t)
		unsealer(t, srv, "", "--keys-file", file).check(t, name+" again", 0, "already unsealed")
		seal()
	}
	write(initText(srv), 0o640)
	unsealer(t, srv, "", "--keys-file", file).check(t, "readable by the group", 125, "mode 0640", "chmod 600")
	write("hello\n", 0o600)
	unsealer(t, srv, "", "--keys-file", file).check(t, "no keys", 125, "line 1 is no key share")
	unsealer(t, srv, "").check(t, "nothing on standard input", 125, "there is no key share in it")
	write(fmt.Sprintf(`{"recovery_keys_b64": [%q], "unseal_keys_b64": []}`, srv.Keys[0]), 0o600)
	unsealer(t, srv, "", "--keys-file", file).check(t, "recovery keys", 125, "recovery keys only")

	// One after the other, by several people.
	unsealer(t, srv, srv.Keys[0]).check(t, "one share", 120, "progress 1/3: 2 more needed")
	invocation{args: []string{"status"}, env: []string{"VAULT_ADDR=" + srv.Addr, "VAULT_CACERT=" + srv.CACert}}.run(t).
		check(t, "status while sealed", 2, "sealed       yes, unseal progress 1/3", "is sealed")
	unsealer(t, srv, srv.Keys[0]).check(t, "the same again", 120, "was there already")
	unsealer(t, srv, srv.Keys[3]+"\n"+srv.Keys[4], "--json").check(t, "the rest", 0, `"sealed":false`)
	seal()

	// A wrong share shows at the threshold, and is found by trying.
	three := strings.Join([]string{srv.Keys[0], wrong, srv.Keys[1]}, "\n")
	unsealer(t, srv, three).check(t, "one of three is wrong", 121, "one of the 3 shares is wrong", "give one more share")
	unsealer(t, srv, three+"\n"+srv.Keys[2]).check(t, "one of four is wrong", 0, "share 2 (line 2) is wrong", "unsealed")
	seal()
	unsealer(t, srv, strings.Join([]string{srv.Keys[0], wrong, "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB", srv.Keys[1], srv.Keys[2]}, "\n"), "--json").
		check(t, "two of five are wrong", 0, `"wrong_shares":["share 2 (line 2)","share 3 (line 3)"]`)
	seal()
	// Somebody else's wrong share comes to light with ours, which are right.
	srv.DoAs(t, "", "PUT", "sys/unseal", map[string]string{"key": wrong})
	unsealer(t, srv, strings.Join(srv.Keys[:3], "\n")).check(t, "a wrong one from before", 0, "progress 1/3 from before", "unsealed")
}

func TestUnsealCluster(t *testing.T) {
	t.Parallel()
	nodes := vaulttest.Cluster(t, 2)
	first := nodes.All[0]
	joining := vaulttest.Join(t, first)
	for _, s := range nodes.All {
		s.Kill()
	}
	for _, s := range nodes.All {
		s.Restart(t)
	}
	args := []string{"--address", nodes.All[0].Addr, "--address", nodes.All[1].Addr, "--address", joining.Addr}
	e := unsealer(t, first, strings.Join(first.Keys, "\n"), args...)
	e.check(t, "three nodes", 0, nodes.All[1].Addr+": unsealed", joining.Addr+": unsealed")
	_, out := joining.SealStatus(t)
	if out["sealed"] != false {
		t.Error("the joining node is sealed")
	}
	wait.Until(t, 30e9, "a role of each node", func() bool {
		e := invocation{args: []string{"status"}, env: []string{"VAULT_ADDR=" + joining.Addr}}.run(t)
		return e.code == 0 && strings.Contains(e.out, "standby, the leader is http")
	})
	unsealer(t, first, "", args...).check(t, "again", 0, joining.Addr+": already unsealed")
	// A node that does not answer keeps nobody waiting for the others.
	dead := nodes.All[1]
	dead.Kill()
	e = unsealer(t, first, "", "--json", "--wait", "0", "--address", dead.Addr, "--address", joining.Addr)
	e.check(t, "a dead node", 120, "connection refused")
	if !strings.HasPrefix(e.out, fmt.Sprintf(`{"nodes":[{"address":%q`, joining.Addr)) {
		t.Errorf("the dead node comes first: %s", e.out)
	}
}

// Over clear text to another machine the shares do not go.
func TestUnsealRefusesClearText(t *testing.T) {
	invocation{args: []string{"unseal", "--address", "http://vault.invalid:8200"}, stdin: "x"}.run(t).
		check(t, "http", 125, "the shares would cross the network unencrypted", "--allow-http")
	invocation{args: []string{"unseal", "--address", "http://vault.invalid:8200", "--allow-http", "--wait", "0"}, stdin: "x"}.run(t).
		check(t, "http acknowledged", 120, "vault.invalid")
}

// The clock of a server that is an hour off, in either direction, and of one behind a proxy that takes the Date header out.
func TestStatusShowsTheClock(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	for date, want := range map[string]string{
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat):  "clock        60 min ahead of here|clock        59 min ahead of here",
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): "clock        60 min behind here",
		"": "TLS          none",
	} {
		proxy := vaulttest.NewProxy(t, srv)
		proxy.Set(func(_ *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(dated{w, date}, r)
		})
		e := invocation{args: []string{"status"}, env: []string{"VAULT_ADDR=" + proxy.Addr}}.run(t)
		e.check(t, date, 0)
		if first, second, _ := strings.Cut(want, "|"); !strings.Contains(e.out, first) && (second == "" || !strings.Contains(e.out, second)) {
			t.Errorf("%q is not in\n%s", want, e.out)
		}
		if has := strings.Contains(e.out, "warning      the clocks differ"); has != (date != "") || date == "" && strings.Contains(e.out, "clock  ") {
			t.Errorf("Date %q:\n%s", date, e.out)
		}
	}
}

// dated is an answer with another Date header, or with none.
type dated struct {
	http.ResponseWriter
	date string
}

func (d dated) WriteHeader(status int) {
	d.Header()["Date"] = nil
	if d.date != "" {
		d.Header().Set("Date", d.date)
	}
	d.ResponseWriter.WriteHeader(status)
}
