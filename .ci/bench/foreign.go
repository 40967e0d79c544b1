package main

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

// foreignComparisons are about one file of a foreign archive.
func foreignComparisons() []comparison {
	cat := row{"narvault cat", `"$narvault" cat foreign "$(cat inside)" > /dev/null`, ""}
	nix := row{"nix store cat", `nix store cat --store "file://$PWD/foreign" "$(cat inside)" > /dev/null`, ""}
	return []comparison{
		{name: "foreign xz, first touch", prepare: forgetSpool, rows: []row{
			cat, {"xz -dc", `xz -dc -T1 foreign.nar.xz > /dev/null`, ""}, nix,
		}},
		{name: "foreign xz, second touch", prepare: keepSpool, rows: []row{cat, nix}},
	}
}
