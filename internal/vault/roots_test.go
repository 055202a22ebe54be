package vault

import (
	"runtime"
	"testing"
)

// A variable that names what Go goes by anyway costs a start nothing; one that names something else is looked at.
func TestOfSystem(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system's own verifier")
	}
	for _, c := range []struct {
		path string
		list []string
		want bool
	}{
		{"/etc/ssl/certs", linuxFolders, true},
		{"/etc/ssl/certs/", linuxFolders, true},
		{"/etc/ssl/certs/../../../tmp", linuxFolders, false},
		{"etc/ssl/certs", linuxFolders, false},
		{"", linuxFolders, false},
		{"/etc/ssl/certs/ca-certificates.crt", linuxFiles, true},
		{"/etc/ssl/certs/other.crt", linuxFiles, false},
	} {
		if got := ofSystem(c.path, c.list); got != c.want {
			t.Errorf("%s: %t", c.path, got)
		}
	}
}
