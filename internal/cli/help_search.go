package cli

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

const allWord = "--all"

// findHelp is what `vaultexec help WORD...` prints: everything, the page of a command or a topic, an option, or else a
// line for whatever has the words in it.
func findHelp(words []string) (text string, ok bool) {
	if len(words) == 1 {
		switch words[0] {
		case allWord:
			return allHelp(), true
		case "-h", "--help":
			return usageText(), true
		}
		if text, ok := helpOn(words[0]); ok {
			return text, true
		}
		if text := optionHelp(words[0]); text != "" {
			return text, true
		}
	}
	text = searchHelp(words)
	return text, text != ""
}

// noHelp is the failure of a search that found nothing.
func noHelp(words []string) error {
	word := strings.Join(words, " ")
	names := helpTopics()
	for _, p := range optionPlaces() {
		names = append(names, "--"+p.option.name)
	}
	hint := "choose from: " + strings.Join(helpTopics(), ", ")
	if near := vault.Nearest(word, names); near != "" {
		hint = fmt.Sprintf("did you mean `vaultexec help %s`? Otherwise ", near) + hint
	}
	return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("no help on %q", word), Hint: hint}
}

// allHelp is every page, one after the other.
func allHelp() string {
	var b strings.Builder
	b.WriteString(usageText())
	for _, name := range helpTopics() {
		if name == "run" || name == "check" { // their page is the first
			continue
		}
		page, _ := helpOn(name)
		fmt.Fprintf(&b, "\n\n==== vaultexec help %s ====\n\n%s\n", name, strings.TrimRight(page, "\n"))
	}
	return b.String()
}

// optionPlace is an option and the command that it belongs to.
type optionPlace struct {
	option  option
	command string // "" for the launcher and check
}

func optionPlaces() []optionPlace {
	var list []optionPlace
	for _, o := range options {
		list = append(list, optionPlace{o, ""})
	}
	for _, c := range adminCommands {
		for _, o := range c.own {
			list = append(list, optionPlace{o, c.name})
		}
	}
	return list
}

// optionHelp is the text of an option, with every command that has one of that name, and the pages that say more.
func optionHelp(word string) string {
	name := strings.TrimLeft(word, "-")
	var texts []string
	owners := map[string][]string{} // by the text, which several commands may share
	for _, p := range optionPlaces() {
		if p.option.name != name {
			continue
		}
		text, of := optionText(p.option), "vaultexec "+p.command
		if p.command == "" {
			of = fmt.Sprintf("vaultexec run and check (%q)", p.option.group)
		}
		if owners[text] == nil {
			texts = append(texts, text)
		}
		owners[text] = append(owners[text], of)
	}
	if texts == nil {
		return ""
	}
	var b strings.Builder
	for i, text := range texts {
		if i > 0 {
			b.WriteString("\n")
		}
		of := strings.Replace(strings.Join(owners[text], ", "), ", vaultexec ", ", ", -1)
		b.WriteString(strings.TrimLeft(wrap("An option of "+of+":", 1), " ") + "\n" + text)
	}
	var pages []string
	for _, topic := range helpTopics() {
		if page := ownText(topic); hasOption(page, name) {
			pages = append(pages, "vaultexec help "+topic)
		}
	}
	if len(pages) > 0 {
		b.WriteString("\n" + strings.TrimLeft(wrap("Named in: "+strings.Join(pages, ", "), 1), " "))
	}
	return b.String()
}

// hasOption reports whether a text names an option, and not only one whose name is longer.
func hasOption(text, name string) bool {
	for {
		_, after, ok := strings.Cut(text, "--"+name)
		if !ok {
			return false
		}
		if after == "" || after[0] != '-' && !unicode.IsLetter(rune(after[0])) {
			return true
		}
		text = after
	}
}

// ownText is what the page of a command or a topic says beside the options, each of which is found by itself.
func ownText(topic string) string {
	if c := findCommand(topic); c != nil {
		return c.about
	}
	if page := topics[topic]; page != nil {
		return page()
	}
	return ""
}

// searchHelp lists the commands, topics and options that have all the words in their name or text, a line each.
func searchHelp(words []string) string {
	words = slices.Clone(words)
	for i, w := range words {
		words[i] = strings.ToLower(strings.TrimLeft(w, "-"))
	}
	has := func(text string) bool {
		text = strings.ToLower(text)
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	}
	var b strings.Builder
	line := func(name, text string) {
		text = strings.Join(strings.Fields(text), " ")
		if len(name) < 22 {
			name = fmt.Sprintf("%-22s", name)
		}
		b.WriteString("  " + cut(name+"  "+text, 98) + "\n")
	}
	for _, topic := range helpTopics() {
		c, text := findCommand(topic), ownText(topic)
		first, _, _ := strings.Cut(text, "\n")
		name := topic
		switch {
		case c != nil:
			name, first = "vaultexec "+topic, c.summary
			text = topic + " " + c.summary + "\n" + text
		case text == "": // run and check, whose options are below
			continue
		default:
			text = topic + "\n" + text
		}
		if has(text) {
			line(name, first)
		}
	}
	for _, p := range optionPlaces() {
		if has("--" + p.option.name + " " + p.option.arg + " " + p.option.text()) {
			name := "--" + p.option.name
			if p.command != "" {
				name = p.command + " " + name
			}
			line(name, p.option.usage)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return b.String() + "\nvaultexec help NAME shows one of them, vaultexec help --all everything.\n"
}

// cut shortens a text to so many columns.
func cut(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

// helpOptions are what completion offers after help.
func helpOptions() []option {
	list := []option{{name: strings.TrimLeft(allWord, "-")}}
	for _, p := range optionPlaces() {
		if !slices.ContainsFunc(list, func(o option) bool { return o.name == p.option.name }) {
			list = append(list, option{name: p.option.name})
		}
	}
	return list
}
