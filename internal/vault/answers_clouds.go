package vault

import "github.com/agenticverz/vaultexec/internal/fault"

// cloudLogins says what the auth methods azure and gcp mean; it is looked at before logins. Of azure most refusals are failures of the
// server (500), in words of its own. Each text is from the source of vault-plugin-auth-azure or vault-plugin-auth-gcp 0.22.
var cloudLogins = []rule{
	{status: 500, text: "oidc: ", kind: fault.Refused},
	{status: 500, text: "failed to verify signature", kind: fault.Refused},
	{status: 500, text: "token is not yet valid", kind: fault.Refused, hint: "the clock of Vault's machine is behind: have it set"},
	{status: 500, text: " not authorized", kind: fault.Refused}, // subscription, resource group, location, scale set, principal, groups
	{status: 500, text: "resource_group_name are required", kind: fault.Refused, hint: "the role is bound to subscriptions, resource groups, locations or scale sets: name what the identity belongs to with --azure-resource-id, or bind the role to the identity alone (bound_service_principal_ids)"},
	{status: 500, text: "expected specific bound_group_ids", kind: fault.Refused},
	{status: 500, text: "token claim does not match", kind: fault.Refused},
	{status: 500, text: "claims are missing from token", kind: fault.Refused},
	{status: 500, text: "bound scale set defined", kind: fault.Refused},
	{status: 500, text: "scale set requires the vmss_name", kind: fault.Refused},
	{status: 500, text: "provided resource_id does not match", kind: fault.Refused},
	{status: 500, text: "token object id does not match", kind: fault.Refused},
	{status: 500, text: "neither token object id nor", kind: fault.Refused},
	{status: 500, text: "appid JWT claim must be provided", kind: fault.Refused},
	{status: 500, text: "unable to parse the resource ID", kind: fault.Refused, hint: "correct --azure-resource-id"},
	{status: 500, text: "did not return identity information", kind: fault.Refused},
	{status: 500, text: "location is empty", kind: fault.Refused},
	{status: 500, text: "RESPONSE 404", kind: fault.Refused, why: "Azure knows no such resource", hint: "compare --azure-resource-id; a machine may have been deleted, or moved to another group"},
	{status: 500, text: "RESPONSE 403", kind: fault.Refused, why: "Vault itself may not look the resource up in Azure", hint: "the application of the mount's configuration has to read machines and identities (Microsoft.Compute/virtualMachines/*/read and the like)"},
	{status: 500, text: "RESPONSE 401", kind: fault.Refused, why: "Vault itself cannot log in to Azure", hint: "correct client_id and client_secret of the mount's configuration"},

	{status: 400, text: "service account JWTs expire within", kind: fault.Refused, hint: "a token of the metadata server is good for an hour, and a role of type iam takes it with max_jwt_exp=1h; for one signed with a key compare the clocks of both machines"},
	{status: 400, text: "JWT is expired", kind: fault.Refused, hint: "compare the clocks of this machine and of Vault's"},
	{status: 400, text: "JWT must expire in", kind: fault.Refused, hint: "compare the clocks of this machine and of Vault's"},
	{status: 400, text: "expected JWT to have claims with GCE metadata", kind: fault.Refused, hint: "the role is of type gce, which is for machines: a pod with a workload identity needs a role of type iam with max_jwt_exp=1h"},
	{status: 400, text: "no Google OAuth2 provider key found for GCE role", kind: fault.Refused, hint: "the role is of type gce: log in by the metadata server (--gcp-type gce), or with a role of type iam"},
	{status: 400, text: "googleapi: Error 403", kind: fault.Refused, why: whyNoLookup, hint: hintNoLookup},
	{status: 500, text: "googleapi: Error 403", kind: fault.Refused, why: whyNoLookup, hint: hintNoLookup},
	{status: 500, text: "googleapi: Error 404", kind: fault.Refused, why: "Google knows no such service account", hint: "it may have been deleted: compare it with `gcloud iam service-accounts list`"},
	{status: 500, text: "oauth2: ", kind: fault.Refused, why: "Vault itself cannot log in to Google", hint: "correct credentials of the mount's configuration"},
}

const (
	whyNoLookup  = "Vault itself may not look the account or machine up at Google"
	hintNoLookup = "the service account of the mount's configuration needs iam.serviceAccounts.get, and for machines compute.instances.get"
)
