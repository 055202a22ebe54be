package e2e

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// errorCase is a command line that fails.
type errorCase struct {
	line    string
	under   string // requests below this are answered by
	answers vaulttest.Behaviour
	raw     bool // under is a path as it is, not of the mount's data
}

func usageCases() []errorCase {
	return lines(`
vaultexec
vaultexec --pth app -- true
vaultexec --path
vaultexec --path app true
vaultexec chek --path app
vaultexec --path app word -- true
vaultexec --=app -- true
vaultexec --path app --
vaultexec --upcase=perhaps --path app -- true
vaultexec --wait soon --path app -- true
vaultexec --kv-version 3 --path app -- true
vaultexec --only '[' --path app -- true
vaultexec --prefix 1 --path app -- true
vaultexec --require 'A B' --path app -- true
vaultexec --stop-signal SIGFOO --path app -- true
vaultexec --chdir /no/such/folder --path app -- true
vaultexec --path app --file A,mode=4400 --file B,mode=0666 -- true
vaultexec --path app --file A,owner=no-such-user -- true
vaultexec --path app --file A,owner= -- true
vaultexec --ok-exit 300 --ok-exit 4 --ok-exit 4=1 --path app -- true
vaultexec --supervise --replace --path app -- true
vaultexec --listen 8000 --listen x --listen ::1:80 --listen http://x:80 --listen a.b=:80 --listen '[x]:80' --listen :0 --listen '*:80' --listen /run/x --path app -- true
vaultexec --listen unix:x --listen unix:@x --listen unix:/x/ --listen unix:/x,mode=9 --listen unix:/$(printf %0107d 0) --path app -- true
vaultexec --listen web=:8000 --listen WEB=:8001 --listen :8000 --path app -- true
vaultexec --listen 192.0.2.1:8000 --listen name.invalid:8000 --listen '[fe80::1%none]:8000' --path app -- true
vaultexec --listen unix:$PWD/missing/s --listen unix:$PWD/empty --path app -- true
vaultexec --listen ${VAULT_ADDR#http://} --path app -- true
vaultexec --status 9100 --path app -- true
vaultexec --status web=:9641 --max-age 1m --path app -- true
vaultexec --max-age soon --watch --path app -- true
vaultexec --max-age 1m --watch --path app -- true
vaultexec --status 127.0.0.1:9641 --watch --max-age 30s --path app -- true
vaultexec --status :9641 --listen :9641 --allow-http --path app -- true
vaultexec --status 127.0.0.1:9641 --replace --path app -- true
vaultexec --status ${VAULT_ADDR#http://} --path app -- true
vaultexec --status unix:$PWD/missing/s --path app -- true
vaultexec --quiet --log-level debug --path app -- true
vaultexec ps
vaultexec ps nowhere
vaultexec ps a b
vaultexec ps 127.0.0.1:1
vaultexec ps unix:$PWD/missing/s
vaultexec ps ${VAULT_ADDR#http://}
vaultexec --ready soon --restart-order start-first --replace --path app -- true
vaultexec --ready http:healthz --ready-timeout 0 --path app -- true
vaultexec --ready 'http:/a b' --ready-address 9000 --path app -- true
vaultexec --ready after:soon --ready-address web=:9000 --path app -- true
vaultexec --ready after:2m --path app -- true
vaultexec --ready http:/healthz --listen unix:/run/x --path app -- true
vaultexec --ready notify --ready-address :9000 --path app -- true
vaultexec --ready notify --pass-notify --path app -- true
vaultexec --ready exec:/no/such --path app -- true
vaultexec --watch --on-change-hook /no/such --path app -- true
vaultexec --ready exec:no-such-program --path app -- true
vaultexec --restart-order both --path app -- true
vaultexec --restart-lock api --path app -- true
vaultexec --restart-lock etcd:api --path app -- true
vaultexec --restart-lock consul: --path app -- true
vaultexec --restart-lock consul://127.0.0.1:8500/api --path app -- true
vaultexec --restart-lock 'consul:a b' --restart-limit 0 --path app -- true
vaultexec --restart-lock kubernetes:Api --restart-limit many --path app -- true
vaultexec --restart-lock kubernetes:a/b/c --path app -- true
vaultexec --restart-lock kubernetes:api --path app -- true
vaultexec --restart-lock consul:api --replace --path app -- true
vaultexec --restart-lock consul:api --canary --no-rollback --path app -- true
vaultexec --restart-lock consul:api --canary --on-change exit --path app -- true
vaultexec --restart-lock consul:api --canary --probation 0 --path app -- true
vaultexec --canary --restart-limit 2 --path app -- true
CONSUL_HTTP_ADDR=127.0.0.1:1 vaultexec check --restart-lock consul:api --restart-limit 2 --path app
vaultexec --watch --interval 1ms --path app -- true
vaultexec --watch --on-change perhaps --path app -- true
vaultexec --watch --on-change signal:HUP --path app -- true
vaultexec --env NAME -- true
vaultexec --env 1NAME=app#KEY -- true
vaultexec --env NAME=app -- true
vaultexec --env PATH=app#KEY -- true
vaultexec --env VAULT_TOKEN=app#KEY -- true
vaultexec --path app --names A-B -- true
VAULT_TOKEN= VAULTEXEC_JWT= vaultexec --role ci --path app -- true
vaultexec --path app --names ./missing -- true
vaultexec --env "NAME=app#$(printf '\001')" -- true
vaultexec --path app#KEY -- true
vaultexec --path a//b -- true
vaultexec --path 'app?' -- true
vaultexec --path 'app?a' -- true
vaultexec --path 'app?a=%' -- true
vaultexec --path "app?a=$(printf '\377')" -- true
vaultexec --path "app?a=$(printf '\001')" -- true
vaultexec --path 'app?%01=a' -- true
vaultexec --path 'app?a=b&a=c' -- true
vaultexec --path 'app@3?a=b' -- true
vaultexec --path 'app/*?a=b' -- true
vaultexec rotate 'app?a=b' KEY
vaultexec list 'app?a=b'
vaultexec --path ../sys -- true
vaultexec --path app@99999999999999999999 -- true
vaultexec --path /app -- true
vaultexec --path 'app/*@3' -- true
vaultexec --path '/*' -- true
vaultexec --path 'a//*' -- true
vaultexec --path '/sys/*' -- true
vaultexec --path /etc/passwd /etc/hosts -- true
vaultexec --path sys/x --mount sys -- true
vaultexec --mount a//b --path app -- true
vaultexec --file 1X --path app -- true
vaultexec --file X:rot13 --path app -- true
vaultexec --file X=/run/ --path app -- true
vaultexec --file X --file X --path app -- true
vaultexec --file X=/dev/shm/x --file Y=/dev/shm/x --path app -- true
vaultexec --file-set /dev/shm/x --file X=/dev/shm/y --path app -- true
vaultexec --file-set /dev/shm/x --file X=/dev/shm/x --path app -- true
vaultexec --file-set /dev/shm/x --file-set /dev/shm/x/ --file X=/dev/shm/x/y --path app -- true
vaultexec --file-set / --file X=/y --path app -- true
vaultexec --file LD_PRELOAD --path app -- true
vaultexec --file X --env Y=app#KEY -- true
vaultexec --file KEY=nowhere/x --path app -- true
vaultexec --file KEY=/dev/shm --path app -- true
vaultexec --address ftp://vault --path app -- true
vaultexec --address 'http://%zz' --path app -- true
vaultexec --ca-cert missing.pem --path app -- true
vaultexec --ca-cert not-pem --path app -- true
vaultexec --client-cert missing.pem --path app -- true
VAULT_HEADERS=x vaultexec --path app -- true
VAULT_PROXY_ADDR='%' vaultexec --path app -- true
vaultexec --auth magic --path app -- true
VAULT_TOKEN= vaultexec --role app --path app -- true
VAULT_TOKEN= vaultexec --username ada --path app -- true
VAULT_TOKEN= vaultexec --role-id x --jwt-file y --path app -- true
vaultexec --auth approle --path app -- true
VAULT_TOKEN= vaultexec --role-id x --secret-id-file f --wrapped-secret-id-file g --path app -- true
vaultexec --auth kubernetes --path app -- true
vaultexec --auth jwt --role app --path app -- true
vaultexec --auth gcp --gcp-type gke --path app -- true
vaultexec --auth gcp --gcp-type iam --role app --path app -- true
VAULT_TOKEN= vaultexec --gcp-type gce --gcp-credentials-file empty --role app --path app -- true
vaultexec --auth gcp --gcp-credentials-file missing --role app --path app -- true
vaultexec --auth gcp --gcp-credentials-file open-token --role app --path app -- true
vaultexec --auth gcp --gcp-credentials-file empty --role app --path app -- true
vaultexec --auth gcp --gcp-credentials-file not-pem --role app --path app -- true
GOOGLE_APPLICATION_CREDENTIALS=adc vaultexec --auth gcp --role app --path app -- true
vaultexec --auth gcp --gcp-credentials-file gcp-no-email --role app --path app -- true
vaultexec --auth gcp --gcp-credentials-file gcp-no-kid --role app --path app -- true
vaultexec --auth gcp --gcp-credentials-file gcp-no-key --role app --path app -- true
vaultexec --auth gcp --gcp-credentials-file gcp-bad-key --role app --path app -- true
GCE_METADATA_HOST=http://x/ vaultexec --auth gcp --role app --path app -- true
GCE_METADATA_HOST=127.0.0.1:1 vaultexec --auth gcp --role app --path app -- true
vaultexec --auth azure --path app -- true
vaultexec --auth azure --azure-resource= --role app --path app -- true
vaultexec --auth azure --azure-resource-id web-1 --role app --path app -- true
AZURE_POD_IDENTITY_AUTHORITY_HOST=x vaultexec --auth azure --role app --path app -- true
AZURE_POD_IDENTITY_AUTHORITY_HOST=http://127.0.0.1:1 vaultexec --auth azure --role app --path app -- true
AZURE_FEDERATED_TOKEN_FILE=two vaultexec --auth azure --role app --path app -- true
AZURE_FEDERATED_TOKEN_FILE=two AZURE_TENANT_ID=a/b vaultexec --auth azure --role app --path app -- true
AZURE_FEDERATED_TOKEN_FILE=two AZURE_TENANT_ID=t vaultexec --auth azure --role app --path app -- true
AZURE_FEDERATED_TOKEN_FILE=two AZURE_TENANT_ID=t AZURE_CLIENT_ID=c AZURE_AUTHORITY_HOST=http://x vaultexec --auth azure --role app --path app -- true
AZURE_FEDERATED_TOKEN_FILE=missing AZURE_TENANT_ID=t AZURE_CLIENT_ID=c vaultexec --auth azure --role app --path app -- true
IDENTITY_ENDPOINT=http://x vaultexec --auth azure --role app --path app -- true
IDENTITY_ENDPOINT=x IDENTITY_HEADER=x vaultexec --auth azure --role app --path app -- true
IDENTITY_ENDPOINT=http://x IMDS_ENDPOINT=http://x vaultexec --auth azure --role app --path app -- true
IDENTITY_ENDPOINT=https://x IDENTITY_HEADER=x IDENTITY_SERVER_THUMBPRINT=x vaultexec --auth azure --role app --path app -- true
vaultexec --auth cert --path app -- true
vaultexec --auth aws --aws-region eu.example --path app -- true
AWS_EC2_METADATA_DISABLED=true vaultexec --auth aws --path app -- true
AWS_EC2_METADATA_DISABLED=true HOME= vaultexec --auth aws --path app -- true
AWS_ACCESS_KEY_ID=x vaultexec --auth aws --path app -- true
AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY='y z' vaultexec --auth aws --path app -- true
AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y AWS_REGION=eu.example vaultexec --auth aws --path app -- true
AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y AWS_ENDPOINT_URL=sts vaultexec --auth aws --path app -- true
AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y VAULTEXEC_AWS_SERVER_ID='ä' vaultexec --auth aws --path app -- true
AWS_WEB_IDENTITY_TOKEN_FILE=two-words vaultexec --auth aws --path app -- true
AWS_WEB_IDENTITY_TOKEN_FILE=two-words AWS_ROLE_ARN=x vaultexec --auth aws --path app -- true
AWS_WEB_IDENTITY_TOKEN_FILE=missing AWS_ROLE_ARN=x vaultexec --auth aws --path app -- true
AWS_WEB_IDENTITY_TOKEN_FILE=not-pem AWS_ROLE_ARN=x AWS_ENDPOINT_URL_STS=$VAULT_ADDR vaultexec --auth aws --path app -- true
AWS_WEB_IDENTITY_TOKEN_FILE=not-pem AWS_ROLE_ARN=x AWS_ENDPOINT_URL_STS=http://127.0.0.1:1 vaultexec --auth aws --path app -- true
AWS_PROFILE=prod vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=open-token vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws AWS_PROFILE=half vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=sso vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=runs vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=second-factor vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=no-role vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=both vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=nowhere vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=empty-source vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=odd-source vaultexec --auth aws --path app -- true
AWS_CONFIG_FILE=aws-profiles AWS_PROFILE=task vaultexec --auth aws --path app -- true
AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=x vaultexec --auth aws --path app -- true
AWS_CONTAINER_CREDENTIALS_FULL_URI=ftp://127.0.0.1/ vaultexec --auth aws --path app -- true
AWS_CONTAINER_CREDENTIALS_FULL_URI=http://10.0.0.1/ vaultexec --auth aws --path app -- true
AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:1/ vaultexec --auth aws --path app -- true
AWS_CONTAINER_CREDENTIALS_FULL_URI=$VAULT_ADDR/x vaultexec --auth aws --path app -- true
AWS_CONTAINER_CREDENTIALS_FULL_URI=$VAULT_ADDR/x AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=empty vaultexec --auth aws --path app -- true
AWS_EC2_METADATA_SERVICE_ENDPOINT=x vaultexec --auth aws --path app -- true
AWS_EC2_METADATA_SERVICE_ENDPOINT=$VAULT_ADDR vaultexec --auth aws --path app -- true
AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1 vaultexec --auth aws --path app -- true
vaultexec --auth ldap --path app -- true
vaultexec --auth ldap --username ada/x --password-file p --path app -- true
vaultexec --auth ldap --username ada --path app -- true
vaultexec --auth okta --username ada --path app -- true
vaultexec --auth radius --path app -- true
vaultexec --auth github --path app -- true
vaultexec --auth oidc --path app -- true
vaultexec --auth oidc --oidc-port 0 --path app -- true
vaultexec login --auth agent
vaultexec login --auth magic
vaultexec login word
vaultexec login --path app
vaultexec login
VAULT_ADDR=nowhere vaultexec logout
vaultexec login --auth oidc --oidc-port x
vaultexec login --auth oidc --oidc-port ${VAULT_ADDR##*:}
HOME= vaultexec login --token-file holds-key
HOME=$PWD/missing vaultexec login --token-file holds-key
HOME=$PWD/open vaultexec login --token-file two-words
mkdir -p h/.vault-token && HOME=$PWD/h vaultexec login --token-file keys-brace
VAULT_CONFIG_PATH=helper-relative vaultexec login --token-file keys-brace
VAULT_CONFIG_PATH=helper-relative vaultexec logout
vaultexec logout --token-file missing
vaultexec --token-file missing --path app -- true
vaultexec --token-file open-token --path app -- true
vaultexec --token-file open/token --path app -- true
vaultexec --config open-token --path app -- true
vaultexec --allow-owner nobody-of-that-name --path app -- true
vaultexec --file KEY=open/key --allow-disk --path app -- true
vaultexec --token-file empty --path app -- true
vaultexec --token-file two-words --path app -- true
vaultexec --token-file large --path app -- true
vaultexec --auth userpass --username ada --password-file empty --path app -- true
VAULT_TOKEN= vaultexec --path app -- true
VAULT_TOKEN= HOME= vaultexec --path app -- true
VAULT_TOKEN= VAULT_CONFIG_PATH=not-hcl vaultexec --path app -- true
VAULT_TOKEN= VAULT_CONFIG_PATH=helper-relative vaultexec --path app -- true
VAULT_TOKEN= VAULT_CONFIG_PATH=helper-missing vaultexec --path app -- true
VAULT_TOKEN= VAULT_CONFIG_PATH=helper-fails vaultexec --path app -- true
VAULT_TOKEN= VAULT_CONFIG_PATH=helper-killed vaultexec --path app -- true
VAULT_TOKEN= VAULT_CONFIG_PATH=helper-silent vaultexec --path app -- true
VAULTEXEC_ENV='A=x,${app#KEY}' vaultexec -- true
A=vault:login vaultexec --resolve-env -- true
vaultexec --path app -- no-such-program
vaultexec --path app -- 'sh -c true'
vaultexec --path app -- KEY=value sh
vaultexec --path app -- cd /
vaultexec --path app -- -x
vaultexec --path app -- ''
vaultexec --path app -- ./not-pem
vaultexec --path app -- ./no-shebang
vaultexec --path app -- ./no-interpreter
vaultexec --path app -- ./dos-script
vaultexec --path app -- ./interpreter-denied
vaultexec check word
vaultexec help xyzzy
vaultexec help rottate
vaultexec help --intervall
vaultexec help certainly not
vaultexec completion tcsh
vaultexec install
vaultexec install missing/x
vaultexec install not-pem/x
vaultexec install /dev/null
ln -s not-pem link && vaultexec install link
vaultexec install /proc
vaultexec completion bash fish
vaultexec completion bash --dry-run
vaultexec completion install tcsh
vaultexec completion install
vaultexec help scan >/dev/full
vaultexec scan --path app - </dev/null
SHELL=/bin/tcsh vaultexec completion install
HOME= vaultexec completion install fish
HOME=here vaultexec completion install fish
HOME=$PWD/nowhere vaultexec completion install fish
XDG_CONFIG_HOME=$PWD/not-pem vaultexec completion install fish
mkdir -m 777 o && BASH_COMPLETION_USER_DIR=$PWD/o vaultexec completion install bash
vaultexec get
vaultexec get a b
vaultexec get --watch app
vaultexec get --path app
vaultexec --watch get app
vaultexec get --reveal app
vaultexec get --versions app@1
vaultexec rotate app KEY --xyz
vaultexec rotate app@1 KEY
vaultexec rotate app ''
vaultexec rotate app KEY x --length 9
vaultexec rotate app KEY --raw
vaultexec rotate app KEY x --from-file not-pem
vaultexec rotate app KEY --from-file missing
vaultexec rotate app KEY --from-file empty
vaultexec rotate app KEY --from-file latin1
vaultexec rotate app KEY --from-file nul
vaultexec rotate app KEY --from-file large-value
vaultexec rotate app KEY --length 1
vaultexec rotate app KEY --length 9 --charset hex
vaultexec rotate app KEY --length 9 --charset uuid
vaultexec rotate app KEY - <.
vaultexec diff app
vaultexec diff env env
vaultexec diff file: app
vaultexec diff a//b app#KEY
vaultexec diff app missing.env
vaultexec diff app ./dotenv-bad
vaultexec diff app ./references
vaultexec diff ./dotenv app --dialect node --expand
vaultexec rollback app@1
vaultexec rollback 'app?a=b'
vaultexec rollback app --to x --key ''
vaultexec set app@1 KEY=@dotenv
vaultexec set app </dev/null
vaultexec set app KEY </dev/null
vaultexec set app KEY=x OTHER=@missing - A=@dotenv A=@dotenv =@dotenv
vaultexec set app KEY=- OTHER=- --delete '' </dev/null
vaultexec set app KEY=- <.
vaultexec set app KEY=@latin1
vaultexec set app KEY=@empty
vaultexec set app --delete KEY --raw
vaultexec import x
vaultexec import app missing
vaultexec import app missing --dialect node --expand
vaultexec import app dotenv-bad
vaultexec import app references
vaultexec import app empty
vaultexec import app huge
vaultexec import app@1 dotenv
vaultexec --mask --mask-min 0 --path app -- true
vaultexec --watch --refresh-signal KILL --path app -- true
vaultexec --profile dev -- true
vaultexec --config config --profile prod -- true
vaultexec --config missing -- true
vaultexec --config large -- true
vaultexec --config config-bad -- true
vaultexec --env NAME='${app#KEY' -- true
vaultexec --env NAME='a$${b' -- true
vaultexec --env NAME='${app#KEY|upper}' -- true
A='>>vault:app#KEY' vaultexec --resolve-env -- true
A=vault:v1:abcd vaultexec --resolve-env -- true
A=vault:app vaultexec --resolve-env -- true
vaultexec --env-file missing -- true
vaultexec --env-file dotenv-bad -- true
vaultexec --address http://vault:8200/v1 --path app -- true
vaultexec import dotenv --map x
vaultexec import dotenv --map 'Z*=app'
vaultexec unseal --keys-file missing
vaultexec fallback
vaultexec fallback show
vaultexec fallback make x
vaultexec fallback key two
vaultexec fallback key nowhere/key
vaultexec fallback show two
vaultexec fallback show nowhere
vaultexec fallback show keys-folder
vaultexec --fallback copy --path app -- true
vaultexec --fallback nowhere/copy --fallback-key-file two --path app -- true
vaultexec --fallback copy --fallback-key-file two --path app -- true
vaultexec --fallback /tmp/copy --fallback-key-file two --path app -- true
vaultexec --fallback /tmp/copy --fallback-key-file two --fallback-max-age 0s --path app -- true
vaultexec --fallback-key-file two --path app -- true
vaultexec unseal --keys-file keys-brace
vaultexec unseal --keys-file open-keys
vaultexec unseal --keys-file keys-none
vaultexec unseal --keys-file keys-bad
vaultexec unseal --keys-file keys-json
vaultexec unseal --keys-file keys-recovery
vaultexec unseal --address http://vault.invalid:8200 --keys-file keys-none
vaultexec scan
vaultexec scan --path app a b
vaultexec scan --path app missing
vaultexec scan --path app not-pem
vaultexec scan --path app --history -
vaultexec scan --path app --staged --history
vaultexec scan --path app --json --sarif
`)
}

