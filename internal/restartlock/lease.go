package restartlock

import (
	"encoding/json"
	"errors"
	"maps"
	"time"
)

// decodeLease reads a Lease of that name.
func decodeLease(b []byte, name string) (l lease, err error) {
	var kind, its string
	if json.Unmarshal(b, &l.object) != nil || json.Unmarshal(l.object["kind"], &kind) != nil || kind != "Lease" ||
		json.Unmarshal(l.object["metadata"], &l.meta) != nil || json.Unmarshal(l.meta["name"], &its) != nil || its != name ||
		len(l.meta["resourceVersion"]) == 0 {
		return lease{}, errors.New("no Lease")
	}
	if spec := l.object["spec"]; spec != nil && json.Unmarshal(spec, &l.spec) != nil {
		return lease{}, errors.New("no Lease")
	}
	return l, nil
}

func (l lease) text(name string) (s string) {
	_ = json.Unmarshal(l.spec[name], &s)
	return s
}

func (l lease) number(name string) (n int) {
	_ = json.Unmarshal(l.spec[name], &n)
	return n
}

func (l lease) holder() string { return l.text("holderIdentity") }

// promised is how long the holder may say nothing.
func (l lease) promised(otherwise time.Duration) time.Duration {
	if n := l.number("leaseDurationSeconds"); n > 0 {
		return time.Duration(n) * time.Second
	}
	return otherwise
}

func (l lease) annotations() (m map[string]string) {
	_ = json.Unmarshal(l.meta["annotations"], &m)
	return m
}

// with is the Lease with other fields in its spec.
func (l lease) with(fields map[string]any) lease {
	spec := maps.Clone(l.spec)
	if spec == nil {
		spec = map[string]json.RawMessage{}
	}
	for name, v := range fields {
		spec[name] = raw(v)
	}
	l.object = maps.Clone(l.object)
	l.object["spec"] = raw(spec)
	return l
}

// annotated is the Lease with another annotation.
func (l lease) annotated(key, value string) lease {
	all := l.annotations()
	if all == nil {
		all = map[string]string{}
	}
	all[key] = value
	meta := maps.Clone(l.meta)
	meta["annotations"] = raw(all)
	l.object = maps.Clone(l.object)
	l.object["metadata"] = raw(meta)
	return l
}

// encode is the object. metadata.resourceVersion is in it: the API server refuses to replace any other version than that.
func (l lease) encode() []byte { return raw(l.object) }

func raw(v any) json.RawMessage {
	b, _ := json.Marshal(v) // of maps, texts and numbers: never fails
	return b
}
