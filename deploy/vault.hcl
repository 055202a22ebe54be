# Vault for production: /etc/vault.d/vault.hcl. Raft storage, TLS, telemetry, and what unsealing can be left to.

# --- storage -------------------------------------------------------------------------------------------------------------
# Raft keeps the data with Vault itself: nothing else to run, snapshots by API (deploy/backup). Three or five nodes make a
# cluster; each has a node_id of its own and joins the others.
storage "raft" {
  path    = "/var/lib/vault"
  node_id = "vault-1"
  # The default of 5 is for small machines: a leader that is lost is then replaced in ten seconds and more, in place of two.
  performance_multiplier = 1

  # retry_join {
  #   leader_api_addr     = "https://vault-2.example:8200"
  #   leader_ca_cert_file = "/etc/vault.d/tls/ca.pem"
  # }
}

# --- who may talk to it -----------------------------------------------------------------------------------------------------
listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_cert_file   = "/etc/vault.d/tls/cert.pem"
  tls_key_file    = "/etc/vault.d/tls/key.pem"
  tls_min_version = "tls12"
  # A renewed certificate is read on SIGHUP, without a restart (and so without unsealing).

  # Behind a load balancer: whose X-Forwarded-For counts as the client's address, in the audit log and for bound CIDRs.
  # x_forwarded_for_authorized_addrs = ["10.0.0.0/8"]

  telemetry {
    # Prometheus then needs no token. The figures hold no secret, but paths of mounts; keep the port inside.
    unauthenticated_metrics_access = true
  }
}

# What other nodes and redirected clients are told. vaultexec follows no redirect: give it the load balancer's address.
api_addr     = "https://127.0.0.1:8200"
cluster_addr = "https://127.0.0.1:8201"

# --- unsealing -----------------------------------------------------------------------------------------------------------------
# Without a seal stanza Vault is unsealed with key shares (Shamir), by people, after every restart:
#   vaultexec unseal --keys-file FILE, or a share each at its prompt.
# No machine can then open the storage by itself. It also means that a crash at night is an outage until somebody comes.
#
# Auto-unseal hands the root key to a service that Vault asks at its start. Whoever controls that service, or the machine's
# identity towards it, can open the storage; if the service is gone for good, so is the data: no recovery key helps. Choose
# the one that is at least as well guarded as Vault, and known to be there when Vault starts. `operator init` then gives
# recovery keys, which authorize things but unseal nothing. Changing from one kind to another is a seal migration.
#
# A cloud's KMS: the key never leaves it. Credentials come from the machine's role, not from this file.
# seal "awskms" {
#   region     = "eu-central-1"
#   kms_key_id = "alias/vault-unseal"
# }
# seal "gcpckms" {
#   project = "…", region = "…", key_ring = "vault", crypto_key = "unseal"
# }
# seal "azurekeyvault" {
#   vault_name = "…", key_name = "vault-unseal"
# }
#
# Another Vault's transit engine: no cloud; that other Vault has to be unsealed by somebody, and up first.
# seal "transit" {
#   address     = "https://vault-unseal.example:8200"
#   key_name    = "vault-unseal"
#   mount_path  = "transit/"
#   # token from VAULT_TOKEN in the unit's environment file, periodic, with encrypt and decrypt on that one key
# }

# --- what it tells -------------------------------------------------------------------------------------------------------------
# Who did what: the audit device is enabled by deploy/bootstrap, in Vault's storage. OpenBao takes it from this file only:
# audit "file" "file" { options = { file_path = "/var/log/vault/audit.log" } }
# When no audit device can be written to, Vault answers nothing: watch the disk, rotate the file and send SIGHUP.
telemetry {
  prometheus_retention_time = "24h"
  disable_hostname          = true
}
log_level  = "info"
log_format = "json"

# --- memory ---------------------------------------------------------------------------------------------------------------------
# Raft maps its file into memory, which mlock would pin as a whole. Switch swap off, or encrypt it.
disable_mlock = true
ui            = false

# Tokens that nobody gives back end by themselves. vaultexec gives its own back, and renews them while it watches.
default_lease_ttl = "1h"
max_lease_ttl     = "24h"
