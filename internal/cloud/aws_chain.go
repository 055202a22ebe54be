package cloud

import (
	"context"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// credentials looks for credentials where AWS' own SDK does, in its order: variables, web identity (IRSA), profiles, the container's
// endpoint (ECS, EKS Pod Identity), and last the metadata service of EC2. The first source that is configured decides; when it
// fails, no other is asked, since it would be another identity.
func (p *awsProver) credentials(ctx context.Context) (*awsKeys, error) {
	id, idName := p.first("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY")
	secret, secretName := p.first("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY")
	switch {
	case id != "" && secret != "":
		return p.variableKeys(idName, id, secret)
	case id != "":
		return nil, awsFailure(fault.Usage, idName+" is set, and AWS_SECRET_ACCESS_KEY is not", "set both, or neither")
	case secret != "":
		return nil, awsFailure(fault.Usage, secretName+" is set, and AWS_ACCESS_KEY_ID is not", "set both, or neither")
	case p.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "":
		return p.webIdentity(ctx, "AWS_WEB_IDENTITY_TOKEN_FILE", p.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE"),
			p.Getenv("AWS_ROLE_ARN"), p.Getenv("AWS_ROLE_SESSION_NAME"))
	}
	profile, err := p.profile(ctx)
	if err != nil {
		return nil, err
	}
	return p.ofProfile(ctx, profile, map[string]bool{})
}

// first is the first of the variables that is set, and its name.
func (p *awsProver) first(names ...string) (value, name string) {
	for _, n := range names {
		if v := strings.TrimSpace(p.Getenv(n)); v != "" {
			return v, n
		}
	}
	return "", names[0]
}

func (p *awsProver) variableKeys(name, id, secret string) (*awsKeys, error) {
	token := p.Getenv("AWS_SESSION_TOKEN")
	p.basis("variables", id, secret, token)
	return p.keys(name, id, secret, token)
}

// ofProfile finds the credentials of a profile. seen has the profiles that led to it: a profile that names itself as its source, or
// comes back in a circle, has its own keys only.
func (p *awsProver) ofProfile(ctx context.Context, profile *awsProfile, seen map[string]bool) (*awsKeys, error) {
	profile.again = seen[profile.name]
	top := len(seen) == 0
	seen[profile.name] = true
	if err := profile.check(); err != nil {
		return nil, err
	}
	id, secret := profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")
	var keys *awsKeys
	var err error
	switch {
	case profile.get("source_profile") != "" && (top || id == ""):
		var source *awsProfile
		if source, err = p.sourceOf(ctx, profile); err == nil {
			keys, err = p.ofProfile(ctx, source, seen)
		}
	case id != "" || secret != "":
		p.basis(profile.name, id, secret, profile.get("aws_session_token"))
		keys, err = p.keys(profile.title(), id, secret, profile.get("aws_session_token"))
	case profile.get("credential_source") != "":
		keys, err = p.namedSource(ctx, profile)
	case profile.get("web_identity_token_file") != "":
		return p.webIdentity(ctx, profile.title()+" (web_identity_token_file)", p.expand(profile.get("web_identity_token_file")),
			profile.get("role_arn"), profile.get("role_session_name"))
	case !top:
		return nil, awsFailure(fault.Usage, profile.title()+" is a source_profile, and has no credentials",
			"put aws_access_key_id and aws_secret_access_key there, or name another profile")
	case p.containerSet():
		keys, err = p.container(ctx)
	default:
		keys, err = p.imds(ctx, false)
	}
	if err != nil || profile.get("role_arn") == "" {
		return keys, err
	}
	return p.assumeRole(ctx, profile, keys)
}

// namedSource is credential_source of a profile.
func (p *awsProver) namedSource(ctx context.Context, profile *awsProfile) (*awsKeys, error) {
	switch source := profile.get("credential_source"); source {
	case "Environment":
		id, name := p.first("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY")
		secret, _ := p.first("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY")
		return p.variableKeys(name, id, secret)
	case "EcsContainer":
		if !p.containerSet() {
			return nil, awsFailure(fault.Usage, profile.title()+" has EcsContainer as its source, and this is none",
				"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and AWS_CONTAINER_CREDENTIALS_FULL_URI are not set: ECS sets one of them where the task has a role")
		}
		return p.container(ctx)
	case "Ec2InstanceMetadata":
		return p.imds(ctx, true)
	}
	return nil, awsFailure(fault.Usage, profile.title()+" has a credential_source that there is not",
		"choose from: Environment, EcsContainer, Ec2InstanceMetadata")
}

// nothing is the failure when no source has anything. last says what became of the last one.
func (p *awsProver) nothing(ctx context.Context, last string) error {
	looked := "AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE, "
	if profile, err := p.profile(ctx); err == nil {
		looked += profile.looked()
	}
	return awsFailure(fault.Usage, "no AWS credentials found", "give this machine, pod or task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. "+
		"Looked at: "+looked+", AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI, the metadata service of EC2 ("+last+")")
}
