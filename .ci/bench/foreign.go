package main

import "os/exec"

// makeForeign makes a binary cache of which one archive is as Nix writes it by
// default: xz in one piece, which cannot be entered in the middle. That is the
// one with the largest file of up to 40 MB, whose name is then in the file
// "inside"; its NAR file is "foreign.nar.xz". (Compressing it all takes minutes.)
const makeForeign = `
	if ! test -e foreign.nar.xz; then
		find $(cat paths) -type f -size -40M -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2- > inside
		path=$(cut -d / -f 1-4 inside)
		nix copy --to "file://$PWD/foreign?compression=none" "$path" 2> /dev/null
		info=foreign/$(basename "$path" | cut -c 1-32).narinfo
		nar=foreign/$(sed -n 's/^URL: //p' "$info")
		xz -T1 "$nar"
		sed -i -e '/^File/d' -e 's/^URL: .*/&.xz/' -e 's/^Compression: .*/Compression: xz/' "$info"
		ln "$nar.xz" foreign.nar.xz
	fi`

// forgetSpool makes the next touch the first one.
const forgetSpool = makeForeign + "\n" + `rm -rf "$XDG_CACHE_HOME/narvault/spool"`

// keepSpool sees to it that there has been one.
const keepSpool = makeForeign + "\n" + `"$narvault" cat foreign "$(cat inside)" > /dev/null`

// makeBlocks makes a cache of that archive alone, in xz blocks of 1 MiB, and of
// the store path an image for squashfuse.
const makeBlocks = makeForeign + `
	if ! test -d blocks; then
		cp -r foreign making
		find making -name '*.narinfo' ! -name "$(cut -d / -f 4 inside | cut -c 1-32).narinfo" -delete
		xz -dc foreign.nar.xz | xz -T2 --block-size=1MiB > "making/nar/$(basename foreign/nar/*.nar.xz)"
		if command -v mksquashfs > /dev/null; then
			mksquashfs "$(cut -d / -f 1-4 inside)" xz.image -comp xz -b 128K -no-progress -quiet
		fi
		mv making blocks
	fi
	mkdir -p mnt`

// readMounted mounts with the command that follows, reads all files below a
// directory of the mount, and unmounts.
const readMounted = `
	read_mounted() {
		at=mnt/$1
		shift
		"$@" > /dev/null &
		until mountpoint -q mnt; do sleep 0.01; done
		find "$at" -type f -exec cat {} + > /dev/null
		umount mnt || fusermount3 -u mnt
		wait
	}
	`

// foreignComparisons are about one archive of a foreign cache.
func foreignComparisons() []comparison {
	cat := row{"narvault cat", `"$narvault" cat foreign "$(cat inside)" > /dev/null`, ""}
	nix := row{"nix store cat", `nix store cat --store "file://$PWD/foreign" "$(cat inside)" > /dev/null`, ""}
	blocks := []row{{"narvault mount", readMounted + `read_mounted store/$(cut -d / -f 4 inside) "$narvault" mount blocks mnt`, ""}}
	if _, err := exec.LookPath("squashfuse_ll"); err == nil {
		blocks = append(blocks, row{"squashfuse_ll, xz", readMounted + `read_mounted . squashfuse_ll -f xz.image mnt`, ""})
	}
	return []comparison{
		{name: "foreign xz, first touch", prepare: forgetSpool, rows: []row{
			cat, {"xz -dc", `xz -dc -T1 foreign.nar.xz > /dev/null`, ""}, nix,
		}},
		{name: "foreign xz, second touch", prepare: keepSpool, rows: []row{cat, nix}},
		{name: "xz in blocks, mounted and read", prepare: makeBlocks, rows: blocks},
	}
}
