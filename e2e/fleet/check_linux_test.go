package fleet

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/enginetest"
)

// check runs vaultexec check with the lock of a fleet, and returns what it prints and its exit code.
func (f *fleet) check(args ...string) (text string, code int) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, f.vx, slices.Concat([]string{"check", "--mount", f.mount, "--path", "app"}, f.lockArgs(), args)...)
	c.Env = slices.Concat([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir, "VAULT_ADDR=" + f.srv.Addr, "VAULT_TOKEN=" + f.token}, f.lockEnv())
	out, err := c.Output()
	if c.ProcessState == nil {
		f.t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

// Three of five Leases are there: check says once what is missing, and for how many, and a machine reads what the exit code says.
func TestCheckOfMissingPlaces(t *testing.T) {
	k := enginetest.SharedKubernetes(t)
	l := &leases{k: k, namespace: k.Namespace(t), limit: 5}
	k.Leases(t, l.namespace, "api", 3)
	l.pod = k.Account(t, l.namespace, enginetest.Rule("api", 5))
	f := newFleet(t, l)
	text, code := f.check()
	if code != 122 || strings.Count(text, "FAILED") != 1 || !strings.Contains(text, "no Lease api-3") || !strings.Contains(text, "1 more of 5 places") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
	text, code = f.check("--log-format", "json")
	var said struct {
		OK   bool
		Exit int
		Lock struct {
			OK     bool
			Places int
			Faults []struct{ Kind, Text string }
		} `json:"restart_lock"`
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if said.OK || said.Exit != code || code != 122 || said.Lock.OK || said.Lock.Places != 5 || len(said.Lock.Faults) != 1 {
		t.Errorf("exit code %d: %s", code, text)
	}
	l.limit = 3
	if text, code = f.check("--log-format", "json"); code != 0 || !strings.Contains(text, `"ok":true`) {
		t.Errorf("exit code %d with three: %s", code, text)
	}
}

// With --canary the outcomes have to be read, too: a token that may do nothing but take the places is not enough.
func TestCheckOfOutcomes(t *testing.T) {
	c := enginetest.SharedConsul(t)
	s := &sessions{c: c, name: c.Name(), limit: 1}
	s.token = c.Token(t, `key_prefix "`+s.name+`/0" { policy = "write" } session_prefix "" { policy = "write" }`)
	f := newFleet(t, s)
	if text, code := f.check(); code != 0 {
		t.Errorf("exit code %d without it:\n%s", code, text)
	}
	if text, code := f.check("--canary"); code != 121 || !strings.Contains(text, "cannot read the outcomes at the restart lock") || !strings.Contains(text, `key_prefix "`+s.name+`/"`) {
		t.Errorf("exit code %d with it:\n%s", code, text)
	}
}
