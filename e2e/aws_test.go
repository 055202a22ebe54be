package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/awstest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

const (
	awsAccount  = "arn:aws:iam::123456789012:"
	awsServerID = "vault.example.com"
)

// TestAWS logs in with aws at a real Vault, whose own aws method has a stand-in of STS asked. There is one Vault for all of it.
func TestAWS(t *testing.T) {
	t.Parallel()
	srv := vaulttest.NewDevWithPlugin(t, "aws")
	t.Run("login", func(t *testing.T) { testAWSLogin(t, newAWSRig(t, srv, "aws")) })
	t.Run("refused", func(t *testing.T) { testAWSRefused(t, newAWSRig(t, srv, "aws-refused")) })
	t.Run("waits", func(t *testing.T) { testAWSWaitsForMetadata(t, newAWSRig(t, srv, "aws-waits")) })
	t.Run("again", func(t *testing.T) { testAWSLogsInAgain(t, newAWSRig(t, srv, "aws-again")) })
}

// awsRig is an auth mount of aws, and the STS that it asks.
type awsRig struct {
	*rig
	auth string
	sts  *awstest.STS
	key  awstest.Key // of user/ann, who may be app
}

func newAWSRig(t *testing.T, srv *vaulttest.Server, mount string) *awsRig {
	t.Helper()
	r := &awsRig{rig: rigOn(t, srv), auth: mount, sts: awstest.NewSTS(t, "us-east-1")}
	r.srv.Must(t, "POST", "sys/auth/"+mount, map[string]any{"type": "aws"})
	r.srv.Must(t, "POST", "auth/"+mount+"/config/client", map[string]any{"sts_endpoint": r.sts.URL, "sts_region": "us-east-1", "iam_endpoint": r.sts.URL,
		"iam_server_id_header_value": awsServerID, "max_retries": 0})
	r.role("app", "user/ann", "role/app", "role/pod", "role/second")
	r.role("other", "user/bob")
	r.key = secretKey(awstest.Key{ID: "AKIAANN", Secret: vaulttest.Canary("aws/key+ann"), ARN: awsAccount + "user/ann", UserID: "AIDAANN"})
	r.sts.Know(r.key)
	r.set("VAULT_TOKEN=", "VAULTEXEC_AUTH=aws", "VAULTEXEC_ROLE=app", "VAULTEXEC_AWS_SERVER_ID="+awsServerID, "AWS_EC2_METADATA_DISABLED=true")
	if mount != "aws" {
		r.set("VAULTEXEC_AUTH_MOUNT=" + mount)
	}
	return r
}

// role makes a role of Vault for some principals.
func (r *awsRig) role(name string, principals ...string) {
	r.t.Helper()
	for i := range principals {
		principals[i] = awsAccount + principals[i]
	}
	r.srv.Must(r.t, "POST", "auth/"+r.auth+"/role/"+name, map[string]any{"auth_type": "iam", "bound_iam_principal_arn": principals, "resolve_aws_unique_ids": false,
		"token_policies": r.policy})
}

func secretKey(k awstest.Key) awstest.Key {
	vaulttest.Secret(k.Secret)
	if k.Token != "" {
		vaulttest.Secret(k.Token)
	}
	return k
}

// machineKey is one that a machine has for the role app.
func (r *awsRig) machineKey(name string) awstest.Key {
	k := secretKey(awstest.Key{ID: "ASIA" + strings.ToUpper(name), Secret: vaulttest.Canary("aws/key+" + name), Token: vaulttest.Canary("aws//token==" + name),
		ARN: "arn:aws:sts::123456789012:assumed-role/app/" + name, UserID: "AROAAPP:" + name})
	r.sts.Know(k)
	return k
}

func (r *awsRig) file(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, ".aws", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	vaulttest.WriteFile(r.t, path, text, 0o600)
	return path
}

func variablesOf(k awstest.Key) []string {
	return []string{"AWS_ACCESS_KEY_ID=" + k.ID, "AWS_SECRET_ACCESS_KEY=" + k.Secret, "AWS_SESSION_TOKEN=" + k.Token}
}

// with is the rig with some more variables, for one part of a test.
func (r *awsRig) with(t *testing.T, vars ...string) *awsRig {
	inner := *r.rig
	inner.t = t
	inner.set(vars...)
	return &awsRig{&inner, r.auth, r.sts, r.key}
}

