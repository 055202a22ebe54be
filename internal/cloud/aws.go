package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// AWS is where the credentials of AWS and the address of its STS are looked for.
type AWS struct {
	Getenv   func(name string) string
	Read     func(ctx context.Context, what, path string) (string, error) // fs.ErrNotExist can be found in its failure
	Region   string                                                       // wins over all others; may be empty
	ServerID string                                                       // for the header X-Vault-AWS-IAM-Server-ID; may be empty

	testOnlyNow  func() time.Time
	testOnlyECS  string      // in place of the address of ECS
	testOnlyIMDS string      // in place of the address of EC2's metadata service, and nobody named it
	testOnlyEC2  func() bool // whether this is a machine of EC2
}

// AWSRequest is a signed request that asks STS who has signed it. Whoever sends it learns that; nobody can make another
// request of it.
type AWSRequest struct {
	Method, URL, Body string
	Headers           Secret // JSON: a list of texts for each name

	Secrets []Secret // what it was made with and no text may hold
	By      string   // says with what it was made; is no secret
}

// Secret is a text that does not print: a function holds it, and reflection finds nothing but that.
type Secret struct{ held func() string }

//go:noinline
func newSecret(s string) Secret { return Secret{func() string { return s }} }

// Reveal returns the text.
//
//go:noinline
func (s Secret) Reveal() string {
	if s.held == nil {
		return ""
	}
	return s.held()
}

// callerIdentity is what Vault has STS asked.
const callerIdentity = "Action=GetCallerIdentity&Version=" + stsVersion

// stsVersion is that of the API of STS, since ever.
const stsVersion = "2011-06-15"

// formType is what STS takes.
const formType = "application/x-www-form-urlencoded; charset=utf-8"

// Prove finds the credentials and signs the request with them. It is done anew for each login: credentials are replaced, and a
// signature is good for some minutes only.
func (a AWS) Prove(ctx context.Context) (*AWSRequest, error) {
	p := &awsProver{AWS: a, made: sha256.New()}
	if err := p.checkServerID(); err != nil {
		return nil, err
	}
	keys, err := p.credentials(ctx)
	if err != nil {
		return nil, err
	}
	region, endpoint, err := p.loginEndpoint(ctx)
	if err != nil {
		return nil, err
	}
	r, err := question(ctx, http.MethodPost, endpoint, callerIdentity, "Content-Type", formType, "X-Vault-AWS-IAM-Server-ID", p.ServerID)
	if err != nil {
		return nil, err
	}
	if err := p.sign(r, callerIdentity, keys, region, "sts"); err != nil {
		return nil, err
	}
	return &AWSRequest{Method: r.Method, URL: r.URL.String(), Body: callerIdentity, Headers: headersJSON(r.Header),
		Secrets: p.secrets, By: hex.EncodeToString(p.made.Sum(nil))}, nil
}

// awsProver is one Prove.
type awsProver struct {
	AWS
	files   *awsFiles // nil until they are read
	secrets []Secret
	made    hash.Hash // of what the credentials were made of
}

// awsKeys are credentials of AWS.
type awsKeys struct {
	id            string
	secret, token Secret // token is empty for those that do not end
}

// keys makes credentials of what a source gave. name names the source in errors.
func (p *awsProver) keys(name, id, secret, token string) (*awsKeys, error) {
	id, secret, token = strings.TrimSpace(id), strings.TrimSpace(secret), strings.TrimSpace(token)
	switch {
	case id == "" || secret == "":
		return nil, awsFailure(fault.Usage, name+" has no key", "give both, the access key id and the secret access key")
	case !isToken(id + secret + token):
		return nil, awsFailure(fault.Usage, name+": a key holds a character that none has",
			"write keys and session tokens without quotes, blanks and line breaks in them")
	}
	p.hide(secret)
	p.hide(token)
	return &awsKeys{id, newSecret(secret), newSecret(token)}, nil
}

// basis notes what the credentials are made of: what the login proves differs when one of the texts does.
//
//go:noinline
func (p *awsProver) basis(texts ...string) {
	for _, t := range texts {
		_, _ = p.made.Write([]byte(t + "\x00"))
	}
}

// hide notes what no text may hold.
//
//go:noinline
func (p *awsProver) hide(text string) {
	if text != "" {
		p.secrets = append(p.secrets, newSecret(text))
	}
}

// isToken reports whether a text has nothing but visible ASCII in it, as credentials and what goes into a header must.
//
//go:noinline
func isToken(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\'' }) < 0
}

func (p *awsProver) checkServerID() error {
	if isToken(strings.ReplaceAll(p.ServerID, " ", "")) {
		return nil
	}
	return awsFailure(fault.Usage, "the server id holds a character that no header may have",
		"give --aws-server-id as iam_server_id_header_value has it in Vault (`vault read auth/aws/config/client`)")
}

