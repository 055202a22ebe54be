package vault

import (
	"fmt"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// awsLogins says what Vault's answer to a login with aws means. Vault has STS asked, and passes on what that said.
var awsLogins = []rule{
	{status: 400, text: "<Code>ExpiredToken", kind: fault.Refused, why: "AWS says that the credentials have expired", hint: "renew them where they come from (AWS_SESSION_TOKEN, the profile); a role's are replaced by AWS itself"},
	{status: 400, text: "Signature expired", kind: fault.Refused, why: whyClock, hint: hintClock},
	{status: 400, text: "Signature not yet current", kind: fault.Refused, why: whyClock, hint: hintClock},
	{status: 400, text: "<Code>RequestExpired", kind: fault.Refused, why: whyClock, hint: hintClock},
	{status: 400, text: "Credential should be scoped to", kind: fault.Refused, why: "the request is signed for another region than the STS that Vault asks", hint: "Vault asks sts.amazonaws.com, which takes --aws-region us-east-1; for another region set sts_endpoint and sts_region, or use_sts_region_from_client=true, in auth/MOUNT/config/client"},
	{status: 400, text: "<Code>InvalidClientTokenId", kind: fault.Refused, why: "AWS does not know the access key", hint: "it may be deleted, lack its AWS_SESSION_TOKEN, or belong to another partition (China, GovCloud) than the STS that Vault asks"},
	{status: 400, text: "<Code>SignatureDoesNotMatch", kind: fault.Refused, why: "AWS refuses the signature", hint: "the secret access key is not that of the access key id, or something changed the request on the way"},
	{status: 400, text: "giving up after", kind: fault.Away, why: "Vault cannot check the login now: STS has trouble", hint: "Vault asks the STS of sts_endpoint in auth/MOUNT/config/client, or sts.amazonaws.com"},
	{status: 400, text: "from STS: ", kind: fault.Refused, why: "AWS refuses the signed request", hint: "compare the credentials, --aws-region, and sts_endpoint in auth/MOUNT/config/client; Vault's own log has what STS said"},
	{status: 400, text: "X-Vault-AWS-IAM-Server-ID", kind: fault.Refused, hint: "give --aws-server-id as iam_server_id_header_value has it in auth/MOUNT/config/client"},
}

const (
	whyClock  = "AWS says that the request is too old, or of the future"
	hintClock = "this machine's clock may be off by more than five minutes: compare `date -u`"
)

// compareAWS says what to compare when a login with aws was refused, and nothing better is known.
func (l *authenticator) compareAWS(f *fault.Error) {
	switch {
	case f.Cause == fault.PlainDenial:
		f.Why = "permission denied: there is no such auth mount, or the role may not be used from here"
		f.Hint = "compare --auth-mount with `vault auth list`, and token_bound_cidrs of the role"
	case f.Hint == "":
		f.Hint = fmt.Sprintf("compare --role with `vault list auth/%[1]s/roles`, and bound_iam_principal_arn of `vault read auth/%[1]s/role/NAME` with the ARN that `aws sts get-caller-identity` shows",
			l.mount())
	}
}
