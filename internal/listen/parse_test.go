package listen

import (
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Spec{
		":8000":                   {Port: 8000},
		"web=:8000":               {Name: "web", Port: 8000},
		"_a-1=127.0.0.1:65535":    {Name: "_a-1", Host: "127.0.0.1", Port: 65535},
		"localhost:1":             {Host: "localhost", Port: 1},
		"[::1]:80":                {Host: "::1", Port: 80},
		"[::]:80":                 {Host: "::", Port: 80},
		"[fe80::1%eth0]:80":       {Host: "fe80::1%eth0", Port: 80},
		"unix:/run/app.sock":      {Path: "/run/app.sock"},
		"unix:///run//a/../b":     {Path: "/run/b"},
		"unix:/a,b=c,mode=0660":   {Path: "/a,b=c", Mode: 0o660},
		"s=unix:/a,mode=7":        {Name: "s", Path: "/a", Mode: 7},
		"unix:/mode=1,mode=2,m=3": {Path: "/mode=1,mode=2,m=3"},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "=", ":", "8000", "x", "a:b", ":0", ":65536", ":-1", ":+1", ": 1", "::1:80", "::1", "1.2.3.4", "[1.2.3.4]:80", "[::1]", "[::1]80", "[]:80", "[::1:80", "::1]:80",
		"http://x:80", "tcp://:80", "*:80", "a b:80", "a/b:80", "=:80", "1=:80", "a b=:80", "ä=:80", "a:b=:80", "-a=:80",
		"unix:", "unix:a", "unix:@a", "unix:/", "unix:/a/", "unix:/a\x00", "unix:/a,mode=", "unix:/a,mode=8", "unix:/a,mode=1777", "unix:/a,mode=0", "unix:/" + strings.Repeat("x", maxPath),
	} {
		got, err := Parse(text)
		if !fault.Is(err, fault.Usage) || fault.Of(err).Hint == "" {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestClash(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b  string
		clash bool
	}{
		{":1", ":1", true}, {"a=:1", ":1", true}, {"a-b=:1", "A_B=:2", true}, {"unix:/a", "unix:/b/../a", true},
		{":1", ":2", false}, {":1", "127.0.0.1:1", false}, {"unix:/a", "unix:/b", false}, {"a=:1", "b=:2", false},
	} {
		a, aerr := Parse(c.a)
		b, berr := Parse(c.b)
		if aerr != nil || berr != nil {
			t.Fatal(aerr, berr)
		}
		if got := Clash(a, b); (got != "") != c.clash {
			t.Errorf("%s and %s: %q", c.a, c.b, got)
		}
	}
}

// Whatever Parse takes, it writes in a form that it reads as the same.
func FuzzParse(f *testing.F) {
	for _, text := range []string{":8000", "web=[::1]:80", "unix:/a,mode=0660", "a=b=c:1", "[fe80::1%a]:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		again.Name, again.Mode = s.Name, s.Mode
		if err != nil || again != s {
			t.Errorf("%q is %+v, written %q and read as %+v, %v", text, s, s, again, err)
		}
	})
}

// What a hint says to write can be written.
func TestHintsCanBeFollowed(t *testing.T) {
	for _, text := range []string{"8000", "99999", "0", "65535", "65536"} {
		_, err := Parse(text)
		written, ok := strings.CutPrefix(fault.Of(err).Hint, "write it as ")
		if ok && strings.HasPrefix(written, ":"+text) {
			if _, err := Parse(written); err != nil {
				t.Errorf("%q: the hint is to write %q: %v", text, written, err)
			}
		}
	}
}
