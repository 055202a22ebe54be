package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// exitSealed is the exit code of status for a Vault that answers and cannot be used: that of `vault status`.
const exitSealed = 2

var statusCommand = &command{
	name: "status", summary: "seal, version, HA role, TLS, clock, token",
	about: `
Exit code: 0 when Vault is unsealed; 2 when it is sealed or not initialized, as
for "vault status"; 120 when it cannot be reached; 121 when it is unsealed and
the token is refused. One attempt is made; --wait waits for a Vault that is away.
This is about Vault. What a vaultexec is doing with its command is shown by
vaultexec ps, and offered to probes by --status (vaultexec help status-endpoint).
`,
	own: []option{
		jsonOption,
		{name: "wait", arg: "DURATION|forever", def: "0s", group: groupFailing, usage: "how long to wait for a Vault that does not answer"},
	},
	shared: withLogin,
	do:     (*app).status,
}

// statusReport is the whole screen.
type statusReport struct {
	Address     string       `json:"address"`
	Reachable   bool         `json:"reachable"`
	Millis      int64        `json:"milliseconds"`
	Initialized *bool        `json:"initialized"`
	Sealed      *bool        `json:"sealed"`
	Seal        string       `json:"seal_type,omitempty"`
	Threshold   int          `json:"threshold,omitempty"`
	Shares      int          `json:"shares,omitempty"`
	Progress    int          `json:"unseal_progress"`
	Version     string       `json:"version,omitempty"`
	Storage     string       `json:"storage,omitempty"`
	Cluster     string       `json:"cluster_name,omitempty"`
	HA          string       `json:"ha_role,omitempty"` // "active", "standby", "none"
	Leader      string       `json:"leader_address,omitempty"`
	TLS         string       `json:"tls,omitempty"`
	Expires     *time.Time   `json:"certificate_expires,omitempty"`
	ClockOff    *float64     `json:"clock_difference_seconds,omitempty"` // positive: the server is ahead
	Token       *statusToken `json:"token,omitempty"`
	Warnings    []string     `json:"warnings"`
	Error       string       `json:"error,omitempty"`
}

type statusToken struct {
	State     string   `json:"state"` // "valid", "none", "refused", "unknown"
	Why       string   `json:"why,omitempty"`
	Method    string   `json:"method,omitempty"`
	Type      string   `json:"type,omitempty"`
	Policies  []string `json:"policies,omitempty"`
	Seconds   int64    `json:"seconds_left,omitempty"` // 0: it never ends
	Renewable bool     `json:"renewable,omitempty"`
	Uses      int      `json:"uses_left,omitempty"`
}

func (a *app) status(ctx context.Context, s *settings, _ []string) error {
	session := a.session(s)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	defer session.Revoke(context.WithoutCancel(ctx))
	c := session.Client
	r := &statusReport{Address: c.Where(), Warnings: []string{}}
	var seal vault.SealStatus
	err := a.patience(s).Do(ctx, func(ctx context.Context) (err error) {
		seal, err = c.Seal(ctx)
		return err
	})
	if err != nil {
		r.Error = fault.Of(err).Why
		a.showStatus(s, r)
		return err
	}
	r.fill(seal, time.Now())
	if s.bool("tls-skip-verify") && seal.TLS {
		r.warn("the certificate is not verified (--tls-skip-verify)")
	}
	if err = unusable(c, seal); err == nil {
		a.statusOfCluster(ctx, c, s, r)
		err = a.statusOfToken(ctx, session, r)
	}
	a.showStatus(s, r)
	return err
}

// unusable is the failure of a Vault that answers and cannot be used.
func unusable(c *vault.Client, seal vault.SealStatus) error {
	switch {
	case !seal.Initialized:
		return &fault.Error{Kind: fault.Away, Exit: exitSealed, What: c.Where() + " is not initialized",
			Hint: "`vault operator init` makes its keys (deploy/bootstrap does it)"}
	case seal.Sealed && seal.Type != "shamir":
		return &fault.Error{Kind: fault.Away, Exit: exitSealed, What: c.Where() + " is sealed",
			Hint: fmt.Sprintf("its seal is %q, so it should unseal itself: see Vault's log", seal.Type)}
	case seal.Sealed:
		return &fault.Error{Kind: fault.Away, Exit: exitSealed, What: c.Where() + " is sealed",
			Hint: "run `vaultexec unseal`"}
	}
	return nil
}

