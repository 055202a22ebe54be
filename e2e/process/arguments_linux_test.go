package process

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// The new value of `rotate PATH KEY VALUE` does not stand in the list of processes for as long as Vault is waited for; what else
// stands there stays, also where it is spelled like the value.
func TestValueIsOverwrittenInArguments(t *testing.T) {
	t.Parallel()
	r := actual{t}
	value := vaulttest.Canary("value")
	p := start(r, []string{vaulttest.Build(t, "."), "rotate", "--address", "http://127.0.0.1:1", "--wait", "forever", "app/" + value, value, value},
		func(c *exec.Cmd) { c.Env = append(c.Env, "VAULT_TOKEN=hvs.nobodys") })
	arguments := func() []string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	}
	var got []string
	until(r, "stars in place of the value", func() bool {
		got = arguments()
		return got[len(got)-1] == strings.Repeat("*", len(value))
	})
	if want := []string{"app/" + value, value}; len(got) != 9 || !slices.Equal(got[6:8], want) {
		t.Errorf("the other arguments changed: %s", vaulttest.Redact(fmt.Sprint(got)))
	}
	p.signal(unix.SIGTERM)
	<-p.done
}
