package cli

import (
	"os/user"
	"strconv"

	"github.com/agenticverz/vaultexec/internal/trust"
)

// owners are the users of --allow-owner, by number.
func (s *settings) owners() []int {
	if s.allowed != nil {
		return s.allowed
	}
	s.allowed = []int{}
	for _, v := range s.all("allow-owner") {
		text := v.text
		if text == "anyone" {
			s.allowed = append(s.allowed, trust.Anyone)
			continue
		}
		if u, err := user.Lookup(text); err == nil { // a name may consist of digits
			text = u.Uid
		}
		uid, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			s.bad(v, "there is no such user",
				"write a user's name or number; the word anyone accepts files that everybody may write")
			continue
		}
		s.allowed = append(s.allowed, int(uid))
	}
	return s.allowed
}
