package cli

import (
	"fmt"
	"testing"
)

// In the variable, an option of an address stands behind a comma like the next address.
func TestListenVariable(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		":8000,unix:/a,mode=0660,web=[::1]:1":    "||8000||0 ||0|/a|660 web|::1|1||0 ",
		"unix:/a,b,mode=0600\nadmin=localhost:2": "||0|/a,b|600 admin|localhost|2||0 ",
	} {
		s := &settings{opts: options, given: newGiven(), environ: func(name string) string {
			if name == "VAULTEXEC_LISTEN" {
				return value
			}
			return ""
		}}
		got := ""
		for _, spec := range listeners(s) {
			got += fmt.Sprintf("%s|%s|%d|%s|%o ", spec.Name, spec.Host, spec.Port, spec.Path, spec.Mode)
		}
		if len(s.faults) > 0 || got != want {
			t.Errorf("%q: %q, %v", value, got, s.faults)
		}
	}
}
