package restartlock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Spec{
		"kubernetes:api":                                   {Kubernetes, "", "api"},
		"kubernetes:shop/api":                              {Kubernetes, "shop", "api"},
		"kubernetes:shop/api.v2-eu":                        {Kubernetes, "shop", "api.v2-eu"},
		"kubernetes:" + strings.Repeat("a", mostLeaseName): {Kubernetes, "", strings.Repeat("a", mostLeaseName)},
		"consul:api":                                       {Consul, "", "api"},
		"consul:teams/shop/API_2.x":                        {Consul, "", "teams/shop/API_2.x"},
	} {
		got, err := Parse(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, why := range map[string]string{
		"":                              "it does not say who keeps it",
		"api":                           "it does not say who keeps it",
		"etcd:api":                      `nobody called "etcd" keeps one`,
		"Kubernetes:api":                `nobody called "Kubernetes" keeps one`,
		":api":                          `nobody called "" keeps one`,
		"kubernetes:":                   "it has no name",
		"consul:":                       "it has no name",
		"consul://127.0.0.1:8500/x":     "a lock has a name and no address",
		"kubernetes://api":              "a lock has a name and no address",
		"kubernetes:/api":               "that is no namespace of Kubernetes before the /",
		"kubernetes:Shop/api":           "that is no namespace of Kubernetes before the /",
		"kubernetes:a.b/api":            "that is no namespace of Kubernetes before the /",
		"kubernetes:shop/":              "no Lease can have that name",
		"kubernetes:a/b/c":              "no Lease can have that name",
		"kubernetes:API":                "no Lease can have that name",
		"kubernetes:api-":               "no Lease can have that name",
		"kubernetes:api..x":             "no Lease can have that name",
		"kubernetes:a b":                "no Lease can have that name",
		"kubernetes:api?x=1":            "no Lease can have that name",
		"consul:/api":                   "no key of Consul can have that name",
		"consul:api/":                   "no key of Consul can have that name",
		"consul:a//b":                   "no key of Consul can have that name",
		"consul:a/../b":                 "no key of Consul can have that name",
		"consul:a?raw":                  "no key of Consul can have that name",
		"consul:a\"b":                   "no key of Consul can have that name",
		"consul:a\nb":                   "no key of Consul can have that name",
		"consul:ä":                      "no key of Consul can have that name",
		"kubernetes:" + long(249):       "its name is longer than 248 characters",
		"kubernetes:" + long(64) + "/x": "that is no namespace of Kubernetes before the /",
		"consul:" + long(201):           "its name is longer than 200 characters",
	} {
		got, err := Parse(text)
		f := fault.Of(err)
		if err == nil || f.Kind != fault.Usage || f.Why != why || f.Hint == "" || got != (Spec{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if strings.Contains(err.Error(), "\n") || len(err.Error()) > 160 {
			t.Errorf("%q: the text is %q", text, err)
		}
	}
}

func long(n int) string { return strings.Repeat("a", n) }

// What Parse takes is one clean path in a URL and comes back as it was.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"kubernetes:api", "kubernetes:shop/api", "consul:a/b", "consul:a/../b", "consul:%2e%2e", "kubernetes:a.b", ":", "consul:a?b#c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if fault.Of(err).Hint == "" || strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("%q: %q", text, err)
			}
			return
		}
		if s.String() != text {
			t.Errorf("%q became %q", text, s)
		}
		path := s.Namespace + "/" + s.Name
		if strings.ContainsAny(path, "?#%\\\" \n\r\t\x00") || strings.Contains(path, "..") && s.Scheme == Kubernetes || filepath.Clean("/x/"+s.Name) != "/x/"+s.Name {
			t.Errorf("%q is no clean path", path)
		}
	})
}

// pod makes the folder of a service account without a server.
func pod(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenKubernetes(t *testing.T) {
	env := func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}[name]
	}
	good := map[string]string{"ca.crt": testCA(t), "namespace": "shop\n", "token": "a-token\n"}
	e, err := Open(Spec{Kubernetes, "", "api"}, env, pod(t, good), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.(*leases).base.String(); e.Name() != "kubernetes:shop/api" || got != "https://[fd00::1]:443" || e.Lifetime() != leaseLifetime {
		t.Errorf("%s at %s for %v", e.Name(), got, e.Lifetime())
	}
	e, err = Open(Spec{Kubernetes, "other", "api"}, env, pod(t, good), nil)
	if err != nil || e.Name() != "kubernetes:other/api" {
		t.Errorf("%v, %v", e, err)
	}
	for name, c := range map[string]struct {
		file, text string
		why        string
	}{
		"no token":      {"token", "-", "no such file or directory"},
		"empty token":   {"token", "\n", "it holds no token"},
		"two lines":     {"token", "a\nb", "it holds no token"},
		"no CA":         {"ca.crt", "-", "no such file or directory"},
		"no PEM":        {"ca.crt", "x", "no certificate in it"},
		"no namespace":  {"namespace", "-", "no such file or directory"},
		"bad namespace": {"namespace", "a/b", "it holds no namespace"},
		"a long token":  {"token", long(mostFile + 1), "it is too long"},
	} {
		files := map[string]string{}
		for n, text := range good {
			files[n] = text
		}
		files[c.file] = c.text
		if c.text == "-" {
			delete(files, c.file)
		}
		_, err := Open(Spec{Kubernetes, "", "api"}, env, pod(t, files), nil)
		if f := fault.Of(err); err == nil || f.Kind != fault.Usage || f.Why != c.why || f.Hint == "" || !strings.Contains(f.What, "/"+c.file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = Open(Spec{Kubernetes, "", "api"}, func(string) string { return "" }, pod(t, good), nil)
	if f := fault.Of(err); err == nil || f.Kind != fault.Usage || f.Why != "KUBERNETES_SERVICE_HOST or _PORT is not set" {
		t.Errorf("outside of a cluster: %v", err)
	}
	// Whoever can write the folder says who is talked to, and as whom.
	open := pod(t, good)
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Spec{Kubernetes, "", "api"}, env, open, nil); err == nil || fault.Of(err).Hint == "" {
		t.Errorf("a folder that anybody may write: %v", err)
	}
}