// Through each source of credentials: Vault's own aws method accepts the login, and the command gets its secret.
func testAWSLogin(t *testing.T, r *awsRig) {
	machine := r.machineKey("machine")
	imds := awstest.NewIMDS(t, "app", machine)
	authorization := vaulttest.Canary("authorization")
	eks := awstest.NewContainer(t, "/v1/credentials", authorization, machine)
	web := vaulttest.Canary("web.identity")
	r.sts.TrustWeb(web, awsAccount+"role/pod")
	r.sts.TrustRole(awsAccount+"role/second", awstest.Role{By: r.key.ARN, ExternalID: "ours"})
	keys := "aws_access_key_id = " + r.key.ID + "\naws_secret_access_key = " + r.key.Secret + "\n"
	config := r.file("profiles", "[profile second]\nrole_arn = "+awsAccount+"role/second\nsource_profile = base\nexternal_id = ours\n[profile base]\n"+keys)
	for _, c := range []struct {
		name   string
		vars   []string
		caller string // whom STS tells Vault of
	}{
		{"variables", variablesOf(r.key), r.key.ARN},
		{"a session", variablesOf(machine), machine.ARN},
		{"web identity", []string{"AWS_WEB_IDENTITY_TOKEN_FILE=" + r.file("web", web), "AWS_ROLE_ARN=" + awsAccount + "role/pod", "AWS_ROLE_SESSION_NAME=p", "AWS_ENDPOINT_URL_STS=" + r.sts.URL},
			"arn:aws:sts::123456789012:assumed-role/pod/p"},
		{"a file of keys", []string{"AWS_SHARED_CREDENTIALS_FILE=" + r.file("keys", "[default]\n"+keys)}, r.key.ARN},
		{"a role of a profile", []string{"AWS_CONFIG_FILE=" + config, "AWS_PROFILE=second", "AWS_ENDPOINT_URL=" + r.sts.URL}, "arn:aws:sts::123456789012:assumed-role/second/vaultexec"},
		{"a container", []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + eks.URL + "/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + r.file("authorization", authorization)}, machine.ARN},
		{"an instance", []string{"AWS_EC2_METADATA_DISABLED=false", "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + imds.URL}, machine.ARN},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := r.with(t, c.vars...)
			before := len(r.sts.Requests())
			j := r.start("--", "env").finish2(t)
			out := "\n" + j.out.String()
			if !strings.Contains(out, "\nAPI_KEY="+r.value+"\n") {
				t.Fatalf("the command has no secret: %s", vaulttest.Redact(j.err.String()))
			}
			for _, kv := range c.vars { // they are the command's own
				if !strings.Contains(out, "\n"+kv+"\n") {
					t.Errorf("the command lacks %s", strings.SplitN(kv, "=", 2)[0])
				}
			}
			asked := r.sts.Requests()[before:]
			last := asked[len(asked)-1]
			if last.Action != "GetCallerIdentity" || last.Caller != c.caller || last.ServerID != awsServerID || last.Path != "//" {
				t.Errorf("STS was asked %+v, want it of %s", last, c.caller)
			}
			want := "sts.amazonaws.com"
			if strings.Contains(fmt.Sprint(c.vars), "AWS_ENDPOINT_URL") {
				want = strings.TrimPrefix(r.sts.URL, "http://")
			}
			if last.Host != want {
				t.Errorf("it is signed for %s, want %s", last.Host, want)
			}
			// And check says how it logged in, with nothing secret (finish looks for that).
			k := r.start("check", "--log-level", "debug").finish("0")
			if out := k.out.String(); !strings.Contains(out, "aws at auth/aws") {
				t.Errorf("check does not say how it logged in:\n%s", vaulttest.Redact(out))
			}
		})
	}
	if n := tokensOf(t, r.srv, "auth/aws/login"); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
}

// Every refusal says what to do, and nothing that is secret.
func testAWSRefused(t *testing.T, r *awsRig) {
	expired := secretKey(awstest.Key{ID: "ASIAOLD", Secret: vaulttest.Canary("aws/key+old"), Token: vaulttest.Canary("aws//token==old"), ARN: awsAccount + "user/ann", Expires: time.Now().Add(-time.Hour)})
	r.sts.Know(expired)
	wrong, halved := r.key, r.machineKey("halved")
	wrong.Secret = vaulttest.Canary("aws/wrong+key")
	session := r.machineKey("session")
	session.Secret = vaulttest.Canary("aws/wrong+session")
	halved.Token = ""
	for _, c := range []struct {
		name  string
		vars  []string
		clock time.Duration // of STS
		code  string
		says  string
	}{
		{"a wrong secret", variablesOf(wrong), 0, "121", "AWS refuses the signature"},
		{"a wrong secret with a session token, which STS quotes", variablesOf(session), 0, "121", "AWS refuses the signature"},
		{"an unknown key", variablesOf(awstest.Key{ID: "AKIANOBODY", Secret: wrong.Secret}), 0, "121", "AWS does not know the access key"},
		{"a session without its token", variablesOf(halved), 0, "121", "AWS does not know the access key.*\n.*AWS_SESSION_TOKEN"},
		{"expired", variablesOf(expired), 0, "121", "AWS says that the credentials have expired"},
		{"a clock that is slow", variablesOf(r.key), 10 * time.Minute, "121", "too old, or of the future.*\n.*date -u"},
		{"a clock that is fast", variablesOf(r.key), -10 * time.Minute, "121", "too old, or of the future.*\n.*date -u"},
		{"another region", append(variablesOf(r.key), "AWS_REGION=eu-west-1"), 0, "121", "signed for another region.*\n.*--aws-region us-east-1"},
		{"another server id", append(variablesOf(r.key), "VAULTEXEC_AWS_SERVER_ID=vault.evil.example"), 0, "121", "expected .* but got .*\n.*--aws-server-id"},
		{"no server id", append(variablesOf(r.key), "VAULTEXEC_AWS_SERVER_ID="), 0, "121", "missing header.*\n.*--aws-server-id"},
		{"somebody else's role", append(variablesOf(r.key), "VAULTEXEC_ROLE=other"), 0, "121", "does not belong to the role.*\n.*bound_iam_principal_arn"},
		{"no such role", append(variablesOf(r.key), "VAULTEXEC_ROLE=nobody"), 0, "121", "entry for role nobody not found.*\n.*vault list auth/aws-refused/role"},
		{"no such mount", append(variablesOf(r.key), "VAULTEXEC_AUTH_MOUNT=amazon"), 0, "121", "no such auth mount"},
		{"no credentials", nil, 0, "125", "no AWS credentials found.*\n.*AWS_ACCESS_KEY_ID.*switched off by AWS_EC2_METADATA_DISABLED"},
		{"a region in the configuration that is none", append(variablesOf(r.key), "VAULTEXEC_AWS_REGION=eu.example"), 0, "125", "not a region"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := r.with(t, c.vars...)
			r.sts.SetClock(c.clock)
			defer r.sts.SetClock(0)
			r.touch("--log-level", "debug").finish(c.code).says(c.says)
			if r.started() {
				t.Error("the command was started")
			}
		})
	}
	// The role may be left out: Vault goes by the principal's name.
	r.role("ann", "user/ann")
	r.with(t, append(variablesOf(r.key), "VAULTEXEC_ROLE=")...).touch().finish("0")
	// STS is away for Vault, or has trouble: that is waited for.
	away := r.with(t, append(variablesOf(r.key), "VAULTEXEC_WAIT=0")...)
	r.sts.Break(http.StatusServiceUnavailable)
	away.touch().finish("120").says("Vault cannot check the login now")
	r.sts.Break(0)
	r.sts.Close()
	away.touch().finish("120").says("Vault cannot check the login now")
}

