package vault

import (
	"context"
	"encoding/json"
	"time"
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
	type actor struct {
		Actor    string `json:"actor"`
		ClientID string `json:"client_id"`
		EntityID string `json:"entity_id"`
	}
	var m struct {
		Current  int `json:"current_version"`
		Versions map[int]struct {
			Created   string          `json:"created_time"`
			Deletion  string          `json:"deletion_time"`
			Destroyed bool            `json:"destroyed"`
			CreatedBy json.RawMessage `json:"created_by"`
			DeletedBy json.RawMessage `json:"deleted_by"`
		} `json:"versions"`
	}
	if a.Data.into(&m) != nil {
		return nil, notVaults(r.what, "")
	}
	who := func(raw json.RawMessage) string {
		var w actor
		if len(raw) == 0 || json.Unmarshal(raw, &w) != nil {
			return ""
		}
		if w.Actor != "" {
			return w.Actor
		}
		return w.EntityID
	}
	now := a.Date
	if !now.IsZero() { // the header is cut to whole seconds; a proxy may have taken it out
		now = now.Add(time.Second)
	}
	var list []VersionInfo
	for n := m.Current; n > 0 && len(list) < len(m.Versions); n-- {
		v, ok := m.Versions[n]
		if !ok {
			continue
		}
		info := VersionInfo{Version: n, Created: v.Created, CreatedBy: who(v.CreatedBy), Deleted: v.Deletion, DeletedBy: who(v.DeletedBy), Destroyed: v.Destroyed}
		switch {
		case v.Destroyed:
			info.State = "destroyed"
		case past(v.Deletion, now):
			info.State = "deleted"
		case n == m.Current:
			info.State = "current"
		default:
			info.State = "live"
		}
		list = append(list, info)
	}
	return list, nil
}
