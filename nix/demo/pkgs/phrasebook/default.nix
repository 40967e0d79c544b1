# A library: shell functions and the data files that they read.
{ mkDerivation }:

mkDerivation {
  name = "phrasebook-2.3";

  languages = ./languages.tsv;
  library = ./phrasebook.sh;
  timetable = ./timetable.awk;

  buildCommand = ''
    data=$out/share/phrasebook
    mkdir -p "$out/lib" "$data/timetable"
    cp "$languages" "$data/languages.tsv"
    awk -f "$timetable" -v dir="$data/timetable" "$languages"

    # The library finds its data by its own store path: a reference to itself.
    sed "s|@out@|$out|g" "$library" > "$out/lib/phrasebook.sh"
  '';

  meta.description = "Greetings in many languages, for shell programs";
}