// statusOfCluster asks what only a server in use knows.
func (a *app) statusOfCluster(ctx context.Context, c *vault.Client, s *settings, r *statusReport) {
	if l, err := c.Leader(ctx); err == nil {
		r.HA, r.Leader = role(l), l.Address
		if l.HA && l.Address == "" {
			r.warn("the cluster has no leader")
		}
	}
	if ns := s.str("namespace"); ns != "" {
		if enterprise, known := c.Enterprise(ctx); known && !enterprise {
			r.warn(fmt.Sprintf("this Vault has no namespaces and ignores %q: paths are those of the root", ns))
		}
	}
}

func role(l vault.Leader) string {
	switch {
	case !l.HA:
		return "none"
	case l.Self:
		return "active"
	}
	return "standby"
}

func (r *statusReport) warn(text string) { r.Warnings = append(r.Warnings, text) }

// fill takes over what needs no token.
func (r *statusReport) fill(seal vault.SealStatus, now time.Time) {
	r.Reachable, r.Millis = true, seal.Took.Milliseconds()
	r.Initialized, r.Sealed = &seal.Initialized, &seal.Sealed
	r.Seal, r.Threshold, r.Shares, r.Progress = seal.Type, seal.Threshold, seal.Shares, seal.Progress
	r.Version, r.Storage, r.Cluster = seal.Version, seal.StorageType, seal.ClusterName
	if seal.TLS {
		r.TLS = seal.TLSName
		if !seal.Expires.IsZero() {
			r.Expires = &seal.Expires
			if left := seal.Expires.Sub(now); left < 14*24*time.Hour {
				r.warn(fmt.Sprintf("the server's certificate expires in %s", spell(left)))
			}
		}
	}
	if !seal.Date.IsZero() {
		// The header is cut to whole seconds and was written while the request was under way.
		off := seal.Date.Add(500 * time.Millisecond).Sub(now.Add(-seal.Took / 2)).Round(time.Second).Seconds()
		r.ClockOff = &off
		if off > 30 || off < -30 {
			r.warn("the clocks differ: certificates, JWTs and token lifetimes are judged by both")
		}
	}
}

// statusOfToken logs in where there is something to log in with, and asks about the token.
func (a *app) statusOfToken(ctx context.Context, session *vault.Session, r *statusReport) error {
	r.Token = &statusToken{State: "valid", Method: string(session.Method())}
	err := session.Prepare(ctx, vault.Patience{})
	if err == nil {
		err = session.Login(ctx)
	}
	if err != nil {
		f := fault.Of(err)
		r.Token.State, r.Token.Why = "refused", f.Why
		if f.Kind == fault.Usage { // there is none, or its file cannot be read
			r.Token.State = "none"
			if refusal := (*trust.Refusal)(nil); errors.As(err, &refusal) { // which file, and what helps
				r.Token.Why = f.Error()
				r.warn(f.Hint)
			}
			return nil
		}
		return err
	}
	if session.Client.Agent() {
		r.Token.State, r.Token.Why = "unknown", "the Vault Agent adds it"
		return nil
	}
	t, err := session.Client.LookupToken(ctx)
	switch {
	case fault.Is(err, fault.Denied):
		r.Token.State, r.Token.Why = "unknown", "its policies do not allow auth/token/lookup-self"
		return nil
	case err != nil:
		r.Token.State, r.Token.Why = "refused", fault.Of(err).Why
		return err
	}
	r.Token.Type, r.Token.Policies, r.Token.Renewable, r.Token.Uses = t.Type, t.Policies, t.Renewable, t.Uses
	r.Token.Seconds = int64(t.TTL.Seconds())
	if slices.Contains(t.Policies, "root") {
		r.warn("this is a root token: it may do everything; use one with a policy for the task, and revoke it")
	}
	return nil
}

