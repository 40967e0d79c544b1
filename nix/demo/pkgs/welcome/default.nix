# A script that uses the program. Its manual is an output of its own: another hello gives it another store path, though its
# content stays the same.
{ mkDerivation, hello }:

mkDerivation {
  name = "welcome-0.4";
  outputs = [ "out" "man" ];

  inherit hello;
  script = ./welcome.sh;
  manual = ./welcome.1;

  buildCommand = ''
    mkdir -p "$man/share/man/man1"
    cp "$manual" "$man/share/man/man1/welcome.1"

    mkdir -p "$out/bin" "$out/share"
    sed "s|@hello@|$hello|g" "$script" > "$out/bin/welcome"
    chmod +x "$out/bin/welcome"
    ln -s "$man/share/man" "$out/share/man"
  '';

  meta.description = "Welcomes visitors from many countries";
}
