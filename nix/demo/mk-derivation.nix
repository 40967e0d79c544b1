# mkDerivation { name, buildCommand, meta ? { }, ... }: a derivation that runs buildCommand, a piece of shell, in an empty
# temporary directory. Every other attribute becomes an environment variable, and `meta` stays in the expression: changing
# a description rebuilds nothing.
{ system }:

{ buildCommand, meta ? { }, ... }@attrs:

derivation (removeAttrs attrs [ "buildCommand" "meta" ] // {
  inherit system;
  builder = "/bin/sh";
  args = [ "-euc" buildCommand ];

  # The machine's own tools, and bytes sorted as bytes on every machine.
  PATH = "/usr/bin:/bin";
  LC_ALL = "C";
}) // { inherit meta; }
