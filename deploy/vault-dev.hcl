# Vault for a developer's machine: one node, no TLS, on loopback. It keeps its data, unlike `vault server -dev`, so that
# unsealing, rotation and backup can be tried as they are in production. Start it with
#
#   mkdir -p data && vault server -config vault-dev.hcl
#   VAULT_ADDR=http://127.0.0.1:8200 ./bootstrap

storage "raft" {
  path    = "./data"
  node_id = "dev"

  performance_multiplier = 1 # unsealed and ready in a second or two, in place of ten
}

listener "tcp" {
  # In the container of compose.yaml the environment makes it 0.0.0.0, in a network that only the two containers share.
  address     = "127.0.0.1:8200"
  tls_disable = true
}

api_addr     = "http://127.0.0.1:8200"
cluster_addr = "https://127.0.0.1:8201"

# Raft and mlock do not go together (the data file is mapped into memory); what keeps keys out of swap is a machine without
# swap, or with an encrypted one.
disable_mlock = true
ui            = true
