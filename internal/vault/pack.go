package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// packed is a secret of a KV engine as JSON. Its values are in it: it is for what is encrypted.
type packed struct {
	Path      Path                       `json:"path"`
	Engine    Engine                     `json:"engine"`
	Values    map[string]json.RawMessage `json:"values"`
	Version   int                        `json:"version,omitempty"`
	Created   string                     `json:"created,omitempty"`
	Deleted   string                     `json:"deleted,omitempty"`
	Destroyed bool                       `json:"destroyed,omitempty"`
	Date      time.Time                  `json:"date"`
}

// Packable reports whether a secret is one of a KV engine, which lives until somebody changes it.
func (s *Secret) Packable() bool { return s.Engine.KV != 0 && !s.Lease.Ends() && s.Lease.ID == "" }

// EndedBy returns the failure to read a secret whose version deletes itself (delete_version_after) and has done so by then;
// nil for any other.
func (s *Secret) EndedBy(then time.Time) error {
	if !past(s.DeletedTime, then) {
		return nil
	}
	return &fault.Error{Kind: fault.Deleted, What: cannotRead(s.Path), Why: fmt.Sprintf("version %d was deleted at %s", s.Version, s.DeletedTime),
		Err: &Gone{Marker{Version: s.Version, Created: s.CreatedTime, Deleted: true}}}
}

// Pack writes a secret of a KV engine down, values and all.
func (s *Secret) Pack() (json.RawMessage, error) {
	if !s.Packable() {
		return nil, errors.New("it is in no KV engine")
	}
	p := packed{Path: s.Path, Engine: s.Engine, Version: s.Version, Created: s.CreatedTime, Deleted: s.DeletedTime, Destroyed: s.Destroyed,
		Date: s.Date, Values: make(map[string]json.RawMessage, len(s.Values))}
	for k, v := range s.Values {
		p.Values[k] = v.raw()
	}
	return json.Marshal(p)
}

// Unpack reads what Pack wrote.
func Unpack(raw json.RawMessage) (*Secret, error) {
	var p packed
	if json.Unmarshal(raw, &p) != nil {
		return nil, errors.New("not a secret") // the error may quote a value
	}
	s := &Secret{Path: p.Path, Engine: p.Engine, Version: p.Version, CreatedTime: p.Created, DeletedTime: p.Deleted, Destroyed: p.Destroyed,
		Date: p.Date, Values: make(map[string]Value, len(p.Values))}
	for k, v := range p.Values {
		s.Values[k] = holdValue(v)
	}
	return s, nil
}
