# Store paths that break naive code: a store path that is a symlink, one that is a file, links of every kind, odd names.
let
  sh = name: script: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" script ];
    PATH = "/usr/bin:/bin";
  };
  store = builtins.storeDir;
  dir = sh "narvault-odd-dir" "mkdir $out; echo x > $out/f";
  link = sh "narvault-odd-link" "ln -s ${dir} $out";
  file = sh "narvault-odd-file" "echo ${link} > $out; chmod +x $out";
  twin = sh "narvault-odd-twin" "mkdir $out; echo x > $out/f";
in
sh "narvault-odd-top" ''
  mkdir -p $out/a/b $out/empty-dir
  ln -s ${dir}/f $out/a/b/f
  ln -s ${link} $out/a/l
  ln -s ${link}/f $out/a/lf
  ln -s ${store} $out/st
  ln -s ${store}/../store//$(basename ${dir})/f $out/dots
  ln -s /nix/var/nix/profiles $out/prof
  ln -s $out $out/self
  ln -s ../$(basename ${dir})/f $out/sib
  ln -s ${store}/00000000000000000000000000000000-absent/x $out/absent
  ln -s a/../a/b $out/rel
  ln -s loop $out/loop
  echo ${file} ${twin} > $out/ref
  : > $out/empty
  printf 'x' > "$out/$(printf 'latin1-\351')"
  printf 'y' > "$out/new
line"
  printf 'z' > "$out/ leading space and 'quotes' \\ backslash"
  touch $out/Case $out/case
  head -c 3000000 /dev/zero > $out/zeros
  i=0
  while [ $i -lt 400 ]; do echo "line $i of $out" >> $out/text; i=$((i + 1)); done
  d=$out
  for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do d=$d/d; done
  mkdir -p $d
  echo deep > $d/f
  printf '#!/bin/sh\necho hi\n' > $out/run
  chmod +x $out/run
''
