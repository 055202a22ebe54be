package cli

import "github.com/agenticverz/vaultexec/internal/listen"

// listeners reads --listen.
func listeners(s *settings) []listen.Spec {
	var list []listen.Spec
next:
	for _, v := range s.all("listen") {
		spec, err := listen.Parse(v.text)
		if err != nil {
			s.fail(v, err)
			continue
		}
		for _, other := range list {
			if why := listen.Clash(spec, other); why != "" {
				s.bad(v, why, "give each socket an address and a name of its own")
				continue next
			}
		}
		list = append(list, spec)
	}
	return list
}
