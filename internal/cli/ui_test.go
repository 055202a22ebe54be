package cli

import "testing"

// What a terminal would not show as it stands is spelled out.
func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain, größer, 鍵, 🔑, é": "plain, größer, 鍵, 🔑, é",
		"a\nb\x1b[31mc":          `a\nb\x1b[31mc`,
		"a\u202eb":               `a\u202eb`,
		"a\u200bb\u2028c\u2066":  `a\u200bb\u2028c\u2066`,
		"a\U000e0041b\ufeff":     `a\U000e0041b\ufeff`,
		"a\u00a0b\u3000c\u00ad":  `a\u00a0b\u3000c\u00ad`,
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
