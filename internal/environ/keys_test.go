package environ

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Each key comes once, however often it is named, and what is in an object under its own name.
func TestKeys(t *testing.T) {
	var values map[string]vault.Value
	if err := json.Unmarshal([]byte(`{"A":"1","B":null,"DB":{"user":"u","deep":{"x.y":[7,{"z":true}]},"none":null},"T":"{\"in\":\"text\"}","E":{}}`), &values); err != nil {
		t.Fatal(err)
	}
	p := vault.Path{Mount: "secret", Name: "app"}
	secret := &vault.Secret{Path: p, Engine: vault.Engine{KV: 2}, Values: values}
	whole := Fetched{Source: Source{Path: p}, Secret: secret}
	one := func(key string) Fetched { return Fetched{Source: Source{Path: p, Name: "X", Key: key}, Secret: secret} }
	names := func(rules Rules, got ...Fetched) string {
		t.Helper()
		keys, _, err := Keys(got, rules)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, k := range keys {
			text += fmt.Sprintf("%s=%s(%d) ", k.Name, k.Value.Reveal(), len(k.Parts))
		}
		return text
	}
	const db = `DB={"deep":{"x.y":[7,{"z":true}]},"none":null,"user":"u"}(0) `
	const within = "DB.deep.x.y.0=7(0) DB.deep.x.y.1.z=true(0) DB.user=u(0) "
	for _, c := range []struct {
		rules Rules
		got   []Fetched
		want  string
	}{
		{Rules{}, []Fetched{whole, whole, one("A"), one("DB.user")}, "A=1(0) " + db + within + `E={}(0) T={"in":"text"}(1) `},
		{Rules{}, []Fetched{one("DB.user"), one("DB.user"), {Source: Source{Path: p, Optional: true}}}, "DB.user=u(0) "},
		{Rules{Only: []string{"[AT]"}, Exclude: []string{"T"}}, []Fetched{whole}, "A=1(0) "},
		{Rules{Only: []string{"DB"}, Exclude: []string{"DB.deep.*"}}, []Fetched{whole}, db + "DB.user=u(0) "},
	} {
		if got := names(c.rules, c.got...); got != c.want {
			t.Errorf("%+v: %s\nwant %s", c.rules, got, c.want)
		}
	}
	if _, _, err := Keys([]Fetched{one("NONE")}, Rules{}); !fault.Is(err, fault.Missing) {
		t.Error(err)
	}
	leased := &vault.Secret{Path: vault.Path{Mount: "database", Name: "creds/app"}}
	if keys, unread, err := Keys([]Fetched{{Secret: leased}, {Secret: leased}}, Rules{}); len(keys) > 0 || len(unread) != 1 || err != nil {
		t.Error(keys, unread, err)
	}
}
