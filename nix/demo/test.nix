# Tests of the composition: evaluates to the names of those that fail, so to [ ].
#
#   nix-instantiate --eval --strict nix/demo/test.nix
let
  collection = import ./. { };
  inherit (import ./lib.nix) callPackageWith makeOverridable;
  inherit (collection) callPackage hello hello_1_0 hello_1_1 welcome welcome_1_0;

  same = a: b: a.drvPath == b.drvPath;

  tests = {
    "system is a parameter" =
      let other = import ./. { system = "i686-linux"; };
      in other.welcome.system == "i686-linux" && !same other.welcome welcome && !same other.phrasebook collection.phrasebook;

    "arguments come from the collection by name" =
      (callPackageWith { a = 1; b = 2; c = 3; } ({ a, b }: { sum = a + b; }) { }).sum == 3;

    "what the function does not name is not passed" =
      (callPackageWith { a = 1; b = 2; } ({ a, ... }@args: { names = builtins.attrNames args; }) { }).names == [ "a" ];

    "a default is used for what the collection lacks" =
      (callPackageWith { a = 1; } ({ a, b ? 5 }: { sum = a + b; }) { }).sum == 6;

    "an explicit argument wins" =
      (callPackageWith { a = 1; } ({ a }: { inherit a; }) { a = 2; }).a == 2
      && same (callPackage ./pkgs/welcome { hello = hello_1_0; }) welcome_1_0;

    "override replaces an argument" = same (hello.override { version = "1.0"; }) hello_1_0;

    "override keeps the other arguments, and can be repeated" =
      let f = makeOverridable ({ a, b }: { inherit a b; }) { a = 1; b = 2; };
      in ((f.override { a = 3; }).override { b = 4; }).a == 3
        && same ((hello.override { version = "1.0"; }).override { version = "1.1"; }) hello_1_1;

    "overriding a package in the collection changes what depends on it" =
      let other = import ./. { overrides = self: super: { hello = super.hello_1_0; }; };
      in same other.welcome welcome_1_0 && same other.phrasebook collection.phrasebook;

    "an override reaches dependents of dependents" =
      let other = import ./. { overrides = self: super: { phrasebook = super.phrasebook // { outPath = "/other"; }; }; };
      in other.hello.phrasebook.outPath == "/other" && other.welcome.hello.phrasebook.outPath == "/other";

    "two versions, and the newer one is the default" =
      !same hello_1_0 hello_1_1 && same hello hello_1_1 && !same welcome welcome_1_0;
  };
in
builtins.filter (name: !tests.${name}) (builtins.attrNames tests)
