package statusserver

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/agenticverz/vaultexec/internal/needs"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// full is a snapshot with everything in it, and with paths that have to be escaped.
func full() *Snapshot {
	return &Snapshot{
		Program: "v1.2.3", PID: 7, Phase: Running, Watches: true,
		Command: Command{Name: "app", PID: 8, Started: At(noon), Ready: true, Restarts: 3, Rollbacks: 2, LastExit: &Exit{At(noon), "exit code 1"}},
		Change:  &Change{State: "settling", Text: "kv/app 3 → 4", Since: At(noon), Until: At(noon.Add(time.Second))},
		Paths: []Path{
			{Path: "kv/app", Version: 3, Newest: 4, Created: At(noon.Add(-time.Hour)), Watched: true, LastLook: At(noon.Add(-90 * time.Second)),
				LastFailure: &Failure{At(noon), "away", "cannot look"}, Failing: true},
			{Path: "kv/\"quoted\"\\back\nline", Version: 1, Newest: 1, Created: At(noon.Add(time.Hour)), Watched: true, LastLook: At(noon.Add(-time.Second))},
			{Path: "kv1/app"},
			{Path: "kv/not\xffutf8", Version: 9},
		},
		Copy:   &Copy{Written: At(noon.Add(-2 * time.Hour))},
		Token:  &Token{Method: "approle", Ends: At(noon.Add(time.Hour)), Renewals: 4},
		Leases: []Lease{{"db/b", At(noon.Add(2 * time.Minute))}, {"db/a", At(noon.Add(3 * time.Minute))}, {"db/a", At(noon.Add(time.Minute))}},
		Files:  []File{{"CERT", "/run/app/cert"}},
		Counts: Counts{
			LookFailures: map[string]int{"away": 5}, Restarts: map[string]int{"change": 2, "rollback": 1}, Requests: map[string]int{"2xx": 9, "none": 1},
			Handovers: Histogram{}.Add(200 * time.Millisecond).Add(7 * time.Second).Add(2 * time.Minute),
		},
	}
}

func families(t *testing.T, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	got, err := p.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return got
}

