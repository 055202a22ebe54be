//go:build linux

package main

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"time"
)

// Sizes in pixels of a 13 px monospaced font.
const (
	lineHeight = 18
	charWidth  = 7.8
	margin     = 16
)

// A recorded pause is shown no longer than that, and a command that was typed at least so long.
const (
	longest = 1500 * time.Millisecond
	typed   = 1200 * time.Millisecond
)

const style = `
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d0d7de; white-space: pre }
.typed { fill: #7ee787 }
.log { fill: #8b949e }
@keyframes appear { from { opacity: 0 } 99% { opacity: 0 } to { opacity: 1 } }
@media (prefers-reduced-motion: reduce) { text { animation: none !important } }
`

// draw makes an SVG in which one line after the other appears. Without animation all of them are there.
func draw(lines []line) string {
	lines = fold(lines)
	var b strings.Builder
	height := 2*margin + len(lines)*lineHeight
	const width = 2*margin + columns*charWidth
	fmt.Fprintf(&b,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0f" height="%d" xml:space="preserve" role="img" aria-label="A terminal session with vaultexec">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, "<style>%s</style>\n", style)
	fmt.Fprintf(&b, `<rect width="%.0f" height="%d" rx="8" fill="#0d1117"/>`+"\n", width, height)
	at, before := time.Duration(0), time.Duration(0)
	for i, l := range lines {
		pause := min(l.at-before, longest)
		before = l.at
		if l.class == "typed" {
			pause = max(pause, typed)
		}
		at += pause
		fmt.Fprintf(&b, `<text x="%d" y="%d" class="%s" style="animation: appear %.2fs">%s</text>`+"\n",
			margin, margin+(i+1)*lineHeight-5, l.class, max(at.Seconds(), 0.01), html.EscapeString(l.text))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// colours are the terminal's sequences for colours and the like.
var colours = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// fold breaks lines where the terminal did, and says of each what it is.
func fold(lines []line) []line {
	var out []line
	for _, l := range lines {
		text := colours.ReplaceAllString(l.text, "")
		class := "output"
		switch {
		case strings.HasPrefix(text, prompt):
			class = "typed"
		case strings.HasPrefix(text, "vaultexec: "):
			class = "log"
		}
		runes := []rune(text)
		for len(runes) > columns {
			out = append(out, line{string(runes[:columns]), l.at, class})
			runes = runes[columns:]
		}
		out = append(out, line{string(runes), l.at, class})
	}
	return out
}
