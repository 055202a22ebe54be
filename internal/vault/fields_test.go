package vault

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

func TestParseFields(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]map[string]string{
		"common_name=app.example&ttl=24h": {"common_name": "app.example", "ttl": "24h"},
		"a=":                              {"a": ""},
		"a=b=c":                           {"a": "b=c"},
		"a%3D=b%26c%25":                   {"a=": "b&c%"},
		"a=x+y%20z w":                     {"a": "x+y z w"}, // base64 has a +, and nobody means a blank by it here
		"uri_sans=https://x/y?z,u@v@3":    {"uri_sans": "https://x/y?z,u@v@3"},
		"csr=-----%0Aü%0A":                {"csr": "-----\nü\n"},
		"a=%23KEY":                        {"a": "#KEY"},
		"a=*":                             {"a": "*"},
		"a=/*":                            {"a": "/*"},
	} {
		p, err := ParsePathOrFolder("/pki/issue/web?"+in, "m")
		if err != nil || p.Mount != "" || p.Name != "pki/issue/web" || p.Version != 0 || p.Folder || !maps.Equal(p.fields(), want) {
			t.Errorf("%q: %+v %q %v", in, p, p.fields(), err)
		}
		if again, err := ParsePathOrFolder("/"+p.String(), "m"); err != nil || again != p {
			t.Errorf("%q is shown as %q, which is %+v %v", in, p, again, err)
		}
	}
	a, _ := ParsePath("/pki/issue/web?b=2&a=%31+", "m")
	b, _, _ := ParseKeyRef("/pki/issue/web?a=1%2b&b=%32#K", "other")
	if a != b || a.Fields != "a=1+&b=2" {
		t.Errorf("two spellings: %+v and %+v", a, b)
	}
	for in, why := range map[string]string{
		"x?": "no field", "x?a": "of the form", "x?=b": "of the form", "x?a=b&": "of the form", "x?a=b&&c=d": "of the form",
		"x?a=1&a=2": "given twice", "x?a=1&%61=2": "given twice", "x?a=%": "begins no escape", "x?a=%g1": "begins no escape", "x?a%4=1": "begins no escape",
		"x?a=\n": "control", "x?\x7f=a": "control", "x?%0a=a": "name of a field", "x?a=\xff": "UTF-8", "x?a=%ff": "UTF-8", "x?a%c3=%a9": "UTF-8",
		"x@3?a=b": "no versions", "team/*?a=b": "folder", "*?a=b": "folder", "/m/*?a=b": "folder", "?a=b": "empty", "/?a=b": "empty", "a//b?a=b": "empty segment", "/x?a=b": "leading slash",
	} {
		p, err := ParsePathOrFolder(in, "m")
		if f := fault.Of(err); err == nil || f.Kind != fault.Usage || !strings.Contains(f.Why, why) || f.Hint == "" || p != (Path{}) {
			t.Errorf("%q: %+v %v", in, p, err)
		}
	}
	if _, err := ParseDir("team?a=b", "m"); !fault.Is(err, fault.Usage) {
		t.Error("a folder to list has fields")
	}
	// What may have been written there by mistake is not repeated.
	for _, in := range []string{"x?password", "x?a=b&hvs.CAESIJ0123456789abcdefghij", "a//b?a=hunter2", "x@2?a=hunter2", "x?a=hunter2&a=hunter2", "x?hunter2=%"} {
		if _, err := ParsePath(in, "m"); err == nil || strings.Contains(err.Error()+fault.Of(err).Hint, in[strings.IndexByte(in, '?')+1:]) {
			t.Errorf("%v", err)
		}
	}
}

// TestJudge: what the engine's help says decides whether fields are written, or sent as a query, or refused.
func TestJudge(t *testing.T) {
	t.Parallel()
	read, write := usage{known: true, read: true}, usage{known: true, write: true, body: []string{"common_name", "ttl"}}
	query := usage{known: true, read: true, query: []string{"ttl"}}
	both := usage{known: true, read: true, write: true, query: []string{"ttl"}, body: []string{"role_arn", "ttl"}}
	for _, c := range []struct {
		usage        usage
		engine, path string
		want         string // the capability, or a part of the failure
	}{
		{write, "pki", "issue/web?common_name=x", "update"},
		{write, "pki", "issue/web?common_nam=x", `the path takes no field "common_nam"`},
		{write, "pki", "revoke?ttl=1", "update"},
		{read, "pki", "cert/ca?ttl=1", "the path takes no fields"},
		{query, "aws", "sts/x?ttl=1h", "read"},
		{query, "aws", "sts/x?tl=1h", `takes no field "tl"`},
		{both, "aws", "sts/x?ttl=1h", "read"},
		{both, "aws", "sts/x?ttl=1h&role_arn=y", "update"},
		{both, "database", "roles/x?ttl=1h", "read"}, // a read changes nothing, whatever it is given
		{both, "database", "roles/x?role_arn=y", "holds settings"},
		{both, "terraform", "creds/x?role_arn=y", "update"},
		{both, "gcp", "roleset/x/key?role_arn=y", "update"},
		{both, "gcp", "roleset/x?role_arn=y", "holds settings"},
		{usage{known: true}, "pki", "roles?ttl=1", "does not support this operation"},
		{usage{}, "pki", "issue/web?x=y", "update"},
		{usage{}, "pki", "roles/web?x=y", "does not say"},
	} {
		p, err := ParsePath(c.path, "m")
		if err != nil {
			t.Fatal(err)
		}
		got, f := c.usage.judge(p, Engine{Mount: "m", Type: c.engine})
		if f != nil {
			got = f.Why
			if f.Hint == "" || c.want == "update" || c.want == "read" {
				t.Errorf("%s: %v, hint %q", c.path, f, f.Hint)
			}
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s of %s: %q, want %q", c.path, c.engine, got, c.want)
		}
	}
}

// TestOwnLife: a certificate lives until its end by the server's clock, a token for as long as it says.
func TestOwnLife(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	value := func(json string) Value { return holdValue([]byte(json)) }
	for _, c := range []struct {
		secret Secret
		want   time.Duration
	}{
		{Secret{Path: Path{Fields: "a=b"}, Date: now, Values: map[string]Value{"expiration": value("1003600")}}, time.Hour},
		{Secret{Path: Path{Fields: "a=b"}, Date: now, Values: map[string]Value{"expiration": value("5")}}, time.Second},
		{Secret{Path: Path{Fields: "a=b"}, Date: now, Values: map[string]Value{"expiration": value("9000000000000000000")}}, longestLife * time.Second},
		{Secret{Path: Path{Fields: "a=b"}, Date: now, Values: map[string]Value{"expiration": value(`"1003600"`)}}, 0},
		{Secret{Path: Path{Fields: "a=b"}, Date: now, Values: map[string]Value{"expiration": value("0")}}, 0},
		{Secret{Path: Path{Fields: "a=b"}, Date: now}, 0},
		{Secret{Date: now, Values: map[string]Value{"expiration": value("1003600")}}, 0}, // a KV secret with such a key
		{Secret{Engine: Engine{Type: "identity"}, Date: now, Values: map[string]Value{"ttl": value("60")}}, time.Minute},
		{Secret{Engine: Engine{Type: "identity"}, Date: now, Values: map[string]Value{"ttl": value("-60")}}, 0},
	} {
		if got := c.secret.ownLife(); got.ID != "" || got.Duration != c.want {
			t.Errorf("%v: %v, want %v", c.secret.Values, got.Duration, c.want)
		}
	}
}
