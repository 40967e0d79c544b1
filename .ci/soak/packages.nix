# What is backed up: packages in layers, each of which refers to some of the layer below. Some have the same content
# under different names, so that NAR files are shared.
let
  build = name: content: deps: derivation {
    inherit name content deps;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-euc" ''
      mkdir $out
      echo "$deps" > $out/deps
      yes "$content" | head -c 500000 > $out/content
      printf '#!/bin/sh\necho %s\n' "$content" > $out/run; chmod +x $out/run; ln -s content $out/link
    '' ];
  };
  layer = n: deps: builtins.genList (i: build "soak-${toString n}-${toString i}" "${toString n} ${toString (i / 2)}"
    (builtins.genList (k: builtins.elemAt deps ((i * 3 + k * 5) - ((i * 3 + k * 5) / builtins.length deps) * builtins.length deps)) (if deps == [ ] then 0 else 3))) 8;
  l0 = layer 0 [ ];
  l1 = layer 1 l0;
  l2 = layer 2 l1;
  l3 = layer 3 l2;
in l2 ++ l3
