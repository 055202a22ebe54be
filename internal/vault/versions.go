package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// VersionInfo is one version of a secret on KV version 2.
type VersionInfo struct {
	Version   int    `json:"version"`
	Created   string `json:"created"`
	CreatedBy string `json:"created_by,omitempty"` // where the server tells: Vault 1.21 and later
	Deleted   string `json:"deleted,omitempty"`    // when; may lie in the future
	DeletedBy string `json:"deleted_by,omitempty"`
	Destroyed bool   `json:"destroyed,omitempty"`
	State     string `json:"state"` // "current", "live", "deleted", "destroyed"
}

// Versions lists the versions of a secret, the latest first. It takes read on the metadata.
func (c *Client) Versions(ctx context.Context, p Path) ([]VersionInfo, error) {
	r := request{what: "cannot read the versions of " + p.String(), path: p.Mount + "/metadata/" + p.Name}
	r.denied = needs(r.path, "read")
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	var m struct {
		Current  int                 `json:"current_version"`
		Versions map[int]versionWire `json:"versions"`
	}
	if a.Data.into(&m) != nil {
		return nil, notVaults(r.what, "")
	}
	now := a.Date
	if !now.IsZero() { // the header is cut to whole seconds; a proxy may have taken it out
		now = now.Add(time.Second)
	}
	var list []VersionInfo
	for n := m.Current; n > 0 && len(list) < len(m.Versions); n-- {
		if v, ok := m.Versions[n]; ok {
			list = append(list, v.info(n, n == m.Current, now))
		}
	}
	return list, nil
}

// Before reads the newest version before that of a state which is neither deleted nor destroyed. It asks for the data
// alone: who may bring a version back need not be allowed to read the metadata.
func (c *Client) Before(ctx context.Context, st State) (*Secret, error) {
	p := st.Path
	for p.Version = st.Version - 1; p.Version > 0; p.Version-- {
		s, err := c.Read(ctx, p, ReadOptions{})
		var gone *Gone
		switch {
		case err == nil || !fault.Is(err, fault.Missing) && !errors.As(err, &gone):
			return s, err
		case gone == nil:
			p.Version = 1 // Vault keeps none that are older
		}
	}
	p.Version = 0
	return nil, &fault.Error{Kind: fault.Missing, What: cannotRead(p),
		Why: fmt.Sprintf("no version before %d is left, or all are deleted", st.Version)}
}

// versionWire is one version in the metadata of a secret.
type versionWire struct {
	Created   string `json:"created_time"`
	Deletion  string `json:"deletion_time"`
	Destroyed bool   `json:"destroyed"`
	CreatedBy actor  `json:"created_by"`
	DeletedBy actor  `json:"deleted_by"`
}

func (v versionWire) info(n int, current bool, now time.Time) VersionInfo {
	info := VersionInfo{
		Version: n, Created: v.Created, CreatedBy: string(v.CreatedBy), Deleted: v.Deletion,
		DeletedBy: string(v.DeletedBy), Destroyed: v.Destroyed,
	}
	switch {
	case v.Destroyed:
		info.State = "destroyed"
	case past(v.Deletion, now):
		info.State = "deleted"
	case current:
		info.State = "current"
	default:
		info.State = "live"
	}
	return info
}

// actor is who made or deleted a version: by name, or by the ID of the entity.
type actor string

// UnmarshalJSON takes whatever else may stand there as nobody: only people read it.
func (a *actor) UnmarshalJSON(b []byte) error {
	var w struct {
		Actor    string `json:"actor"`
		ClientID string `json:"client_id"`
		EntityID string `json:"entity_id"`
	}
	if json.Unmarshal(b, &w) == nil {
		*a = actor(cmp.Or(w.Actor, w.EntityID))
	}
	return nil
}
