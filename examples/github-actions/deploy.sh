#!/bin/sh
: "${DEPLOY_TOKEN:?}"
echo "deploying as $DEPLOY_USER"
