#!/bin/sh
# welcome - welcome visitors, each in their language
set -eu

[ $# -gt 0 ] || set -- en
for language; do
	greeting=$(@hello@/bin/hello "$language")
	printf '%s: %s!\n' "$language" "$greeting"
done
