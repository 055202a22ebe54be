package cloud

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/awstest"
	"github.com/agenticverz/vaultexec/internal/fault"
)

// AWS' published vectors of signature version 4 (aws-c-auth, tests/aws-signing-test-suite/v4), as far as they have the shape of what is
// signed here: POST to /, with and without a body and a session token.
func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	const (
		formHash = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"
		token    = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
	)
	for _, c := range []struct {
		name, body, token string
		headers           []string
		signed, signature string
	}{
		{"post-vanilla", "", "", nil, "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"post-header-key-sort", "", "", []string{"My-Header1", "value1"}, "host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
		{"post-sts-header-before", "", token, nil, "host;x-amz-date;x-amz-security-token", "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
		{"post-x-www-form-urlencoded", "Param1=value1", "", []string{"Content-Type", "application/x-www-form-urlencoded", "X-Amz-Content-Sha256", formHash},
			"content-length;content-type;host;x-amz-content-sha256;x-amz-date", "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"},
		{"post-x-www-form-urlencoded-parameters", "Param1=value1", "", []string{"Content-Type", formType, "X-Amz-Content-Sha256", formHash},
			"content-length;content-type;host;x-amz-content-sha256;x-amz-date", "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &awsProver{AWS: AWS{testOnlyNow: func() time.Time { return time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC) }}, made: sha256.New()}
			r, err := question(t.Context(), http.MethodPost, "https://example.amazonaws.com/", c.body, c.headers...)
			if err != nil {
				t.Fatal(err)
			}
			keys, err := p.keys("a vector", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", c.token)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.sign(r, c.body, keys, "us-east-1", "service"); err != nil {
				t.Fatal(err)
			}
			want := "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=" + c.signed + ", Signature=" + c.signature
			if got := r.Header.Get("Authorization"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if got := r.Header.Get("X-Amz-Security-Token"); got != c.token {
				t.Errorf("the token is %q", got)
			}
		})
	}
}

// Where STS is in each partition, as AWS documents it.
func TestSTSEndpoints(t *testing.T) {
	t.Parallel()
	for region, want := range map[string]string{
		"": "https://sts.amazonaws.com/", "eu-central-1": "https://sts.eu-central-1.amazonaws.com/",
		"us-east-1": "https://sts.us-east-1.amazonaws.com/", "us-gov-west-1": "https://sts.us-gov-west-1.amazonaws.com/",
		"cn-north-1": "https://sts.cn-north-1.amazonaws.com.cn/", "eusc-de-east-1": "https://sts.eusc-de-east-1.amazonaws.eu/",
		"us-iso-east-1": "https://sts.us-iso-east-1.c2s.ic.gov/", "us-isob-east-1": "https://sts.us-isob-east-1.sc2s.sgov.gov/",
	} {
		if got := stsEndpoint(region); got != want {
			t.Errorf("%q: %s, want %s", region, got, want)
		}
	}
	for _, bad := range []string{"", "eu-central-1.evil.example", "eu/../x", "EU-CENTRAL-1", "-", "eu-", "eu central", "a\n", strings.Repeat("a", 41)} {
		if IsAWSRegion(bad) {
			t.Errorf("%q counts as a region", bad)
		}
	}
}

// rig is a chain with variables and files of its own.
type rig struct {
	t    *testing.T
	home string
	vars map[string]string
	aws  AWS
	sts  *awstest.STS
}

const account = "arn:aws:iam::123456789012:"

// newRig has an STS for us-east-1 that knows the key of ann.
func newRig(t *testing.T) *rig {
	r := &rig{t: t, home: t.TempDir(), sts: awstest.NewSTS(t, "us-east-1")}
	r.vars = map[string]string{"HOME": r.home, "AWS_ENDPOINT_URL_STS": r.sts.URL, "AWS_EC2_METADATA_DISABLED": "true"}
	r.aws = AWS{Getenv: func(name string) string { return r.vars[name] }, Read: readText}
	r.sts.Know(ann)
	return r
}

var ann = awstest.Key{ID: "AKIAANN", Secret: "secret/of+ann", ARN: account + "user/ann", UserID: "AIDAANN"}

// temporary is a key of a role, as machines have them.
func temporary(name string) awstest.Key {
	return awstest.Key{ID: "ASIA" + strings.ToUpper(name), Secret: "secret/of+" + name, Token: "token//of==" + name,
		ARN: "arn:aws:sts::123456789012:assumed-role/" + name + "/i-1", UserID: name}
}

// readText reads a file as the program does, but for whose it is.
func readText(_ context.Context, what, path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", &fault.Error{Kind: fault.Usage, What: "cannot read " + what, Err: err, Passing: errors.Is(err, fs.ErrNotExist)}
	}
	return string(b), nil
}

