# What a program needs whose secrets vaultexec fetches: to read them, no more. It can neither list nor change anything.
path "agenticverz/data/app-prod" {
  capabilities = ["read"]
}
path "agenticverz/data/database" {
  capabilities = ["read"]
}

# --watch looks at the metadata, which is small, and only then at the values. Without these two it reads the values each time.
path "agenticverz/metadata/app-prod" {
  capabilities = ["read"]
}
path "agenticverz/metadata/database" {
  capabilities = ["read"]
}
