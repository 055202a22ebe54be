package environ

import "github.com/agenticverz/vaultexec/internal/vault"

// SpellAlike makes sources of one place name it alike. A path can be written with --mount and without it, and with or
// without a mount that is known. What is made for whoever asks must not be made twice because of that: every source is
// read by its Path.
func SpellAlike(sources []Source) {
	first := map[vault.Path]vault.Path{}
	for _, s := range sources {
		place := s.Path.Place()
		if p, ok := first[place]; !ok || p.Mount == "" && s.Path.Mount != "" {
			first[place] = s.Path
		}
	}
	for i := range sources {
		sources[i].Path = first[sources[i].Path.Place()]
	}
}