// file writes a file of AWS' tools.
func (r *rig) file(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.home, ".aws", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// caller sends the signed request to STS, as Vault would, and returns who STS says has signed it.
func (r *rig) caller(signed *AWSRequest) string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), signed.Method, r.sts.URL+"//", strings.NewReader(signed.Body))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(signed.Headers.Reveal()), &req.Header); err != nil {
		r.t.Fatal(err)
	}
	of, err := http.NewRequestWithContext(r.t.Context(), signed.Method, signed.URL, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Host = of.Host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(resp.Body)
	_, rest, found := strings.Cut(b.String(), "<Arn>")
	if resp.StatusCode != http.StatusOK || !found {
		r.t.Fatalf("STS answers %d: %s", resp.StatusCode, &b)
	}
	who, _, _ := strings.Cut(rest, "<")
	return who
}

// is wants the credentials of somebody.
func (r *rig) is(want string) *AWSRequest {
	r.t.Helper()
	signed, err := r.aws.Prove(r.t.Context())
	if err != nil {
		r.t.Fatalf("%v; %s", err, fault.Of(err).Hint)
	}
	if got := r.caller(signed); got != want {
		r.t.Fatalf("it is signed by %s, want %s", got, want)
	}
	return signed
}

// fails wants a failure of a kind that says these words.
func (r *rig) fails(kind fault.Kind, words ...string) {
	r.t.Helper()
	_, err := r.aws.Prove(r.t.Context())
	f := fault.Of(err)
	if err == nil || f.Kind != kind {
		r.t.Fatalf("got %v, want a failure of kind %v", err, kind)
	}
	text := f.Error() + " | " + f.Hint
	for _, w := range words {
		if !strings.Contains(text, w) {
			r.t.Errorf("it does not say %q: %s", w, text)
		}
	}
	if f.Hint == "" && f.What == "cannot log in with aws" {
		r.t.Errorf("it does not say what to do: %s", text)
	}
	for _, secret := range []string{"secret/of", "made+secret", "token//", "webtoken", "authtoken", "words of"} {
		if strings.Contains(text, secret) {
			r.t.Errorf("a secret shows: %s", text)
		}
	}
}

