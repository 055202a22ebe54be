package launcher

import (
	"context"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Read reads what a run would read, except for leased secrets, with a client that is logged in.
func Read(ctx context.Context, client *vault.Client, o Options) ([]environ.Fetched, error) {
	l := &launch{Options: o}
	f := &fetcher{client: client, sources: o.Sources, mountIsDefault: o.MountIsDefault, log: o.Log, made: &l.made,
		opt: vault.ReadOptions{KVVersion: o.KVVersion, NoLease: true}}
	return f.fetch(ctx, l.patience(time.Now()))
}
