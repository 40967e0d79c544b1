package storepath

import "testing"

const (
	relinkHave  Path = "0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c-have"
	relinkOther Path = "0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d-other"
)

func TestRelink(t *testing.T) {
	have := relinkHave
	held := func(p Path) bool { return p == have }
	long := make([]byte, maxTarget)
	for i := range long {
		long[i] = 'x'
	}
	fits := "/" + string(long[:maxTarget-3*2-len(have)-1])
	for _, c := range []struct {
		name, target string
		depth        int
		want         string
	}{
		{"root of the path", "/nix/store/" + string(have), 0, string(have)},
		{"one deep", "/nix/store/" + string(have) + "/bin/x", 1, "../" + string(have) + "/bin/x"},
		{"three deep", "/nix/store/" + string(have), 3, "../../../" + string(have)},
		{"trailing slash", "/nix/store/" + string(have) + "/", 1, "../" + string(have) + "/"},
		{"dots behind", "/nix/store/" + string(have) + "/../x", 1, "../" + string(have) + "/../x"},
		{"not held", "/nix/store/" + string(relinkOther), 1, "/nix/store/" + string(relinkOther)},
		{"longer name", "/nix/store/" + string(have) + "2/x", 1, "/nix/store/" + string(have) + "2/x"},
		{"double slash", "/nix/store//" + string(have), 1, "/nix/store//" + string(have)},
		{"other store", "/nix/store2/" + string(have), 1, "/nix/store2/" + string(have)},
		{"store itself", "/nix/store", 1, "/nix/store"},
		{"store with slash", "/nix/store/", 1, "/nix/store/"},
		{"relative", "../" + string(have), 1, "../" + string(have)},
		{"not a store path", "/nix/store/.links/x", 1, "/nix/store/.links/x"},
		{"empty", "", 1, ""},
		{"just fits", "/nix/store/" + string(have) + fits, 2, "../../" + string(have) + fits},
		{"too long", "/nix/store/" + string(have) + fits + "x", 2, "/nix/store/" + string(have) + fits + "x"},
	} {
		if got := Relink(c.target, "/nix/store", c.depth, held); got != c.want {
			t.Errorf("%s: Relink(%.60q, %d) = %.60q, want %.60q", c.name, c.target, c.depth, got, c.want)
		}
	}
}

func FuzzRelink(f *testing.F) {
	f.Add("/nix/store/"+string(relinkHave)+"/x", 3)
	f.Add("/nix/store/", 0)
	f.Add("x", 1)
	f.Fuzz(func(t *testing.T, target string, depth int) {
		depth &= 4095
		got := Relink(target, "/nix/store", depth, func(Path) bool { return true })
		if got != target && len(got) > maxTarget {
			t.Errorf("Relink made a target of %d bytes", len(got))
		}
	})
}
