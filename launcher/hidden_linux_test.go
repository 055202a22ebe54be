package launcher

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/agenticverz/vaultexec/internal/hidetest"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// TestNoStructShows: what holds a secret prints without it, however deep it stands, in unexported fields, too.
func TestNoStructShows(t *testing.T) {
	hidetest.Check(t, func(at any, secret string) bool {
		switch at := at.(type) {
		case *vault.Text:
			*at = vault.NewText(secret)
		case *vault.Value:
			return json.Unmarshal([]byte(strconv.Quote(secret)), at) == nil
		default:
			return false
		}
		return true
	}, Options{}, PathReport{}, Report{}, edition{}, fetcher{}, files{}, lastGood{}, letGo{}, made{}, launch{}, denials{},
		child{}, content{}, lease{}, outputs{}, prepared{}, read{}, readResult{}, record{}, records{}, relay{}, renewal{}, sight{}, stream{},
		status{}, supervisor{}, watchEvent{}, watcher{}, wish{})
}
