package nixstore

import (
	"strings"
	"testing"
)

func TestParseRealisations(t *testing.T) {
	const path = "nlwh9jwvv75qbqsp510w9q9aq2l4zqs2-narvault-ca-top"
	id := "sha256:" + strings.Repeat("0a", 32) + "!out"
	good := `{"dependentRealisations":{},"id":"` + id + `","outPath":"` + path + `","signatures":[]}`
	odd := []string{
		`{"opaquePath":"/nix/store/` + path + `"}`,
		`{"id":"../../x!out","outPath":"` + path + `"}`,
		`{"id":"` + id + `/x","outPath":"` + path + `"}`,
		`{"id":"` + id + `","outPath":"../x"}`,
	}
	found, err := parseRealisations([]byte("[" + strings.Join(odd, ",") + ", " + good + "]\n"))
	if err != nil || len(found) != 1 || found[0].ID != id || found[0].Path != path || string(found[0].Text) != good {
		t.Errorf("got %+v, %v", found, err)
	}
	for _, text := range []string{"", "{}", "[1]", `[{"id": 1}]`} {
		if found, err := parseRealisations([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, found)
		}
	}
}
