package hidetest

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A secret that is a string, or bytes, is seen wherever it stands.
func TestShows(t *testing.T) {
	type inner struct{ text string }
	type exported struct{ Text string }
	type bytes struct{ raw []byte }
	type public struct{ Raw []byte }
	for _, c := range []struct {
		value any
		ways  []string // some in which it has to show
	}{
		{inner{text: ""}, []string{"the value and %v", "the value and %#v", "a field and %x", "an unexported field and %+v", "a pointer to it and %q", "a pointer to it and slog's text", "a list of pointers and reflection", "a map and Println"}},
		{exported{}, []string{"the value and JSON", "a list of pointers and JSON", "the value and slog's JSON", "a field and slog's JSON"}},
		{bytes{raw: nil}, []string{"the value and %v", "an unexported field and %X", "the value and %#v", "the value and %c", "the value and %U", "the value and %08b", "a list and reflection"}},
		{public{}, []string{"the value and JSON", "a map and slog's JSON"}},
		{struct{ list []map[string]*inner }{}, []string{"the value and reflection", "a field and reflection"}},
	} {
		v := reflect.New(reflect.TypeOf(c.value)).Elem()
		if fill(v, func(at any) bool {
			switch at := at.(type) {
			case *string:
				*at = marker
			case *[]byte:
				*at = []byte(marker)
			default:
				return false
			}
			return true
		}, nil) == 0 {
			t.Errorf("%T is not filled", c.value)
		}
		texts := prints(v)
		for _, way := range c.ways {
			if text, ok := texts[way]; !ok || shown(text) == "" {
				t.Errorf("%T: not seen in %s: %q", c.value, way, text)
			}
		}
	}
}

// Every package with types that hold a secret has a test of them.
func TestEveryPackageChecks(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	all, err := holders(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ pkg, name string }{
		{module + "/internal/cli", "credential"}, {module + "/internal/cli", "target"}, {module + "/internal/environ", "Variable"}, {module + "/internal/vault", "grant"}, {module + "/internal/vault", "Session"}, {module + "/launcher", "edition"}, {module + "/launcher", "watcher"},
	} {
		if !slices.Contains(all[want.pkg], want.name) {
			t.Errorf("%s of %s is not found", want.name, want.pkg)
		}
	}
	for _, no := range []string{"Path", "Engine", "LoginConfig", "SealStatus"} {
		if slices.Contains(all[module+"/internal/vault"], no) {
			t.Errorf("%s is found, which holds no secret", no)
		}
	}
	for pkg := range all {
		dir := filepath.Join(root, strings.TrimPrefix(pkg, module))
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(f string) bool {
			b, err := os.ReadFile(f)
			return err == nil && strings.Contains(string(b), "hidetest.Check(")
		}) {
			t.Errorf("no test of %s checks what prints: it has %s", pkg, strings.Join(all[pkg], ", "))
		}
	}
}