func TestAWSVariables(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.vars["AWS_ACCESS_KEY_ID"], r.vars["AWS_SECRET_ACCESS_KEY"] = ann.ID, ann.Secret+"\n" // as of $(cat FILE) in a unit
	first := r.is(ann.ARN)
	if len(first.Secrets) != 1 || first.Secrets[0].Reveal() != ann.Secret {
		t.Errorf("%d secrets", len(first.Secrets))
	}
	role := temporary("web")
	r.sts.Know(role)
	r.vars["AWS_ACCESS_KEY_ID"], r.vars["AWS_SECRET_ACCESS_KEY"], r.vars["AWS_SESSION_TOKEN"] = role.ID, role.Secret, role.Token
	second := r.is(role.ARN)
	if again := r.is(role.ARN); again.By != second.By || first.By == second.By {
		t.Errorf("by %s, then %s, then %s", first.By, second.By, again.By)
	}
	// They win over everything else.
	r.vars["AWS_WEB_IDENTITY_TOKEN_FILE"], r.vars["AWS_PROFILE"] = "/nowhere", "nobody"
	r.vars["AWS_REGION"] = "us-east-1"
	r.is(role.ARN)
	r.vars["AWS_SECRET_ACCESS_KEY"] = ""
	r.fails(fault.Usage, "AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not")
	r.vars["AWS_ACCESS_KEY_ID"], r.vars["AWS_SECRET_ACCESS_KEY"] = "", role.Secret
	r.fails(fault.Usage, "AWS_SECRET_ACCESS_KEY is set, and AWS_ACCESS_KEY_ID is not")
	for _, bad := range []string{"secret/of\nann", "secret/of ann", `"secret/of+ann"`, "secret/of\x00", "secret/ofä"} {
		r.vars["AWS_ACCESS_KEY_ID"], r.vars["AWS_SECRET_ACCESS_KEY"] = ann.ID, bad
		r.fails(fault.Usage, "a key holds a character that none has")
	}
}

func TestAWSNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fails(fault.Usage, "no AWS credentials found", "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", filepath.Join(r.home, ".aws/config")+" (missing)",
		".aws/credentials (missing)", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_EC2_METADATA_DISABLED")
	delete(r.vars, "HOME")
	r.fails(fault.Usage, "no AWS credentials found", "HOME is not set")
	r.vars["AWS_CONFIG_FILE"], r.vars["AWS_SHARED_CREDENTIALS_FILE"] = os.DevNull, r.home+"/none"
	r.fails(fault.Usage, os.DevNull+" and ", "/none (missing)")
	r.vars["AWS_PROFILE"] = "prod"
	r.fails(fault.Usage, `there is no profile "prod"`, "AWS_PROFILE names it")
	delete(r.vars, "AWS_PROFILE")
	// A machine that is none of EC2, with nothing at the address of the metadata service.
	delete(r.vars, "AWS_EC2_METADATA_DISABLED")
	nobody := httptest.NewServer(nil)
	nobody.Close()
	r.aws.testOnlyIMDS, r.aws.testOnlyEC2 = nobody.URL, func() bool { return false }
	r.fails(fault.Usage, "no AWS credentials found", "there is none")
	r.aws.testOnlyEC2 = func() bool { return true } // then it is away, and waited for
	r.fails(fault.Away, "the metadata service of EC2", "HttpPutResponseHopLimit")
	r.vars["AWS_EC2_METADATA_SERVICE_ENDPOINT"], r.aws.testOnlyEC2 = nobody.URL, func() bool { return false }
	r.fails(fault.Away, "the metadata service of EC2")
	r.vars["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "nonsense"
	r.fails(fault.Usage, "AWS_EC2_METADATA_SERVICE_ENDPOINT is no address")
}

func TestAWSWebIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	role := account + "role/pod"
	r.sts.TrustWeb("webtoken.one", role)
	r.vars["AWS_WEB_IDENTITY_TOKEN_FILE"], r.vars["AWS_ROLE_ARN"] = r.file("token", "webtoken.one\n"), role
	one := r.is("arn:aws:sts::123456789012:assumed-role/pod/vaultexec")
	r.vars["AWS_ROLE_SESSION_NAME"] = "app"
	if again := r.is("arn:aws:sts::123456789012:assumed-role/pod/app"); again.By != one.By {
		t.Error("the credentials of a role are others each time, and what they were made of is the same")
	}
	asked := r.sts.Requests()[0]
	if asked.Action != "AssumeRoleWithWebIdentity" || asked.Duration != "900" || asked.Caller != "" {
		t.Errorf("%+v", asked)
	}
	r.sts.TrustWeb("webtoken.two", "") // has expired
	r.file("token", "webtoken.two")
	r.fails(fault.Refused, "STS refuses the web identity (ExpiredTokenException)", "has expired")
	r.sts.TrustWeb("webtoken.new", role)
	r.file("token", "webtoken.new")
	if other := r.is("arn:aws:sts::123456789012:assumed-role/pod/app"); other.By == one.By {
		t.Error("another token, and it says the same of what it was made with")
	}
	r.file("token", "webtoken.three")
	r.fails(fault.Refused, "(InvalidIdentityToken)", "trust policy")
	r.sts.Break(http.StatusServiceUnavailable)
	r.fails(fault.Away, "STS cannot give the web identity now")
	r.sts.Break(http.StatusFound)
	r.fails(fault.Away, "an answer that is not its own") // a redirect is not followed
	r.sts.Break(0)
	r.file("token", "webtoken\ntwo lines")
	r.fails(fault.Usage, "AWS_WEB_IDENTITY_TOKEN_FILE holds no token")
	r.vars["AWS_ROLE_ARN"] = ""
	r.fails(fault.Usage, "AWS_WEB_IDENTITY_TOKEN_FILE is set, and there is no role", "AWS_ROLE_ARN")
	r.vars["AWS_ROLE_ARN"], r.vars["AWS_WEB_IDENTITY_TOKEN_FILE"] = role, "/nowhere/token"
	_, err := r.aws.Prove(t.Context())
	if f := fault.Of(err); err == nil || !f.Passing || f.Kind != fault.Usage {
		t.Errorf("a token that is not there yet: %v", err)
	}
	r.file("token", "webtoken.one")
	r.vars["AWS_WEB_IDENTITY_TOKEN_FILE"] = filepath.Join(r.home, ".aws", "token")
	r.sts.Close()
	r.fails(fault.Away, "STS (127.0.0.1:", "VPC endpoint")
}

