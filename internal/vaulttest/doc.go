// Package vaulttest starts real Vault servers for tests, the demo and the benchmarks, and administers them.
//
// It talks to Vault by net/http alone and shares no code with the product, so that it cannot hide the product's bugs.
//
// A test that needs just a Vault asks for the server that all tests of its binary share, and takes a corner of it:
//
//	func TestMain(m *testing.M) { vaulttest.Main(m) }
//
//	srv := vaulttest.Dev(t)
//	sc := srv.Scope(t)
//	mount := sc.Mount(2)
//	srv.PutKV(t, mount, "app-prod", map[string]any{"API_KEY": vaulttest.Canary("key")})
//	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{sc.ReadPolicy(mount, "app-prod")}})
//
// A test that seals, stops or kills its server takes one of its own: NewDev, Raft, or Cluster for three nodes. NewProxy
// stands in front of a server and misbehaves on demand.
//
// What is a secret here is new in every run and known to Redact, so that the output of a failing test can be cleaned.
package vaulttest
