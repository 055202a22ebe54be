package needs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorder is a test that only notes what is done to it.
type recorder struct {
	name            string
	skipped, failed bool
}

func (r *recorder) Helper()      {}
func (r *recorder) Name() string { return r.name }
func (r *recorder) Skip(...any)  { r.skipped = true }
func (r *recorder) Fatal(...any) { r.failed = true }

func TestProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skipped")
	t.Setenv(SkippedVar, file)
	for _, tc := range []struct {
		name, ci, program string
		skipped, failed   bool
	}{
		{"TestThere", "", "sh", false, false},
		{"TestThereInCI", "true", "sh", false, false},
		{"TestMissing", "", "no-such-program", true, false},
		{"TestMissingInCI", "true", "no-such-program", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("CI", tc.ci)
			r := &recorder{name: tc.name}
			path := Program(r, tc.program)
			if r.skipped != tc.skipped || r.failed != tc.failed {
				t.Errorf("skipped %t, failed %t", r.skipped, r.failed)
			}
			if there := tc.program == "sh"; (path != "") != there {
				t.Errorf("path %q", path)
			}
		})
	}
	noted, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "TestMissing needs no-such-program, which is not installed\n"; string(noted) != want {
		t.Errorf("noted %q, want %q", noted, want)
	}
}

func TestFindBesidePath(t *testing.T) {
	// On Debian, and not in this PATH.
	if _, err := os.Stat("/usr/sbin/chroot"); err != nil {
		t.Skip("no /usr/sbin/chroot")
	}
	t.Setenv("PATH", t.TempDir())
	if path, err := Find("chroot"); err != nil || !strings.HasSuffix(path, "/chroot") {
		t.Errorf("%q, %v", path, err)
	}
}