func vaultCases() []errorCase {
	list := lines(`
vaultexec --path nothing -- true
vaultexec --path denied -- true
vaultexec --path app@9 -- true
vaultexec --path deleted -- true
vaultexec --path destroyed -- true
vaultexec --path 'nothing/*' -- true
vaultexec --path 'gone/*' -- true
vaultexec --path 'nest/*' -- true
vaultexec --path '/transit/*' -- true
vaultexec --path '/nomount/*' -- true
VAULT_TOKEN=$DENIED_TOKEN vaultexec --path '*' -- true
vaultexec --path /other/x -- true
vaultexec --path /nomount/a/b -- true
vaultexec --path /v1/app@2 -- true
vaultexec --path /cubbyhole/x -- true
vaultexec --env X=app#KE -- true
vaultexec --env X=app#KEY.x -- true
vaultexec --env X=nested#db.pasword --env Y=nested#hosts.2 -- true
vaultexec --path app --path same -- true
vaultexec --path app --require KEYS --require PORT -- true
vaultexec --path bad-name -- true
vaultexec --path nul -- true
vaultexec --path null -- true
vaultexec --path code -- true
vaultexec --path big -- true
vaultexec --path app --file NOT -- true
vaultexec --path app --file KEY:base64 -- true
vaultexec --path file-clash --file KEY -- true
vaultexec check --path nothing
vaultexec get app#KE
vaultexec get /transit/x
vaultexec --path 'app?a=b' -- true
vaultexec --path '/transit/cache-config?size=9' -- true
vaultexec --path '/transit/random?bites=9' -- true
vaultexec get /transit/cache-config
vaultexec get --versions /v1/app
vaultexec list nothing
vaultexec list /transit
vaultexec diff dotenv app
vaultexec diff app deleted
vaultexec diff app /transit/cache-config
vaultexec rotate nothing KEY
vaultexec rotate app KE
vaultexec rotate deleted KEY
vaultexec set nothing KEY=@dotenv
vaultexec set app KE=@dotenv NEW=@dotenv
vaultexec set app KEY=@dotenv --delete KE
vaultexec set deleted KEY=@dotenv OTHER=@dotenv
vaultexec set agenticverz/fresh KEY=@dotenv --create
vaultexec rollback nothing
vaultexec rollback app
vaultexec rollback deleted
vaultexec rollback deleted --key KEY
vaultexec rollback deleted --to 1
vaultexec rollback destroyed --to 1
vaultexec rollback app --to 9
vaultexec rollback app --to 1 --key KE
vaultexec rollback app --to 1 --key OTHER
vaultexec rollback /v1/app
vaultexec import deleted dotenv
vaultexec import app dotenv
vaultexec import agenticverz/fresh dotenv
vaultexec import fresh dotenv --write-references dotenv
vaultexec import two --mount team/kv --map A=app --map B=/team/kv/app
vaultexec get --reveal null#KEY
vaultexec scan --path same
vaultexec scan --path app - <holds-key
vaultexec scan --path app - <.
vaultexec scan --path app --history
mkdir -p bare/objects bare/refs && echo x >bare/HEAD && vaultexec scan --path app bare
vaultexec scan --path app --staged bare
ulimit -s 512; vaultexec --path wide -- true
VAULT_TOKEN=$DENIED_TOKEN vaultexec import app dotenv
VAULT_TOKEN=$DENIED_TOKEN vaultexec rollback app
VAULT_TOKEN=$DENIED_TOKEN vaultexec list
VAULT_TOKEN=hvs.wrong vaultexec --path app -- true
VAULT_TOKEN=hvs.wrong vaultexec status
VAULT_TOKEN= VAULTEXEC_WRAPPED_TOKEN=hvs.wrong vaultexec --path app -- true
VAULT_TOKEN= VAULTEXEC_PASSWORD=x vaultexec --auth userpass --username ada --path app -- true
VAULT_TOKEN= VAULTEXEC_ROLE_ID=x VAULTEXEC_SECRET_ID=y vaultexec --path app -- true
VAULTEXEC_PASSWORD=x vaultexec login --auth userpass --username ada
VAULTEXEC_GITHUB_TOKEN=x vaultexec login --auth github
VAULTEXEC_PASSWORD=x vaultexec login --auth okta --username ada
vaultexec login --auth oidc --no-browser --oidc-port $LOGIN_PORT
vaultexec login --token-file keys-brace
VAULT_CONFIG_PATH=helper-refuses vaultexec login --token-file good-token
VAULT_CONFIG_PATH=helper-refuses VAULT_ADDR=http://127.0.0.1:1 vaultexec logout
VAULT_CONFIG_PATH=helper-refuses vaultexec logout
VAULT_ADDR=http://127.0.0.1:1 vaultexec --path app -- true
VAULT_ADDR=https${VAULT_ADDR#http} vaultexec --path app -- true
`)
	const read = "vaultexec --path app -- true"
	for _, a := range []errorCase{
		{read, "app", vaulttest.Errors(503, "Vault is sealed"), false},
		{read, "app", vaulttest.Errors(500, "local node not active but active cluster node not found"), false},
		{read, "app", vaulttest.Errors(429, "rate limit quota exceeded"), false},
		{read, "app", vaulttest.Errors(412, "not yet"), false},
		{read, "app", vaulttest.Errors(412, `missing "X-Vault-Request" header`), false},
		{read, "app", vaulttest.Errors(500, "internal error"), false},
		{read, "app", vaulttest.Errors(502, "bad gateway"), false},
		{read, "app", vaulttest.Errors(404, "namespace not found"), false},
		{read, "app", vaulttest.Errors(404, "unsupported path"), false},
		{read, "app", vaulttest.Errors(405, "unsupported operation"), false},
		{read, "app", vaulttest.HTML(200), false},
		{read, "app", vaulttest.HTML(503), false},
		{read, "app", vaulttest.Reset, false},
		{read, "app", vaulttest.Truncate, false},
		{read, "app", vaulttest.Redirect(307, "https://10.0.0.2:8200/v1/x"), false},
		{read, "app", vaulttest.Redirect(307, "https://127.0.0.1:8443/v1/x"), false},
		{read, "app", vaulttest.Answer(307, ""), false},
		{read, "app", vaulttest.Answer(307, "", "Location", "/v1/x"), false},
		{"vaultexec --path /a/b/c -- true", "sys/internal/ui/mounts", vaulttest.Answer(200, `{"data":{"path":"x/","type":"kv"}}`), true},
		{"vaultexec --path /a/b/c -- true", "sys/internal/ui/mounts", vaulttest.Answer(200, `{"data":{"path":"a/","type":"system"}}`), true},
		{read, "app", vaulttest.Answer(200, `{"wrap_info":{"token":"x"},"data":null}`), false},
		{read, "app", vaulttest.Answer(200, `{"data":{"data":"x","metadata":{}}}`), false},
		{"vaultexec --timeout 1s --path app -- true", "app", vaulttest.BlackHole, false},
		{"vaultexec login --auth oidc --oidc-port $LOGIN_PORT", "auth/oidc/oidc/auth_url", vaulttest.Answer(200, `{"data":{"auth_url":""}}`), true},
		{"vaultexec login --auth oidc --oidc-port $LOGIN_PORT", "auth/oidc/oidc/auth_url", vaulttest.Answer(200, `{"data":{"auth_url":"javascript:alert(1)"}}`), true},
		{"vaultexec login --auth oidc --oidc-port $LOGIN_PORT", "auth/oidc/oidc/auth_url", vaulttest.Answer(200, `{"data":{"auth_url":"https://x/","callback_mode":"device"}}`), true},
		{"vaultexec login --auth oidc --oidc-port $LOGIN_PORT", "auth/oidc/oidc/auth_url", vaulttest.Answer(200, `{"data":7}`), true},
		{"vaultexec list", "agenticverz/metadata", vaulttest.Answer(200, `{"data":7}`), true},
		{"vaultexec list /", "sys/internal/ui/mounts", vaulttest.Answer(200, `{"data":7}`), true},
		{"vaultexec get --versions app", "agenticverz/metadata", vaulttest.Answer(200, `{"data":7}`), true},
		{"vaultexec rotate app KEY x", "app", vaulttest.Errors(500, "put failed due to value being too large"), false},
		{"vaultexec status", "sys/seal-status", vaulttest.Answer(200, `{"initialized":true,"sealed":true,"t":3,"n":5,"progress":1,"version":"1.21.0"}`), true},
		{"vaultexec status", "sys/seal-status", vaulttest.Answer(200, `{"initialized":false,"sealed":true,"version":"1.21.0"}`), true},
		{"vaultexec status", "sys/seal-status", vaulttest.HTML(200), true},
	} {
		if !a.raw {
			a.under = "agenticverz/data/" + a.under
		}
		list = append(list, a)
	}
	return list
}

