# A program that uses a library. The version is an argument like any other, so that the collection can have two.
{ mkDerivation, phrasebook, version }:

mkDerivation {
  name = "hello-${version}";

  inherit phrasebook;
  program = ./. + "/hello-${version}.sh";
  manual = ./. + "/hello-${version}.1";

  buildCommand = ''
    mkdir -p "$out/bin" "$out/share/man/man1"
    sed "s|@phrasebook@|$phrasebook|g" "$program" > "$out/bin/hello"
    chmod +x "$out/bin/hello"
    cp "$manual" "$out/share/man/man1/hello.1"

    # A symbolic link into another package is a reference as well.
    ln -s "$phrasebook/share/phrasebook" "$out/share/phrasebook"
  '';

  meta.description = "Greets in one of many languages";
}
