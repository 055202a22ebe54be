# For `vaultexec rotate` and `vaultexec set` from a schedule: new values for existing secrets.
#
# "patch" changes one key and keeps the others; "read" lets rotate verify what it wrote, and refuse keys that do not exist.
# Without "read" (write-only) it still works, and says "not verified (no read)".
# `vaultexec rollback` works with it, too: it reads the old version, and patches what differs. Over a deleted version it would take
# "update".
path "agenticverz/data/*" {
  capabilities = ["read", "patch"]
}
