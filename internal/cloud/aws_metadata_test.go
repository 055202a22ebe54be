package cloud

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/agenticverz/vaultexec/internal/awstest"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// onEC2 makes the rig an instance whose role has a key that STS knows.
func onEC2(t *testing.T) (*rig, *awstest.IMDS, awstest.Key) {
	t.Helper()
	r := newRig(t)
	key := temporary("instance")
	r.sts.Know(key)
	imds := awstest.NewIMDS(t, "instance-role", key)
	delete(r.vars, "AWS_EC2_METADATA_DISABLED")
	r.vars["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = imds.URL
	return r, imds, key
}

func TestAWSInstance(t *testing.T) {
	t.Parallel()
	r, imds, key := onEC2(t)
	first := r.is(key.ARN)
	role := "/latest/meta-data/iam/security-credentials/"
	if got, want := imds.Seen(), []string{"PUT /latest/api/token", "GET " + role, "GET " + role + "instance-role"}; !slices.Equal(got, want) {
		t.Errorf("it asked %v, want %v", got, want)
	}
	for _, secret := range []string{key.Secret, key.Token, "AQAEmetadata-token-1=="} {
		if !slices.ContainsFunc(first.Secrets, func(s Secret) bool { return s.Reveal() == secret }) {
			t.Errorf("%s is not noted as a secret", secret)
		}
	}
	// New credentials are taken up at the next login.
	next := temporary("next")
	r.sts.Know(next)
	imds.Set(next, "Success")
	if second := r.is(next.ARN); second.By == first.By {
		t.Error("other credentials, and it says the same of what it was made with")
	}
	r.file("config", "[default]\nrole_arn = "+account+"role/app\ncredential_source = Ec2InstanceMetadata\n")
	r.sts.TrustRole(account+"role/app", awstest.Role{By: next.ARN})
	r.is("arn:aws:sts::123456789012:assumed-role/app/vaultexec")
	r.file("config", "")

	imds.Set(next, "AssumeRoleUnauthorizedAccess")
	r.fails(fault.Usage, "no credentials for instance-role (AssumeRoleUnauthorizedAccess)", "ec2.amazonaws.com")
	imds.Set(awstest.Key{}, "Success")
	r.fails(fault.Usage, "has no key")
	imds.Role = ""
	r.fails(fault.Usage, "the EC2 instance has no role", "instance profile")
}

// What else may answer at the address of the metadata service.
func TestAWSInstanceTrouble(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("somebody else is asked %s %s", r.Method, r.URL)
		_, _ = io.WriteString(w, "token")
	}))
	defer elsewhere.Close()
	on := func(path string, f http.HandlerFunc, s *awstest.IMDS) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, path) {
				f(w, r)
				return
			}
			s.Serve(w, r)
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	const token, roles = "/latest/api/token", "/latest/meta-data/"
	for _, c := range []struct {
		name, path string
		answer     http.HandlerFunc
		kind       fault.Kind
		want       string
	}{
		{"switched off", token, status(403), fault.Usage, "gives no token (HTTP 403)"},
		{"of version 1 only", token, status(404), fault.Usage, "version 1, which takes none, is never used"},
		{"has trouble", token, status(503), fault.Away, "gives no token now (HTTP 503)"},
		{"too many", token, status(429), fault.Away, "gives no token now (HTTP 429)"},
		{"a redirect", token, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, fault.Usage, "gives no token (HTTP 307)"},
		{"a page", token, says("<html>\n<body>log in</body>"), fault.Usage, "gives no token (HTTP 200)"},
		{"nothing", token, says(""), fault.Usage, "gives no token (HTTP 200)"},
		{"without an end", token, endless, fault.Away, "gives no usable answer"},
		{"the token has expired", roles, status(401), fault.Away, "gives no credentials now (HTTP 401)"},
		{"a redirect of the credentials", roles, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, fault.Usage, "gives no credentials (HTTP 302)"},
		{"trouble with credentials", roles, status(500), fault.Away, "gives no credentials now (HTTP 500)"},
		{"credentials without an end", roles, endless, fault.Away, "gives no usable answer"},
		{"a role that leads elsewhere", roles, says("../../user-data"), fault.Away, "an answer that is not its own"},
		{"a role of dots", roles, says(".."), fault.Away, "an answer that is not its own"},
		{"a page for a role", roles, says("<html>"), fault.Away, "an answer that is not its own"},
		{"no JSON", roles + "iam/security-credentials/instance-role", says("secret/of it"), fault.Away, "an answer that is not its own"},
		{"numbers for keys", roles + "iam/security-credentials/instance-role", says(`{"Code":"Success","AccessKeyId":12,"SecretAccessKey":{"x":"secret/of it"}}`), fault.Away, "an answer that is not its own"},
		{"an odd code", roles + "iam/security-credentials/instance-role", says(`{"Code":"words of\u001b[31m it"}`), fault.Usage, "(HTTP 200)"},
		{"a cut connection", roles, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.Away, "gives no usable answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, imds, _ := onEC2(t)
			imds.Answer(on(c.path, c.answer, imds))
			r.fails(c.kind, c.want)
			if seen := imds.Seen(); strings.Contains(c.name, "role") && len(seen) != 2 {
				t.Errorf("it asked for what is no role: %v", seen)
			}
		})
	}
	r, imds, key := onEC2(t)
	// A token that has become invalid meanwhile: the next login has another one.
	var forgotten atomic.Bool
	imds.Answer(func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodGet && forgotten.CompareAndSwap(false, true) {
			imds.Forget()
		}
		imds.Serve(w, q)
	})
	r.fails(fault.Away, "gives no credentials now (HTTP 401)")
	r.is(key.ARN)
	imds.Answer(nil)
	// The stand-in refuses what the real one does.
	if resp, err := http.Get(imds.URL + "/latest/meta-data/iam/security-credentials/"); err != nil || resp.StatusCode != 401 {
		t.Errorf("version 1: %v, %v", resp, err)
	}
	r.vars["AWS_EC2_METADATA_DISABLED"] = "True"
	r.fails(fault.Usage, "switched off by AWS_EC2_METADATA_DISABLED")
}

