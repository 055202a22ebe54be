package vaulttest

import (
	"context"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/pgtest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Vault makes roles in a real PostgreSQL, which live as long as their lease: on a dev server and on one that is killed.
func TestPostgres(t *testing.T) {
	t.Parallel()
	needs.Program(t, "postgres")
	needs.Program(t, "initdb")
	p := NewPostgres(t)
	for name, start := range map[string]func(TB, string) *Server{"dev": NewDevWithPlugin, "raft": RaftWithPlugin} {
		t.Run(name, func(t *testing.T) {
			s := start(t, PostgresPlugin)
			s.MountPostgres(t, "db", p)
			s.PostgresRole(t, "db", "app", time.Hour, 2*time.Hour)
			if name == "raft" {
				s.Kill()
				s.Restart(t)
				s.Unseal(t)
			}
			out := s.Must(t, "GET", "db/creds/app", nil)
			user, password := text(out, "data", "username"), text(out, "data", "password")
			Secret(password)
			ask := func(password string) error {
				_, err := pgtest.Query(context.Background(),
					pgtest.Login{Addr: p.Addr, User: user, Password: password, Database: "postgres"}, "select 1")
				return err
			}
			if err := ask(password); err != nil {
				t.Fatal(err)
			}
			if err := ask("wrong"); pgtest.Code(err) != pgtest.InvalidPassword {
				t.Errorf("a wrong password: %v", err)
			}
			p.Stop()
			if err := ask(password); err == nil || pgtest.Code(err) != "-" {
				t.Errorf("a stopped server: %v", err)
			}
			p.Start(t)
			s.Must(t, "PUT", "sys/leases/revoke", map[string]string{"lease_id": text(out, "lease_id")})
			wait.Until(t, startLimit, "the role to be gone", func() bool {
				return len(p.Query(t, "select from pg_roles where rolname = '"+user+"'")) == 0
			})
			if err := ask(password); pgtest.Code(err) != pgtest.InvalidPassword {
				t.Errorf("a role that is gone: %v", err)
			}
		})
	}
}
