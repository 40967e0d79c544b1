package main

// A system is a way to have the tree of the corpus as files.
type system struct {
	name    string
	needs   []string // programs
	check   string   // script that fails when something else is missing
	prepare string   // script that makes what is mounted
	archive string   // what it makes: a file or directory
	mount   string   // command that serves it on mnt in the foreground; none: there is nothing to mount
	tree    string   // where the store paths are: below the mountpoint, or without one
	status  string   // file below the mountpoint that counts requests, if there is one
}

// systems returns ours, which is what the ratios are about, and its peers. The
// peers that compress do it as zstd -9 does; that hardly matters to a reader.
func systems() []system {
	return []system{
		{
			name: "narvault", prepare: makeKept, archive: "kept",
			mount: `"$narvault" mount kept mnt`, tree: "releases/b/all", status: ".narvault/status.json",
		},
		{name: "native", archive: "tree", tree: "tree"}, // made for the others too
		{
			name: "squashfuse_ll", needs: []string{"squashfuse_ll", "mksquashfs"},
			prepare: `mksquashfs tree image -comp zstd -Xcompression-level 9 -b 128K -no-progress`,
			archive: "image",
			mount:   `squashfuse_ll -f image mnt`,
		},
		{
			name: "restic", needs: []string{"restic"},
			prepare: `restic -r restic init --repository-version 2; cd tree; restic -r ../restic backup -q .`,
			archive: "restic",
			mount:   `restic -r restic --no-lock mount mnt`, tree: "snapshots/latest",
		},
		{
			name: "borg", needs: []string{"borg"},
			check:   borgCheck,
			prepare: `borg init -e none borg; cd tree; borg create -C zstd,9 ../borg::all .`,
			archive: "borg",
			mount:   `borg mount --bypass-lock -f borg::all mnt`,
		},
	}
}

// borgCheck looks for what Debian's borg merely recommends, where borg's Python
// looks for it.
const borgCheck = `
	python=$(sed -n '1s/^#! *//p' "$(command -v borg)")
	$python -c 'import pyfuse3' || $python -c 'import llfuse' || { echo "neither python3-pyfuse3 nor python3-llfuse"; exit 1; }`
