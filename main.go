// Command vaultexec starts a program with secrets from HashiCorp Vault in its environment.
package main

func main() {}
