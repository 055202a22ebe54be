package cli

import (
	"flag"

	"github.com/urfave/cli/v2"
)

// given collects the options of one command line as they were written. Nothing is judged while the parser runs: its
// errors would quote values and go to standard output.
type given struct {
	values map[string][]givenValue
	count  int
}

type givenValue struct {
	text  string
	order int
}

// flagValue is the parser's end of one option.
type flagValue struct {
	given *given
	opt   option
}

// Set keeps one occurrence.
func (f flagValue) Set(s string) error {
	f.given.count++
	f.given.values[f.opt.name] = append(f.given.values[f.opt.name], givenValue{s, f.given.count})
	return nil
}

// String is the default for the parser, which does not need one.
func (f flagValue) String() string { return "" }

// IsBoolFlag tells the parser which options take no value.
func (f flagValue) IsBoolFlag() bool { return f.opt.arg == "" }

func newGiven() *given { return &given{values: map[string][]givenValue{}} }

func (g *given) has(name string) bool { return len(g.values[name]) > 0 }

// parserFlag is one option in the parser's list. The parser's own flags look for aliases in each name with a regular
// expression, for every pair of flags: 1.4 ms at each start. It asks for the names once for every pair, too.
type parserFlag struct {
	flagValue
	names []string
}

// Apply implements cli.Flag.
func (f parserFlag) Apply(set *flag.FlagSet) error {
	set.Var(f.flagValue, f.opt.name, "")
	return nil
}

// Names implements cli.Flag.
func (f parserFlag) Names() []string { return f.names }

// IsSet implements cli.Flag; nobody asks the parser.
func (f parserFlag) IsSet() bool { return f.given.has(f.opt.name) }

// flags makes the parser's flags of the options.
func (g *given) flags(opts []option) []cli.Flag {
	flags := make([]cli.Flag, len(opts))
	for i, o := range opts {
		flags[i] = parserFlag{flagValue{g, o}, []string{o.name}}
	}
	return flags
}
