package cloud

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// ecsEndpoint is where the agent of ECS answers.
const ecsEndpoint = "http://169.254.170.2"

// containerHosts are the addresses beside loopback that credentials come from over plain HTTP: those of ECS and of EKS Pod Identity.
var containerHosts = []string{"169.254.170.2", "169.254.170.23", "fd00:ec2::23"}

func (p *awsProver) containerSet() bool {
	return p.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" || p.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != ""
}

// container asks the endpoint that ECS, or the agent of EKS Pod Identity, names in variables.
func (p *awsProver) container(ctx context.Context) (*awsKeys, error) {
	name, address := "AWS_CONTAINER_CREDENTIALS_FULL_URI", p.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if path := p.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); path != "" {
		name, address = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", orDefault(p.testOnlyECS, ecsEndpoint)+path
		if path[0] != '/' {
			return nil, awsFailure(fault.Usage, name+" is no path", "it begins with a slash; ECS sets it")
		}
	} else if before, _, _ := strings.Cut(address, "?"); !isAddress(before) {
		return nil, awsFailure(fault.Usage, name+" is no address", "write it as http://HOST/PATH; EKS sets it")
	}
	token, err := p.authorization(ctx)
	if err != nil {
		return nil, err
	}
	r, err := question(ctx, http.MethodGet, address, "", "Authorization", token)
	if err != nil {
		return nil, err
	}
	hosts := []string{r.URL.Host}
	if r.URL.Scheme != "https" {
		if hosts, err = allowedHosts(ctx, r.URL.Hostname(), orDefault(r.URL.Port(), "80")); err != nil {
			return nil, err
		}
	}
	var a answer
	for _, r.URL.Host = range hosts { // what the name stands for now, and nothing that it may stand for a moment later
		if a, err = exchange(ctx, r, nil); err == nil {
			break
		}
	}
	const who = "the container's endpoint"
	if err != nil {
		return nil, unanswered(ctx, who, err, name+" has its address: the agent of ECS or of EKS Pod Identity may not be ready, or something blocks the way to it")
	}
	var wire wireKeys
	wrong := json.Unmarshal(a.body, &wire)
	switch {
	case isPassing(a.status):
		return nil, awsFailure(fault.Away, who+" has no credentials now ("+errorCode("", a.status)+")", hintBusy)
	case a.status < http.StatusBadRequest && a.status != http.StatusOK:
		return nil, notTheirs(who)
	case a.status != http.StatusOK:
		f := awsFailure(fault.Refused, who+" refuses ("+errorCode(wire.Code, a.status)+")",
			name+" has its address: the task needs a role (taskRoleArn), the service account a pod identity association; and AWS_CONTAINER_AUTHORIZATION_TOKEN(_FILE) must be that of this container")
		f.RetryAfter = refusedPause
		return nil, f
	case wrong != nil:
		return nil, notTheirs(who)
	}
	return p.machineKeys(who, &wire)
}

const hintBusy = "it has trouble, or too many ask it"

// machineKeys are the credentials that a machine or container was given.
func (p *awsProver) machineKeys(from string, w *wireKeys) (*awsKeys, error) {
	p.basis("machine", w.id(), w.SecretAccessKey.Reveal(), w.Token.Reveal())
	return p.given(from, w)
}

// allowedHosts applies the rule of AWS' SDK: over plain HTTP the credentials come from this machine, or from the fixed addresses of ECS
// and EKS, and from nowhere else.
func allowedHosts(ctx context.Context, host, port string) ([]string, error) {
	addrs := []string{host}
	if _, err := netip.ParseAddr(host); err != nil {
		if addrs, err = net.DefaultResolver.LookupHost(ctx, host); err != nil || len(addrs) == 0 {
			return nil, awsFailure(fault.Away, "no address is found for the host of AWS_CONTAINER_CREDENTIALS_FULL_URI", "compare it with what set it, and look at DNS")
		}
	}
	for i, a := range addrs {
		ip, err := netip.ParseAddr(a)
		if ip = ip.Unmap(); err != nil || !ip.IsLoopback() && !slices.Contains(containerHosts, ip.String()) {
			return nil, awsFailure(fault.Usage, "AWS_CONTAINER_CREDENTIALS_FULL_URI names a foreign host",
				"credentials come over http from this machine and from ECS and EKS only ("+strings.Join(containerHosts, ", ")+"): use https, or look at who set it")
		}
		addrs[i] = net.JoinHostPort(a, port)
	}
	return addrs, nil
}

// authorization is the token by which the endpoint knows the container. The one in a file wins, and is replaced under us.
func (p *awsProver) authorization(ctx context.Context) (string, error) {
	from := "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
	file := p.Getenv(from)
	token := p.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	if file != "" {
		var err error
		if token, err = p.Read(ctx, from, file); err != nil {
			return "", err
		}
	}
	token = strings.TrimSpace(token)
	switch {
	case file != "" && token == "", !isToken(strings.ReplaceAll(token, " ", "")): // some write "Bearer …"
		return "", awsFailure(fault.Usage, "AWS_CONTAINER_AUTHORIZATION_TOKEN(_FILE) holds no token", "it has to hold one token, and nothing else")
	}
	p.hide(token)
	return token, nil
}

// Addresses of the metadata service of EC2.
const (
	imdsIPv4 = "http://169.254.169.254"
	imdsIPv6 = "http://[fd00:ec2::254]"
)

// unlikely bounds the wait for a metadata service that probably is not there.
const unlikely = 2 * time.Second

const (
	imdsCredentials = "/latest/meta-data/iam/security-credentials/"
	imdsName        = "the metadata service of EC2"
)

