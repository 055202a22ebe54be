#!/bin/sh
# Once, by somebody who administers both: psql gets into the database as a superuser (PGHOST, PGPORT, PGUSER, PGPASSWORD),
# and vault is logged in. Vault makes a login of its own for every start of the program, and drops it afterwards.
set -eu
cd "$(dirname "$0")"
url="postgresql://{{username}}:{{password}}@${PGHOST:-localhost}:${PGPORT:-5432}/${PGDATABASE:-postgres}?sslmode=${PGSSLMODE:-require}"

# What the program may do belongs to the group app; grant it what yours needs. Vault's own login may add members to that
# group, and nothing else. The password comes by standard input, so that no list of processes shows it.
password=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
psql -Xq -v ON_ERROR_STOP=1 <<SQL
create role app nologin;
grant select on all tables in schema public to app;
create role vault login createrole password '$password';
grant app to vault with admin option;
SQL

vault secrets enable database
printf %s "$password" | vault write database/config/app-db plugin_name=postgresql-database-plugin \
	allowed_roles=app connection_url="$url" username=vault password=-
vault write -f database/rotate-root/app-db # from now on only Vault knows that password

vault write database/roles/app db_name=app-db default_ttl="${TTL:-1h}" max_ttl="${MAX_TTL:-24h}" \
	creation_statements="CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE app" \
	revocation_statements='DROP ROLE IF EXISTS "{{name}}"'
vault policy write app-db policy.hcl
