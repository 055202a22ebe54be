package cloud

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// AzureResource is what a token is for when nobody says it: Azure's own management interface.
const AzureResource = "https://management.azure.com/"

// Azure is how a machine of Azure, or a workload on one, gets a token of its identity. The variables are Microsoft's own: its libraries
// go by the same ones (azidentity, "DefaultAzureCredential").
type Azure struct {
	Resource   string // what the token is for; the mount's configuration has to have the same, letter by letter
	ClientID   string // which identity, where there are several; "" for the one that there is
	ResourceID string // of what the identity belongs to, for roles that are bound to it; "" to have it found out

	Federated func(context.Context) (string, error) // reads AZURE_FEDERATED_TOKEN_FILE; nil without it
	Tenant    string                                // AZURE_TENANT_ID
	Authority string                                // AZURE_AUTHORITY_HOST

	Endpoint string        // IDENTITY_ENDPOINT: of App Service, Functions and Container Apps
	Header   func() string // IDENTITY_HEADER: what the endpoint wants to see; nil without it. A function, so that nobody prints it
	Arc      bool          // IMDS_ENDPOINT is set
	Fabric   bool          // IDENTITY_SERVER_THUMBPRINT is set

	IMDS string // AZURE_POD_IDENTITY_AUTHORITY_HOST: another address of the instance metadata service

	Owner, Group, Site string // WEBSITE_OWNER_NAME, WEBSITE_RESOURCE_GROUP, WEBSITE_SITE_NAME of App Service
}

// Kind says in words where the token comes from.
func (z *Azure) Kind() string {
	switch {
	case z.Federated != nil:
		return "the workload's federated token"
	case z.Endpoint != "":
		return "the app's identity endpoint"
	}
	return "the instance metadata service"
}

// Check says what is missing or cannot be, before anything is asked.
func (z *Azure) Check() *fault.Error {
	bad := func(why, hint string) *fault.Error {
		return &fault.Error{Kind: fault.Usage, What: "cannot log in with azure", Why: why, Hint: hint}
	}
	if z.ResourceID != "" {
		if subscription, group := inResourceID(z.ResourceID); subscription == "" || group == "" {
			return bad("--azure-resource-id is not the ID of a resource",
				"write it as /subscriptions/ID/resourceGroups/NAME/providers/NAMESPACE/TYPE/NAME")
		}
	}
	switch {
	case z.Federated != nil && z.Tenant == "":
		return bad("AZURE_FEDERATED_TOKEN_FILE is set, and AZURE_TENANT_ID is not", "the workload identity webhook of Azure sets both")
	case z.Federated != nil && !isName(z.Tenant):
		return bad("AZURE_TENANT_ID is not the ID or the domain of a tenant", "the workload identity webhook of Azure sets it")
	case z.Federated != nil && z.ClientID == "":
		return bad("AZURE_FEDERATED_TOKEN_FILE is set, and no client ID",
			"give --azure-client-id, or annotate the service account with azure.workload.identity/client-id")
	case z.Federated != nil:
		if u, err := url.Parse(z.authority()); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return bad("AZURE_AUTHORITY_HOST is not an https:// address", "the federated token is sent there; leave it out for Azure's public cloud")
		}
	case z.Endpoint == "":
		if z.IMDS != "" {
			if u, err := url.Parse(z.imds()); err != nil || u.Scheme != "http" || u.Host == "" {
				return bad("AZURE_POD_IDENTITY_AUTHORITY_HOST is not an http:// address", "leave it out for that of Azure, http://169.254.169.254")
			}
		}
	case z.Fabric:
		return bad("the identity endpoint of Service Fabric is not supported", "log in by another method: jwt, approle, cert")
	case z.Header == nil && z.Arc:
		return bad("the identity endpoint of Azure Arc is not supported", "log in by another method: jwt, approle, cert")
	case z.Header == nil:
		return bad("IDENTITY_ENDPOINT is set, and IDENTITY_HEADER is not", "App Service and Container Apps set both, and hand both on")
	default:
		if u, err := url.Parse(z.Endpoint); err != nil || u.Scheme != "http" || u.Host == "" {
			return bad("IDENTITY_ENDPOINT is not an http:// address", "App Service and Container Apps set it")
		}
	}
	return nil
}