func TestAWSProfiles(t *testing.T) {
	t.Parallel()
	keys := "aws_access_key_id = " + ann.ID + "\naws_secret_access_key = " + ann.Secret + "\n"
	assumed := func(name, session string) string {
		return "arn:aws:sts::123456789012:assumed-role/" + name + "/" + session
	}
	for _, c := range []struct {
		name, config, credentials string
		vars                      string
		want                      string
		kind                      fault.Kind // of a failure, whose words are in want
	}{
		{"the default one", "", "[default]\n" + keys, "", ann.ARN, 0},
		{"in the configuration", "[default]\n" + keys, "", "", ann.ARN, 0},
		{"by name", "[profile prod]\nregion = us-east-1\n", "[prod]\n" + keys, "AWS_PROFILE=prod", ann.ARN, 0},
		{"by the older variable", "", "[prod]\n" + keys, "AWS_DEFAULT_PROFILE=prod", ann.ARN, 0},
		{"a name with blanks", "[profile \"my prod\"] # mine\n" + keys, "", "AWS_PROFILE=my prod", ann.ARN, 0},
		{"comments, blanks, quotes, CRLF", "", "\ufeff# x\r\n[ default ] ; y\r\n  aws_access_key_id=" + ann.ID + " # z\r\nAWS_SECRET_ACCESS_KEY : '" + ann.Secret + "'\r\n", "", ann.ARN, 0},
		{"what is nested is not the profile's", "[default]\n" + keys + "s3 =\n  aws_access_key_id = other\n  aws_secret_access_key = other\n", "", "", ann.ARN, 0},
		{"credentials win over the configuration", "[default]\naws_access_key_id = x\naws_secret_access_key = y\naws_session_token = z\n", "[default]\n" + keys, "", ann.ARN, 0},
		{"[profile default] wins", "[profile default]\n" + keys + "[default]\naws_access_key_id = x\naws_secret_access_key = y\n", "", "", ann.ARN, 0},
		{"a role", "[default]\nrole_arn = " + account + "role/app\nsource_profile = base\nexternal_id = ours\n[profile base]\n" + keys, "", "", assumed("app", "vaultexec"), 0},
		{"a role of its own keys", "[default]\nrole_arn = " + account + "role/plain\nsource_profile = default\nrole_session_name = me\n" + keys, "", "", assumed("plain", "me"), 0},
		{"roles in a row", "[default]\nrole_arn = " + account + "role/second\nsource_profile = mid\n[profile mid]\nrole_arn = " + account + "role/plain\nsource_profile = base\n[profile base]\n" + keys, "", "", assumed("second", "vaultexec"), 0},
		{"a web identity", "[default]\nrole_arn = " + account + "role/pod\nweb_identity_token_file = ~/.aws/token\n", "", "", assumed("pod", "vaultexec"), 0},

		{"a role that refuses", "[default]\nrole_arn = " + account + "role/app\nsource_profile = base\n[profile base]\n" + keys, "", "", `STS refuses the role of profile "default" (AccessDenied)`, fault.Refused},
		{"a circle", "[default]\nrole_arn = a\nsource_profile = b\n[profile b]\nrole_arn = c\nsource_profile = default\n", "", "", "has no credentials", fault.Usage},
		{"no such source", "[default]\nrole_arn = a\nsource_profile = b\n", "", "", `has a source_profile that is missing: "b"`, fault.Usage},
		{"a source without keys", "[default]\nrole_arn = a\nsource_profile = b\n[profile b]\nregion = eu-west-1\n", "", "", `profile "b" is a source_profile, and has no credentials`, fault.Usage},
		{"a source without a role", "[default]\nsource_profile = b\n", "", "", "has source_profile, and no role_arn", fault.Usage},
		{"two sources", "[default]\nrole_arn = a\nsource_profile = b\ncredential_source = Environment\n", "", "", "several sources", fault.Usage},
		{"half a key", "", "[default]\naws_access_key_id = x\n", "", `profile "default" has one half of a key in `, fault.Usage},
		{"another's source", "[default]\nrole_arn = a\ncredential_source = Lambda\n", "", "", "credential_source that there is not", fault.Usage},
		{"ECS that is none", "[default]\nrole_arn = a\ncredential_source = EcsContainer\n", "", "", "has EcsContainer as its source", fault.Usage},
		{"the environment without keys", "[default]\nrole_arn = a\ncredential_source = Environment\n", "", "", "AWS_ACCESS_KEY_ID has no key", fault.Usage},
		{"SSO", "[default]\nsso_session = corp\nsso_account_id = 1\n[sso-session corp]\n", "", "", "has sso_session, which is not supported", fault.Usage},
		{"older SSO", "[default]\nsso_start_url = https://x\n", "", "", "has sso_start_url, which", fault.Usage},
		{"aws login", "[default]\nlogin_session = x\n", "", "", "has login_session, which", fault.Usage},
		{"a program", "[default]\ncredential_process = touch started\n", "", "", "has credential_process, which", fault.Usage},
		{"a second factor", "[default]\nrole_arn = a\nsource_profile = b\nmfa_serial = c\n", "", "", "has mfa_serial, which", fault.Usage},
		{"not a profile", "[prod]\n" + keys, "", "AWS_PROFILE=prod", `there is no profile "prod"`, fault.Usage},
		{"a region that is none", "[default]\nregion = a.b\n" + keys, "", "", `profile "default" (region) is no region`, fault.Usage},
		{"a line break in a key", "", "[default]\naws_access_key_id = " + ann.ID + "\naws_secret_access_key = secret/of \"ann\n", "", "a key holds a character that none has", fault.Usage},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.sts.TrustRole(account+"role/app", awstest.Role{By: ann.ARN, ExternalID: "ours"})
			r.sts.TrustRole(account+"role/plain", awstest.Role{By: ann.ARN})
			r.sts.TrustRole(account+"role/second", awstest.Role{By: assumed("plain", "vaultexec")})
			r.sts.TrustWeb("webtoken", account+"role/pod")
			r.file("token", "webtoken")
			r.file("config", c.config)
			r.file("credentials", c.credentials)
			if name, value, ok := strings.Cut(c.vars, "="); ok {
				r.vars[name] = value
			}
			if c.kind != 0 {
				r.fails(c.kind, c.want)
				return
			}
			first := r.is(c.want)
			if again := r.is(c.want); again.By != first.By {
				t.Error("it says that it is made of something else, the second time")
			}
		})
	}
}

