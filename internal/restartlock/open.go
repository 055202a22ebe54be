package restartlock

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// ServiceAccount is the folder where Kubernetes gives a pod its service account.
const ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// The schemes of --restart-lock.
const (
	Kubernetes = "kubernetes"
	Consul     = "consul"
)

// Spec is a value of --restart-lock.
type Spec struct {
	Scheme    string // Kubernetes or Consul
	Namespace string // of Kubernetes; "" for the pod's own
	Name      string
}

// String is the value again.
func (s Spec) String() string {
	if s.Namespace != "" {
		return s.Scheme + ":" + s.Namespace + "/" + s.Name
	}
	return s.Scheme + ":" + s.Name
}

const (
	form = "write kubernetes:NAME, kubernetes:NAMESPACE/NAME or consul:NAME"

	// mostLeaseName leaves room for "-" and the number of a place in the 253 characters of an object's name.
	mostLeaseName = 253 - len("-9999")
	mostNamespace = 63
	mostKey       = 200 // characters; Consul takes 512
)

// What names may look like. They are compiled where one is given, and not at every start.
const (
	// https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
	subdomain = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	label     = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// A key may hold anything. These need no quotes in a URL, in an ACL rule and in a shell.
	key = `^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`
)

func looksLike(pattern, name string) bool { return regexp.MustCompile(pattern).MatchString(name) }

// Parse reads a value of --restart-lock.
func Parse(text string) (Spec, error) {
	s, why, hint := parse(text)
	if why != "" {
		return Spec{}, &fault.Error{Kind: fault.Usage, What: "cannot use the restart lock " + shortened(text), Why: why, Hint: hint}
	}
	return s, nil
}

// parse says why a value is none.
func parse(text string) (s Spec, why, hint string) {
	scheme, name, found := strings.Cut(text, ":")
	switch {
	case !found:
		return s, "it does not say who keeps it", form
	case scheme != Kubernetes && scheme != Consul:
		return s, "nobody called " + shortened(scheme) + " keeps one", form
	case name == "":
		return s, "it has no name", form
	case strings.HasPrefix(name, "//"):
		return s, "a lock has a name and no address", form + "; CONSUL_HTTP_ADDR says where Consul is"
	case scheme == Consul:
		if len(name) > mostKey {
			return s, "its name is longer than " + strconv.Itoa(mostKey) + " characters", form
		}
		if !looksLike(key, name) {
			return s, "no key of Consul can have that name", "use letters, digits, - _ . and, between them, /"
		}
		return Spec{Scheme: scheme, Name: name}, "", ""
	}
	namespace, object, found := strings.Cut(name, "/")
	if !found {
		namespace, object = "", name
	}
	const letters = "use small letters, digits and -, letters or digits first and last"
	switch {
	case found && (len(namespace) > mostNamespace || !looksLike(label, namespace)):
		return s, "that is no namespace of Kubernetes before the /", letters
	case len(object) > mostLeaseName:
		return s, "its name is longer than " + strconv.Itoa(mostLeaseName) + " characters", form
	case !looksLike(subdomain, object):
		return s, "no Lease can have that name", letters
	}
	return Spec{Scheme: scheme, Namespace: namespace, Name: object}, "", ""
}

// shortened quotes what somebody wrote.
func shortened(s string) string {
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return strconv.Quote(s)
}

// Open makes the engine of a lock, by what the variables and files say that env and the folder serviceAccount have. It sends nothing.
// Files of the users in allow count as one's own (internal/trust).
func Open(s Spec, env func(string) string, serviceAccount string, allow []int) (Engine, error) {
	if s.Scheme == Consul {
		return openConsul(s, env, allow)
	}
	return openKubernetes(s, env, serviceAccount, allow)
}

// Exposed says who beside the server can read the credential that an engine sends, "" when nobody can: as vault.Client's does.
func Exposed(e Engine) string {
	if c, ok := e.(*consul); ok {
		return c.exposed()
	}
	return ""
}

// Unverified reports whether the certificate of the engine's server is not verified.
func Unverified(e Engine) bool {
	c, ok := e.(*consul)
	return ok && c.unverified && c.base.Scheme == "https"
}