// isName reports whether s can stand in a path as it is: an ID or a domain.
func isName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == "" && strings.Trim(s, ".") != ""
}

func (z *Azure) authority() string {
	if z.Authority == "" {
		return "https://login.microsoftonline.com"
	}
	return strings.TrimRight(z.Authority, "/")
}

func (z *Azure) imds() string {
	if z.IMDS == "" {
		return "http://169.254.169.254"
	}
	return strings.TrimRight(z.IMDS, "/")
}

// Token gets an access token for the resource.
func (z *Azure) Token(ctx context.Context) (string, error) {
	switch {
	case z.Federated != nil:
		return z.federated(ctx)
	case z.Endpoint != "":
		return z.appService(ctx)
	}
	return z.managed(ctx)
}

// identity is the query that the metadata services take.
func (z *Azure) identity(version string) url.Values {
	q := url.Values{"api-version": {version}, "resource": {z.Resource}}
	if z.ClientID != "" {
		q.Set("client_id", z.ClientID)
	}
	return q
}

// managed asks the instance metadata service for a token of the machine's identity.
// Source: learn.microsoft.com, "How to use managed identities for Azure resources on an Azure VM to acquire an access token".
func (z *Azure) managed(ctx context.Context) (string, error) {
	s := &source{what: "cannot get a token from Azure's metadata service",
		hint: "it is there on machines of Azure; a proxy or a firewall of the machine may be in the way"}
	a, err := z.question(ctx, s, z.imds()+"/metadata/identity/oauth2/token", z.identity("2018-02-01"), "Metadata", "true")
	if err != nil {
		return "", err
	}
	if a.status == http.StatusNotFound || a.status == http.StatusGone { // being updated: to be tried again, says Microsoft
		return "", s.away(fmt.Sprintf("HTTP %d (%s)", a.status, s.host))
	}
	return s.accessToken(a, "give the machine an identity (az vm identity assign), or say which of them with --azure-client-id")
}

// appService asks the endpoint that App Service, Functions and Container Apps give an app.
// Source: learn.microsoft.com, "How to use managed identities for App Service", REST endpoint reference.
func (z *Azure) appService(ctx context.Context) (string, error) {
	s := &source{what: "cannot get a token from the app's identity endpoint", hint: "IDENTITY_ENDPOINT names it, which the platform sets"}
	a, err := z.question(ctx, s, z.Endpoint, z.identity("2019-08-01"), "X-IDENTITY-HEADER", z.Header())
	if err != nil {
		return "", err
	}
	return s.accessToken(a, "give the app an identity, or say which of them with --azure-client-id; IDENTITY_HEADER must be the platform's")
}

// question asks with one header, which keeps others from having this machine ask for them.
func (z *Azure) question(ctx context.Context, s *source, at string, query url.Values, header, value string) (answer, error) {
	u, err := url.Parse(at)
	if err != nil {
		return answer{}, s.fault(fault.Usage, "its address is none", s.hint) // Check has refused it
	}
	s.host, u.RawQuery = u.Host, query.Encode()
	r := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{http.CanonicalHeaderKey(header): {value}}}
	status, body, err := ask(ctx, r)
	if err != nil {
		return answer{}, s.silent(err)
	}
	return answer{status: status, body: body}, nil
}

// inResourceID are the subscription and the resource group that the ID of a resource names.
func inResourceID(id string) (subscription, group string) {
	parts := strings.Split(strings.TrimPrefix(id, "/"), "/")
	if len(parts) >= 8 && strings.EqualFold(parts[0], "subscriptions") && strings.EqualFold(parts[2], "resourceGroups") &&
		strings.EqualFold(parts[4], "providers") {
		return parts[1], parts[3]
	}
	return "", ""
}