// The region: option, variables, profile, and the STS for the whole world.
func TestAWSRegion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		option, vars, config string
		region, address      string
	}{
		{"", "", "", "us-east-1", "https://sts.amazonaws.com/"},
		{"", "", "[default]\nregion = eu-west-3\n", "eu-west-3", "https://sts.eu-west-3.amazonaws.com/"},
		{"", "AWS_DEFAULT_REGION=eu-west-2", "[default]\nregion = eu-west-3\n", "eu-west-2", "https://sts.eu-west-2.amazonaws.com/"},
		{"", "AWS_REGION=cn-north-1 AWS_DEFAULT_REGION=eu-west-2", "", "cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn/"},
		{"us-gov-east-1", "AWS_REGION=eu-west-1", "", "us-gov-east-1", "https://sts.us-gov-east-1.amazonaws.com/"},
		{"us-east-1", "AWS_REGION=eu-west-1", "", "us-east-1", "https://sts.amazonaws.com/"}, // as the Vault CLI has it
		{"eu-west-1", "AWS_ENDPOINT_URL=https://sts.example", "", "eu-west-1", "https://sts.example/"},
		{"eu-west-1", "AWS_ENDPOINT_URL=https://all.example AWS_ENDPOINT_URL_STS=https://vpce-1.sts.eu-west-1.vpce.amazonaws.com/", "", "eu-west-1", "https://vpce-1.sts.eu-west-1.vpce.amazonaws.com/"},
		{"eu-west-1", "AWS_ENDPOINT_URL=https://sts.example AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true", "", "eu-west-1", "https://sts.eu-west-1.amazonaws.com/"},
		{"eu-west-1", "", "[default]\nendpoint_url = https://of.profile\n", "eu-west-1", "https://of.profile/"},
	} {
		r := newRig(t)
		delete(r.vars, "AWS_ENDPOINT_URL_STS")
		r.vars["AWS_ACCESS_KEY_ID"], r.vars["AWS_SECRET_ACCESS_KEY"] = ann.ID, ann.Secret
		for _, kv := range strings.Fields(c.vars) {
			name, value, _ := strings.Cut(kv, "=")
			r.vars[name] = value
		}
		r.file("config", c.config)
		r.aws.Region = c.option
		signed, err := r.aws.Prove(t.Context())
		if err != nil || signed.URL != c.address || !strings.Contains(signed.Headers.Reveal(), "/"+c.region+"/sts/aws4_request") {
			t.Errorf("%+v: %+v, %v", c, signed, err)
		}
	}
	r := newRig(t)
	r.vars["AWS_ACCESS_KEY_ID"], r.vars["AWS_SECRET_ACCESS_KEY"] = ann.ID, ann.Secret
	for name, bad := range map[string]string{"AWS_REGION": "eu.evil.example", "AWS_ENDPOINT_URL_STS": "https://user:pass@host", "AWS_ENDPOINT_URL": "sts"} {
		r := *r
		r.vars = map[string]string{"AWS_ACCESS_KEY_ID": ann.ID, "AWS_SECRET_ACCESS_KEY": ann.Secret, name: bad}
		r.aws.Getenv = func(n string) string { return r.vars[n] }
		r.fails(fault.Usage, name+" is no ")
	}
	r.aws.ServerID = "vault\r\nX-Evil: 1"
	r.fails(fault.Usage, "the server id")
}
