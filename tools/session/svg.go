//go:build linux

package main

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
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
.c31 { fill: #ff7b72 }
.c32 { fill: #7ee787 }
.c33 { fill: #e3b341 }
@keyframes appear { from { opacity: 0 } 99% { opacity: 0 } to { opacity: 1 } }
@media (prefers-reduced-motion: reduce) { text { animation: none !important } }
`

// draw makes an SVG in which one line after the other appears, or all of them are there.
func draw(lines []line, columns int, still bool) string {
	lines = fold(lines, columns)
	var b strings.Builder
	height := 2*margin + len(lines)*lineHeight
	width := 2*margin + float64(columns)*charWidth
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
		appears := ""
		if !still {
			appears = fmt.Sprintf(` style="animation: appear %.2fs"`, max(at.Seconds(), 0.01))
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" class="%s"%s>%s</text>`+"\n",
			margin, margin+(i+1)*lineHeight-5, l.class, appears, l.text)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// colours are the terminal's sequences for colours and the like.
var colours = regexp.MustCompile("\x1b\\[([0-9;]*)[A-Za-z]")

// fold breaks lines where the terminal did, says of each what it is, and writes it for an SVG.
func fold(lines []line, columns int) []line {
	var out []line
	for _, l := range lines {
		class := "output"
		switch plain := colours.ReplaceAllString(l.text, ""); {
		case strings.HasPrefix(plain, prompt):
			class = "typed"
		case strings.HasPrefix(plain, "vaultexec: "):
			class = "log"
		}
		var b strings.Builder
		colour, n, rest := "", 0, l.text
		end := func() {
			if colour != "" {
				b.WriteString("</tspan>")
			}
		}
		begin := func() {
			if colour != "" {
				fmt.Fprintf(&b, `<tspan class="c%s">`, colour)
			}
		}
		for rest != "" {
			if at := colours.FindStringSubmatchIndex(rest); at != nil && at[0] == 0 {
				end()
				if colour = rest[at[2]:at[3]]; colour == "0" {
					colour = ""
				}
				begin()
				rest = rest[at[1]:]
				continue
			}
			if n == columns {
				end()
				out = append(out, line{b.String(), l.at, class})
				b.Reset()
				n = 0
				begin()
			}
			r, size := utf8.DecodeRuneInString(rest)
			b.WriteString(html.EscapeString(string(r)))
			rest, n = rest[size:], n+1
		}
		end()
		out = append(out, line{b.String(), l.at, class})
	}
	return out
}