// sign signs a request with signature version 4.
func (p *awsProver) sign(r *http.Request, body string, keys *awsKeys, region, service string) error {
	now := time.Now()
	if p.testOnlyNow != nil {
		now = p.testOnlyNow()
	}
	sum := sha256.Sum256([]byte(body))
	err := v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: keys.id, SecretAccessKey: keys.secret.Reveal(),
		SessionToken: keys.token.Reveal()}, r, hex.EncodeToString(sum[:]), service, region, now)
	if err != nil {
		return awsFailure(fault.Defect, "the request cannot be signed", "")
	}
	return nil
}

// question makes a request with headers, which are names and values in turns; an empty value leaves its header out.
func question(ctx context.Context, method, address, body string, headers ...string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return nil, awsFailure(fault.Usage, "an address of AWS is none", "look at the variables AWS_…_ENDPOINT, AWS_ENDPOINT_URL and AWS_…_URI")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	return r, nil
}

// awsFailure is a failure of which the cause is known. Like others here, it is called from many places, and not made a part of each:
// that would be 20 kB of code.
//
//go:noinline
func awsFailure(kind fault.Kind, why, hint string) *fault.Error {
	return &fault.Error{Kind: kind, What: "cannot log in with aws", Why: why, Hint: hint, Passing: kind == fault.Away}
}

// IsAWSRegion reports whether a text may be the name of a region. It becomes a part of a host's name.
func IsAWSRegion(s string) bool {
	return s != "" && len(s) <= 40 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) < 0
}

// region finds the region: the option, the variables, the profile. It is empty when nobody names one.
func (p *awsProver) region(ctx context.Context) (string, error) {
	for _, c := range []struct{ from, region string }{
		{"--aws-region", p.Region}, {"AWS_REGION", p.Getenv("AWS_REGION")}, {"AWS_DEFAULT_REGION", p.Getenv("AWS_DEFAULT_REGION")},
	} {
		if c.region != "" {
			return checkRegion(c.from, c.region)
		}
	}
	profile, err := p.profile(ctx)
	if err != nil || profile.get("region") == "" {
		return "", err
	}
	return checkRegion(profile.title()+" (region)", profile.get("region"))
}

func checkRegion(from, region string) (string, error) {
	if !IsAWSRegion(region) {
		return "", awsFailure(fault.Usage, from+" is no region", "write it as eu-central-1")
	}
	return region, nil
}

// partitions have the domain of the services in parts of AWS that are not one with the rest, by the beginning of the region's name.
var partitions = []struct{ prefix, domain string }{
	{"cn-", "amazonaws.com.cn"}, {"eusc-", "amazonaws.eu"}, {"us-iso-", "c2s.ic.gov"}, {"us-isob-", "sc2s.sgov.gov"},
	{"eu-isoe-", "cloud.adc-e.uk"}, {"us-isof-", "csp.hci.ic.gov"},
}

// stsEndpoint is the address of STS in a region; without one, that for the whole world, which goes by us-east-1.
func stsEndpoint(region string) string {
	if region == "" {
		return "https://sts.amazonaws.com/"
	}
	domain := "amazonaws.com" // that of GovCloud as well
	for _, part := range partitions {
		if strings.HasPrefix(region, part.prefix) {
			domain = part.domain
		}
	}
	return "https://sts." + region + "." + domain + "/"
}

// globalRegion is what requests to sts.amazonaws.com are signed for.
const globalRegion = "us-east-1"

// endpoint is the STS that vaultexec itself asks, and the region to sign for.
func (p *awsProver) endpoint(ctx context.Context) (region, endpoint string, err error) {
	if region, err = p.region(ctx); err != nil {
		return "", "", err
	}
	endpoint = stsEndpoint(region)
	if region == "" {
		region = globalRegion
	}
	other, from, err := p.otherEndpoint(ctx)
	if err != nil || other == "" {
		return region, endpoint, err
	}
	if !isAddress(other) {
		return "", "", awsFailure(fault.Usage, from+" is no address", "write it as https://HOST")
	}
	return region, strings.TrimSuffix(other, "/") + "/", nil
}

// isAddress reports whether a text is an address of HTTP with a host, and nothing secret in it.
func isAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// loginEndpoint is the STS that the request for Vault is signed for. Vault sends it to the address of its own configuration
// (sts_endpoint), which is the one for the whole world unless somebody changed it; so the Vault CLI signs for that in us-east-1, too.
func (p *awsProver) loginEndpoint(ctx context.Context) (region, endpoint string, err error) {
	region, endpoint, err = p.endpoint(ctx)
	if endpoint == "https://sts.us-east-1.amazonaws.com/" {
		endpoint = stsEndpoint("")
	}
	return region, endpoint, err
}

// otherEndpoint is an address that somebody set in place of AWS' own: a VPC endpoint, or a stand-in.
func (p *awsProver) otherEndpoint(ctx context.Context) (address, from string, err error) {
	if isTrue(p.Getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")) {
		return "", "", nil
	}
	for _, name := range []string{"AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"} {
		if v := p.Getenv(name); v != "" {
			return v, name, nil
		}
	}
	profile, err := p.profile(ctx)
	if err != nil {
		return "", "", err
	}
	return profile.get("endpoint_url"), profile.title() + " (endpoint_url)", nil
}
