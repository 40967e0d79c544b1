# A closure of every kind of store path that check tells apart, a few hundred bytes in all: two equal contents, a file, a
# self-reference, and one that is content-addressed.
let
  sh = name: script: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" script ];
    PATH = "/usr/bin:/bin";
  };
  note = builtins.toFile "note" "a file whose content is its address\n";
  lib = sh "lib" "mkdir $out; echo library > $out/file; ln -s file $out/link";
  twin = sh "twin" "mkdir $out; echo library > $out/file; ln -s file $out/link";
in
sh "top" "mkdir -p $out/bin; echo ${lib} ${twin} ${note} $out > $out/bin/run; chmod +x $out/bin/run"
