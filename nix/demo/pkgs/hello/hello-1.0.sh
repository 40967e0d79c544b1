#!/bin/sh
# hello - greet in one of many languages
set -eu
. @phrasebook@/lib/phrasebook.sh

usage() {
	echo "usage: hello [-t HH:MM] [LANGUAGE]" >&2
	exit 2
}

time=$(date +%H:%M)
while getopts t: option; do
	case $option in
	t) time=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -le 1 ] || usage

phrasebook_greeting "${1:-en}" "$time"
