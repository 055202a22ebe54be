package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/launcher"
)

// ownerOnly is the mode of the socket of --status: whoever may connect may also POST /refresh.
const ownerOnly = 0o600

const asStatus = "write it as 127.0.0.1:9641 or unix:/run/app/status.sock"

// statusOptions reads --status and --max-age.
func (a *app) statusOptions(s *settings, listens []listen.Spec) launcher.Status {
	var o launcher.Status
	v := s.one("status")
	if v.text != "" {
		o.Version, o.Clean = version(), withoutPasswords
		spec, err := statusAddress(v.text)
		if err != nil {
			s.fail(v, err)
		}
		for _, other := range listens {
			if err == nil && listen.Clash(listen.Spec{Host: spec.Host, Port: spec.Port, Path: spec.Path},
				listen.Spec{Host: other.Host, Port: other.Port, Path: other.Path}) != "" {
				s.bad(v, "--listen has that address", "choose another address: the command's own socket cannot serve both")
			}
		}
		if o.Address = &spec; err == nil && !isLocal(spec) && !s.bool("allow-http") {
			a.warnOnce(fmt.Sprintf("whoever reaches --status %s over the network can read names of paths and keys, versions and times (never a value)",
				spec), "hint", "127.0.0.1:PORT and unix:/PATH are for this machine alone; --allow-http turns this warning off")
		}
	}
	m := s.one("max-age")
	if m.text == "" {
		return o
	}
	o.MaxAge = s.duration("max-age")
	switch {
	case s.option("max-age").mismatch(m.text) != "":
	case v.text == "":
		s.bad(m, "only /readyz of --status uses it", "give --status ADDRESS, too")
	case !s.bool("watch"):
		s.bad(m, "without --watch vaultexec does not look at the secrets", "give --watch, too")
	case o.MaxAge <= s.duration("interval"):
		s.bad(m, "it must be longer than --interval",
			"give three times the interval, or more; otherwise every look comes too late")
	}
	return o
}

// statusAddress reads an address of --status.
func statusAddress(text string) (listen.Spec, error) {
	spec, err := listen.Parse(text)
	switch {
	case err != nil:
		f := *fault.Of(err)
		f.What, f.Hint = fmt.Sprintf("cannot use %q", text), asStatus
		return spec, &f
	case spec.Name != "":
		return spec, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q", text), Why: "it takes no name",
			Hint: asStatus}
	case spec.Path != "" && spec.Mode == 0:
		spec.Mode = ownerOnly
	}
	return spec, nil
}

// isLocal reports whether only this machine can connect to an address.
func isLocal(spec listen.Spec) bool {
	a, err := netip.ParseAddr(spec.Host)
	return spec.Path != "" || err == nil && a.IsLoopback() ||
		strings.EqualFold(strings.TrimSuffix(spec.Host, "."), "localhost")
}