func lines(text string) []errorCase {
	var list []errorCase
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		list = append(list, errorCase{line: line})
	}
	return list
}

// awsProfiles are profiles that cannot be used.
const awsProfiles = `
[profile sso]
sso_session = corp
[profile runs]
credential_process = /usr/bin/true
[profile second-factor]
role_arn = x
source_profile = base
mfa_serial = y
[profile no-role]
source_profile = base
[profile both]
role_arn = x
source_profile = base
credential_source = Environment
[profile nowhere]
role_arn = x
source_profile = nobody
[profile empty-source]
role_arn = x
source_profile = base
[profile odd-source]
role_arn = x
credential_source = Lambda
[profile task]
role_arn = x
credential_source = EcsContainer
[profile base]
`

// errorRig is a Vault and a folder in which everything is that can go wrong.
type errorRig struct {
	dir   string
	env   []string
	proxy *vaulttest.Proxy
	plain *strings.Replacer
}

func newErrorRig(t *testing.T) *errorRig {
	t.Helper()
	srv := vaulttest.NewDev(t) // the texts name the mount
	srv.MountKV(t, "agenticverz", 2)
	srv.MountKV(t, "v1", 1)
	srv.MountKV(t, "team/kv", 2)
	srv.Must(t, "POST", "sys/mounts/transit", map[string]any{"type": "transit"})
	srv.Must(t, "POST", "sys/auth/approle", map[string]any{"type": "approle"})
	srv.Must(t, "POST", "sys/auth/userpass", map[string]any{"type": "userpass"})
	srv.PutKV(t, "v1", "app", map[string]any{"KEY": "1"})
	for path, secret := range map[string]any{
		"app": map[string]any{"KEY": "not base64!", "MODE": "1"}, "same": map[string]any{"KEY": "1"}, "bad-name": map[string]any{"a b": "1", "1": "2"},
		"nul": map[string]any{"KEY": "a\x00b"}, "null": map[string]any{"KEY": nil}, "code": map[string]any{"LD_PRELOAD": "/x.so"},
		"big": map[string]any{"KEY": strings.Repeat("x", 200<<10)}, "deleted": map[string]any{"KEY": "1"}, "destroyed": map[string]any{"KEY": "1"},
		"wide": map[string]any{"A": strings.Repeat("x", 100<<10), "B": strings.Repeat("x", 100<<10)}, "file-clash": map[string]any{"KEY": "1", "KEY_FILE": "2"}, "denied": map[string]any{"KEY": "1"},
		"nested": map[string]any{"db": map[string]any{"password": "1"}, "hosts": []string{"1"}}, "gone/x": map[string]any{"KEY": "1"}, "nest/deep/x": map[string]any{"KEY": "1"},
	} {
		srv.PutKV(t, "agenticverz", path, secret)
	}
	srv.Must(t, "DELETE", "agenticverz/data/deleted", nil)
	srv.Must(t, "DELETE", "agenticverz/data/gone/x", nil)
	srv.Must(t, "PUT", "agenticverz/destroy/destroyed", map[string]any{"versions": []int{1}})
	sc := srv.Scope(t)
	token := srv.Token(t, vaulttest.TokenOpts{NoDefault: true, Policies: []string{sc.Policy(`
path "agenticverz/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "agenticverz/data/denied" { capabilities = ["deny"] }
path "team/kv/*" { capabilities = ["read"] }
path "v1/*" { capabilities = ["read", "list"] }
path "transit/*" { capabilities = ["read", "list"] }`)}})
	denied := srv.Token(t, vaulttest.TokenOpts{NoDefault: true, Policies: []string{sc.Policy(`path "agenticverz/data/app" { capabilities = ["update"] }`)}})
	r := &errorRig{dir: t.TempDir(), proxy: vaulttest.NewProxy(t, srv)}
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"empty": {"", 0o600}, "two-words": {"a b", 0o600}, "large": {strings.Repeat("x", 2<<20), 0o600}, "not-pem": {"x", 0o600},
		"latin1": {"\xe4", 0o600}, "nul": {"a\x00b", 0o600}, "large-value": {strings.Repeat("x", 2<<20), 0o600},
		"not-hcl": {"token_helper = = x", 0o600}, "helper-relative": {`token_helper = "helper"`, 0o600}, "helper-missing": {`token_helper = "/nowhere/helper"`, 0o600},
		"helper-fails": {`token_helper = "DIR/fails"`, 0o600}, "helper-killed": {`token_helper = "DIR/killed"`, 0o600}, "helper-silent": {`token_helper = "DIR/silent"`, 0o600},
		"aws": {"[profile half]\naws_access_key_id = x\n", 0o600}, "aws-profiles": {awsProfiles, 0o600},
		"helper-refuses": {`token_helper = "DIR/refuses"`, 0o600}, "refuses": {"#!/bin/sh\n[ $1 = get ] && cat DIR/good-token && exit\nexit 4\n", 0o700}, "good-token": {token, 0o600},
		"open-token": {"x", 0o600}, "fails": {"#!/bin/sh\nexit 3\n", 0o700}, "killed": {"#!/bin/sh\nkill -KILL $$\n", 0o700}, "silent": {"#!/bin/sh\n", 0o700},
		"no-shebang": {"echo\n", 0o700}, "no-interpreter": {"#!/nowhere/sh\n", 0o700}, "dos-script": {"#!/bin/sh\r\n", 0o700}, "interpreter-denied": {"#!DIR/empty\n", 0o700},
		"dotenv": {"KEY=2\n", 0o600}, "dotenv-bad": {"KEY='x\n", 0o600}, "references": {"KEY=vault:app#KEY\n", 0o600}, "open-keys": {"x", 0o644}, "keys-none": {"\n", 0o600}, "keys-bad": {"!!!\n", 0o600},
		"keys-json": {`{"unseal_keys_b64":["!"]}`, 0o600}, "keys-recovery": {`{"recovery_keys_b64":["` + strings.Repeat("A", 43) + `="]}`, 0o600},
		"adc": {`{"type":"authorized_user"}`, 0o600}, "gcp-no-email": {`{"type":"service_account"}`, 0o600}, "gcp-no-kid": {`{"type":"service_account","client_email":"a@b"}`, 0o600},
		"gcp-no-key": {`{"type":"service_account","client_email":"a@b","private_key_id":"1"}`, 0o600}, "gcp-bad-key": {`{"type":"service_account","client_email":"a@b","private_key_id":"1","private_key":"x"}`, 0o600},
		"holds-key": {"not base64!", 0o600}, "keys-brace": {"{", 0o600}, "config": {"mount: agenticverz\nprofiles: {dev: {}}\n", 0o600}, "config-bad": {"mont: x\ntoken: y\nwait: [1]\n", 0o600}, "two": {"A=1\nB=2\n", 0o600}, "huge": {strings.Repeat("x", 5<<20), 0o600},
	} {
		vaulttest.WriteFile(t, filepath.Join(r.dir, name), strings.ReplaceAll(f.text, "DIR", r.dir), f.mode)
	}
	if err := os.Mkdir(filepath.Join(r.dir, "open"), 0o700); err != nil {
		t.Fatal(err)
	}
	vaulttest.WriteFile(t, filepath.Join(r.dir, "open", "token"), "x", 0o600)
	for name, mode := range map[string]os.FileMode{"open": 0o777, "open-token": 0o602} { // whatever the umask is
		if err := os.Chmod(filepath.Join(r.dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	r.env = []string{"PATH=" + filepath.Dir(vaulttest.BuildStatic(t, ".")) + ":" + os.Getenv("PATH"), "HOME=" + r.dir, "GORACE=" + vaulttest.Gorace, "VAULT_ADDR=" + r.proxy.Addr,
		"VAULT_TOKEN=" + token, "DENIED_TOKEN=" + denied, "VAULTEXEC_MOUNT=agenticverz", "VAULTEXEC_WAIT=0", "LC_ALL=C", "LOGIN_PORT=" + port}
	r.plain = strings.NewReplacer(r.dir, "DIR", strings.TrimPrefix(r.proxy.Addr, "http://"), "127.0.0.1:PORT", "localhost:"+port, "localhost:PORT")
	return r
}

// What is another each time, or on each machine: times, the size of an environment, and the number of a process.
var (
	times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	size  = regexp.MustCompile(`take \d+ bytes`)
	who   = regexp.MustCompile(`process \d+`)
)

// run returns what a case says, in the form of the golden file.
func (r *errorRig) run(t *testing.T, c errorCase) string {
	t.Helper()
	answers := ""
	if c.answers != nil {
		r.proxy.On(vaulttest.Under(c.under), c.answers)
		defer r.proxy.Clear()
		req, err := http.NewRequest("GET", r.proxy.Addr+"/v1/"+c.under, nil)
		if err != nil {
			t.Fatal(err)
		}
		answers = "  (" + c.under + " is answered in another way" + describe(t, req, c.line) + ")"
	}
	cmd := exec.Command("sh", "-c", c.line)
	cmd.Dir, cmd.Env = r.dir, r.env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		t.Errorf("%s: no failure", c.line)
	}
	said := times.ReplaceAllString(size.ReplaceAllString(r.plain.Replace(stderr.String()), "take N bytes"), "TIME")
	said = who.ReplaceAllString(said, "process N")
	return fmt.Sprintf("$ %s%s\n%s[%d]\n", c.line, answers, said, cmd.ProcessState.ExitCode())
}

// describe asks what the answer is, where it is one.
func describe(t *testing.T, req *http.Request, line string) string {
	t.Helper()
	if strings.Contains(line, "--timeout 1s") {
		return ": never"
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return ": cut"
	}
	defer resp.Body.Close()
	var body [80]byte
	n, _ := resp.Body.Read(body[:])
	text, _, _ := strings.Cut(string(body[:n]), "\n")
	return fmt.Sprintf(": %d %s", resp.StatusCode, text)
}

// TestErrors keeps testdata/errors.golden, the set of what goes wrong before a command runs, to be read as a whole: each text
// names what could not be done, why, and what to do about it.
func TestErrors(t *testing.T) {
	t.Parallel()
	r := newErrorRig(t)
	var b strings.Builder
	for _, c := range append(usageCases(), vaultCases()...) {
		got := r.run(t, c)
		if vaulttest.Redact(got) != got {
			t.Fatalf("%s shows a secret", c.line)
		}
		if vaulttest.OpenBao(t) { // whose help counts what may stand in the path among the fields
			got = strings.Replace(got, "it takes: bytes, format, source, urlbytes", "it takes: bytes, format", 1)
		}
		b.WriteString(got + "\n")
		said := strings.Split(strings.TrimSpace(got), "\n")
		said = said[1 : len(said)-1]
		for i, line := range said {
			if !strings.HasPrefix(line, "vaultexec: ") {
				continue // the short usage, a report on standard output
			}
			text := strings.TrimPrefix(line, "vaultexec: ")
			if hint, ok := strings.CutPrefix(text, "hint: "); ok {
				if hint == "" || strings.HasSuffix(hint, ".") {
					t.Errorf("%s: a hint like %q", c.line, hint)
				}
				continue
			}
			// Failures that have the same one share it.
			hinted := slices.ContainsFunc(said[max(i-1, 0):], func(l string) bool { return strings.HasPrefix(l, "vaultexec: hint: ") })
			if !hinted && !selfEvident.MatchString(text) {
				t.Errorf("%s: %q has no hint", c.line, text)
			}
			if strings.HasSuffix(text, ".") || strings.Contains(text, "%!") {
				t.Errorf("%s: a text like %q", c.line, text)
			}
		}
	}
	for line, why := range tooLong(b.String()) {
		t.Errorf("%q %s: what explains or cures belongs into the hint", line, why)
	}
	vaulttest.Golden(t, "testdata/errors.golden", b.String())
}

// columns is how wide the first line of a failure may be, with the names in it. What explains it or cures it is in the hint.
const columns = 100

// wide are the first lines that may be wider, by a part of their text, and why.
var wide = map[string]string{
	"its path has 108 bytes": "the path is too long, and that is the failure",
}

// tooLong returns what is wrong with the width of lines in the form of the golden file.
func tooLong(golden string) map[string]string {
	bad, used := map[string]string{}, map[string]bool{}
	for line := range strings.Lines(golden) {
		line = strings.TrimSuffix(line, "\n")
		n := utf8.RuneCountInString(line)
		if !strings.HasPrefix(line, "vaultexec: ") || strings.HasPrefix(line, "vaultexec: hint: ") || n <= columns {
			continue
		}
		excepted := false
		for part := range wide {
			if strings.Contains(line, part) {
				excepted, used[part] = true, true
			}
		}
		if !excepted {
			bad[line] = fmt.Sprintf("has %d columns, and may have %d", n, columns)
		}
	}
	for part := range wide {
		if !used[part] {
			bad[part] = "is excepted in wide, and no line needs that"
		}
	}
	return bad
}

// TestTooLong is the negative control: columns are characters, a hint may be longer, and a warning may not.
func TestTooLong(t *testing.T) {
	fits := strings.Repeat("–", columns-len("vaultexec: "))
	excepted := "vaultexec: its path has 108 bytes" + fits + "\n"
	for line, bad := range map[string]bool{
		"vaultexec: " + fits: false, "vaultexec: " + fits + "–": true, "vaultexec: hint: " + fits: false, "vaultexec: warning: " + fits: true,
		"$ vaultexec " + fits + fits: false,
	} {
		if got := tooLong(excepted + line + "\n"); (len(got) > 0) != bad || bad && got[line] == "" {
			t.Errorf("%q: %v", line, got)
		}
	}
	if got := tooLong("vaultexec: short\n"); len(got) != len(wide) {
		t.Errorf("exceptions that nothing needs are not noticed: %v", got)
	}
}

// selfEvident are texts whose cause says what to do.
var selfEvident = regexp.MustCompile(`: not (one of|true or false|restart, signal:NAME|a number from)|^warning: |^waiting `)

// undriven are the failures that no command line brings about by itself, by a part of their text, and why they are not in
// the set.
var undriven = map[string]string{
	"cannot tell whether the com": "beside a command: launcher, TestNotReady",
	"the command is not ready af": "beside a command: launcher, TestNotReady",
	"the file does not answer":    "needs a file system or a pipe that hangs (internal/vault, TestCredentialPipe)",
	"cannot ask for":              "needs a terminal that fails",
	"is about to take the lead":   "a moment of a server (internal/vault, TestRedirectToItself)",
	"the answer is longer than":   "needs a hostile server (e2e/process, TestHostileAnswers)",
	"entries in one place":        "needs a hostile server (e2e/process, TestHostileAnswers)",
	"it was not there when the c": "kept and never printed (launcher/fallback.go)",
	"KV version 1 keeps no secre": "needs KV version 1: testdata/scripts/set.txtar",
	"no method":                   "a defect",
	"is still set":                "a defect",
	"the address is not valid":    "a defect: the address was checked",
	"the request cannot be enco":  "a defect",
	"cannot give the file":        "root may give files away: testdata/scripts/file-owner.txtar",
	"cannot mask the output":      "needs a system without terminals",
	"nobody logged in within":     "ten minutes",
	"the provider refused it":     "needs a provider: oidc_test.go",
	"a person would have to do i": "beside a command: oidc_test.go",
	"no .env file takes":          "no path that Vault takes has them",
	"it did not answer within":    "a helper that hangs for a minute: outage_test.go",
	"the session is over":         "nobody is told: the command is being ended",
	"cannot log in again":         "beside a command: watch_test.go",
	"the next try is at":          "beside a command: internal/vault/session_test.go",
	"the token is wrapped":        "completion only, which prints nothing",
	"the wrapping token":          "needs a wrapping token: login_test.go",
	"cannot read the shares":      "a sealed Vault, and an input that fails",
	"is still sealed after":       "a node that does not join: unseal_test.go",
	"more needed":                 "a sealed Vault: unseal_test.go",
	"its latest version is dele":  "a policy of patch alone: rotate_test.go",
	"somebody else changed it at": "a write at the same moment: change_test.go",
	"reads back with another":     "a write that is lost: internal/vault",
	"cannot be read back after":   "a replica that stays behind: internal/vault",
	"which is not mounted here":   "needs a namespace without /proc: e2e/process",
	"one group cannot be told ap": "needs a terminal that is shared",
	"the current folder is gone":  "a folder that is removed under vaultexec's feet",
	"its folder %q was removed":   "beside a command: e2e/process",
	"cannot look into the reposi": "git says why, in its own words: internal/scan, TestHistory",
	"cannot hand over the socket": "needs a limit of descriptors that is reached at the last moment",
	"with --listen vaultexec sta": "other systems than Linux",
	"cannot read vaultexec's own": "root can read it: install_linux_test.go",
}

// TestErrorsAreComplete looks for every place in the sources that makes a failure, and for its text in the set.
func TestErrorsAreComplete(t *testing.T) {
	b, err := os.ReadFile("testdata/errors.golden")
	if err != nil {
		t.Fatal(err)
	}
	set := string(b)
	used := map[string]bool{}
	for _, dir := range []string{"launcher", "internal"} {
		err := filepath.WalkDir(dir, func(file string, _ fs.DirEntry, err error) error {
			if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			for _, site := range failures(t, file) {
				if regexp.MustCompile("(?m)" + site.pattern).MatchString(set) {
					continue
				}
				found := false
				for part := range undriven {
					if strings.Contains(site.text, part) {
						found, used[part] = true, true
					}
				}
				if !found {
					t.Errorf("%s: %q is not in testdata/errors.golden: add a command line to errors_test.go, or say in undriven why there is none", site.where, site.text)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for part := range undriven {
		if !used[part] {
			t.Errorf("undriven names %q, which there is not, or which is driven", part)
		}
	}
}

type failure struct {
	where, text string
	pattern     string
}

// failures finds the literals fault.Error{…} of a file whose text is known as far as that it can be looked for.
func failures(t *testing.T, file string) []failure {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []failure
	add := func(n ast.Node, what, why ast.Expr) {
		text, pattern := literal(what)
		if why != nil {
			wt, wp := literal(why)
			text, pattern = text+": "+wt, pattern+": "+wp
		}
		if len(strings.NewReplacer(".*", "", ": ", "").Replace(pattern)) < 8 {
			return // nothing of its text stands here
		}
		found = append(found, failure{fset.Position(n.Pos()).String(), text, "^vaultexec: .*" + pattern})
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			sel, ok := n.Type.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Error" || fmt.Sprint(sel.X) != "fault" {
				return true
			}
			var what, why ast.Expr
			for _, e := range n.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok {
					continue
				}
				switch fmt.Sprint(kv.Key) {
				case "What":
					what = kv.Value
				case "Why":
					why = kv.Value
				}
			}
			add(n, what, why)
		case *ast.CallExpr:
			name := ""
			switch f := n.Fun.(type) {
			case *ast.SelectorExpr:
				name = f.Sel.Name
			case *ast.Ident:
				name = f.Name
			}
			if (name == "bad" || name == "pathError") && len(n.Args) == 3 || name == "lacks" && len(n.Args) == 3 {
				add(n, nil, n.Args[1])
			}
		}
		return true
	})
	return found
}

// literal is what is known of a text: its constant parts, with .* for the others.
func literal(e ast.Expr) (text, pattern string) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil {
			pattern = regexp.MustCompile(`%[a-z]|%04o|%%`).ReplaceAllString(regexp.QuoteMeta(s), ".*")
			return s, pattern
		}
	case *ast.BinaryExpr:
		a, ap := literal(e.X)
		b, bp := literal(e.Y)
		return a + b, ap + bp
	case *ast.CallExpr:
		if sel, ok := e.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sprintf" && len(e.Args) > 0 {
			return literal(e.Args[0])
		}
	}
	return "…", ".*"
}
