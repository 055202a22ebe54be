package statusserver

import (
	"cmp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// What /metrics answers: OpenMetrics 1.0.0 if the client asks for it, and otherwise the text format 0.0.4, with the same names.
// All labels but path have a fixed set of values.

// Kinds are the kinds of a failed look.
var Kinds = []string{"away", "address", "refused", "denied", "token", "other"}

// KindOf is the kind that a failure is counted as.
func KindOf(name string) string {
	if slices.Contains(Kinds, name) {
		return name
	}
	return "other"
}

// Reasons are those of a restart.
var Reasons = []string{"change", "lease", "rollback"}

// Statuses are the classes of Vault's answers; none for a request without an answer.
var Statuses = []string{"2xx", "3xx", "4xx", "5xx", "none"}

// Buckets are the bounds of vaultexec_handover_seconds.
var Buckets = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// Counts are counters: they only grow.
type Counts struct {
	LookFailures map[string]int // by kind
	Restarts     map[string]int // by reason
	Requests     map[string]int // by status
	Handovers    Histogram
}

// Histogram counts durations.
type Histogram struct {
	Below []int // for each of Buckets, those up to it; nil while there are none
	Count int
	Sum   float64 // seconds
}

// Add is the histogram with one more duration. The old one stays as it is.
func (h Histogram) Add(d time.Duration) Histogram {
	below := make([]int, len(Buckets))
	copy(below, h.Below)
	for i, most := range Buckets {
		if d.Seconds() <= most {
			below[i]++
		}
	}
	return Histogram{Below: below, Count: h.Count + 1, Sum: h.Sum + d.Seconds()}
}

// metrics writes one of the two formats.
type metrics struct {
	strings.Builder
	open bool // OpenMetrics
}

// Metrics is what /metrics answers at a point in time. open asks for OpenMetrics.
func (s *Snapshot) Metrics(now time.Time, open bool) []byte {
	m := &metrics{open: open}
	if open { // there the family has the name without _info
		m.head("vaultexec", "info", "", "Version of vaultexec.")
	} else {
		m.head("vaultexec_info", "gauge", "", "Version of vaultexec.")
	}
	m.sample("vaultexec_info", label("version", s.Program), 1)

	m.paths(s, "vaultexec_secret_version", "", "Version of the secret that the command has.",
		func(p Path) (float64, bool) { return float64(p.Version), p.Version > 0 })
	m.paths(s, "vaultexec_secret_newest_version", "", "Version that Vault had at the last look.",
		func(p Path) (float64, bool) { return float64(p.Newest), p.Newest > 0 })
	m.paths(s, "vaultexec_secret_age_seconds", "seconds", "Age of the version that the command has.",
		func(p Path) (float64, bool) { return max(now.Sub(p.Created.Time).Seconds(), 0), !p.Created.IsZero() })
	m.paths(s, "vaultexec_last_look_timestamp_seconds", "seconds", "Time of the last look that Vault answered.",
		func(p Path) (float64, bool) { return unix(p.LastLook), p.Watched && !p.LastLook.IsZero() })

	m.counts("vaultexec_look_failures", "Looks and reads that failed.", "kind", Kinds,
		s.Counts.LookFailures)
	m.counts("vaultexec_command_restarts", "Commands that replaced another.", "reason", Reasons, s.Counts.Restarts)
	m.counter("vaultexec_rollbacks", "Times that vaultexec gave up new versions, because a command failed with them or was never ready.",
		s.Command.Rollbacks)
	m.gauge("vaultexec_command_ready", "", "1 when the command is ready.", truth(s.Command.NotReady == ""))
	m.gauge("vaultexec_change_pending", "", "1 while a change is under way.", truth(s.Change != nil))

	m.gauge("vaultexec_fallback_in_use", "", "1 while the command has the last-good copy of its secrets.", truth(s.Copy != nil))
	if s.Copy != nil {
		m.gauge("vaultexec_fallback_written_timestamp_seconds", "seconds", "When that copy was written.", unix(s.Copy.Written))
	}

	if s.Token != nil && !s.Token.Ends.IsZero() {
		m.gauge("vaultexec_token_expiry_timestamp_seconds", "seconds", "When the token expires unless it is renewed.",
			unix(s.Token.Ends))
	}
	m.leases(s.Leases)
	m.histogram("vaultexec_handover_seconds", "From the start of a new command until it serves, with start-first.",
		s.Counts.Handovers)
	m.counts("vaultexec_requests", "Requests to Vault.", "status", Statuses, s.Counts.Requests)
	if open {
		m.WriteString("# EOF\n")
	}
	return []byte(m.String())
}

func (m *metrics) head(name, kind, unit, help string) {
	m.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
	if m.open && unit != "" {
		m.WriteString("# UNIT " + name + " " + unit + "\n")
	}
}

func (m *metrics) sample(name, labels string, value float64) {
	m.WriteString(name + labels + " " + strconv.FormatFloat(value, 'f', -1, 64) + "\n")
}

func (m *metrics) gauge(name, unit, help string, value float64) {
	m.head(name, "gauge", unit, help)
	m.sample(name, "", value)
}

// counterHead begins a counter, whose name in OpenMetrics is that of its sample without _total.
func (m *metrics) counterHead(name, help string) {
	if !m.open {
		name += "_total"
	}
	m.head(name, "counter", "", help)
}

func (m *metrics) counter(name, help string, n int) {
	m.counterHead(name, help)
	m.sample(name+"_total", "", float64(n))
}

// counts writes a counter with every value of its label, also those that are 0.
func (m *metrics) counts(name, help, key string, values []string, counts map[string]int) {
	m.counterHead(name, help)
	for _, v := range values {
		m.sample(name+"_total", label(key, v), float64(counts[v]))
	}
}

// paths writes a gauge for the paths that have a value for it.
func (m *metrics) paths(s *Snapshot, name, unit, help string, of func(Path) (float64, bool)) {
	begun := false
	for _, p := range s.Paths {
		v, has := of(p)
		if !has {
			continue
		}
		if !begun {
			m.head(name, "gauge", unit, help)
			begun = true
		}
		m.sample(name, label("path", p.Path), v)
	}
}

// leases writes for each path the lease that expires first.
func (m *metrics) leases(list []Lease) {
	ends := slices.Clone(list)
	sort.SliceStable(ends, func(i, j int) bool {
		return cmp.Or(cmp.Compare(ends[i].Path, ends[j].Path), ends[i].Ends.Compare(ends[j].Ends.Time)) < 0
	})
	ends = slices.CompactFunc(ends, func(a, b Lease) bool { return a.Path == b.Path })
	for i, l := range ends {
		if i == 0 {
			m.head("vaultexec_lease_expiry_timestamp_seconds", "gauge", "seconds", "When the lease expires unless it is renewed.")
		}
		m.sample("vaultexec_lease_expiry_timestamp_seconds", label("path", l.Path), unix(l.Ends))
	}
}

func (m *metrics) histogram(name, help string, h Histogram) {
	m.head(name, "histogram", "seconds", help)
	for i, most := range Buckets {
		n := 0
		if i < len(h.Below) {
			n = h.Below[i]
		}
		bound := strconv.FormatFloat(most, 'f', -1, 64)
		if m.open && !strings.Contains(bound, ".") { // OpenMetrics writes it as a float
			bound += ".0"
		}
		m.sample(name+"_bucket", label("le", bound), float64(n))
	}
	m.sample(name+"_bucket", label("le", "+Inf"), float64(h.Count))
	m.sample(name+"_sum", "", h.Sum)
	m.sample(name+"_count", "", float64(h.Count))
}

// escapes are those of both formats in the value of a label.
var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func label(name, value string) string {
	return "{" + name + `="` + escapes.Replace(strings.ToValidUTF8(value, "�")) + `"}`
}

func unix(t Time) float64 { return float64(t.UnixMilli()) / 1000 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