// imds asks the metadata service of EC2, version 2 only: first for a token, with PUT, which no proxy and no form of a web page
// sends. named is true when a profile says that it has the credentials.
func (p *awsProver) imds(ctx context.Context, named bool) (*awsKeys, error) {
	if isTrue(p.Getenv("AWS_EC2_METADATA_DISABLED")) {
		return nil, p.nothing(ctx, "switched off by AWS_EC2_METADATA_DISABLED")
	}
	base, set, err := p.imdsAddress(ctx)
	if err != nil {
		return nil, err
	}
	token, err := p.imdsToken(ctx, base, named || set || p.onEC2())
	if err != nil {
		return nil, err
	}
	body, err := imdsGet(ctx, base, "", token)
	if err != nil {
		return nil, err
	}
	role, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if role = strings.TrimSpace(role); !isRoleName(role) {
		return nil, notTheirs(imdsName)
	}
	if body, err = imdsGet(ctx, base, role, token); err != nil {
		return nil, err
	}
	var wire wireKeys
	switch {
	case json.Unmarshal(body, &wire) != nil:
		return nil, notTheirs(imdsName)
	case !strings.EqualFold(wire.Code, "Success"):
		return nil, awsFailure(fault.Usage, imdsName+" has no credentials for "+role+" ("+errorCode(wire.Code, http.StatusOK)+")",
			"EC2 itself must be allowed to assume the instance's role: look at the role's trust policy (ec2.amazonaws.com)")
	}
	return p.machineKeys(imdsName, &wire)
}

func isTrue(s string) bool { return strings.EqualFold(s, "true") }

// isRoleName reports whether a text may be the name of a role. It becomes a part of a path.
func isRoleName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, ".") != "" && strings.IndexFunc(s, func(r rune) bool {
		return !isWord(r) && !strings.ContainsRune("+=,@-", r)
	}) < 0
}

// imdsAddress is the address of the metadata service, and whether somebody set it.
func (p *awsProver) imdsAddress(ctx context.Context) (base string, set bool, err error) {
	profile, err := p.profile(ctx)
	if err != nil {
		return "", false, err
	}
	base = orDefault(p.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"), profile.get("ec2_metadata_service_endpoint"))
	mode := orDefault(p.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"), profile.get("ec2_metadata_service_endpoint_mode"))
	switch {
	case base != "" && !isAddress(base):
		return "", false, awsFailure(fault.Usage, "AWS_EC2_METADATA_SERVICE_ENDPOINT is no address", "write it as http://HOST")
	case base != "":
		return strings.TrimSuffix(base, "/"), true, nil
	case strings.EqualFold(mode, "IPv6"):
		return imdsIPv6, false, nil
	}
	return orDefault(p.testOnlyIMDS, imdsIPv4), false, nil
}

// imdsToken gets a token for one use. Where nothing says that there is such a service, it is given up soon, and nothing was found.
func (p *awsProver) imdsToken(ctx context.Context, base string, isThere bool) (string, error) {
	asked, cancel := ctx, func() {}
	if !isThere {
		asked, cancel = context.WithTimeout(ctx, unlikely)
	}
	defer cancel()
	r, err := question(asked, http.MethodPut, base+"/latest/api/token", "", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if err != nil {
		return "", err
	}
	status, body, err := ask(asked, r)
	token := strings.TrimSpace(string(body))
	switch {
	case status == http.StatusOK && token != "" && isToken(token):
		p.hide(token)
		return token, nil
	case !isThere && ctx.Err() == nil:
		return "", p.nothing(ctx, "there is none")
	case err != nil:
		return "", unanswered(ctx, imdsName, err,
			"in a container the instance's hop limit must be 2 at least (HttpPutResponseHopLimit), and nothing may block 169.254.169.254")
	case isPassing(status):
		return "", awsFailure(fault.Away, imdsName+" gives no token now ("+errorCode("", status)+")", hintBusy)
	}
	return "", awsFailure(fault.Usage, imdsName+" gives no token ("+errorCode("", status)+")",
		"it is switched off for this instance (HttpEndpoint), or something else answers; version 1, which takes none, is never used")
}

// imdsGet asks for the name of the instance's role, or for the credentials of one.
func imdsGet(ctx context.Context, base, role, token string) ([]byte, error) {
	r, err := question(ctx, http.MethodGet, base+imdsCredentials+role, "", "X-aws-ec2-metadata-token", token)
	if err != nil {
		return nil, err
	}
	status, body, err := ask(ctx, r)
	switch {
	case err != nil:
		return nil, unanswered(ctx, imdsName, err, "it gave a token just before")
	case status == http.StatusOK:
		return body, nil
	case status == http.StatusNotFound:
		return nil, awsFailure(fault.Usage, "the EC2 instance has no role", "give it an instance profile with a role; or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case isPassing(status), status == http.StatusUnauthorized: // the next try has a new token
		return nil, awsFailure(fault.Away, imdsName+" gives no credentials now ("+errorCode("", status)+")", hintBusy)
	}
	return nil, awsFailure(fault.Usage, imdsName+" gives no credentials ("+errorCode("", status)+")",
		"something else may answer at its address: look at AWS_EC2_METADATA_SERVICE_ENDPOINT and the network")
}

// onEC2 reports whether the machine says that it is one of EC2. Then its metadata service is there, and waited for.
func (p *awsProver) onEC2() bool {
	if p.testOnlyEC2 != nil {
		return p.testOnlyEC2()
	}
	vendor, _ := os.ReadFile("/sys/class/dmi/id/sys_vendor")
	id, _ := os.ReadFile("/sys/hypervisor/uuid") // of the older instances
	return strings.HasPrefix(string(vendor), "Amazon EC2") || strings.HasPrefix(string(id), "ec2")
}
