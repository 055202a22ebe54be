package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// federated exchanges the token of a workload for one of the identity that trusts it. That goes over the internet, and through the proxy
// of the environment if there is one. Source: learn.microsoft.com, "Microsoft identity platform and the OAuth 2.0 client credentials flow",
// third case.
func (z *Azure) federated(ctx context.Context) (string, error) {
	assertion, err := z.Federated(ctx)
	if err != nil {
		return "", err
	}
	s := &source{what: "cannot exchange AZURE_FEDERATED_TOKEN_FILE for a token of Azure",
		hint: "this machine must reach it, perhaps through HTTPS_PROXY; AZURE_AUTHORITY_HOST names another cloud"}
	// The resource as it is, and /.default: of two slashes in a row one is part of the audience that the token gets.
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {z.ClientID}, "scope": {z.Resource + "/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	}.Encode()
	u, err := url.Parse(z.authority() + "/" + z.Tenant + "/oauth2/v2.0/token")
	if err != nil {
		return "", s.fault(fault.Usage, "its address is none", s.hint) // Check has refused it
	}
	s.host = u.Host
	r := &http.Request{Method: http.MethodPost, URL: u, ContentLength: int64(len(form)), Body: io.NopCloser(strings.NewReader(form)),
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}}
	a, err := exchange(ctx, r, http.ProxyFromEnvironment)
	if err != nil {
		return "", s.silent(err)
	}
	return s.accessToken(a, "compare AZURE_TENANT_ID, the client ID and --azure-resource, and the issuer, subject and audience "+
		"of the federated credential with those of the token")
}

// accessToken is the token in an answer of one of Azure's services. hint is for when they refuse to give one.
func (s *source) accessToken(a answer, hint string) (string, error) {
	var got struct {
		Token       string `json:"access_token"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	broken := json.Unmarshal(a.body, &got) != nil
	switch {
	case a.status != http.StatusOK:
		return "", s.failed(a.status, azureWords(got.Error, got.Description), hint)
	case broken || !isJWT(got.Token):
		return "", s.wrong("the answer has no access token")
	}
	return got.Token, nil
}

// azureWords are what may be shown of an error of Azure's: the word of OAuth, and the number that Microsoft's documentation lists it
// under. The description may repeat what it was asked with.
func azureWords(word, description string) string {
	says := ""
	if word != "" && len(word) < 60 && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz_") == "" {
		says = ", " + word
	}
	if i := strings.Index(description, "AADSTS"); i >= 0 {
		n := i + len("AADSTS")
		for n < len(description) && n < i+20 && description[n] >= '0' && description[n] <= '9' {
			n++
		}
		says += ", " + description[i:n]
	}
	return says
}

// instance is what the metadata service says of a machine.
type instance struct {
	Compute struct {
		Name, ResourceGroupName, SubscriptionID, VMScaleSetName string
	} `json:"compute"`
}

// Fields are what Vault compares with the bindings of a role beside the token (verifyResource in vault-plugin-auth-azure): by
// subscription, resource group, location or scale set. A role that is bound to none of them needs no field, and a login without
// fields fails only at a role that is.
func (z *Azure) Fields(ctx context.Context) (map[string]string, error) {
	id := z.ResourceID
	if id == "" && z.Federated == nil && z.Endpoint != "" {
		id = z.site()
	}
	if id != "" {
		subscription, group := inResourceID(id)
		return map[string]string{"subscription_id": subscription, "resource_group_name": group, "resource_id": id}, nil
	}
	if z.Federated != nil || z.Endpoint != "" {
		return map[string]string{}, nil // a machine's metadata would be that of the node
	}
	s := &source{what: "cannot ask Azure's metadata service about the machine",
		hint: "it is there on machines of Azure; a proxy or a firewall of the machine may be in the way"}
	a, err := z.question(ctx, s, z.imds()+"/metadata/instance", url.Values{"api-version": {"2018-02-01"}, "format": {"json"}}, "Metadata", "true")
	if err != nil {
		return nil, err
	}
	var m instance
	switch {
	case a.status == http.StatusTooManyRequests || a.status >= 500:
		return nil, s.away(fmt.Sprintf("HTTP %d (%s)", a.status, s.host))
	case a.status >= 400: // containers that have an identity, and are no machine
		return map[string]string{}, nil
	case a.status != http.StatusOK:
		return nil, s.failed(a.status, "", s.hint)
	case json.Unmarshal(a.body, &m) != nil || m.Compute.Name == "":
		return nil, s.wrong("the answer tells of no machine")
	}
	fields := map[string]string{}
	for name, value := range map[string]string{
		"subscription_id": m.Compute.SubscriptionID, "resource_group_name": m.Compute.ResourceGroupName,
		"vm_name": m.Compute.Name, "vmss_name": m.Compute.VMScaleSetName,
	} {
		if value != "" {
			fields[name] = value
		}
	}
	return fields, nil
}

// site is the resource that an app of App Service is, by the variables that it is given; "" for another app.
// Source: learn.microsoft.com, "Environment variables and app settings in Azure App Service".
func (z *Azure) site() string {
	subscription, _, found := strings.Cut(z.Owner, "+")
	if !found || !isName(subscription) || z.Group == "" || z.Site == "" || strings.Contains(z.Group+z.Site, "/") {
		return ""
	}
	return "/subscriptions/" + subscription + "/resourceGroups/" + z.Group + "/providers/Microsoft.Web/sites/" + z.Site
}
