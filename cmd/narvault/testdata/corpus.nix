# A small corpus of real content, built from what is on this machine and downloads nothing: programs with their libraries,
# a tree of source files, one of short data files, and a profile that links to all of it, as Nixpkgs makes them.
{ go # GOROOT
}:
let
  sh = name: script: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-ec" script ];
    PATH = "/usr/bin:/bin";
  };
  # With the loader that it was made for, a program runs from wherever it lies.
  programs = [ "find" "sort" "awk" "git" "perl" "bash" ];
  libraries = sh "narvault-corpus-lib" ''
    mkdir -p $out/lib
    for p in ${toString programs}; do
      p=$(command -v $p) || continue
      ldd $p | sed -n 's,.*[ \t]\(/[^ ]*\) (.*,\1,p' | while read l; do cp -nL $l $out/lib/; done
    done
    for l in $out/lib/*.so.*; do
      short=''${l%%.so.*}.so
      test -e $short || ln -s $(basename $l) $short
    done
  '';
  tools = sh "narvault-corpus-tools" ''
    mkdir -p $out/bin $out/libexec
    for p in ${toString programs}; do
      f=$(command -v $p) || continue
      cp -L $f $out/libexec/$p
      printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' ${libraries}/lib/ld-linux*.so.* ${libraries}/lib $out/libexec/$p > $out/bin/$p
      chmod +x $out/bin/$p
    done
    ln -s ${libraries}/lib $out/lib
  '';
  source = sh "narvault-corpus-source" "mkdir $out; cp -r ${go}/src/net ${go}/src/encoding ${go}/src/text $out";
  data = sh "narvault-corpus-data" ''
    mkdir -p $out/share
    for d in terminfo /lib/terminfo perl5/Debconf doc/git doc/perl zoneinfo; do
      case $d in /*) ;; *) d=/usr/share/$d ;; esac
      if test -d $d; then cp -r $d $out/share/; fi
    done
    cp -r ${go}/src/unicode $out/share
  '';
  readme = sh "narvault-corpus-readme" "cat ${go}/LICENSE > $out; echo ${source} >> $out";
in
sh "narvault-corpus" ''
  mkdir -p $out/bin $out/share
  for p in ${tools}/bin/*; do ln -s $p $out/bin/; done
  ln -s ${libraries}/lib $out/lib
  ln -s ${source} $out/src
  ln -s ${readme} $out/README
  # One link for each file, as an environment of several packages has.
  cd ${data}/share
  find . -type d -exec sh -c 'for d; do mkdir -p "$0/share/$d"; done' $out {} +
  find . ! -type d -exec sh -c 'for f; do ln -s "${data}/share/$f" "$0/share/$f"; done' $out {} +
''
