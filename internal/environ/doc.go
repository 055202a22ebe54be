// Package environ makes an environment of secrets. Build is pure: the same secrets, rules and inherited variables give
// the same environment, or the same failures.
//
// A Source is what the command line names: a --path, or a reference in --env or in a variable (reference.go). Whoever
// reads the secrets pairs each source with its secret. Build (env.go) decides about names and collisions, about values
// that the kernel would not take, and about names that no secret may set (dangerous.go). It takes the credentials for
// Vault out of what the command inherits (credentials.go). A FileSpec says what --file asks for (file.go) and who may
// read it (access.go). Package launcher writes the files themselves.
//
// Nothing here opens a file, starts a program, waits or asks for the time. A test holds that.
package environ