// line is one row of the screen.
type line struct {
	label, text string
	tone        tone
}

func (a *app) showStatus(s *settings, r *statusReport) {
	if s.bool("json") {
		a.ui.reportJSON(r)
		return
	}
	for _, l := range r.lines(time.Now()) {
		a.ui.row(12, l.label, plainTone, l.text, l.tone)
	}
}

func (r *statusReport) lines(now time.Time) []line {
	list := []line{{"address", r.Address, plainTone}}
	if !r.Reachable {
		return append(list, line{"reachable", "no: " + r.Error, badTone})
	}
	list = append(list, line{"reachable", fmt.Sprintf("yes, in %d ms", r.Millis), goodTone})
	list = append(list, r.sealLines()...)
	list = append(list, line{"version", r.Version, plainTone}, line{"storage", r.Storage, plainTone},
		line{"cluster", r.Cluster, plainTone})
	list = append(list, r.haLine(), r.tlsLine(now), r.clockLine())
	if r.Token != nil {
		t := plainTone
		if r.Token.State == "refused" {
			t = badTone
		}
		list = append(list, line{"token", r.Token.text(), t})
	}
	for _, w := range r.Warnings {
		list = append(list, line{"warning", w, doubtTone})
	}
	return slices.DeleteFunc(list, func(l line) bool { return l.text == "" })
}

func (r *statusReport) sealLines() []line {
	initialized := line{"initialized", "no", badTone}
	if *r.Initialized {
		initialized = line{"initialized", "yes", goodTone}
	}
	sealed := line{"sealed", "yes", badTone}
	switch {
	case !*r.Sealed:
		sealed = line{"sealed", "no", goodTone}
	case r.Progress > 0:
		sealed.text = fmt.Sprintf("yes, unseal progress %d/%d", r.Progress, r.Threshold)
	}
	seal := r.Seal
	if r.Shares > 0 {
		seal += fmt.Sprintf(", %d of %d shares", r.Threshold, r.Shares)
	}
	return []line{initialized, sealed, {"seal", seal, plainTone}}
}

func (r *statusReport) haLine() line {
	switch {
	case r.HA == "standby" && r.Leader == "":
		return line{"HA", "standby without a leader", badTone}
	case r.HA == "standby":
		return line{"HA", "standby, the leader is " + r.Leader, plainTone}
	}
	return line{"HA", r.HA, plainTone}
}

func (r *statusReport) tlsLine(now time.Time) line {
	switch {
	case r.Expires != nil:
		return line{"TLS", fmt.Sprintf("%s, certificate until %s (%s)",
			r.TLS, r.Expires.UTC().Format(time.DateOnly), spell(r.Expires.Sub(now))), plainTone}
	case r.TLS != "":
		return line{"TLS", r.TLS, plainTone}
	}
	return line{"TLS", "none", plainTone}
}

// clockLine is empty where the server does not tell its time.
func (r *statusReport) clockLine() line {
	if r.ClockOff == nil {
		return line{}
	}
	switch off := time.Duration(*r.ClockOff) * time.Second; {
	case off == 0:
		return line{"clock", "the same as here", plainTone}
	case off > 0:
		return line{"clock", spell(off) + " ahead of here", plainTone}
	default:
		return line{"clock", spell(-off) + " behind here", plainTone}
	}
}

func (t *statusToken) text() string {
	switch t.State {
	case "none", "unknown", "refused":
		return t.State + ": " + t.Why
	}
	parts := []string{t.Type, "policies " + strings.Join(t.Policies, " ")}
	if t.Seconds > 0 {
		parts = append(parts, spell(time.Duration(t.Seconds)*time.Second)+" left")
	} else {
		parts = append(parts, "never ends")
	}
	if t.Renewable {
		parts = append(parts, "renewable")
	}
	if t.Uses > 0 {
		parts = append(parts, fmt.Sprintf("%d uses left", t.Uses))
	}
	if t.Method != "" && t.Method != "token" {
		parts = append(parts, "by "+t.Method)
	}
	return strings.Join(parts, ", ")
}
