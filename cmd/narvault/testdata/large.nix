# A store path of 6 GiB that takes no room: a hole with something at its begin, middle and end.
derivation {
  name = "narvault-large";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" ''
    mkdir $out
    echo begin > $out/large
    truncate -s 3G $out/large
    echo middle >> $out/large
    truncate -s 6G $out/large
    echo end >> $out/large
  '' ];
  PATH = "/usr/bin:/bin";
}
