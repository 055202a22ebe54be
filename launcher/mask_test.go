package launcher

import (
	"slices"
	"testing"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
)

const leastMasked = 6

func TestMaskedValues(t *testing.T) {
	env := &environ.Env{Vars: []environ.Variable{
		{Name: "COUNT", Value: vault.NewText("12345")}, {Name: "EMPTY"}, {Name: "FLAG", Value: vault.NewText("False")}, {Name: "HOST", Value: vault.NewText("localhost")},
		{Name: "KEPT", Value: vault.NewText("inherited-one"), Kept: true}, {Name: "KEY", Value: vault.NewText("secret-1")}, {Name: "LINE", Value: vault.NewText("----------")},
		{Name: "PIN", Value: vault.NewText("123456")}, {Name: "RATE", Value: vault.NewText("-0.1234")}, {Name: "SHORT", Value: vault.NewText("abcde")}, {Name: "SPACES", Value: vault.NewText("        ")},
		{Name: "TLS_KEY", Value: vault.NewText("file content"), File: &environ.FileSpec{Name: "TLS_KEY"}},
	}}
	values, left := maskedValues(env, leastMasked)
	if want := []string{"secret-1", "123456", "file content"}; !slices.Equal(values, want) {
		t.Errorf("masks %q, want %q", values, want)
	}
	if want := []string{"COUNT", "EMPTY", "FLAG", "HOST", "LINE", "RATE", "SHORT", "SPACES"}; !slices.Equal(left, want) {
		t.Errorf("leaves out %q, want %q", left, want)
	}
	if values, _ = maskedValues(env, 3); !slices.Contains(values, "abcde") || slices.Contains(values, "12345") || slices.Contains(values, "localhost") {
		t.Errorf("with a lower limit: %q", values)
	}
}
