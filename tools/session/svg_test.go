//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestDraw(t *testing.T) {
	const columns = 80
	long := strings.Repeat("x", columns+1)
	svg := draw([]line{
		{text: "$ vaultexec -- ./app && echo '<ok>'"},
		{text: "  \x1b[32mindented\x1b[0m", at: time.Second},
		{text: "vaultexec: " + long, at: 2 * time.Second},
	}, columns, false)
	if !strings.Contains(svg, `>  <tspan class="c32">indented</tspan></text>`) || !strings.Contains(svg, "animation: appear") {
		t.Error(svg)
	}
	if still := draw([]line{{text: "x", at: time.Second}}, columns, true); strings.Contains(still, `style="animation`) {
		t.Error(still)
	}
	d := xml.NewDecoder(strings.NewReader(svg))
	var texts, classes []string
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "text" {
			var s struct {
				Class  string `xml:"class,attr"`
				Before string `xml:",chardata"`
				Inside string `xml:"tspan"`
			}
			if err := d.DecodeElement(&s, &e); err != nil {
				t.Fatal(err)
			}
			texts, classes = append(texts, s.Before+s.Inside), append(classes, s.Class)
		}
	}
	want := []string{"$ vaultexec -- ./app && echo '<ok>'", "  indented", ("vaultexec: " + long)[:columns], ("vaultexec: " + long)[columns:]}
	if strings.Join(texts, "\n") != strings.Join(want, "\n") {
		t.Errorf("texts are %q", texts)
	}
	if got := strings.Join(classes, " "); got != "typed output log log" {
		t.Errorf("classes are %s", got)
	}
}
