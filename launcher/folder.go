package launcher

import (
	"slices"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// A source may be a folder: every secret directly in it. It is listed first. Then its secrets are read with all others,
// as if each were a --path of its own, in the order of their names. A deleted secret that the list shows (KV version 2
// keeps its name) is left out, with a warning.
//
// For the watch the list has a state of its own beside those of the secrets that it showed last.

// members adds the reads of the secrets in folders that were just listed, and returns those that are new.
func (f *fetcher) members(reads *[]*read) []*read {
	if !slices.ContainsFunc(*reads, func(r *read) bool { return r.folder != nil && r.members == nil }) {
		return nil
	}
	var fresh []*read
	index := byPath(*reads)
	for _, r := range *reads {
		if r.folder == nil || r.members != nil {
			continue
		}
		f.log.Debug("listed", "path", r.folder.Path.String(), "secrets", len(r.folder.Names))
		if r.folder.Folders > 0 {
			f.log.Debug("folders in a folder are not entered", "path", r.folder.Path.String(),
				"folders", r.folder.Folders)
		}
		r.members = r.folder.Secrets()
		for _, p := range r.members {
			if index[p] == nil {
				m := &read{path: p, optional: true, member: true}
				index[p] = m
				fresh = append(fresh, m)
			}
		}
	}
	*reads = append(*reads, fresh...)
	return fresh
}

// judgeFolders finds folders of which nothing is left, because every secret in them is deleted.
func judgeFolders(reads []*read) {
	if !slices.ContainsFunc(reads, func(r *read) bool { return r.folder != nil }) {
		return
	}
	index := byPath(reads)
	for _, r := range reads {
		if r.folder == nil || r.err != nil || r.absence != nil || r.inUse(index) {
			continue
		}
		err := &fault.Error{Kind: fault.Deleted, What: "cannot use " + r.folder.Path.String(),
			Why:  "every secret in it is deleted",
			Hint: "write one of them anew, or bring it back with `vault kv undelete`"}
		if r.optional {
			r.absence = err
			continue
		}
		r.err = err
	}
}

// inUse reports whether a secret of the folder was read, or may still be.
func (r *read) inUse(index map[vault.Path]*read) bool {
	for _, p := range r.members {
		if index[p].absence == nil {
			return true
		}
	}
	return false
}

func byPath(reads []*read) map[vault.Path]*read {
	index := make(map[vault.Path]*read, len(reads))
	for _, r := range reads {
		index[r.path] = r
	}
	return index
}

// leftOut says that a secret which there is not is forgiven.
func (f *fetcher) leftOut(r *read) {
	absence := fault.Of(r.absence).Error()
	if r.member {
		f.log.Warn(absence + "; it is left out")
		return
	}
	f.log.Warn(absence + "; it is optional and left out")
}