// value is one sample by the value of its only label.
func value(t *testing.T, f *dto.MetricFamily, label string) float64 {
	t.Helper()
	for _, m := range f.GetMetric() {
		if len(m.Label) == 0 && label == "" || len(m.Label) == 1 && m.Label[0].GetValue() == label {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no %s of %q", f.GetName(), label)
	return 0
}

// The names, types and values, as Prometheus' own parser reads them.
func TestMetrics(t *testing.T) {
	t.Parallel()
	got := families(t, full().Metrics(noon, false))
	for _, c := range []struct {
		name, label string
		kind        dto.MetricType
		want        float64
	}{
		{"vaultexec_info", "v1.2.3", dto.MetricType_GAUGE, 1},
		{"vaultexec_secret_version", "kv/app", dto.MetricType_GAUGE, 3},
		{"vaultexec_secret_version", "kv/\"quoted\"\\back\nline", dto.MetricType_GAUGE, 1},
		{"vaultexec_secret_version", "kv/not�utf8", dto.MetricType_GAUGE, 9},
		{"vaultexec_secret_newest_version", "kv/app", dto.MetricType_GAUGE, 4},
		{"vaultexec_secret_age_seconds", "kv/app", dto.MetricType_GAUGE, 3600},
		{"vaultexec_secret_age_seconds", "kv/\"quoted\"\\back\nline", dto.MetricType_GAUGE, 0}, // Vault's clock is ahead
		{"vaultexec_last_look_timestamp_seconds", "kv/app", dto.MetricType_GAUGE, float64(noon.Unix() - 90)},
		{"vaultexec_look_failures_total", "away", dto.MetricType_COUNTER, 5},
		{"vaultexec_look_failures_total", "denied", dto.MetricType_COUNTER, 0},
		{"vaultexec_command_restarts_total", "change", dto.MetricType_COUNTER, 2},
		{"vaultexec_command_restarts_total", "lease", dto.MetricType_COUNTER, 0},
		{"vaultexec_rollbacks_total", "", dto.MetricType_COUNTER, 2},
		{"vaultexec_command_ready", "", dto.MetricType_GAUGE, 1},
		{"vaultexec_change_pending", "", dto.MetricType_GAUGE, 1},
		{"vaultexec_fallback_in_use", "", dto.MetricType_GAUGE, 1},
		{"vaultexec_fallback_written_timestamp_seconds", "", dto.MetricType_GAUGE, float64(noon.Unix() - 7200)},
		{"vaultexec_token_expiry_timestamp_seconds", "", dto.MetricType_GAUGE, float64(noon.Unix() + 3600)},
		{"vaultexec_lease_expiry_timestamp_seconds", "db/a", dto.MetricType_GAUGE, float64(noon.Unix() + 60)},
		{"vaultexec_lease_expiry_timestamp_seconds", "db/b", dto.MetricType_GAUGE, float64(noon.Unix() + 120)},
		{"vaultexec_requests_total", "2xx", dto.MetricType_COUNTER, 9},
		{"vaultexec_requests_total", "none", dto.MetricType_COUNTER, 1},
	} {
		f := got[c.name]
		if f == nil || f.GetType() != c.kind {
			t.Errorf("%s is %v", c.name, f.GetType())
			continue
		}
		if v := value(t, f, c.label); v != c.want {
			t.Errorf("%s of %q is %v, want %v", c.name, c.label, v, c.want)
		}
	}
	h := got["vaultexec_handover_seconds"].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 3 || h.GetSampleSum() != 127.2 {
		t.Errorf("handovers: %v", h)
	}
	want := []uint64{0, 1, 1, 1, 1, 1, 2, 2, 2, 3}
	for i, b := range h.Bucket {
		if b.GetCumulativeCount() != want[i] {
			t.Errorf("up to %v: %d, want %d", b.GetUpperBound(), b.GetCumulativeCount(), want[i])
		}
	}
	if len(h.Bucket) != len(want) || len(got) != 16 {
		t.Errorf("%d buckets, %d families", len(h.Bucket), len(got))
	}
	for _, name := range []string{"vaultexec_secret_version", "vaultexec_secret_age_seconds", "vaultexec_last_look_timestamp_seconds"} {
		for _, m := range got[name].GetMetric() {
			if m.Label[0].GetValue() == "kv1/app" {
				t.Errorf("%s of a secret that has none", name)
			}
		}
	}
}

// What is not known is left out. Counters are there from the beginning, with each value of their label.
func TestMetricsOfNothing(t *testing.T) {
	t.Parallel()
	got := families(t, (&Snapshot{Program: "v1", Command: Command{NotReady: "no command"}}).Metrics(noon, false))
	var names []string
	for name := range got {
		names = append(names, name)
	}
	slices.Sort(names)
	want := "vaultexec_change_pending vaultexec_command_ready vaultexec_command_restarts_total vaultexec_fallback_in_use vaultexec_handover_seconds vaultexec_info vaultexec_look_failures_total vaultexec_requests_total vaultexec_rollbacks_total"
	if strings.Join(names, " ") != want {
		t.Errorf("%v", names)
	}
	for name, n := range map[string]int{"vaultexec_look_failures_total": len(Kinds), "vaultexec_command_restarts_total": len(Reasons), "vaultexec_requests_total": len(Statuses)} {
		if len(got[name].GetMetric()) != n {
			t.Errorf("%d samples of %s, want %d", len(got[name].GetMetric()), name, n)
		}
	}
	if value(t, got["vaultexec_command_ready"], "") != 0 {
		t.Error("ready")
	}
}

// OpenMetrics has the same samples. Its families have other names, units, and an end.
func TestOpenMetrics(t *testing.T) {
	t.Parallel()
	samples := func(text []byte) (list []string) {
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") {
				list = append(list, strings.Replace(line, `.0"`, `"`, 1))
			}
		}
		return list
	}
	plain, open := full().Metrics(noon, false), full().Metrics(noon, true)
	if !slices.Equal(samples(plain), samples(open)) {
		t.Errorf("%q\n%q", samples(plain), samples(open))
	}
	for _, want := range []string{
		"# TYPE vaultexec info\n", "# TYPE vaultexec_look_failures counter\n", "# TYPE vaultexec_rollbacks counter\n", "# UNIT vaultexec_handover_seconds seconds\n",
		"# UNIT vaultexec_secret_age_seconds seconds\n", "le=\"1.0\"", "le=\"0.25\"", "le=\"+Inf\"",
	} {
		if !strings.Contains(string(open), want) {
			t.Errorf("no %q in\n%s", want, open)
		}
	}
	if !strings.HasSuffix(string(open), "\n# EOF\n") || strings.Contains(string(plain), "# EOF") || strings.Contains(string(plain), "# UNIT") {
		t.Error("the ends")
	}
}

// Prometheus' own linter has nothing to say.
func TestMetricsAreLinted(t *testing.T) {
	t.Parallel()
	promtool := needs.Program(t, "promtool")
	for _, s := range []*Snapshot{full(), {Program: "v1"}} {
		cmd := exec.Command(promtool, "check", "metrics")
		cmd.Stdin = bytes.NewReader(s.Metrics(noon, false))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v: %s", err, out)
		}
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader("# TYPE vaultexec_bad counter\nvaultexec_bad 1\n")
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("promtool accepts everything: %s", out)
	}
}

// Whatever a path is called, the parser finds it as it is.
func FuzzLabel(f *testing.F) {
	for _, s := range []string{"kv/app", `a"b\c`, "a\nb", "\r\t\x00", "ключ", "\xff", `\n`, "}", "{x=\"y\"} 1", " ", "#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		s := &Snapshot{Program: "v1", Paths: []Path{{Path: path, Version: 7}}}
		if v := value(t, families(t, s.Metrics(noon, false))["vaultexec_secret_version"], strings.ToValidUTF8(path, "�")); v != 7 {
			t.Errorf("%v", v)
		}
	})
}