// A metadata service that is configured and does not answer yet is waited for; nobody who logs in otherwise asks it.
func testAWSWaitsForMetadata(t *testing.T, r *awsRig) {
	imds := awstest.NewIMDS(t, "app", r.machineKey("machine"))
	r.set("AWS_EC2_METADATA_DISABLED=", "AWS_EC2_METADATA_SERVICE_ENDPOINT="+imds.URL)
	imds.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	j := r.touch("--wait", "1m")
	j.awaitStderr("waiting for a credential: .*the metadata service of EC2 gives no token now")
	imds.Answer(nil)
	j.finish("0")
	if !r.started() {
		t.Error("the command was not started")
	}
	imds.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	r.touch("--wait", "0").finish("120").says("the metadata service of EC2 gives no token now")
	before := len(imds.Seen())
	r.set("VAULTEXEC_AUTH=token", "VAULT_TOKEN="+r.token)
	r.touch().finish("0")
	r.start("check").finish("0")
	if n := len(imds.Seen()); n != before {
		t.Errorf("the metadata service was asked by who logs in with a token: %v", imds.Seen()[before:])
	}
}

// A token that ends is replaced by a new login, with a new signature, and with the credentials that the machine has by then.
func testAWSLogsInAgain(t *testing.T, r *awsRig) {
	first, second := r.machineKey("first"), r.machineKey("second")
	imds := awstest.NewIMDS(t, "app", first)
	r.set("AWS_EC2_METADATA_DISABLED=", "AWS_EC2_METADATA_SERVICE_ENDPOINT="+imds.URL)
	r.srv.Must(t, "POST", "auth/"+r.auth+"/role/app", map[string]any{"token_ttl": "3s", "token_max_ttl": "3s"})
	j := r.start("--watch", "--interval", "1s", "--", "sh", "-c", "touch started; exec sleep 1000")
	callers := func() (list []string) {
		for _, q := range r.sts.Requests() {
			list = append(list, q.Caller)
		}
		return list
	}
	wait.Until(t, 30*time.Second, "a second login", func() bool { return len(callers()) >= 2 })
	imds.Set(second, "Success")
	wait.Until(t, 30*time.Second, "a login with the new credentials", func() bool { return slices.Contains(callers(), second.ARN) })
	j.signal(syscall.SIGTERM)
	j.finish("TERM")
	if strings.Contains(j.err.String(), "WARN") {
		t.Errorf("it warns:\n%s", vaulttest.Redact(j.err.String()))
	}
}
