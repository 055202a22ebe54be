path "database/creds/app" { capabilities = ["read"] }
path "sys/leases/renew"   { capabilities = ["update"] }
path "sys/leases/revoke"  { capabilities = ["update"] } # at once when the program ends, not when the lease does
path "sys/leases/lookup"  { capabilities = ["update"] } # with --watch: notice a lease that somebody revoked
