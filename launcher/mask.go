package launcher

import (
	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/mask"
)

// maskedValues returns what to mask of an environment: values, what they were made of, and what they hold. It also
// returns the names of what is not masked: too short, or so common that masking it would make the output unreadable and
// hide nothing.
func maskedValues(env *environ.Env, least int) (values, leftOut []string) {
	for _, v := range env.Vars {
		if v.Unused() {
			continue
		}
		add := func(value string) bool {
			if !masked(value, least) {
				return false
			}
			values = append(values, value)
			for _, within := range mask.Within(value) {
				if masked(within, least) {
					values = append(values, within)
				}
			}
			return true
		}
		if !add(v.Value.Reveal()) {
			leftOut = append(leftOut, v.Name)
		}
		for _, part := range v.Parts {
			add(part.Reveal())
		}
	}
	return values, leftOut
}

func masked(value string, least int) bool { return len(value) >= least && !mask.Common(value) }

// credentials are the ones in use that are masked as well: with --keep-token the command has them, too.
func (o *outputs) credentials() []string {
	var values []string
	if o.l.Session != nil {
		for _, t := range o.l.Session.Client.Secrets.All() {
			if value := t.Reveal(); masked(value, o.l.Masking.Least) {
				values = append(values, value)
			}
		}
	}
	return values
}
