package vault

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Marker tells one state of a secret from another. KV version 2's current_version alone does not. It stands still when
// the version is deleted, undeleted, destroyed or expires. It may also be the same after the metadata was deleted and
// the secret was written again up to that number.
type Marker struct {
	Absent    bool // there is no such secret
	Version   int
	Created   string // created_time as the server wrote it
	Destroyed bool
	Deleted   bool     // deleted, or expired by delete_version_after, by the server's clock; false when destroyed
	Digest    [32]byte // of the content, where nothing else tells (KV version 1)
}

// OlderThan reports whether the state was created before that of o, as on a replica that lags behind. A higher version
// is never older: after a failover the new leader's clock may be behind that of the old one. (A lower version that was
// created later was written anew after its metadata had been deleted.)
func (m Marker) OlderThan(o Marker) bool {
	a, errA := time.Parse(time.RFC3339Nano, m.Created)
	b, errB := time.Parse(time.RFC3339Nano, o.Created)
	return errA == nil && errB == nil && a.Before(b) && m.Version <= o.Version
}

// Gone reports whether there is nothing to read in this state.
func (m Marker) Gone() bool { return m.Absent || m.Destroyed || m.Deleted }

// String names the state for a log: "3", "3 (deleted)", "absent".
func (m Marker) String() string {
	switch {
	case m.Absent:
		return "absent"
	case m.Version == 0:
		return "content"
	case m.Destroyed:
		return strconv.Itoa(m.Version) + " (destroyed)"
	case m.Deleted:
		return strconv.Itoa(m.Version) + " (deleted)"
	}
	return strconv.Itoa(m.Version)
}

// Gone is the cause of a fault.Deleted failure: which version it was.
type Gone struct{ Marker Marker }

// Error names the version.
func (g *Gone) Error() string { return "version " + g.Marker.String() }

// Digester makes digests of values that mean nothing outside of this process.
type Digester struct{ key []byte }

// NewDigester makes one with a key, which should be random.
func NewDigester(key []byte) Digester { return Digester{key} }

// Marker returns the state that a read saw.
func (d Digester) Marker(s *Secret) Marker {
	if s.Engine.KV == 2 {
		return Marker{Version: s.Version, Created: s.CreatedTime, Destroyed: s.Destroyed,
			Deleted: past(s.DeletedTime, s.Date)}
	}
	keys := make([]string, 0, len(s.Values))
	_, static := s.Rotates()
	for k := range s.Values {
		if !static || k != ttlKey {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	mac := hmac.New(sha256.New, d.key)
	for _, k := range keys {
		raw := s.Values[k].raw()
		fmt.Fprintf(mac, "%d:%s%d:", len(k), k, len(raw))
		mac.Write(raw)
	}
	var m Marker
	mac.Sum(m.Digest[:0])
	return m
}

// MarkerOf returns the state behind a read that failed because there is nothing, and whether that is why it failed.
func MarkerOf(err error) (Marker, bool) {
	var gone *Gone
	if errors.As(err, &gone) {
		return gone.Marker, true
	}
	return Marker{Absent: true}, fault.Is(err, fault.Missing)
}

// past reports whether a deletion_time has come, by the server's clock where that is known.
func past(deletion string, now time.Time) bool {
	if deletion == "" {
		return false
	}
	t, err := time.Parse(time.RFC3339Nano, deletion)
	if err != nil {
		return false
	}
	if now.IsZero() {
		now = time.Now()
	}
	return !t.After(now)
}

// Look asks for the state of a KV version 2 secret without its values: one small request, for which the token needs
// read on <mount>/metadata/<name>. A secret that does not exist is a state and no failure.
func (c *Client) Look(ctx context.Context, p Path) (Marker, error) {
	r := request{what: "cannot look at " + p.String(), path: p.Mount + "/metadata/" + p.Name, poll: true}
	a, err := c.do(ctx, r)
	if err != nil {
		if fault.Has(err, fault.NoSecret) {
			return Marker{Absent: true}, nil
		}
		return Marker{}, err
	}
	var m struct {
		Current  *int `json:"current_version"`
		Versions map[string]struct {
			Created   string `json:"created_time"`
			Deletion  string `json:"deletion_time"`
			Destroyed bool   `json:"destroyed"`
		} `json:"versions"`
	}
	if a.Data.into(&m) != nil || m.Current == nil {
		return Marker{}, notVaults(r.what, "")
	}
	v, ok := m.Versions[strconv.Itoa(*m.Current)]
	if !ok {
		return Marker{Absent: true}, nil
	}
	return Marker{Version: *m.Current, Created: v.Created, Destroyed: v.Destroyed,
		Deleted: !v.Destroyed && past(v.Deletion, a.Date)}, nil
}