func endless(w http.ResponseWriter, r *http.Request) {
	junk := []byte(strings.Repeat("x", 1<<16))
	for r.Context().Err() == nil {
		if _, err := w.Write(junk); err != nil {
			return
		}
	}
}

func TestAWSContainer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	task := temporary("task")
	r.sts.Know(task)
	ecs := awstest.NewContainer(t, "/v2/credentials/1234?x=y", "", task)
	r.aws.testOnlyECS = ecs.URL
	r.vars["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "/v2/credentials/1234?x=y"
	r.vars["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://169.254.170.2.evil.example/" // the other one wins
	r.is(task.ARN)
	r.vars["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "/v2/credentials/other"
	r.fails(fault.Refused, "the container's endpoint refuses (InvalidPath)", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "taskRoleArn")
	r.vars["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "@127.0.0.2/"
	r.fails(fault.Usage, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is no path")
	delete(r.vars, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")

	agent := awstest.NewContainer(t, "/v1/credentials", "authtoken-1", task)
	u, _ := url.Parse(agent.URL)
	r.vars["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://localhost:" + u.Port() + "/v1/credentials"
	r.vars["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "authtoken-1"
	first := r.is(task.ARN)
	if !slices.ContainsFunc(first.Secrets, func(s Secret) bool { return s.Reveal() == "authtoken-1" }) {
		t.Error("the authorization token is not noted as a secret")
	}
	r.vars["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "authtoken-2"
	r.fails(fault.Refused, "refuses (AccessDeniedException)", "pod identity association")
	// A file wins, and is read again.
	r.vars["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = r.file("eks", "authtoken-1\n")
	r.is(task.ARN)
	agent.Set("authtoken-3", task)
	r.fails(fault.Refused, "refuses")
	r.file("eks", "authtoken-3")
	r.is(task.ARN)
	for _, bad := range []string{"", "\n", "authtoken-3\nX-Evil: 1", "auth\x00token"} {
		r.file("eks", bad)
		r.fails(fault.Usage, "AWS_CONTAINER_AUTHORIZATION_TOKEN(_FILE) holds no token")
	}
	r.vars["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = filepath.Join(r.home, "none")
	r.fails(fault.Usage, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
	r.file("eks", "authtoken-3")
	r.vars["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = filepath.Join(r.home, ".aws", "eks")
	// A profile may name it, and its keys win over it.
	r.file("config", "[default]\nrole_arn = "+account+"role/app\ncredential_source = EcsContainer\n")
	r.sts.TrustRole(account+"role/app", awstest.Role{By: task.ARN})
	r.is("arn:aws:sts::123456789012:assumed-role/app/vaultexec")
	r.file("config", "[default]\naws_access_key_id = "+ann.ID+"\naws_secret_access_key = "+ann.Secret+"\n")
	r.is(ann.ARN)
	r.file("config", "")
	agent.Close()
	r.fails(fault.Away, "the container's endpoint: connection refused", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "the agent of ECS or of EKS Pod Identity")
}

// Over plain HTTP nobody but this machine, ECS and EKS is asked, whatever a name stands for.
func TestAWSContainerHosts(t *testing.T) {
	t.Parallel()
	for host, ok := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "169.254.170.2": true, "169.254.170.23": true, "fd00:ec2::23": true, "::ffff:127.0.0.1": true, "localhost": true,
		"169.254.169.254": false, "10.0.0.1": false, "fd00:ec2::24": false, "::ffff:10.0.0.1": false, "0.0.0.0": false, "::": false, "1.2.3.4": false,
	} {
		addrs, err := allowedHosts(t.Context(), host, "80")
		if (err == nil) != ok {
			t.Errorf("%s: %v, %v", host, addrs, err)
		}
		for _, a := range addrs {
			if h, port, err := net.SplitHostPort(a); err != nil || net.ParseIP(h) == nil || port != "80" {
				t.Errorf("%s: %s is no address to connect to", host, a)
			}
		}
	}
	r := newRig(t)
	for _, bad := range []string{"http://10.0.0.1/x", "http://169.254.169.254/latest", "ftp://127.0.0.1/", "http:///x", "127.0.0.1", "http://user:secret/of@127.0.0.1/"} {
		r.vars["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = bad
		_, err := r.aws.Prove(t.Context())
		if !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// A proxy of the environment is never asked for credentials of the machine, nor for those of STS over plain HTTP. net/http reads the
// environment once, so this runs in a process of its own.
func TestAWSGoesPastProxies(t *testing.T) {
	proxy := os.Getenv("TEST_PROXY")
	if proxy == "" {
		var asked atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/asked" {
				fmt.Fprint(w, asked.Load())
				return
			}
			asked.Add(1)
			w.WriteHeader(http.StatusBadGateway)
		}))
		defer s.Close()
		cmd := exec.Command(os.Args[0], "-test.run=^TestAWSGoesPastProxies$")
		cmd.Env = append(os.Environ(), "TEST_PROXY="+s.URL)
		if out, err := cmd.CombinedOutput(); err != nil || asked.Load() != 1 {
			t.Errorf("%v, asked %d times: %s", err, asked.Load(), vaulttest.Redact(string(out)))
		}
		return
	}
	asked := func() string {
		t.Helper()
		resp, err := (&http.Client{Transport: &http.Transport{}}).Get(proxy + "/asked")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	r, _, key := onEC2(t)
	r.is(key.ARN)
	// net/http asks no proxy for what is on this machine, so the names are another machine's.
	r.vars["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://metadata.invalid"
	r.fails(fault.Away, "the metadata service of EC2")
	r.vars["AWS_WEB_IDENTITY_TOKEN_FILE"], r.vars["AWS_ROLE_ARN"] = r.file("token", "webtoken"), account+"role/pod"
	r.vars["AWS_ENDPOINT_URL_STS"] = "http://sts.invalid"
	r.fails(fault.Away, "STS (sts.invalid)")
	if n := asked(); n != "0" {
		t.Errorf("the proxy was asked %s times", n)
	}
	r.vars["AWS_ENDPOINT_URL_STS"] = "https://sts.invalid"
	r.fails(fault.Away, "STS (sts.invalid)")
	if n := asked(); n != "1" {
		t.Errorf("the proxy was asked %s times for what goes to the internet with TLS", n)
	}
}
