package narinfo

import "testing"

// TestSetFile gives a narinfo another NAR file; all else in it stays.
func TestSetFile(t *testing.T) {
	const (
		head = "StorePath: /nix/store/dlz82d9mvn0cnz661p8sjwnxhy9n2klc-x\n"
		tail = "NarHash: sha256:02nkj0cj65yj0vxir784jzj078mspdpv7q5a1pdfillplnlqfppl\nNarSize: 224\nReferences: \nOdd: field\nSig: k:x\n"
		want = head + "URL: nar/y.nar.zst\nCompression: zstd\nFileHash: sha256:y\nFileSize: 5\n" + tail
	)
	file := &NarInfo{URL: "nar/y.nar.zst", Compression: "zstd", FileHash: "sha256:y", FileSize: 5}
	for name, text := range map[string]string{
		"all fields":   head + "URL: x.nar.xz\nCompression: xz\nFileHash: sha256:x\nFileSize: 12\n" + tail,
		"few fields":   head + "URL: x.nar.bz2\n" + tail,
		"out of order": head + "FileSize: 12\nURL: x.nar.xz\n" + tail + "Compression: xz\n",
		"the same":     want,
	} {
		if got := string(SetFile([]byte(text), file)); got != want {
			t.Errorf("%s: got\n%s", name, got)
		}
	}
}
