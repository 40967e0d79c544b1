package narinfo

import (
	"bytes"
	"fmt"
)

// SetFile returns the text of a narinfo that names another NAR file: what info
// says of the file replaces what the text says. Whatever else is in it, unknown
// fields included, stays as it is.
func SetFile(text []byte, info *NarInfo) []byte {
	var out []byte
	done := false
	for line := range bytes.Lines(text) {
		key, _, _ := bytes.Cut(line, []byte(": "))
		switch string(key) {
		case "URL", "Compression", "FileHash", "FileSize":
			if !done { // all at the place of the first
				out = append(out, fileFields(info)...)
				done = true
			}
		default:
			out = append(out, line...)
		}
	}
	return out
}

// fileFields are the lines of a narinfo that tell of its NAR file, as Bytes has
// them.
func fileFields(info *NarInfo) []byte {
	text := fmt.Appendf(nil, "URL: %s\n", info.URL)
	if info.Compression != "" {
		text = fmt.Appendf(text, "Compression: %s\n", info.Compression)
	}
	if info.FileHash != "" {
		text = fmt.Appendf(text, "FileHash: %s\n", info.FileHash)
	}
	if info.FileSize > 0 {
		text = fmt.Appendf(text, "FileSize: %d\n", info.FileSize)
	}
	return text
}
