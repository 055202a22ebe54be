package environ

import (
	"errors"
	"fmt"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// TestParseFile: what --file takes, on a machine of the test's own.
func TestParseFile(t *testing.T) {
	t.Parallel()
	lookup := func(known string) func(string) (string, error) {
		return func(name string) (string, error) {
			if name != known {
				return "", errors.New("unknown")
			}
			return "42", nil
		}
	}
	host := Host{Abs: func(p string) (string, error) { return "/here/" + p, nil }, UID: lookup("app"), GID: lookup("ssl")}
	for _, c := range []struct{ text, want string }{
		{"KEY", "KEY  false 0400 -1 -1"},
		{"KEY:base64", "KEY  true 0400 -1 -1"},
		{"KEY=a,b", "KEY /here/a,b false 0400 -1 -1"},
		{"KEY:base64=a,mode=0440", "KEY /here/a true 0440 -1 -1"},
		{"KEY=a,mode=0440,owner=app:ssl", "KEY /here/a false 0440 42 42"},
		{"KEY=a,owner=:ssl", "KEY /here/a false 0400 -1 42"},
		{"KEY=a,owner=7", "KEY /here/a false 0400 7 -1"},
		{"KEY=a,mode=0402", errModeWorld.Error()},
		{"KEY=a,mode=4400", errMode.Error()},
		{"KEY=a,owner=ssl", `there is no user "ssl"`},
		{"KEY=a,owner=app:app", `there is no group "app"`},
		{"KEY=a,owner=app:", "its owner, or its group, is empty"},
		{"A-B=a", `"A-B" is not a variable name`},
		{"KEY:hex=a", `"hex" is not an encoding`},
		{"KEY=a/", "its path names no file"},
	} {
		f, err := ParseFile(c.text, host)
		who := f.Access()
		got := fmt.Sprintf("%s %s %t %04o %d %d", f.Name, f.Path, f.Base64, who.Mode, who.UID, who.GID)
		if err != nil {
			got = fault.Of(err).Why
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.text, got, c.want)
		}
	}
	host.Abs = func(string) (string, error) { return "", errors.New("gone") }
	if _, err := ParseFile("KEY=a", host); err == nil || fault.Of(err).Why != "the current folder is gone" {
		t.Errorf("without a current folder: %v", err)
	}
}
