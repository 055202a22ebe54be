package vault

import (
	"strconv"
	"testing"

	"github.com/agenticverz/vaultexec/internal/hidetest"
)

// TestNoStructShows: what holds a secret prints without it, however deep it stands, in unexported fields, too.
func TestNoStructShows(t *testing.T) {
	hidetest.Check(t, func(at any, secret string) bool {
		switch at := at.(type) {
		case *Text:
			*at = NewText(secret)
		case *Value:
			*at = holdValue([]byte(strconv.Quote(secret)))
		default:
			return false
		}
		return true
	}, Text{}, Value{}, Auth{}, Answer{}, Client{}, Config{}, Edit{}, Lease{}, Return{}, Secret{}, Secrets{}, Session{}, Share{}, State{}, Unsealing{}, Written{},
		attempt{}, authenticator{}, dataV2{}, grant{}, keeper{}, leaves{}, Leaf{}, reading{}, refusals{}, request{}, tlsFiles{}, wrapInfo{}, writer{})
}
